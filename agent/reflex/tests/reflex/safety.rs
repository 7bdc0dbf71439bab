//! No sequence of observations drives a pin outside its limits.
//!
//! The checker below knows the limits of the file as numbers of its own and looks only at
//! observations and outputs; it shares no code with the gate.

use ocelli_reflex::observation::{
    Answer, Approval, Cause, Change, Fault, Frame, HookVerdict, Link, Outcome, Quality, Stage,
    Value,
};
use ocelli_reflex::output::{Act, ApprovalRequest, Deed};
use ocelli_reflex::{
    ActId, CallId, Inventory, LocalTime, LookId, Now, Observation, Output, PinIndex, Policy,
    Probability, QuestionId, RequestId, State, Text, load, step, text,
};
use proptest::prelude::*;
use std::collections::HashMap;

const PINS: [&str; 5] = [
    "[pins.lamp]\nline = \"GPIO1\"\ndirection = \"out\"\nsafe = \"off\"\nreversible = true\nmax_on = \"5 s\"\nmin_off = \"500 ms\"\ndwell = \"1 s\"\nrate = { count = 3, per = \"20 s\" }\nevidence = \"3 s\"\n",
    "[pins.motor]\nline = \"GPIO2\"\ndirection = \"out\"\nsafe = \"off\"\nreversible = true\ndead_man = \"4 s\"\nneeds_link = \"serial\"\ninterlocks = [{ pin = \"door\", is = \"active\" }, { pin = \"lock\", is = \"active\" }]\n",
    "[pins.lock]\nline = \"GPIO3\"\ndirection = \"out\"\nsafe = \"on\"\nmax_on = \"8 s\"\nmin_off = \"1 s\"\nevidence = \"6 s\"\nrate = { count = 2, per = \"15 s\" }\n",
    "[pins.servo]\nline = \"servos/4\"\ndirection = \"out\"\nvalues = [0, 180]\nsafe = 90\nreversible = true\ndwell = \"500 ms\"\nrate = { count = 6, per = \"10 s\" }\ninterlocks = [{ pin = \"lamp\", is = \"inactive\" }]\n",
    "[pins.door]\nline = \"GPIO5\"\ndirection = \"in\"\n",
];

const REST: &str = r#"
[topics.a]
path = "a"
direction = "in"
[topics.b]
path = "b"
direction = "in"
[topics.say]
path = "say"
direction = "out"
[hooks.guard]
command = ["guard"]
before = "set"
timeout = "1 s"
[[rules]]
id = "look"
priority = 3
when = [{ topic = "a" }, { pin = "door", edge = "both" }]
ask = { question = "?", choices = ["yes", "no"], expect = "yes", threshold = 0.5, early = true, deadline = "20 s" }
then = [{ set = "lamp", value = "on", for = "3 s" }, { set = "lock", value = 0 }, { event = "seen" }]
else = [{ set = "lamp", value = "off" }, { set = "motor", value = "on" }]
[[rules]]
id = "moved"
when = { change = "porch" }
then = [{ set = "lamp", value = "on" }, { set = "lock", value = 0 }, { set = "motor", value = "on" }]
[[rules]]
id = "count"
when = { topic = "b" }
ask = { question = "?", count = [0, 20], expect = [1, 20], threshold = 0.5, agree = { need = 2, of = 3, gap = "100 ms" } }
then = [{ set = "servo", value = "answer", times = 9 }]
[[rules]]
id = "pick"
when = { every = "2 s" }
choose = { question = "?", steps = 3, actions = [{ set = "lamp", value = "on", says = "lamp" }, { set = "motor", value = "on", says = "motor" }, { set = "servo", value = 17, says = "servo" }] }
[[rules]]
id = "chained"
when = [{ rule = "count" }, { rule = "look", ends = "else" }]
then = [{ set = "lamp", value = "on" }, { set = "motor", value = "on", for = "2 s" }]
"#;

const LINES: [&str; 3] = [
    "[[permissions]]\neffect = \"allow\"\naction = \"set\"\ntarget = [\"lamp\", \"motor\", \"servo\"]\nrate = { count = 12, per = \"30 s\" }\n",
    "[[permissions]]\neffect = \"ask\"\naction = \"set\"\ntarget = \"lock\"\nvia = \"mqtt\"\nexpires = \"5 s\"\n",
    "[[permissions]]\neffect = \"deny\"\naction = \"set\"\ntarget = \"motor\"\nduring = { from = \"22:00\", to = \"23:00\" }\n",
];

/// Limits as the file states them.
struct Limit {
    name: &'static str,
    range: (i32, i32),
    safe: i32,
    max_on: Option<u64>,
    min_off: u64,
    dwell: u64,
    dead_man: Option<u64>,
    rate: Option<(usize, u64)>,
    evidence: Option<u64>,
}

const LIMITS: [Limit; 4] = [
    Limit {
        name: "lamp",
        range: (0, 1),
        safe: 0,
        max_on: Some(5_000),
        min_off: 500,
        dwell: 1_000,
        dead_man: None,
        rate: Some((3, 20_000)),
        evidence: Some(3_000),
    },
    Limit {
        name: "motor",
        range: (0, 1),
        safe: 0,
        max_on: None,
        min_off: 0,
        dwell: 0,
        dead_man: Some(4_000),
        rate: None,
        evidence: None,
    },
    Limit {
        name: "lock",
        range: (0, 1),
        safe: 1,
        max_on: Some(8_000),
        min_off: 1_000,
        dwell: 0,
        dead_man: None,
        rate: Some((2, 15_000)),
        evidence: Some(6_000),
    },
    Limit {
        name: "servo",
        range: (0, 180),
        safe: 90,
        max_on: None,
        min_off: 0,
        dwell: 500,
        dead_man: None,
        rate: Some((6, 10_000)),
        evidence: None,
    },
];

/// A file with its tables in one order or another.
fn policy(order: &[usize; 5], lines: &[usize; 3]) -> Policy {
    let mut text = String::from("format = 1\nzones = [\"porch\"]\n");
    for at in order {
        text.push_str(PINS[*at]);
    }
    text.push_str(REST);
    for at in lines {
        text.push_str(LINES[*at]);
    }
    load(&text, &Inventory::default())
        .unwrap_or_else(|rejected| panic!("{rejected}"))
        .policy
}

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Back(u64),
    Start,
    Stop,
    Reload(bool),
    Message {
        topic: bool,
        link: u8,
        retained: bool,
    },
    Door {
        level: bool,
        initial: bool,
    },
    Change {
        age: u64,
    },
    Show {
        which: usize,
        age: u64,
        good: bool,
    },
    Answer {
        which: usize,
        value: Value,
        share: u16,
        unsure: bool,
        early: bool,
        age: u64,
    },
    Approve {
        which: usize,
        granted: bool,
        forge: u64,
        link: u8,
        retained: bool,
    },
    Hook {
        which: usize,
        verdict: u8,
    },
    Finish {
        which: usize,
        outcome: u8,
    },
    Link {
        link: u8,
        up: bool,
    },
    Fault {
        fault: u8,
        active: bool,
    },
    Clock(Option<u32>),
    /// A start after which everything is well.
    Recover,
    /// A message, and all that leads from it to an action without trouble.
    Drive {
        topic: bool,
        choice: Value,
        pause: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    // Mostly the newest of what is open; sometimes an old one.
    let which = || prop_oneof![6 => Just(0_usize), 1 => 0_usize..6];
    let age = || prop_oneof![4 => Just(0_u64), 2 => 0_u64..8_000, 1 => any::<u64>()];
    let value = prop_oneof![
        4 => Just(Value::Choice(0)),
        3 => (0_u8..5).prop_map(Value::Choice),
        4 => (0_u32..25).prop_map(Value::Count),
        1 => any::<u32>().prop_map(Value::Count),
    ];
    prop_oneof![
        12 => prop_oneof![4 => 0_u64..400, 4 => 0_u64..6_000, 1 => 0_u64..100_000_000, 1 => any::<u64>()].prop_map(Event::Wait),
        1 => prop_oneof![3 => 1_u64..5_000, 1 => any::<u64>()].prop_map(Event::Back),
        1 => Just(Event::Start),
        1 => Just(Event::Stop),
        1 => any::<bool>().prop_map(Event::Reload),
        8 => (any::<bool>(), prop_oneof![8 => Just(1_u8), 1 => 0_u8..4], prop::bool::weighted(0.1))
            .prop_map(|(topic, link, retained)| Event::Message { topic, link, retained }),
        5 => (prop::bool::weighted(0.3), any::<bool>()).prop_map(|(level, initial)| Event::Door { level, initial }),
        8 => age().prop_map(|age| Event::Change { age }),
        12 => (which(), age(), prop::bool::weighted(0.9)).prop_map(|(which, age, good)| Event::Show { which, age, good }),
        16 => (which(), value, prop_oneof![4 => Just(u16::MAX), 1 => any::<u16>()], prop::bool::weighted(0.05), prop::bool::weighted(0.2), age())
            .prop_map(|(which, value, share, unsure, early, age)| Event::Answer { which, value, share, unsure, early, age }),
        8 => (which(), prop::bool::weighted(0.9), prop_oneof![6 => Just(0_u64), 1 => any::<u64>()], prop_oneof![8 => Just(1_u8), 1 => 0_u8..4], prop::bool::weighted(0.05))
            .prop_map(|(which, granted, forge, link, retained)| Event::Approve { which, granted, forge, link, retained }),
        20 => (which(), prop_oneof![8 => Just(0_u8), 1 => 0_u8..3]).prop_map(|(which, verdict)| Event::Hook { which, verdict }),
        4 => (which(), 0_u8..3).prop_map(|(which, outcome)| Event::Finish { which, outcome }),
        5 => (prop_oneof![2 => Just(0_u8), 1 => 0_u8..4], prop::bool::weighted(0.8)).prop_map(|(link, up)| Event::Link { link, up }),
        1 => (0_u8..6, prop::bool::weighted(0.3)).prop_map(|(fault, active)| Event::Fault { fault, active }),
        1 => prop::option::of(0_u32..86_400).prop_map(Event::Clock),
        3 => Just(Event::Recover),
        14 => (any::<bool>(), prop_oneof![3 => Just(Value::Choice(0)), 2 => Just(Value::Choice(1)), 4 => (1_u32..20).prop_map(Value::Count)], 0_u64..900)
            .prop_map(|(topic, choice, pause)| Event::Drive { topic, choice, pause }),
    ]
}

/// What the checker believes about a pin.
#[derive(Clone, Default)]
struct Belief {
    value: i32,
    on_since: Option<u64>,
    off_since: Option<u64>,
    changed: Option<u64>,
    refreshed: u64,
    must_end: Option<u64>,
    sets: Vec<u64>,
}

#[derive(Default)]
struct Checker {
    ms: Option<u64>,
    /// Elapsed time; stands still while the given clock goes back.
    time: u64,
    running: bool,
    door: Option<bool>,
    links: [bool; 4],
    local: Option<u32>,
    pins: Vec<Belief>,
    /// When each picture was taken, in elapsed time; `None` if that cannot be told.
    frames: HashMap<u64, Option<i128>>,
    requests: HashMap<RequestId, (ApprovalRequest, u64)>,
    line_sets: Vec<u64>,
    /// Switched on at least once, to tell that the test tests something.
    switched: [usize; 4],
}

impl Checker {
    fn new() -> Checker {
        let pins = LIMITS.iter().map(|limit| Belief {
            value: limit.safe,
            ..Belief::default()
        });
        Checker {
            pins: pins.collect(),
            ..Checker::default()
        }
    }

    fn all_off(&mut self) {
        for at in 0..LIMITS.len() {
            self.off(at);
        }
    }

    fn off(&mut self, at: usize) {
        let pin = &mut self.pins[at];
        if pin.on_since.take().is_some() {
            pin.off_since = Some(self.time);
            pin.changed = Some(self.time);
        }
        pin.value = LIMITS[at].safe;
        pin.must_end = None;
    }

    fn is_on(&self, name: &str) -> bool {
        let at = LIMITS.iter().position(|limit| limit.name == name).unwrap();
        self.pins[at].on_since.is_some()
    }

    /// Takes in an observation before the outputs to it.
    fn before(&mut self, observation: &Observation, now: Now) -> bool {
        let went_back = self.ms.is_some_and(|last| now.ms < last);
        self.time += self
            .ms
            .map_or(0, |last| now.ms.saturating_sub(last))
            .min(1 << 40);
        self.ms = Some(now.ms);
        self.local = now.local.map(|local| local.second);
        match observation {
            Observation::Start { .. } => {
                self.running = true;
                self.door = None;
                self.links = [false; 4];
                for (pin, limit) in self.pins.iter_mut().zip(&LIMITS) {
                    *pin = Belief {
                        value: limit.safe,
                        off_since: Some(self.time),
                        changed: Some(self.time),
                        sets: std::mem::take(&mut pin.sets),
                        ..Belief::default()
                    };
                }
            }
            Observation::Pin { level, .. } => self.door = Some(*level),
            Observation::Link { link, up } => self.links[*link as usize] = *up,
            Observation::Change(change) => self.saw(change.frame),
            Observation::Looked {
                frame: Some(frame), ..
            } => self.saw(*frame),
            _ => {}
        }
        went_back
    }

    fn saw(&mut self, frame: Frame) {
        let ms = self.ms.unwrap();
        let age = ms.checked_sub(frame.time);
        let taken = age.map(|age| i128::from(self.time) - i128::from(age));
        self.frames.insert(frame.id, taken);
    }

    fn after(
        &mut self,
        policy: &Policy,
        observation: &Observation,
        outputs: &[Output],
        back: bool,
    ) {
        if back && self.running && !matches!(observation, Observation::Start { .. }) {
            let safe = outputs
                .iter()
                .any(|output| matches!(output, Output::AllPinsSafe(_)));
            assert!(safe, "the clock went back and pins stay as they are");
        }
        for output in outputs {
            match output {
                Output::PinSafe(safe) => {
                    let at = index(policy, safe.pin);
                    assert_eq!(safe.value, LIMITS[at].safe);
                    self.off(at);
                }
                Output::AllPinsSafe(_) => self.all_off(),
                Output::Act(act) => self.act(policy, observation, act),
                Output::RequestApproval(request) => {
                    self.requests
                        .insert(request.id, (request.clone(), self.time));
                }
                _ => {}
            }
        }
        if matches!(observation, Observation::Stop) {
            self.running = false;
        }
        self.hold_limits();
    }

    fn act(&mut self, policy: &Policy, observation: &Observation, act: &Act) {
        let Deed::Set { pin, value, within } = act.deed else {
            return;
        };
        let at = index(policy, pin);
        let limit = &LIMITS[at];
        let name = limit.name;
        let now = self.time;
        assert!(self.running, "{name} is set while the agent rests");
        assert!(
            (limit.range.0..=limit.range.1).contains(&value),
            "{name} = {value}: range"
        );
        self.passed_the_guard(observation, name);
        if name == "lock" {
            self.approved(observation);
        } else {
            let recent = self
                .line_sets
                .iter()
                .filter(|time| now - **time < 30_000)
                .count();
            assert!(recent < 12, "{name}: rate of the line");
            self.line_sets.push(now);
        }
        if name == "motor" {
            let denied = self
                .local
                .is_none_or(|second| (22 * 3600..23 * 3600).contains(&second));
            assert!(!denied, "motor: denied at this time of day");
        }
        if value == limit.safe {
            self.off(at);
            return;
        }
        self.switched[at] += 1;
        self.interlocks(name);
        if let Some(oldest) = limit.evidence {
            let evidence = act.evidence.unwrap_or_else(|| panic!("{name}: no picture"));
            let taken = self.frames[&evidence.frame];
            let taken = taken.unwrap_or_else(|| panic!("{name}: a picture of no known age"));
            let age = i128::from(now) - taken;
            assert!(age <= i128::from(oldest), "{name}: picture {age} ms old");
        }
        let pin = &mut self.pins[at];
        if pin.value != value {
            assert!(
                pin.changed.is_none_or(|time| now - time >= limit.dwell),
                "{name}: dwell"
            );
            pin.changed = Some(now);
        }
        if pin.on_since.is_none() {
            assert!(
                pin.off_since.is_none_or(|time| now - time >= limit.min_off),
                "{name}: off"
            );
            pin.on_since = Some(now);
        }
        if let Some((count, per)) = limit.rate {
            let recent = pin.sets.iter().filter(|time| now - **time < per).count();
            assert!(recent < count, "{name}: rate");
        }
        pin.sets.push(now);
        pin.value = value;
        pin.refreshed = now;
        let on = now - pin.on_since.unwrap();
        let hold = match (policy.rule(act.rule).unwrap().id.as_str(), name) {
            ("look", "lamp") => Some(3_000),
            ("chained", "motor") => Some(2_000),
            _ => None,
        };
        let max_on = limit.max_on.map(|time| time.saturating_sub(on));
        let longest = [max_on, limit.dead_man, hold];
        for longest in longest.into_iter().flatten() {
            assert!(
                within.is_some_and(|within| within <= longest),
                "{name}: told to stay on"
            );
        }
        pin.must_end = within.map(|within| now + within);
    }

    /// Every pin is set in answer to a hook that passes, or to a person after that.
    fn passed_the_guard(&self, observation: &Observation, name: &str) {
        let passed = match observation {
            Observation::Hook { verdict, .. } => *verdict == HookVerdict::Pass,
            Observation::Approval(_) => name == "lock",
            _ => false,
        };
        assert!(passed, "{name} is set past the hook by {observation:?}");
    }

    fn approved(&self, observation: &Observation) {
        let Observation::Approval(approval) = observation else {
            panic!("the lock is set without a person, by {observation:?}");
        };
        let (request, asked) = &self.requests[&approval.request];
        assert!(approval.granted, "the lock is set after a no");
        assert_eq!(
            approval.nonce, request.nonce,
            "the lock is set by a forgery"
        );
        assert_eq!(
            approval.link,
            Link::Mqtt,
            "the lock is set over the wrong link"
        );
        assert!(!approval.retained, "the lock is set by a kept message");
        assert!(
            self.time - asked < 5_000,
            "the lock is set by a late approval"
        );
    }

    fn interlocks(&self, name: &str) {
        match name {
            "motor" => {
                assert_eq!(self.door, Some(false), "the motor runs against the door");
                assert!(!self.is_on("lock"), "the motor runs against the lock");
                assert!(
                    self.links[Link::Serial as usize],
                    "the motor runs without its link"
                );
            }
            "lock" => assert!(!self.is_on("motor"), "the lock opens while the motor runs"),
            "servo" => assert!(self.is_on("lamp"), "the servo moves in the dark"),
            _ => {}
        }
    }

    /// What must hold after every step.
    fn hold_limits(&self) {
        for (pin, limit) in self.pins.iter().zip(&LIMITS) {
            let Some(since) = pin.on_since else { continue };
            let name = limit.name;
            let (now, on) = (self.time, self.time - since);
            assert!(self.running, "{name} is on while the agent rests");
            assert!(
                limit.max_on.is_none_or(|time| on < time),
                "{name}: on for {on} ms"
            );
            let dead = |time: u64| now - pin.refreshed < time;
            assert!(limit.dead_man.is_none_or(dead), "{name}: dead man");
            assert!(
                pin.must_end.is_none_or(|end| now < end),
                "{name}: past its time"
            );
            self.interlocks(name);
        }
    }
}

fn index(policy: &Policy, pin: PinIndex) -> usize {
    let name = &policy.pin(pin).unwrap().name;
    LIMITS.iter().position(|limit| limit.name == name).unwrap()
}

/// What outputs opened, oldest first; closed ones stay, to be played again.
#[derive(Default)]
struct Open {
    looks: Vec<LookId>,
    asks: Vec<QuestionId>,
    requests: Vec<ApprovalRequest>,
    calls: Vec<CallId>,
    acts: Vec<ActId>,
}

fn newest<T: Clone>(all: &[T], which: usize) -> Option<T> {
    all.len()
        .checked_sub(which + 1)
        .and_then(|at| all.get(at).cloned())
}

impl Open {
    fn take(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Look(look) => self.looks.push(look.id),
                Output::Ask(ask) => self.asks.push(ask.id),
                Output::RequestApproval(request) => self.requests.push(request.clone()),
                Output::CallHook(call) => self.calls.push(call.id),
                Output::Act(act) => self.acts.push(act.id),
                _ => {}
            }
        }
    }
}

struct World {
    policies: [Policy; 2],
    current: usize,
    state: State,
    now: Now,
    open: Open,
    checker: Checker,
    frames: u64,
}

impl World {
    fn new(policies: [Policy; 2]) -> World {
        let noon = LocalTime {
            day: 4,
            second: 43_200,
        };
        let mut world = World {
            policies,
            current: 0,
            state: State::new(),
            now: Now {
                ms: 1_000_000,
                local: Some(noon),
            },
            open: Open::default(),
            checker: Checker::new(),
            frames: 0,
        };
        world.see(Observation::Start { secret: [3, 4] });
        world.see(Observation::Link {
            link: Link::Serial,
            up: true,
        });
        world.see(Observation::Pin {
            pin: text::name("door").unwrap(),
            level: false,
            initial: true,
        });
        world
    }

    fn see(&mut self, observation: Observation) {
        let policy = &self.policies[self.current];
        let back = self.checker.before(&observation, self.now);
        let outputs = step(policy, &mut self.state, &observation, self.now);
        self.checker
            .after(policy, &observation, &outputs.list, back);
        self.open.take(&outputs.list);
    }

    fn frame(&mut self, age: u64, good: bool) -> Frame {
        self.frames += 1;
        Frame {
            id: self.frames,
            // A wild age gives a picture from the future or from before all times.
            time: self.now.ms.wrapping_sub(age),
            quality: if good { Quality::Good } else { Quality::Dark },
        }
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Recover => self.recover(),
            Event::Drive {
                topic,
                choice,
                pause,
            } => self.drive(topic, &choice, pause),
            event => self.play_one(event),
        }
    }

    fn play_one(&mut self, event: Event) {
        let link = |link: u8| Link::NAMES[usize::from(link)].1;
        let observation = match event {
            Event::Wait(ms) => {
                self.now.ms = self.now.ms.saturating_add(ms);
                Observation::Tick
            }
            Event::Back(ms) => {
                self.now.ms = self.now.ms.saturating_sub(ms);
                Observation::Tick
            }
            Event::Start => Observation::Start {
                secret: [5, self.now.ms],
            },
            Event::Stop => Observation::Stop,
            Event::Reload(announced) => {
                if announced {
                    self.see(Observation::Reload);
                }
                self.current = 1 - self.current;
                Observation::Tick
            }
            Event::Message {
                topic,
                link: by,
                retained,
            } => Observation::Message {
                link: link(by),
                topic: text::name(if topic { "a" } else { "b" }).unwrap(),
                body: Text::new("x"),
                retained,
            },
            Event::Door { level, initial } => Observation::Pin {
                pin: text::name("door").unwrap(),
                level,
                initial,
            },
            Event::Change { age } => Observation::Change(Change {
                zones: [text::name("porch").unwrap()].into_iter().collect(),
                fraction: Probability::ONE,
                cause: Cause::Motion,
                episode: self.frames,
                frame: self.frame(age, true),
            }),
            Event::Show { which, age, good } => {
                let Some(look) = newest(&self.open.looks, which) else {
                    return;
                };
                let frame = Some(self.frame(age, good));
                Observation::Looked { look, frame }
            }
            Event::Answer {
                which,
                value,
                share,
                unsure,
                early,
                age,
            } => {
                let Some(question) = newest(&self.open.asks, which) else {
                    return;
                };
                Observation::Answer(Answer {
                    question,
                    value,
                    probability: Probability(share),
                    unsure,
                    frame_time: self.now.ms.wrapping_sub(age),
                    stage: if early { Stage::Early } else { Stage::Refined },
                })
            }
            Event::Approve {
                which,
                granted,
                forge,
                link: by,
                retained,
            } => {
                let Some(request) = newest(&self.open.requests, which) else {
                    return;
                };
                Observation::Approval(Approval {
                    request: request.id,
                    nonce: request.nonce ^ forge,
                    granted,
                    link: link(by),
                    retained,
                })
            }
            Event::Hook { which, verdict } => {
                let Some(call) = newest(&self.open.calls, which) else {
                    return;
                };
                let verdicts = [HookVerdict::Pass, HookVerdict::Veto, HookVerdict::Failed];
                Observation::Hook {
                    call,
                    verdict: verdicts[usize::from(verdict)],
                }
            }
            Event::Finish { which, outcome } => {
                let Some(act) = newest(&self.open.acts, which) else {
                    return;
                };
                let outcomes = [Outcome::Done, Outcome::Failed, Outcome::TimedOut];
                Observation::Outcome {
                    act,
                    outcome: outcomes[usize::from(outcome)],
                }
            }
            Event::Link { link: of, up } => Observation::Link { link: link(of), up },
            Event::Fault { fault, active } => Observation::Fault {
                fault: Fault::ALL[usize::from(fault)],
                active,
            },
            Event::Clock(second) => {
                self.now.local = second.map(|second| LocalTime { day: 4, second });
                Observation::Tick
            }
            Event::Recover | Event::Drive { .. } => return self.play(event),
        };
        self.see(observation);
    }

    fn recover(&mut self) {
        self.play(Event::Start);
        self.play(Event::Link { link: 0, up: true });
        self.play(Event::Door {
            level: false,
            initial: true,
        });
        for fault in 0..6 {
            self.play(Event::Fault {
                fault,
                active: false,
            });
        }
        self.play(Event::Wait(2_000));
    }

    fn drive(&mut self, topic: bool, choice: &Value, pause: u64) {
        self.play(Event::Message {
            topic,
            link: 1,
            retained: false,
        });
        for _ in 0..2 {
            self.play(Event::Show {
                which: 0,
                age: 0,
                good: true,
            });
            self.play(Event::Wait(pause));
            self.play(Event::Answer {
                which: 0,
                value: choice.clone(),
                share: u16::MAX,
                unsure: false,
                early: false,
                age: 0,
            });
            self.play(Event::Wait(100));
        }
        for which in (0..4).rev() {
            self.play(Event::Hook { which, verdict: 0 });
        }
        self.play(Event::Wait(pause));
        self.play(Event::Approve {
            which: 0,
            granted: true,
            forge: 0,
            link: 1,
            retained: false,
        });
    }
}

fn both_orders() -> [Policy; 2] {
    [
        policy(&[0, 1, 2, 3, 4], &[0, 1, 2]),
        policy(&[4, 2, 0, 3, 1], &[2, 1, 0]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_drives_a_pin_outside_its_limits(events in prop::collection::vec(event(), 1..250)) {
        let mut world = World::new(both_orders());
        for event in events {
            world.play(event);
        }
    }

    #[test]
    fn the_same_observations_give_the_same_outputs_through_a_journalled_state(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new(both_orders());
        for event in events {
            world.play(event);
            let bytes = postcard::to_stdvec(&world.state).unwrap();
            let restored: State = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&restored, &world.state);
            let policy = &world.policies[world.current];
            let (mut one, mut other) = (world.state.clone(), restored);
            let first = step(policy, &mut one, &Observation::Tick, world.now);
            let second = step(policy, &mut other, &Observation::Tick, world.now);
            prop_assert_eq!(first, second);
            prop_assert_eq!(one, other);
        }
    }
}

#[test]
fn random_sequences_switch_every_pin_often() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let events = prop::collection::vec(event(), 250..251);
    let mut switched = [0; 4];
    for _ in 0..40 {
        let mut world = World::new(both_orders());
        for event in events.new_tree(&mut runner).unwrap().current() {
            world.play(event);
        }
        for (all, one) in switched.iter_mut().zip(world.checker.switched) {
            *all += one;
        }
    }
    assert!(
        switched.iter().all(|pin| *pin > 10),
        "only {switched:?} times"
    );
}

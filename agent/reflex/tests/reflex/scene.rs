//! A device in invented time.

use ocelli_reflex::explain::describe;
use ocelli_reflex::observation::{
    Answer, Approval, Cause, Change, Fault, Frame, HookVerdict, Link, Outcome, Quality, Stage,
    Value,
};
use ocelli_reflex::output::{ApprovalRequest, Ask, Deed, Look, PinSafe};
use ocelli_reflex::{
    Inventory, LocalTime, Now, Observation, Output, Policy, Probability, State, Text, load, step,
    text,
};

/// Outputs pins and topics that most tests use; a test adds what it is about.
pub(crate) const DEVICE: &str = r#"
format = 1
zones = ["porch"]
[pins.lamp]
line = "GPIO17"
direction = "out"
safe = "off"
reversible = true
LAMP
[pins.door]
line = "GPIO5"
direction = "in"
[topics.go]
path = "in/go"
direction = "in"
[topics.stop]
path = "in/stop"
direction = "in"
[topics.say]
path = "out/say"
direction = "out"
"#;

/// The device with limits for its lamp, and more text after it.
///
/// A lamp with values of its own hangs on no plain line of the board, which is on or off.
pub(crate) fn file(lamp: &str, rest: &str) -> String {
    let device = match lamp.contains("values") {
        true => DEVICE.replace("GPIO17", "dimmer/17"),
        false => DEVICE.to_owned(),
    };
    format!("{}{rest}", device.replace("LAMP", lamp))
}

pub(crate) struct Scene {
    pub(crate) policy: Policy,
    pub(crate) state: State,
    pub(crate) ms: u64,
    pub(crate) local: Option<LocalTime>,
    /// All outputs so far.
    pub(crate) trace: Vec<Output>,
    frames: u64,
}

impl Scene {
    /// Loads a file, or shows its mistakes.
    pub(crate) fn new(text: &str) -> Scene {
        let policy = load(text, &Inventory::default())
            .unwrap_or_else(|rejected| panic!("{rejected}"))
            .policy;
        Scene {
            policy,
            state: State::new(),
            ms: 1_000_000,
            // A Monday, at noon.
            local: Some(LocalTime {
                day: 4,
                second: 12 * 3600,
            }),
            trace: Vec::new(),
            frames: 0,
        }
    }

    /// As [`Scene::new`], started, with all links up.
    pub(crate) fn started(text: &str) -> Scene {
        let mut scene = Scene::new(text);
        scene.start();
        for (_, link) in Link::NAMES {
            scene.see(Observation::Link { link, up: true });
        }
        scene
    }

    pub(crate) fn start(&mut self) -> Vec<Output> {
        self.see(Observation::Start { secret: [7, 8] })
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            ms: self.ms,
            local: self.local,
        }
    }

    pub(crate) fn see(&mut self, observation: Observation) -> Vec<Output> {
        let now = self.now();
        let outputs = step(&self.policy, &mut self.state, &observation, now);
        self.trace.extend(outputs.list.iter().cloned());
        outputs.list.to_vec()
    }

    pub(crate) fn wait(&mut self, ms: u64) -> Vec<Output> {
        self.ms += ms;
        self.see(Observation::Tick)
    }

    /// Puts the wall clock somewhere on the Monday.
    pub(crate) fn clock(&mut self, hour: u32, minute: u32, second: u32) {
        self.local = Some(LocalTime {
            day: 4,
            second: hour * 3600 + minute * 60 + second,
        });
    }

    pub(crate) fn message(&mut self, topic: &str, body: &str) -> Vec<Output> {
        self.message_over(Link::Mqtt, topic, body, false)
    }

    pub(crate) fn message_over(
        &mut self,
        link: Link,
        topic: &str,
        body: &str,
        retained: bool,
    ) -> Vec<Output> {
        self.see(Observation::Message {
            link,
            topic: text::name(topic).unwrap(),
            body: Text::new(body),
            retained,
        })
    }

    pub(crate) fn pin(&mut self, pin: &str, level: bool) -> Vec<Output> {
        self.see(Observation::Pin {
            pin: text::name(pin).unwrap(),
            level,
            initial: false,
        })
    }

    pub(crate) fn read_pin(&mut self, pin: &str, level: bool) -> Vec<Output> {
        self.see(Observation::Pin {
            pin: text::name(pin).unwrap(),
            level,
            initial: true,
        })
    }

    pub(crate) fn fault(&mut self, fault: Fault, active: bool) -> Vec<Output> {
        self.see(Observation::Fault { fault, active })
    }

    /// A frame taken just now.
    pub(crate) fn frame(&mut self) -> Frame {
        self.frames += 1;
        Frame {
            id: self.frames,
            time: self.ms,
            quality: Quality::Good,
        }
    }

    pub(crate) fn change(&mut self, zone: &str, frame: Frame, episode: u64) -> Vec<Output> {
        self.see(Observation::Change(Change {
            zones: [text::name(zone).unwrap()].into_iter().collect(),
            fraction: Probability::from_f64(0.5).unwrap(),
            cause: Cause::Motion,
            episode,
            frame,
        }))
    }

    /// Answers the open look with a good picture.
    pub(crate) fn show(&mut self) -> Vec<Output> {
        let look = self.look();
        let frame = self.frame();
        self.see(Observation::Looked {
            look: look.id,
            frame: Some(frame),
        })
    }

    pub(crate) fn answer(&mut self, value: Value, share: f64) -> Vec<Output> {
        let (time, stage) = (self.ms, Stage::Refined);
        self.answer_of(value, share, time, stage)
    }

    pub(crate) fn answer_of(
        &mut self,
        value: Value,
        share: f64,
        frame_time: u64,
        stage: Stage,
    ) -> Vec<Output> {
        let question = self.ask().id;
        self.see(Observation::Answer(Answer {
            question,
            value,
            probability: Probability::from_f64(share).unwrap(),
            unsure: false,
            frame_time,
            stage,
        }))
    }

    pub(crate) fn approve(&mut self, request: &ApprovalRequest, granted: bool) -> Vec<Output> {
        self.approve_over(request, granted, Link::Mqtt)
    }

    pub(crate) fn approve_over(
        &mut self,
        request: &ApprovalRequest,
        granted: bool,
        link: Link,
    ) -> Vec<Output> {
        self.see(Observation::Approval(Approval {
            request: request.id,
            nonce: request.nonce,
            granted,
            link,
            retained: false,
        }))
    }

    pub(crate) fn hook(&mut self, verdict: HookVerdict) -> Vec<Output> {
        let call = self.last(|output| match output {
            Output::CallHook(call) => Some(call.id),
            _ => None,
        });
        self.see(Observation::Hook { call, verdict })
    }

    pub(crate) fn finish(&mut self, outcome: Outcome) -> Vec<Output> {
        let act = self.last(|output| match output {
            Output::Act(act) => Some(act.id),
            _ => None,
        });
        self.see(Observation::Outcome { act, outcome })
    }

    pub(crate) fn request(&self) -> ApprovalRequest {
        self.last(|output| match output {
            Output::RequestApproval(request) => Some(request.clone()),
            _ => None,
        })
    }

    pub(crate) fn look(&self) -> Look {
        self.last(|output| match output {
            Output::Look(look) => Some(*look),
            _ => None,
        })
    }

    pub(crate) fn ask(&self) -> Ask {
        self.last(|output| match output {
            Output::Ask(ask) => Some(*ask),
            _ => None,
        })
    }

    /// The newest output of a kind.
    pub(crate) fn last<T>(&self, of: impl Fn(&Output) -> Option<T>) -> T {
        self.trace
            .iter()
            .rev()
            .find_map(of)
            .unwrap_or_else(|| panic!("no such output in:\n{}", self.log().join("\n")))
    }

    /// Values set on the lamp so far.
    pub(crate) fn lamp(&self) -> Vec<i32> {
        self.sets("lamp")
    }

    pub(crate) fn sets(&self, name: &str) -> Vec<i32> {
        self.trace
            .iter()
            .filter_map(|output| match output {
                Output::Act(act) => match act.deed {
                    Deed::Set { pin, value, .. } => {
                        (self.policy.pin(pin)?.name == name).then_some(value)
                    }
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    /// Pins made safe so far.
    pub(crate) fn safe(&self) -> Vec<PinSafe> {
        self.trace
            .iter()
            .filter_map(|output| match output {
                Output::PinSafe(safe) => Some(safe.clone()),
                _ => None,
            })
            .collect()
    }

    /// All outputs so far in words.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut outputs = ocelli_reflex::Outputs::default();
        let mut lines = Vec::new();
        for output in &self.trace {
            outputs.list.clear();
            outputs.list.push(output.clone()).unwrap();
            lines.extend(describe(&self.policy, &outputs));
        }
        lines
    }

    pub(crate) fn says(&self, words: &str) -> bool {
        self.log().iter().any(|line| line.contains(words))
    }
}

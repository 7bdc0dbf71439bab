//! A plausible day of a device, made by the step function from a seed and written as the agent
//! writes it: sensor edges, changes, messages, answers, approvals, faults, new rules, restarts and
//! clocks that are set.

use ocelli_agent::entry::{
    AnswerForm, Answered, Answerer, Began, Entry, Kept, ModelIdentity, RulesPart, Step,
};
use ocelli_agent::journal::{Disk, Journal, JournalSettings, Moment, Sync};
use ocelli_reflex::observation::{
    Answer, Approval, Cause, Change, Fault, Frame, HookVerdict, Link, Outcome, Quality, Stage,
    Value,
};
use ocelli_reflex::output::{ApprovalRequest, Ask, Moment as When};
use ocelli_reflex::question::Form;
use ocelli_reflex::{
    Inventory, LocalTime, LookId, Now, Observation, Output, Outputs, Policy, Probability, State,
    Text, load, step, text,
};
use std::path::Path;
use std::time::Duration;

/// The rules of the morning.
pub(crate) const RULES: &str = include_str!("../../fixtures/journal/day.toml");
/// 2026-11-22 06:00, in days and in ms since 1970.
const DAY: i32 = 20_779;
const SIX_MS: u64 = DAY as u64 * 86_400_000 + 6 * 3_600_000;
/// The device is an hour east of Greenwich.
const OFFSET_MS: u64 = 3_600_000;

/// What a day is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Of the random numbers.
    pub(crate) seed: u64,
    /// Calls of the step function.
    pub(crate) n_steps: u64,
    /// Steps between two rule files; 0: the rules stay.
    pub(crate) reload_every: u64,
    /// Steps between two restarts; 0: none.
    pub(crate) restart_every: u64,
    /// The step from whose outputs on one byte is to be found changed.
    pub(crate) tamper_at: Option<u64>,
}

impl Plan {
    /// Ten thousand steps with everything.
    pub(crate) const FULL: Plan = Plan {
        seed: 20_261_122,
        n_steps: 10_000,
        reload_every: 1_900,
        restart_every: 2_700,
        tamper_at: None,
    };
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recorded {
    /// Outputs of all steps.
    pub(crate) n_outputs: u64,
    /// Starts of the agent.
    pub(crate) n_begins: u64,
    /// Times new rules came.
    pub(crate) n_reloads: u64,
    /// Actions handed out.
    pub(crate) n_acts: u64,
    /// Record whose outputs were changed.
    pub(crate) tampered: Option<u64>,
}

/// The rules of the evening: other limits, another threshold.
pub(crate) fn evening() -> String {
    RULES
        .replace("threshold = 0.7", "threshold = 0.8")
        .replace("cooldown = \"20 s\"", "cooldown = \"40 s\"")
        .replace("max_on = \"2 min\"", "max_on = \"1 min\"")
}

/// Writes a day into a folder.
pub(crate) fn record(folder: &Path, plan: Plan) -> Recorded {
    let settings = JournalSettings {
        sync: Sync::Within(Duration::from_secs(300)),
        segment_bytes: 256 << 10,
        ..JournalSettings::default()
    };
    let disk = Disk::open(folder).unwrap();
    let (journal, _) = Journal::open(disk, settings, 7).unwrap();
    let mut day = Day::new(journal, plan);
    day.begin();
    while day.n_steps < plan.n_steps {
        day.turn();
    }
    day.append(&Entry::Ended);
    let at = day.at();
    day.journal.flush(at).unwrap();
    day.recorded
}

/// A reply of the world that is due at some time.
enum Reply {
    Look(LookId),
    Ask(Box<Ask>, Stage),
    Decide(Box<ApprovalRequest>),
    Plain(Box<Observation>),
}

struct Day {
    plan: Plan,
    journal: Journal<Disk>,
    texts: [String; 2],
    policies: [Policy; 2],
    /// Which of them is in force.
    rules: usize,
    state: State,
    random: u64,
    ms: u64,
    wall_ms: u64,
    n_steps: u64,
    n_frames: u64,
    replies: Vec<(u64, Reply)>,
    /// When the step wants to be called again.
    wake_at: Option<u64>,
    levels: [bool; 2],
    recorded: Recorded,
}

impl Day {
    fn new(journal: Journal<Disk>, plan: Plan) -> Day {
        let texts = [RULES.to_owned(), evening()];
        let policies = [&texts[0], &texts[1]].map(|text| {
            load(text, &Inventory::default())
                .unwrap_or_else(|rejected| panic!("{rejected}"))
                .policy
        });
        Day {
            plan,
            journal,
            texts,
            policies,
            rules: 0,
            state: State::new(),
            random: plan.seed,
            ms: 40_000,
            wall_ms: SIX_MS - OFFSET_MS,
            n_steps: 0,
            n_frames: 0,
            replies: Vec::new(),
            wake_at: None,
            levels: [false; 2],
            recorded: Recorded::default(),
        }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random() % end
    }

    fn now(&self) -> Now {
        let local = (self.wall_ms + OFFSET_MS) / 1000;
        Now {
            ms: self.ms,
            // It takes a while until the clock is known after the first start.
            local: (self.n_steps >= 20).then_some(LocalTime {
                day: (local / 86_400) as i32,
                second: (local % 86_400) as u32,
            }),
        }
    }

    fn at(&self) -> Moment {
        Moment {
            boot_ms: self.ms,
            wall_ms: (self.n_steps >= 20).then_some(self.wall_ms),
        }
    }

    fn append(&mut self, entry: &Entry) -> u64 {
        let at = self.at();
        let sequence = self.journal.append(entry.kind(), entry, at).unwrap();
        self.journal.tick(at).unwrap();
        sequence
    }

    fn write_rules(&mut self) {
        let text = self.texts[self.rules].clone();
        let fingerprint = self.policies[self.rules].fingerprint;
        // Smaller pieces than the agent makes, so that there are several.
        let pieces: Vec<&str> = text
            .as_bytes()
            .chunks(1000)
            .map(|piece| str::from_utf8(piece).unwrap())
            .collect();
        for (part, piece) in (0..).zip(&pieces) {
            self.append(&Entry::Rules(RulesPart {
                fingerprint,
                part,
                parts: pieces.len() as u8,
                text: (*piece).to_owned(),
            }));
        }
    }

    fn begin(&mut self) {
        self.write_rules();
        let began = Began {
            version: "0.1.0".to_owned(),
            device: "porch".to_owned(),
            board: "raspberry-pi-4".to_owned(),
            rules: self.policies[self.rules].fingerprint,
            state: postcard::to_stdvec(&self.state).unwrap(),
            ..Began::default()
        };
        self.append(&Entry::Began(Box::new(began)));
        self.recorded.n_begins += 1;
        self.replies.clear();
        let secret = [self.random(), self.random()];
        self.see(Observation::Start { secret });
        for (_, link) in Link::NAMES {
            self.see(Observation::Link { link, up: true });
        }
        for name in ["pir", "door"] {
            self.see(Observation::Pin {
                pin: text::name(name).unwrap(),
                level: false,
                initial: true,
            });
        }
        self.levels = [false; 2];
    }

    /// What happens next: a reply that is due, or something new.
    fn turn(&mut self) {
        let due = |every: u64, n_steps: u64| every > 0 && n_steps % every == every - 1;
        if due(self.plan.reload_every, self.n_steps) {
            self.reload();
        } else if due(self.plan.restart_every, self.n_steps) {
            self.restart();
        } else {
            let until = self.ms + 1 + self.below(14_000);
            let next = (0..self.replies.len()).min_by_key(|at| self.replies[*at].0);
            let due = next.map_or(u64::MAX, |at| self.replies[at].0);
            let wake = self.wake_at.unwrap_or(u64::MAX);
            self.pass(until.min(due).min(wake).saturating_sub(self.ms));
            match next {
                Some(at) if due <= until.min(wake) => {
                    let (_, reply) = self.replies.swap_remove(at);
                    self.reply(reply);
                }
                _ if wake <= until => self.see(Observation::Tick),
                _ => self.news(),
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.ms += ms;
        self.wall_ms += ms;
    }

    fn reload(&mut self) {
        let old = self.rules;
        self.rules = 1 - old;
        self.write_rules();
        self.rules = old;
        self.see(Observation::Reload);
        self.rules = 1 - old;
        self.recorded.n_reloads += 1;
        self.see(Observation::Tick);
    }

    /// In order, or by a power cut: then only the state of the last order is left.
    fn restart(&mut self) {
        if self.below(2) == 0 {
            self.see(Observation::Stop);
            self.append(&Entry::Ended);
        }
        // Written and read, as by the agent.
        let kept = postcard::to_stdvec(&self.state).unwrap();
        self.state = postcard::from_bytes(&kept).unwrap();
        self.ms = 30_000 + self.below(20_000);
        self.wall_ms += 60_000;
        self.begin();
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Plain(observation) => self.see(*observation),
            Reply::Look(look) => {
                let frame = Some(self.frame()).filter(|_| self.below(40) > 0);
                self.see(Observation::Looked { look, frame });
            }
            Reply::Ask(ask, stage) => self.answer(&ask, stage),
            Reply::Decide(request) => {
                let forged = self.below(8) == 0;
                let approval = Approval {
                    request: request.id,
                    nonce: request.nonce ^ u64::from(forged),
                    granted: self.below(4) > 0,
                    link: Link::NAMES[self.below(4) as usize].1,
                    retained: self.below(20) == 0,
                };
                self.see(Observation::Approval(approval));
            }
        }
    }

    fn frame(&mut self) -> Frame {
        self.n_frames += 1;
        let quality = match self.below(20) {
            0 => Quality::Dark,
            1 => Quality::Blurred,
            _ => Quality::Good,
        };
        Frame {
            id: self.n_frames,
            time: self.ms,
            quality,
        }
    }

    fn answer(&mut self, ask: &Ask, stage: Stage) {
        let Some(rule) = self.policies[self.rules].rule(ask.rule).cloned() else {
            return;
        };
        let Some(question) = rule.ask else { return };
        let value = match question.form {
            Form::Choices { choices, .. } => {
                // The likelier ones come first.
                let first = self.below(choices.len() as u64);
                Value::Choice(self.below(first + 1) as u8)
            }
            Form::Count { range, .. } => Value::Count(range.0 + self.below(8) as u32),
            _ => Value::Text(Text::new("An empty porch in the rain.")),
        };
        let probability = 0.4 + self.below(600) as f64 / 1000.0;
        let answer = Answer {
            question: ask.id,
            value,
            probability: Probability::from_f64(probability).unwrap(),
            unsure: self.below(30) == 0,
            frame_time: self.ms.saturating_sub(500),
            stage,
        };
        let answered = Answered {
            question: ask.id,
            rule: rule.id.to_string(),
            stage,
            frame: ask.frame,
            frame_sha256: [ask.frame as u8; 32],
            picture: None,
            by: Answerer::Local(ModelIdentity::default()),
            prompt: question.prompt,
            form: AnswerForm::Caption(ask.max_tokens),
            max_tiles: Some(0),
            prompt_tokens: 84,
            tokens: vec![9, 7, ask.frame as u32],
            token_probabilities: vec![0.5, 0.25, 1.0],
            choice_scores: Vec::new(),
            choice_probabilities: Vec::new(),
            text: "so, or \"so\"".to_owned(),
            probability: probability as f32,
            unsure: answer.unsure,
            time_ms: [70.0, 90.0, 12.5],
            joules: Some((2.5, false)),
            system: None,
        };
        self.append(&Entry::Answered(Box::new(answered)));
        self.see(Observation::Answer(answer));
    }

    fn news(&mut self) {
        let observation = match self.below(100) {
            0..35 => {
                let which = self.below(4).min(1) as usize;
                self.levels[which] = !self.levels[which];
                Observation::Pin {
                    pin: text::name(["door", "pir"][which]).unwrap(),
                    level: self.levels[which],
                    initial: false,
                }
            }
            35..65 => Observation::Change(self.change()),
            65..75 => Observation::Message {
                link: Link::Mqtt,
                topic: text::name("open").unwrap(),
                body: Text::new(if self.below(4) > 0 { "GO" } else { "no" }),
                retained: self.below(10) == 0,
            },
            75..80 => Observation::Link {
                link: Link::NAMES[self.below(4) as usize].1,
                up: self.below(3) > 0,
            },
            80..84 => Observation::Fault {
                fault: Fault::ALL[self.below(6) as usize],
                active: self.below(3) == 0,
            },
            84 => {
                // The clock is set: by the network, or by a fault of the board.
                self.wall_ms += self.below(20_000);
                self.ms -= self.below(5_000).min(self.ms / 2);
                Observation::Tick
            }
            _ => Observation::Tick,
        };
        self.see(observation);
    }

    fn change(&mut self) -> Change {
        let zone = ["porch", "ramp"][self.below(2) as usize];
        let frame = self.frame();
        Change {
            zones: [text::name(zone).unwrap()].into_iter().collect(),
            fraction: Probability(self.below(9_000) as u16),
            cause: if self.below(5) > 0 {
                Cause::Motion
            } else {
                Cause::Light
            },
            episode: frame.id / 3,
            frame,
        }
    }

    fn see(&mut self, observation: Observation) {
        let now = self.now();
        let policy = &self.policies[self.rules];
        let outputs = step(policy, &mut self.state, &observation, now);
        let rules = policy.fingerprint;
        // A loop that is called for nothing does not stand still.
        self.wake_at = outputs.wake_in.map(|wake| now.ms + wake.max(1));
        self.recorded.n_outputs += outputs.list.len() as u64;
        for output in outputs.list.clone() {
            self.plan_reply(&output);
        }
        let tampered = self.tampered(&outputs);
        let entry = Entry::Step(Box::new(Step {
            now,
            rules,
            observation,
            outputs: tampered.clone().unwrap_or(outputs),
        }));
        let sequence = self.append(&entry);
        if tampered.is_some() {
            self.recorded.tampered = Some(sequence);
        }
        self.n_steps += 1;
    }

    /// The outputs with one byte of their encoding flipped, in the first step from the wanted one
    /// on where that gives outputs again.
    fn tampered(&self, outputs: &Outputs) -> Option<Outputs> {
        let is_time = self.plan.tamper_at.is_some_and(|at| self.n_steps >= at);
        if !is_time || self.recorded.tampered.is_some() {
            return None;
        }
        let bytes = postcard::to_stdvec(outputs).unwrap();
        (0..bytes.len()).rev().find_map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            postcard::from_bytes(&bytes)
                .ok()
                .filter(|other| other != outputs)
        })
    }

    fn plan_reply(&mut self, output: &Output) {
        let (after, reply) = match output {
            Output::Look(look) => (50 + self.below(250), Reply::Look(look.id)),
            Output::Ask(ask) => {
                if ask.early {
                    let early = Reply::Ask(Box::new(*ask), Stage::Early);
                    let due = self.ms + 200 + self.below(100);
                    self.replies.push((due, early));
                }
                let refined = Reply::Ask(Box::new(*ask), Stage::Refined);
                (400 + self.below(500), refined)
            }
            Output::RequestApproval(request) => {
                let decision = Reply::Decide(Box::new(request.clone()));
                (2_000 + self.below(40_000), decision)
            }
            Output::CallHook(call) if call.moment == When::Before => {
                let verdict = match self.below(20) {
                    0 => HookVerdict::Veto,
                    1 => HookVerdict::Failed,
                    _ => HookVerdict::Pass,
                };
                let call = call.id;
                (
                    20,
                    Reply::Plain(Box::new(Observation::Hook { call, verdict })),
                )
            }
            Output::Act(act) => {
                self.recorded.n_acts += 1;
                if matches!(act.deed, ocelli_reflex::output::Deed::Snapshot { .. }) {
                    self.append(&Entry::Kept(Kept {
                        name: format!("{}.jpg", act.id.0),
                        frame: act.evidence.map_or(0, |evidence| evidence.frame),
                        event: act.event.0,
                        n_bytes: 40_000,
                    }));
                }
                let outcome = match self.below(50) {
                    0 => Outcome::Failed,
                    1 => Outcome::TimedOut,
                    _ => Outcome::Done,
                };
                let act = act.id;
                (
                    5,
                    Reply::Plain(Box::new(Observation::Outcome { act, outcome })),
                )
            }
            _ => return,
        };
        // Some replies never come.
        if self.below(60) > 0 {
            self.replies.push((self.ms + after, reply));
        }
    }
}

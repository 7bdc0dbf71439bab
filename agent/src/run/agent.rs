//! [`Agent`]: the loop. One thread; it waits for everything at once, makes observations of what
//! comes, lets the step decide, writes that down, and carries it out.

mod ask;
mod carry;
mod errand;
mod intake;
mod reload;
mod show;
mod snapshot;
mod tell;
#[cfg(test)]
mod tests;
mod wait;

use super::clock::{Clock, millis};
use super::desk::Receipt;
use super::desk::broker::Broker;
use super::desk::line::Line;
use super::hands::Hands;
use super::lookout::Lookout;
use super::recorder::Recorder;
use super::settings::{Sections, Settings};
use super::vitals::Vitals;
use crate::entry::{Began, Entry, ModelIdentity, Step};
use crate::hook::Hooks;
use crate::link::mqtt::payload::Sight;
use crate::mind::Thinker;
use crate::notify::{Notify, NotifyError};
use crate::page::{AnswerShown, Page, Picture};
use crate::remark::remark;
use crate::remote::Remote;
use ask::Asked;
use ocelli_boards::{Board, PinId, PinPlan, Watchdog};
use ocelli_reflex::note::Note;
use ocelli_reflex::observation::{Approval, Fault as DeviceFault, Link};
use ocelli_reflex::output::{Act, ApprovalRequest, Output};
use ocelli_reflex::{EventId, Observation, Outputs, Policy, RequestId, State, step, text};
use ocelli_runtime::image::Rgb8;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most observations that wait; beyond, the oldest change is dropped, then the oldest of all.
const MAX_INBOX: usize = 256;
/// Most things taken from one source in a turn, so that none starves the others.
const MAX_TAKEN: usize = 32;
/// Rules and state are written down whole again after this time, so that a journal whose oldest
/// segments are gone can still be replayed.
const BEGIN_AGAIN: Duration = Duration::from_secs(6 * 3600);
/// Most pictures whose time is remembered.
const MAX_FRAMES: usize = 128;

/// The board's pins, and the number of each by its name in the rules.
pub type NamedPins = (Hands, BTreeMap<String, PinId>);

/// The rules in force.
#[derive(Debug)]
pub struct Rules {
    /// Checked.
    pub policy: Policy,
    /// The file.
    pub text: String,
    /// Texts of the schemas that the rules ask for, by name.
    pub schemas: BTreeMap<String, String>,
}

/// Everything the loop works with, opened.
pub struct Parts {
    /// The configuration.
    pub settings: Settings,
    /// The parts of it that cannot change while it is in use.
    pub sections: Sections,
    /// SHA-256 of its text.
    pub fingerprint: [u8; 32],
    /// Times.
    pub clock: Clock,
    /// The board.
    pub board: Board,
    /// Rules.
    pub rules: Rules,
    /// Journal, pictures, state.
    pub recorder: Recorder,
    /// Camera.
    pub lookout: Option<Lookout>,
    /// Model, and which it is.
    pub thinker: Option<(Thinker, ModelIdentity)>,
    /// Pins of the board; the number of each by its name in the rules.
    pub hands: Option<NamedPins>,
    /// MQTT.
    pub broker: Option<Broker>,
    /// Serial.
    pub line: Option<Line>,
    /// What the pins were opened with.
    pub pins: Vec<PinPlan>,
    /// Programs of the owner.
    pub hooks: Hooks,
    /// Second opinion.
    pub remote: Option<Remote>,
    /// Page.
    pub page: Option<Page>,
    /// systemd.
    pub notify: Notify,
    /// Hardware watchdog.
    pub watchdog: Option<Watchdog>,
    /// Heat, memory, disk, power.
    pub vitals: Vitals,
    /// Counts up with the loop.
    pub progress: Arc<AtomicU64>,
}

/// Why the loop handed back control.
#[derive(Clone, Debug, PartialEq)]
pub enum Pause {
    /// Somebody wants settings and rules read again; they are told how it went.
    Reload(Receipt),
    /// Somebody wants the end.
    Stop,
}

/// When and why a picture was taken.
#[derive(Clone, Debug)]
struct FrameFact {
    frame: u64,
    /// On the monotonic clock, in milliseconds.
    taken_ms: u64,
    wall_ms: u64,
    zones: Vec<String>,
}

/// Figures since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    looks: u64,
    answers: u64,
    actions: u64,
    denied: u64,
}

/// The loop.
pub struct Agent {
    parts: Parts,
    state: State,
    inbox: VecDeque<Observation>,
    wake_at: Option<Duration>,
    started: Duration,
    /// When rules and state were last written down whole.
    begun: Duration,
    camera_lost: Option<Duration>,
    faults: Vec<DeviceFault>,
    frames: VecDeque<FrameFact>,
    /// Pictures that are kept as evidence: number, name, what the model is shown.
    evidence: VecDeque<(u64, String, Arc<Rgb8>)>,
    asked: BTreeMap<u64, Asked>,
    next_errand: u64,
    /// Actions that keep a picture which is being taken, by the look.
    snapshots: BTreeMap<u64, Act>,
    /// Whole texts that are longer than the step carries, by event.
    whole: VecDeque<(EventId, String)>,
    pending: Vec<(ApprovalRequest, Duration)>,
    sights: BTreeMap<u64, Sight>,
    counts: Counts,
    last_latency: Option<f32>,
    last_joules: Option<(f32, bool)>,
    next_stats: Duration,
    is_verbose: bool,
    reload: Option<Receipt>,
    /// systemd could not be told something, which was said.
    is_unheard: bool,
    /// The last answers, for the page.
    answers: VecDeque<AnswerShown>,
    /// Pictures kept last, for the page.
    pictures: VecDeque<Picture>,
}

impl Agent {
    /// A loop over these parts; `state` is the state of the last run, `recovered` what had to be
    /// mended of the journal. Writes the begin down and starts the step.
    pub fn new(parts: Parts, state: State, recovered: String, is_verbose: bool) -> Agent {
        let now = parts.clock.monotonic();
        let mut agent = Agent {
            parts,
            state,
            inbox: VecDeque::new(),
            wake_at: Some(now),
            started: now,
            begun: now,
            camera_lost: None,
            faults: Vec::new(),
            frames: VecDeque::new(),
            evidence: VecDeque::new(),
            asked: BTreeMap::new(),
            next_errand: ask::FIRST_ERRAND,
            snapshots: BTreeMap::new(),
            whole: VecDeque::new(),
            pending: Vec::new(),
            sights: BTreeMap::new(),
            counts: Counts::default(),
            last_latency: None,
            last_joules: None,
            next_stats: now,
            is_verbose,
            reload: None,
            is_unheard: false,
            answers: VecDeque::new(),
            pictures: VecDeque::new(),
        };
        agent.begin(recovered);
        agent
    }

    fn begin(&mut self, recovered: String) {
        self.write_begin(recovered);
        let secret = [random(), random()];
        self.observe(&Observation::Start { secret });
        if self.parts.thinker.is_none() {
            self.fault(DeviceFault::ModelRefused, true);
        }
        if self.parts.lookout.is_none() {
            self.fault(DeviceFault::CameraGone, true);
        }
        if self.parts.page.is_some() {
            let (link, up) = (Link::Http, true);
            self.observe(&Observation::Link { link, up });
        }
        self.read_inputs();
        self.describe_device();
    }

    /// Writes down rules and state, from which everything after can be done again.
    fn write_begin(&mut self, recovered: String) {
        self.begun = self.parts.clock.monotonic();
        let parts = &mut self.parts;
        let rules = parts.rules.policy.fingerprint;
        parts.recorder.rules(rules, &parts.rules.text);
        let began = Began {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: parts.settings.device.name.clone(),
            board: parts.board.name.clone(),
            configuration: parts.fingerprint,
            model: parts.thinker.as_ref().map(|(_, identity)| identity.clone()),
            rules,
            // A few kilobytes of plain data always serialise.
            state: postcard::to_stdvec(&self.state).unwrap_or_default(),
            recovered,
            dry_run: parts.rules.policy.dry_run,
        };
        parts.recorder.write_now(&Entry::Began(Box::new(began)));
    }

    /// Tells the step the level of every input.
    fn read_inputs(&mut self) {
        if self.parts.settings.approval.is_some() {
            let (link, up) = (Link::Button, true);
            self.observe(&Observation::Link { link, up });
        }
        let Some((hands, names)) = &self.parts.hands else {
            return;
        };
        let levels: Vec<(String, bool)> = names
            .iter()
            .filter_map(|(name, pin)| Some((name.clone(), hands.level(*pin)?)))
            .collect();
        for (name, level) in levels {
            self.pin(&name, level, true);
        }
    }

    fn pin(&mut self, name: &str, level: bool, initial: bool) {
        let Some(pin) = text::name(name) else { return };
        self.observe(&Observation::Pin {
            pin,
            level,
            initial,
        });
        if level && !initial {
            self.button(name);
        }
    }

    /// A button of the device decides about the oldest action that waits for one.
    fn button(&mut self, name: &str) {
        let Some(buttons) = &self.parts.settings.approval else {
            return;
        };
        let granted = match name {
            _ if name == buttons.yes => true,
            _ if buttons.no.as_deref() == Some(name) => false,
            _ => return,
        };
        let waiting = self
            .pending
            .iter()
            .find(|(request, _)| request.takes(Link::Button));
        let Some((request, _)) = waiting else { return };
        let approval = Approval {
            request: request.id,
            nonce: request.nonce,
            granted,
            link: Link::Button,
            retained: false,
        };
        self.observe(&Observation::Approval(approval));
    }

    /// Works until somebody wants something that the loop cannot do itself.
    pub fn run(&mut self, is_stopped: &dyn Fn() -> bool, is_reload: &dyn Fn() -> bool) -> Pause {
        loop {
            if is_stopped() {
                return Pause::Stop;
            }
            if let Some(receipt) = self.reload.take() {
                return Pause::Reload(receipt);
            }
            if is_reload() {
                return Pause::Reload(Receipt::None);
            }
            self.turn();
        }
    }

    /// Waits, takes in what came, and does what is due.
    fn turn(&mut self) {
        self.wait();
        self.take_hands();
        self.take_lookout();
        self.take_links();
        self.take_thoughts();
        self.take_hooks();
        self.take_remote();
        self.take_page();
        self.take_vitals();
        while let Some(observation) = self.inbox.pop_front() {
            self.observe(&observation);
        }
        let now = self.parts.clock.monotonic();
        if self.wake_at.is_some_and(|at| at <= now) {
            self.observe(&Observation::Tick);
        }
        self.keep_up(now);
    }

    /// What is to be done now and then, whatever happens.
    fn keep_up(&mut self, now: Duration) {
        let recorder = &mut self.parts.recorder;
        recorder.tick();
        if let Some(trouble) = recorder.trouble() {
            self.remark("journal", &trouble);
        }
        if let Err(error) = self.parts.recorder.save_state(&self.state, false) {
            self.remark("state", &error.to_string());
        }
        if now >= self.next_stats {
            self.tell_stats(now);
        }
        if now.saturating_sub(self.begun) >= BEGIN_AGAIN {
            self.write_begin(String::new());
        }
        let progress = self.parts.progress.fetch_add(1, Ordering::Relaxed) + 1;
        let fed = self.parts.notify.feed(progress, now).map(drop);
        self.notified(fed);
        if let Some(page) = &self.parts.page {
            page.progressed();
        }
        let fed = self
            .parts
            .watchdog
            .as_mut()
            .map(|dog| dog.feed(progress, now));
        if let Some(Err(error)) = fed {
            self.parts.watchdog = None;
            self.remark("watchdog", &error.to_string());
        }
    }

    /// Puts something before the step, writes down what comes of it, and carries that out.
    fn observe(&mut self, observation: &Observation) -> Outputs {
        let now = self.parts.clock.now();
        let policy = &self.parts.rules.policy;
        let outputs = step(policy, &mut self.state, observation, now);
        self.wake_at = outputs
            .wake_in
            .map(|wait| Duration::from_millis(now.ms.saturating_add(wait)));
        let entry = Entry::Step(Box::new(Step {
            now,
            rules: policy.fingerprint,
            observation: observation.clone(),
            outputs: outputs.clone(),
        }));
        // What acts is on the disk before it acts.
        match outputs.list.iter().any(is_deed) {
            true => self.parts.recorder.write_now(&entry),
            false => self.parts.recorder.write(&entry),
        }
        self.carry_out(&outputs);
        if let Observation::Approval(approval) = observation {
            self.settle(approval.request, &outputs);
        }
        outputs
    }

    /// A decision that was taken, either way, is no longer waited for.
    fn settle(&mut self, request: RequestId, outputs: &Outputs) {
        let is_refused =
            |output: &Output| matches!(output, Output::Note(Note::ApprovalRefused { .. }));
        if !outputs.list.iter().any(is_refused) {
            self.decided(request);
        }
    }

    /// Puts an observation into the line; for what carrying out brings at once.
    fn queue(&mut self, observation: Observation) {
        if self.inbox.len() >= MAX_INBOX {
            let change = |waiting: &Observation| matches!(waiting, Observation::Change(_));
            let oldest = self.inbox.iter().position(change).unwrap_or(0);
            self.inbox.remove(oldest);
            self.parts
                .recorder
                .remark("loop", "an observation was dropped, too many wait");
        }
        self.inbox.push_back(observation);
    }

    fn frame_taken(&mut self, frame: u64, taken_ms: u64, zones: Vec<String>) {
        if let Some(known) = self.frames.iter_mut().find(|known| known.frame == frame) {
            known.zones.extend(zones);
            return;
        }
        let now_ms = millis(self.parts.clock.monotonic());
        let wall_ms = self.parts.clock.wall_ms().unwrap_or(0);
        if self.frames.len() >= MAX_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(FrameFact {
            frame,
            taken_ms,
            wall_ms: wall_ms.saturating_sub(now_ms.saturating_sub(taken_ms)),
            zones,
        });
    }

    fn frame_fact(&self, frame: u64) -> Option<&FrameFact> {
        self.frames.iter().rev().find(|fact| fact.frame == frame)
    }

    /// A fault began or ended; said once.
    fn fault(&mut self, fault: DeviceFault, active: bool) {
        let stands = self.faults.contains(&fault);
        if stands == active {
            return;
        }
        match active {
            true => self.faults.push(fault),
            false => self.faults.retain(|known| *known != fault),
        }
        self.observe(&Observation::Fault { fault, active });
        self.tell_condition();
    }

    /// Something for the journal, and for who watches.
    pub fn remark(&mut self, about: &str, text: &str) {
        remark!("ocelli: {about}: {text}");
        self.parts.recorder.remark(about, text);
    }

    /// Tells the system that the agent works.
    pub fn ready(&mut self) {
        let told = self.parts.notify.ready();
        self.notified(told);
        self.tell_condition();
    }

    /// Says once that systemd cannot be told anything.
    pub(super) fn notified(&mut self, told: Result<(), NotifyError>) {
        if let Err(error) = told
            && !std::mem::replace(&mut self.is_unheard, true)
        {
            self.remark("systemd", &error.to_string());
        }
    }

    /// Ends in order: all pins safe, everything written.
    pub fn end(mut self) {
        let told = self.parts.notify.stopping();
        self.notified(told);
        self.observe(&Observation::Stop);
        let Parts {
            mut recorder,
            hands,
            broker,
            watchdog,
            ..
        } = self.parts;
        drop(hands);
        recorder.end(&self.state);
        if let Some(broker) = broker {
            broker.stop();
        }
        if let Some(Err(error)) = watchdog.map(Watchdog::disarm) {
            remark!("ocelli: watchdog: {error}");
        }
    }
}

/// Whether an output changes anything outside.
fn is_deed(output: &Output) -> bool {
    matches!(
        output,
        Output::Act(_) | Output::Event(_) | Output::RequestApproval(_)
    )
}

/// Random bits of the operating system.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    match read {
        Ok(()) => u64::from_le_bytes(bytes),
        // Keyed by the operating system for this very process.
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

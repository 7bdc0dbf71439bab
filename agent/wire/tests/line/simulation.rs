//! [`Simulation`]: two ends, two directions of a line, one invented clock.

use ocelli_wire::message::{Event, Log, Look, Phase, PinEdge, SetPin, Severity, cut};
use ocelli_wire::{
    DownReason, Endpoint, FrameBuffer, Identity, Message, Notice, Role, Ticket, Timing,
};
use std::collections::{HashMap, VecDeque};

/// Longest delay of the line beyond the time that the bytes take.
pub(crate) const MAX_DELAY_MS: u64 = 60;
const STEP_MS: u64 = 3;
const QUEUE: usize = 8;

/// After so long without bytes an end must be down.
pub(crate) fn silence_ms(timing: Timing) -> u64 {
    u64::from(timing.silence_ms) + MAX_DELAY_MS + 2 * STEP_MS
}

/// How often something happens to a frame, in thousandths; `cut`: to a second of the line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u32,
    pub(crate) damaged: u32,
    pub(crate) repeated: u32,
    pub(crate) split: u32,
    pub(crate) noise: u32,
    pub(crate) cut: u32,
}

#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn happens(&mut self, thousandths: u32) -> bool {
        self.below(1000) < u64::from(thousandths)
    }
}

/// One direction: bytes and the times they come out, in order.
#[derive(Debug, Default)]
struct Line {
    bytes: VecDeque<(u64, Vec<u8>)>,
    cut_until: u64,
    /// What went in last, so that nothing overtakes.
    last_out: u64,
}

impl Line {
    fn put(&mut self, frame: &[u8], now: u64, faults: Faults, chance: &mut Chance) {
        if now < self.cut_until || chance.happens(faults.lost) {
            return;
        }
        let mut frame = frame.to_vec();
        if chance.happens(faults.damaged) {
            damage(&mut frame, chance);
        }
        if chance.happens(faults.noise) {
            let noise = (0..chance.below(300))
                .map(|_| chance.next() as u8)
                .collect();
            self.enter(noise, now, chance);
        }
        for _ in 0..=u32::from(chance.happens(faults.repeated)) {
            let at = match chance.happens(faults.split) {
                true => chance.below(frame.len() as u64) as usize,
                false => frame.len(),
            };
            self.enter(frame[..at].to_vec(), now, chance);
            self.enter(frame[at..].to_vec(), now, chance);
        }
    }

    fn enter(&mut self, bytes: Vec<u8>, now: u64, chance: &mut Chance) {
        let delay = chance.below(MAX_DELAY_MS / 2);
        self.last_out = self.last_out.max(now + delay);
        self.bytes.push_back((self.last_out, bytes));
    }

    fn take(&mut self, now: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while self.bytes.front().is_some_and(|(at, _)| *at <= now) {
            out.extend(self.bytes.pop_front().unwrap().1);
        }
        out
    }
}

/// Flips a bit, drops a byte, adds one, or cuts the end off.
fn damage(frame: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(frame.len() as u64) as usize;
    match chance.below(4) {
        0 => frame[at] ^= 1 << chance.below(8),
        1 => drop(frame.remove(at)),
        2 => frame.insert(at, chance.next() as u8),
        _ => frame.truncate(at),
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandReceived {
    pub(crate) number: u16,
    pub(crate) age_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Restart {
    pub(crate) agent: bool,
    /// A microcontroller that has nothing to make numbers from.
    pub(crate) without_number: bool,
}

/// One end, the program behind it, and what it saw.
pub(crate) struct End {
    role: Role,
    incarnation: u32,
    pub(crate) endpoint: Endpoint<QUEUE>,
    frame: FrameBuffer,
    commands_open: HashMap<Ticket, u16>,
    records_open: usize,
    n_records: u32,
    first_of_run: u32,
    n_commands: u16,
    command_sent_ms: HashMap<u16, u64>,
    pub(crate) records_accepted: Vec<u32>,
    pub(crate) records_received: Vec<u32>,
    pub(crate) records_by_run: Vec<Vec<u32>>,
    pub(crate) commands_received: Vec<CommandReceived>,
    pub(crate) commands_delivered: Vec<u16>,
    pub(crate) downs: Vec<DownReason>,
}

impl End {
    fn new(role: Role, timing: Timing) -> End {
        let incarnation = 77;
        End {
            endpoint: Endpoint::new(Identity::new(role, "end", incarnation), timing, 0),
            role,
            incarnation,
            frame: FrameBuffer::new(),
            commands_open: HashMap::new(),
            records_open: 0,
            n_records: 0,
            first_of_run: 0,
            n_commands: 0,
            command_sent_ms: HashMap::new(),
            records_accepted: Vec::new(),
            records_received: Vec::new(),
            records_by_run: vec![Vec::new()],
            commands_received: Vec::new(),
            commands_delivered: Vec::new(),
            downs: Vec::new(),
        }
    }

    pub(crate) fn open_tickets(&self) -> usize {
        self.commands_open.len() + self.records_open
    }

    /// Records given to the endpoint since this end restarted last.
    pub(crate) fn records_of_last_run(&self) -> impl Iterator<Item = &u32> {
        let first = self.first_of_run;
        self.records_accepted.iter().filter(move |&&n| n >= first)
    }

    fn record(&self) -> Message {
        match self.role {
            Role::Agent => Message::Event(Event {
                id: self.n_records,
                phase: Phase::New,
                rule: cut("door"),
                choice: cut("person"),
                probability: 60_000,
            }),
            Role::Peer => Message::PinEdge(PinEdge {
                pin: cut("pir"),
                level: true,
                at_ms: self.n_records,
            }),
        }
    }

    fn command(&self) -> Message {
        match self.role {
            Role::Agent => Message::SetPin(SetPin {
                request: self.n_commands,
                pin: cut("lamp"),
                value: 1,
                max_on_ms: 500,
            }),
            Role::Peer => Message::Look(Look {
                request: self.n_commands,
                question: cut("is there a person?"),
                choices: [cut("yes"), cut("no")].into_iter().collect(),
            }),
        }
    }

    fn say_something(&mut self, now: u64, chance: &mut Chance) {
        if chance.below(60) == 0 && self.endpoint.send(self.record(), now).is_ok() {
            self.records_accepted.push(self.n_records);
            self.records_open += 1;
            self.n_records += 1;
        }
        if chance.below(150) == 0
            && let Ok(Some(ticket)) = self.endpoint.send(self.command(), now)
        {
            self.commands_open.insert(ticket, self.n_commands);
            self.command_sent_ms.insert(self.n_commands, now);
            self.n_commands += 1;
        }
        if chance.below(100) == 0 {
            let log = Log {
                severity: Severity::Info,
                text: cut("a line"),
            };
            let _ = self.endpoint.send(Message::Log(log), now);
        }
    }

    /// What came in as a command with its number, if it was one.
    fn on_notice(&mut self, notice: Notice) -> Option<u16> {
        match notice {
            Notice::Received(Message::Event(Event { id: number, .. }))
            | Notice::Received(Message::PinEdge(PinEdge { at_ms: number, .. })) => {
                self.records_received.push(number);
                self.records_by_run.last_mut().unwrap().push(number);
            }
            Notice::Received(Message::SetPin(SetPin { request, .. }))
            | Notice::Received(Message::Look(Look { request, .. })) => return Some(request),
            Notice::Delivered(ticket) => match self.commands_open.remove(&ticket) {
                Some(number) => self.commands_delivered.push(number),
                None => self.records_open -= 1,
            },
            Notice::Undelivered(ticket, reason) => {
                let number = self.commands_open.remove(&ticket);
                assert!(number.is_some(), "a record was given up: {reason:?}");
            }
            Notice::Down(reason) => self.downs.push(reason),
            _ => {}
        }
        None
    }
}

pub(crate) struct Simulation {
    pub(crate) ends: [End; 2],
    lines: [Line; 2],
    timing: Timing,
    faults: Faults,
    chance: Chance,
    now: u64,
    quiet: bool,
}

impl Simulation {
    pub(crate) fn new(seed: u64, timing: Timing, faults: Faults) -> Simulation {
        Simulation {
            ends: [End::new(Role::Agent, timing), End::new(Role::Peer, timing)],
            lines: [Line::default(), Line::default()],
            timing,
            faults,
            chance: Chance(seed | 1),
            now: 0,
            quiet: false,
        }
    }

    pub(crate) fn other(&self, end: &End) -> &End {
        &self.ends[usize::from(end.role == Role::Agent)]
    }

    pub(crate) fn both_up(&self) -> bool {
        self.ends.iter().all(|end| end.endpoint.is_up())
    }

    pub(crate) fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    /// From now on the line does nothing wrong and nobody says anything new.
    pub(crate) fn heal(&mut self) {
        self.faults = Faults::default();
        self.quiet = true;
        for line in &mut self.lines {
            line.cut_until = 0;
        }
    }

    /// Runs until everything that waits has arrived, at most a minute.
    pub(crate) fn settle(&mut self) {
        self.quiet = true;
        for _ in 0..60 {
            self.advance(1000);
            if self.both_up() && self.ends.iter().all(|end| end.endpoint.n_waiting() == 0) {
                return;
            }
        }
    }

    pub(crate) fn cut_for_good(&mut self) {
        for line in &mut self.lines {
            line.cut_until = u64::MAX;
        }
    }

    pub(crate) fn cut_towards_peer(&mut self) {
        self.lines[1].cut_until = u64::MAX;
    }

    pub(crate) fn restart(&mut self, restart: Restart) {
        let (timing, now) = (self.timing, self.now);
        let end = &mut self.ends[usize::from(!restart.agent)];
        end.incarnation += 1;
        let incarnation = match restart.without_number {
            true => 0,
            false => end.incarnation,
        };
        let me = Identity::new(end.role, "end", incarnation);
        end.endpoint = Endpoint::new(me, timing, now);
        end.commands_open.clear();
        end.records_open = 0;
        end.first_of_run = end.n_records;
        end.records_by_run.push(Vec::new());
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        for line in &mut self.lines {
            if self.now % 1000 < STEP_MS && self.chance.happens(self.faults.cut) {
                let until = self.now + self.chance.below(8_000);
                line.cut_until = line.cut_until.max(until);
            }
        }
        for at in 0..2 {
            self.step_end(at);
        }
    }

    fn step_end(&mut self, at: usize) {
        let now = self.now;
        let arrived = self.lines[at].take(now);
        let [agent, peer] = &mut self.ends;
        let (end, other) = if at == 0 {
            (agent, peer)
        } else {
            (peer, agent)
        };
        if !self.quiet {
            end.say_something(now, &mut self.chance);
        }
        let mut rest = arrived.as_slice();
        while let Some(notice) = end.endpoint.on_bytes(&mut rest, now) {
            if let Some(number) = end.on_notice(notice) {
                let age_ms = now - other.command_sent_ms[&number];
                end.commands_received
                    .push(CommandReceived { number, age_ms });
            }
        }
        while let Some(notice) = end.endpoint.on_tick(now) {
            end.on_notice(notice);
        }
        while let Some(frame) = end.endpoint.next_frame(&mut end.frame, now) {
            self.lines[1 - at].put(frame, now, self.faults, &mut self.chance);
        }
    }
}

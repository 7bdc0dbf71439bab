//! [`Line`]: the serial link in the words of the loop, in either language.

use super::{Condition, Errand, ErrandAnswer, ErrandVerdict, EventWords, Inbound, Query, Receipt};
use crate::link::line_mode::{self, ErrorCode, Lines, Reply, Said};
use crate::link::serial::{Packets, SerialLink};
use crate::link::{Interest, Link as _};
use crate::run::settings::{SerialSettings, Speech};
use ocelli_reflex::observation::{Approval, Link, Outcome};
use ocelli_reflex::output::EventPhase;
use ocelli_reflex::pin::Pin;
use ocelli_reflex::{ActId, Observation, Policy, RequestId, text};
use ocelli_wire::message::{
    Answer, ApprovalRequest, Event, Mode, Outcome as PeerOutcome, Packet, Phase, SetPin, State,
    Verdict, cut,
};
use ocelli_wire::{Message, Notice, Ticket};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time on of a pin that nobody limits; the rule file wants a limit, so this only backs it up.
const LONGEST_ON_MS: u32 = 60_000;
/// Most things whose end is awaited; the oldest are forgotten.
const MAX_AWAITED: usize = 64;

/// Something for the serial line that it does not take.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The link refused.
    #[error("the serial link refused: {0}")]
    Refused(String),
    /// Lines of text carry no such thing.
    #[error("lines of text drive no pins; set speaks = \"packets\" in [serial]")]
    NoPins,
}

/// The serial line, as the loop sees it.
#[derive(Debug)]
pub struct Line {
    voice: Voice,
    is_up: bool,
    next_request: u16,
    /// Acts by the number of the pin order.
    orders: BTreeMap<u16, ActId>,
    /// Acts by the ticket of their message.
    tickets: BTreeMap<u32, ActId>,
    /// Requests for approval by the number the peer knows.
    approvals: BTreeMap<u16, (RequestId, u64)>,
}

#[derive(Debug)]
enum Voice {
    Packets(Box<SerialLink<Packets>>),
    Lines(Box<SerialLink<Lines>>),
}

impl Line {
    /// A line that is opened at the first [`Line::recv`]. `seed` is another number in every run.
    pub fn new(settings: &SerialSettings, device: &str, seed: u64, now: Duration) -> Line {
        let port = crate::link::serial::SerialSettings {
            path: settings.device.clone(),
            baud: settings.baud,
        };
        let voice = match settings.speaks {
            Speech::Packets => {
                // Half of the number is enough to differ.
                let packets = Packets::new(device, seed as u32, settings.baud, now);
                Voice::Packets(Box::new(SerialLink::new(port, packets, seed)))
            }
            Speech::Lines => Voice::Lines(Box::new(SerialLink::new(port, Lines::new(), seed))),
        };
        Line {
            voice,
            is_up: false,
            next_request: 0,
            orders: BTreeMap::new(),
            tickets: BTreeMap::new(),
            approvals: BTreeMap::new(),
        }
    }

    /// What to wait for.
    pub fn interest(&self) -> Interest<'_> {
        match &self.voice {
            Voice::Packets(link) => link.interest(),
            Voice::Lines(link) => link.interest(),
        }
    }

    /// Whether the other end is heard.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// The next thing that came, `None` if nothing did.
    pub fn recv(&mut self, policy: &Policy, now: Duration) -> Option<Inbound> {
        loop {
            let inbound = match &mut self.voice {
                Voice::Packets(link) => match link.recv(now) {
                    Ok(notice) => self.notice(notice?, policy),
                    Err(error) => Some(Inbound::Remark("serial", error.to_string())),
                },
                Voice::Lines(link) => {
                    let heard = link.recv(now);
                    let is_open = link.is_open();
                    if is_open != self.is_up {
                        self.is_up = is_open;
                        if let Ok(Some(request)) = heard {
                            // The line came up by this very request: it is worked on first.
                            return self.request(request, policy);
                        }
                        return Some(link_is(is_open));
                    }
                    match heard {
                        Ok(request) => self.request(request?, policy),
                        Err(error) => Some(Inbound::Remark("serial", error.to_string())),
                    }
                }
            };
            if inbound.is_some() {
                return inbound;
            }
        }
    }

    fn notice(&mut self, notice: Notice, policy: &Policy) -> Option<Inbound> {
        match notice {
            Notice::Up { .. } => {
                self.is_up = true;
                Some(link_is(true))
            }
            Notice::Down(_) => {
                self.is_up = false;
                self.approvals.clear();
                Some(link_is(false))
            }
            Notice::Refused(mismatch) => Some(Inbound::Remark(
                "serial",
                format!("the other end cannot be talked to: {mismatch:?}"),
            )),
            Notice::Received(message) => self.message(message, policy),
            Notice::Clock { .. } => None,
            Notice::Delivered(ticket) => self.ended(ticket, Outcome::Done),
            Notice::Undelivered(ticket, _) => self.ended(ticket, Outcome::Failed),
        }
    }

    /// A message has come across, or not. A pin order is done only when the peer says so.
    fn ended(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Inbound> {
        let act = self.tickets.remove(&ticket.0)?;
        if outcome == Outcome::Done && self.orders.values().any(|order| *order == act) {
            return None;
        }
        self.orders.retain(|_, order| *order != act);
        Some(Inbound::Observe(Observation::Outcome { act, outcome }))
    }

    fn message(&mut self, message: Message, policy: &Policy) -> Option<Inbound> {
        match message {
            Message::PinEdge(edge) => {
                let is_meant = |pin: &&Pin| pin.serial_name() == Some(edge.pin.as_str());
                let pin = policy.pins.iter().find(is_meant)?;
                Some(Inbound::Observe(Observation::Pin {
                    pin: pin.name.clone(),
                    level: edge.level,
                    initial: false,
                }))
            }
            Message::Reading(reading) => {
                let value = f64::from(reading.milli) / 1000.0;
                packet_named(reading.sensor.as_str(), &value.to_string(), policy)
            }
            Message::Packet(packet) => {
                let known = policy
                    .packets
                    .iter()
                    .find(|known| known.number == packet.number)?;
                Some(packet_in(known.name.clone(), &packet.body))
            }
            Message::PinOutcome(outcome) => {
                let act = self.orders.remove(&outcome.request)?;
                self.tickets.retain(|_, waiting| *waiting != act);
                let outcome = match outcome.outcome {
                    PeerOutcome::Done => Outcome::Done,
                    _ => Outcome::Failed,
                };
                Some(Inbound::Observe(Observation::Outcome { act, outcome }))
            }
            Message::Look(look) => Some(Inbound::Errand(Errand {
                receipt: Receipt::Packet(look.request),
                question: (!look.question.is_empty()).then(|| look.question.to_string()),
                choices: look.choices.iter().map(ToString::to_string).collect(),
                rule: None,
                max_tokens: Some(48),
            })),
            Message::StateRequest => Some(Inbound::Query(Query::State, Receipt::Packet(0))),
            Message::Log(log) => Some(Inbound::Remark("peer", log.text.to_string())),
            Message::Approval(approval) => {
                let (request, nonce) = self.approvals.remove(&approval.request)?;
                Some(Inbound::Observe(Observation::Approval(Approval {
                    request,
                    nonce,
                    granted: approval.granted,
                    link: Link::Serial,
                    retained: false,
                })))
            }
            _ => None,
        }
    }

    fn request(&mut self, request: line_mode::Request, policy: &Policy) -> Option<Inbound> {
        use line_mode::Command;
        let receipt = Receipt::Line(request.number);
        let errand = |question, choices| {
            Inbound::Errand(Errand {
                receipt: receipt.clone(),
                question,
                choices,
                rule: None,
                max_tokens: Some(48),
            })
        };
        Some(match request.command {
            Command::Look => errand(None, Vec::new()),
            Command::Ask { question, choices } => errand(Some(question), choices),
            Command::State => Inbound::Query(Query::State, receipt),
            Command::Rules => Inbound::Query(Query::Rules, receipt),
            Command::Version => Inbound::Query(Query::Version, receipt),
            Command::Pin { name, on } => {
                let pin = text::name(&name).unwrap_or_default();
                let link = Link::Serial;
                Inbound::Request(Observation::Command { link, pin, on }, receipt)
            }
            Command::Packet { name, body } => match packet_named(&name, &body, policy) {
                Some(Inbound::Observe(observation)) => Inbound::Request(observation, receipt),
                _ => {
                    let reason = format!("no rule knows a packet {name:?}");
                    self.reply(request.number, Reply::error(ErrorCode::Arguments, &reason));
                    return None;
                }
            },
            // Answered by the link itself.
            Command::Attention | Command::Help => return None,
        })
    }

    fn reply(&mut self, number: u32, reply: Reply) {
        if let Voice::Lines(link) = &mut self.voice {
            // Nobody waits any more: it took too long, and they were told so.
            let _ = link.send(line_mode::Outgoing::Reply { number, reply }, Duration::ZERO);
        }
    }

    /// Answers a request that the step has seen.
    pub fn verdict(&mut self, receipt: &Receipt, refusal: Option<String>) {
        if let Receipt::Line(number) = receipt {
            let reply = match refusal {
                None => Reply::done(),
                Some(reason) => Reply::error(ErrorCode::Denied, &reason),
            };
            self.reply(*number, reply);
        }
    }

    /// Answers a person's question.
    pub fn answer(&mut self, receipt: &Receipt, answer: &ErrandAnswer, now: Duration) {
        match receipt {
            Receipt::Packet(request) => {
                let verdict = match answer.verdict {
                    ErrandVerdict::Answered => Verdict::Answered,
                    ErrandVerdict::Unsure => Verdict::Unsure,
                    ErrandVerdict::Failed => Verdict::Failed,
                };
                // A peer that went away meanwhile gets none.
                let _ = self.post(
                    Message::Answer(Answer {
                        request: *request,
                        verdict,
                        probability: answer.probability.0,
                        text: cut(&answer.text),
                    }),
                    now,
                );
            }
            Receipt::Line(number) => {
                let reply = match answer.verdict {
                    ErrandVerdict::Failed => Reply::error(ErrorCode::Failed, &answer.text),
                    verdict => {
                        let is_sure = verdict == ErrandVerdict::Answered;
                        let said = Said::choice(&answer.text, answer.probability.0, is_sure);
                        Reply::lines("ANSWER", [said])
                    }
                };
                self.reply(*number, reply);
            }
            Receipt::Broker(_) | Receipt::None => {}
        }
    }

    /// Says how the agent is, to one who asked or, by packets, to whom it may concern.
    pub fn condition(&mut self, receipt: &Receipt, condition: &Condition, now: Duration) {
        match receipt {
            Receipt::Line(number) => {
                let mode = mode(condition);
                let heat = condition
                    .temperature_c
                    .map_or_else(|| "unknown".to_owned(), |c| format!("{c:.1}"));
                let said = Said::new(&format!(
                    "{mode:?},{} s,{} rules,{heat} C,{}",
                    condition.uptime_s, condition.n_armed_rules, condition.faults
                ));
                self.reply(*number, Reply::lines("STATE", [said]));
            }
            _ if self.is_up => {
                let state = Message::State(State {
                    mode: mode(condition),
                    uptime_s: u32::try_from(condition.uptime_s).unwrap_or(u32::MAX),
                    n_armed_rules: condition.n_armed_rules,
                    // Tenths of a degree, far inside the type.
                    temperature_dc: condition.temperature_c.map(|c| (c * 10.0) as i16),
                    fault: cut(&condition.faults),
                });
                // Loose: the next one counts.
                let _ = self.post(state, now);
            }
            _ => {}
        }
    }

    /// Lists texts to one who asked.
    pub fn list(&mut self, receipt: &Receipt, name: &'static str, texts: Vec<String>) {
        if let Receipt::Line(number) = receipt {
            let said = texts.iter().map(|text| Said::new(text));
            self.reply(*number, Reply::lines(name, said));
        }
    }

    /// Announces an event.
    ///
    /// # Errors
    ///
    /// It was not taken.
    pub fn event(&mut self, event: &EventWords, now: Duration) -> Result<(), LineError> {
        // The peer tells events apart by half of the number.
        let id = event.id as u32;
        match &mut self.voice {
            Voice::Packets(_) => {
                let phase = match event.phase {
                    EventPhase::New => Phase::New,
                    EventPhase::Update => Phase::Update,
                    EventPhase::End => Phase::End,
                };
                let message = Message::Event(Event {
                    id,
                    phase,
                    rule: cut(&event.rule),
                    choice: cut(&event.answer),
                    probability: event.probability.0,
                });
                self.post(message, now).map(drop)
            }
            Voice::Lines(link) => {
                let phase = match event.phase {
                    EventPhase::New => "new",
                    EventPhase::Update => "update",
                    EventPhase::End => "end",
                };
                let said = Said::event(id, phase, &event.rule, &event.answer, event.probability.0);
                let sent = link.send(line_mode::Outgoing::Event(said), now);
                sent.map_err(|error| LineError::Refused(error.to_string()))
            }
        }
    }

    /// Sends a packet of the rules. Its outcome follows, if it has to come across to have one.
    ///
    /// # Errors
    ///
    /// It was not taken.
    pub fn packet(
        &mut self,
        act: ActId,
        (name, number): (&str, u8),
        body: &str,
        is_command: bool,
        now: Duration,
    ) -> Result<Option<Outcome>, LineError> {
        if let Voice::Lines(link) = &mut self.voice {
            let packet = line_mode::Outgoing::Packet {
                name: name.to_owned(),
                body: body.to_owned(),
            };
            let sent = link.send(packet, now);
            sent.map_err(|error| LineError::Refused(error.to_string()))?;
            return Ok(Some(Outcome::Done));
        }
        let message = Message::Packet(Packet {
            number,
            body: cut(body),
            is_command,
        });
        let ticket = self.post(message, now)?;
        self.await_ticket(ticket, act);
        Ok(ticket.is_none().then_some(Outcome::Done))
    }

    /// Drives an output of the microcontroller; its outcome follows.
    ///
    /// # Errors
    ///
    /// It was not taken.
    pub fn set_pin(
        &mut self,
        act: Option<ActId>,
        pin: &str,
        value: i32,
        within_ms: Option<u64>,
        now: Duration,
    ) -> Result<(), LineError> {
        self.next_request = self.next_request.wrapping_add(1);
        let request = self.next_request;
        let within = within_ms.map_or(LONGEST_ON_MS, |ms| u32::try_from(ms).unwrap_or(u32::MAX));
        let message = Message::SetPin(SetPin {
            request,
            pin: cut(pin),
            value,
            max_on_ms: within,
        });
        let ticket = self.post(message, now)?;
        if let Some(act) = act {
            if self.orders.len() >= MAX_AWAITED {
                self.orders.pop_first();
            }
            self.orders.insert(request, act);
            self.await_ticket(ticket, act);
        }
        Ok(())
    }

    /// Puts an action before the person at the microcontroller.
    ///
    /// # Errors
    ///
    /// It was not taken.
    pub fn ask_approval(
        &mut self,
        (request, nonce): (RequestId, u64),
        (rule, action): (&str, &str),
        within_ms: u64,
        now: Duration,
    ) -> Result<(), LineError> {
        self.next_request = self.next_request.wrapping_add(1);
        let number = self.next_request;
        let message = Message::ApprovalRequest(ApprovalRequest {
            request: number,
            rule: cut(rule),
            action: cut(action),
            expires_ms: u32::try_from(within_ms).unwrap_or(u32::MAX),
        });
        self.post(message, now)?;
        if self.approvals.len() >= MAX_AWAITED {
            self.approvals.pop_first();
        }
        self.approvals.insert(number, (request, nonce));
        Ok(())
    }

    /// An action no longer waits.
    pub fn withdraw(&mut self, request: RequestId) {
        self.approvals.retain(|_, (waiting, _)| *waiting != request);
    }

    fn await_ticket(&mut self, ticket: Option<Ticket>, act: ActId) {
        if let Some(ticket) = ticket {
            if self.tickets.len() >= MAX_AWAITED {
                self.tickets.pop_first();
            }
            self.tickets.insert(ticket.0, act);
        }
    }

    fn post(&mut self, message: Message, now: Duration) -> Result<Option<Ticket>, LineError> {
        match &mut self.voice {
            Voice::Packets(link) => link
                .post(message, now)
                .map_err(|error| LineError::Refused(error.to_string())),
            Voice::Lines(_) => Err(LineError::NoPins),
        }
    }
}

fn link_is(up: bool) -> Inbound {
    let link = Link::Serial;
    Inbound::Observe(Observation::Link { link, up })
}

fn packet_in(packet: text::Name, body: &str) -> Inbound {
    Inbound::Observe(Observation::Packet {
        link: Link::Serial,
        packet,
        body: text::Text::new(body),
    })
}

/// A packet by its name in the rule file; `None` if there is none.
fn packet_named(name: &str, body: &str, policy: &Policy) -> Option<Inbound> {
    let known = policy.packets.iter().find(|known| known.name == name)?;
    Some(packet_in(known.name.clone(), body))
}

fn mode(condition: &Condition) -> Mode {
    match (condition.faults.is_empty(), condition.is_dry_run) {
        (false, _) => Mode::Degraded,
        (true, true) => Mode::DryRun,
        (true, false) => Mode::Running,
    }
}

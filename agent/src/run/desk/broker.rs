//! [`Broker`]: the MQTT link in the words of the loop.

use super::{Errand, Inbound, Receipt};
use crate::link::mqtt::command::{Command, PinValue};
use crate::link::mqtt::message::Outgoing;
use crate::link::mqtt::payload::{Code, Reply};
use crate::link::mqtt::publication::Publication;
use crate::link::mqtt::{Incoming, Mqtt, MqttError, Request, Settings};
use crate::link::queue::{Priority, Recovered};
use crate::link::{Interest, Link as _};
use ocelli_reflex::observation::{Approval, Link};
use ocelli_reflex::{Observation, Policy, RequestId, text};
use std::path::Path;
use std::time::Duration;

/// The broker, as the loop sees it.
pub struct Broker {
    link: Mqtt,
    is_up: bool,
}

impl Broker {
    /// Begins to connect.
    ///
    /// # Errors
    ///
    /// [`MqttError`]: settings, the queue's file.
    pub fn start(
        settings: Settings,
        device: &str,
        queue: &Path,
        seed: u64,
    ) -> Result<(Broker, Recovered), MqttError> {
        let (link, recovered) = Mqtt::start(settings, device, queue, seed)?;
        let is_up = false;
        Ok((Broker { link, is_up }, recovered))
    }

    /// Takes new settings.
    ///
    /// # Errors
    ///
    /// [`MqttError`]; the old ones stay in force.
    pub fn reload(&self, settings: Settings) -> Result<(), MqttError> {
        self.link.reload(settings)
    }

    /// What to wait for.
    pub fn interest(&self) -> Interest<'_> {
        self.link.interest()
    }

    /// Whether the connection stands.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Figures of the link.
    pub fn stats(&self) -> crate::link::mqtt::payload::LinkStats {
        self.link.stats()
    }

    /// Says good-bye.
    pub fn stop(self) {
        self.link.stop();
    }

    /// Hands something over.
    ///
    /// # Errors
    ///
    /// It was not taken.
    pub fn send(&mut self, message: Outgoing, now: Duration) -> Result<(), MqttError> {
        self.link.send(message, now)
    }

    /// Answers a command.
    pub fn reply(&mut self, receipt: &Receipt, reply: Reply, now: Duration) {
        if let Receipt::Broker(ticket) = receipt {
            // Replies are always taken; the oldest makes room.
            let _ = self.link.send(Outgoing::Reply(ticket.clone(), reply), now);
        }
    }

    /// Publishes on a topic of the rules.
    ///
    /// # Errors
    ///
    /// It was not taken.
    pub fn publish(
        &mut self,
        (topic, retain): (&str, bool),
        payload: String,
        priority: u8,
        now: Duration,
    ) -> Result<(), MqttError> {
        let publication = Publication {
            topic: topic.to_owned(),
            payload: payload.into_bytes(),
            retain,
            priority: priority_of(priority),
        };
        self.link
            .send(Outgoing::Publish(Box::new(publication)), now)
    }

    /// The next thing that came, `None` if nothing did.
    pub fn recv(&mut self, policy: &Policy, now: Duration) -> Option<Inbound> {
        loop {
            let incoming = match self.link.recv(now) {
                Ok(incoming) => incoming?,
                Err(error) => return Some(Inbound::Remark("mqtt", error.to_string())),
            };
            if let Some(inbound) = self.understand(incoming, policy) {
                return Some(inbound);
            }
        }
    }

    fn understand(&mut self, incoming: Incoming, policy: &Policy) -> Option<Inbound> {
        let remark = |text| Some(Inbound::Remark("mqtt", text));
        let link = |up| {
            let link = Link::Mqtt;
            Some(Inbound::Observe(Observation::Link { link, up }))
        };
        match incoming {
            Incoming::Up => {
                self.is_up = true;
                link(true)
            }
            Incoming::Deaf { refused } => {
                self.is_up = true;
                remark(format!(
                    "the broker refused {refused} subscriptions; commands on them are not heard"
                ))
            }
            Incoming::Down { reason } => {
                let was_up = std::mem::replace(&mut self.is_up, false);
                match was_up {
                    true => link(false),
                    false => remark(format!("the broker is away: {reason}")),
                }
            }
            Incoming::Request(request) => understood(request),
            Incoming::Message {
                topic,
                payload,
                retained,
            } => message(&topic, &payload, retained, policy),
            Incoming::Refused { topic, reason } => remark(format!("{topic}: refused: {reason}")),
            Incoming::Dropped { total } => remark(format!(
                "{total} events were dropped so far, the queue is full"
            )),
            Incoming::Volatile { seq } => remark(format!(
                "event {seq} waits in memory only, the disk refused it"
            )),
            Incoming::Unsent { reason } => remark(reason),
        }
    }
}

/// What is dropped first when the queue is full, by the priority of a rule.
pub fn priority_of(priority: u8) -> Priority {
    match priority {
        0..=3 => Priority::Low,
        4..=7 => Priority::Normal,
        _ => Priority::High,
    }
}

/// A message on a topic of the rules; nothing if no rule has it any more.
fn message(topic: &str, payload: &[u8], retained: bool, policy: &Policy) -> Option<Inbound> {
    let known = policy.topics.iter().find(|known| known.path == topic)?;
    let body = text::Text::new(&String::from_utf8_lossy(payload));
    Some(Inbound::Observe(Observation::Message {
        link: Link::Mqtt,
        topic: known.name.clone(),
        body,
        retained,
    }))
}

fn understood(request: Request) -> Option<Inbound> {
    let receipt = Receipt::Broker(request.ticket);
    Some(match request.command {
        Command::Look { rule } => Inbound::Errand(Errand {
            receipt,
            question: None,
            choices: Vec::new(),
            rule,
            max_tokens: None,
        }),
        Command::Ask {
            question,
            choices,
            max_tokens,
            ..
        } => Inbound::Errand(Errand {
            receipt,
            question: Some(question),
            choices,
            rule: None,
            max_tokens,
        }),
        Command::Decide {
            action,
            nonce,
            approve,
        } => {
            // What is no number names nothing that waits, and is refused by the step.
            let request = RequestId(action.parse().unwrap_or(0));
            let nonce = u64::from_str_radix(&nonce, 16).unwrap_or(0);
            let approval = Approval {
                request,
                nonce,
                granted: approve,
                link: Link::Mqtt,
                retained: false,
            };
            Inbound::Request(Observation::Approval(approval), receipt)
        }
        Command::SetRule { rule, on } => {
            // Names in topics may be longer than names of rules; such a rule is not there.
            let rule = text::name(&rule).unwrap_or_default();
            Inbound::Request(Observation::Switch { rule, on }, receipt)
        }
        Command::SetPin { pin, value } => {
            let on = match value {
                PinValue::Level(on) => on,
                PinValue::Number(number) => number != 0.0,
            };
            let pin = text::name(&pin).unwrap_or_default();
            let link = Link::Mqtt;
            Inbound::Request(Observation::Command { link, pin, on }, receipt)
        }
        Command::SetFeature { .. } => {
            let text = "a feature was set, and this device has none";
            Inbound::Remark("mqtt", text.to_owned())
        }
        Command::Reload => Inbound::Reload(receipt),
    })
}

/// The reply to a request that the step has seen.
pub fn verdict(refusal: Option<String>) -> Reply {
    match refusal {
        None => Reply::plain(Code::Accepted),
        Some(reason) => Reply::because(Code::Denied, reason),
    }
}

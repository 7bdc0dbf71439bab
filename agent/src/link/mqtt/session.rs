//! [`Session`]: what is to be published next, what an acknowledgement settles, what a message
//! means. No I/O but the event queue's file; time is an argument.

mod own_topics;
mod recent;
#[cfg(test)]
mod tests;

use super::command::{self, Command, MAX_CORRELATION_BYTES};
use super::discovery::{self, Components, Description};
use super::message::{Incoming, MqttError, Outgoing, Request, State, Ticket};
use super::payload::{Code, LinkStats, Reply, Stats, pending_json, reply_json};
use super::protocol::{Message, Publish, PublishFault, Refusal};
use super::topics::{Content, Heard, Kind, Names, WIRE_VERSION, check_name};
use crate::link::queue::{Limits, Priority, Queue, Stamp};
use own_topics::Listening;
use recent::Recent;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Most events under way at once.
const WINDOW: usize = 16;
/// Most things that wait for the agent.
const MAX_INCOMING: usize = 64;
/// Most replies that wait for the broker.
const MAX_REPLIES: usize = 64;
/// How long an event waits that the broker did not take.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// What a publication settles once it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Removal,
    State(Kind, String),
    Reply,
    Event(u64),
}

#[derive(Debug)]
struct Latest {
    payload: Vec<u8>,
    dirty: bool,
}

/// State of the link that outlives connections.
#[derive(Debug)]
pub(super) struct Session {
    names: Names,
    description: Description,
    queue: Queue,
    latest: BTreeMap<(Kind, String), Latest>,
    replies: VecDeque<Publish>,
    recent: Recent,
    listening: Listening,
    incoming: VecDeque<Incoming>,
    /// Events under way, by the number of their acknowledgement.
    under_way: BTreeMap<u16, u64>,
    /// Events from this number on have not been sent over this connection.
    unsent: u64,
    resume: Option<Duration>,
    gone: Components,
    connected: bool,
    /// The agent knows that this connection stands.
    announced: bool,
    connects: u64,
    acknowledged_events: u64,
    commands_refused: u64,
    announced_drops: u64,
}

impl Session {
    pub(super) fn new(names: Names, queue: Queue) -> Session {
        let announced_drops = queue.dropped();
        Session {
            names,
            description: Description::default(),
            queue,
            latest: BTreeMap::new(),
            replies: VecDeque::new(),
            recent: Recent::default(),
            listening: Listening::default(),
            incoming: VecDeque::new(),
            under_way: BTreeMap::new(),
            unsent: 0,
            resume: None,
            gone: Components::new(),
            connected: false,
            announced: false,
            connects: 0,
            acknowledged_events: 0,
            commands_refused: 0,
            announced_drops,
        }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Other topics, after a reload. Everything is published again under them.
    pub(super) fn rename(&mut self, names: Names, limits: Limits) {
        self.names = names;
        self.queue.set_limits(limits);
        self.announce_drops();
        if !self.description.title.is_empty() {
            self.describe_again();
        }
    }

    pub(super) fn link_stats(&self) -> LinkStats {
        LinkStats {
            events_queued: self.queue.len(),
            events_dropped: self.queue.dropped(),
            commands_refused: self.commands_refused,
            connects: self.connects,
        }
    }

    /// Events that brokers have taken since the start.
    pub(super) fn acknowledged_events(&self) -> u64 {
        self.acknowledged_events
    }

    /// The next thing for the agent.
    pub(super) fn next_incoming(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    pub(super) fn has_incoming(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Takes what the agent hands over. Events are on the disk when this returns.
    pub(super) fn accept(&mut self, message: Outgoing) -> Result<(), MqttError> {
        match message {
            Outgoing::Event(event) => {
                self.enqueue(event.priority, |stamp| (*event).json(stamp))?;
            }
            Outgoing::Publish(publication) => {
                publication.check(&self.names)?;
                self.enqueue(publication.priority, |_| publication.stored())?;
            }
            Outgoing::Listen(topics) => self.listen(topics)?,
            Outgoing::State(state) => self.keep(state)?,
            Outgoing::Reply(ticket, reply) => self.reply(&ticket, reply),
            Outgoing::Describe(description) => {
                description.check()?;
                self.describe(*description);
            }
        }
        Ok(())
    }

    fn enqueue(
        &mut self,
        priority: Priority,
        payload: impl FnOnce(Stamp) -> Vec<u8>,
    ) -> Result<(), MqttError> {
        let pushed = self.queue.push(priority, payload)?;
        if !pushed.durable && pushed.dropped == 0 {
            self.tell(Incoming::Volatile {
                seq: pushed.stamp.seq,
            });
        }
        self.announce_drops();
        Ok(())
    }

    fn keep(&mut self, state: State) -> Result<(), MqttError> {
        let (kind, name, payload) = match state {
            State::Info(info) => (Kind::Info, String::new(), info.json()),
            State::Stats(stats) => (Kind::Stats, String::new(), self.stats_json(&stats)),
            State::Pending(pending) => (Kind::Pending, String::new(), pending_json(pending)),
            State::Answer(sight) => (Kind::Answer, sight.rule.clone(), sight.answer_json()),
            State::Snapshot { rule, jpeg } => (Kind::Snapshot, rule, jpeg),
            State::Rule { rule, on } => (Kind::RuleState, rule, on_off(on)),
            State::Pin { pin, value } => (Kind::PinState, pin, value.text().into_bytes()),
            State::Feature { feature, value } => (Kind::FeatureState, feature, value.into_bytes()),
        };
        if kind.topic().pattern.contains("{name}") {
            check_name(&name)?;
        }
        self.put(kind, name, payload)
    }

    fn stats_json(&self, stats: &Stats) -> Vec<u8> {
        stats.json(self.link_stats())
    }

    fn put(&mut self, kind: Kind, name: String, payload: Vec<u8>) -> Result<(), MqttError> {
        let limit = kind.topic().max_bytes;
        if payload.len() > limit {
            return Err(MqttError::TooLarge {
                topic: kind.topic().pattern,
                bytes: payload.len(),
                limit,
            });
        }
        let dirty = true;
        self.latest.insert((kind, name), Latest { payload, dirty });
        Ok(())
    }

    fn describe(&mut self, description: Description) {
        let old = std::mem::replace(&mut self.description, description);
        let before = discovery::payload(&self.names, &old, &Components::new());
        self.forget(discovery::gone(&self.names, &self.description, &before));
        self.describe_again();
    }

    fn describe_again(&mut self) {
        if self.names.discovery().is_none() {
            self.latest.remove(&(Kind::Discovery, String::new()));
            return;
        }
        let payload = discovery::payload(&self.names, &self.description, &Components::new());
        // Names, titles and counts are bounded by the check of the description.
        let _ = self.put(Kind::Discovery, String::new(), payload);
    }

    /// Components that are no more: what is retained for them is emptied, and the next description
    /// says so.
    fn forget(&mut self, gone: Components) {
        for id in gone.keys() {
            let emptied = match id.split_once('_') {
                Some(("answer", name)) => (Kind::Answer, name),
                Some(("snapshot", name)) => (Kind::Snapshot, name),
                Some(("rule", name)) => (Kind::RuleState, name),
                Some(("pin", name)) => (Kind::PinState, name),
                Some(("feature", name)) => (Kind::FeatureState, name),
                _ => continue,
            };
            // An empty payload is within every limit.
            let _ = self.put(emptied.0, emptied.1.to_owned(), Vec::new());
        }
        self.gone.extend(gone);
    }

    /// Everything retained goes out again, births first; events not acknowledged do, too.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        self.connects += 1;
        self.announced = false;
        self.listening.lost();
        self.under_way.clear();
        self.unsent = 0;
        self.resume = None;
        // A few bytes are within the limit.
        let _ = self.put(Kind::Availability, String::new(), b"online".to_vec());
        self.publish_again();
    }

    fn publish_again(&mut self) {
        for latest in self.latest.values_mut() {
            latest.dirty = true;
        }
    }

    /// The broker knows what we listen to; told again only when it refuses what was added.
    pub(super) fn subscribed(&mut self, refused: usize) {
        let is_first = !std::mem::replace(&mut self.announced, true);
        if refused > 0 {
            self.tell(Incoming::Deaf { refused });
        } else if is_first {
            self.tell(Incoming::Up);
        }
    }

    /// The connection is gone, or did not come to stand.
    pub(super) fn disconnected(&mut self, reason: String) {
        self.connected = false;
        self.listening.lost();
        self.under_way.clear();
        self.tell(Incoming::Down { reason });
    }

    /// What is to be published now, if anything.
    pub(super) fn next(&mut self, now: Duration) -> Option<(What, Publish)> {
        if !self.connected {
            return None;
        }
        if !self.gone.is_empty() {
            let payload = discovery::payload(&self.names, &self.description, &self.gone);
            if let Some(publish) = self.publish(Kind::Discovery, "", payload) {
                return Some((What::Removal, publish));
            }
            self.gone.clear();
        }
        if let Some(next) = self.next_state() {
            return Some(next);
        }
        if let Some(reply) = self.replies.front() {
            return Some((What::Reply, reply.clone()));
        }
        self.next_event(now)
    }

    fn next_state(&mut self) -> Option<(What, Publish)> {
        let dirty = self.latest.iter().find(|(_, latest)| latest.dirty)?;
        let ((kind, name), payload) = (dirty.0.clone(), dirty.1.payload.clone());
        let publish = self.publish(kind, &name, payload)?;
        Some((What::State(kind, name), publish))
    }

    fn next_event(&mut self, now: Duration) -> Option<(What, Publish)> {
        if self.under_way.len() >= WINDOW || self.resume.is_some_and(|at| now < at) {
            return None;
        }
        self.resume = None;
        while let Some(seq) = self.queue.first_from(self.unsent) {
            match self.queue.payload(seq) {
                Ok(Some(stored)) => match self.queued(stored) {
                    Ok(publish) => return Some((What::Event(seq), publish)),
                    Err(reason) => self.give_up(seq, &reason),
                },
                Ok(None) => self.unsent = seq + 1,
                Err(fault) => self.give_up(seq, &fault.to_string()),
            }
        }
        None
    }

    fn publish(&self, kind: Kind, name: &str, payload: Vec<u8>) -> Option<Publish> {
        let topic = kind.topic();
        Some(Publish {
            topic: self.names.path(kind, name)?,
            payload,
            qos: topic.qos,
            retained: topic.retained,
            expiry: topic.expiry,
            media_type: topic.content.media_type(),
            schema_version: matches!(topic.content, Content::Json(_)).then_some(WIRE_VERSION),
            correlation: None,
        })
    }

    /// When [`Session::next`] has something although nothing happens before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.resume
    }

    /// `what` is on its way; its acknowledgement will bear `packet_id`.
    pub(super) fn sent(&mut self, what: What, packet_id: Option<u16>) {
        match what {
            What::Removal => {
                self.gone.clear();
                self.describe_again();
            }
            What::State(kind, name) => self.state_sent(kind, name),
            What::Reply => drop(self.replies.pop_front()),
            What::Event(seq) => {
                self.unsent = seq + 1;
                if let Some(packet_id) = packet_id {
                    self.under_way.insert(packet_id, seq);
                }
            }
        }
    }

    fn state_sent(&mut self, kind: Kind, name: String) {
        let key = (kind, name);
        if let Some(latest) = self.latest.get_mut(&key) {
            latest.dirty = false;
            if latest.payload.is_empty() {
                self.latest.remove(&key);
            }
        }
    }

    /// `what` cannot be sent to this broker.
    pub(super) fn unsendable(&mut self, what: What, fault: PublishFault) {
        let reason = match fault {
            PublishFault::Busy => return,
            PublishFault::TooLarge => "the broker takes no message of this size",
            PublishFault::Invalid => "the message has no valid form",
        };
        if let What::Event(seq) = what {
            self.give_up(seq, reason);
        } else {
            self.tell(Incoming::Unsent {
                reason: format!("{what:?}: {reason}"),
            });
            self.sent(what, None);
        }
    }

    /// The broker answered the message with this number.
    pub(super) fn acknowledged(&mut self, packet_id: u16, refusal: Option<Refusal>, now: Duration) {
        let Some(seq) = self.under_way.remove(&packet_id) else {
            return;
        };
        match refusal {
            None => {
                self.acknowledged_events += 1;
                self.queue.acknowledge(seq);
            }
            Some(Refusal::Never(reason)) => self.give_up(seq, reason),
            Some(Refusal::Later(reason)) => {
                // Those under way behind it come again after it, so that it is not the last.
                self.unsent = self.unsent.min(seq);
                self.resume = Some(now.saturating_add(REFUSED_WAIT));
                self.tell(Incoming::Unsent {
                    reason: format!("message {seq} of the queue waits: {reason}"),
                });
            }
        }
    }

    fn give_up(&mut self, seq: u64, reason: &str) {
        self.queue.give_up(seq);
        self.tell(Incoming::Unsent {
            reason: format!("message {seq} of the queue is given up: {reason}"),
        });
        self.announce_drops();
    }

    fn announce_drops(&mut self) {
        let total = self.queue.dropped();
        if total > self.announced_drops {
            self.announced_drops = total;
            self.tell(Incoming::Dropped { total });
        }
    }

    /// Puts something before the agent. Requests and messages have been counted before; the oldest of
    /// the rest makes room.
    fn tell(&mut self, incoming: Incoming) {
        if self.incoming.len() >= MAX_INCOMING {
            let oldest = self.incoming.iter().position(|waiting| {
                !matches!(waiting, Incoming::Request(_) | Incoming::Message { .. })
            });
            if let Some(oldest) = oldest {
                self.incoming.remove(oldest);
            }
        }
        self.incoming.push_back(incoming);
    }

    /// A message came.
    pub(super) fn message(&mut self, message: Message, now: Duration) {
        let names = self.names.clone();
        let Some(heard) = names.heard(&message.topic) else {
            return self.own_message(message);
        };
        match heard.topic.kind {
            Kind::DiscoveryStatus => {
                if message.payload == b"online" {
                    self.publish_again();
                }
            }
            Kind::DiscoveryEcho => {
                if message.payload.len() <= heard.topic.max_bytes {
                    let gone = discovery::gone(&names, &self.description, &message.payload);
                    self.forget(gone);
                }
            }
            // A retained command would be obeyed again at every start.
            _ if message.retained => self.refuse(&message, "it is retained"),
            _ => self.command(&heard, &message, now),
        }
    }

    fn command(&mut self, heard: &Heard<'_>, message: &Message, now: Duration) {
        let parsed = command::parse(heard, &message.payload);
        let id = match &parsed {
            Ok(parsed) => parsed.id.clone(),
            Err(_) => command::id_of(&message.payload),
        };
        let mut ticket = self.ticket(message, id);
        match parsed {
            Err(error) => self.turn_down(message, &ticket, Reply::from(&error)),
            Ok(parsed) => {
                if let Some(unknown) = self.unknown(&parsed.command) {
                    let reply = Reply::because(Code::Unknown, unknown);
                    return self.turn_down(message, &ticket, reply);
                }
                if self.incoming.len() >= MAX_INCOMING {
                    let reply = Reply::because(Code::Busy, "too many commands wait");
                    return self.turn_down(message, &ticket, reply);
                }
                match self.recent.remember(message, &ticket, now) {
                    recent::Seen::Before(reply) => self.send_reply(reply),
                    recent::Seen::Now(serial) => {
                        ticket.serial = serial;
                        self.incoming.push_back(Incoming::Request(Request {
                            ticket,
                            command: parsed.command,
                            expires: message
                                .expiry
                                .map(|seconds| Duration::from_secs(seconds.into())),
                        }));
                    }
                }
            }
        }
    }

    fn ticket(&self, message: &Message, id: Option<String>) -> Ticket {
        let topic = message
            .response_topic
            .as_ref()
            .filter(|topic| self.names.may_answer_on(topic))
            .cloned();
        let correlation = message
            .correlation
            .as_ref()
            .filter(|data| data.len() <= MAX_CORRELATION_BYTES)
            .cloned();
        Ticket {
            id,
            topic,
            correlation,
            serial: 0,
        }
    }

    /// What a command names that is not there.
    fn unknown(&self, command: &Command) -> Option<String> {
        let Description {
            rules,
            pins,
            features,
            ..
        } = &self.description;
        let missing = |what, name: &String, there: bool| {
            (!there).then(|| format!("there is no {what} `{name}`"))
        };
        match command {
            Command::Look { rule: Some(rule) } | Command::SetRule { rule, .. } => {
                missing("rule", rule, rules.iter().any(|known| known.name == *rule))
            }
            Command::SetPin { pin, .. } => {
                missing("pin", pin, pins.iter().any(|known| known.name == *pin))
            }
            Command::SetFeature { feature, value } => {
                let known = features.iter().find(|known| known.name == *feature);
                let fits = |options: &[String]| match options {
                    [] => value == "ON" || value == "OFF",
                    options => options.contains(value),
                };
                match known {
                    None => missing("feature", feature, false),
                    Some(known) => (!fits(&known.options))
                        .then(|| format!("`{value}` is no value of `{feature}`")),
                }
            }
            _ => None,
        }
    }

    fn turn_down(&mut self, message: &Message, ticket: &Ticket, reply: Reply) {
        let reason = reply.reason.clone().unwrap_or_default();
        self.refuse(message, &reason);
        let publish = self.reply_publish(ticket, reply);
        self.send_reply(publish);
    }

    fn refuse(&mut self, message: &Message, reason: &str) {
        self.commands_refused += 1;
        self.tell(Incoming::Refused {
            topic: message.topic.clone(),
            reason: reason.to_owned(),
        });
    }

    fn reply(&mut self, ticket: &Ticket, reply: Reply) {
        let publish = self.reply_publish(ticket, reply);
        self.recent.answered(ticket.serial, publish.as_ref());
        self.send_reply(publish);
    }

    fn reply_publish(&self, ticket: &Ticket, reply: Reply) -> Option<Publish> {
        let payload = reply_json(reply, ticket.id.as_deref());
        let mut publish = self.publish(Kind::Reply, "", payload)?;
        publish.correlation = ticket.correlation.clone();
        if let Some(topic) = &ticket.topic {
            publish.topic.clone_from(topic);
        }
        Some(publish)
    }

    fn send_reply(&mut self, publish: Option<Publish>) {
        if self.replies.len() >= MAX_REPLIES {
            self.replies.pop_front();
        }
        self.replies.extend(publish);
    }
}

fn on_off(on: bool) -> Vec<u8> {
    if on { b"ON".to_vec() } else { b"OFF".to_vec() }
}

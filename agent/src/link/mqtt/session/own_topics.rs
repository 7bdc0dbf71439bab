//! Topics of the rules' own: what is listened to, and what comes and goes there.

use super::super::message::{Incoming, MqttError};
use super::super::protocol::{Message, Publish};
use super::super::publication::{
    self, MAX_HEARD_BYTES, MAX_LISTENED, PublicationError, check_topic,
};
use super::super::topics::Kind;
use super::{MAX_INCOMING, Session};
use std::collections::BTreeSet;

/// Topics to listen to.
#[derive(Debug, Default)]
pub(super) struct Listening {
    wanted: BTreeSet<String>,
    /// What this connection's broker was asked for.
    asked: BTreeSet<String>,
}

impl Listening {
    /// The connection is gone, and with it what was asked for.
    pub(super) fn lost(&mut self) {
        self.asked.clear();
    }
}

/// What the broker is to be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscriptions {
    /// Topics to subscribe to.
    pub(crate) new: Vec<String>,
    /// Topics to unsubscribe from.
    pub(crate) gone: Vec<String>,
}

impl Session {
    /// Other topics to listen to, all of them.
    pub(super) fn listen(&mut self, topics: Vec<String>) -> Result<(), MqttError> {
        if topics.len() > MAX_LISTENED {
            let count = topics.len();
            return Err(PublicationError::TooMany { count }.into());
        }
        for topic in &topics {
            check_topic(&self.names, topic)?;
        }
        self.listening.wanted = topics.into_iter().collect();
        Ok(())
    }

    /// What has changed since the last call over this connection; counts as asked for.
    pub(crate) fn subscriptions(&mut self) -> Subscriptions {
        if !self.connected {
            return Subscriptions::default();
        }
        // A reload may have moved the base topic over one of them.
        let names = &self.names;
        let usable: BTreeSet<String> = (self.listening.wanted.iter())
            .filter(|topic| check_topic(names, topic).is_ok())
            .cloned()
            .collect();
        let asked = std::mem::replace(&mut self.listening.asked, usable.clone());
        Subscriptions {
            new: usable.difference(&asked).cloned().collect(),
            gone: asked.difference(&usable).cloned().collect(),
        }
    }

    /// A message that is no command.
    pub(super) fn own_message(&mut self, message: Message) {
        if !self.listening.wanted.contains(&message.topic) {
            return;
        }
        let reason = if message.payload.len() > MAX_HEARD_BYTES {
            let bytes = message.payload.len();
            format!("{bytes} bytes are more than the limit of {MAX_HEARD_BYTES}")
        } else if self.incoming.len() >= MAX_INCOMING {
            "too many messages wait".to_owned()
        } else {
            return self.incoming.push_back(Incoming::Message {
                topic: message.topic,
                payload: message.payload,
                retained: message.retained,
            });
        };
        self.tell(Incoming::Refused {
            topic: message.topic,
            reason,
        });
    }

    /// The message that waits in the queue as these bytes, or why it cannot be sent.
    pub(super) fn queued(&self, stored: Vec<u8>) -> Result<Publish, String> {
        if !publication::is_stored(&stored) {
            return self
                .publish(Kind::Event, "", stored)
                .ok_or_else(|| "events have no topic".to_owned());
        }
        let publish = publication::restore(&stored).ok_or("it cannot be read")?;
        // A reload may have moved the base topic over it.
        check_topic(&self.names, &publish.topic).map_err(|fault| fault.to_string())?;
        Ok(publish)
    }
}

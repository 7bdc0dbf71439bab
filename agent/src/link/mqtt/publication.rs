//! [`Publication`]: what rules publish on topics of their own, and which topics those may be.

use super::protocol::Publish;
use super::topics::{Names, is_inside};
use crate::link::queue::Priority;
use ocelli_reflex::limit::{MAX_TEMPLATE, MAX_TOPICS};

/// Longest payload that rules publish, in bytes.
pub const MAX_PUBLICATION_BYTES: usize = 32 << 10;
/// Longest payload that rules hear, in bytes.
pub const MAX_HEARD_BYTES: usize = 4096;
/// Longest topic of a rule, in bytes.
pub const MAX_TOPIC_BYTES: usize = MAX_TEMPLATE;
/// Most topics that rules listen to.
pub const MAX_LISTENED: usize = MAX_TOPICS;

/// First byte of a publication in the queue. An event is JSON and never begins with it.
const MARK: u8 = 0;
const HEAD_BYTES: usize = 4;

/// A message on a topic of the rules' own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The topic: without wildcards, outside of what this device and discovery use.
    pub topic: String,
    /// At most [`MAX_PUBLICATION_BYTES`].
    pub payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// What is dropped first when the queue is full.
    pub priority: Priority,
}

/// Why the link does not take something about topics of the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicationError {
    /// A topic that is none, or has another meaning.
    #[error("`{topic}` cannot be a topic of the rules: {why}; change its `path` in the rule file")]
    Topic {
        /// Its beginning.
        topic: String,
        /// Why.
        why: &'static str,
    },
    /// A payload that is too long.
    #[error(
        "{bytes} bytes for `{topic}` are more than the limit of {MAX_PUBLICATION_BYTES}; shorten the payload"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// Length of the payload.
        bytes: usize,
    },
    /// Too many topics to listen to.
    #[error("the rules listen to {count} topics, the limit is {MAX_LISTENED}; remove some")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// Whether rules may use a topic.
///
/// # Errors
///
/// [`PublicationError::Topic`].
pub fn check_topic(names: &Names, topic: &str) -> Result<(), PublicationError> {
    let is_no_text = |c: char| c.is_control() || matches!(c as u32 & 0xffff, 0xfffe | 0xffff);
    let reasons = [
        (topic.is_empty(), "it is empty"),
        (
            topic.len() > MAX_TOPIC_BYTES,
            "it is longer than 1024 bytes",
        ),
        (topic.contains(['+', '#']), "it has a wildcard, + or #"),
        (topic.contains(is_no_text), "it has control characters"),
        (
            topic.starts_with('$'),
            "what begins with $ belongs to the broker",
        ),
        (
            is_inside(topic, names.base()),
            "it lies inside the base topic",
        ),
        (
            names
                .discovery()
                .is_some_and(|prefix| is_inside(topic, prefix)),
            "it lies inside the discovery prefix",
        ),
    ];
    match reasons.into_iter().find(|(holds, _)| *holds) {
        None => Ok(()),
        Some((_, why)) => Err(PublicationError::Topic {
            topic: topic.chars().take(64).collect(),
            why,
        }),
    }
}

impl Publication {
    /// Refuses what cannot be published.
    ///
    /// # Errors
    ///
    /// [`PublicationError`].
    pub fn check(&self, names: &Names) -> Result<(), PublicationError> {
        check_topic(names, &self.topic)?;
        if self.payload.len() > MAX_PUBLICATION_BYTES {
            return Err(PublicationError::TooLarge {
                topic: self.topic.clone(),
                bytes: self.payload.len(),
            });
        }
        Ok(())
    }

    /// Its bytes in the queue: mark, retain, length of the topic (u16 little endian), topic, payload.
    pub(super) fn stored(&self) -> Vec<u8> {
        // A checked topic is shorter than this.
        let len = u16::try_from(self.topic.len()).unwrap_or(u16::MAX);
        let mut stored = vec![MARK, u8::from(self.retain)];
        stored.extend_from_slice(&len.to_le_bytes());
        stored.extend_from_slice(self.topic.as_bytes());
        stored.extend_from_slice(&self.payload);
        stored
    }
}

/// Whether bytes of the queue are a publication; otherwise they are an event.
pub(super) fn is_stored(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MARK)
}

/// The message that [`Publication::stored`] wrote; `None` for other bytes.
pub(super) fn restore(stored: &[u8]) -> Option<Publish> {
    let (head, rest) = stored.split_at_checked(HEAD_BYTES)?;
    let [MARK, retain @ 0..=1, low, high] = *head else {
        return None;
    };
    let (topic, payload) = rest.split_at_checked(u16::from_le_bytes([low, high]).into())?;
    Some(Publish {
        topic: std::str::from_utf8(topic).ok()?.to_owned(),
        payload: payload.to_vec(),
        qos: 1,
        retained: retain == 1,
        expiry: None,
        media_type: match std::str::from_utf8(payload) {
            Ok(_) => "text/plain",
            Err(_) => "application/octet-stream",
        },
        schema_version: None,
        correlation: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Names {
        Names::new("home/porch", Some("ha"), "porch").unwrap()
    }

    #[test]
    fn topics_that_mean_something_else_are_refused() {
        let long = "x".repeat(MAX_TOPIC_BYTES + 1);
        for (topic, why) in [
            ("", "empty"),
            (long.as_str(), "longer than"),
            ("a/+", "wildcard"),
            ("a/#", "wildcard"),
            ("a\nb", "control"),
            ("a\0", "control"),
            ("a\u{ffff}", "control"),
            ("$SYS/x", "broker"),
            ("home/porch", "base topic"),
            ("home/porch/pin/lamp/set", "base topic"),
            ("ha/status", "discovery"),
        ] {
            let refused = check_topic(&names(), topic).unwrap_err().to_string();
            assert!(refused.contains(why), "{topic:?}: {refused}");
        }
        for topic in ["home/porchlight", "home", "hall/größe", "/a//b", "x y"] {
            assert_eq!(check_topic(&names(), topic), Ok(()), "{topic}");
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_is_restored(
            topic in "[a-zä/]{1,40}", payload in prop::collection::vec(any::<u8>(), 0..60), retain: bool,
        ) {
            let priority = Priority::Low;
            let publication = Publication { topic: topic.clone(), payload: payload.clone(), retain, priority };
            let stored = publication.stored();
            prop_assert!(is_stored(&stored));
            let publish = restore(&stored).unwrap();
            prop_assert_eq!((publish.topic, publish.payload, publish.retained), (topic, payload, retain));
        }

        #[test]
        fn any_bytes_restore_or_do_not_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = restore(&[&[MARK][..], &bytes].concat());
            let event = br#"{"v":1}"#;
            prop_assert!(!is_stored(event));
        }
    }
}

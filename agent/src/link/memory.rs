//! [`MemoryLink`]: two ends of a link in one program.

use super::{Interest, Link, LinkError, LinkErrorKind};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why a [`MemoryLink`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryLinkError {
    /// The other end was dropped.
    #[error("the other end of the in-memory link is gone")]
    Closed,
    /// The other end has not taken what was sent before.
    #[error("{waiting} messages wait in the in-memory link, the limit is {limit}; receive first")]
    Full {
        /// Messages waiting.
        waiting: usize,
        /// Most that may wait.
        limit: usize,
    },
}

impl LinkError for MemoryLinkError {
    fn kind(&self) -> LinkErrorKind {
        match self {
            MemoryLinkError::Closed => LinkErrorKind::Closed,
            MemoryLinkError::Full { .. } => LinkErrorKind::Other,
        }
    }
}

type Queue<T> = Arc<Mutex<VecDeque<T>>>;

/// One end of a pair. Nothing is lost, repeated or delayed.
#[derive(Debug)]
pub struct MemoryLink<Out, In> {
    outgoing: Queue<Out>,
    incoming: Queue<In>,
    limit: usize,
}

/// Two joined ends; at most `limit` messages wait each way.
pub fn pair<A, B>(limit: usize) -> (MemoryLink<A, B>, MemoryLink<B, A>) {
    let (forth, back) = (Queue::default(), Queue::default());
    let near = MemoryLink {
        outgoing: Arc::clone(&forth),
        incoming: Arc::clone(&back),
        limit,
    };
    let far = MemoryLink {
        outgoing: back,
        incoming: forth,
        limit,
    };
    (near, far)
}

fn locked<T>(queue: &Queue<T>) -> MutexGuard<'_, VecDeque<T>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Out, In> MemoryLink<Out, In> {
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.outgoing) == 1
    }
}

impl<Out, In> Link for MemoryLink<Out, In> {
    type Outgoing = Out;
    type Incoming = In;
    type Error = MemoryLinkError;

    fn send(&mut self, message: Out, _now: Duration) -> Result<(), MemoryLinkError> {
        if self.is_alone() {
            return Err(MemoryLinkError::Closed);
        }
        let mut outgoing = locked(&self.outgoing);
        if outgoing.len() >= self.limit {
            return Err(MemoryLinkError::Full {
                waiting: outgoing.len(),
                limit: self.limit,
            });
        }
        outgoing.push_back(message);
        Ok(())
    }

    fn recv(&mut self, _now: Duration) -> Result<Option<In>, MemoryLinkError> {
        match locked(&self.incoming).pop_front() {
            Some(message) => Ok(Some(message)),
            None if self.is_alone() => Err(MemoryLinkError::Closed),
            None => Ok(None),
        }
    }

    fn interest(&self) -> Interest<'_> {
        let waiting = !locked(&self.incoming).is_empty();
        Interest {
            deadline: waiting.then_some(Duration::ZERO),
            ..Interest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn what_one_end_sends_the_other_receives_in_order() {
        let (mut near, mut far) = pair::<u8, &str>(4);
        near.send(1, NOW).unwrap();
        near.send(2, NOW).unwrap();
        far.send("back", NOW).unwrap();
        assert_eq!(far.interest().deadline, Some(Duration::ZERO));
        assert_eq!(far.recv(NOW), Ok(Some(1)));
        assert_eq!(far.recv(NOW), Ok(Some(2)));
        assert_eq!(far.recv(NOW), Ok(None));
        assert_eq!(far.interest().deadline, None);
        assert_eq!(near.recv(NOW), Ok(Some("back")));
    }

    #[test]
    fn a_full_link_refuses_and_says_its_limit() {
        let (mut near, _far) = pair::<u8, ()>(2);
        near.send(1, NOW).unwrap();
        near.send(2, NOW).unwrap();
        let refused = near.send(3, NOW).unwrap_err();
        assert_eq!(
            refused,
            MemoryLinkError::Full {
                waiting: 2,
                limit: 2
            }
        );
        assert_eq!(refused.kind(), LinkErrorKind::Other);
    }

    #[test]
    fn what_was_sent_before_the_end_went_is_still_received() {
        let (mut near, mut far) = pair::<u8, ()>(2);
        near.send(1, NOW).unwrap();
        drop(near);
        assert_eq!(far.recv(NOW), Ok(Some(1)));
        assert_eq!(far.recv(NOW).unwrap_err().kind(), LinkErrorKind::Closed);
        assert_eq!(far.send((), NOW).unwrap_err().kind(), LinkErrorKind::Closed);
    }
}

//! [`Mailbox`]: a bounded queue between threads, with a descriptor for a poll loop.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A queue of at most so many items. Its descriptor is readable exactly while something waits.
#[derive(Debug)]
pub struct Mailbox<T> {
    waiting: Mutex<VecDeque<T>>,
    limit: usize,
    ready: EventFd,
}

impl<T> Mailbox<T> {
    /// An empty mailbox for at most `limit` items.
    ///
    /// # Errors
    ///
    /// The system gives no more descriptors.
    pub fn new(limit: usize) -> io::Result<Mailbox<T>> {
        Ok(Mailbox {
            waiting: Mutex::new(VecDeque::new()),
            limit,
            ready: event()?,
        })
    }

    /// Puts an item behind the others.
    ///
    /// # Errors
    ///
    /// The item, if the mailbox is full.
    pub fn put(&self, item: T) -> Result<(), T> {
        let mut waiting = self.waiting();
        if waiting.len() >= self.limit {
            return Err(item);
        }
        waiting.push_back(item);
        let _ = self.ready.write(1);
        Ok(())
    }

    /// Takes the item that has waited longest.
    pub fn take(&self) -> Option<T> {
        let mut waiting = self.waiting();
        let item = waiting.pop_front();
        if waiting.is_empty() {
            let _ = self.ready.read();
        }
        item
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// A counter of the kernel that is readable while it is not zero; it never blocks and no child
/// inherits it.
///
/// # Errors
///
/// The system gives no more descriptors.
pub fn event() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(
        EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn readable(mailbox: &Mailbox<u8>) -> bool {
        let mut fds = [PollFd::new(mailbox.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn the_descriptor_is_readable_while_something_waits() {
        let mailbox = Mailbox::new(2).unwrap();
        assert!(!readable(&mailbox));
        mailbox.put(1).unwrap();
        mailbox.put(2).unwrap();
        assert_eq!((mailbox.take(), readable(&mailbox)), (Some(1), true));
        assert_eq!((mailbox.take(), readable(&mailbox)), (Some(2), false));
        assert_eq!((mailbox.take(), readable(&mailbox)), (None, false));
    }

    #[test]
    fn a_full_mailbox_gives_the_item_back() {
        let mailbox = Mailbox::new(1).unwrap();
        mailbox.put(1).unwrap();
        assert_eq!(mailbox.put(2), Err(2));
        assert_eq!(mailbox.len(), 1);
    }
}

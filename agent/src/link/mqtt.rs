//! The MQTT link: state, events and commands through a broker, MQTT 5 or 3.1.1, plain or TLS.
//!
//! | file | defines |
//! |---|---|
//! | [`topics`] | the versioned table of topics |
//! | [`payload`] | what is published |
//! | [`command`] | what others may ask for |
//! | [`discovery`] | the description for Home Assistant |
//! | [`settings`] | the `[mqtt]` table of the configuration |
//! | [`publication`] | what rules publish on topics of their own |
//! | [`message`] | what passes between agent and link |
//! | `session` | what is to be said next and what a message means, without I/O |
//! | `protocol` | packets, without I/O |
//! | `transport`, `worker` | the socket, and the thread that holds it |
//!
//! Events and publications of the rules wait in a [`Queue`] on disk and are removed when the broker
//! has acknowledged them. Of state only the last is kept, in memory, and published again after every
//! connect. Sessions do not outlive connections: a command sent while the device is away is lost,
//! never late.

pub mod command;
pub mod discovery;
pub mod message;
pub mod payload;
mod protocol;
pub mod publication;
#[cfg(test)]
mod schema;
mod session;
pub mod settings;
pub mod topics;
mod transport;
mod worker;

pub use message::{Incoming, MqttError, Outgoing, Request, State, Ticket};
pub use publication::Publication;
pub use settings::Settings;

use super::queue::{Queue, Recovered};
use super::{Interest, Link};
use payload::LinkStats;
use session::Session;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use worker::Shared;

/// A running link. Dropping it ends the connection without waiting for that.
pub struct Mqtt {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Mqtt {
    /// Opens the event queue at `queue` and begins to connect. `device` names this device in topics
    /// and for Home Assistant; `seed` spreads the waits between tries and names a new queue.
    ///
    /// # Errors
    ///
    /// [`MqttError`]: settings, the queue's file, no thread. A broker that is away is no error.
    pub fn start(
        settings: Settings,
        device: &str,
        queue: &Path,
        seed: u64,
    ) -> Result<(Mqtt, Recovered), MqttError> {
        let names = settings.names(device)?;
        let (queue, recovered) = Queue::open(queue, settings.queue_limits(), seed)?;
        let shared = Arc::new(Shared::new(settings, Session::new(names, queue), device)?);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("mqtt".to_owned())
            .spawn(move || worker::run(&theirs, seed))
            .map_err(|source| MqttError::Start { source })?;
        let mqtt = Mqtt {
            shared,
            thread: Some(thread),
        };
        Ok((mqtt, recovered))
    }

    /// Takes new settings: good-bye under the old ones, then a connection under the new. What waits
    /// goes on waiting.
    ///
    /// # Errors
    ///
    /// [`MqttError`]; the old settings stay in force.
    pub fn reload(&self, settings: Settings) -> Result<(), MqttError> {
        let device = self.shared.session().names().device().to_owned();
        let names = settings.names(&device)?;
        self.shared.renew(settings, names);
        Ok(())
    }

    /// Figures of the link.
    pub fn stats(&self) -> LinkStats {
        self.shared.session().link_stats()
    }

    /// Publishes `offline`, says good-bye and waits for the thread: at most as long as a connection
    /// being made may take.
    pub fn stop(mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches what may panic in it.
            let _ = thread.join();
        }
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Link for Mqtt {
    type Outgoing = Outgoing;
    type Incoming = Incoming;
    type Error = MqttError;

    fn send(&mut self, message: Outgoing, _now: Duration) -> Result<(), MqttError> {
        let outcome = self.shared.session().accept(message);
        self.shared.announce();
        self.shared.wake();
        outcome
    }

    fn recv(&mut self, _now: Duration) -> Result<Option<Incoming>, MqttError> {
        Ok(self.shared.next_incoming())
    }

    fn interest(&self) -> Interest<'_> {
        Interest {
            fd: Some(self.shared.ready().as_fd()),
            writable: false,
            deadline: None,
        }
    }
}

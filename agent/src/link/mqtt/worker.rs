//! The thread that holds the connection: connects, moves bytes, waits, tries again.

use super::message::{Incoming, MqttError};
use super::protocol::{Arrived, Hello, Protocol, Publish, PublishFault};
use super::session::Session;
use super::settings::Settings;
use super::topics::{Kind, Names};
use super::transport::Transport;
use crate::link::backoff::Backoff;
use crate::mailbox::event;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A connection that stood this long, or carried an event, makes the next wait the first again.
const USEFUL: Duration = Duration::from_secs(30);
/// Longest time for the last words.
const FAREWELL: Duration = Duration::from_secs(2);
/// No more is encoded while this much waits to be sent.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// What the thread and the handle share.
pub(super) struct Shared {
    session: Mutex<Session>,
    orders: Mutex<Orders>,
    /// Wakes the thread.
    wake: EventFd,
    /// Readable while something waits for the agent.
    ready: EventFd,
    device: String,
}

struct Orders {
    settings: Settings,
    /// Topics of these settings, until the session has them.
    next_names: Option<Names>,
    /// The connection is to be made anew.
    renew: bool,
    stop: bool,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        session: Session,
        device: &str,
    ) -> Result<Shared, MqttError> {
        let event = || event().map_err(|source| MqttError::Start { source });
        Ok(Shared {
            session: Mutex::new(session),
            orders: Mutex::new(Orders {
                settings,
                next_names: None,
                renew: false,
                stop: false,
            }),
            wake: event()?,
            ready: event()?,
            device: device.to_owned(),
        })
    }

    /// The session. One that a panic left behind is whole: its parts change one by one.
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// Wakes the thread. A full counter wakes it as well.
    pub(super) fn wake(&self) {
        let _ = self.wake.write(1);
    }

    pub(super) fn renew(&self, settings: Settings, names: Names) {
        let mut orders = self.orders();
        orders.settings = settings;
        orders.next_names = Some(names);
        orders.renew = true;
        drop(orders);
        self.wake();
    }

    /// The next thing for the agent; `ready` is quiet once there is none.
    pub(super) fn next_incoming(&self) -> Option<Incoming> {
        let mut session = self.session();
        let next = session.next_incoming();
        if !session.has_incoming() {
            let _ = self.ready.read();
        }
        next
    }

    pub(super) fn stop(&self) {
        self.orders().stop = true;
        self.wake();
    }

    /// Tells the agent, if there is something.
    pub(super) fn announce(&self) {
        if self.session().has_incoming() {
            let _ = self.ready.write(1);
        }
    }
}

/// How a connection ended.
enum End {
    Stopped,
    Renewed,
    Broken(String),
}

/// The thread's whole life.
pub(super) fn run(shared: &Shared, seed: u64) {
    let clock = Clock(Instant::now());
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed);
    loop {
        let settings = {
            let mut orders = shared.orders();
            if orders.stop {
                return;
            }
            orders.renew = false;
            if let Some(names) = orders.next_names.take() {
                // The good-bye was said under the old names.
                let limits = orders.settings.queue_limits();
                shared.session().rename(names, limits);
            }
            orders.settings.clone()
        };
        let (begin, before) = (clock.now(), shared.session().acknowledged_events());
        // The protocol library reads what the broker sends; a fault of its may cost a connection,
        // not the link.
        let end = catch_unwind(AssertUnwindSafe(|| serve(shared, &settings, &clock)))
            .unwrap_or_else(|_| End::Broken("the protocol code failed; please report it".into()));
        match end {
            End::Stopped => return,
            End::Renewed => shared.session().disconnected("settings changed".into()),
            End::Broken(reason) => {
                let acknowledged = shared.session().acknowledged_events();
                if clock.now() - begin >= USEFUL || acknowledged > before {
                    backoff.succeeded();
                }
                backoff.failed(clock.now());
                shared.session().disconnected(reason);
                shared.announce();
                wait_for(shared, &clock, backoff.next_try());
            }
        }
    }
}

/// Waits until `until`, or until there are orders.
fn wait_for(shared: &Shared, clock: &Clock, until: Duration) {
    loop {
        let orders = shared.orders();
        let now = clock.now();
        if orders.stop || orders.renew || now >= until {
            return;
        }
        drop(orders);
        let mut fds = [PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, timeout(Some(until), now));
        let _ = shared.wake.read();
    }
}

fn serve(shared: &Shared, settings: &Settings, clock: &Clock) -> End {
    let connection = Transport::open(settings).and_then(|transport| {
        let mut connection = Connection {
            shared,
            clock,
            transport,
            protocol: Protocol::new(settings.version),
            stands: false,
            give_up: clock.now() + settings.connect_timeout(),
        };
        connection.greet(settings)?;
        Ok(connection)
    });
    match connection {
        Ok(mut connection) => match connection.serve() {
            Ok(end) | Err(end) => end,
        },
        Err(reason) => End::Broken(reason),
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    clock: &'a Clock,
    transport: Transport,
    protocol: Protocol,
    stands: bool,
    /// When the broker must have answered CONNECT.
    give_up: Duration,
}

impl Connection<'_> {
    fn greet(&mut self, settings: &Settings) -> Result<(), String> {
        let password = settings
            .read_password()
            .map_err(|fault| fault.to_string())?;
        let availability = self.availability();
        let hello = Hello {
            client_id: &settings.client_id(&self.shared.device),
            user: settings.user.as_deref(),
            password: password.as_ref().map(|secret| secret.reveal()),
            keep_alive_s: settings.keep_alive_s,
            will_topic: &availability,
            will_payload: b"offline",
        };
        self.protocol
            .connect(&hello, self.clock.now())
            .map_err(|fault| format!("CONNECT cannot be made: {fault}; check mqtt.user and topics"))
    }

    fn availability(&self) -> String {
        let session = self.shared.session();
        session
            .names()
            .path(Kind::Availability, "")
            .unwrap_or_default()
    }

    /// Runs until the connection ends; `Err` only carries an end out of a step.
    fn serve(&mut self) -> Result<End, End> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let (stop, renew) = {
                let orders = self.shared.orders();
                (orders.stop, orders.renew)
            };
            if stop || renew {
                self.farewell(&mut buffer);
                return Ok(if stop { End::Stopped } else { End::Renewed });
            }
            if self.stands {
                self.listen()?;
                self.publish();
            } else if self.clock.now() >= self.give_up {
                return Err(broken("the broker does not answer CONNECT"));
            }
            self.write()?;
            self.wait();
            self.read(&mut buffer)?;
            if let Some(arrived) = self.protocol.tick(self.clock.now()) {
                self.arrived(arrived)?;
            }
            self.shared.announce();
        }
    }

    /// Asks the broker for the topics of the rules that changed.
    fn listen(&mut self) -> Result<(), End> {
        let changes = self.shared.session().subscriptions();
        let now = self.clock.now();
        if !changes.gone.is_empty() {
            self.protocol
                .unsubscribe(&changes.gone, now)
                .map_err(|fault| broken(format!("UNSUBSCRIBE cannot be made: {fault}")))?;
        }
        match changes.new.is_empty() {
            true => Ok(()),
            false => self.subscribe(&own_filters(changes.new)),
        }
    }

    fn subscribe(&mut self, filters: &[(String, u8, bool)]) -> Result<(), End> {
        self.protocol
            .subscribe(filters, self.clock.now())
            .map_err(|fault| broken(format!("SUBSCRIBE cannot be made: {fault}")))
    }

    fn publish(&mut self) {
        let mut session = self.shared.session();
        while self.protocol.output().len() < MAX_OUTPUT_BYTES {
            let now = self.clock.now();
            let Some((what, message)) = session.next(now) else {
                return;
            };
            match self.protocol.publish(&message, now) {
                Ok(packet_id) => session.sent(what, packet_id),
                // Acknowledgements will come first.
                Err(PublishFault::Busy) => return,
                Err(fault) => session.unsendable(what, fault),
            }
        }
    }

    fn write(&mut self) -> Result<(), End> {
        while !self.protocol.output().is_empty() || self.transport.holds_output() {
            let written = if self.protocol.output().is_empty() {
                self.transport.flush().map(|()| 0)
            } else {
                self.transport.write(self.protocol.output())
            };
            match written {
                Ok(n) => drop(self.protocol.output().drain(..n)),
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(broken(format!("the connection broke: {fault}"))),
            }
        }
        Ok(())
    }

    fn wait(&mut self) {
        let mut flags = PollFlags::POLLIN;
        if !self.protocol.output().is_empty() || self.transport.holds_output() {
            flags |= PollFlags::POLLOUT;
        }
        let deadline = self
            .protocol
            .deadline()
            .into_iter()
            .chain(self.shared.session().deadline())
            .chain((!self.stands).then_some(self.give_up))
            .min();
        let mut fds = [
            PollFd::new(self.transport.as_fd(), flags),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut fds, timeout(deadline, self.clock.now()));
        let _ = self.shared.wake.read();
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), End> {
        loop {
            match self.transport.read(buffer) {
                Ok(0) => return Err(broken("the broker closed the connection")),
                Ok(n) => {
                    let all = self.protocol.receive(&buffer[..n], self.clock.now());
                    for arrived in all {
                        self.arrived(arrived)?;
                    }
                }
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(broken(format!("the connection broke: {fault}"))),
            }
        }
    }

    fn arrived(&mut self, arrived: Arrived) -> Result<(), End> {
        let now = self.clock.now();
        let mut session = self.shared.session();
        match arrived {
            Arrived::Connected => {
                self.stands = true;
                session.connected();
                // Commands ask for no retained messages; what discovery retains is wanted.
                let mut filters: Vec<_> = session
                    .names()
                    .filters()
                    .into_iter()
                    .map(|(filter, topic)| (filter, topic.qos, !topic.retained))
                    .collect();
                filters.extend(own_filters(session.subscriptions().new));
                drop(session);
                return self.subscribe(&filters);
            }
            Arrived::Subscribed { refused } => session.subscribed(refused),
            Arrived::Acknowledged { packet_id, refusal } => {
                session.acknowledged(packet_id, refusal, now);
            }
            Arrived::Message(message) => session.message(message, now),
            Arrived::Over(reason) => return Err(End::Broken(reason)),
        }
        Ok(())
    }

    /// Says `offline` and good-bye, as far as the broker listens.
    fn farewell(&mut self, buffer: &mut [u8]) {
        if !self.stands {
            return;
        }
        let now = self.clock.now();
        let offline = Publish {
            topic: self.availability(),
            payload: b"offline".to_vec(),
            qos: 0,
            retained: true,
            expiry: None,
            media_type: "text/plain",
            schema_version: None,
            correlation: None,
        };
        let _ = self.protocol.publish(&offline, now);
        self.protocol.disconnect(now);
        let until = now + FAREWELL;
        while self.write().is_ok() && self.clock.now() < until {
            if self.protocol.output().is_empty() && !self.transport.holds_output() {
                return;
            }
            let mut fds = [PollFd::new(self.transport.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut fds, timeout(Some(until), self.clock.now()));
            let _ = self.transport.read(buffer);
        }
    }
}

/// Topics of the rules as filters; what is retained there is wanted, and marked.
fn own_filters(topics: Vec<String>) -> Vec<(String, u8, bool)> {
    topics.into_iter().map(|topic| (topic, 1, false)).collect()
}

fn broken(reason: impl Into<String>) -> End {
    End::Broken(reason.into())
}

/// Time since the thread began.
struct Clock(Instant);

impl Clock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Milliseconds to `deadline`, rounded up: rounding down would wake too early, again and again.
fn timeout(deadline: Option<Duration>, now: Duration) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_sub(now).as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(left.min(60_000) as u64).unwrap_or(PollTimeout::MAX)
}

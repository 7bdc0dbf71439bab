//! A broker inside the test: it can be killed, started again on the same port, and remembers all
//! it acknowledged. It reads MQTT 5 and 3.1.1 by itself rather than with the library that the
//! program under test uses, so that both would have to be wrong in the same way.
//!
//! It delivers nothing by itself, keeps nothing for others, and knows one client.

mod packet;

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use packet::{Inbound, Version};
use serde_json::Value;

/// How long a test waits for something that should come.
const LIMIT: Duration = Duration::from_secs(60);

/// A message that was published and acknowledged.
#[derive(Clone, Debug)]
pub struct Published {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// When it was read here.
    pub at: Instant,
}

impl Published {
    /// The payload as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

/// The broker.
pub struct Broker {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// Rises with every kill: what belongs to an earlier life ends.
    life: u64,
    is_open: bool,
    client: Option<(TcpStream, Version)>,
    filters: Vec<String>,
    published: Vec<Published>,
}

impl Broker {
    /// Starts one on a free port of the loopback.
    ///
    /// # Panics
    ///
    /// When there is no port.
    pub fn start() -> Broker {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let broker = Broker {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        broker.listen(listener);
        broker
    }

    /// The `[mqtt]` table that leads to it from the guest.
    pub fn settings(&self) -> String {
        format!(
            "[mqtt]\nhost = \"10.0.2.2\"\nport = {}\nkeep_alive_s = 5\n",
            self.port
        )
    }

    /// Ends it as a crash does: nobody is told anything.
    pub fn kill(&self) {
        let mut state = self.shared.lock();
        state.is_open = false;
        state.life += 1;
        state.filters.clear();
        if let Some((stream, _)) = state.client.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        // The listener sees this connection, and that its life is over.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    ///
    /// When the port is taken.
    pub fn restart(&self) {
        let start = Instant::now();
        let listener = loop {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)) {
                Ok(listener) => break listener,
                Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
            }
            thread::yield_now();
        };
        self.listen(listener);
    }

    /// Sends a message to the client as soon as it listens to the topic.
    ///
    /// # Panics
    ///
    /// When it does not in time.
    pub fn send(&self, topic: &str, payload: &str) {
        let listens = |state: &State| {
            let fits = |filter: &String| packet::fits(filter, topic);
            state.client.is_some() && state.filters.iter().any(fits)
        };
        let mut state = self
            .shared
            .wait(LIMIT, |state| listens(state).then_some(()))
            .unwrap_or_else(|state| panic!("nobody listens to {topic}: {:?}", state.filters))
            .0;
        let (stream, version) = state.client.as_mut().unwrap();
        let bytes = packet::publish(topic, payload.as_bytes(), *version);
        stream.write_all(&bytes).unwrap();
    }

    /// Everything published so far.
    pub fn published(&self) -> Vec<Published> {
        self.shared.lock().published.clone()
    }

    /// How much was published so far: where to look on from.
    pub fn mark(&self) -> usize {
        self.shared.lock().published.len()
    }

    /// Waits for a message from `mark` on.
    ///
    /// # Panics
    ///
    /// When none comes in time.
    pub fn await_message(
        &self,
        what: &str,
        mark: usize,
        wanted: impl Fn(&Published) -> bool,
    ) -> Published {
        let found = self.shared.wait(LIMIT, |state| {
            let new = state.published.get(mark..).unwrap_or_default();
            new.iter().find(|message| wanted(message)).cloned()
        });
        match found {
            Ok((_, message)) => message,
            Err(state) => panic!("no {what} within {LIMIT:?}; {}", story(&state, mark)),
        }
    }

    /// Waits until `wanted` accepts all that was published.
    ///
    /// # Panics
    ///
    /// When it does not in time.
    pub fn await_all(&self, what: &str, wanted: impl Fn(&[Published]) -> bool) {
        let found = self
            .shared
            .wait(LIMIT, |state| wanted(&state.published).then_some(()));
        if let Err(state) = found {
            panic!("no {what} within {LIMIT:?}; {}", story(&state, 0));
        }
    }

    fn listen(&self, listener: TcpListener) {
        let mut state = self.shared.lock();
        state.is_open = true;
        let life = state.life;
        drop(state);
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.lock().life != life {
                    return;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream, life));
            }
        });
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `wanted` finds something; the state comes back with it, or alone.
    fn wait<T>(
        &self,
        limit: Duration,
        wanted: impl Fn(&State) -> Option<T>,
    ) -> Result<(MutexGuard<'_, State>, T), MutexGuard<'_, State>> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(found) = wanted(&state) {
                return Ok((state, found));
            }
            let Some(left) = limit.checked_sub(start.elapsed()) else {
                return Err(state);
            };
            let waited = self.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn serve(&self, mut stream: TcpStream, life: u64) {
        let mut version = Version::V311;
        while let Ok(inbound) = packet::read(&mut stream, version) {
            let mut state = self.lock();
            if state.life != life {
                return;
            }
            let answer = match inbound {
                Inbound::Connect(asked) => {
                    version = asked;
                    let Ok(theirs) = stream.try_clone() else {
                        return;
                    };
                    if let Some((old, _)) = state.client.replace((theirs, version)) {
                        let _ = old.shutdown(Shutdown::Both);
                    }
                    state.filters.clear();
                    packet::connack(version)
                }
                Inbound::Subscribe(id, filters) => {
                    let answer = packet::suback(id, filters.len(), version);
                    state.filters.extend(filters);
                    answer
                }
                Inbound::Unsubscribe(id, n_filters) => packet::unsuback(id, n_filters, version),
                Inbound::Publish { topic, payload, id } => {
                    let at = Instant::now();
                    state.published.push(Published { topic, payload, at });
                    id.map_or_else(Vec::new, packet::puback)
                }
                Inbound::Ping => packet::pong(),
                Inbound::Other => Vec::new(),
                Inbound::Disconnect => return,
            };
            // Written while the state is held: a killed broker has acknowledged nothing more.
            let written = stream.write_all(&answer);
            drop(state);
            self.news.notify_all();
            if written.is_err() {
                return;
            }
        }
    }
}

fn story(state: &State, mark: usize) -> String {
    let messages = state.published.get(mark..).unwrap_or_default();
    let lines: Vec<String> = messages
        .iter()
        .rev()
        .take(20)
        .rev()
        .map(|message| {
            let payload = String::from_utf8_lossy(&message.payload);
            let cut: String = payload.chars().take(300).collect();
            format!("{}: {cut}", message.topic)
        })
        .collect();
    format!(
        "a client is {}connected; last of {} messages:\n{}",
        if state.client.is_some() { "" } else { "not " },
        messages.len(),
        lines.join("\n")
    )
}

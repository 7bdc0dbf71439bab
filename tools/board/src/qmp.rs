//! The emulator's monitor: JSON commands, answers and events, one a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Error;

const LIMIT: Duration = Duration::from_secs(30);

/// Something the emulator reports unasked, such as `WATCHDOG` or `SHUTDOWN`.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name in capitals.
    pub name: String,
    /// Its data, an object or null.
    pub data: Value,
    /// When this process read it.
    pub at: Instant,
}

/// A connection to the monitor.
pub(crate) struct Qmp {
    stream: Mutex<UnixStream>,
    answers: Mutex<Receiver<Value>>,
    events: Mutex<Receiver<Event>>,
}

impl Qmp {
    /// Greets the monitor.
    pub(crate) fn open(stream: UnixStream) -> Result<Qmp, Error> {
        let reader = stream
            .try_clone()
            .map_err(Error::io("using", "the monitor"))?;
        let (to_answers, answers) = mpsc::channel();
        let (to_events, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                if let Some(name) = value["event"].as_str() {
                    let _ = to_events.send(Event {
                        name: name.to_owned(),
                        data: value["data"].clone(),
                        at: Instant::now(),
                    });
                } else if value.get("QMP").is_none() {
                    let _ = to_answers.send(value);
                }
            }
        });
        let qmp = Qmp {
            stream: Mutex::new(stream),
            answers: Mutex::new(answers),
            events: Mutex::new(events),
        };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer.
    pub(crate) fn execute(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        let answers = lock(&self.answers);
        let request = json!({"execute": command, "arguments": arguments});
        let mut stream = lock(&self.stream);
        writeln!(stream, "{request}").map_err(Error::io("writing to", "the monitor"))?;
        let refused = |reason: String| Error::Refused {
            command: request.to_string(),
            reason,
        };
        let answer = answers
            .recv_timeout(LIMIT)
            .map_err(|_| refused(format!("no answer within {LIMIT:?}")))?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(refused(answer["error"]["desc"].to_string())),
        }
    }

    /// Waits for the next event of a name; others before it are dropped.
    pub(crate) fn event(&self, name: &str, limit: Duration) -> Option<Event> {
        let start = Instant::now();
        let events = lock(&self.events);
        loop {
            let left = limit.checked_sub(start.elapsed())?;
            let event = events.recv_timeout(left).ok()?;
            if event.name == name {
                return Some(event);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! General purpose pins, driven and watched from the host through the emulator's test socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Error;
use crate::qmp::Qmp;

const LIMIT: Duration = Duration::from_secs(10);

/// A change the guest made on an output pin.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Number of the pin on `gpiochip0`.
    pub pin: u8,
    /// The new level.
    pub high: bool,
    /// When this process read of it.
    pub at: Instant,
}

/// Pins 0 to 7 of the board's PL061.
pub struct Pins {
    stream: Mutex<UnixStream>,
    answers: Mutex<Receiver<String>>,
    edges: Mutex<Receiver<Edge>>,
    controller: String,
}

impl Pins {
    pub(crate) fn open(stream: UnixStream, qmp: &Qmp) -> Result<Pins, Error> {
        let reader = stream
            .try_clone()
            .map_err(Error::io("using", "the test socket"))?;
        let (to_answers, answers) = mpsc::channel();
        let (to_edges, edges) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if let Some(edge) = edge(&line) {
                    let _ = to_edges.send(edge);
                } else {
                    let _ = to_answers.send(line);
                }
            }
        });
        let pins = Pins {
            stream: Mutex::new(stream),
            answers: Mutex::new(answers),
            edges: Mutex::new(edges),
            controller: controller(qmp)?,
        };
        pins.request(&format!("irq_intercept_out {}", pins.controller))?;
        Ok(pins)
    }

    /// Drives an input pin.
    ///
    /// # Errors
    ///
    /// When the emulator is gone.
    pub fn set(&self, pin: u8, high: bool) -> Result<(), Error> {
        let level = u8::from(high);
        let controller = &self.controller;
        self.request(&format!(
            "set_irq_in {controller} unnamed-gpio-in {pin} {level}"
        ))
    }

    /// Waits for the next change of an output pin.
    pub fn next_edge(&self, limit: Duration) -> Option<Edge> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.recv_timeout(limit).ok()
    }

    fn request(&self, line: &str) -> Result<(), Error> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(stream, "{line}").map_err(Error::io("writing to", "the test socket"))?;
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.recv_timeout(LIMIT);
        let refused = |reason: String| Error::Refused {
            command: line.to_owned(),
            reason,
        };
        match answer {
            Ok(answer) if answer.starts_with("OK") => Ok(()),
            Ok(answer) => Err(refused(answer)),
            Err(_) => Err(refused(format!("no answer within {LIMIT:?}"))),
        }
    }
}

/// Reads `IRQ raise 2` or `IRQ lower 2`.
fn edge(line: &str) -> Option<Edge> {
    let (direction, pin) = line.strip_prefix("IRQ ")?.split_once(' ')?;
    Some(Edge {
        pin: pin.trim().parse().ok()?,
        high: direction == "raise",
        at: Instant::now(),
    })
}

/// The path of the pin controller among the machine's devices.
fn controller(qmp: &Qmp) -> Result<String, Error> {
    let parent = "/machine/unattached";
    let devices = qmp.execute("qom-list", json!({"path": parent}))?;
    devices
        .as_array()
        .into_iter()
        .flatten()
        .find(|device| {
            device["type"]
                .as_str()
                .is_some_and(|kind| kind.contains("pl061"))
        })
        .and_then(|device| device["name"].as_str())
        .map(|name| format!("{parent}/{name}"))
        .ok_or_else(|| Error::Unexpected {
            what: "the pin controller of the machine".to_owned(),
            found: devices.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_told_from_an_answer() {
        let raise = edge("IRQ raise 2").unwrap();
        assert!(raise.high && raise.pin == 2);
        assert!(!edge("IRQ lower 7").unwrap().high);
        assert!(edge("OK").is_none());
    }
}

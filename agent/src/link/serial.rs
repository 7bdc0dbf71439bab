//! Serial: a [`Port`] that comes and goes, and what is spoken over it.
//!
//! | file | defines |
//! |---|---|
//! | [`port`] | an open serial device: raw, locked, never blocking |
//! | [`packets`] | the [`Dialect`] of `ocelli-wire` |
//!
//! The other dialect is [`super::line_mode`].

pub mod packets;
pub mod port;
#[cfg(test)]
mod tests;

pub use packets::Packets;
pub use port::{Port, PortError};

use super::backoff::Backoff;
use super::{Interest, Link, LinkError, LinkErrorKind};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Most bytes read in one call, so that a peer that floods the line does not keep the loop.
const READ_BYTES: usize = 512;
/// Most pieces of output handed to the device in one call.
const WRITES: usize = 16;
/// First wait before a device is opened again.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait before a device is opened again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Which device, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialSettings {
    /// The device. A name under `/dev/serial/by-id` stays the same when adapters are plugged into
    /// other sockets.
    pub path: PathBuf,
    /// Bits a second; 8 data bits, no parity, one stop bit, no flow control.
    pub baud: u32,
}

/// A language over a line of bytes: pure, with time as an argument.
pub trait Dialect {
    /// What is said.
    type Outgoing;
    /// What is heard.
    type Incoming;
    /// What names a message until its end is told.
    type Receipt;
    /// Why something cannot be said.
    type Refusal: LinkError;

    /// Accepts a message.
    ///
    /// # Errors
    ///
    /// The message was not kept.
    fn send(
        &mut self,
        message: Self::Outgoing,
        now: Duration,
    ) -> Result<Self::Receipt, Self::Refusal>;
    /// Takes bytes until something was heard. It may leave bytes until its output has
    /// gone or it has been sent something.
    fn on_bytes(&mut self, bytes: &mut &[u8], now: Duration) -> Option<Self::Incoming>;
    /// Lets time pass; called until it returns `None`.
    fn on_tick(&mut self, now: Duration) -> Option<Self::Incoming>;
    /// The line is gone.
    fn on_closed(&mut self, now: Duration) -> Option<Self::Incoming>;
    /// Adds the next piece of output to `out`; false if there is none now.
    fn next_output(&mut self, out: &mut Vec<u8>, now: Duration) -> bool;
    /// When [`on_tick`](Self::on_tick) has something to do.
    fn next_tick_at(&self) -> Option<Duration>;
    /// When [`next_output`](Self::next_output) has something.
    fn next_output_at(&self) -> Option<Duration>;
}

/// Why a serial link failed.
#[derive(Debug, thiserror::Error)]
pub enum SerialError<R: LinkError> {
    /// The device cannot be used now. Said once until the cause changes; opening is tried again.
    #[error("{source}; it is tried again after {}.{} s", wait.as_secs(), wait.subsec_millis() / 100)]
    Port {
        /// Why.
        source: PortError,
        /// Until the next try.
        wait: Duration,
    },
    /// The device was there and is gone.
    #[error("serial device {path} is gone: {source}; it is opened again when it is back")]
    Gone {
        /// The device.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The message was not accepted.
    #[error(transparent)]
    Refused(R),
}

impl<R: LinkError> LinkError for SerialError<R> {
    fn kind(&self) -> LinkErrorKind {
        match self {
            SerialError::Port { source, .. } => source.kind(),
            SerialError::Gone { .. } => LinkErrorKind::Closed,
            SerialError::Refused(refusal) => refusal.kind(),
        }
    }
}

/// A serial device with a dialect spoken over it, opened again whenever it comes back.
#[derive(Debug)]
pub struct SerialLink<D: Dialect> {
    settings: SerialSettings,
    dialect: D,
    port: Option<Port>,
    backoff: Backoff,
    last_fault: String,
    input: Input,
    output: Output,
}

impl<D: Dialect> SerialLink<D> {
    /// A link that opens its device at the first [`recv`](Link::recv). `seed` varies the waits.
    pub fn new(settings: SerialSettings, dialect: D, seed: u64) -> SerialLink<D> {
        SerialLink {
            settings,
            dialect,
            port: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed),
            last_fault: String::new(),
            input: Input::default(),
            output: Output::default(),
        }
    }

    /// Whether the device is open.
    pub fn is_open(&self) -> bool {
        self.port.is_some()
    }

    /// What is spoken.
    pub fn dialect(&self) -> &D {
        &self.dialect
    }

    /// [`send`](Link::send) that returns the dialect's receipt.
    ///
    /// # Errors
    ///
    /// The message was not accepted.
    pub fn post(
        &mut self,
        message: D::Outgoing,
        now: Duration,
    ) -> Result<D::Receipt, SerialError<D::Refusal>> {
        self.dialect
            .send(message, now)
            .map_err(SerialError::Refused)
    }

    fn open(&mut self, now: Duration) -> Result<(), SerialError<D::Refusal>> {
        if self.port.is_some() || !self.backoff.is_due(now) {
            return Ok(());
        }
        match Port::open(&self.settings.path, self.settings.baud) {
            Ok(port) => {
                self.port = Some(port);
                self.last_fault.clear();
                Ok(())
            }
            Err(source) => {
                self.backoff.failed(now);
                let fault = source.to_string();
                let is_news = fault != self.last_fault;
                self.last_fault = fault;
                match is_news {
                    true => Err(SerialError::Port {
                        source,
                        wait: self.backoff.next_try().saturating_sub(now),
                    }),
                    false => Ok(()),
                }
            }
        }
    }

    /// Reads at most once and writes what the device takes.
    fn move_bytes(&mut self, now: Duration) -> io::Result<()> {
        let Some(port) = &mut self.port else {
            return Ok(());
        };
        if self.input.is_empty() {
            self.input.fill(port)?;
        }
        for _ in 0..WRITES {
            if self.output.is_empty() && !self.dialect.next_output(&mut self.output.bytes, now) {
                break;
            }
            self.output.drain(port)?;
            if !self.output.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn close(&mut self, now: Duration) {
        self.port = None;
        self.input.clear();
        self.output.clear();
        self.backoff.failed(now);
    }

    fn heard(&mut self, now: Duration) -> Option<D::Incoming> {
        let mut rest = self.input.waiting();
        let heard = self.dialect.on_bytes(&mut rest, now);
        let n_left = rest.len();
        self.input.keep_last(n_left);
        heard.or_else(|| self.dialect.on_tick(now))
    }
}

impl<D: Dialect> Link for SerialLink<D> {
    type Outgoing = D::Outgoing;
    type Incoming = D::Incoming;
    type Error = SerialError<D::Refusal>;

    fn send(&mut self, message: D::Outgoing, now: Duration) -> Result<(), Self::Error> {
        self.post(message, now).map(drop)
    }

    fn recv(&mut self, now: Duration) -> Result<Option<D::Incoming>, Self::Error> {
        self.open(now)?;
        if let Err(source) = self.move_bytes(now) {
            self.close(now);
            return Err(SerialError::Gone {
                path: self.settings.path.clone(),
                source,
            });
        }
        if self.port.is_none()
            && let Some(last_words) = self.dialect.on_closed(now)
        {
            return Ok(Some(last_words));
        }
        let heard = self.heard(now);
        if heard.is_some() && self.port.is_some() {
            self.backoff.succeeded();
        }
        Ok(heard)
    }

    fn interest(&self) -> Interest<'_> {
        let Some(port) = &self.port else {
            return Interest {
                deadline: Some(self.backoff.next_try()),
                ..Interest::default()
            };
        };
        let is_stuck = !self.output.is_empty();
        let output_at = match is_stuck {
            true => None,
            false => self.dialect.next_output_at(),
        };
        Interest {
            // Input that the dialect has left must not wake the loop again and again.
            fd: (self.input.is_empty() || is_stuck).then(|| port.fd()),
            writable: is_stuck,
            deadline: self
                .dialect
                .next_tick_at()
                .into_iter()
                .chain(output_at)
                .min(),
        }
    }
}

/// Bytes read and not yet taken by the dialect.
#[derive(Debug)]
struct Input {
    bytes: [u8; READ_BYTES],
    begin: usize,
    end: usize,
}

impl Default for Input {
    fn default() -> Input {
        Input {
            bytes: [0; READ_BYTES],
            begin: 0,
            end: 0,
        }
    }
}

impl Input {
    fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    fn waiting(&self) -> &[u8] {
        &self.bytes[self.begin..self.end]
    }

    fn keep_last(&mut self, n_bytes: usize) {
        self.begin = self.end - n_bytes;
    }

    fn clear(&mut self) {
        self.begin = self.end;
    }

    fn fill(&mut self, port: &mut Port) -> io::Result<()> {
        self.begin = 0;
        self.end = 0;
        self.end = port.read(&mut self.bytes)?;
        Ok(())
    }
}

/// Bytes that the device has not taken yet.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    n_written: usize,
}

impl Output {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.n_written = 0;
    }

    fn drain(&mut self, port: &mut Port) -> io::Result<()> {
        self.n_written += port.write(&self.bytes[self.n_written..])?;
        if self.n_written == self.bytes.len() {
            self.clear();
        }
        Ok(())
    }
}

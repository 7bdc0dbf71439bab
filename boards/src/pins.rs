//! Pins by name: outputs with a safe state, inputs with debounced edges.
//!
//! ```text
//! requests ──plan(board)──▶ plans ──GpioPins::open──▶ lines of /dev/gpiochipN
//!                                 └─FakePins::new───▶ a record, and edges by hand
//! ```
//!
//! Everyone above says *active* and *inactive*. What that is as a voltage is decided in one function
//! of this module; the kernel is never asked to invert, because the edges and the values of
//! `linux-embedded-hal` would then disagree.
//!
//! A line is taken with its output at the safe state, and put back to the safe state before it is
//! released. A program that is killed cannot do that: what a released line does then depends on the
//! kernel (`gpio.released` of the board). Times are of `CLOCK_MONOTONIC`.

mod debounce;
mod fake;
mod gpio;
mod hal;
mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

pub use debounce::Debounce;
pub use fake::{FakeChange, FakeControl, FakePins};
pub use gpio::{EdgeClock, GpioPins};
pub use hal::AsHal;
pub use plan::plan;

/// A pin by its place in the list of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinId(pub usize);

/// What someone wants of a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRequest {
    /// What it is for: `siren`.
    pub name: String,
    /// Where it is: a name, alias or position (`pin11`) of the board, or `LABEL/LINE` of any chip.
    pub pin: String,
    /// How it is used.
    pub usage: PinUse,
    /// Takes the pin even if the board keeps it for something else.
    pub insist: bool,
}

/// How a pin is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinUse {
    /// Driven.
    Output {
        /// Active means low voltage.
        active_low: bool,
        /// The state at open and before release: true = active.
        safe: bool,
    },
    /// Read.
    Input {
        /// Active means low voltage.
        active_low: bool,
        /// Resistor in the chip.
        bias: Bias,
        /// Whether edges are wanted; without, it can only be read.
        edges: bool,
        /// A level counts when it has lasted this long; at most 10 s.
        debounce: Duration,
    },
}

impl PinUse {
    /// Whether active means low voltage.
    pub fn active_low(&self) -> bool {
        match self {
            PinUse::Output { active_low, .. } | PinUse::Input { active_low, .. } => *active_low,
        }
    }

    /// The voltage (true = high) of a state, and the state of a voltage. The one place where
    /// active-low is handled.
    fn invert(&self, value: bool) -> bool {
        value != self.active_low()
    }
}

/// Resistor between an input and a supply. Kernels before 5.5 know only `AsIs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// Whatever the firmware or the device tree set.
    #[default]
    AsIs,
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// None.
    Disabled,
}

/// A request that a board can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPlan {
    /// What it is for.
    pub name: String,
    /// Name of the pin.
    pub pin: String,
    /// Labels that the chip may have.
    pub chips: Vec<String>,
    /// Offset on the chip.
    pub line: u32,
    /// How it is used.
    pub usage: PinUse,
}

impl PinPlan {
    /// The name under which the kernel lists us as the user of the line, at most 31 bytes.
    pub fn consumer(&self) -> String {
        let name = format!("ocelli:{}", self.name);
        let end = (0..=31)
            .rev()
            .find(|end| name.is_char_boundary(*end))
            .unwrap_or(0);
        name[..end.min(name.len())].to_owned()
    }

    fn place(&self) -> Box<PinPlace> {
        Box::new(PinPlace {
            name: self.name.clone(),
            pin: self.pin.clone(),
            chip: self.chips.join(" or "),
            line: self.line,
        })
    }
}

/// Where a pin is, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPlace {
    /// What it is for.
    pub name: String,
    /// Name of the pin.
    pub pin: String,
    /// Label of the chip.
    pub chip: String,
    /// Offset on the chip.
    pub line: u32,
}

impl fmt::Display for PinPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pin {:?} ({}, line {} of {})",
            self.name, self.pin, self.line, self.chip
        )
    }
}

/// A change of an input that lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The pin.
    pub pin: PinId,
    /// The new state.
    pub active: bool,
    /// When the level changed.
    pub at: Duration,
}

/// Why a pin cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The board has no such pin.
    #[error("pin {name:?}: {board} has no pin {pin:?}; {}", crate::suggestion::Hint(.suggestion, .known))]
    Unknown {
        /// What it is for.
        name: String,
        /// The pin asked for.
        pin: String,
        /// Name of the board.
        board: String,
        /// The nearest name, if one is near.
        suggestion: Option<String>,
        /// What there is.
        known: String,
    },
    /// The board keeps the pin for something else.
    #[error(
        "{place}: the board keeps it for {reserved}; take another pin, or insist if nothing is connected there"
    )]
    Reserved {
        /// The pin.
        place: Box<PinPlace>,
        /// For what.
        reserved: String,
    },
    /// Two requests want one line or have one name.
    #[error("{place}: pin {other:?} has this {what} already; each needs its own")]
    Twice {
        /// The pin.
        place: Box<PinPlace>,
        /// Name of the earlier request.
        other: String,
        /// `name` or `line`.
        what: &'static str,
    },
    /// A number is out of its limits.
    #[error("{what} is {value}, the limit is {limit}")]
    Limit {
        /// What.
        what: String,
        /// Its value.
        value: String,
        /// Its limit.
        limit: &'static str,
    },
    /// No chip has the label.
    #[error("{place}: no such chip in {}; there are: {seen}; see `gpiodetect`, and name the chip in a board definition of your own", folder.display())]
    NoChip {
        /// The pin.
        place: Box<PinPlace>,
        /// Where chips were looked for.
        folder: PathBuf,
        /// Labels of the chips there.
        seen: String,
    },
    /// A chip may not be opened.
    #[error("{place}: {} may not be opened; run `sudo usermod -aG gpio $USER` and log in again, or give the service SupplementaryGroups=gpio", path.display())]
    Permission {
        /// The pin.
        place: Box<PinPlace>,
        /// The chip.
        path: PathBuf,
    },
    /// The chip is smaller.
    #[error("{place}: the chip has {lines} lines, 0 to {}", lines.saturating_sub(1))]
    NoLine {
        /// The pin.
        place: Box<PinPlace>,
        /// Lines of the chip.
        lines: u32,
    },
    /// Somebody else has the line.
    #[error(
        "{place}: it is in use by {holder:?}; stop that program, or remove the overlay that takes the line"
    )]
    Busy {
        /// The pin.
        place: Box<PinPlace>,
        /// The name under which it is in use.
        holder: String,
    },
    /// The kernel refused.
    #[error("{place}: the kernel refused to {what}")]
    Refused {
        /// The pin.
        place: Box<PinPlace>,
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An input was set, or a pin that does not exist was used.
    #[error("{place} is not an {wanted}; change its use in the settings")]
    WrongUse {
        /// The pin.
        place: Box<PinPlace>,
        /// `output` or `input`.
        wanted: &'static str,
    },
    /// No request has this number.
    #[error("there is no pin number {id}, only {count} pins were requested")]
    NoSuchPin {
        /// The number.
        id: usize,
        /// How many there are.
        count: usize,
    },
    /// A fault that a test asked for.
    #[error("{place}: broken by a test")]
    Broken {
        /// The pin.
        place: Box<PinPlace>,
    },
}

/// Pins in use. `now` is a reading of `CLOCK_MONOTONIC`.
pub trait Pins: Send {
    /// The plans, in the order of their ids.
    fn plans(&self) -> &[PinPlan];

    /// Drives an output.
    ///
    /// # Errors
    /// [`PinError`] if it is no output or the kernel refuses.
    fn set(&mut self, pin: PinId, active: bool, now: Duration) -> Result<(), PinError>;

    /// The present state of a pin, not debounced; of an output, what it is driven to.
    ///
    /// # Errors
    /// [`PinError`] if the kernel refuses.
    fn get(&mut self, pin: PinId) -> Result<bool, PinError>;

    /// Adds the edges that are settled at `now` to `edges`, oldest first for each pin, without
    /// waiting.
    ///
    /// # Errors
    /// [`PinError`] if the kernel refuses; edges of other pins are still added.
    fn poll(&mut self, now: Duration, edges: &mut Vec<Edge>) -> Result<(), PinError>;

    /// When [`Pins::poll`] has to be called again for debouncing, even if no descriptor is readable.
    fn deadline(&self) -> Option<Duration>;

    /// Descriptors that become readable when an edge arrives.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// The pin requested as `name`.
    fn find(&self, name: &str) -> Option<PinId> {
        self.plans()
            .iter()
            .position(|plan| plan.name == name)
            .map(PinId)
    }

    /// Drives every output to its safe state.
    ///
    /// # Errors
    /// The first [`PinError`]; every output has been tried.
    fn make_safe(&mut self, now: Duration) -> Result<(), PinError> {
        let outputs = self
            .plans()
            .iter()
            .enumerate()
            .filter_map(|(id, plan)| match plan.usage {
                PinUse::Output { safe, .. } => Some((PinId(id), safe)),
                PinUse::Input { .. } => None,
            });
        let outputs: Vec<(PinId, bool)> = outputs.collect();
        let done = outputs
            .into_iter()
            .map(|(pin, safe)| self.set(pin, safe, now));
        done.fold(Ok(()), Result::and)
    }
}

fn no_such_pin(id: PinId, plans: &[PinPlan]) -> PinError {
    PinError::NoSuchPin {
        id: id.0,
        count: plans.len(),
    }
}

//! [`Pin`]: a named pin and the envelope it must stay in, whatever rule asks.

use crate::diagnostic::Span;
use crate::index::PinIndex;
use crate::observation::Link;
use crate::permission::Level;
use crate::schedule::Rate;
use crate::text::Name;
use crate::time::Millis;

/// A pin of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Name in the policy.
    pub name: Name,
    /// Line of the board, in the board's own spelling, e.g. `GPIO17`, or `LABEL/LINE` of any of
    /// its chips; or [`SERIAL`] and the name of a pin of the microcontroller.
    pub line: Name,
    /// What it does.
    pub role: Role,
    /// Where it is defined.
    pub at: Span,
}

/// What the lines begin with that belong to the microcontroller on the serial link.
pub const SERIAL: &str = "serial:";

impl Pin {
    /// Its name on the microcontroller, if it belongs to that one.
    pub fn serial_name(&self) -> Option<&str> {
        self.line.strip_prefix(SERIAL)
    }

    /// The envelope, if the pin is an output.
    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.role {
            Role::Input => None,
            Role::Output(envelope) => Some(envelope),
        }
    }
}

/// Direction of a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read.
    Input,
    /// Written.
    Output(Envelope),
}

/// Hard limits of an output. A pin is *on* while its value differs from the safe one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Lowest and highest value.
    pub range: (i32, i32),
    /// Value at start, stop, crash, loss of a link, and after every `max_on`.
    pub safe: i32,
    /// Level of switching it on or off.
    pub level: Level,
    /// Longest time on.
    pub max_on: Option<Millis>,
    /// Shortest time off between two times on.
    pub min_off: Millis,
    /// Shortest time between two changes, unless the change makes it safe.
    pub dwell: Millis,
    /// Goes safe unless set again within this time.
    pub dead_man: Option<Millis>,
    /// How often it may be set to an unsafe value, by all rules together.
    pub rate: Option<Rate>,
    /// It may be switched on only on the evidence of a picture at most this old.
    pub evidence: Option<Millis>,
    /// Safe while this link is down.
    pub needs_link: Option<Link>,
    /// It may not be on while one of these holds or is not known.
    pub interlocks: Vec<Interlock>,
}

/// Another pin's state that keeps a pin safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interlock {
    /// The other pin, input or output.
    pub pin: PinIndex,
    /// Active or on (true), or the opposite.
    pub active: bool,
}

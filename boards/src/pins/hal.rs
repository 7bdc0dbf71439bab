//! Any pin as an `embedded-hal` pin, for drivers that are written against those traits.

use std::time::Duration;

use embedded_hal::digital::{Error, ErrorKind, ErrorType, InputPin, OutputPin};

use super::{PinError, PinId, Pins};

/// One pin of [`Pins`]. *High* is active: an active-low pin is inverted already.
pub struct AsHal<'a> {
    pins: &'a mut dyn Pins,
    pin: PinId,
    now: Duration,
}

impl<'a> AsHal<'a> {
    /// The pin `pin` of `pins`, used at the time `now`.
    pub fn new(pins: &'a mut dyn Pins, pin: PinId, now: Duration) -> AsHal<'a> {
        AsHal { pins, pin, now }
    }
}

impl Error for PinError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl ErrorType for AsHal<'_> {
    type Error = PinError;
}

impl OutputPin for AsHal<'_> {
    fn set_low(&mut self) -> Result<(), PinError> {
        self.pins.set(self.pin, false, self.now)
    }

    fn set_high(&mut self) -> Result<(), PinError> {
        self.pins.set(self.pin, true, self.now)
    }
}

impl InputPin for AsHal<'_> {
    fn is_high(&mut self) -> Result<bool, PinError> {
        self.pins.get(self.pin)
    }

    fn is_low(&mut self) -> Result<bool, PinError> {
        self.is_high().map(|high| !high)
    }
}

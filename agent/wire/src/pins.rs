//! [`PinGuard`]: outputs of a microcontroller that go safe by themselves.

use crate::message::{Name, Outcome, SetPin};
use crate::timing::Millis;

/// An output as the microcontroller's own program limits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its name in [`SetPin`].
    pub name: Name,
    /// Value at start, without link, and when the time on is over.
    pub safe: i32,
    /// Lowest and highest value.
    pub range: (i32, i32),
    /// Longest time at any other value than the safe one, whatever the agent asks.
    pub max_on_ms: u32,
}

#[derive(Clone, Debug)]
struct Guarded {
    pin: Pin,
    value: i32,
    /// When it goes safe; meaningful while the value is not the safe one.
    safe_at: Millis,
}

/// `N` outputs, all safe at first.
///
/// The program calls [`make_safe`](Self::make_safe) when the link goes down and
/// [`on_tick`](Self::on_tick) at least as often as a pin may be late, and writes
/// [`values`](Self::values) to its outputs after every call.
#[derive(Clone, Debug)]
pub struct PinGuard<const N: usize> {
    pins: [Guarded; N],
}

impl<const N: usize> PinGuard<N> {
    /// Guards these outputs.
    pub fn new(pins: [Pin; N]) -> PinGuard<N> {
        PinGuard {
            pins: pins.map(|pin| Guarded {
                value: pin.safe,
                safe_at: 0,
                pin,
            }),
        }
    }

    /// Does a request, if it is inside the output's limits.
    pub fn set(&mut self, request: &SetPin, now: Millis) -> Outcome {
        let Some(guarded) = self
            .pins
            .iter_mut()
            .find(|guarded| guarded.pin.name == request.pin)
        else {
            return Outcome::UnknownPin;
        };
        let pin = &guarded.pin;
        let is_safe = request.value == pin.safe;
        if !is_safe && !(pin.range.0..=pin.range.1).contains(&request.value) {
            return Outcome::OutOfRange;
        }
        if !is_safe && request.max_on_ms == 0 {
            return Outcome::NoTimeLimit;
        }
        guarded.value = request.value;
        guarded.safe_at = now + u64::from(request.max_on_ms.min(pin.max_on_ms));
        Outcome::Done
    }

    /// Makes every output safe.
    pub fn make_safe(&mut self) {
        for guarded in &mut self.pins {
            guarded.value = guarded.pin.safe;
        }
    }

    /// Makes outputs safe whose time is over; whether there was one.
    pub fn on_tick(&mut self, now: Millis) -> bool {
        let mut any = false;
        for guarded in &mut self.pins {
            if guarded.value != guarded.pin.safe && now >= guarded.safe_at {
                guarded.value = guarded.pin.safe;
                any = true;
            }
        }
        any
    }

    /// What the outputs are to be, in the order they were given.
    pub fn values(&self) -> [i32; N] {
        core::array::from_fn(|at| self.pins[at].value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::cut;

    fn guard() -> PinGuard<2> {
        let pin = |name| Pin {
            name: cut(name),
            safe: 0,
            range: (0, 1),
            max_on_ms: 5000,
        };
        PinGuard::new([pin("lamp"), pin("lock")])
    }

    fn request(pin: &str, value: i32, max_on_ms: u32) -> SetPin {
        SetPin {
            request: 1,
            pin: cut(pin),
            value,
            max_on_ms,
        }
    }

    #[test]
    fn an_output_goes_safe_when_its_time_is_over() {
        let mut guard = guard();
        assert_eq!(guard.set(&request("lock", 1, 300), 1000), Outcome::Done);
        assert!(!guard.on_tick(1299));
        assert_eq!(guard.values(), [0, 1]);
        assert!(guard.on_tick(1300));
        assert_eq!(guard.values(), [0, 0]);
    }

    #[test]
    fn the_own_limit_is_shorter_than_what_the_agent_asks() {
        let mut guard = guard();
        guard.set(&request("lamp", 1, u32::MAX), 0);
        assert!(!guard.on_tick(4999));
        assert!(guard.on_tick(5000));
    }

    #[test]
    fn what_breaks_a_limit_changes_nothing() {
        let cases = [
            (request("door", 1, 10), Outcome::UnknownPin),
            (request("lamp", 2, 10), Outcome::OutOfRange),
            (request("lamp", -1, 10), Outcome::OutOfRange),
            (request("lamp", 1, 0), Outcome::NoTimeLimit),
        ];
        for (request, outcome) in cases {
            let mut guard = guard();
            assert_eq!(guard.set(&request, 0), outcome, "{request:?}");
            assert_eq!(guard.values(), [0, 0], "{request:?}");
        }
    }

    #[test]
    fn all_outputs_are_safe_without_a_link() {
        let mut guard = guard();
        guard.set(&request("lamp", 1, 100), 0);
        guard.set(&request("lock", 1, 100), 0);
        guard.make_safe();
        assert_eq!(guard.values(), [0, 0]);
    }

    #[test]
    fn going_safe_needs_no_time_limit() {
        let mut guard = guard();
        guard.set(&request("lamp", 1, 100), 0);
        assert_eq!(guard.set(&request("lamp", 0, 0), 1), Outcome::Done);
        assert_eq!(guard.values(), [0, 0]);
    }
}

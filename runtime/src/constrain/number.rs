//! [`Range`]: numbers between two bounds, digit by digit.

use super::{DECIMALS, GrammarError, MAX_NUMBER};

/// Most digits before the point.
const MOST_DIGITS: u32 = 10;

/// Numbers from `low` to `high`, both in units of `10^-decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    low: i64,
    high: i64,
    decimals: u32,
}

/// What of a number is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digits {
    negative: bool,
    /// Digits before the point, then after it.
    before: u32,
    point: bool,
    after: u32,
    /// All digits as one number.
    value: u64,
}

impl Range {
    /// `low` and `high` in units of `10^-decimals`, `decimals` 0 or [`DECIMALS`].
    pub(super) fn new(low: i64, high: i64, decimals: u32) -> Result<Range, GrammarError> {
        let most = MAX_NUMBER * 10i64.pow(decimals.min(DECIMALS));
        let at = || "the range of a number".to_owned();
        if low > high {
            return Err(GrammarError::Empty {
                at: at(),
                what: format!("no number is at least {low} and at most {high}"),
            });
        }
        if low < -most || high > most {
            return Err(GrammarError::Value {
                at: at(),
                found: format!("{low} to {high}"),
                needed: format!("bounds within -{MAX_NUMBER} to {MAX_NUMBER}"),
            });
        }
        Ok(Range {
            low,
            high,
            decimals,
        })
    }

    fn unit(self) -> u64 {
        10u64.pow(self.decimals)
    }

    /// Bounds of the absolute value for a sign; empty if the first is above the second.
    fn bounds(self, negative: bool) -> (u64, u64) {
        match negative {
            false if self.high < 0 => (1, 0),
            false => (self.low.max(0).unsigned_abs(), self.high.unsigned_abs()),
            true if self.low >= 0 => (1, 0),
            true => (self.high.min(-1).unsigned_abs(), self.low.unsigned_abs()),
        }
    }

    /// Whether these digits can still become a number of the range.
    fn is_hopeful(self, digits: Digits) -> bool {
        let (low, high) = self.bounds(digits.negative);
        let meets = |from: u64, width: u64| {
            u128::from(from) <= u128::from(high)
                && u128::from(from) + u128::from(width) > u128::from(low)
        };
        if digits.point {
            let width = 10u64.pow(self.decimals - digits.after);
            return low <= high && meets(digits.value * width, width);
        }
        if digits.before == 0 {
            return low <= high;
        }
        // A zero in front takes no further digit.
        let more = match digits.value {
            0 => 0,
            _ => MOST_DIGITS - digits.before,
        };
        low <= high
            && (0..=more).any(|more| {
                let width = 10u64.pow(more) * self.unit();
                meets(digits.value.saturating_mul(width), width)
            })
    }

    /// Whether these digits are a number of the range.
    pub(super) fn is_complete(self, digits: Digits) -> bool {
        let (low, high) = self.bounds(digits.negative);
        let value = digits.value * 10u64.pow(self.decimals - digits.after);
        let whole = digits.before > 0 && digits.point == (digits.after > 0);
        whole && (low..=high).contains(&value)
    }

    /// The digits with one more byte; `None` if it may not come.
    pub(super) fn push(self, digits: Digits, byte: u8) -> Option<Digits> {
        let mut next = digits;
        match byte {
            b'-' if digits == Digits::default() => next.negative = true,
            b'.' if !digits.point && digits.before > 0 && self.decimals > 0 => next.point = true,
            b'0'..=b'9' => {
                let room = match digits.point {
                    true => digits.after < self.decimals,
                    false if digits.before == 0 => true,
                    false => digits.before < MOST_DIGITS && digits.value > 0,
                };
                if !room {
                    return None;
                }
                next.value = digits.value * 10 + u64::from(byte - b'0');
                match digits.point {
                    true => next.after += 1,
                    false => next.before += 1,
                }
            }
            _ => return None,
        }
        self.is_hopeful(next).then_some(next)
    }

    /// The next byte on the way to a whole number; `None` if it is one.
    pub(super) fn way_out(self, digits: Digits) -> Option<u8> {
        if self.is_complete(digits) {
            return None;
        }
        (b'0'..=b'9')
            .chain([b'.', b'-'])
            .find(|byte| self.push(digits, *byte).is_some())
    }
}

impl Digits {
    /// In one word: the value, and in `at` the rest.
    pub(super) fn packed(self) -> (u16, u64) {
        let at = u16::from(self.negative)
            | u16::from(self.point) << 1
            | (self.before as u16) << 2
            | (self.after as u16) << 8;
        (at, self.value)
    }

    pub(super) fn unpacked(at: u16, value: u64) -> Digits {
        Digits {
            negative: at & 1 != 0,
            point: at & 2 != 0,
            before: u32::from(at >> 2 & 0x3f),
            after: u32::from(at >> 8),
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a range takes a text, at every byte.
    fn takes(range: Range, text: &str) -> bool {
        let end = text
            .bytes()
            .try_fold(Digits::default(), |digits, byte| range.push(digits, byte));
        end.is_some_and(|digits| range.is_complete(digits))
    }

    #[test]
    fn a_range_of_whole_numbers_takes_exactly_its_numbers() {
        for (low, high) in [
            (0, 0),
            (0, 20),
            (7, 7),
            (95, 1203),
            (-12, 5),
            (-30, -28),
            (9, 10),
        ] {
            let range = Range::new(low, high, 0).unwrap();
            for value in -2000..2000i64 {
                let inside = (low..=high).contains(&value);
                assert_eq!(
                    takes(range, &value.to_string()),
                    inside,
                    "{value} {range:?}"
                );
            }
            for text in ["", "-", "-0", "00", "01", "1.", "1.0", "+1", "1e3", " 1"] {
                assert!(!takes(range, text), "{text} {range:?}");
            }
        }
    }

    #[test]
    fn a_range_with_decimals_takes_numbers_within_its_bounds() {
        let range = Range::new(-500, 12_345, 3).unwrap();
        for text in [
            "0", "-0.5", "-0.499", "12.345", "12", "0.001", "12.0", "-0.01",
        ] {
            assert!(takes(range, text), "{text}");
        }
        for text in [
            "-0.501", "12.346", "13", "-1", "1.", ".5", "0.0001", "-0", "12.4", "-0.0",
        ] {
            assert!(!takes(range, text), "{text}");
        }
    }

    #[test]
    fn the_way_out_ends_in_a_number_of_the_range() {
        for (low, high, decimals) in [
            (0, 20, 0),
            (995, 100_000, 0),
            (-9, -7, 0),
            (500, 900, 3),
            (-999, -1, 3),
        ] {
            let range = Range::new(low, high, decimals).unwrap();
            let mut digits = Digits::default();
            let mut steps = 0;
            while let Some(byte) = range.way_out(digits) {
                digits = range.push(digits, byte).unwrap();
                steps += 1;
                assert!(steps < 20, "{range:?}");
            }
            assert!(range.is_complete(digits), "{range:?} {digits:?}");
            let (at, value) = digits.packed();
            assert_eq!(Digits::unpacked(at, value), digits);
        }
    }

    #[test]
    fn bounds_that_contradict_each_other_or_are_too_wide_are_refused() {
        assert!(matches!(
            Range::new(3, 2, 0),
            Err(GrammarError::Empty { .. })
        ));
        assert!(matches!(
            Range::new(0, MAX_NUMBER + 1, 0),
            Err(GrammarError::Value { .. })
        ));
        assert!(Range::new(-MAX_NUMBER, MAX_NUMBER, 0).is_ok());
    }
}

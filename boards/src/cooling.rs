//! [`Cooling`]: fewer threads while a board is hot.

use crate::board::Board;

/// Between which temperatures threads are taken away and given back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoolingLimits {
    /// From here on every reading takes one thread away, in °C.
    pub fewer_from_c: f64,
    /// Down from here every reading gives one back, in °C; below the other.
    pub more_below_c: f64,
}

impl CoolingLimits {
    /// Where the board counts as hot, and its hysteresis below.
    pub fn of(board: &Board) -> CoolingLimits {
        CoolingLimits {
            fewer_from_c: board.thermal.hot_c,
            more_below_c: board.thermal.hot_c - board.thermal.hysteresis_c,
        }
    }
}

/// How many threads a board's temperature allows: at most all, at least one. Between its limits
/// the number stays, and so it does without a reading: a board without a sensor has no limit.
#[derive(Clone, Debug)]
pub struct Cooling {
    limits: CoolingLimits,
    most: usize,
    allowed: usize,
}

impl Cooling {
    /// All `most` threads are allowed until a reading says otherwise.
    pub fn new(limits: CoolingLimits, most: usize) -> Cooling {
        let most = most.max(1);
        Cooling {
            limits,
            most,
            allowed: most,
        }
    }

    /// Threads that are allowed after one more reading, in °C.
    pub fn update(&mut self, celsius: Option<f64>) -> usize {
        match celsius {
            Some(celsius) if celsius >= self.limits.fewer_from_c => {
                self.allowed = (self.allowed - 1).max(1);
            }
            Some(celsius) if celsius <= self.limits.more_below_c => {
                self.allowed = (self.allowed + 1).min(self.most);
            }
            _ => {}
        }
        self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::{Cooling, CoolingLimits};
    use crate::board::Board;
    use proptest::prelude::*;

    const LIMITS: CoolingLimits = CoolingLimits {
        fewer_from_c: 80.0,
        more_below_c: 75.0,
    };

    #[test]
    fn threads_go_one_a_reading_and_come_back_only_when_it_is_cooler() {
        let mut cooling = Cooling::new(LIMITS, 4);
        for (celsius, allowed) in [
            (60.0, 4),
            (79.9, 4),
            (80.0, 3),
            (79.9, 3),
            (81.0, 2),
            (75.1, 2),
            (95.0, 1),
            (95.0, 1),
            (76.0, 1),
            (75.0, 2),
            (75.0, 3),
            (80.0, 2),
            (40.0, 3),
            (40.0, 4),
            (40.0, 4),
        ] {
            assert_eq!(cooling.update(Some(celsius)), allowed, "{celsius}");
        }
    }

    #[test]
    fn without_a_sensor_there_is_no_limit_and_a_lost_one_keeps_it() {
        let mut cooling = Cooling::new(LIMITS, 4);
        for nothing in [None, Some(f64::NAN), None] {
            assert_eq!(cooling.update(nothing), 4);
        }
        assert_eq!(cooling.update(Some(90.0)), 3);
        assert_eq!(cooling.update(None), 3);
        assert_eq!(cooling.update(Some(f64::NAN)), 3);
        assert_eq!(Cooling::new(LIMITS, 0).update(Some(99.0)), 1);
    }

    #[test]
    fn a_board_gives_its_own_limits() {
        let board = Board::by_name("raspberry-pi-5").unwrap();
        assert_eq!(CoolingLimits::of(&board), LIMITS);
    }

    proptest! {
        #[test]
        fn a_wobble_within_the_limits_never_changes_the_number(
            first in prop::collection::vec(20.0f64..110.0, 0..12),
            wobbles in prop::collection::vec(75.01f64..79.99, 1..40),
            most in 1_usize..16,
        ) {
            let mut cooling = Cooling::new(LIMITS, most);
            let mut allowed = most;
            for celsius in first {
                allowed = cooling.update(Some(celsius));
                prop_assert!((1..=most).contains(&allowed));
            }
            for celsius in wobbles {
                prop_assert_eq!(cooling.update(Some(celsius)), allowed);
            }
        }
    }
}

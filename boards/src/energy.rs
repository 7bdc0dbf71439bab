//! Joules over an interval, for example of one answer.

use std::time::Duration;

use serde::Serialize;

use crate::health::Power;

/// Longest time between two readings that still counts as covered.
const MAX_GAP: Duration = Duration::from_secs(10);

/// Energy of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Joules {
    /// Joules of the covered time.
    pub joules: f64,
    /// Whether every reading was of a sensor; if not, it is an estimate.
    pub measured: bool,
    /// Time with readings at both ends, at most 10 s apart.
    pub covered: Duration,
    /// Time without.
    pub missing: Duration,
}

const NOTHING: Joules = Joules {
    joules: 0.0,
    measured: true,
    covered: Duration::ZERO,
    missing: Duration::ZERO,
};

/// Adds up readings of power.
///
/// Between two readings of a sensor the power is taken to change evenly (trapezoid). An estimate is
/// already the mean of the time before it.
#[derive(Clone, Debug)]
pub struct EnergyMeter {
    last: Option<(Duration, Power)>,
    sum: Joules,
}

impl Default for EnergyMeter {
    fn default() -> Self {
        EnergyMeter {
            last: None,
            sum: NOTHING,
        }
    }
}

impl EnergyMeter {
    /// Adds the power at the time `at` of a clock that does not jump. A reading that is not later
    /// than the one before takes its place and adds nothing.
    pub fn add(&mut self, at: Duration, power: Power) {
        if let Some((before, last)) = &self.last {
            let span = at.saturating_sub(*before);
            match mean_watts(last, &power) {
                Some(watts) if span <= MAX_GAP => {
                    self.sum.joules += watts * span.as_secs_f64();
                    self.sum.covered += span;
                    self.sum.measured &= last.is_measured() && power.is_measured();
                }
                _ => self.sum.missing += span,
            }
        }
        self.last = Some((at, power));
    }

    /// The energy since the last call; the last reading is the beginning of the next interval.
    pub fn take(&mut self) -> Joules {
        let mut taken = std::mem::replace(&mut self.sum, NOTHING);
        taken.measured &= taken.covered > Duration::ZERO;
        taken
    }
}

fn mean_watts(first: &Power, second: &Power) -> Option<f64> {
    let (from, to) = (first.watts()?, second.watts()?);
    Some(if second.is_measured() {
        (from + to) / 2.0
    } else {
        to
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::EnergyMeter;
    use crate::health::Power;

    fn sensor(watts: f64) -> Power {
        Power::Measured {
            watts,
            sensor: "test".into(),
        }
    }

    fn estimate(watts: f64) -> Power {
        Power::Estimated {
            watts,
            source: "test".into(),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_ramp_is_a_trapezoid() {
        let mut meter = EnergyMeter::default();
        meter.add(at(10), sensor(2.0));
        meter.add(at(12), sensor(6.0));
        let joules = meter.take();
        assert_eq!(
            (joules.joules, joules.measured, joules.covered),
            (8.0, true, at(2))
        );
        meter.add(at(13), sensor(6.0));
        assert_eq!(meter.take().joules, 6.0);
    }

    #[test]
    fn one_estimate_makes_the_sum_an_estimate() {
        let mut meter = EnergyMeter::default();
        meter.add(at(0), sensor(2.0));
        meter.add(at(1), estimate(4.0));
        let joules = meter.take();
        assert_eq!((joules.joules, joules.measured), (4.0, false));
        meter.add(at(2), sensor(2.0));
        let joules = meter.take();
        assert_eq!((joules.joules, joules.measured), (3.0, false));
        meter.add(at(3), sensor(2.0));
        assert!(meter.take().measured);
    }

    #[test]
    fn gaps_are_missing_and_not_made_up() {
        let mut meter = EnergyMeter::default();
        meter.add(at(0), sensor(2.0));
        meter.add(at(60), sensor(2.0));
        meter.add(at(61), Power::Unknown);
        meter.add(at(62), sensor(2.0));
        let joules = meter.take();
        assert_eq!(
            (joules.joules, joules.missing, joules.measured),
            (0.0, at(62), false)
        );
    }

    #[test]
    fn a_clock_that_goes_back_adds_nothing() {
        let mut meter = EnergyMeter::default();
        meter.add(at(5), sensor(2.0));
        meter.add(at(3), sensor(2.0));
        meter.add(at(4), sensor(2.0));
        assert_eq!(meter.take().joules, 2.0);
    }

    proptest! {
        #[test]
        fn energy_lies_between_the_least_and_the_most_power(
            readings in prop::collection::vec((0u64..9_000, 0.0f64..50.0), 2..40)
        ) {
            let mut meter = EnergyMeter::default();
            let mut now = Duration::ZERO;
            for (step, watts) in &readings {
                now += Duration::from_millis(*step);
                meter.add(now, sensor(*watts));
            }
            let sum = meter.take();
            let seconds = sum.covered.as_secs_f64();
            let most = readings.iter().map(|r| r.1).fold(0.0, f64::max);
            let least = readings.iter().map(|r| r.1).fold(f64::MAX, f64::min);
            prop_assert!(sum.joules <= most * seconds + 1e-6);
            prop_assert!(sum.joules >= least * seconds - 1e-6);
        }
    }
}

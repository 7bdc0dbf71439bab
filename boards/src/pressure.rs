//! Levels of heat and of memory that work can be shed by, without flutter.

use serde::Serialize;

use crate::board::Board;
use crate::health::Health;

/// Share of waiting for memory, in percent, from which memory counts as low.
const LOW_WAITING_PERCENT: f64 = 20.0;

/// Heat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ThermalPressure {
    /// Nothing to do.
    #[default]
    Nominal,
    /// Work that can wait should wait.
    Warm,
    /// The board is about to slow down, or does already.
    Hot,
}

/// Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryPressure {
    /// Nothing to do.
    #[default]
    Plenty,
    /// Caches should shrink.
    Low,
    /// Only what must run should run.
    Critical,
}

/// Both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// Heat.
    pub thermal: ThermalPressure,
    /// Memory.
    pub memory: MemoryPressure,
}

/// Follows the health of a board. A level is entered at the board's limit and left only when the
/// value is back by the board's hysteresis; without a reading it stays.
#[derive(Clone, Debug)]
pub struct PressureGauge {
    heat: Ladder,
    want: Ladder,
}

impl PressureGauge {
    /// A gauge with the limits of `board`.
    pub fn new(board: &Board) -> PressureGauge {
        let (heat, memory) = (&board.thermal, &board.memory);
        PressureGauge {
            heat: Ladder::new([heat.warm_c, heat.hot_c], heat.hysteresis_c),
            want: Ladder::new([-memory.low_mb, -memory.critical_mb], memory.hysteresis_mb),
        }
    }

    /// The levels after one more reading. A board that is slowed counts as hot, one whose tasks wait
    /// for memory a fifth of the time as low, whatever the numbers say.
    pub fn update(&mut self, health: &Health) -> Pressure {
        let heat = self
            .heat
            .update(health.temperature.as_ref().map(|it| it.celsius));
        let want = self
            .want
            .update(health.memory.map(|memory| -memory.available_mb));
        let waiting = health.memory.and_then(|memory| memory.pressure_percent);
        let thermal = [
            ThermalPressure::Nominal,
            ThermalPressure::Warm,
            ThermalPressure::Hot,
        ][heat];
        let memory = [
            MemoryPressure::Plenty,
            MemoryPressure::Low,
            MemoryPressure::Critical,
        ][want];
        Pressure {
            thermal: if health.throttling.is_slowed() {
                ThermalPressure::Hot
            } else {
                thermal
            },
            memory: match waiting {
                Some(percent) if percent >= LOW_WAITING_PERCENT => memory.max(MemoryPressure::Low),
                _ => memory,
            },
        }
    }
}

/// Two rising limits with hysteresis; the level is the number of limits reached, 0 to 2.
#[derive(Clone, Debug)]
struct Ladder {
    limits: [f64; 2],
    hysteresis: f64,
    level: usize,
}

impl Ladder {
    fn new(limits: [f64; 2], hysteresis: f64) -> Ladder {
        Ladder {
            limits,
            hysteresis,
            level: 0,
        }
    }

    fn update(&mut self, value: Option<f64>) -> usize {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return self.level;
        };
        let reached = |margin: f64| {
            self.limits
                .iter()
                .filter(|limit| value >= **limit - margin)
                .count()
        };
        self.level = self.level.clamp(reached(0.0), reached(self.hysteresis));
        self.level
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Ladder, MemoryPressure, PressureGauge, ThermalPressure};
    use crate::board::Board;
    use crate::health::{Health, Memory, Temperature, Throttling};

    fn gauge() -> PressureGauge {
        PressureGauge::new(&Board::by_name("raspberry-pi-5").unwrap())
    }

    fn at(celsius: f64) -> Health {
        let temperature = Some(Temperature {
            zone: "cpu-thermal".into(),
            celsius,
        });
        Health {
            temperature,
            ..Health::default()
        }
    }

    fn with(available_mb: f64, pressure_percent: Option<f64>) -> Health {
        let memory = Some(Memory {
            total_mb: 2048.0,
            available_mb,
            pressure_percent,
        });
        Health {
            memory,
            ..Health::default()
        }
    }

    #[test]
    fn heat_is_left_later_than_it_is_entered() {
        use ThermalPressure::{Hot, Nominal, Warm};
        let mut gauge = gauge();
        for (celsius, level) in [
            (69.9, Nominal),
            (70.0, Warm),
            (65.1, Warm),
            (64.9, Nominal),
            (85.0, Hot),
            (75.1, Hot),
            (74.9, Warm),
            (80.0, Hot),
            (20.0, Nominal),
        ] {
            assert_eq!(gauge.update(&at(celsius)).thermal, level, "{celsius}");
        }
    }

    #[test]
    fn memory_is_left_later_than_it_is_entered() {
        use MemoryPressure::{Critical, Low, Plenty};
        let mut gauge = gauge();
        for (megabytes, level) in [
            (257.0, Plenty),
            (256.0, Low),
            (287.0, Low),
            (289.0, Plenty),
            (100.0, Critical),
            (159.0, Critical),
            (161.0, Low),
        ] {
            assert_eq!(
                gauge.update(&with(megabytes, None)).memory,
                level,
                "{megabytes}"
            );
        }
    }

    #[test]
    fn a_slowed_board_is_hot_at_any_temperature() {
        let throttling = Throttling {
            frequency_capped: true,
            ..Throttling::default()
        };
        let health = Health {
            throttling,
            ..at(20.0)
        };
        let mut gauge = gauge();
        assert_eq!(gauge.update(&health).thermal, ThermalPressure::Hot);
        assert_eq!(gauge.update(&at(20.0)).thermal, ThermalPressure::Nominal);
    }

    #[test]
    fn waiting_for_memory_counts_as_low() {
        let mut gauge = gauge();
        assert_eq!(
            gauge.update(&with(2000.0, Some(19.0))).memory,
            MemoryPressure::Plenty
        );
        assert_eq!(
            gauge.update(&with(2000.0, Some(20.0))).memory,
            MemoryPressure::Low
        );
        assert_eq!(
            gauge.update(&with(100.0, Some(50.0))).memory,
            MemoryPressure::Critical
        );
    }

    #[test]
    fn a_lost_sensor_keeps_the_level() {
        let mut gauge = gauge();
        gauge.update(&at(90.0));
        assert_eq!(
            gauge.update(&Health::default()).thermal,
            ThermalPressure::Hot
        );
        assert_eq!(gauge.update(&at(f64::NAN)).thermal, ThermalPressure::Hot);
    }

    proptest! {
        #[test]
        fn a_wobble_smaller_than_the_hysteresis_changes_the_level_at_most_once(
            center in 0.0f64..100.0,
            wobbles in prop::collection::vec(-2.4f64..2.4, 1..60),
        ) {
            let mut ladder = Ladder::new([60.0, 80.0], 5.0);
            ladder.update(Some(center));
            let levels: Vec<usize> = wobbles.iter().map(|w| ladder.update(Some(center + w))).collect();
            let changes = levels.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(changes <= 1, "{levels:?}");
        }
    }
}

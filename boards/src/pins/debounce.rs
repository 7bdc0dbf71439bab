//! Levels that last.

use std::time::Duration;

/// Passes a change on when the new level has lasted for a while.
#[derive(Clone, Debug)]
pub struct Debounce {
    hold: Duration,
    stable: bool,
    /// Since when the level is the other one.
    changed: Option<Duration>,
}

impl Debounce {
    /// Debounces with the time `hold`, beginning with the level `stable`.
    pub fn new(hold: Duration, stable: bool) -> Debounce {
        Debounce {
            hold,
            stable,
            changed: None,
        }
    }

    /// The level that lasted.
    pub fn level(&self) -> bool {
        self.stable
    }

    /// Takes an edge to `level` at the time `at`; times must not go back. Returns the change that
    /// this proves: its level, and when it began.
    pub fn edge(&mut self, level: bool, at: Duration) -> Option<(bool, Duration)> {
        let settled = self.settle(at);
        self.changed = (level != self.stable).then(|| self.changed.unwrap_or(at));
        settled.or_else(|| self.settle(at))
    }

    /// Returns the change that is proved by no edge having come until `now`.
    pub fn settle(&mut self, now: Duration) -> Option<(bool, Duration)> {
        let began = self
            .changed
            .filter(|began| now.saturating_sub(*began) >= self.hold)?;
        self.changed = None;
        self.stable = !self.stable;
        Some((self.stable, began))
    }

    /// When [`Debounce::settle`] will have something, if no edge comes.
    pub fn deadline(&self) -> Option<Duration> {
        self.changed.map(|began| began.saturating_add(self.hold))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::Debounce;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn without_hold_every_edge_passes() {
        let mut debounce = Debounce::new(ms(0), false);
        assert_eq!(debounce.edge(true, ms(1)), Some((true, ms(1))));
        assert_eq!(debounce.edge(true, ms(2)), None);
        assert_eq!(debounce.edge(false, ms(3)), Some((false, ms(3))));
        assert_eq!(debounce.deadline(), None);
    }

    #[test]
    fn bounces_are_one_change_that_began_with_the_last_bounce() {
        let mut debounce = Debounce::new(ms(20), false);
        for (level, at) in [(true, 0), (false, 2), (true, 3), (false, 5), (true, 6)] {
            assert_eq!(debounce.edge(level, ms(at)), None);
        }
        assert_eq!(debounce.deadline(), Some(ms(26)));
        assert_eq!(debounce.settle(ms(25)), None);
        assert_eq!(debounce.settle(ms(26)), Some((true, ms(6))));
        assert_eq!(debounce.settle(ms(90)), None);
    }

    #[test]
    fn an_edge_to_the_same_level_does_not_start_again() {
        let mut debounce = Debounce::new(ms(20), false);
        assert_eq!(debounce.edge(true, ms(0)), None);
        assert_eq!(debounce.edge(true, ms(15)), None);
        assert_eq!(debounce.settle(ms(20)), Some((true, ms(0))));
    }

    #[test]
    fn edges_that_are_read_late_still_prove_what_lasted() {
        let mut debounce = Debounce::new(ms(20), false);
        assert_eq!(debounce.edge(true, ms(0)), None);
        assert_eq!(debounce.edge(false, ms(500)), Some((true, ms(0))));
        assert_eq!(debounce.settle(ms(1000)), Some((false, ms(500))));
    }

    #[test]
    fn a_pulse_shorter_than_the_hold_is_nothing() {
        let mut debounce = Debounce::new(ms(20), false);
        assert_eq!(debounce.edge(true, ms(0)), None);
        assert_eq!(debounce.edge(false, ms(19)), None);
        assert_eq!((debounce.settle(ms(1000)), debounce.level()), (None, false));
    }

    proptest! {
        #[test]
        fn changes_alternate_and_are_a_hold_apart(
            hold in 1u64..50,
            edges in prop::collection::vec((any::<bool>(), 0u64..60), 0..80),
        ) {
            let mut debounce = Debounce::new(ms(hold), false);
            let (mut now, mut changes) = (0, Vec::new());
            for (level, step) in edges {
                now += step;
                changes.extend(debounce.edge(level, ms(now)));
            }
            changes.extend(debounce.settle(ms(now + hold)));
            for (index, (level, _)) in changes.iter().enumerate() {
                prop_assert_eq!(*level, index % 2 == 0);
            }
            for pair in changes.windows(2) {
                prop_assert!(pair[1].1 >= pair[0].1 + ms(hold));
            }
        }
    }
}

//! Waiting for a picture that is worth looking at.

use std::time::Duration;

use crate::change::Change;
use crate::quality::{Finding, Quality};

use super::settings::Trigger;
use super::{Choice, Refusal};

/// Cells of a thousand that may still move in a steady picture.
const STEADY: u32 = 10;
/// How long to wait for any picture at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of the wait.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Settled {
    Wait,
    Keep,
    Take(Choice),
    Refuse(Refusal),
}

/// A wait for a good picture.
#[derive(Clone, Debug)]
pub(super) struct Settling {
    since: Duration,
    patience: Duration,
    any_quality: bool,
    /// Rank of the picture kept.
    kept: Option<Rank>,
    finding: Option<Finding>,
}

/// Better pictures are larger: good before bad, then sharp, then still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    good: bool,
    fewest_findings: i64,
    sharpest: i64,
    stillest: i64,
}

impl Settling {
    pub(super) fn new(trigger: &Trigger, now: Duration) -> Settling {
        Settling {
            since: now,
            patience: trigger.times.settle(),
            any_quality: trigger.any_quality,
            kept: None,
            finding: None,
        }
    }

    /// Judges a picture, if there is one; at the end of the wait takes the best of all.
    pub(super) fn offer(&mut self, seen: Option<(&Change, &Quality)>, now: Duration) -> Settled {
        let waited = now.saturating_sub(self.since);
        let Some((change, quality)) = seen else {
            return self.without_picture(waited);
        };
        let rank = Rank::of(change, quality);
        let better = self.kept.is_none_or(|kept| rank > kept);
        if rank.good && change.unsteady_permille <= STEADY {
            return Settled::Take(Choice::This);
        }
        let over = waited >= self.patience;
        if better {
            self.kept = Some(rank);
            self.finding = quality.findings.first().cloned();
        }
        match (over, better) {
            (true, true) => self.take(Choice::This),
            (true, false) => self.take(Choice::Kept),
            (false, true) => Settled::Keep,
            (false, false) => Settled::Wait,
        }
    }

    fn without_picture(&self, waited: Duration) -> Settled {
        if self.kept.is_some() && waited >= self.patience {
            self.take(Choice::Kept)
        } else if waited >= self.patience.max(PATIENCE) {
            Settled::Refuse(Refusal::NoPicture)
        } else {
            Settled::Wait
        }
    }

    /// The best picture, unless even that is bad.
    fn take(&self, choice: Choice) -> Settled {
        match &self.finding {
            Some(finding) if !self.any_quality => {
                Settled::Refuse(Refusal::Quality(finding.clone()))
            }
            _ => Settled::Take(choice),
        }
    }
}

impl Rank {
    fn of(change: &Change, quality: &Quality) -> Rank {
        let width = quality
            .measures
            .edges
            .map_or(i64::MAX, |edges| i64::from(edges.width));
        Rank {
            good: quality.is_good(),
            fewest_findings: -(quality.findings.len() as i64),
            sharpest: -width,
            stillest: -i64::from(change.unsteady_permille),
        }
    }
}

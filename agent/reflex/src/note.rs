//! [`Note`]: a line for the journal.

use crate::index::{
    ActId, ActionIndex, EventId, HookIndex, PermissionIndex, PinIndex, RequestId, RuleIndex,
};
use crate::observation::{Fault, HookVerdict, Link, Outcome, Quality};
use crate::output::{Grant, SafeCause};
use crate::probability::Probability;
use crate::rule::Branch;
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// What was decided and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// A rule started.
    Started {
        /// The rule.
        rule: RuleIndex,
        /// Its run.
        event: EventId,
        /// Which of its triggers.
        trigger: u8,
    },
    /// A trigger held but the rule did not start.
    NotStarted {
        /// The rule.
        rule: RuleIndex,
        /// Why.
        why: Idle,
    },
    /// Something came in and was not used.
    Ignored(Ignored),
    /// A picture was not good enough to ask about.
    PoorPicture {
        /// The run.
        event: EventId,
        /// The verdict; `None`: no picture.
        quality: Option<Quality>,
    },
    /// A look was answered.
    Vote {
        /// The run.
        event: EventId,
        /// Where the answer points.
        branch: Branch,
        /// Its probability.
        probability: Probability,
        /// Looks so far.
        looks: u8,
    },
    /// A rule decided.
    Decided {
        /// The rule.
        rule: RuleIndex,
        /// Its run.
        event: EventId,
        /// The branch taken.
        branch: Branch,
        /// Why, if it is `unsure`.
        doubt: Option<Doubt>,
    },
    /// An action was let through.
    Permitted {
        /// The rule.
        rule: RuleIndex,
        /// The action.
        action: ActionIndex,
        /// Why.
        grant: Grant,
    },
    /// An action was not let through.
    Refused {
        /// The rule.
        rule: RuleIndex,
        /// The action.
        action: ActionIndex,
        /// Why not.
        why: Refusal,
    },
    /// A hook gave its verdict.
    HookSaid {
        /// The hook.
        hook: HookIndex,
        /// The verdict.
        verdict: HookVerdict,
    },
    /// A decision of a person was not taken.
    ApprovalRefused {
        /// The id it named.
        request: RequestId,
        /// Why not.
        why: Forgery,
    },
    /// An action came back.
    Finished {
        /// The action.
        act: ActId,
        /// How it went.
        outcome: Outcome,
    },
    /// A pin was made safe.
    MadeSafe {
        /// The pin.
        pin: PinIndex,
        /// Why.
        cause: SafeCause,
    },
    /// A fault began or ended.
    Fault {
        /// Which.
        fault: Fault,
        /// True: it began.
        active: bool,
    },
    /// A link came up or went down.
    Link {
        /// Which.
        link: Link,
        /// True: up.
        up: bool,
    },
    /// A run was given up.
    GivenUp {
        /// The rule.
        rule: RuleIndex,
        /// Its run.
        event: EventId,
        /// Why.
        why: GivenUp,
    },
    /// The clock went back by this much; all pins were made safe.
    ClockWentBack {
        /// How far.
        by: Millis,
    },
    /// New rules are in force.
    Adopted {
        /// Fingerprint of the rule file.
        fingerprint: u64,
    },
    /// Something was dropped for want of room; the counter stands in the state.
    Dropped(Dropped),
    /// A person enabled or disabled a rule.
    Switched {
        /// The rule.
        rule: RuleIndex,
        /// True: it may start.
        on: bool,
    },
}

/// Why a rule did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Idle {
    /// It is not enabled.
    Disabled,
    /// The agent has not started or has stopped.
    NotRunning,
    /// Its last start is too recent.
    Cooldown {
        /// Time left.
        left: Millis,
    },
    /// Outside its window, or the wall clock is not known.
    Window,
    /// It is running.
    Busy,
    /// Its priority is too low under a fault.
    Shed(Fault),
    /// It started in this stretch of change already.
    SameEpisode,
    /// Too many runs of the same or higher priority.
    Full,
}

/// Why something that came in was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ignored {
    /// No rule waits for it.
    NoRule,
    /// The name is not in the rule file.
    UnknownName,
    /// A message the broker had kept.
    Retained,
    /// It came over another link than it should.
    WrongLink(Link),
    /// The text was too long and is not compared.
    Cut,
    /// The picture, question, call or action is no longer awaited.
    Late,
    /// The picture is said to come from the future.
    Future,
    /// An early answer to a question that asked for none.
    Early,
    /// The rule file keeps the rule from being switched.
    NotSwitchable,
}

/// Why a decision is `unsure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// The model abstained.
    Abstained,
    /// Not probable enough.
    Threshold,
    /// The looks do not agree.
    Votes,
    /// Out of time.
    Deadline,
    /// No good picture.
    Picture,
    /// No camera or no model.
    Fault(Fault),
    /// The picture is too old.
    Stale,
    /// Required fields are missing, or the answer is not of the form asked for.
    Incomplete,
}

/// Why an action was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A line denies it.
    Denied(PermissionIndex),
    /// It actuates and no line allows it.
    NoLine,
    /// Its level is above the highest of the file.
    Level,
    /// A line allows it, but not so often.
    LineRate(PermissionIndex),
    /// The pin may not be set so often.
    PinRate,
    /// The value is outside the pin's range.
    Range,
    /// The value cannot be told from the answer.
    NoValue,
    /// Another pin forbids it or is not known.
    Interlock(PinIndex),
    /// Too soon after the last change.
    Dwell,
    /// Too soon after the last time on.
    MinOff,
    /// No picture behind it.
    NoEvidence,
    /// The picture behind it is too old.
    StaleEvidence {
        /// Its age.
        age: Millis,
    },
    /// The pin's link is down.
    LinkDown,
    /// A hook objected.
    Vetoed(HookIndex),
    /// A hook failed or was too slow.
    HookFailed(HookIndex),
    /// A person said no.
    PersonSaidNo,
    /// Nobody answered in time.
    Expired,
    /// The same action waits already.
    AlreadyPending,
    /// Too many actions wait, or too many outputs.
    Full,
    /// The rules changed or the agent stopped.
    Withdrawn,
    /// Nothing can be saved.
    DiskFull,
}

/// Why a decision of a person was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forgery {
    /// No such request, or decided or expired already.
    Unknown,
    /// The number does not fit.
    Nonce,
    /// Not from a link the line names.
    WrongLink,
    /// A message the broker had kept.
    Retained,
}

/// Why a run was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GivenUp {
    /// A more important rule needed the place.
    Displaced,
    /// Its priority is too low under a fault.
    Shed(Fault),
    /// The clock went back.
    Clock,
    /// Start, stop or new rules.
    Restart,
    /// The model picked nothing more, or may not.
    PickOver,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// Notes of this step.
    Notes,
    /// Looks, questions or announcements of this step.
    Outputs,
    /// A rule started by another rule.
    Chain,
    /// The wait for an outcome.
    Act,
    /// An open event, ended early.
    Event,
    /// A run.
    Run,
}

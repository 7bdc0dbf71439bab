//! Words for notes.

use super::{action_name, cause, line, pin_name, rule_name, time};
use crate::note::{Doubt, Dropped, Forgery, GivenUp, Idle, Ignored, Note, Refusal};
use crate::output::Grant;
use crate::policy::Policy;

/// A note.
pub(crate) fn note(policy: &Policy, note: Note) -> String {
    match note {
        Note::Started { rule, trigger, .. } => {
            let word = policy
                .rule(rule)
                .and_then(|rule| rule.when.get(usize::from(trigger)))
                .map_or("?", |trigger| trigger.source.word());
            format!(
                "rule {} starts by its {word} trigger",
                rule_name(policy, rule)
            )
        }
        Note::NotStarted { rule, why } => {
            format!(
                "rule {} does not start: {}",
                rule_name(policy, rule),
                idle(why)
            )
        }
        Note::Ignored(why) => format!("not used: {}", ignored(why)),
        Note::PoorPicture { quality, .. } => match quality {
            Some(quality) => format!("the picture is no good: {quality:?}"),
            None => "no picture could be taken".to_owned(),
        },
        Note::Vote {
            branch,
            probability,
            looks,
            ..
        } => {
            format!("look {looks} says {} with {probability}", branch.word())
        }
        Note::Decided {
            rule,
            branch,
            doubt,
            ..
        } => {
            let why = doubt.map_or(String::new(), |why| format!(": {}", self::doubt(why)));
            format!(
                "rule {} ends with {}{why}",
                rule_name(policy, rule),
                branch.word()
            )
        }
        Note::Permitted {
            rule,
            action,
            grant: by,
        } => format!(
            "{} of rule {}: {}",
            action_name(policy, action),
            rule_name(policy, rule),
            grant(policy, by)
        ),
        Note::Refused { rule, action, why } => format!(
            "{} of rule {} is refused: {}",
            action_name(policy, action),
            rule_name(policy, rule),
            refusal(policy, why)
        ),
        Note::HookSaid { hook, verdict } => {
            let hook = policy
                .hooks
                .get(hook.get())
                .map_or("?", |hook| hook.name.as_str());
            format!("hook {hook} says {verdict:?}")
        }
        Note::ApprovalRefused { why, .. } => {
            format!("a decision is not taken: {}", forgery(why))
        }
        Note::Finished { act, outcome } => format!("action {} came back: {outcome:?}", act.0),
        Note::MadeSafe { pin, cause: why } => {
            format!(
                "pin {} would be made safe: {}",
                pin_name(policy, pin),
                cause(policy, why)
            )
        }
        Note::Fault { fault, active } => {
            format!("fault {fault:?} {}", if active { "began" } else { "ended" })
        }
        Note::Link { link, up } => format!("link {link:?} is {}", if up { "up" } else { "down" }),
        Note::GivenUp { rule, why, .. } => {
            format!(
                "rule {} is given up: {}",
                rule_name(policy, rule),
                given_up(why)
            )
        }
        Note::ClockWentBack { by } => format!("the clock went back by {}", time(by)),
        Note::Adopted { fingerprint } => format!("rules {fingerprint:016x} are in force"),
        Note::Dropped(what) => format!("for want of room, {}", dropped(what)),
        Note::Switched { rule, on } => format!(
            "rule {} is switched {}",
            rule_name(policy, rule),
            if on { "on" } else { "off" }
        ),
    }
}

/// Why an action may be done.
fn grant(policy: &Policy, grant: Grant) -> String {
    match grant {
        Grant::Default => "allowed, no line is against it".to_owned(),
        Grant::Line(index) => format!("allowed by {}", line(policy, index)),
        Grant::Person(index, _) => format!("allowed by a person, asked by {}", line(policy, index)),
    }
}

/// Why an action may not be done.
pub(crate) fn refusal(policy: &Policy, why: Refusal) -> String {
    let fixed = match why {
        Refusal::Denied(index) => return format!("{} denies it", line(policy, index)),
        Refusal::LineRate(index) => {
            return format!("{} does not allow it so often", line(policy, index));
        }
        Refusal::Interlock(pin) => {
            return format!("interlock with {}", pin_name(policy, pin));
        }
        Refusal::StaleEvidence { age } => return format!("the picture is {} old", time(age)),
        Refusal::Vetoed(hook) | Refusal::HookFailed(hook) => {
            let name = policy
                .hooks
                .get(hook.get())
                .map_or("?", |hook| hook.name.as_str());
            let objected = matches!(why, Refusal::Vetoed(_));
            let verb = if objected {
                "objects"
            } else {
                "failed or was too slow"
            };
            return format!("hook {name} {verb}");
        }
        Refusal::NoLine => "it actuates and no line allows it",
        Refusal::Level => "its level is above the highest",
        Refusal::PinRate => "the pin may not be set so often",
        Refusal::Range => "the value is outside the pin's range",
        Refusal::NoValue => "the value cannot be told from the answer",
        Refusal::Dwell => "too soon after the last change",
        Refusal::MinOff => "too soon after the last time on",
        Refusal::NoEvidence => "there is no picture behind it",
        Refusal::LinkDown => "the pin's link is down",
        Refusal::PersonSaidNo => "a person said no",
        Refusal::Expired => "nobody answered in time",
        Refusal::AlreadyPending => "the same action waits already",
        Refusal::Full => "too much waits",
        Refusal::Withdrawn => "the rules changed, the clock went back, or the agent stopped",
        Refusal::DiskFull => "the disk is full",
    };
    fixed.to_owned()
}

fn idle(why: Idle) -> String {
    match why {
        Idle::Disabled => "it is not enabled".to_owned(),
        Idle::NotRunning => "the agent is not running".to_owned(),
        Idle::Cooldown { left } => format!("cooldown, {} left", time(left)),
        Idle::Window => "outside its time window, or the time is not known".to_owned(),
        Idle::Busy => "it is running".to_owned(),
        Idle::Shed(fault) => format!("its priority is too low while {fault:?}"),
        Idle::SameEpisode => "it started in this stretch of change already".to_owned(),
        Idle::Full => "too many rules of its priority or a higher one are running".to_owned(),
    }
}

fn ignored(why: Ignored) -> String {
    match why {
        Ignored::NoRule => "no rule waits for it".to_owned(),
        Ignored::UnknownName => "its name is not in the rule file".to_owned(),
        Ignored::Retained => "the broker had kept it".to_owned(),
        Ignored::WrongLink(link) => format!("it came over {link:?}"),
        Ignored::Cut => "its text is too long to be compared".to_owned(),
        Ignored::Late => "it is no longer awaited".to_owned(),
        Ignored::Future => "its picture is from the future, or older than all memory".to_owned(),
        Ignored::Early => "an early answer was not asked for".to_owned(),
        Ignored::NotSwitchable => "the rule file keeps it as it is".to_owned(),
    }
}

fn doubt(why: Doubt) -> String {
    match why {
        Doubt::Abstained => "the model abstained".to_owned(),
        Doubt::Threshold => "not probable enough".to_owned(),
        Doubt::Votes => "the looks do not agree".to_owned(),
        Doubt::Deadline => "out of time".to_owned(),
        Doubt::Picture => "no good picture".to_owned(),
        Doubt::Fault(fault) => format!("{fault:?}"),
        Doubt::Stale => "the picture is too old".to_owned(),
        Doubt::Incomplete => "the answer is incomplete or not of the form asked for".to_owned(),
    }
}

fn forgery(why: Forgery) -> &'static str {
    match why {
        Forgery::Unknown => "no such request, or decided or expired already",
        Forgery::Nonce => "its number does not fit",
        Forgery::WrongLink => "it came over a link that may not decide",
        Forgery::Retained => "the broker had kept it",
    }
}

fn given_up(why: GivenUp) -> String {
    match why {
        GivenUp::Displaced => "a more important rule needs the place".to_owned(),
        GivenUp::Shed(fault) => format!("its priority is too low while {fault:?}"),
        GivenUp::Clock => "the clock went back".to_owned(),
        GivenUp::Restart => "the agent starts over".to_owned(),
        GivenUp::PickOver => "the model picks nothing more".to_owned(),
    }
}

fn dropped(what: Dropped) -> &'static str {
    match what {
        Dropped::Notes => "notes are missing",
        Dropped::Outputs => "looks, questions or announcements are missing",
        Dropped::Chain => "a rule was not started by another one",
        Dropped::Act => "an outcome is no longer awaited",
        Dropped::Event => "an event was ended early",
        Dropped::Run => "a run was given up",
    }
}

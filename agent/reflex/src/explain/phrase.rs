//! Words for actions, verdicts, notes and outputs.

mod note;
mod trigger;

pub(super) use note::{note, refusal};
pub(super) use trigger::source;

use crate::action::{Action, Command, PinValue};
use crate::index::{ActionIndex, PermissionIndex, PinIndex, RuleIndex};
use crate::output::{Ask, Cancelled, Deed, EventPhase, Model, Moment, Output, SafeCause};
use crate::policy::Policy;
use crate::question::Form;
use crate::rule::{Branch, Rule};
use crate::step::Verdict;
use crate::time::Millis;

/// A duration with the largest unit that keeps it whole.
pub(crate) fn time(ms: Millis) -> String {
    let units = [
        (86_400_000, "day"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1000, "s"),
    ];
    units
        .iter()
        .find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit))
        .map_or_else(
            || format!("{ms} ms"),
            |(unit, word)| format!("{} {word}", ms / unit),
        )
}

/// An action, with the value a pin would get if it is known.
pub(crate) fn action(policy: &Policy, action: &Action, value: Option<i32>) -> String {
    match &action.command {
        Command::Publish { topic, .. } => {
            format!(
                "publish {}",
                name(policy.topics.get(topic.get()).map(|topic| &topic.name))
            )
        }
        Command::Snapshot => "save the picture".to_owned(),
        Command::Packet { packet, .. } => format!(
            "send packet {}",
            name(policy.packets.get(packet.get()).map(|packet| &packet.name))
        ),
        Command::Set {
            pin,
            value: of,
            hold,
        } => {
            let value = match (value, *of) {
                (Some(value), _) | (None, PinValue::Fixed(value)) => value.to_string(),
                (None, PinValue::Answer { times, plus }) => format!("answer × {times} + {plus}"),
            };
            let hold = hold.map_or(String::new(), |hold| format!(" for {}", time(hold)));
            format!("set {} = {value}{hold}", pin_name(policy, *pin))
        }
        Command::Hook { hook } => {
            format!(
                "run hook {}",
                name(policy.hooks.get(hook.get()).map(|hook| &hook.name))
            )
        }
        Command::Event { label, .. } => format!("announce event {label}"),
    }
}

fn name(name: Option<&crate::text::Name>) -> String {
    name.map_or_else(|| "?".to_owned(), ToString::to_string)
}

pub(super) fn pin_name(policy: &Policy, pin: PinIndex) -> String {
    name(policy.pin(pin).map(|pin| &pin.name))
}

pub(super) fn rule_name(policy: &Policy, rule: RuleIndex) -> String {
    name(policy.rule(rule).map(|rule| &rule.id))
}

pub(super) fn action_name(policy: &Policy, index: ActionIndex) -> String {
    policy
        .action(index)
        .map_or_else(|| "?".to_owned(), |of| action(policy, of, None))
}

pub(super) fn line(policy: &Policy, line: PermissionIndex) -> String {
    match policy.permission(line) {
        Some(permission) if permission.why.is_empty() => format!("line {}", permission.line),
        Some(permission) => format!("line {} ({})", permission.line, permission.why),
        None => "an unknown line".to_owned(),
    }
}

/// What leads to a branch.
pub(super) fn condition(rule: &Rule, branch: Branch) -> String {
    let Some(question) = &rule.ask else {
        return "it starts".to_owned();
    };
    let sure = format!("with at least {}", question.threshold);
    let agree = match question.votes.need {
        1 => String::new(),
        need => format!(", {need} of {} looks agreeing", question.votes.of),
    };
    match (&question.form, branch) {
        (_, Branch::Unsure) => "there is no certain answer".to_owned(),
        (Form::Choices { choices, expect }, branch) => {
            let wanted = branch == Branch::Then;
            let words: Vec<&str> = (0..)
                .zip(choices)
                .filter(|(at, _)| (expect & (1 << at) != 0) == wanted)
                .map(|(_, choice)| choice.as_str())
                .collect();
            format!("the answer is {} {sure}{agree}", words.join(" or "))
        }
        (Form::Count { expect, .. }, Branch::Then) => {
            format!("the count is {} to {} {sure}{agree}", expect.0, expect.1)
        }
        (Form::Count { .. }, Branch::Else) => format!("the count is another one {sure}{agree}"),
        _ => format!("there is an answer {sure}{agree}"),
    }
}

pub(super) fn verdict(policy: &Policy, verdict: Verdict) -> String {
    match verdict {
        Verdict::Allow(None) => "allowed, no line is against it".to_owned(),
        Verdict::Allow(Some(index)) => format!("allowed by {}", line(policy, index)),
        Verdict::Ask {
            line: index,
            expires,
            ..
        } => format!(
            "asks a person by {}, no after {}",
            line(policy, index),
            time(expires)
        ),
        Verdict::Deny(why) => format!("refused: {}", refusal(policy, why)),
    }
}

/// One output.
pub(super) fn output(policy: &Policy, output: &Output) -> String {
    match output {
        Output::Look(look) => format!("take a picture within {}", time(look.within)),
        Output::Ask(ask) => asked(policy, ask),
        Output::Act(act) => format!("do: {}", deed(policy, act.action, act.deed)),
        Output::WouldAct(act) => {
            format!("dry run, would do: {}", deed(policy, act.action, act.deed))
        }
        Output::RequestApproval(request) => format!(
            "ask a person about {} by {}, no after {}",
            action_name(policy, request.action),
            line(policy, request.permission),
            time(request.within)
        ),
        Output::CallHook(call) => {
            let hook = name(policy.hooks.get(call.hook.get()).map(|hook| &hook.name));
            let action = action_name(policy, call.action);
            match call.moment {
                Moment::Before => format!("ask hook {hook} about {action}"),
                Moment::After(..) => format!("tell hook {hook} about {action}"),
            }
        }
        Output::Cancel(cancelled) => match cancelled {
            Cancelled::Look(_) => "the picture is no longer wanted".to_owned(),
            Cancelled::Question(_) => "the answer is no longer wanted".to_owned(),
            Cancelled::Request(_) => "the decision is no longer wanted".to_owned(),
            Cancelled::Call(_) => "the hook is no longer wanted".to_owned(),
        },
        Output::Event(notice) => {
            let phase = match notice.phase {
                EventPhase::New => "new",
                EventPhase::Update => "update",
                EventPhase::End => "end",
            };
            let id = notice.id.0;
            format!("{}: {phase}, id {id}", action_name(policy, notice.action))
        }
        Output::PinSafe(safe) => format!(
            "make pin {} safe: {}",
            pin_name(policy, safe.pin),
            cause(policy, safe.cause)
        ),
        Output::AllPinsSafe(why) => format!("make all pins safe: {}", cause(policy, *why)),
        Output::Note(of) => note(policy, *of),
    }
}

fn deed(policy: &Policy, index: ActionIndex, deed: Deed) -> String {
    let value = match deed {
        Deed::Set { value, .. } => Some(value),
        _ => None,
    };
    policy
        .action(index)
        .map_or_else(|| "?".to_owned(), |of| action(policy, of, value))
}

fn asked(policy: &Policy, ask: &Ask) -> String {
    let who = match ask.model {
        Model::Local => "ask",
        Model::Remote => "ask the remote model",
    };
    match policy.question(ask.rule) {
        Some(question) => format!(
            "{who} about picture {}: {:?} ({}), within {}",
            ask.frame,
            question.prompt,
            question.form.word(),
            time(ask.within)
        ),
        None => who.to_owned(),
    }
}

pub(super) fn cause(policy: &Policy, cause: SafeCause) -> String {
    match cause {
        SafeCause::Start => "start".to_owned(),
        SafeCause::Stop => "stop".to_owned(),
        SafeCause::Reload => "the rules change".to_owned(),
        SafeCause::HoldOver => "its time is over".to_owned(),
        SafeCause::MaxOn => "it was on for as long as it may".to_owned(),
        SafeCause::DeadMan => "it was not set again in time".to_owned(),
        SafeCause::Interlock(pin) => format!("interlock with {}", pin_name(policy, pin)),
        SafeCause::LinkDown => "its link is down".to_owned(),
        SafeCause::ActionFailed => "setting it failed".to_owned(),
        SafeCause::Clock => "the clock went back".to_owned(),
    }
}

//! [`explain()`]: what would happen, in words.

mod outline;
pub(crate) mod phrase;

pub use outline::{Branched, Outline, outline};

use crate::index::{ActionIndex, RuleIndex};
use crate::note::Note;
use crate::observation::Observation;
use crate::output::{Output, Outputs};
use crate::policy::Policy;
use crate::question::Form;
use crate::rule::{Branch, Rule, actions_of};
use crate::state::State;
use crate::step::{Subject, Verdict, allowed_by_envelope, step, verdict};
use crate::time::{LocalTime, Now};

/// Says step by step what an observation would do, and what each answer to a question asked would
/// lead to. The state is not changed.
pub fn explain(policy: &Policy, state: &State, observation: &Observation, now: Now) -> Vec<String> {
    let mut after = state.clone();
    let outputs = step(policy, &mut after, observation, now);
    let mut lines = describe(policy, &outputs);
    if lines.is_empty() {
        lines.push("nothing happens".to_owned());
    }
    for output in &outputs.list {
        if let Output::Note(Note::Started { rule, .. }) = output {
            outlook(policy, &after, *rule, now.local, &mut lines);
        }
    }
    lines
}

/// The outputs of a step, a line each.
pub fn describe(policy: &Policy, outputs: &Outputs) -> Vec<String> {
    outputs
        .list
        .iter()
        .map(|output| phrase::output(policy, output))
        .collect()
}

/// An action in words.
pub fn action(policy: &Policy, action: ActionIndex) -> String {
    phrase::action_name(policy, action)
}

/// What a rule with a question would do after each end.
fn outlook(
    policy: &Policy,
    state: &State,
    index: RuleIndex,
    local: Option<LocalTime>,
    lines: &mut Vec<String>,
) {
    let Some(rule) = policy.rule(index) else {
        return;
    };
    let Some(question) = &rule.ask else { return };
    let permissions = |at| {
        permission_of(policy, state, (index, rule), ActionIndex(at), local)
            .map(|(words, verdict)| format!("  {words}: {verdict}"))
    };
    for branch in [Branch::Then, Branch::Else, Branch::Unsure] {
        let actions = rule.branch(branch);
        if actions.is_empty() {
            continue;
        }
        lines.push(format!("if {}:", phrase::condition(rule, branch)));
        lines.extend(actions.flat_map(permissions));
    }
    if let Form::Pick { actions, .. } = &question.form {
        lines.push("if the model picks:".to_owned());
        lines.extend(actions.clone().flat_map(permissions));
    }
}

/// An action in words and what the gate would say to it now, with a fresh picture behind it.
fn permission_of(
    policy: &Policy,
    state: &State,
    (index, rule): (RuleIndex, &Rule),
    at: ActionIndex,
    local: Option<LocalTime>,
) -> Option<(String, String)> {
    let (_, action) = actions_of(rule, &policy.actions).find(|(own, _)| *own == at.0)?;
    let fixed = match action.command {
        crate::action::Command::Set {
            pin,
            value: crate::action::PinValue::Fixed(value),
            ..
        } => Some((pin, value)),
        _ => None,
    };
    let evidence = Some(crate::output::Evidence {
        frame: 0,
        time: state.time,
    });
    let subject = Subject {
        value: fixed.map(|(_, value)| value),
        evidence,
        ..Subject::of(action, index)
    };
    let verdict = match (verdict(policy, state, &subject, local), fixed) {
        (Verdict::Allow(_) | Verdict::Ask { .. }, Some((pin, value))) => {
            match allowed_by_envelope(policy, state, pin, value, evidence) {
                Err(refusal) => Verdict::Deny(refusal),
                Ok(()) => self::verdict(policy, state, &subject, local),
            }
        }
        (verdict, _) => verdict,
    };
    let words = phrase::action(policy, action, subject.value);
    Some((words, phrase::verdict(policy, verdict)))
}

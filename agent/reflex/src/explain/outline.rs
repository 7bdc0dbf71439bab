//! [`outline`]: every rule of a policy in words.

use super::{permission_of, phrase};
use crate::index::{ActionIndex, RuleIndex};
use crate::policy::Policy;
use crate::question::Form;
use crate::rule::{Branch, Rule};
use crate::state::State;
use crate::time::LocalTime;
use serde::Serialize;

/// A rule in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// Its name.
    pub rule: String,
    /// False: it never starts.
    pub enabled: bool,
    /// What starts it.
    pub when: Vec<String>,
    /// What it asks; `None`: nothing.
    pub asks: Option<String>,
    /// What it may do.
    pub may: Vec<Branched>,
}

/// An action of a branch, and who decides about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Branched {
    /// What leads to it.
    pub when: String,
    /// The action.
    pub action: String,
    /// What the permission lines and the pin's limits say to it now, with a fresh picture behind it.
    pub verdict: String,
}

/// Every rule in words, with what the lines say in a state that was stepped with the policy.
pub fn outline(policy: &Policy, state: &State, local: Option<LocalTime>) -> Vec<Outline> {
    (0..)
        .map(RuleIndex)
        .zip(&policy.rules)
        .map(|(index, rule)| Outline {
            rule: rule.id.to_string(),
            enabled: rule.enabled,
            when: rule
                .when
                .iter()
                .map(|trigger| phrase::source(policy, &trigger.source))
                .collect(),
            asks: rule
                .ask
                .as_ref()
                .map(|ask| format!("{:?} ({})", ask.prompt, ask.form.word())),
            may: branched(policy, rule)
                .filter_map(|(when, at)| {
                    let (action, verdict) = permission_of(policy, state, (index, rule), at, local)?;
                    Some(Branched {
                        when,
                        action,
                        verdict,
                    })
                })
                .collect(),
        })
        .collect()
}

fn branched<'p>(
    policy: &'p Policy,
    rule: &'p Rule,
) -> impl Iterator<Item = (String, ActionIndex)> + 'p {
    let branches = [Branch::Then, Branch::Else, Branch::Unsure]
        .into_iter()
        .flat_map(|branch| {
            let when = phrase::condition(rule, branch);
            rule.branch(branch).map(move |at| (when.clone(), at))
        });
    let picks = match rule.ask.as_ref().map(|ask| &ask.form) {
        Some(Form::Pick { actions, .. }) => actions.clone(),
        _ => 0..0,
    };
    let picked = picks.filter_map(|at| {
        let says = &policy.action(ActionIndex(at))?.says;
        Some((format!("the model picks {says:?}"), at))
    });
    branches
        .chain(picked)
        .map(|(when, at)| (when, ActionIndex(at)))
}

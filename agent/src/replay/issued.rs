//! [`Issued`]: which rule an id was given out for.

use ocelli_reflex::output::{Model, Moment};
use ocelli_reflex::{Observation, Output, Outputs, Policy, RuleIndex, explain};
use std::collections::VecDeque;

/// Ids remembered; the oldest is forgotten for a newer one.
const MAX_IDS: usize = 1024;

/// What an id was given out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Position of the rule in its policy.
    pub rule: RuleIndex,
    /// Name of the rule.
    pub name: String,
    /// What it was: the prompt of a question, an action, a hook and its action.
    pub what: String,
    /// For questions: the choices.
    pub choices: Vec<String>,
}

/// Which rule an id was given out for. Ids of all kinds come from one counter, so one table does.
#[derive(Clone, Debug, Default)]
pub struct Issued {
    ids: VecDeque<(u64, Purpose)>,
}

impl Issued {
    /// Remembers the ids of outputs.
    pub fn note(&mut self, policy: &Policy, outputs: &Outputs) {
        for output in &outputs.list {
            if let Some((id, purpose)) = purpose(policy, output) {
                if self.ids.len() >= MAX_IDS {
                    self.ids.pop_front();
                }
                self.ids.push_back((id, purpose));
            }
        }
    }

    /// What an id was given out for.
    pub fn purpose(&self, id: u64) -> Option<&Purpose> {
        // Ids may begin anew after a restart.
        let found = self.ids.iter().rev().find(|(known, _)| *known == id);
        found.map(|(_, purpose)| purpose)
    }
}

/// The id an observation answers.
pub fn id_of(observation: &Observation) -> Option<u64> {
    match observation {
        Observation::Answer(answer) => Some(answer.question.0),
        Observation::Approval(approval) => Some(approval.request.0),
        Observation::Hook { call, .. } => Some(call.0),
        Observation::Outcome { act, .. } => Some(act.0),
        _ => None,
    }
}

/// Id and purpose of an output that is to be answered, looks apart, which belong to several rules.
pub fn purpose(policy: &Policy, output: &Output) -> Option<(u64, Purpose)> {
    let (id, rule, what) = match output {
        Output::Ask(ask) => {
            let who = match ask.model {
                Model::Local => "",
                Model::Remote => "remote: ",
            };
            let prompt = &policy.question(ask.rule)?.prompt;
            (ask.id.0, ask.rule, format!("{who}{prompt}"))
        }
        Output::Act(act) => (act.id.0, act.rule, explain::action(policy, act.action)),
        Output::RequestApproval(request) => {
            let what = explain::action(policy, request.action);
            (request.id.0, request.rule, what)
        }
        Output::CallHook(call) if call.moment == Moment::Before => {
            let hook = &policy.hooks.get(call.hook.get())?.name;
            let what = format!("{hook}: {}", explain::action(policy, call.action));
            (call.id.0, call.rule, what)
        }
        _ => return None,
    };
    let choices = match output {
        Output::Ask(_) => policy
            .choices(rule)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let name = policy.rule(rule)?.id.to_string();
    Some((
        id,
        Purpose {
            rule,
            name,
            what,
            choices,
        },
    ))
}

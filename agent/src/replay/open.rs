//! [`Open`]: what the other rules wait for, by rule and order.

use super::issued::{Purpose, purpose};
use ocelli_reflex::observation::{Answer, Approval, Stage, Value};
use ocelli_reflex::output::{Cancelled, Moment};
use ocelli_reflex::{ActId, CallId, LookId, Note, Observation, Output, Outputs, Policy};
use ocelli_reflex::{QuestionId, RequestId};

/// Waits remembered; the oldest is forgotten for a newer one. The step waits for fewer.
const MAX_OPEN: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Question,
    Request(u64),
    Call,
    Act,
}

#[derive(Clone, Debug)]
struct Wait {
    id: u64,
    kind: Kind,
    purpose: Purpose,
}

/// What the other rules wait for.
#[derive(Clone, Debug, Default)]
pub struct Open {
    looks: Vec<LookId>,
    waits: Vec<Wait>,
}

impl Open {
    /// Waits for nothing.
    pub fn clear(&mut self) {
        self.looks.clear();
        self.waits.clear();
    }

    /// Remembers what the outputs of a step wait for.
    pub fn note(&mut self, policy: &Policy, outputs: &Outputs) {
        for output in &outputs.list {
            match output {
                Output::Look(look) => self.looks.push(look.id),
                Output::Cancel(Cancelled::Look(id)) => self.looks.retain(|open| open != id),
                Output::Cancel(
                    Cancelled::Question(QuestionId(id))
                    | Cancelled::Request(RequestId(id))
                    | Cancelled::Call(CallId(id)),
                ) => self.waits.retain(|open| open.id != *id),
                Output::Note(Note::Finished { act, .. }) => {
                    self.waits.retain(|open| open.id != act.0);
                }
                _ => {}
            }
            let kind = match output {
                Output::Ask(_) => Kind::Question,
                Output::RequestApproval(request) => Kind::Request(request.nonce),
                Output::CallHook(call) if call.moment == Moment::Before => Kind::Call,
                Output::Act(_) => Kind::Act,
                _ => continue,
            };
            if let Some((id, purpose)) = purpose(policy, output) {
                self.waits.push(Wait { id, kind, purpose });
            }
        }
        let too_many = self.waits.len().saturating_sub(MAX_OPEN);
        self.waits.drain(..too_many);
        let too_many = self.looks.len().saturating_sub(MAX_OPEN);
        self.looks.drain(..too_many);
    }

    /// The same observation with the ids of the other rules; `None` if they do not wait for it.
    /// `was` is what its id was given out for.
    pub fn fit(&mut self, observation: &Observation, was: Option<&Purpose>) -> Option<Observation> {
        match observation {
            Observation::Looked { frame, .. } => {
                let look = *self.looks.first()?;
                self.looks.remove(0);
                Some(Observation::Looked {
                    look,
                    frame: *frame,
                })
            }
            Observation::Answer(answer) => {
                let at = self.find(was?, |kind| kind == Kind::Question)?;
                let value = translated(&answer.value, was?, &self.waits[at].purpose)?;
                // The refined answer to the same question is still to come.
                let wait = match answer.stage {
                    Stage::Early => self.waits[at].clone(),
                    Stage::Refined => self.waits.remove(at),
                };
                Some(Observation::Answer(Answer {
                    question: QuestionId(wait.id),
                    value,
                    ..answer.clone()
                }))
            }
            Observation::Approval(approval) => {
                let wait = self.take(was?, |kind| matches!(kind, Kind::Request(_)))?;
                let Kind::Request(nonce) = wait.kind else {
                    return None;
                };
                Some(Observation::Approval(Approval {
                    request: RequestId(wait.id),
                    nonce,
                    ..*approval
                }))
            }
            Observation::Hook { verdict, .. } => {
                let wait = self.take(was?, |kind| kind == Kind::Call)?;
                Some(Observation::Hook {
                    call: CallId(wait.id),
                    verdict: *verdict,
                })
            }
            Observation::Outcome { outcome, .. } => {
                let wait = self.take(was?, |kind| kind == Kind::Act)?;
                Some(Observation::Outcome {
                    act: ActId(wait.id),
                    outcome: *outcome,
                })
            }
            other => Some(other.clone()),
        }
    }

    /// Position of the oldest wait of a kind for the same thing of the same rule.
    fn find(&self, was: &Purpose, is: impl Fn(Kind) -> bool) -> Option<usize> {
        self.waits.iter().position(|open| {
            is(open.kind) && open.purpose.name == was.name && open.purpose.what == was.what
        })
    }

    fn take(&mut self, was: &Purpose, is: impl Fn(Kind) -> bool) -> Option<Wait> {
        let at = self.find(was, is)?;
        Some(self.waits.remove(at))
    }
}

/// A choice has the number that its text has under the other rules.
fn translated(value: &Value, was: &Purpose, is: &Purpose) -> Option<Value> {
    let Value::Choice(at) = value else {
        return Some(value.clone());
    };
    let text = was.choices.get(usize::from(*at))?;
    let at = is.choices.iter().position(|choice| choice == text)?;
    u8::try_from(at).ok().map(Value::Choice)
}

//! [`Open`]: what the other rules wait for, by rule and order.

use super::issued::{Purpose, id_of, purpose};
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

/// A picture that is awaited.
#[derive(Clone, Copy, Debug)]
struct WantedLook {
    id: LookId,
    /// The step that asked for it.
    step: u64,
}

#[derive(Clone, Debug)]
struct Wait {
    id: u64,
    kind: Kind,
    purpose: Purpose,
}

/// What a run waits for.
#[derive(Clone, Debug, Default)]
pub struct Open {
    looks: Vec<WantedLook>,
    waits: Vec<Wait>,
}

impl Open {
    /// Waits for nothing.
    pub fn clear(&mut self) {
        self.looks.clear();
        self.waits.clear();
    }

    /// Remembers what the outputs of a step wait for.
    pub fn note(&mut self, policy: &Policy, outputs: &Outputs, step: u64) {
        for output in &outputs.list {
            match output {
                Output::Look(look) => self.looks.push(WantedLook { id: look.id, step }),
                Output::Cancel(Cancelled::Look(id)) => self.looks.retain(|open| open.id != *id),
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

    /// Whether the run still waits for what an observation brings, and what it was asked for.
    pub fn awaits(&self, observation: &Observation) -> Awaited<'_> {
        if let Observation::Looked { look, .. } = observation {
            let found = self.looks.iter().find(|open| open.id == *look);
            return found.map_or(Awaited::Late, |open| Awaited::Look(open.step));
        }
        let Some(id) = id_of(observation) else {
            return Awaited::Anything;
        };
        let found = self.waits.iter().find(|open| open.id == id);
        found.map_or(Awaited::Late, |open| Awaited::For(&open.purpose))
    }

    /// Forgets what an observation of the same run answers. An early answer leaves its question open.
    pub fn answered(&mut self, observation: &Observation) {
        match observation {
            Observation::Looked { look, .. } => self.looks.retain(|open| open.id != *look),
            Observation::Answer(Answer {
                stage: Stage::Early,
                ..
            }) => {}
            other => {
                if let Some(id) = id_of(other) {
                    self.waits.retain(|open| open.id != id);
                }
            }
        }
    }

    /// The same observation with the ids of this run; `None` if it does not wait for it. `was` is
    /// what the other run waited for.
    pub fn fit(&self, observation: &Observation, was: Awaited<'_>) -> Option<Observation> {
        let wait = |is: fn(Kind) -> bool| match was {
            Awaited::For(purpose) => Some((self.find(purpose, is)?, purpose)),
            _ => None,
        };
        Some(match observation {
            // What came too late there comes too late here.
            observation if matches!(was, Awaited::Late) => late(observation),
            Observation::Looked { frame, .. } => {
                let Awaited::Look(step) = was else {
                    return None;
                };
                let look = self.looks.iter().find(|open| open.step == step)?.id;
                Observation::Looked {
                    look,
                    frame: *frame,
                }
            }
            Observation::Answer(answer) => {
                let (wait, was) = wait(|kind| kind == Kind::Question)?;
                Observation::Answer(Answer {
                    question: QuestionId(wait.id),
                    value: translated(&answer.value, was, &wait.purpose)?,
                    ..answer.clone()
                })
            }
            Observation::Approval(approval) => {
                let (wait, _) = wait(|kind| matches!(kind, Kind::Request(..)))?;
                let Kind::Request(nonce) = wait.kind else {
                    return None;
                };
                Observation::Approval(Approval {
                    request: RequestId(wait.id),
                    nonce,
                    ..*approval
                })
            }
            Observation::Hook { verdict, .. } => Observation::Hook {
                call: CallId(wait(|kind| kind == Kind::Call)?.0.id),
                verdict: *verdict,
            },
            Observation::Outcome { outcome, .. } => Observation::Outcome {
                act: ActId(wait(|kind| kind == Kind::Act)?.0.id),
                outcome: *outcome,
            },
            other => other.clone(),
        })
    }

    /// The number that must come back with a decision.
    pub fn nonce(&self, request: RequestId) -> Option<u64> {
        self.waits.iter().find_map(|open| match open.kind {
            Kind::Request(nonce) if open.id == request.0 => Some(nonce),
            _ => None,
        })
    }

    /// The oldest wait of a kind for the same thing of the same rule.
    fn find(&self, was: &Purpose, is: fn(Kind) -> bool) -> Option<&Wait> {
        self.waits.iter().find(|open| {
            is(open.kind) && open.purpose.name == was.name && open.purpose.what == was.what
        })
    }
}

/// What a run waited for when an observation came.
#[derive(Clone, Copy, Debug)]
pub enum Awaited<'a> {
    /// It names no id.
    Anything,
    /// Nothing any more.
    Late,
    /// A picture, asked for in this step.
    Look(u64),
    /// An answer, decision, verdict or outcome.
    For(&'a Purpose),
}

/// An id that no run gives out.
const NO_ID: u64 = u64::MAX;

/// The observation with an id that nobody waits for.
fn late(observation: &Observation) -> Observation {
    let mut late = observation.clone();
    match &mut late {
        Observation::Looked { look, .. } => look.0 = NO_ID,
        Observation::Answer(answer) => answer.question.0 = NO_ID,
        Observation::Approval(approval) => approval.request.0 = NO_ID,
        Observation::Hook { call, .. } => call.0 = NO_ID,
        Observation::Outcome { act, .. } => act.0 = NO_ID,
        _ => {}
    }
    late
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

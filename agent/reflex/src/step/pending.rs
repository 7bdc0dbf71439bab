//! Decisions about waiting actions, and outcomes of those handed out.

use super::Turn;
use crate::action::Command;
use crate::index::{ActId, CallId, HookIndex};
use crate::note::{Forgery, Ignored, Note, Refusal};
use crate::observation::{Approval, HookVerdict, Outcome};
use crate::output::{Cancelled, HookCall, Moment, Output};
use crate::state::{Awaits, OpenAct};

impl Turn<'_> {
    /// A person decided.
    pub(super) fn approved(&mut self, approval: &Approval) {
        let found = self.state.pending.iter().position(
            |pending| matches!(pending.awaits, Awaits::Person(id, ..) if id == approval.request),
        );
        let check =
            found
                .ok_or(Forgery::Unknown)
                .and_then(|at| match self.state.pending[at].awaits {
                    _ if approval.retained => Err(Forgery::Retained),
                    Awaits::Person(_, nonce, ..) if nonce != approval.nonce => Err(Forgery::Nonce),
                    Awaits::Person(_, _, _, via) if via & approval.link.bit() == 0 => {
                        Err(Forgery::WrongLink)
                    }
                    _ => Ok(at),
                });
        match check {
            Err(why) => self.note(Note::ApprovalRefused {
                request: approval.request,
                why,
            }),
            Ok(at) => {
                let request = self.state.pending.remove(at).request;
                if approval.granted {
                    self.pass_by(request, Some(approval.request));
                } else {
                    self.refuse(&request, Refusal::PersonSaidNo);
                }
            }
        }
    }

    /// A hook called before an action came back.
    pub(super) fn hook_said(&mut self, call: CallId, verdict: HookVerdict) {
        let found = self
            .state
            .pending
            .iter()
            .enumerate()
            .find_map(|(at, pending)| match pending.awaits {
                Awaits::Hook(id, hook) if id == call => Some((at, hook)),
                _ => None,
            });
        let Some((at, hook)) = found else {
            return self.note(Note::Ignored(Ignored::Late));
        };
        let request = self.state.pending.remove(at).request;
        self.note(Note::HookSaid { hook, verdict });
        match verdict {
            HookVerdict::Pass => self.ask_hooks(request, hook.0 + 1),
            HookVerdict::Veto => self.refuse(&request, Refusal::Vetoed(hook)),
            HookVerdict::Failed => self.refuse(&request, Refusal::HookFailed(hook)),
        }
    }

    /// An action came back.
    pub(super) fn finished(&mut self, act: ActId, outcome: Outcome) {
        let found = self.state.acts.iter().position(|open| open.id == act);
        let Some(at) = found else {
            return self.note(Note::Ignored(Ignored::Late));
        };
        let open = self.state.acts.remove(at);
        self.note(Note::Finished { act, outcome });
        let policy = self.policy;
        let Some(action) = policy.action(open.action) else {
            return;
        };
        if let Command::Set { pin, .. } = &action.command
            && outcome != Outcome::Done
        {
            self.mistrust(*pin);
        }
        let kind = action.command.kind();
        for (index, hook) in (0..).zip(&policy.hooks) {
            if hook.runs_after(kind) {
                self.tell_hook(HookIndex(index), &open, outcome);
            }
        }
    }

    fn tell_hook(&mut self, hook: HookIndex, open: &OpenAct, outcome: Outcome) {
        let Some(definition) = self.policy.hooks.get(hook.get()) else {
            return;
        };
        let id = CallId(self.state.id());
        self.emit(Output::CallHook(HookCall {
            id,
            hook,
            rule: open.rule,
            action: open.action,
            value: open.value,
            moment: Moment::After(open.id, outcome),
            within: definition.timeout,
        }));
    }

    /// Refuses everything that waits.
    pub(super) fn withdraw_pending(&mut self) {
        while let Some(pending) = self.state.pending.pop() {
            self.cancel_wait(pending.awaits);
            self.refuse(&pending.request, Refusal::Withdrawn);
        }
    }

    pub(super) fn cancel_wait(&mut self, awaits: Awaits) {
        self.emit(Output::Cancel(match awaits {
            Awaits::Hook(call, _) => Cancelled::Call(call),
            Awaits::Person(request, ..) => Cancelled::Request(request),
        }));
    }
}

//! Decisions: the end of a run, what it does, and giving runs up.

use super::Turn;
use crate::index::{ActionIndex, RuleIndex};
use crate::note::{Doubt, GivenUp, Note};
use crate::observation::{Fault, Value};
use crate::output::{Cancelled, Evidence, Finding, Output};
use crate::permission::Level;
use crate::rule::Branch;
use crate::state::{Ended, Phase, Request, Run};

/// The end of a run.
struct Decision {
    branch: Branch,
    doubt: Option<Doubt>,
    finding: Finding,
    evidence: Option<Evidence>,
    told_early: bool,
}

impl Turn<'_> {
    pub(super) fn branch_actions(
        &self,
        rule: RuleIndex,
        branch: Branch,
    ) -> impl Iterator<Item = ActionIndex> + use<> {
        let range = self
            .policy
            .rule(rule)
            .map_or(0..0, |rule| rule.branch(branch));
        range.map(ActionIndex)
    }

    pub(super) fn level(&self, action: ActionIndex) -> Level {
        self.policy
            .action(action)
            .map_or(Level::ActuateIrreversible, |action| action.level)
    }

    pub(super) fn request_of(&mut self, run: &Run, action: ActionIndex, finding: Finding) {
        self.request(Request {
            event: run.event,
            rule: run.rule,
            action,
            value: None,
            evidence: run.evidence,
            finding,
        });
    }

    /// Ends a run with a branch.
    pub(super) fn decide(&mut self, run: Run, branch: Branch, doubt: Option<Doubt>) {
        let policy = self.policy;
        let Some(rule) = policy.rule(run.rule) else {
            return;
        };
        let limit = rule.evidence.filter(|_| rule.ask.is_some());
        let fresh = super::envelope::check_evidence(limit, run.evidence, self.now()).is_ok();
        let (branch, doubt) = if fresh || branch == Branch::Unsure {
            (branch, doubt)
        } else {
            (Branch::Unsure, Some(Doubt::Stale))
        };
        self.note(Note::Decided {
            rule: run.rule,
            event: run.event,
            branch,
            doubt,
        });
        let decision = Decision {
            branch,
            doubt,
            finding: run.finding.clone(),
            evidence: run.evidence,
            told_early: run.told_early,
        };
        self.carry(&run, decision);
    }

    fn carry(&mut self, run: &Run, decision: Decision) {
        let is_other = decision.branch == Branch::Else
            || (decision.told_early && decision.branch != Branch::Then);
        if is_other {
            self.end_events_of(run.rule);
        }
        for index in self.branch_actions(run.rule, decision.branch) {
            let was_told = decision.told_early
                && decision.branch == Branch::Then
                && self.level(index) <= Level::Notify
                && !self.is_event(index);
            if !was_told {
                self.request_of(run, index, decision.finding.clone());
            }
        }
        let value = match decision.doubt {
            None => decision.finding.value,
            Some(_) => Value::Nothing,
        };
        self.ended(Ended {
            rule: run.rule,
            branch: decision.branch,
            value,
            probability: decision.finding.probability,
            evidence: decision.evidence,
        });
    }

    fn is_event(&self, action: ActionIndex) -> bool {
        self.policy
            .action(action)
            .is_some_and(|action| action.command.kind() == crate::action::ActionKind::Event)
    }

    pub(super) fn expire_runs(&mut self) {
        let now = self.now();
        let late = |run: &Run| run.deadline <= now;
        while let Some(at) = self.state.runs.iter().position(late) {
            let run = self.take_run(at);
            self.decide(run, Branch::Unsure, Some(Doubt::Deadline));
        }
        let rested = |run: &Run| matches!(run.phase, Phase::Pausing(until) if until <= now);
        while let Some(at) = self.state.runs.iter().position(rested) {
            let run = self.state.runs.remove(at);
            self.look(run);
        }
    }

    /// Takes a run out and says that what it waits for is no longer wanted.
    fn take_run(&mut self, at: usize) -> Run {
        let run = self.state.runs.remove(at);
        let shared = |id| {
            self.state
                .runs
                .iter()
                .any(|run| run.phase == Phase::Looking(id))
        };
        match run.phase {
            Phase::Looking(look) if !shared(look) => {
                self.emit(Output::Cancel(Cancelled::Look(look)));
            }
            Phase::Asking(question, _) => {
                self.emit(Output::Cancel(Cancelled::Question(question)));
            }
            _ => {}
        }
        run
    }

    pub(super) fn give_up(&mut self, at: usize, why: GivenUp) {
        let run = self.take_run(at);
        self.note(Note::GivenUp {
            rule: run.rule,
            event: run.event,
            why,
        });
    }

    pub(super) fn give_up_runs(&mut self, why: GivenUp) {
        while !self.state.runs.is_empty() {
            self.give_up(0, why);
        }
    }

    /// A fault began: runs that cannot or should not go on end.
    pub(super) fn shed_runs(&mut self, fault: Fault) {
        let policy = self.policy;
        if matches!(fault, Fault::CameraGone | Fault::ModelRefused) {
            while !self.state.runs.is_empty() {
                let run = self.take_run(0);
                self.decide(run, Branch::Unsure, Some(Doubt::Fault(fault)));
            }
        }
        let faults = fault.bit();
        let is_shed = |run: &Run| {
            let priority = policy.rule(run.rule).map_or(0, |rule| rule.priority);
            policy.shedding(faults, priority).is_some()
        };
        while let Some(at) = self.state.runs.iter().position(is_shed) {
            self.give_up(at, GivenUp::Shed(fault));
        }
    }
}

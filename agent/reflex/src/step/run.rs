//! Runs: from trigger over looks and answers to a decision.

use super::Turn;
use crate::index::{ActionIndex, EventId, LookId, QuestionId, RuleIndex};
use crate::limit::MAX_RUNS;
use crate::note::{Doubt, Dropped, GivenUp, Idle, Ignored, Note};
use crate::observation::{Answer, Fault, Frame, Quality, Stage, Value};
use crate::output::{Ask, Evidence, Finding, Look, Model, Output};
use crate::permission::Level;
use crate::probability::Probability;
use crate::question::{Form, Picture, Question};
use crate::rule::{Branch, Rule};
use crate::state::{Phase, Run};

/// What a rule is started with.
#[derive(Clone, Debug, Default)]
pub(super) struct Cue {
    /// A picture that belongs to the trigger.
    pub(super) evidence: Option<Evidence>,
    /// Its quality; `None`: good, it was asked about before.
    pub(super) quality: Option<Quality>,
    /// The stretch of change.
    pub(super) episode: Option<u64>,
    /// Answer of the rule before.
    pub(super) value: Value,
    /// Its probability.
    pub(super) probability: Probability,
}

impl Turn<'_> {
    /// A picture as evidence; `None` if its time cannot be.
    pub(super) fn evidence_of(&self, frame: Frame) -> Option<Evidence> {
        Some(Evidence {
            frame: frame.id,
            time: self.state_time(frame.time)?,
        })
    }

    /// A trigger holds: the rule starts unless something is against it.
    pub(super) fn fire(&mut self, index: RuleIndex, trigger: u8, cue: &Cue) {
        let policy = self.policy;
        let Some(rule) = policy.rule(index) else {
            return;
        };
        if let Err(why) = self.may_start(index, rule) {
            return self.note(Note::NotStarted { rule: index, why });
        }
        if rule.ask.is_some() && !self.make_place(rule.priority) {
            self.state.drops_mut().runs += 1;
            let why = Idle::Full;
            return self.note(Note::NotStarted { rule: index, why });
        }
        let now = self.now();
        let event = EventId(self.state.id());
        if let Some(state) = self.state.rules.get_mut(index.get()) {
            state.last_start = Some(now);
            state.last_episode = cue.episode.or(state.last_episode);
        }
        self.note(Note::Started {
            rule: index,
            event,
            trigger,
        });
        let run = Run {
            event,
            rule: index,
            phase: Phase::Pausing(now),
            deadline: now,
            evidence: cue.evidence,
            looks: 0,
            votes_then: 0,
            votes_else: 0,
            finding: Finding {
                value: cue.value.clone(),
                probability: cue.probability,
            },
            told_early: false,
            steps: 0,
        };
        match &rule.ask {
            None => self.decide(run, Branch::Then, None),
            Some(question) => self.begin(run, question, cue.quality),
        }
    }

    fn may_start(&self, index: RuleIndex, rule: &Rule) -> Result<(), Idle> {
        if !self.state.running {
            return Err(Idle::NotRunning);
        }
        if !self.state.enables(rule) {
            return Err(Idle::Disabled);
        }
        let in_window = |local| rule.during.is_none_or(|window| window.contains(local));
        if rule.during.is_some() && !self.local.is_some_and(in_window) {
            return Err(Idle::Window);
        }
        if self.state.runs.iter().any(|run| run.rule == index) {
            return Err(Idle::Busy);
        }
        if let Some(fault) = self.policy.shedding(self.state.faults, rule.priority) {
            return Err(Idle::Shed(fault));
        }
        let last = self
            .state
            .rules
            .get(index.get())
            .and_then(|state| state.last_start);
        let passed = last.map(|last| self.now().saturating_sub(last));
        match passed {
            Some(passed) if passed < rule.cooldown => Err(Idle::Cooldown {
                left: rule.cooldown - passed,
            }),
            _ => Ok(()),
        }
    }

    /// Makes a place among the runs, if need be by giving up a less important one.
    fn make_place(&mut self, priority: u8) -> bool {
        if self.state.runs.len() < MAX_RUNS {
            return true;
        }
        let policy = self.policy;
        let priority_of = |run: &Run| policy.rule(run.rule).map_or(0, |rule| rule.priority);
        let weakest = self
            .state
            .runs
            .iter()
            .enumerate()
            .min_by_key(|(_, run)| priority_of(run))
            .map(|(at, run)| (at, priority_of(run)));
        match weakest {
            Some((at, weakest)) if weakest < priority => {
                self.give_up(at, GivenUp::Displaced);
                self.state.drops_mut().runs += 1;
                self.note(Note::Dropped(Dropped::Run));
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, mut run: Run, question: &Question, quality: Option<Quality>) {
        run.deadline = self.now().saturating_add(question.deadline);
        let blind = [Fault::CameraGone, Fault::ModelRefused]
            .into_iter()
            .find(|fault| self.state.faults & fault.bit() != 0);
        if let Some(fault) = blind {
            return self.decide(run, Branch::Unsure, Some(Doubt::Fault(fault)));
        }
        let is_good = quality.is_none_or(|quality| quality == Quality::Good);
        let seen = run
            .evidence
            .filter(|_| is_good && question.picture == Picture::Trigger);
        match seen {
            Some(evidence) => self.ask(run, evidence, Model::Local),
            None => self.look(run),
        }
    }

    fn keep(&mut self, run: Run) {
        // `make_place` has seen to it, and a run that goes on was taken out before.
        let _ = self.state.runs.push(run);
    }

    pub(super) fn look(&mut self, mut run: Run) {
        let id = match self.look {
            Some(id) => id,
            None => {
                let id = LookId(self.state.id());
                let within = run.deadline.saturating_sub(self.now());
                self.emit(Output::Look(Look { id, within }));
                *self.look.insert(id)
            }
        };
        run.phase = Phase::Looking(id);
        self.keep(run);
    }

    fn ask(&mut self, mut run: Run, evidence: Evidence, model: Model) {
        let policy = self.policy;
        let Some(question) = policy.question(run.rule) else {
            return;
        };
        let id = QuestionId(self.state.id());
        self.emit(Output::Ask(Ask {
            id,
            event: run.event,
            rule: run.rule,
            frame: evidence.frame,
            model,
            early: question.early && run.looks == 0 && model == Model::Local,
            max_tokens: question.max_tokens,
            within: run.deadline.saturating_sub(self.now()),
        }));
        run.evidence = Some(evidence);
        run.phase = Phase::Asking(id, model);
        self.keep(run);
    }

    /// A picture was taken, or not: for every run that waits for it.
    pub(super) fn looked(&mut self, look: LookId, frame: Option<Frame>) {
        let waits = |run: &Run| run.phase == Phase::Looking(look);
        if !self.state.runs.iter().any(waits) {
            return self.note(Note::Ignored(Ignored::Late));
        }
        let evidence = frame.and_then(|frame| self.evidence_of(frame));
        if frame.is_some() && evidence.is_none() {
            self.note(Note::Ignored(Ignored::Future));
        }
        let quality = frame.map(|frame| frame.quality);
        // The next look of these runs must be another picture.
        while let Some(at) = self.state.runs.iter().position(waits) {
            let run = self.state.runs.remove(at);
            match evidence.filter(|_| quality == Some(Quality::Good)) {
                Some(evidence) => self.ask(run, evidence, Model::Local),
                None => {
                    let event = run.event;
                    self.note(Note::PoorPicture { event, quality });
                    self.spend_look(run, Doubt::Picture);
                }
            }
        }
    }

    /// A model answered.
    pub(super) fn answered(&mut self, answer: &Answer) {
        let found = self
            .state
            .runs
            .iter()
            .enumerate()
            .find_map(|(at, run)| match run.phase {
                Phase::Asking(question, model) if question == answer.question => Some((at, model)),
                _ => None,
            });
        let Some((at, model)) = found else {
            return self.note(Note::Ignored(Ignored::Late));
        };
        let policy = self.policy;
        let rule = self.state.runs[at].rule;
        let Some(question) = policy.question(rule) else {
            return;
        };
        if answer.stage == Stage::Early {
            return self.answered_early(at, question, answer);
        }
        let mut run = self.state.runs.remove(at);
        let time = self.state_time(answer.frame_time);
        run.evidence = match (run.evidence, time) {
            (Some(evidence), Some(time)) => Some(Evidence {
                time: evidence.time.min(time),
                ..evidence
            }),
            _ => {
                self.note(Note::Ignored(Ignored::Future));
                return self.spend_look(run, Doubt::Stale);
            }
        };
        let (branch, doubt) = judge(question, answer);
        let may_ask_again = matches!(doubt, Some(Doubt::Abstained | Doubt::Threshold));
        if may_ask_again && question.second_opinion && model == Model::Local && self.use_remote() {
            let Some(evidence) = run.evidence else { return };
            return self.ask(run, evidence, Model::Remote);
        }
        if let Form::Pick { actions, steps } = &question.form {
            return self.picked(run, answer, branch, (actions.clone(), *steps));
        }
        self.vote(run, question, answer, (branch, doubt));
    }

    /// Whether the remote model may be asked once more; if so it is counted.
    fn use_remote(&mut self) -> bool {
        let now = self.now();
        let Some(rate) = self.policy.remote else {
            return false;
        };
        let allowed = self.state.remote.allow(rate, now);
        if allowed {
            self.state.remote.record(now);
        }
        allowed
    }

    /// A first answer may tell, never move anything; the refined one decides.
    fn answered_early(&mut self, at: usize, question: &Question, answer: &Answer) {
        let run = &mut self.state.runs[at];
        if !question.early || run.looks > 0 || run.told_early {
            return self.note(Note::Ignored(Ignored::Early));
        }
        let (branch, _) = judge(question, answer);
        if branch != Branch::Then {
            return;
        }
        run.told_early = true;
        let run = run.clone();
        let finding = finding(answer);
        for index in self.branch_actions(run.rule, branch) {
            if self.level(index) <= Level::Notify {
                self.request_of(&run, index, finding.clone());
            }
        }
    }

    fn vote(
        &mut self,
        mut run: Run,
        question: &Question,
        answer: &Answer,
        (branch, doubt): (Branch, Option<Doubt>),
    ) {
        match branch {
            Branch::Then => run.votes_then += 1,
            Branch::Else => run.votes_else += 1,
            Branch::Unsure => {}
        }
        self.note(Note::Vote {
            event: run.event,
            branch,
            probability: answer.probability,
            looks: run.looks + 1,
        });
        run.finding = finding(answer);
        if run.votes_then >= question.votes.need {
            self.decide(run, Branch::Then, None);
        } else if run.votes_else >= question.votes.need {
            self.decide(run, Branch::Else, None);
        } else {
            self.spend_look(run, doubt.unwrap_or(Doubt::Votes));
        }
    }

    /// A look brought no decision: the next one, unless it can bring none either.
    fn spend_look(&mut self, mut run: Run, doubt: Doubt) {
        let policy = self.policy;
        let Some(question) = policy.question(run.rule) else {
            return;
        };
        run.looks += 1;
        let votes = question.votes;
        let left = votes.of.saturating_sub(run.looks);
        let best = run.votes_then.max(run.votes_else);
        if left == 0 || best.saturating_add(left) < votes.need {
            return self.decide(run, Branch::Unsure, Some(doubt));
        }
        if votes.gap == 0 {
            return self.look(run);
        }
        run.phase = Phase::Pausing(self.now().saturating_add(votes.gap));
        self.keep(run);
    }

    /// The model picked an action of a closed list.
    fn picked(
        &mut self,
        mut run: Run,
        answer: &Answer,
        branch: Branch,
        (actions, steps): (std::ops::Range<u16>, u8),
    ) {
        let index = match answer.value {
            Value::Choice(choice) if branch == Branch::Then => {
                actions.clone().nth(usize::from(choice))
            }
            _ => None,
        };
        let over = |turn: &mut Self, run: Run| {
            turn.note(Note::GivenUp {
                rule: run.rule,
                event: run.event,
                why: GivenUp::PickOver,
            });
            if branch == Branch::Unsure && run.steps == 0 {
                turn.decide(run, Branch::Unsure, Some(Doubt::Threshold));
            }
        };
        let Some(index) = index else {
            return over(self, run);
        };
        self.request_of(&run, ActionIndex(index), finding(answer));
        run.steps += 1;
        if run.steps >= steps {
            return over(self, run);
        }
        self.look(run);
    }
}

fn finding(answer: &Answer) -> Finding {
    Finding {
        value: answer.value.clone(),
        probability: answer.probability,
    }
}

/// Where an answer points.
fn judge(question: &Question, answer: &Answer) -> (Branch, Option<Doubt>) {
    if answer.unsure {
        return (Branch::Unsure, Some(Doubt::Abstained));
    }
    if answer.probability < question.threshold {
        return (Branch::Unsure, Some(Doubt::Threshold));
    }
    let expected = match (&question.form, &answer.value) {
        (Form::Choices { choices, expect }, Value::Choice(choice))
            if usize::from(*choice) < choices.len() =>
        {
            Some(expect & (1 << choice) != 0)
        }
        (Form::Count { range, expect }, Value::Count(count))
            if (range.0..=range.1).contains(count) =>
        {
            Some((expect.0..=expect.1).contains(count))
        }
        (Form::Caption, Value::Text(text)) if !text.as_str().is_empty() => Some(true),
        (Form::Schema { .. }, Value::Fields { missing: 0, .. }) => Some(true),
        (Form::Pick { actions, .. }, Value::Choice(choice))
            if usize::from(*choice) <= actions.len() =>
        {
            Some(usize::from(*choice) < actions.len())
        }
        _ => None,
    };
    match expected {
        Some(true) => (Branch::Then, None),
        Some(false) => (Branch::Else, None),
        None => (Branch::Unsure, Some(Doubt::Incomplete)),
    }
}

//! Checks over a whole policy: circles, what can never happen, what is denied or out of range.

mod reach;

use crate::action::Command;
use crate::diagnostic::{Problem, Report, Span};
use crate::index::RuleIndex;
use crate::policy::Policy;
use crate::question::Form;
use crate::rule::{Branch, Rule, Source, actions_of};
use crate::schedule::Schedule;
use crate::time::LocalTime;

/// Reports everything that is wrong with a policy whose parts are sound.
pub(crate) fn check(policy: &Policy, report: &Report<'_>) {
    if cycles(policy, report) {
        // What follows walks from rule to rule.
        return;
    }
    for (rule, index) in policy.rules.iter().zip(0..) {
        let index = RuleIndex(index);
        branches(rule, report);
        triggers(policy, rule, report);
        remote(policy, rule, report);
        idle(policy, index, rule, report);
        reach::check(policy, index, rule, report);
    }
}

/// Whether rules start each other in a circle.
fn cycles(policy: &Policy, report: &Report<'_>) -> bool {
    // A rule that can be taken away because it waits for none that is left is on no circle.
    let mut left: Vec<usize> = (0..policy.rules.len()).collect();
    loop {
        let before = left.len();
        let kept: Vec<usize> = left
            .iter()
            .copied()
            .filter(|at| sources(&policy.rules[*at]).any(|source| left.contains(&source)))
            .collect();
        left = kept;
        if left.len() == before {
            break;
        }
    }
    let Some(first) = left.first().copied() else {
        return false;
    };
    // Every rule left waits for one that is left, so walking back must come round.
    let mut path = vec![first];
    let circle = loop {
        let last = path[path.len() - 1];
        let Some(next) = sources(&policy.rules[last]).find(|source| left.contains(source)) else {
            return false;
        };
        if let Some(begin) = path.iter().position(|at| *at == next) {
            path.push(next);
            break path.split_off(begin);
        }
        path.push(next);
    };
    let names: Vec<&str> = circle
        .iter()
        .rev()
        .map(|at| policy.rules[*at].id.as_str())
        .collect();
    let problem = Problem::Cycle {
        path: names.join(" → "),
    };
    let at = policy.rules[circle[0]].at;
    report.error(
        at,
        problem,
        "let one of these rules start by something else",
    );
    true
}

/// Rules a rule waits for.
fn sources(rule: &Rule) -> impl Iterator<Item = usize> + '_ {
    rule.when.iter().filter_map(|trigger| match trigger.source {
        Source::Rule { rule, .. } => Some(rule.get()),
        _ => None,
    })
}

/// Whether a rule can end with a branch.
fn can_end(rule: &Rule, branch: Branch) -> bool {
    let Some(question) = &rule.ask else {
        return branch == Branch::Then;
    };
    match (&question.form, branch) {
        (_, Branch::Unsure) => true,
        (Form::Choices { expect, .. }, Branch::Then) => *expect != 0,
        (Form::Choices { choices, expect }, Branch::Else) => {
            (expect.count_ones() as usize) < choices.len()
        }
        (Form::Count { .. }, Branch::Then) => true,
        (Form::Count { range, expect }, Branch::Else) => expect.0 > range.0 || expect.1 < range.1,
        (Form::Caption | Form::Schema { .. }, branch) => branch == Branch::Then,
        (Form::Pick { .. }, _) => false,
    }
}

fn unreachable(report: &Report<'_>, at: Span, what: String, why: String, help: &str) {
    report.error(at, Problem::Unreachable { what, why }, help);
}

fn branches(rule: &Rule, report: &Report<'_>) {
    let is_pick = matches!(
        rule.ask.as_ref().map(|ask| &ask.form),
        Some(Form::Pick { .. })
    );
    for branch in [Branch::Then, Branch::Else] {
        let must_exist = !rule.branch(branch).is_empty()
            || (branch == Branch::Then && rule.ask.is_some() && !is_pick);
        if must_exist && !can_end(rule, branch) {
            unreachable(
                report,
                rule.at,
                format!("`{}` of rule `{}`", branch.word(), rule.id),
                "no answer to its question leads there".to_owned(),
                "change `expect` or remove the branch",
            );
        }
    }
    if let Some(Form::Pick { actions, .. }) = rule.ask.as_ref().map(|ask| &ask.form)
        && actions.is_empty()
    {
        let why = "its list of actions is empty".to_owned();
        let what = format!("a choice of rule `{}`", rule.id);
        unreachable(report, rule.at, what, why, "add an action");
    }
}

fn triggers(policy: &Policy, rule: &Rule, report: &Report<'_>) {
    for trigger in &rule.when {
        match &trigger.source {
            Source::Rule {
                rule: other,
                branch,
                ..
            } => {
                let Some(other) = policy.rule(*other) else {
                    continue;
                };
                if !can_end(other, *branch) {
                    let what = format!("the end `{}` of rule `{}`", branch.word(), other.id);
                    let why = "no answer to its question leads there".to_owned();
                    let help = "wait for an end the other rule can have";
                    unreachable(report, trigger.at, what, why, help);
                } else if !other.enabled && rule.enabled {
                    let until = match other.switchable {
                        true => " until somebody switches it on",
                        false => "",
                    };
                    let what = format!(
                        "rule `{}` is not enabled, so this does not start{until}",
                        other.id
                    );
                    let problem = Problem::Suspicious { what };
                    report.warning(trigger.at, problem, "enable it or disable this rule too");
                }
            }
            Source::Schedule(Schedule::Daily { second, days }) => {
                let fires = |window: crate::schedule::Window| {
                    (0..7).filter(|day| days.contains(*day)).any(|day| {
                        // 1970-01-05 was a Monday.
                        let day = i32::from(day) + 4;
                        let second = *second;
                        window.contains(LocalTime { day, second })
                    })
                };
                if rule.during.is_some_and(|window| !fires(window)) {
                    let what = "this time of day".to_owned();
                    let why = "it lies outside `during`".to_owned();
                    unreachable(report, trigger.at, what, why, "move one of the two");
                }
            }
            _ => {}
        }
    }
}

fn remote(policy: &Policy, rule: &Rule, report: &Report<'_>) {
    if let Some(question) = &rule.ask
        && question.second_opinion
        && policy.remote.is_none()
    {
        let problem = Problem::Contradiction {
            section: format!("rule `{}`", rule.id),
            what: "`second_opinion` sends pictures away, which [remote] does not permit".to_owned(),
        };
        let help = "set images = true and a rate in [remote], or remove `second_opinion`";
        report.error(question.at, problem, help);
    }
}

fn idle(policy: &Policy, index: RuleIndex, rule: &Rule, report: &Report<'_>) {
    let is_awaited = policy
        .rules
        .iter()
        .any(|other| sources(other).any(|source| source == index.get()));
    if !is_awaited && actions_of(rule, &policy.actions).next().is_none() {
        let what = format!("rule `{}` does nothing and no rule waits for it", rule.id);
        report.warning(
            rule.at,
            Problem::Suspicious { what },
            "add `then` or remove the rule",
        );
    }
    if rule.ask.as_ref().is_some_and(|ask| ask.early) {
        let tells = rule.then.clone().any(|at| {
            let action = policy.actions.get(usize::from(at));
            action.is_some_and(|action| !matches!(action.command, Command::Set { .. }))
        });
        if !tells {
            let what = format!(
                "rule `{}` asks for an early answer but tells nobody",
                rule.id
            );
            let problem = Problem::Suspicious { what };
            report.warning(rule.at, problem, "add an event or remove `early`");
        }
    }
}

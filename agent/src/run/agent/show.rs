//! What the page shows.

use super::{Agent, Counts};
use crate::entry::Answered;
use crate::page::{
    AnswerShown, Fact, Family, FamilyKind, PageState, PendingAction, Picture, Sample,
};
use ocelli_reflex::observation::Link;
use std::time::Duration;

/// Most answers and pictures that are shown.
const MAX_SHOWN: usize = 10;

impl Agent {
    /// Shows a picture that was just kept.
    pub(super) fn show_picture(&mut self, name: &str) {
        if self.pictures.len() >= MAX_SHOWN {
            self.pictures.pop_front();
        }
        self.pictures.push_back(Picture {
            name: name.to_owned(),
            path: self.parts.recorder.picture_path(name),
        });
        self.tell_page();
    }

    /// Shows an answer.
    pub(super) fn show_answer(&mut self, answered: &Answered) {
        if self.answers.len() >= MAX_SHOWN {
            self.answers.pop_front();
        }
        let answer = match answered.unsure {
            true => format!("unsure ({})", answered.text),
            false => answered.text.clone(),
        };
        self.answers.push_back(AnswerShown {
            time: self.time_of_day(Duration::ZERO),
            rule: answered.rule.clone(),
            question: answered.prompt.clone(),
            answer,
            probability: Some(answered.probability),
            picture: answered.picture.clone(),
        });
        self.tell_page();
    }

    /// The wall clock in so much time, or the time since the start where it is not known.
    fn time_of_day(&self, later: Duration) -> String {
        let now = self.parts.clock.now();
        let seconds = match now.local {
            Some(local) => u64::from(local.second_of_day()) + later.as_secs(),
            None => (self.parts.clock.monotonic() + later)
                .saturating_sub(self.started)
                .as_secs(),
        };
        let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
        let sign = if now.local.is_some() { "" } else { "+" };
        format!("{sign}{hour:02}:{minute:02}:{:02}", seconds % 60)
    }

    /// Everything the page shows.
    pub(super) fn tell_page(&mut self) {
        if let Some(page) = &self.parts.page {
            page.show(self.page_state());
        }
    }

    fn page_state(&self) -> PageState {
        let condition = self.condition();
        let fact = |name: &str, value: String| Fact {
            name: name.to_owned(),
            value,
        };
        let identity = self.parts.thinker.as_ref().map(|(_, identity)| identity);
        let model = identity.map_or_else(
            || "none".to_owned(),
            |model| format!("{} ({})", model.name, model.kernel),
        );
        let heat = condition
            .temperature_c
            .map_or_else(|| "unknown".to_owned(), |c| format!("{c:.0} °C"));
        let status = match (condition.faults.is_empty(), condition.is_dry_run) {
            (false, _) => "degraded",
            (true, true) => "dry run",
            (true, false) => "running",
        };
        PageState {
            device: self.parts.settings.title().to_owned(),
            status: status.to_owned(),
            faults: self
                .faults
                .iter()
                .map(|fault| format!("{fault:?}"))
                .collect(),
            facts: vec![
                fact("Board", self.parts.board.title.clone()),
                fact("Model", model),
                fact("Rules", format!("{} may start", condition.n_armed_rules)),
                fact("Temperature", heat),
                fact("Running for", format!("{} s", condition.uptime_s)),
            ],
            answers: self.answers.iter().rev().cloned().collect(),
            pending: self.pending_shown(),
            pictures: self.pictures.iter().rev().cloned().collect(),
            metrics: metrics(&self.counts, condition.uptime_s, condition.temperature_c),
        }
    }

    fn pending_shown(&self) -> Vec<PendingAction> {
        let now = self.parts.clock.monotonic();
        let policy = &self.parts.rules.policy;
        let shown = self.pending.iter().map(|(request, until)| PendingAction {
            request: request.id.0,
            nonce: request.nonce,
            what: self.action_words(request.action),
            rule: self.rule_name(request.rule),
            why: policy
                .permission(request.permission)
                .map_or_else(String::new, |line| line.why.clone()),
            until: self.time_of_day(until.saturating_sub(now)),
            picture: None,
            may_decide: request.takes(Link::Http),
        });
        shown.collect()
    }
}

fn metrics(counts: &Counts, uptime_s: u64, temperature_c: Option<f64>) -> Vec<Family> {
    let one = |name, help, kind, value: f64| Family {
        name,
        help,
        kind,
        samples: vec![Sample {
            labels: Vec::new(),
            value,
        }],
    };
    let counter = |name, help, count: u64| one(name, help, FamilyKind::Counter, count as f64);
    let mut families = vec![
        counter("ocelli_looks_total", "Pictures looked at", counts.looks),
        counter("ocelli_answers_total", "Questions answered", counts.answers),
        counter("ocelli_actions_total", "Actions done", counts.actions),
        counter("ocelli_denied_total", "Actions denied", counts.denied),
        one(
            "ocelli_uptime_seconds",
            "Seconds since the start",
            FamilyKind::Gauge,
            uptime_s as f64,
        ),
    ];
    families.extend(temperature_c.map(|celsius| {
        one(
            "ocelli_temperature_celsius",
            "Hottest sensor of the board",
            FamilyKind::Gauge,
            celsius,
        )
    }));
    families
}

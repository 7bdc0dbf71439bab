//! Announced events: new, update, end, with one id.

use super::Turn;
use crate::index::RuleIndex;
use crate::limit::MAX_EVENTS;
use crate::note::{Dropped, Note};
use crate::output::{EventNotice, EventPhase, Finding, Output};
use crate::state::{OpenEvent, Request};
use crate::time::Millis;

impl Turn<'_> {
    /// Begins an event, or updates the open one of the same rule and action.
    pub(super) fn announce(&mut self, request: Request, hold: Millis) {
        let until = self.now().saturating_add(hold);
        let open = self
            .state
            .events
            .iter_mut()
            .find(|open| open.rule == request.rule && open.action == request.action);
        let (id, phase) = match open {
            Some(open) => {
                open.until = until;
                (open.id, EventPhase::Update)
            }
            None => {
                self.open_event(&request, until);
                (request.event, EventPhase::New)
            }
        };
        self.emit(Output::Event(EventNotice {
            id,
            phase,
            rule: request.rule,
            action: request.action,
            evidence: request.evidence,
            finding: request.finding,
        }));
    }

    fn open_event(&mut self, request: &Request, until: Millis) {
        if self.state.events.len() == MAX_EVENTS {
            self.end_event(0);
            self.state.drops_mut().events += 1;
            self.note(Note::Dropped(Dropped::Event));
        }
        // There is room.
        let _ = self.state.events.push(OpenEvent {
            id: request.event,
            rule: request.rule,
            action: request.action,
            until,
        });
    }

    fn end_event(&mut self, at: usize) {
        let open = self.state.events.remove(at);
        self.emit(Output::Event(EventNotice {
            id: open.id,
            phase: EventPhase::End,
            rule: open.rule,
            action: open.action,
            evidence: None,
            finding: Finding::default(),
        }));
    }

    fn end_events_where(&mut self, is_over: impl Fn(&OpenEvent) -> bool) {
        while let Some(at) = self.state.events.iter().position(&is_over) {
            self.end_event(at);
        }
    }

    pub(super) fn expire_events(&mut self) {
        let now = self.now();
        self.end_events_where(|open| open.until <= now);
    }

    pub(super) fn end_events_of(&mut self, rule: RuleIndex) {
        self.end_events_where(|open| open.rule == rule);
    }

    pub(super) fn end_all_events(&mut self) {
        self.end_events_where(|_| true);
    }
}

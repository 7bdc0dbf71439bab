//! Pictures that rules keep.

use super::Agent;
use super::ask::{Asked, FIRST_ERRAND};
use crate::link::mqtt::message::{Outgoing, State as BrokerState};
use ocelli_reflex::observation::{Frame, Outcome};
use ocelli_reflex::output::Act;
use ocelli_reflex::{LookId, Observation};
use std::time::Duration;

/// How long a picture may take that a rule keeps without having asked about one.
const LOOK_TIME: Duration = Duration::from_secs(5);

impl Agent {
    /// Keeps the picture that was decided on, or takes one; its outcome then follows.
    pub(super) fn snapshot(&mut self, act: &Act, frame: Option<u64>) -> Option<Outcome> {
        if let Some(frame) = frame {
            return Some(self.keep(act, frame));
        }
        let Some(lookout) = &self.parts.lookout else {
            self.remark("snapshots", "there is no [camera] in the configuration");
            return Some(Outcome::Failed);
        };
        let look = LookId(self.next_errand);
        self.next_errand += 1;
        lookout.look(look, LOOK_TIME);
        self.snapshots.insert(look.0, act.clone());
        None
    }

    /// A picture was taken, or not; true if it was to be kept.
    pub(super) fn snapshot_looked(&mut self, look: LookId, frame: Option<Frame>) -> bool {
        let Some(act) = self.snapshots.remove(&look.0) else {
            return false;
        };
        let outcome = match frame {
            Some(frame) => self.keep(&act, frame.id),
            None => {
                self.remark("snapshots", "the camera gave no picture");
                Outcome::Failed
            }
        };
        let act = act.id;
        self.observe(&Observation::Outcome { act, outcome });
        true
    }

    /// The camera that was asked for pictures is gone, and its answers with it.
    pub(super) fn forget_looks(&mut self) {
        // Pictures count from 1: these have none yet.
        let waits =
            |(id, asked): (&u64, &Asked)| (*id >= FIRST_ERRAND && asked.frame == 0).then_some(*id);
        let persons = self.asked.iter().filter_map(waits);
        let looks: Vec<u64> = self.snapshots.keys().copied().chain(persons).collect();
        for look in looks.into_iter().map(LookId) {
            if !self.snapshot_looked(look, None) {
                self.errand_looked(look, None);
            }
        }
    }

    fn keep(&mut self, act: &Act, frame: u64) -> Outcome {
        let lookout = self.parts.lookout.as_ref();
        let Some(picture) = lookout.and_then(|lookout| lookout.picture(frame)) else {
            self.remark("snapshots", "the picture is no longer there");
            return Outcome::Failed;
        };
        let kept = self.parts.recorder.keep(act.event.0, frame, &picture);
        let (name, jpeg) = match kept {
            Ok(kept) => kept,
            Err(error) => {
                self.remark("snapshots", &error.to_string());
                return Outcome::Failed;
            }
        };
        self.show_picture(&name);
        if self.parts.settings.privacy.publish_snapshots {
            let rule = self.rule_name(act.rule);
            self.tell_broker(Outgoing::State(BrokerState::Snapshot { rule, jpeg }));
        }
        Outcome::Done
    }
}

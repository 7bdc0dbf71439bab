//! New settings and rules, while the loop pauses.

use super::{Agent, Rules};
use crate::fault::Fault;
use crate::link::mqtt::payload::{Code, Reply};
use crate::run::desk::Receipt;
use crate::run::open::Plan;
use ocelli_reflex::Observation;
use ocelli_reflex::observation::{Fault as DeviceFault, Link};

impl Agent {
    /// Tells the system that settings are read again.
    pub fn reloading(&mut self) {
        let told = self.parts.notify.reloading();
        self.notified(told);
    }

    /// Takes new settings and rules. Pins, camera and serial line whose settings changed are let go
    /// before they are opened anew, pins safe.
    ///
    /// # Errors
    ///
    /// What cannot be opened.
    pub fn take(&mut self, plan: Plan) -> Result<(), Fault> {
        let later = self.parts.sections.changed(&plan.sections);
        if !later.is_empty() {
            let later = later.join(", ");
            return Err(Fault::Argument(format!(
                "{later} changed, and cannot while the agent runs; restart it"
            )));
        }
        if let (Some(broker), Some(settings)) = (&self.parts.broker, plan.settings.mqtt.clone()) {
            broker.reload(settings)?;
        }
        let remote = plan.remote(self.parts.recorder.read_spent())?;
        self.observe(&Observation::Reload);
        self.parts.remote = remote;
        if plan.pins != self.parts.pins {
            self.parts.hands = None;
            self.parts.hands = plan.hands(&self.parts.progress)?;
            self.parts.pins.clone_from(&plan.pins);
        }
        if plan.settings.camera != self.parts.settings.camera {
            // The device may be the same: it is let go before it is opened.
            self.parts.lookout = None;
            self.snapshots.clear();
            self.camera_lost = None;
            self.fault(DeviceFault::CameraGone, true);
            self.parts.lookout = plan.lookout()?;
            self.forget_looks();
            let is_blind = self.parts.lookout.is_none();
            self.fault(DeviceFault::CameraGone, is_blind);
        }
        if plan.settings.serial != self.parts.settings.serial {
            self.parts.line = None;
            self.parts.line = plan.line(&self.parts.clock);
            let (link, up) = (Link::Serial, false);
            self.observe(&Observation::Link { link, up });
        }
        self.parts.settings = plan.settings;
        self.parts.sections = plan.sections;
        self.parts.fingerprint = plan.fingerprint;
        self.adopt(plan.rules);
        Ok(())
    }

    /// Puts other rules in force; rates, cooldowns and off-times stay.
    fn adopt(&mut self, rules: Rules) {
        self.parts
            .recorder
            .rules(rules.policy.fingerprint, &rules.text);
        self.parts.rules = rules;
        self.observe(&Observation::Tick);
        self.read_inputs();
        self.describe_device();
    }

    /// Tells who wanted a reload how it went.
    pub fn reloaded(&mut self, receipt: &Receipt, outcome: Result<(), String>) {
        let now = self.parts.clock.monotonic();
        let reply = match &outcome {
            Ok(()) => Reply::plain(Code::Done),
            Err(reason) => Reply::because(Code::Failed, reason.clone()),
        };
        if let Some(broker) = &mut self.parts.broker {
            broker.reply(receipt, reply, now);
        }
        match outcome {
            Ok(()) => self.remark("settings", "settings and rules were read again"),
            Err(reason) => self.remark("settings", &format!("not taken: {reason}")),
        }
    }
}

//! [`Output`]: what the step wants done. The caller carries outputs out in order.

use crate::index::{
    ActId, ActionIndex, CallId, EventId, HookIndex, LookId, PacketIndex, PermissionIndex, PinIndex,
    QuestionId, RequestId, RuleIndex, TopicIndex,
};
use crate::limit::MAX_OUTPUTS;
use crate::note::Note;
use crate::observation::{Link, Outcome, Value};
use crate::probability::Probability;
use crate::text::Name;
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// Outputs of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// In the order in which they are to be carried out.
    pub list: heapless::Vec<Output, MAX_OUTPUTS>,
    /// Call again with [`crate::Observation::Tick`] after this time, if nothing else happens.
    pub wake_in: Option<Millis>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Take a picture; answer with [`crate::Observation::Looked`].
    Look(Look),
    /// Put a question to a model; answer with [`crate::Observation::Answer`].
    Ask(Ask),
    /// Carry out an action; answer with [`crate::Observation::Outcome`].
    Act(Act),
    /// What would have been an `Act` were this not a dry run. Only to be shown.
    WouldAct(Act),
    /// Put an action before a person; answer with [`crate::Observation::Approval`].
    RequestApproval(ApprovalRequest),
    /// Call a hook. Before an action: answer with [`crate::Observation::Hook`].
    CallHook(HookCall),
    /// Something asked for is no longer wanted.
    Cancel(Cancelled),
    /// Announce an event.
    Event(EventNotice),
    /// Make one pin safe, at once.
    PinSafe(PinSafe),
    /// Make every output line safe that was ever used, at once.
    AllPinsSafe(SafeCause),
    /// For the journal: what was decided and why, also when nothing is done.
    Note(Note),
}

/// A picture to be taken after now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Its id; several runs may wait for it.
    pub id: LookId,
    /// Give up after this time.
    pub within: Millis,
}

/// A question to be put. Prompt, form, thresholds and budget stand in
/// [`crate::Policy::question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Its id.
    pub id: QuestionId,
    /// The run.
    pub event: EventId,
    /// The rule that asks.
    pub rule: RuleIndex,
    /// The picture; questions about the same picture share its prefill.
    pub frame: u64,
    /// Who is asked.
    pub model: Model,
    /// Whether an early answer is wanted besides the refined one.
    pub early: bool,
    /// Tokens the answer may have.
    pub max_tokens: u16,
    /// Give up after this time.
    pub within: Millis,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// The model of this device.
    Local,
    /// The remote model of the settings; the picture leaves the device.
    Remote,
}

/// An action to be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Its id.
    pub id: ActId,
    /// The run.
    pub event: EventId,
    /// The rule that decided.
    pub rule: RuleIndex,
    /// The action in the policy.
    pub action: ActionIndex,
    /// The permission that decided.
    pub grant: Grant,
    /// What to do. [`crate::Policy::payload`] makes the text of a publication or packet.
    pub deed: Deed,
    /// The picture behind it.
    pub evidence: Option<Evidence>,
    /// The answer behind it.
    pub finding: Finding,
}

/// What an executor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Publish on a topic.
    Publish {
        /// The topic.
        topic: TopicIndex,
    },
    /// Save the picture with this number.
    Snapshot {
        /// The picture; `None`: one that is taken now.
        frame: Option<u64>,
    },
    /// Send a packet.
    Packet {
        /// The packet.
        packet: PacketIndex,
    },
    /// Set a pin.
    Set {
        /// The pin.
        pin: PinIndex,
        /// The value.
        value: i32,
        /// The pin must be safe again after this time; the step says so too, but whoever drives
        /// the pin should not depend on it.
        within: Option<Millis>,
    },
    /// Run a hook.
    Hook {
        /// The hook.
        hook: HookIndex,
    },
    /// Announce an event; only in a dry run, else see [`Output::Event`].
    Event,
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The answer.
    pub value: Value,
    /// Its probability.
    pub probability: Probability,
}

/// A picture as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Number of the picture.
    pub frame: u64,
    /// When it was taken, on the clock of the state.
    pub time: Millis,
}

/// Why an action may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    /// Its level needs no line, and none is against it.
    Default,
    /// A line allows it.
    Line(PermissionIndex),
    /// A line asks, and a person said yes.
    Person(PermissionIndex, RequestId),
}

/// An action for a person to decide on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Its id.
    pub id: RequestId,
    /// Must come back with the decision.
    pub nonce: u64,
    /// The run.
    pub event: EventId,
    /// The rule.
    pub rule: RuleIndex,
    /// The action in the policy.
    pub action: ActionIndex,
    /// The value a pin would be set to.
    pub value: Option<i32>,
    /// The line that asks.
    pub permission: PermissionIndex,
    /// Links a decision may come from, see [`ApprovalRequest::takes`].
    pub via: u8,
    /// The picture behind it.
    pub evidence: Option<Evidence>,
    /// The answer is no after this time.
    pub within: Millis,
}

impl ApprovalRequest {
    /// Whether a decision may come from this link.
    pub fn takes(&self, link: Link) -> bool {
        self.via & link.bit() != 0
    }
}

/// A hook to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// Its id.
    pub id: CallId,
    /// The hook.
    pub hook: HookIndex,
    /// The rule.
    pub rule: RuleIndex,
    /// The action in the policy.
    pub action: ActionIndex,
    /// The value a pin is set to.
    pub value: Option<i32>,
    /// Before or after.
    pub moment: Moment,
    /// No word after this time is a veto.
    pub within: Millis,
}

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// It may object.
    Before,
    /// It hears how it went.
    After(ActId, Outcome),
}

/// Something no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cancelled {
    /// A picture.
    Look(LookId),
    /// A question.
    Question(QuestionId),
    /// A request to a person.
    Request(RequestId),
    /// A call of a hook.
    Call(CallId),
}

/// News of an announced event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventNotice {
    /// Its id, the same from new to end.
    pub id: EventId,
    /// New, update or end.
    pub phase: EventPhase,
    /// The rule.
    pub rule: RuleIndex,
    /// The action in the policy, with the label.
    pub action: ActionIndex,
    /// The picture behind it.
    pub evidence: Option<Evidence>,
    /// The answer behind it.
    pub finding: Finding,
}

/// Phase of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventPhase {
    /// It begins.
    New,
    /// It goes on, or is known better.
    Update,
    /// It is over.
    End,
}

/// A pin to be made safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinSafe {
    /// The pin.
    pub pin: PinIndex,
    /// Line of the board.
    pub line: Name,
    /// The safe value.
    pub value: i32,
    /// Why.
    pub cause: SafeCause,
}

/// Why a pin is made safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SafeCause {
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// New rules.
    Reload,
    /// The time asked for is over.
    HoldOver,
    /// Longest time on.
    MaxOn,
    /// Not set again in time.
    DeadMan,
    /// An interlock.
    Interlock(PinIndex),
    /// A link went down.
    LinkDown,
    /// Setting it failed; its state is not known.
    ActionFailed,
    /// The clock went back: times on can no longer be told.
    Clock,
}

//! Rules, permissions and the pure step of the agent.
//!
//! [`load()`] turns the text of a rule file into a [`Policy`] or a list of mistakes. [`step()`] takes
//! an [`Observation`] and says in [`Outputs`] what is to be done; it owns no clock, no thread, no
//! file, and allocates nothing. [`explain()`] says in words what a step would do.

#![forbid(unsafe_code)]

pub mod action;
pub mod channel;
mod check;
pub mod diagnostic;
pub mod explain;
pub mod hook;
pub mod index;
pub mod limit;
pub mod load;
pub mod note;
pub mod observation;
pub mod output;
pub mod permission;
pub mod pin;
pub mod policy;
pub mod probability;
pub mod question;
pub mod rule;
pub mod schedule;
pub mod state;
pub mod step;
pub mod text;
pub mod time;

pub use explain::explain;
pub use index::{
    ActId, ActionIndex, CallId, EventId, HookIndex, LookId, PacketIndex, PermissionIndex, PinIndex,
    QuestionId, RequestId, RuleIndex, TopicIndex, ZoneIndex,
};
pub use load::{Inventory, Loaded, load};
pub use note::Note;
pub use observation::Observation;
pub use output::{Output, Outputs};
pub use policy::Policy;
pub use probability::Probability;
pub use state::{Drops, State};
pub use step::step;
pub use text::{Name, Text};
pub use time::{LocalTime, Millis, Now};

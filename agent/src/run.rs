//! `ocelli run`: the agent.
//!
//! ```text
//!  camera ─▶ lookout ─Change, Looked─┐                      ┌─▶ hands ─▶ pins
//!   pins  ─▶  hands  ────Pin─────────┤                      ├─▶ desk/broker ─▶ MQTT
//!  broker ─▶  desk   ──Message───────┼─▶ agent: step() ─────┼─▶ desk/line ─▶ serial
//!  serial ─▶  desk   ──Packet────────┤    │  ▲  writes      ├─▶ lookout: a picture
//!  model  ─▶ thinker ──Answer────────┘    ▼  │  down first  ├─▶ thinker: a question
//!                                       recorder            └─▶ hooks, page, remote
//! ```
//!
//! Everything that may block is on a thread of its own; the loop only waits, decides and writes
//! down. Outputs are carried out after the record of their step, and of what acts after the disk
//! has it.

pub mod agent;
pub mod clock;
pub mod desk;
pub mod hands;
pub mod lookout;
pub mod open;
pub mod recorder;
pub mod settings;
pub mod vitals;

pub use agent::{Agent, Pause};

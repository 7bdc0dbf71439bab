//! Version and fingerprint of the messages.

use serde::{Deserialize, Serialize};

/// Version of the protocol.
///
/// Ends with another `major` do not talk. A higher `minor` has messages added at the end of
/// [`crate::Message`]; an end that does not know one answers with
/// [`NackReason::Unknown`](crate::NackReason::Unknown).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Changes when an old end could misunderstand a new one.
    pub major: u8,
    /// Changes when messages are added.
    pub minor: u8,
}

/// The version spoken here.
pub const VERSION: Version = Version { major: 1, minor: 1 };

/// CRC-32 of the types of all packets and messages, as `tests/schema.rs` writes them down. Two ends
/// of one version must agree in it; the test fails when the types change and the number does not.
pub const SCHEMA_FINGERPRINT: u32 = 0xf947_77a9;

//! Capacities: how much of everything there may be, and what is dropped when there is more.
//!
//! What comes from the rule file beyond a limit is an error at load. What comes while running is
//! dropped by the rule stated here, counted in [`crate::Drops`] and noted for the journal.

/// Longest rule file, in bytes.
pub const MAX_FILE_BYTES: usize = 256 << 10;
/// Longest name of a zone, pin, topic, packet, hook or rule, in bytes.
pub const MAX_NAME: usize = 32;
/// Longest text of an answer, message or packet inside the step, in bytes. Longer text is cut at a
/// character and marked as cut; cut text matches no condition.
pub const MAX_TEXT: usize = 256;
/// Longest prompt, payload template or topic path, in bytes.
pub const MAX_TEMPLATE: usize = 1024;
/// Zones.
pub const MAX_ZONES: usize = 16;
/// Pins, inputs and outputs together.
pub const MAX_PINS: usize = 16;
/// Interlocks of one pin.
pub const MAX_INTERLOCKS: usize = 8;
/// Topics.
pub const MAX_TOPICS: usize = 32;
/// Packets.
pub const MAX_PACKETS: usize = 32;
/// Hooks.
pub const MAX_HOOKS: usize = 8;
/// Rules.
pub const MAX_RULES: usize = 32;
/// Triggers of one rule.
pub const MAX_TRIGGERS: usize = 4;
/// Choices of a closed question, and actions a model may choose from.
pub const MAX_CHOICES: usize = 8;
/// Largest count a question may ask for.
pub const MAX_COUNT: u32 = 1000;
/// Actions of one branch.
pub const MAX_BRANCH_ACTIONS: usize = 8;
/// Looks one run may vote over.
pub const MAX_LOOKS: u8 = 9;
/// Steps a model may take in one run of a `choose` rule.
pub const MAX_STEPS: u8 = 3;
/// Permission lines.
pub const MAX_PERMISSIONS: usize = 64;
/// Permission lines with a rate.
pub const MAX_RATED: usize = 16;
/// Largest count of a rate.
pub const MAX_RATE: usize = 32;
/// Tokens a question may cost.
pub const MAX_TOKENS: u16 = 512;
/// Runs at a time. A new run takes the place of the waiting run of lowest priority, if that is
/// lower than its own, else it is dropped.
pub const MAX_RUNS: usize = 16;
/// Actions that wait for a hook or a person. When full, a new one is refused.
pub const MAX_PENDING: usize = 8;
/// Announced events that are open. When full, the oldest is ended to make room.
pub const MAX_EVENTS: usize = 16;
/// Actions whose outcome is awaited. When full, the oldest is forgotten.
pub const MAX_ACTS: usize = 32;
/// Rules started by answers of other rules within one step. When full, the newest is dropped.
pub const MAX_CHAIN: usize = 32;
/// Outputs of one step. Places are kept for what matters: notes use the first
/// [`MAX_NOTES`], other outputs all but one place for each pin and one more, pins made safe all.
/// An action that finds no place is refused.
pub const MAX_OUTPUTS: usize = 96;
/// How far notes may fill the outputs of a step; later notes are dropped.
pub const MAX_NOTES: usize = 60;
/// Longest duration in a rule file, in milliseconds: 31 days.
pub const MAX_DURATION_MS: u64 = 31 * 86_400_000;
/// The most a single step may advance the clock, in milliseconds; more counts as this much. It is
/// longer than [`MAX_DURATION_MS`], so whatever was due is due.
pub const MAX_ADVANCE_MS: u64 = 32 * 86_400_000;
/// How late a daily schedule may still fire, in seconds.
pub const MAX_SCHEDULE_DELAY_S: u32 = 60;
/// Mistakes reported of one file; the rest is counted.
pub const MAX_DIAGNOSTICS: usize = 100;

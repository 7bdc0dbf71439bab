//! Output of hooks: whatever a program prints is a refusal or one verdict with a short reason, and
//! only what begins with an object passes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_agent::hook::MAX_OUTPUT_BYTES;
use ocelli_agent::hook::verdict::{MAX_REMARK_CHARS, parse};

fuzz_target!(|input: &[u8]| {
    if let Ok(said) = parse(input) {
        assert!(input.len() <= MAX_OUTPUT_BYTES);
        assert!(input.trim_ascii().starts_with(b"{") && input.trim_ascii().ends_with(b"}"));
        assert!(said.reason.chars().count() <= MAX_REMARK_CHARS);
        assert!(!said.reason.chars().any(char::is_control));
        let word: &[u8] = if said.pass { b"pass" } else { b"veto" };
        // Unless it is written with escapes, the word stands in the output.
        let plain = !input.contains(&b'\\');
        assert!(!plain || input.windows(4).any(|four| four == word));
    }
});

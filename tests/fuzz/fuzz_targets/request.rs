//! HTTP requests of the page: whatever the bytes, parsing is a refusal, a wish for more within the
//! bounds, or a request within its bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_agent::page::request::{MAX_BODY_BYTES, MAX_HEAD_BYTES, Parsed, parse};

fuzz_target!(|input: &[u8]| match parse(input) {
    Parsed::More => assert!(input.len() < MAX_HEAD_BYTES + MAX_BODY_BYTES),
    Parsed::Whole(request) => {
        assert!(request.body.len() <= MAX_BODY_BYTES);
        assert!(request.path.starts_with('/') && !request.path.contains('?'));
        assert!(!request.host.contains(['\r', '\n']));
    }
    Parsed::Bad(refusal) => assert!((400..500).contains(&refusal.status)),
});

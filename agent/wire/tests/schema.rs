//! The types of packets and messages, written down and compared with their fingerprint.

use ocelli_wire::message::{Mode, Outcome, Phase, Severity, Verdict};
use ocelli_wire::packet::Head;
use ocelli_wire::{Message, NackReason, Role, SCHEMA_FINGERPRINT};
use serde::de::DeserializeOwned;
use serde_reflection::{Tracer, TracerConfig};
use std::fs;
use std::path::Path;

const WRITTEN: &str = include_str!("schema.json");

/// Every type with the names and types of its fields, as JSON.
fn types() -> String {
    fn trace<T: DeserializeOwned>(tracer: &mut Tracer) {
        tracer
            .trace_simple_type::<T>()
            .unwrap_or_else(|error| panic!("{}: {error}", std::any::type_name::<T>()));
    }
    let mut tracer = Tracer::new(TracerConfig::default());
    trace::<Phase>(&mut tracer);
    trace::<Verdict>(&mut tracer);
    trace::<Outcome>(&mut tracer);
    trace::<Mode>(&mut tracer);
    trace::<Severity>(&mut tracer);
    trace::<NackReason>(&mut tracer);
    trace::<Role>(&mut tracer);
    trace::<Message>(&mut tracer);
    trace::<Head>(&mut tracer);
    let registry = tracer.registry().expect("every enum was traced");
    serde_json::to_string_pretty(&registry).unwrap() + "\n"
}

#[test]
fn the_types_are_the_ones_written_down() {
    let types = types();
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schema.json");
    fs::write(&new, &types).unwrap();
    assert!(
        types == WRITTEN,
        "types changed: give them a new version as docs/wire.md says, then copy {} to tests/",
        new.display()
    );
}

#[test]
fn the_fingerprint_is_the_one_of_the_types() {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(WRITTEN.as_bytes());
    assert_eq!(
        SCHEMA_FINGERPRINT, crc,
        "SCHEMA_FINGERPRINT must be {crc:#010x}"
    );
}

//! The published payload schemas, for tests.

use jsonschema::Validator;
use std::path::PathBuf;

/// The schema `docs/schemas/NAME.json`.
pub(super) fn schema(name: &str) -> Validator {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/schemas")
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    jsonschema::draft202012::new(&serde_json::from_str(&text).unwrap()).unwrap()
}

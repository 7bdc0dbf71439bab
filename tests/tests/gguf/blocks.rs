//! Every block format against the values the `gguf` Python package gives.

use std::fs;

use ocelli_runtime::import::gguf::blocks::Format;
use serde_json::Value;

fn fixture() -> Value {
    let path = ocelli_tests::fixture::folder().join("gguf/blocks.json");
    let bytes = fs::read(path).expect("the fixture is there");
    serde_json::from_slice(&bytes).expect("the fixture is JSON")
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn every_block_format_gives_the_published_values_bit_for_bit() {
    let cases = fixture();
    let mut seen = 0;
    for id in 0..64 {
        let Some(format) = Format::from_id(id) else {
            continue;
        };
        let case = &cases[format.name()];
        let mut values = Vec::new();
        let data = bytes(case["bytes"].as_str().expect("a text"));
        format.dequantize(&data, &mut values);
        let expected: Vec<u32> = case["values"]
            .as_array()
            .unwrap_or_else(|| panic!("{} is in the fixture", format.name()))
            .iter()
            .map(|bits| bits.as_u64().expect("bits") as u32)
            .collect();
        let found: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        assert_eq!(found, expected, "{}", format.name());
        assert_eq!(data.len() % format.block_bytes(), 0);
        assert_eq!(
            values.len(),
            data.len() / format.block_bytes() * format.block_len()
        );
        seen += 1;
    }
    assert_eq!(seen, 11);
    assert_eq!(cases.as_object().map(|cases| cases.len()), Some(seen));
}

//! Graphs whose few bytes claim sizes beyond every number, or ask for memory or time out of all
//! proportion to them.

use std::path::Path;

use ocelli_runtime::config::ModelConfig;
use ocelli_runtime::import::onnx::graph::MAX_PARTS;
use ocelli_runtime::import::onnx::{Graph, OnnxModel, Part};
use ocelli_runtime::weights::Region;
use ocelli_tests::onnx::{FLOAT, TEXT, UINT8, field, model, node, number, tensor};

use crate::lies::{config, message};

fn refused(bytes: Vec<u8>, part: Part, config: &ModelConfig) -> String {
    let graph = Graph::from_region(Region::from_vec(bytes), Path::new("excess.onnx"));
    message(graph.and_then(|graph| OnnxModel::of(vec![(part, graph)], config)))
}

fn decoder(parts: &[Vec<u8>]) -> String {
    let bytes = model("inputs_embeds", "logits", parts);
    refused(bytes, Part::Decoder, &config())
}

#[test]
fn scales_of_a_matrix_without_rows_and_beyond_every_size_are_refused() {
    let found = decoder(&[
        tensor("values", UINT8, &[0, 1 << 62, 4], &[]),
        tensor("scales", FLOAT, &[2], &[0; 8]),
        node(
            "DequantizeLinear",
            &["values", "scales"],
            &["weight"],
            &[("axis", 0)],
        ),
        node("MatMul", &["inputs_embeds", "weight"], &["logits"], &[]),
    ]);
    assert!(found.contains("one scale (and zero point)"), "{found}");
}

#[test]
fn a_table_without_rows_whose_row_is_beyond_every_size_is_refused() {
    let table = [
        tensor("values", UINT8, &[0, 1 << 62], &[]),
        tensor("scales", FLOAT, &[0], &[]),
        node(
            "GatherBlockQuantized",
            &["values", "input_ids", "scales"],
            &["inputs_embeds"],
            &[("bits", 2), ("block_size", 16)],
        ),
    ];
    let bytes = model("input_ids", "inputs_embeds", &table);
    let found = refused(bytes, Part::Embedding, &config());
    assert!(found.contains("2-bit matrix of 0 rows"), "{found}");
}

#[test]
fn texts_of_more_dimensions_than_there_are_numbers_are_refused() {
    let found = decoder(&[
        tensor("start", TEXT, &[1 << 62, 4], &[]),
        node(
            "Slice",
            &["inputs_embeds", "start", "start", "start"],
            &["logits"],
            &[],
        ),
    ]);
    assert!(found.contains("does not fill its 0 bytes"), "{found}");
}

/// Texts have no bytes that their dimensions could be held against.
#[test]
fn the_sizes_of_a_split_are_read_no_further_than_its_part() {
    let found = decoder(&[
        tensor("sizes", TEXT, &[1 << 50], &[]),
        node(
            "Split",
            &["inputs_embeds", "sizes"],
            &["logits"],
            &[("axis", 2)],
        ),
    ]);
    assert!(found.contains("expected was the output head"), "{found}");
}

/// Inputs that are left out take two bytes of the file and sixteen of memory, attributes a hundred.
#[test]
fn a_graph_of_more_parts_than_the_limit_is_refused() {
    let many = "\n\0".repeat(MAX_PARTS + 1);
    let ints: Vec<u8> = field(8, vec![1; MAX_PARTS + 1]);
    let tensors = field(5, number(2, FLOAT)).repeat(MAX_PARTS + 1);
    let attribute = |value: Vec<u8>| field(5, [field(1, "a"), value].concat());
    for inside in [many.into_bytes(), attribute(ints), attribute(tensors)] {
        let found = decoder(&[field(1, [field(4, "Neg"), inside].concat())]);
        assert!(found.contains("more than 524288 parts"), "{found}");
    }
    let ports = field(11, field(1, "inputs_embeds")).repeat(MAX_PARTS + 1);
    assert!(decoder(&[ports]).contains("more than 524288 parts"));
    let dims = field(1, field(2, "\n\0".repeat(MAX_PARTS + 1)));
    let port = field(11, [field(1, "x"), field(2, dims)].concat());
    assert!(decoder(&[port]).contains("more than 524288 parts"));
}

#[test]
fn a_tensor_of_countless_dimensions_is_refused() {
    let tensor = [field(1, vec![1; 1 << 20]), number(2, FLOAT), field(8, "t")].concat();
    let found = decoder(&[field(5, tensor)]);
    assert!(
        found.contains("tensor t has 1048576 dimensions, the limit is 8"),
        "{found}"
    );
}

/// Looked through anew for every input, the chain would take ten thousand million steps.
#[test]
fn a_long_chain_that_a_node_reads_many_times_is_walked_once() {
    let count = 100_000;
    let mut name = "gate".to_owned();
    let mut parts = vec![node("MatMul", &["inputs_embeds", "up"], &["gate"], &[])];
    for i in 0..count {
        let next = format!("v{i}");
        parts.push(node("Identity", &[&name], &[&next], &[]));
        name = next;
    }
    let many = vec![name.as_str(); count];
    let hidden = config().text.intermediate_size as u64;
    let width = config().text.hidden_size as u64;
    let ones = |n: u64| 1f32.to_le_bytes().repeat(n as usize);
    parts.extend([
        tensor("up", FLOAT, &[width, hidden], &ones(width * hidden)),
        tensor("norm", FLOAT, &[width], &ones(width)),
        tensor("head", FLOAT, &[width, 384], &ones(width * 384)),
        tensor("down", FLOAT, &[hidden, width], &ones(hidden * width)),
        node("Add", &many, &["gated"], &[]),
        node("MatMul", &["gated", "down"], &["fed"], &[]),
        node("Add", &["inputs_embeds", "fed"], &["sum"], &[]),
        node(
            "SimplifiedLayerNormalization",
            &["sum", "norm"],
            &["normed"],
            &[],
        ),
        node("MatMul", &["normed", "head"], &["logits"], &[]),
    ]);
    let found = decoder(&parts);
    assert!(found.contains("silu(gate)·up of two linear"), "{found}");
}

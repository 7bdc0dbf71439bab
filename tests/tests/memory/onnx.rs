//! ONNX files: whatever sizes they claim, a small multiple of their own.

use std::fs;
use std::path::Path;

use ocelli_runtime::config::{ModelConfig, ModelFiles};
use ocelli_runtime::import::FloatWeights;
use ocelli_runtime::import::onnx::graph::{MAX_NODES, MAX_PARTS};
use ocelli_runtime::import::onnx::{Graph, OnnxModel, Part};
use ocelli_runtime::weights::Region;
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::fixture;
use ocelli_tests::onnx::{FLOAT, INT64, TEXT, UINT4, UINT8, field, model, node, number, tensor};

use crate::{alone, peak_of};

/// Sizes no file has.
const SIZES: [u64; 5] = [1 << 24, 1 << 31, 1 << 40, 1 << 62, u64::MAX >> 1];

/// The configuration of the committed exports.
fn config() -> ModelConfig {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = Checkpoint::of_fixture("narrow");
    checkpoint.write(dir.path()).expect("a checkpoint");
    ModelFiles::read(dir.path()).expect("sound files").config
}

/// Reads every weight of what is believed.
fn read_all(bytes: &[u8], part: Part, config: &ModelConfig) {
    let region = Region::from_vec(bytes.to_vec());
    let Ok(graph) = Graph::from_region(region, Path::new("a.onnx")) else {
        return;
    };
    let Ok(model) = OnnxModel::of(vec![(part, graph)], config) else {
        return;
    };
    for (name, shape) in model.weights() {
        let _ = model.read(name, shape);
    }
}

/// The file once for each place that may hold a dimension or a node's number (`08` and `18` begin
/// both), with the number there as large as its bytes can say.
fn enlarged(sound: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let begins = |at: &usize| matches!(sound[*at], 0x08 | 0x18);
    (0..sound.len() - 10).filter(begins).map(|at| {
        let mut bytes = sound.to_vec();
        let number = &mut bytes[at + 1..at + 11];
        let more = number.iter().take_while(|byte| **byte > 127).count();
        for byte in number.iter_mut().take(more + 1) {
            *byte |= 127;
        }
        bytes
    })
}

#[test]
fn no_number_of_an_onnx_file_makes_it_take_more_than_a_small_multiple_of_its_size() {
    let _alone = alone();
    let config = config();
    for (file, part) in [
        ("plain/decoder_model_merged_int8.onnx", Part::Decoder),
        ("fused/decoder_model_merged_q4_zero.onnx", Part::Decoder),
        ("plain/decoder_model_merged_bnb4.onnx", Part::Decoder),
        ("plain/vision_encoder_int8.onnx", Part::Vision),
        ("packed/vision_encoder_q4.onnx", Part::Vision),
        ("shared/embed_tokens_gather4_zero.onnx", Part::Embedding),
    ] {
        let sound = fs::read(fixture::folder().join("onnx").join(file));
        let sound = sound.expect("the fixture is there");
        let peak = |bytes: &[u8]| peak_of(|| read_all(bytes, part, &config)).1;
        let (own, mut worst) = (peak(&sound), 0);
        for bytes in enlarged(&sound) {
            worst = worst.max(peak(&bytes));
        }
        eprintln!(
            "{file}: {own} bytes for a file of {}, enlarged {worst}",
            sound.len()
        );
        assert!(
            own.max(worst) <= 10 * sound.len(),
            "{file}: {own} {worst} bytes"
        );
    }
}

/// Nodes that read a tensor `t` and have sizes for attributes.
fn readers(size: u64) -> Vec<Vec<u8>> {
    let reads = |op: &str, inputs: &[&str], attributes: &[(&str, u64)]| {
        node(op, &[&["x"], inputs].concat(), &["y"], attributes)
    };
    let dequantised = |attributes: &[(&str, u64)]| {
        let nodes = [
            node("DequantizeLinear", &["t", "t", "t"], &["w"], attributes),
            node("MatMul", &["x", "w"], &["y"], &[]),
        ];
        nodes.concat()
    };
    let mut nodes = vec![
        reads("MatMul", &["t"], &[]),
        reads("Gemm", &["t", "t"], &[("transB", 1)]),
        reads("Add", &["t"], &[]),
        reads("Split", &["t"], &[("axis", 2)]),
        reads("Slice", &["t", "t", "t", "t"], &[]),
        node("Gather", &["t", "x"], &["y"], &[]),
        dequantised(&[]),
        dequantised(&[("axis", 0)]),
        dequantised(&[("axis", 0), ("block_size", 16)]),
        dequantised(&[("axis", 1), ("block_size", size)]),
    ];
    for block in [16, 1 << 20, size] {
        for bits in [2, 4, 8] {
            let sizes = [
                ("bits", bits),
                ("block_size", block),
                ("N", size),
                ("K", size),
            ];
            let gather = node(
                "GatherBlockQuantized",
                &["t", "x", "t", "t"],
                &["y"],
                &sizes,
            );
            nodes.extend([reads("MatMulNBits", &["t", "t", "t"], &sizes), gather]);
        }
        let sizes = [
            ("quant_type", 1),
            ("block_size", block),
            ("N", 1),
            ("K", size),
        ];
        nodes.push(reads("MatMulBnb4", &["t", "t"], &sizes));
    }
    nodes
}

#[test]
fn sizes_that_an_onnx_file_only_claims_take_no_memory() {
    let _alone = alone();
    let config = config();
    let mut worst = 0;
    for size in SIZES {
        for dims in [&[size][..], &[0, size], &[size, 0], &[size, size], &[2, 8]] {
            for data_type in [FLOAT, UINT8, INT64, TEXT, UINT4] {
                for reader in readers(size) {
                    for (part, x, y) in [
                        (Part::Decoder, "inputs_embeds", "logits"),
                        (Part::Embedding, "input_ids", "inputs_embeds"),
                        (Part::Vision, "pixel_values", "image_features"),
                    ] {
                        let parts = [
                            tensor("t", data_type, dims, &[1; 16]),
                            node("Identity", &[x], &["x"], &[]),
                            reader.clone(),
                            node("Identity", &["y"], &[y], &[]),
                        ];
                        let bytes = model(x, y, &parts);
                        let ((), peak) = peak_of(|| read_all(&bytes, part, &config));
                        worst = worst.max(peak);
                        assert!(
                            peak <= 64 << 10,
                            "{size} {dims:?} {data_type}: {peak} bytes"
                        );
                    }
                }
            }
        }
    }
    eprintln!("at most {worst} bytes");
}

/// Numbers in a typed field are one byte in the file and up to eight in memory.
#[test]
fn numbers_of_one_byte_take_what_their_type_takes() {
    let _alone = alone();
    let config = config();
    for len in [1 << 20, (1 << 20) + 1, 3 << 20] {
        let list = [
            number(1, len as u64),
            number(2, INT64),
            field(7, vec![1; len]),
            field(8, "t"),
        ];
        let bytes = model("inputs_embeds", "logits", &[field(5, list.concat())]);
        let ((), peak) = peak_of(|| read_all(&bytes, Part::Decoder, &config));
        assert!(peak <= 10 * bytes.len(), "{len}: {peak} bytes");
    }
}

/// What takes most memory for its bytes, as much of it as is allowed.
#[test]
fn a_graph_of_many_parts_takes_no_more_than_its_limit_allows() {
    let _alone = alone();
    let config = config();
    let n = MAX_PARTS - 16;
    let node = |inside: Vec<u8>| field(1, [field(4, "Neg"), inside].concat());
    let attribute = |value: Vec<u8>| field(5, [field(1, "a"), value].concat());
    let constants = (0..n).flat_map(|i| {
        let name = i.to_be_bytes().map(|byte| b'0' + (byte & 63));
        field(5, [number(2, FLOAT), number(1, 0), field(8, name)].concat())
    });
    for (what, part) in [
        ("inputs", node("\n\0".repeat(n).into_bytes())),
        ("numbers", node(attribute(field(8, vec![1; n])))),
        (
            "tensors",
            node(attribute(field(5, number(2, FLOAT)).repeat(n))),
        ),
        ("attributes", node(attribute(vec![]).repeat(n))),
        ("nodes", node(vec![]).repeat(MAX_NODES - 1)),
        ("ports", field(11, field(1, "inputs_embeds")).repeat(n)),
        ("constants", constants.collect()),
    ] {
        let bytes = model("inputs_embeds", "logits", &[part]);
        let ((), peak) = peak_of(|| read_all(&bytes, Part::Decoder, &config));
        eprintln!("{what}: {peak} bytes for a file of {}", bytes.len());
        assert!(
            peak <= bytes.len() + 200 * MAX_PARTS,
            "{what}: {peak} bytes"
        );
    }
}

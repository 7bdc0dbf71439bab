//! What packing takes beyond the mapped files.

use std::fs::{self, File};
use std::io::BufWriter;

use ocelli_runtime::config::{ModelConfig, ModelFiles};
use ocelli_runtime::import::onnx::{Graph, OnnxModel, Part};
use ocelli_runtime::import::{FloatWeights, Published};
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_tests::checkpoint::{Checkpoint, Dtype};
use ocelli_tests::onnx::{
    BFLOAT16, FLOAT, FLOAT16, INT8, UINT4, UINT8, distant, model, node, tensor,
};
use serde_json::json;

use crate::{alone, peak_of};

/// Elements of a row of the embedding table.
const HIDDEN: usize = 256;
/// Most bytes for one more token: the tokenizer's, while tables are made of it. A row of the
/// embedding table has four times as many as f32, twice as many in the file.
const BYTES_PER_TOKEN: usize = 256;

/// Peak of packing the `tiny` shape with another vocabulary, published files opened before.
fn peak_with_vocabulary(vocab: usize, tied: bool) -> usize {
    let mut checkpoint = Checkpoint::of_fixture("tiny").with_dtype(Dtype::Bf16);
    checkpoint.config["text_config"]["vocab_size"] = json!(vocab);
    checkpoint.config["text_config"]["hidden_size"] = json!(HIDDEN);
    checkpoint.config["text_config"]["head_dim"] = json!(HIDDEN / 2);
    let behind = checkpoint.added_tokens().into_iter().rev();
    let behind = behind.take_while(|token| token != "<image>").count();
    checkpoint.config["image_token_id"] = json!(vocab - behind - 1);
    checkpoint.config["tie_word_embeddings"] = json!(tied);
    let dir = tempfile::tempdir().expect("a temporary folder");
    checkpoint.write(dir.path()).expect("a checkpoint");
    let model = Published::open(dir.path(), None, None).expect("a sound checkpoint");
    let out = BufWriter::new(File::create(dir.path().join("out")).expect("a file"));
    let (packed, peak) = peak_of(|| {
        packer::pack_model(
            "m",
            &model.files,
            &*model.weights,
            &PackOptions::default(),
            out,
            &mut |_, _| {},
        )
    });
    packed.expect("the checkpoint can be packed");
    peak
}

#[test]
fn packing_takes_no_memory_for_the_length_of_the_embedding_table() {
    let _alone = alone();
    for tied in [false, true] {
        let (small, large) = (5_000, 40_000);
        let peaks = [small, large].map(|vocab| peak_with_vocabulary(vocab, tied));
        eprintln!("tied {tied}: {peaks:?} bytes");
        assert!(
            peaks[1] <= peaks[0] + BYTES_PER_TOKEN * (large - small),
            "tied {tied}: {peaks:?} bytes for vocabularies of {small} and {large}"
        );
    }
}

/// Rows of a strip.
const STRIP: usize = 100;

/// Scales of 1 for every block of `block` values of a table.
fn ones(vocab: usize, block: usize) -> Vec<u8> {
    1f32.to_le_bytes().repeat(vocab * HIDDEN / block)
}

/// An embedding table in every way to store one: what it is, and the parts of its graph.
fn tables(vocab: usize) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let dims = [vocab as u64, HIDDEN as u64];
    let gather = |table: &str| node("Gather", &[table, "x"], &["y"], &[]);
    let plain = |data_type, bytes: &[u8]| {
        let data = bytes.repeat(vocab * HIDDEN);
        vec![tensor("t", data_type, &dims, &data), gather("t")]
    };
    let scales = |block| {
        let dims = [vocab as u64, (HIDDEN / block) as u64];
        tensor("s", FLOAT, &dims, &ones(vocab, block))
    };
    let blocks = |bits: u64| {
        let row = HIDDEN * bits as usize / 8;
        let attributes = [("bits", bits), ("block_size", 32)];
        let zeros = vec![1; vocab * (HIDDEN / 32 * bits as usize).div_ceil(8)];
        vec![
            tensor("t", UINT8, &[dims[0], row as u64], &vec![17; vocab * row]),
            tensor("z", UINT8, &[zeros.len() as u64], &zeros),
            scales(32),
            node(
                "GatherBlockQuantized",
                &["t", "x", "s", "z"],
                &["y"],
                &attributes,
            ),
        ]
    };
    let dequantised = |data_type, bytes: usize, attributes: &[(&str, u64)], scales| {
        vec![
            tensor("t", data_type, &dims, &vec![3; bytes]),
            scales,
            node("DequantizeLinear", &["t", "s"], &["d"], attributes),
            gather("d"),
        ]
    };
    let by_row = tensor("s", FLOAT, &dims[..1], &ones(vocab, HIDDEN));
    vec![
        ("f32", plain(FLOAT, &1f32.to_le_bytes())),
        ("f16", plain(FLOAT16, &[0, 0x3C])),
        ("bf16", plain(BFLOAT16, &[0x80, 0x3F])),
        (
            "outside",
            vec![distant("t", FLOAT16, &dims, "data"), gather("t")],
        ),
        (
            "int8",
            dequantised(INT8, vocab * HIDDEN, &[("axis", 0)], by_row),
        ),
        (
            "int4",
            dequantised(
                UINT4,
                vocab * HIDDEN / 2,
                &[("axis", 1), ("block_size", 32)],
                scales(32),
            ),
        ),
        ("4 bits", blocks(4)),
        ("8 bits", blocks(8)),
    ]
}

/// Reads a weight strip by strip, then whole, which must be the same. Gives the most the strips took.
fn peak_of_strips(export: &OnnxModel, name: &str, shape: [usize; 2]) -> usize {
    let (n, peak) = peak_of(|| {
        let strips = export.strips(name, shape, STRIP);
        strips
            .map(|strip| strip.expect("a strip").len())
            .sum::<usize>()
    });
    assert_eq!(n, shape[0] * shape[1]);
    let whole = FloatWeights::read(export, name, &shape).expect("the whole");
    let strips = export
        .strips(name, shape, STRIP)
        .map(|strip| strip.expect("a strip"));
    assert!(strips.flatten().eq(whole), "{name}");
    peak
}

/// A configuration of so many tokens without layers.
fn shallow(vocab: usize) -> ModelConfig {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = Checkpoint::of_fixture("tiny");
    checkpoint.write(dir.path()).expect("a checkpoint");
    let mut config = ModelFiles::read(dir.path()).expect("sound files").config;
    config.text.vocab_size = vocab;
    config.text.hidden_size = HIDDEN;
    config.text.n_layers = 0;
    config
}

#[test]
fn strips_of_an_onnx_table_take_their_own_size_however_it_is_stored() {
    let _alone = alone();
    let vocab = 5 * STRIP * 10 + 7;
    let most = 4 * STRIP * HIDDEN + (16 << 10);
    let config = shallow(vocab);
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("data"), [0, 0x3C].repeat(vocab * HIDDEN)).expect("a file");
    let open = |part, bytes: Vec<u8>| {
        let path = folder.path().join("model.onnx");
        fs::write(&path, bytes).expect("a file");
        let graph = Graph::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let export = OnnxModel::of(vec![(part, graph)], &config);
        export.unwrap_or_else(|error| panic!("{error}"))
    };
    for (what, mut parts) in tables(vocab) {
        parts.push(node("Identity", &["input_ids"], &["x"], &[]));
        parts.push(node("Identity", &["y"], &["inputs_embeds"], &[]));
        let export = open(Part::Embedding, model("input_ids", "inputs_embeds", &parts));
        let name = "model.text_model.embed_tokens.weight";
        let peak = peak_of_strips(&export, name, [vocab, HIDDEN]);
        eprintln!("{what}: {peak} bytes");
        assert!(peak <= most, "{what}: {peak} bytes");
    }
    let head = [
        tensor(
            "n",
            FLOAT,
            &[HIDDEN as u64],
            &1f32.to_le_bytes().repeat(HIDDEN),
        ),
        node(
            "SimplifiedLayerNormalization",
            &["inputs_embeds", "n"],
            &["x"],
            &[],
        ),
        tensor(
            "t",
            FLOAT16,
            &[HIDDEN as u64, vocab as u64],
            &[0, 0x3C].repeat(vocab * HIDDEN),
        ),
        node("MatMul", &["x", "t"], &["logits"], &[]),
    ];
    let export = open(Part::Decoder, model("inputs_embeds", "logits", &head));
    let peak = peak_of_strips(&export, "lm_head.weight", [vocab, HIDDEN]);
    eprintln!("a head on its side: {peak} bytes");
    assert!(peak <= most, "a head on its side: {peak} bytes");
}

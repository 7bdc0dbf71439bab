//! What packing takes beyond the mapped files.

use std::fs::File;
use std::io::BufWriter;

use ocelli_runtime::import::Published;
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_tests::checkpoint::{Checkpoint, Dtype};
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

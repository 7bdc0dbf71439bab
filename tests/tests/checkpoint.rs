//! The Rust generator writes the bytes that `tools/reference/checkpoint.py` wrote.

use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::fixture::{SMALL_FIXTURES, StageFixture, WIDE_FIXTURES};
use tokenizers::Tokenizer;

/// Weight files and tokenizer equal, byte for byte, what Python hashed.
#[test]
fn every_fixture_checkpoint_has_the_recorded_hashes() {
    for name in SMALL_FIXTURES.into_iter().chain(WIDE_FIXTURES) {
        let fixture = StageFixture::load(name);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let hashes = fixture
            .checkpoint()
            .write(dir.path())
            .expect("the folder can be written");
        assert_eq!(hashes, fixture.sha256, "{name}");
    }
}

/// The written tokenizer turns each fixture's prompt into its ids, special tokens at their places.
#[test]
fn every_fixture_prompt_has_the_recorded_ids() {
    for name in SMALL_FIXTURES.into_iter().chain(WIDE_FIXTURES) {
        let fixture = StageFixture::load(name);
        let json = fixture.checkpoint().tokenizer_json();
        let tokenizer = Tokenizer::from_bytes(json).expect("the tokenizer can be read");
        let encoding = tokenizer
            .encode(fixture.prompt.as_str(), false)
            .expect("the prompt can be encoded");
        assert_eq!(encoding.get_ids(), fixture.input_ids, "{name}");
    }
}

/// Another seed is another checkpoint: the hashes can tell.
#[test]
fn the_seed_changes_the_weights() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut checkpoint = Checkpoint::of_fixture("tiny");
    checkpoint.seed += 1;
    let hashes = checkpoint
        .write(dir.path())
        .expect("the folder can be written");
    let recorded = StageFixture::load("tiny").sha256;
    assert_ne!(hashes["model.safetensors"], recorded["model.safetensors"]);
    assert_eq!(hashes["tokenizer.json"], recorded["tokenizer.json"]);
}

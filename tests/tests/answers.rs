//! The embedded default model: the pack is made from its directory, and every sample
//! picture gets the caption that stands beside it.

use ocelli_runtime::image::Rgb8;
use ocelli_runtime::prompt::Message;
use ocelli_runtime::{GenerateOptions, LoadOptions, ModelSource, Precision, PromptRequest, Vlm};
use std::fs;
use std::io::BufWriter;
use std::path::PathBuf;

/// What `ocelli caption` asks when nothing else is said.
const PROMPT: &str = "Can you describe this image?";

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// Sample pictures with their expected captions, sorted.
fn samples() -> Vec<(PathBuf, String)> {
    let mut samples: Vec<(PathBuf, String)> = fs::read_dir(models().join("samples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "png" || e == "jpg"))
        .map(|path| {
            let text = fs::read_to_string(path.with_extension("txt")).unwrap();
            (path, text.trim_end().to_owned())
        })
        .collect();
    samples.sort();
    samples
}

fn captions(precision: Precision, source: PathBuf) -> Vec<String> {
    let options = LoadOptions {
        threads: 2,
        precision,
        verify: true,
        ..LoadOptions::default()
    };
    let vlm = Vlm::load(&ModelSource::Path(source), &options, &mut |_, _| {}).unwrap();
    let mut session = vlm.session().unwrap();
    samples()
        .iter()
        .map(|(path, _)| {
            let request = PromptRequest {
                messages: &[Message::image_and_text(PROMPT)],
                images: &[Rgb8::open(path).unwrap()],
                max_tiles: None,
                answer_tokens: 64,
                keep_stages: false,
            };
            session.prompt(&request, &mut |_| {}).unwrap();
            let options = GenerateOptions {
                max_tokens: 64,
                ..GenerateOptions::default()
            };
            let text = session.generate(options).unwrap().rest().unwrap();
            text.trim().to_owned()
        })
        .collect()
}

#[test]
fn every_sample_picture_gets_its_caption() {
    let expected: Vec<String> = samples().into_iter().map(|(_, text)| text).collect();
    assert!(expected.len() >= 8, "{} sample pictures", expected.len());
    assert_eq!(
        captions(Precision::Int8, models().join("default.ocelli")),
        expected
    );
}

#[test]
fn int8_and_f32_agree_on_most_sample_pictures() {
    let int8 = captions(Precision::Int8, models().join("default.ocelli"));
    let f32 = captions(Precision::F32, models().join("default"));
    let equal = int8.iter().zip(&f32).filter(|(a, b)| a == b).count();
    assert!(
        equal * 10 >= int8.len() * 8,
        "{equal} of {}: {int8:?} {f32:?}",
        int8.len()
    );
}

#[test]
fn the_embedded_pack_is_what_the_packer_makes_of_its_directory() {
    use ocelli_runtime::config::ModelFiles;
    use ocelli_runtime::import::safetensors::Checkpoint;
    use ocelli_runtime::packer::PackOptions;
    let dir = models().join("default");
    let files = ModelFiles::read(&dir).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    ocelli_runtime::packer::pack_model(
        "default",
        &files,
        &checkpoint,
        &PackOptions::default(),
        BufWriter::new(out.as_file()),
        &mut |_, _| {},
    )
    .unwrap();
    ocelli_runtime::probe::put_into(out.as_file(), "default", 1).unwrap();
    let packed = fs::read(out.path()).unwrap();
    let committed = fs::read(models().join("default.ocelli")).unwrap();
    assert!(
        packed == committed,
        "models/default.ocelli is stale; run `ocelli pack models/default -o models/default.ocelli --name default --force`"
    );
}

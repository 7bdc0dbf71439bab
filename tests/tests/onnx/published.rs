//! The graphs as they are in plain tract, against our f32 path on the weights lifted out of them:
//! neither shares a line with the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ocelli_kernels::Compute;
use ocelli_runtime::config::ModelFiles;
use ocelli_runtime::engine::Engine;
use ocelli_runtime::engine::export::{ExportedGraph, Length, Values};
use ocelli_runtime::engine::plain::Array;
use ocelli_runtime::import::onnx::{Graph, OnnxModel, Part};
use ocelli_runtime::reference::ReferenceModel;
use ocelli_tests::closeness::{max_abs_diff, std};
use ocelli_tests::fixture::frame;

use crate::{Case, Expected, checkpoint};

/// A graph of which tract itself, not an operator of ours, types a product wrongly: `Gemm` of f16.
const REFUSED: [&str; 1] = ["named/vision_encoder_fp16.onnx"];

fn graph(path: &Path, lengths: impl Fn(&str) -> Option<Vec<Length>>) -> ExportedGraph {
    ExportedGraph::load(path, lengths).unwrap_or_else(|error| panic!("{error}"))
}

fn run(
    graph: &ExportedGraph,
    give: impl Fn(&str) -> (Vec<usize>, Values),
) -> BTreeMap<String, Array> {
    graph.run(give).unwrap_or_else(|error| panic!("{error}"))
}

/// A case in tract and by our path.
struct Pair<'a> {
    expected: &'a Expected,
    case: &'a Case,
    files: &'a ModelFiles,
    frames: Vec<Vec<u8>>,
}

impl Pair<'_> {
    /// Features and last logits of our f32 path.
    fn ours(&self) -> (Vec<f32>, Vec<f32>) {
        let parts = [Part::Vision, Part::Embedding, Part::Decoder];
        let open = |part| {
            (
                part,
                Graph::open(&self.case.path(part)).expect("a sound file"),
            )
        };
        let model = OnnxModel::of(parts.map(open).into(), &self.files.config);
        let model = model.unwrap_or_else(|error| panic!("{error}"));
        let compute = Arc::new(Compute::new(1).expect("a thread"));
        let model = ReferenceModel::load(self.files, &model, compute).expect("all weights");
        let mut engine = Arc::new(model).start();
        let encoded = self
            .frames
            .iter()
            .map(|frame| engine.encode(frame).expect("it sees"));
        let rows: Vec<f32> = encoded.collect::<Vec<_>>().concat();
        engine
            .append(&self.expected.input_ids, &rows)
            .expect("the prompt fits");
        let mut logits = Vec::new();
        engine.logits(&mut logits).expect("logits");
        (rows, logits)
    }

    /// Image features by tract.
    fn features(&self) -> Vec<f32> {
        let vision = self.files.config.vision.as_ref().expect("it sees");
        let (n, size) = (self.frames.len(), vision.image_size);
        let pixels: Vec<usize> = vec![1, n, 3, size, size];
        let mask: Vec<usize> = vec![1, n, size, size];
        let shape = |name: &str| {
            if name == "pixel_values" {
                pixels.clone()
            } else {
                mask.clone()
            }
        };
        let lengths = |name: &str| Some(shape(name).into_iter().map(Length::Fixed).collect());
        let graph = graph(&self.case.path(Part::Vision), lengths);
        let outputs = run(&graph, |name| {
            if name != "pixel_values" {
                return (shape(name), Values::Flags(vec![true; n * size * size]));
            }
            let mut values = Vec::new();
            for frame in &self.frames {
                for channel in 0..3 {
                    let channel = frame.iter().skip(channel).step_by(3);
                    values.extend(channel.map(|byte| f32::from(*byte) / 127.5 - 1.0));
                }
            }
            (shape(name), Values::Floats(values))
        });
        outputs["image_features"].values.clone()
    }

    /// Embeddings of the prompt by tract, with these rows at the image tokens.
    fn embeddings(&self, rows: &[f32]) -> Vec<f32> {
        let (config, ids) = (&self.files.config, &self.expected.input_ids);
        let lengths = |_: &str| Some(vec![Length::Fixed(1), Length::New]);
        let graph = graph(&self.case.path(Part::Embedding), lengths);
        let wide = ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        let outputs = run(&graph, |_| {
            (vec![1, ids.len()], Values::Integers(wide.clone()))
        });
        let mut embeddings = outputs["inputs_embeds"].values.clone();
        let hidden = config.text.hidden_size;
        let mut rows = rows.chunks_exact(hidden);
        for (id, row) in ids.iter().zip(embeddings.chunks_exact_mut(hidden)) {
            if Some(*id) == config.image_token_id() {
                row.copy_from_slice(rows.next().expect("a row for each image token"));
            }
        }
        embeddings
    }

    /// The last logits by tract, in two steps: a prefill, and more than one token behind it.
    fn logits(&self, rows: &[f32]) -> Vec<f32> {
        let t = &self.files.config.text;
        let (hidden, kv, d) = (t.hidden_size, t.n_kv_heads, t.head_dim);
        let embeddings = self.embeddings(rows);
        let lengths = |name: &str| {
            Some(match name {
                "inputs_embeds" => vec![Length::Fixed(1), Length::New, Length::Fixed(hidden)],
                "attention_mask" => vec![Length::Fixed(1), Length::Total],
                "position_ids" => vec![Length::Fixed(1), Length::New],
                _ => [
                    Length::Fixed(1),
                    Length::Fixed(kv),
                    Length::Past,
                    Length::Fixed(d),
                ]
                .into(),
            })
        };
        let first = graph(&self.case.path(Part::Decoder), lengths);
        let later = graph(&self.case.behind_cache(), lengths);
        let step = |from: usize, to: usize, past: Option<&BTreeMap<String, Array>>| {
            let decoder = if past.is_some() { &later } else { &first };
            run(decoder, |name| match (name, past) {
                ("inputs_embeds", _) => {
                    let part = &embeddings[from * hidden..to * hidden];
                    (vec![1, to - from, hidden], Values::Floats(part.to_vec()))
                }
                ("attention_mask", _) => (vec![1, to], Values::Integers(vec![1; to])),
                ("position_ids", _) => (
                    vec![1, to - from],
                    Values::Integers((from as i64..to as i64).collect()),
                ),
                (_, None) => (vec![1, kv, 0, d], Values::Floats(Vec::new())),
                (name, Some(past)) => {
                    let cache = &past[&name.replace("past_key_values", "present")];
                    (cache.shape.clone(), Values::Floats(cache.values.clone()))
                }
            })
        };
        let n = self.expected.input_ids.len();
        let prefill = step(0, n - 9, None);
        let rest = step(n - 9, n, Some(&prefill));
        let logits = &rest["logits"].values;
        logits[logits.len() - t.vocab_size..].to_vec()
    }
}

#[test]
fn plain_tract_computes_of_the_published_graphs_what_we_compute_of_their_weights() {
    let expected = Expected::load();
    let files = ModelFiles::read(checkpoint().path()).expect("sound files");
    let size = files.config.vision.as_ref().expect("it sees").image_size;
    // Tract has no FusedMatMul.
    let in_tract = |(name, _): &(&String, _)| !name.starts_with("optimised");
    for (name, case) in expected.cases.iter().filter(in_tract) {
        let pair = Pair {
            expected: &expected,
            case,
            files: &files,
            frames: (0..expected.frames).map(|f| frame(size, f)).collect(),
        };
        // The largest differences observed are 1.5e-5, 1.6e-2 and 0.17.
        let bound = match case.arithmetic.as_str() {
            "f32" => 1e-4,
            "f16" => 0.03,
            _ => 0.3,
        };
        let (features, logits) = pair.ours();
        if !REFUSED.contains(&&*case.files[Part::Vision.stem()]) {
            let distance = max_abs_diff(&pair.features(), &features) / std(&features);
            println!("{name}: features {distance:.1e}");
            assert!(
                distance < bound,
                "{name}: features differ by {distance} std"
            );
        }
        let distance = max_abs_diff(&pair.logits(&features), &logits) / std(&logits);
        println!("{name}: logits {distance:.1e}");
        assert!(distance < bound, "{name}: logits differ by {distance} std");
    }
}

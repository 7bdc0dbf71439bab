//! Files whose layers lie on a symmetric 4-bit grid keep it, from the file to the answer.

use ocelli_kernels::{Compute, int8_gemm};
use ocelli_runtime::constrain::{Grammar, Guide, Step, TokenTrie};
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::{
    BASIS_VERSION, FORMAT_VERSION, Layout, Pack, StreamBasis, WeightScheme,
};
use ocelli_runtime::packer::{self, CalibrationText, OnGrid, PackOptions, Packed};
use ocelli_runtime::probe::{Depth, Probes};
use ocelli_runtime::sampler::log_probability;
use ocelli_runtime::weights::Region;
use ocelli_runtime::{GenerateOptions, LoadOptions, ModelSource, Precision, Session, Vlm, Written};
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::closeness::{assert_alike, cosine};
use ocelli_tests::command::ocelli;
use ocelli_tests::fixture::frame;
use ocelli_tests::gguf::convert::{Storage, write_changed_fixture};
use serde_json::Value;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const IDS: [u32; 9] = [1, 17, 240, 33, 8, 399, 120, 121, 77];
/// A document with text that has no alternative, and values of which few tokens may be.
const FORM: &str = r#"{"type":"object","properties":{"kind_of_thing":{"type":"string","enum":["cat","cab","dog"]},"how_many_there_are":{"type":"integer","minimum":1,"maximum":999},"what_it_says":{"type":"string","maxLength":6}},"required":["kind_of_thing","how_many_there_are","what_it_says"]}"#;
/// Most tokens of an answer that follows a form.
const BUDGET: usize = 100;

/// GGUF files of a fixture's checkpoint.
struct Files {
    dir: TempDir,
    text: PathBuf,
    projector: PathBuf,
}

impl Files {
    fn new(fixture: &str, storage: Storage) -> Files {
        Files::changed(fixture, storage, &|_, _| ())
    }

    /// With weights that `change` has seen by their published names.
    fn changed(fixture: &str, storage: Storage, change: &dyn Fn(&str, &mut [f32])) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let paths = write_changed_fixture(fixture, storage, dir.path(), change);
        let [text, projector] = paths.unwrap();
        Files {
            dir,
            text,
            projector,
        }
    }

    fn packed(&self, options: &PackOptions) -> Packed<Vec<u8>> {
        let model = Published::open(&self.text, Some(&self.projector), None).unwrap();
        let (files, weights) = (&model.files, &*model.weights);
        let out = Cursor::new(Vec::new());
        let packed = packer::pack_model("x", files, weights, options, out, &mut |_, _| {});
        let packed = packed.unwrap();
        Packed {
            out: packed.out.into_inner(),
            refusal: packed.refusal,
            weights: packed.weights,
            on_grid: packed.on_grid,
            threads: packed.threads,
        }
    }

    fn pack(&self, options: &PackOptions) -> Arc<Pack> {
        open(self.packed(options).out)
    }

    fn f32(&self) -> Vlm {
        let source = ModelSource::WithProjector(self.text.clone(), self.projector.clone());
        let options = LoadOptions {
            precision: Precision::F32,
            ..LoadOptions::default()
        };
        Vlm::load(&source, &options, &mut |_, _| {}).unwrap()
    }
}

fn open(bytes: Vec<u8>) -> Arc<Pack> {
    Arc::new(Pack::from_region(Region::from_vec(bytes), "test").unwrap())
}

fn started(pack: &Arc<Pack>) -> Vlm {
    Vlm::from_pack(pack.clone(), Arc::new(Compute::new(1).unwrap())).unwrap()
}

/// Greedy tokens after the ids.
fn greedy(session: &mut Session) -> Vec<u32> {
    let options = GenerateOptions {
        max_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut generation = session.generate(options).unwrap();
    generation.rest().unwrap();
    generation.tokens().to_vec()
}

/// Logits after the ids, and the greedy tokens that follow.
fn answer(vlm: &Vlm) -> (Vec<f32>, Vec<u32>) {
    let mut session = vlm.session().unwrap();
    session.extend(&IDS).unwrap();
    let logits = session.logits().unwrap();
    (logits, greedy(&mut session))
}

#[test]
fn layers_on_a_4_bit_grid_keep_it_unless_int8_is_asked_for() {
    let tiny = Files::new("tiny", Storage::Q4_0);
    let layouts = |options: &PackOptions| {
        let packed = tiny.packed(options);
        let version = packed.out[8];
        let pack = open(packed.out);
        let layers = pack.header().tensors.iter().filter(|tensor| {
            tensor.layout.is_panels()
                && tensor.name.starts_with("text.")
                && tensor.name != "text.head"
        });
        let int4 = layers.clone().filter(|t| t.layout == Layout::Int4Panels);
        let grouped = layers.clone().filter(|t| t.group > 0).count();
        assert_eq!(packed.weights, pack.weights());
        let counts = [layers.clone().count(), int4.count(), grouped];
        (
            u32::from(version),
            pack.header().basis,
            counts,
            packed.on_grid,
        )
    };
    let kept = OnGrid {
        kept: 10,
        matrices: 10,
    };
    for weights in [None, Some(WeightScheme::Int4)] {
        let options = PackOptions {
            weights,
            calibration: CalibrationText::None,
            ..PackOptions::default()
        };
        let found = layouts(&options);
        let published = StreamBasis::Published;
        assert_eq!(found, (BASIS_VERSION, published, [10; 3], Some(kept)));
    }
    let rotated = StreamBasis::Rotated;
    let int8 = layouts(&WeightScheme::Int8.into());
    assert_eq!(int8, (FORMAT_VERSION, rotated, [8, 0, 2], None));
    let again = PackOptions {
        rounds_again: true,
        ..WeightScheme::Int4.into()
    };
    assert_eq!(layouts(&again), (FORMAT_VERSION, rotated, [10, 8, 2], None));
    // The same numbers on no grid.
    let floats = Files::new("tiny", Storage::Q8_0).pack(&PackOptions::default());
    assert_eq!(floats.header().basis, StreamBasis::Rotated);
    assert_eq!(floats.weights(), WeightScheme::Int8);
}

#[test]
fn a_kept_grid_stays_near_the_f32_path_of_its_file() {
    for fixture in ["tiny", "gqa5"] {
        let files = Files::new(fixture, Storage::Q4_0);
        let (exact, _) = answer(&files.f32());
        let closeness = |options: &PackOptions| {
            let (logits, _) = answer(&started(&files.pack(options)));
            cosine(&logits, &exact)
        };
        let kept = closeness(&PackOptions::default());
        let again = closeness(&PackOptions {
            rounds_again: true,
            ..WeightScheme::Int4.into()
        });
        println!("{fixture}: {kept:.6}, rounded again {again:.6}");
        assert!(kept > 0.9995 && again < kept, "{fixture}: {kept} {again}");
    }
}

/// Without a rotation, channels that stand out stay in their places: the scales by groups keep their
/// error to their neighbours.
#[test]
fn channels_that_stand_out_cost_their_group_alone() {
    let change = |name: &str, values: &mut [f32]| {
        let is_norm = name.ends_with("layernorm.weight") && name.contains("text_model");
        if is_norm {
            values[3] *= 200.0;
        }
    };
    let files = Files::changed("gqa5", Storage::Q4_0, &change);
    let (exact, _) = answer(&files.f32());
    let (kept, _) = answer(&started(&files.pack(&PackOptions::default())));
    let closeness = cosine(&kept, &exact);
    println!("{closeness}");
    assert!(closeness > 0.999, "{closeness}");
}

#[test]
fn every_kernel_gives_the_tokens_of_the_scalar_one() {
    let pack = Files::new("tiny", Storage::Q4_0).pack(&PackOptions::default());
    let run = |kernel: &str, threads| {
        let compute = Compute::with_kernel(threads, kernel).unwrap();
        let vlm = Vlm::from_pack(pack.clone(), Arc::new(compute)).unwrap();
        assert_eq!(vlm.weights_name(), "int4");
        answer(&vlm)
    };
    let names = int8_gemm::available().map(|kernels| kernels.gemm.name());
    assert_alike("scalar-qd8qc8w-1x8", names, run);
}

/// Logits after tokens whose decode steps go between prompts, twice from the same state.
#[test]
fn one_token_at_a_time_gives_the_logits_of_all_at_once() {
    let vlm = started(&Files::new("gqa5", Storage::Q4_0).pack(&PackOptions::default()));
    let (expected, _) = answer(&vlm);
    let mut session = vlm.session().unwrap();
    for id in IDS {
        session.extend(&[id]).unwrap();
    }
    let found = session.logits().unwrap();
    let closeness = cosine(&found, &expected);
    assert!(closeness > 0.9999, "{closeness}");
    assert_eq!(session.logits().unwrap(), found, "asking changes nothing");
    // The likeliest token is found without most logits.
    let best = (0..found.len()).max_by(|a, b| found[*a].total_cmp(&found[*b]));
    assert_eq!(greedy(&mut session)[0] as usize, best.unwrap());
}

#[test]
fn pictures_reach_the_decoder_in_the_basis_of_the_published_model() {
    let files = Files::new("tiny", Storage::Q4_0);
    let look = |vlm: &Vlm| {
        let size = vlm.config().vision.as_ref().unwrap().image_size;
        let token = vlm.config().image_token_id().unwrap();
        let n_tokens = vlm.config().image_tokens_per_tile();
        let ids = [&[1][..], &vec![token; n_tokens], &IDS[1..]].concat();
        let mut session = vlm.session().unwrap();
        let stages = session.prompt_ids(&ids, &[frame(size, 0)]).unwrap();
        (stages.image_features, stages.logits)
    };
    let (features, logits) = look(&files.f32());
    let kept = look(&started(&files.pack(&PackOptions::default())));
    let int8 = look(&started(&files.pack(&WeightScheme::Int8.into())));
    // The vision side is the same, but for the basis it writes to.
    assert!(cosine(&kept.0, &int8.0) > 0.9999);
    assert!(cosine(&kept.0, &features) > 0.999);
    let closeness = cosine(&kept.1, &logits);
    assert!(closeness > 0.999, "{closeness}");
}

/// What a session says that has read the ids.
fn asked(vlm: &Vlm) -> Session {
    let mut session = vlm.session().unwrap();
    session.extend(&IDS).unwrap();
    session
}

/// An answer that follows a form, by all logits after every token that is asked for.
fn written_by_all_logits(vlm: &Vlm, grammar: &Grammar) -> Written {
    let trie = TokenTrie::new(vlm.tokenizer().text_tokens());
    let mut session = asked(vlm);
    let mut guide = Guide::new(grammar, &trie, BUDGET).unwrap();
    let mut waiting = Vec::new();
    loop {
        waiting.extend(guide.take_certain(|text| vlm.tokenizer().encode(text).unwrap()));
        session.extend(&waiting).unwrap();
        waiting.clear();
        match guide.next(&session.logits().unwrap()) {
            Step::Token(token) if !guide.is_over() => waiting.push(token),
            _ => return guide.finish(),
        }
    }
}

/// Few rows of the head are read, which has a basis of its own, and text without an alternative goes
/// through the decoder together.
#[test]
fn forms_are_written_as_all_logits_have_them() {
    let grammars = [
        Grammar::json(FORM).unwrap(),
        Grammar::one_of(&["nothing", "no", "a cat", "a car", "two cats"]).unwrap(),
        Grammar::integer(-20, 400).unwrap(),
    ];
    for fixture in ["tiny", "gqa5"] {
        let pack = Files::new(fixture, Storage::Q4_0).pack(&PackOptions::default());
        assert_eq!(pack.header().basis, StreamBasis::Published);
        let head = pack.header().tensors.iter().find(|t| t.name == "text.head");
        // Of a head in another layout all logits are computed.
        assert_eq!(head.unwrap().layout, Layout::NibblePanels);
        for kernels in int8_gemm::available() {
            let name = kernels.gemm.name();
            let compute = Compute::with_kernel(1, name).unwrap();
            let vlm = Vlm::from_pack(pack.clone(), Arc::new(compute)).unwrap();
            for grammar in &grammars {
                let mut session = asked(&vlm);
                let written = session.write(grammar, BUDGET).unwrap();
                let expected = written_by_all_logits(&vlm, grammar);
                assert_eq!(written, expected, "{fixture}, {name}");
                let mut alone = asked(&vlm);
                for id in &session.ids()[IDS.len()..] {
                    alone.extend(&[*id]).unwrap();
                }
                let closeness = cosine(&session.logits().unwrap(), &alone.logits().unwrap());
                println!("{fixture}, {name}: {closeness}");
                assert!(closeness > 0.9999, "{fixture}, {name}: {closeness}");
            }
        }
    }
}

/// The answers are gone through from the same prompt, which is left as it was.
#[test]
fn closed_answers_have_the_probabilities_of_all_logits() {
    let choices = ["a cat", "a car", "nothing", "two"].map(str::to_owned);
    for fixture in ["tiny", "gqa5"] {
        let vlm = started(&Files::new(fixture, Storage::Q4_0).pack(&PackOptions::default()));
        let mut session = asked(&vlm);
        let scores = session.score(&choices).unwrap();
        let weights = session.weigh(&choices.each_ref().map(|choice| vec![choice.clone()]));
        let weights = weights.unwrap();
        // Without a stop token behind them, and with one.
        let expected = choices.each_ref().map(|choice| {
            let mut fresh = asked(&vlm);
            let mut sum = 0.0;
            for id in vlm.tokenizer().encode(&format!(" {choice}")).unwrap() {
                sum += log_probability(&fresh.logits().unwrap(), id);
                fresh.extend(&[id]).unwrap();
            }
            let logits = fresh.logits().unwrap();
            let stops = vlm.generation().stop_token_ids.iter();
            let stops = stops.map(|id| log_probability(&logits, *id));
            (sum, sum + stops.reduce(f64::max).unwrap())
        });
        let best = expected.iter().fold(f64::NEG_INFINITY, |m, e| m.max(e.0));
        for ((score, weight), (alone, ended)) in scores.iter().zip(weights).zip(expected) {
            let apart = (score.log_probability - ended).abs();
            assert!(apart < 1e-6, "{fixture}: {score:?} instead of {ended}");
            // Far behind the best one it is a bound.
            let is_right = (weight - alone).abs() < 1e-6 || (alone < best - 14.0 && weight > alone);
            assert!(is_right, "{fixture}: {score:?} {weight} instead of {alone}");
        }
        let mut fresh = asked(&vlm);
        assert_eq!(session.logits().unwrap(), fresh.logits().unwrap());
        assert_eq!(greedy(&mut session), greedy(&mut fresh), "{fixture}");
    }
}

#[test]
fn a_matrix_off_the_grid_is_rounded_to_int8_where_it_stands() {
    let files = Files::new("tiny", Storage::Q4_0);
    let mut bytes = std::fs::read(&files.text).unwrap();
    let (exact, _) = answer(&files.f32());
    for calibration in [CalibrationText::None, CalibrationText::BuiltIn] {
        let options = PackOptions {
            exceptions: vec!["text.1.down".to_owned(), "text.0.v".to_owned()],
            calibration,
            ..PackOptions::default()
        };
        let packed = files.packed(&options);
        let kept = OnGrid {
            kept: 8,
            matrices: 10,
        };
        assert_eq!(packed.on_grid, Some(kept));
        let pack = open(packed.out);
        let layout = |name: &str| {
            let tensor = pack.header().tensors.iter().find(|t| t.name == name);
            tensor.unwrap().layout
        };
        assert_eq!(layout("text.1.down"), Layout::Panels);
        assert_eq!(layout("text.0.down"), Layout::Int4Panels);
        let closeness = cosine(&answer(&started(&pack)).0, &exact);
        assert!(closeness > 0.9995, "{closeness}");
    }
    // A scale that is no number is an error of the file, as with any other pack.
    let at = bytes.len() - 18 * 4;
    bytes[at..at + 2].copy_from_slice(&0x7E00u16.to_le_bytes());
    std::fs::write(&files.text, bytes).unwrap();
    let model = Published::open(&files.text, Some(&files.projector), None).unwrap();
    let out = Cursor::new(Vec::new());
    let (small, weights) = (&model.files, &*model.weights);
    let options = PackOptions::default();
    let error = packer::pack_model("x", small, weights, &options, out, &mut |_, _| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("NaN"), "{error}");
}

#[test]
fn probes_hold_on_every_kernel() {
    let pack = Files::new("tiny", Storage::Q4_0).pack(&PackOptions::default());
    let scalar = Probes::make(&pack, 1).unwrap();
    let products = scalar.products.iter().map(|probe| probe.tensor.as_str());
    assert!(products.into_iter().any(|tensor| tensor == "text.0.qk"));
    for kernels in int8_gemm::available() {
        let compute = Compute::with_kernel(1, kernels.gemm.name()).unwrap();
        let checked = scalar.check(&pack, &Arc::new(compute), Depth::Whole);
        checked.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_file_is_packed_shown_and_asked_by_command() {
    let files = Files::new("tiny", Storage::Q4_0);
    let pack = files.dir.path().join("kept.ocelli").display().to_string();
    let source = files.text.display().to_string();
    let projector = files.projector.display().to_string();
    let run = |args: &[&str], code| {
        let outcome = ocelli(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {}", outcome.stderr);
        outcome
    };
    let line =
        |text: &str| -> Value { serde_json::from_str(text.lines().last().unwrap()).unwrap() };
    let from = ["pack", &source, "--mmproj", &projector, "-o", &pack];
    let packed = run(&[&from[..], &["--json"]].concat(), 0);
    let report = line(&packed.stdout);
    assert_eq!(
        (&report["weights"], &report["kept_matrices"]),
        (&"int4".into(), &10.into())
    );
    let remark = "10 of 10 matrices of the decoder's layers keep the 4-bit grid of their file;";
    assert!(packed.stderr.contains(remark), "{}", packed.stderr);
    run(&["models", "verify", &pack], 0);
    let spare = ["--force", "--weights", "int4", "--spare", "10"];
    let refused = run(&[&from[..], &spare].concat(), 2);
    let remark = "--spare 10: the layers keep the 4-bit grid of their file";
    assert!(refused.stderr.contains(remark), "{}", refused.stderr);

    let question = ["ask", "--text", "Who?", "--max-tokens", "4", "--json"];
    let ask = |model: &[&str]| line(&run(&[&question[..], model].concat(), 0).stdout);
    let from_pack = ask(&["-m", &pack]);
    let in_memory = ask(&["-m", &source, "--mmproj", &projector]);
    assert_eq!(in_memory["weights"], "int4");
    assert_eq!(in_memory["prompt_tokens"], from_pack["prompt_tokens"]);
    let int8 = ask(&["-m", &source, "--mmproj", &projector, "--weights", "int8"]);
    assert_eq!(int8["weights"], "int8");
}

#[test]
fn a_directory_of_floats_is_packed_as_before() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::of_fixture("tiny").write(dir.path()).unwrap();
    let out = Cursor::new(Vec::new());
    let options = PackOptions::default();
    let bytes = packer::pack_directory(dir.path(), &options, out, &mut |_, _| {}).unwrap();
    let bytes = bytes.into_inner();
    assert_eq!(u32::from(bytes[8]), FORMAT_VERSION);
    assert_eq!(open(bytes).header().basis, StreamBasis::Rotated);
}

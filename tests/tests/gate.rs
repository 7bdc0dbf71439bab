//! The gate: probes made with the scalar kernels hold on every kernel, and catch a wrong kernel and
//! wrong weights.

use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use ocelli_agent::cli::{Cli, Verb};
use ocelli_agent::verbs;
use ocelli_kernels::faults::Fault;
use ocelli_kernels::{Compute, int8_gemm};
use ocelli_runtime::pack::Pack;
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_runtime::probe::{self, BLOB, Depth, ProbeError, Probes, TOLERANCE};
use ocelli_runtime::weights::Region;
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::command::binary;
use tempfile::TempDir;

/// Packs the `tiny` checkpoint with probes.
fn write_pack(path: &Path) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = Checkpoint::of_fixture("tiny");
    checkpoint.write(dir.path()).expect("a checkpoint");
    let mut options = fs::File::options();
    let file = options.read(true).write(true).create_new(true).open(path);
    let file = file.expect("a file");
    let out = BufWriter::new(&file);
    packer::pack_directory(dir.path(), &PackOptions::default(), out, &mut |_, _| {})
        .expect("a sound directory");
    probe::put_into(&file, "the test pack", 1).expect("probes");
}

/// The bytes of that pack.
fn sealed() -> &'static [u8] {
    static PACK: OnceLock<Vec<u8>> = OnceLock::new();
    PACK.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("tiny.ocelli");
        write_pack(&path);
        fs::read(path).expect("a pack")
    })
}

fn open(bytes: Vec<u8>) -> Arc<Pack> {
    Arc::new(Pack::from_region(Region::from_vec(bytes), "the test pack").expect("a pack"))
}

fn probes(pack: &Pack) -> Probes {
    Probes::of(pack).expect("sound probes").expect("some")
}

fn kernel_names() -> Vec<&'static str> {
    int8_gemm::available().map(|k| k.gemm.name()).collect()
}

/// The pack with some weights of a matrix changed: in the panels that are probed, or in the first.
fn with_wrong_weights(tensor: &str) -> Vec<u8> {
    let mut bytes = sealed().to_vec();
    let pack = open(bytes.clone());
    let entry = pack.header().tensors.iter().find(|e| e.name == tensor);
    let entry = entry.unwrap_or_else(|| panic!("{tensor} is a tensor"));
    let stride = entry.len as usize / entry.shape[0].div_ceil(8);
    let probes = probes(&pack).products;
    let panel = probes.iter().find(|probe| probe.tensor == tensor);
    let panel = panel.map_or(0, |probe| probe.panel);
    let start = pack.data_start() + entry.offset as usize + panel * stride;
    for byte in &mut bytes[start..][..stride] {
        *byte ^= 0x55;
    }
    bytes
}

fn mismatch(error: ProbeError) -> String {
    match error {
        ProbeError::Mismatch { .. } => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn probes_made_with_the_scalar_kernels_hold_on_every_kernel() {
    let pack = open(sealed().to_vec());
    pack.verify()
        .expect("checksums hold with the probes put in");
    let scalar = probes(&pack);
    assert!(scalar.products.len() >= 11 && scalar.vision.is_some());
    for name in kernel_names() {
        for threads in [1, 2] {
            let compute = Arc::new(Compute::with_kernel(threads, name).expect("a kernel"));
            let checked = scalar.check(&pack, &compute, Depth::Whole);
            checked.unwrap_or_else(|error| panic!("{error}"));
            let own = Probes::computed_by(&pack, &compute).expect("probes");
            assert_eq!(own.products, scalar.products, "{name}");
            let (logits, features) = own.distance(&scalar);
            eprintln!("{name}: logits {logits}, image features {features}");
            assert!(logits.max(features) < TOLERANCE / 2.0, "{name}");
        }
    }
}

#[test]
fn a_kernel_that_is_off_by_one_bit_is_named_with_the_way_out() {
    let pack = open(sealed().to_vec());
    for name in kernel_names() {
        for (fault, tensor, tokens) in [
            (Fault::Gemv, "vision.patch_embed", "1 tokens"),
            (Fault::Gemm, "vision.patch_embed", "13 tokens"),
            (Fault::Nibbles, "text.head", "1 tokens"),
        ] {
            let compute = Compute::with_fault(1, name, fault).expect("a kernel");
            let checked = probes(&pack).check(&pack, &Arc::new(compute), Depth::Products);
            let message = mismatch(checked.expect_err("a wrong kernel"));
            for wanted in [
                "the test pack",
                &format!("kernel {name} "),
                &format!("tensor {tensor}: "),
                tokens,
                "it must be",
                "pack or copy the model again",
            ] {
                assert!(message.contains(wanted), "{message:?}: {wanted:?}");
            }
            for other in kernel_names() {
                let offered = message.split("OCELLI_KERNEL=").nth(1);
                let offered = offered.is_some_and(|rest| rest.contains(other));
                assert_eq!(offered, other != name, "{message:?}");
            }
        }
    }
}

#[test]
fn wrong_weights_anywhere_are_noticed() {
    for (tensor, probe) in [
        ("text.0.qkv", "text.0.qkv"),
        ("text.1.down", "the decoder"),
        ("text.1.gate_up", "the decoder"),
        ("vision.1.qkv", "the vision tower"),
        ("vision.1.fc2", "the vision tower"),
    ] {
        let pack = open(with_wrong_weights(tensor));
        let compute = Arc::new(Compute::new(1).expect("a kernel"));
        let checked = probes(&pack).check(&pack, &compute, Depth::Whole);
        match checked {
            Ok(()) => panic!("{tensor} is believed"),
            Err(error) => {
                let message = mismatch(error);
                assert!(message.contains(probe), "{tensor}: {message}");
            }
        }
    }
}

/// What is changed in the probes, and what the error says.
type Lie = (fn(&mut Probes), &'static str);

#[test]
fn probes_that_lie_are_refused() {
    let blob = |change: fn(&mut Probes)| {
        let mut probes = probes(&open(sealed().to_vec()));
        change(&mut probes);
        let mut blob = postcard::to_stdvec(&probes).expect("probes can be written");
        blob.resize(probe::BLOB_BYTES, 0);
        with_blob(&blob)
    };
    let cases: [Lie; 4] = [
        (|p| p.text.ids[0] = u32::MAX, "token 4294967295"),
        (|p| p.text.logits[0].0 = u32::MAX, "token 4294967295"),
        (|p| p.text.ids = vec![1; 40], "the limit is"),
        (|p| p.text.ids.clear(), "no text tokens"),
    ];
    for (change, wanted) in cases {
        let message = Probes::of(&blob(change)).expect_err("a lie").to_string();
        assert!(message.contains(wanted), "{message:?}: {wanted:?}");
    }
    let runs: [Lie; 2] = [
        (|p| p.products[0].panel = usize::MAX, "does not have"),
        (
            |p| p.products[0].tensor = "text.embed".into(),
            "which is none",
        ),
    ];
    for (change, wanted) in runs {
        let pack = blob(change);
        let compute = Arc::new(Compute::new(1).expect("a kernel"));
        let checked = probes(&pack).check(&pack, &compute, Depth::Products);
        let message = checked.expect_err("a lie").to_string();
        assert!(message.contains(wanted), "{message:?}: {wanted:?}");
    }
    let cut = with_blob(&[0xFF; probe::BLOB_BYTES]);
    assert!(Probes::of(&cut).is_err());
    let none = with_blob(&[0; probe::BLOB_BYTES]);
    assert_eq!(Probes::of(&none).expect("no probes"), None);
}

/// The pack with another blob of probes.
fn with_blob(blob: &[u8]) -> Arc<Pack> {
    let mut bytes = sealed().to_vec();
    let pack = open(bytes.clone());
    let entry = pack.header().tensors.iter().find(|e| e.name == BLOB);
    let start = pack.data_start() + entry.expect("room for probes").offset as usize;
    bytes[start..][..blob.len()].copy_from_slice(blob);
    open(bytes)
}

/// Runs the command with a cache folder of its own; exit code and what it said.
fn run(cache: &TempDir, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary())
        .args(args)
        .env("XDG_CACHE_HOME", cache.path())
        .env_remove("CACHE_DIRECTORY")
        .output()
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into())
}

#[test]
fn the_command_refuses_a_model_at_its_start_and_remembers_what_held() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cache = tempfile::tempdir().expect("a temporary folder");
    let (sound, wrong) = (
        dir.path().join("sound.ocelli"),
        dir.path().join("wrong.ocelli"),
    );
    fs::write(&sound, sealed()).expect("a file");
    fs::write(&wrong, with_wrong_weights("text.0.qkv")).expect("a file");
    let picture = dir.path().join("p.ppm");
    fs::write(&picture, [b"P6 2 2 255\n".as_slice(), &[9; 12]].concat()).expect("a picture");
    let caption = |cache: &TempDir, model: &Path| {
        let picture = picture.to_str().expect("UTF-8");
        let model = model.to_str().expect("UTF-8");
        run(
            cache,
            &["caption", picture, "--max-tokens", "1", "--model", model],
        )
    };
    let (code, said) = caption(&cache, &wrong);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("tensor text.0.qkv"), "{said}");
    assert!(
        !cache.path().join("ocelli").exists(),
        "nothing is remembered"
    );

    let (code, said) = caption(&cache, &sound);
    assert_eq!(code, Some(0), "{said}");
    let marks = fs::read_dir(cache.path().join("ocelli/probes")).expect("marks");
    assert_eq!(marks.count(), 1);
    // The same header: what held is not run again, which is how this shows.
    assert_eq!(caption(&cache, &wrong).0, Some(0));

    let (code, said) = run(
        &cache,
        &["models", "--verify", sound.to_str().expect("UTF-8")],
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("probes hold"), "{said}");
}

/// `ocelli pack` of this command line on these kernels: exit code and what it says.
fn pack_on(kernels: Compute, line: &[&str]) -> (u8, String) {
    let cli = Cli::try_parse_from(["ocelli", "pack"].iter().chain(line)).expect("a command line");
    let Verb::Pack(args) = &cli.verb else {
        panic!("another verb")
    };
    match verbs::pack::run_on(&cli.global, args, &Arc::new(kernels)) {
        Ok(()) => (0, String::new()),
        Err(fault) => (fault.exit_code(), fault.to_string()),
    }
}

#[test]
fn packing_on_a_wrong_kernel_names_it_and_leaves_nothing_behind() {
    let (source, target) = (tempfile::tempdir(), tempfile::tempdir());
    let (source, target) = (source.expect("a folder"), target.expect("a folder"));
    let checkpoint = Checkpoint::of_fixture("tiny");
    checkpoint.write(source.path()).expect("a checkpoint");
    let out = target.path().join("tiny.ocelli");
    let line = [source.path(), Path::new("-o"), &out].map(|part| part.to_str().expect("UTF-8"));
    let line = [&line[..], &["--quiet", "--calibration", "none"]].concat();
    let left = || -> Vec<_> {
        let entries = fs::read_dir(target.path()).expect("a folder");
        entries.map(|e| e.expect("an entry").file_name()).collect()
    };
    let wrong = |name, fault| Compute::with_fault(1, name, fault).expect("a kernel");
    for name in kernel_names() {
        for fault in [Fault::Gemv, Fault::Gemm, Fault::Nibbles] {
            let (code, said) = pack_on(wrong(name, fault), &line);
            assert_eq!(code, 3, "{said}");
            for wanted in [&format!("kernel {name} "), line[2]] {
                assert!(said.contains(wanted), "{said:?}: {wanted:?}");
            }
            assert!(left().is_empty(), "{:?}", left());
        }
    }
    fs::write(&out, "an older pack").expect("a file");
    let (code, said) = pack_on(
        wrong(kernel_names()[0], Fault::Gemm),
        &[&line[..], &["--force"]].concat(),
    );
    assert_eq!(code, 3, "{said}");
    assert_eq!(left(), ["tiny.ocelli"]);
    assert_eq!(fs::read(&out).expect("the old file"), b"an older pack");

    let sound = Compute::new(1).expect("a kernel");
    let (code, said) = pack_on(sound, &[&line[..], &["--force"]].concat());
    assert_eq!(code, 0, "{said}");
    assert_eq!(left(), ["tiny.ocelli"]);
    assert!(Probes::of(&open(fs::read(&out).expect("a pack"))).is_ok_and(|p| p.is_some()));
}

//! `ocelli pull` and `ocelli models` as a user runs them.

use crate::names;
use crate::server::{Body, COMMIT, Published, Reply, Server, content, sha256};
use ocelli_runtime::packer::{self, PackOptions};
use ocelli_tests::checkpoint::Checkpoint;
use ocelli_tests::command::{Outcome, binary, ocelli_with};
use ocelli_tests::fixture;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The weights of the tiny model.
const WEIGHTS: &str = "model.safetensors";

/// The files of a tiny model.
pub(crate) fn tiny() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Checkpoint::of_fixture("tiny")
            .write(dir.path())
            .expect("the folder can be written");
        let name_and_bytes = |name: String| {
            let bytes = fs::read(dir.path().join(&name)).expect("a file");
            (name, bytes)
        };
        names(dir.path()).into_iter().map(name_and_bytes).collect()
    })
}

/// The pack of that model.
pub(crate) fn tiny_pack() -> &'static [u8] {
    static PACK: OnceLock<Vec<u8>> = OnceLock::new();
    PACK.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Checkpoint::of_fixture("tiny")
            .write(dir.path())
            .expect("the folder can be written");
        let pack = packer::pack_directory(
            dir.path(),
            &PackOptions::default(),
            Cursor::new(Vec::new()),
            &mut |_, _| {},
        );
        pack.expect("it can be packed").into_inner()
    })
}

pub(crate) fn published() -> Published {
    Published {
        files: tiny().clone(),
    }
}

/// Homes of a user who never used a hub.
pub(crate) struct Home {
    dir: TempDir,
    endpoint: String,
}

impl Home {
    pub(crate) fn new(server: &Server) -> Home {
        Home {
            dir: tempfile::tempdir().expect("a temporary folder"),
            endpoint: server.endpoint(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.path("models")
    }

    /// Installed packs and whatever else does not belong there.
    pub(crate) fn installed(&self) -> Vec<String> {
        let mut names = names(&self.models());
        names.retain(|name| !name.ends_with(".lock") && name != ".records");
        names
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("HF_ENDPOINT", &self.endpoint)
            .env("OCELLI_MODELS", self.models())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        ocelli_with(self.command(args))
    }

    /// Pulls without pauses.
    pub(crate) fn pull(&self, args: &[&str]) -> Outcome {
        self.run(&[&["pull", "owner/name", "--pause", "0s"], args].concat())
    }

    fn blobs(&self) -> Vec<String> {
        names(&self.path(".cache/huggingface/hub/models--owner--name/blobs"))
    }
}

pub(crate) fn assert_done(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

pub(crate) fn assert_fails(outcome: &Outcome, code: i32, wanted: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    for part in wanted {
        assert!(outcome.stderr.contains(part), "{part:?}: {outcome:?}");
    }
}

pub(crate) fn events(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

#[test]
fn a_pulled_model_is_packed_installed_and_answers() {
    let server = Server::good(published());
    let home = Home::new(&server);
    let outcome = home.pull(&["--json", "--name", "porch"]);
    assert_done(&outcome);
    let events = events(&outcome);
    let last = events.last().expect("an event");
    assert_eq!(last["event"], "installed", "{last}");
    assert_eq!(last["commit"], COMMIT);
    let files = events.iter().filter(|event| event["event"] == "file");
    assert!(files.count() >= 4, "{events:?}");
    assert_eq!(home.installed(), ["porch.ocelli"]);
    // What is installed is what `ocelli pack` makes of the same files.
    let verified = home.run(&["models", "verify", "porch", "--json"]);
    assert_done(&verified);
    let line = &self::events(&verified)[0];
    assert_eq!(line["verified"], true, "{line}");
    assert_eq!(line["source"], "owner/name");
    assert_eq!(line["commit"], COMMIT);
    assert_eq!(line["licence"], "apache-2.0");
    let asked = home.run(&["ask", "--text", "What?", "-m", "porch", "--max-tokens", "2"]);
    assert_done(&asked);
    // Again: the hub is asked for the revision alone.
    let before = server.log().len();
    let again = home.pull(&["--name", "porch"]);
    assert_done(&again);
    assert!(again.stderr.contains("installed already"), "{again:?}");
    assert_eq!(server.log().len(), before + 1);
}

#[test]
fn another_commit_or_format_is_installed_anew() {
    const OTHER: &str = "0123456789abcdef0123456789abcdef01234567";
    let mut hub = published();
    hub.files
        .insert("porch.ocelli".to_owned(), tiny_pack().to_vec());
    let server = Server::start(move |request, before| {
        if request.path.contains("/api/") {
            let mut listing = hub.listing();
            if before > 0 {
                listing["sha"] = OTHER.into();
            }
            return Reply::new(200, listing.to_string());
        }
        let mut request = request.clone();
        request.path = request.path.replace(OTHER, COMMIT);
        hub.answer(&request)
    });
    let home = Home::new(&server);
    for (args, commit, was_there) in [
        (&["--json"][..], COMMIT, false),
        (&["--json"], OTHER, false),
        (&["--json"], OTHER, true),
        (&["--json", "--format", "pack"], OTHER, false),
        (&["--json", "--format", "pack"], OTHER, true),
        (&["--json", "--format", "pack", "--force"], OTHER, false),
    ] {
        let outcome = home.pull(args);
        assert_done(&outcome);
        let last = events(&outcome).pop().expect("an event");
        assert_eq!(last["commit"], commit, "{args:?}: {last}");
        assert_eq!(last["was_there"], was_there, "{args:?}: {last}");
    }
    // What the commits have in common came once.
    let log = server.log();
    let weights = log
        .iter()
        .filter(|request| request.path.ends_with(WEIGHTS))
        .count();
    assert_eq!(weights, 1);
}

/// An ONNX model: the small files of the fixtures' checkpoint, and these parts of a variant.
fn export(parts: &[(&str, &str)]) -> Published {
    let dir = tempfile::tempdir().expect("a temporary folder");
    Checkpoint::of_fixture("narrow")
        .write(dir.path())
        .expect("the folder can be written");
    let small = names(dir.path()).into_iter().filter(|n| n != WEIGHTS);
    let small = small.map(|name| {
        let bytes = fs::read(dir.path().join(&name)).expect("a file");
        (name, bytes)
    });
    let large = parts.iter().map(|(name, from)| {
        let path = fixture::folder().join("onnx").join(from);
        let bytes = fs::read(path).expect("the fixture is there");
        (format!("onnx/{name}"), bytes)
    });
    Published {
        files: small.chain(large).collect(),
    }
}

const VISION: (&str, &str) = (
    "vision_encoder_q4f16.onnx",
    "plain/vision_encoder_q4f16.onnx",
);
const EMBEDDING: (&str, &str) = ("embed_tokens_q4f16.onnx", "shared/embed_tokens_fp16.onnx");
const MERGED: (&str, &str) = (
    "decoder_model_merged_q4f16.onnx",
    "plain/decoder_model_merged_q4f16.onnx",
);
const FIRST: [(&str, &str); 2] = [
    ("decoder_model_q4f16.onnx", "plain/decoder_model_q4f16.onnx"),
    (
        "decoder_model_q4f16.onnx_data",
        "plain/decoder_model_q4f16.onnx_data",
    ),
];
const LATER: [(&str, &str); 2] = [
    (
        "decoder_with_past_model_q4f16.onnx",
        "plain/decoder_with_past_model_q4f16.onnx",
    ),
    (
        "decoder_with_past_model_q4f16.onnx_data",
        "plain/decoder_with_past_model_q4f16.onnx_data",
    ),
];

#[test]
fn of_a_decoder_that_is_not_merged_one_file_is_fetched_and_says_the_same() {
    let [first, later] = [&FIRST, &LATER].map(|files| &files[..]);
    let unmerged = [first, later].concat();
    let whole = [&unmerged[..], &[MERGED]].concat();
    let mut answers = Vec::new();
    for (decoders, wanted) in [(&unmerged[..], first), (later, later), (&whole, &[MERGED])] {
        let server = Server::good(export(&[&[VISION, EMBEDDING], decoders].concat()));
        let home = Home::new(&server);
        let outcome = home.pull(&["--json", "--name", "porch"]);
        assert_done(&outcome);
        let last = events(&outcome).pop().expect("an event");
        assert_eq!(last["format"], "onnx:q4f16", "{last}");
        for (name, _) in decoders {
            let is_wanted = wanted.iter().any(|(other, _)| other == name);
            let n_requests = server.requests_for(&format!("onnx/{name}")).len();
            assert_eq!(n_requests, usize::from(is_wanted), "{name}: {wanted:?}");
        }
        assert_done(&home.run(&["models", "verify", "porch"]));
        let question = ["ask", "--text", "What?", "--max-tokens", "8", "--json"];
        let asked = home.run(&[&question[..], &["-m", "porch"]].concat());
        assert_done(&asked);
        answers.push(events(&asked).pop().expect("an answer")["token_ids"].clone());
    }
    assert!(answers[0].as_array().is_some_and(|ids| !ids.is_empty()));
    assert!(answers.iter().all(|ids| *ids == answers[0]), "{answers:?}");
}

/// Small files of the text model of that checkpoint, and ONNX files of it under these names.
fn text_export(files: &[(&str, &str)]) -> Published {
    let mut published = export(&[]);
    let config = &published.files["config.json"];
    let whole: Value = serde_json::from_slice(config).expect("JSON");
    let mut config = whole["text_config"].clone();
    config["model_type"] = "llama".into();
    config["tie_word_embeddings"] = whole["tie_word_embeddings"].clone();
    let config = config.to_string().into_bytes();
    published.files.insert("config.json".to_owned(), config);
    for name in ["preprocessor_config.json", "processor_config.json"] {
        published.files.remove(name);
    }
    for (name, from) in files {
        let path = fixture::folder().join("onnx/text").join(from);
        let bytes = fs::read(path).expect("the fixture is there");
        published.files.insert((*name).to_owned(), bytes);
    }
    published
}

#[test]
fn a_text_model_in_one_onnx_file_is_fetched_from_either_folder() {
    for folder in ["onnx/", ""] {
        let [fp16, int8, q4] = ["model_fp16.onnx", "model_int8.onnx", "model_q4.onnx"]
            .map(|name| (format!("{folder}{name}"), name));
        let all = [&fp16, &int8, &q4].map(|(name, from)| (name.as_str(), *from));
        for (format, wanted) in [("onnx", &fp16), ("onnx:q4", &q4)] {
            let server = Server::good(text_export(&all));
            let home = Home::new(&server);
            let outcome = home.pull(&["--format", format, "--name", "porch"]);
            assert_done(&outcome);
            for (name, _) in all {
                let n_requests = server.requests_for(name).len();
                assert_eq!(n_requests, usize::from(name == wanted.0), "{format} {name}");
            }
            assert_done(&home.run(&["models", "verify", "porch"]));
            let ask = ["ask", "--text", "What?", "--max-tokens", "4", "-m", "porch"];
            assert_done(&home.run(&ask));
        }
    }
}

#[test]
fn an_export_without_a_decoder_is_refused_before_anything_comes() {
    let server = Server::good(export(&[VISION, EMBEDDING, FIRST[1]]));
    let home = Home::new(&server);
    let wanted = [
        "one of onnx/decoder_model_merged_q4f16.onnx, onnx/decoder_model_q4f16.onnx, onnx/decoder_with_past_model_q4f16.onnx, or of a text model onnx/model_q4f16.onnx or one of these alone; there are",
        "onnx/vision_encoder_q4f16.onnx",
    ];
    assert_fails(&home.pull(&["--format", "onnx:q4f16"]), 2, &wanted);
    assert_eq!(server.log().len(), 1);
    assert_eq!(home.installed(), Vec::<String>::new());
}

#[test]
fn whoever_packs_a_tokenizer_without_tables_says_so() {
    let mut files = tiny().clone();
    let mut tokenizer: Value =
        serde_json::from_slice(&files["tokenizer.json"]).expect("a tokenizer");
    tokenizer["normalizer"] = serde_json::json!({ "type": "NFC" });
    let bytes = tokenizer.to_string().into_bytes();
    files.insert("tokenizer.json".to_owned(), bytes);
    let home = Home::new(&Server::good(Published {
        files: files.clone(),
    }));
    let directory = home.path("directory");
    fs::create_dir(&directory).expect("a folder");
    for (name, bytes) in &files {
        fs::write(directory.join(name), bytes).expect("a file");
    }
    let directory = directory.display().to_string();
    let out = home.path("out.ocelli").display().to_string();
    for args in [
        &["pull", "owner/name"][..],
        &["models", "add", &directory],
        &["pack", &directory, "-o", &out],
    ] {
        let outcome = home.run(args);
        assert_done(&outcome);
        for part in ["normalizer", "parsed at every start"] {
            assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
        }
        let quiet = home.run(&[args, &["--quiet", "--force"]].concat());
        assert_done(&quiet);
        assert_eq!(quiet.stderr, "", "{args:?}");
    }
}

#[test]
fn without_packing_the_folder_is_printed_and_offline_it_is_enough() {
    let server = Server::good(published());
    let home = Home::new(&server);
    let outcome = home.pull(&["--no-pack"]);
    assert_done(&outcome);
    let folder = Path::new(outcome.stdout.trim());
    assert!(fs::read(folder.join(WEIGHTS)).expect("the weights") == tiny()[WEIGHTS]);
    assert_eq!(home.installed(), Vec::<String>::new());
    let before = server.log().len();
    assert_done(&home.pull(&["--offline"]));
    assert_eq!(server.log().len(), before);
    assert_eq!(home.installed(), ["name.ocelli"]);
    let elsewhere = Home::new(&server);
    assert_fails(&elsewhere.pull(&["--offline"]), 3, &["not in the cache"]);
    assert_eq!(server.log().len(), before);
}

#[test]
fn a_pull_that_fails_installs_nothing_and_says_why() {
    let wrong = Server::start(|request, _| match request.is_for(WEIGHTS) {
        true => content(request, b"not the weights", "\"x\""),
        false => published().answer(request),
    });
    let home = Home::new(&wrong);
    assert_fails(&home.pull(&[]), 1, &[WEIGHTS, "the server 15"]);
    assert_eq!(home.installed(), Vec::<String>::new());

    for (status, code) in [(401, 3), (403, 3), (404, 3), (503, 1)] {
        let server = Server::start(move |_, _| Reply::new(status, ""));
        let home = Home::new(&server);
        assert_fails(
            &home.pull(&["--retries", "1"]),
            code,
            &[&status.to_string()],
        );
    }
    let server = Server::good(published());
    let home = Home::new(&server);
    for (args, wanted) in [
        (&["pull", "nonsense"][..], "smolvlm-256m"),
        (&["pull", "../x/y"], "owner/name"),
        (&["pull", "owner/name@a b"], "revision"),
        (
            &["pull", "owner/name", "--name", "../x"],
            "cannot be installed as",
        ),
        (
            &["pull", "owner/name", "--name", "default"],
            "cannot be installed as",
        ),
        (&["pull", "owner/name", "--format", "pytorch"], "gguf"),
        (&["pull", "owner/name", "--format", "gguf"], "no GGUF file"),
        (&["pull"], "NAME"),
    ] {
        assert_fails(&home.run(args), 2, &[wanted]);
    }
}

#[test]
fn a_model_larger_than_the_disk_is_refused_before_it_is_fetched() {
    let server = Server::start(|request, _| {
        let mut listing = published().listing();
        for file in listing["siblings"].as_array_mut().expect("files") {
            if file["rfilename"] == WEIGHTS {
                file["lfs"]["size"] = (1u64 << 40).into();
            }
        }
        match request.path.contains("/api/") {
            true => Reply::new(200, listing.to_string()),
            false => published().answer(request),
        }
    });
    let home = Home::new(&server);
    assert_fails(&home.pull(&[]), 1, &["MB are needed", "MB are free"]);
    assert_eq!(server.requests_for(WEIGHTS).len(), 0);
    assert_eq!(home.installed(), Vec::<String>::new());
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_half_installed_and_the_next_goes_on() {
    let weights = tiny()[WEIGHTS].clone();
    let half = weights.len() / 2;
    let server = Server::start(move |request, before| {
        let reply = published().answer(request);
        match request.is_for(WEIGHTS) && before == 0 {
            true => reply.body(Body::Stall(weights[..half].to_vec(), weights.len())),
            false => reply,
        }
    });
    let home = Home::new(&server);
    let mut command = home.command(&["pull", "owner/name", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let incomplete = format!("{}.incomplete", sha256(&tiny()[WEIGHTS]));
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let begun = lines.find(|line| {
        let line = line.as_ref().expect("a line");
        line.contains("progress") && line.contains(WEIGHTS)
    });
    assert!(begun.is_some());
    let path = home
        .path(".cache/huggingface/hub/models--owner--name/blobs")
        .join(&incomplete);
    // The half that was sent arrives without a further event.
    while fs::metadata(&path).map_or(0, |meta| meta.len()) < half as u64 {
        std::thread::yield_now();
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert_eq!(home.installed(), Vec::<String>::new());
    assert!(home.blobs().contains(&incomplete), "{:?}", home.blobs());

    assert_done(&home.pull(&[]));
    let last = server.requests_for(WEIGHTS).pop().expect("a request");
    assert_eq!(last.start(), Some(half));
    assert_eq!(home.installed(), ["name.ocelli"]);
    assert!(!home.blobs().contains(&incomplete), "{:?}", home.blobs());
}

#[test]
fn what_a_killed_installation_left_is_swept_away() {
    let server = Server::good(published());
    let home = Home::new(&server);
    fs::create_dir_all(home.models()).expect("a folder");
    for name in [".old.ocelli.partial", ".old.lock", ".name.ocelli.partial"] {
        fs::write(home.models().join(name), "half").expect("a file");
    }
    fs::write(home.models().join(".held.ocelli.partial"), "half").expect("a file");
    let held = fs::File::create(home.models().join(".held.lock")).expect("a file");
    held.lock().expect("a lock");
    assert_done(&home.pull(&[]));
    assert_eq!(home.installed(), [".held.ocelli.partial", "name.ocelli"]);
}

#[test]
fn two_pulls_of_one_repository_wait_for_each_other() {
    let server = Server::good(published());
    let home = Home::new(&server);
    let locks = home.path(".cache/huggingface/hub/.locks/models--owner--name");
    fs::create_dir_all(&locks).expect("a folder");
    let lock = fs::File::create(locks.join("pull.lock")).expect("a file");
    lock.lock().expect("a lock");
    let mut command = home.command(&["pull", "owner/name"]);
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    let waits = lines.find(|line| line.as_ref().expect("a line").contains("waiting for it"));
    assert!(waits.is_some());
    assert_eq!(server.requests_for(WEIGHTS).len(), 0);
    lock.unlock().expect("it is held");
    for _ in lines {}
    assert!(child.wait().expect("it ends").success());
    assert_eq!(home.installed(), ["name.ocelli"]);
}

#[test]
fn a_model_that_came_by_hand_is_not_overwritten() {
    let server = Server::good(published());
    let home = Home::new(&server);
    fs::create_dir_all(home.models()).expect("a folder");
    fs::write(home.models().join("name.ocelli"), "mine").expect("a file");
    assert_fails(&home.pull(&[]), 2, &["was not pulled", "--force"]);
    assert_done(&home.pull(&["--force"]));
    assert!(
        fs::read(home.models().join("name.ocelli"))
            .expect("a pack")
            .len()
            > 1000
    );
}

#[test]
fn models_are_added_from_a_stick_and_removed() {
    let server = Server::good(published());
    let home = Home::new(&server);
    let stick = home.path("stick");
    fs::create_dir(&stick).expect("a folder");
    fs::write(stick.join("porch.ocelli"), tiny_pack()).expect("a file");
    let directory = home.path("Tiny-Model");
    fs::create_dir(&directory).expect("a folder");
    for (name, bytes) in tiny() {
        fs::write(directory.join(name), bytes).expect("a file");
    }
    let add = |path: &Path, more: &[&str]| {
        let path = path.display().to_string();
        home.run(&[&["models", "add", &path], more].concat())
    };
    assert_done(&add(&stick, &[]));
    assert_done(&add(&directory, &[]));
    assert_eq!(home.installed(), ["Tiny-Model.ocelli", "porch.ocelli"]);
    assert!(fs::read(home.models().join("porch.ocelli")).expect("a pack") == tiny_pack());
    assert_fails(&add(&stick, &[]), 2, &["porch is installed", "--force"]);
    assert_done(&add(&stick, &["--force"]));

    let mut damaged = tiny_pack().to_vec();
    let end = damaged.len() - 100;
    damaged[end] ^= 1;
    let path = home.path("damaged.ocelli");
    fs::write(&path, damaged).expect("a file");
    assert_fails(&add(&path, &[]), 3, &["checksum"]);
    assert_fails(&add(&home.path("nowhere"), &[]), 2, &["nowhere"]);
    assert_eq!(home.installed(), ["Tiny-Model.ocelli", "porch.ocelli"]);
    assert_done(&home.run(&["models"]));

    let remove = |args: &[&str]| home.run(&[&["models", "remove"], args].concat());
    assert_fails(&remove(&["porch"]), 2, &["--yes"]);
    assert_fails(&remove(&["default", "--yes"]), 2, &["built into"]);
    assert_fails(&remove(&["porch", "other", "--yes"]), 2, &["other"]);
    assert_eq!(home.installed(), ["Tiny-Model.ocelli", "porch.ocelli"]);
    let twice = remove(&["porch", "porch", "--yes", "--json"]);
    assert_done(&twice);
    assert_eq!(events(&twice).len(), 1, "{twice:?}");
    assert_eq!(home.installed(), ["Tiny-Model.ocelli"]);
    assert_eq!(names(&home.models().join(".records")).len(), 1);
}

#[test]
fn the_catalogue_says_what_fits_where() {
    let home = Home::new(&Server::good(published()));
    for args in [
        &["pull", "--list", "--json"][..],
        &["models", "--catalogue", "--json"],
    ] {
        let outcome = home.run(args);
        assert_done(&outcome);
        let lines = events(&outcome);
        let small = lines.iter().find(|line| line["name"] == "smolvlm-256m");
        let small = small.expect("the smallest is known");
        assert_eq!(small["licence"], "apache-2.0");
        assert!(small["boards"]["raspberry-pi-5"].is_array(), "{small}");
        let large = lines.iter().find(|line| line["name"] == "smolvlm2-2.2b");
        assert!(large.expect("it is known")["boards"]["raspberry-pi-zero-2-w"].is_null());
    }
    assert_done(&home.run(&["pull", "--list"]));
}

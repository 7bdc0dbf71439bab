//! `ocelli bench`: how long each stage takes on this machine, what memory it takes, and how far
//! that is from what the machine can do at most.
//!
//! | file | defines |
//! |---|---|
//! | [`shape`] | the published shapes, and random weights of them as a pack |
//! | [`rounds`] | the timed stages |
//! | [`work`] | how much arithmetic and reading a stage is |
//! | [`machine`] | the machine's own limits, measured |
//! | [`memory`] | anonymous memory while something runs |
//! | [`report`] | the figures, as text and as one JSON line |

mod machine;
mod memory;
mod report;
mod rounds;
mod shape;
mod tokenizer;
mod work;

pub use rounds::Once;
pub use shape::{Depth, Shape};

use crate::answer::peak_rss_bytes;
use crate::cli::{BenchArgs, Global};
use crate::fault::Fault;
use crate::leftover::Leftover;
use crate::model;
use crate::progress::Progress;
use crate::verbs::pack;
use memory::AnonymousPeak;
use ocelli_runtime::import::Published;
use ocelli_runtime::pack::WeightScheme;
use ocelli_runtime::{ModelSource, Precision, Vlm};
use report::{Measured, Report};
use rounds::{Lengths, Series};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use work::Work;

/// What the prompt of the first token is cut from.
const PROMPT: &str = "In front of the camera stands a grey box with three round lamps and a small red lever beside it.";
/// Tokens of that prompt.
const PROMPT_TOKENS: usize = 16;

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`].
pub fn run(global: &Global, args: &BenchArgs) -> Result<(), Fault> {
    match args.shape {
        Some(shape) => run_shape(global, args, shape),
        None if args.first_token => first_token(global),
        None => match args.once {
            Some(stage) => once(global, args, stage),
            None => measure(global, args),
        },
    }
}

/// Writes the synthetic pack and measures it in a process of its own, whose memory it is.
fn run_shape(global: &Global, args: &BenchArgs, shape: Shape) -> Result<(), Fault> {
    if global.model != model::DEFAULT {
        return Err(Fault::Argument(format!(
            "--shape makes its own weights, -m {} names others; give one of them",
            global.model
        )));
    }
    if let Some(mmproj) = &global.mmproj {
        return Err(Fault::Argument(format!(
            "--shape makes its own weights, --mmproj {} names others; give one of them",
            mmproj.display()
        )));
    }
    if let Some(variant) = global.variant {
        return Err(Fault::Argument(format!(
            "--shape makes its own weights, --variant {variant} chooses among files; give one of them"
        )));
    }
    if Precision::from(global.precision) == Precision::F32 {
        return Err(Fault::Argument(
            "--shape makes a pack, and packs have no f32 weights; leave --precision f32 out".into(),
        ));
    }
    if let Some(path) = &args.write {
        pack::refuse_existing(path, args.force)?;
        pack::refuse_folder(path)?;
        let aside = pack::Aside::of(path)?;
        write_pack(global, args, shape, aside.file(), path)?;
        return aside.take_place();
    }
    let fault = |source| Fault::File {
        path: std::env::temp_dir(),
        source,
    };
    let dir = tempfile::Builder::new()
        .prefix("ocelli-bench-")
        .tempdir()
        .map_err(fault)?;
    let _leftover = Leftover::guard(dir.path()).map_err(fault)?;
    let path = dir.path().join("synthetic.ocelli");
    let file = File::create_new(&path).map_err(fault)?;
    write_pack(global, args, shape, &file, &path)?;
    let mut child = itself(global, &path.display().to_string())?;
    for (flag, value) in [
        ("--prefill", args.prefill),
        ("--decode", args.decode),
        ("--runs", args.runs),
    ] {
        child.arg(flag).arg(value.to_string());
    }
    if args.all_logits {
        child.arg("--all-logits");
    }
    let status = child.status().map_err(fault)?;
    drop(dir);
    match status.code() {
        Some(0) => Ok(()),
        // It has said why.
        Some(code) => std::process::exit(code),
        None => Err(killed(status)),
    }
}

fn write_pack(
    global: &Global,
    args: &BenchArgs,
    shape: Shape,
    file: &File,
    path: &Path,
) -> Result<(), Fault> {
    let fault = |source| Fault::File {
        path: path.to_path_buf(),
        source,
    };
    let mut progress = Progress::new(global);
    let out = BufWriter::new(file);
    let weights = global
        .weights
        .map_or_else(WeightScheme::default, WeightScheme::from);
    let config = shape.config(args.depth);
    let out = shape::write_pack(&shape.name(), &config, weights, out, &mut |done, total| {
        progress.show(&format!("making random weights {done}/{total}"));
    })
    .map_err(|error| Fault::Packer(error.into()))?;
    let file = out
        .into_inner()
        .map_err(|error| fault(error.into_error()))?;
    // Or writing back would go on under the measurement.
    file.sync_all().map_err(fault)?;
    progress.clear();
    Ok(())
}

/// What to say of a process that a signal ended.
fn killed(status: ExitStatus) -> Fault {
    Fault::Measurement(format!(
        "its process was ended by {status}; where memory is short, that is the system's way to get some: \
         stop other programs, or raise the limit of the control group"
    ))
}

/// This program again, on a model, with the flags that matter to a measurement.
fn itself(global: &Global, model: &str) -> Result<Command, Fault> {
    let path = std::env::current_exe()?;
    let mut command = Command::new(path);
    command.args(["bench", "--model", model]);
    if let Some(threads) = global.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if let Some(weights) = global.weights {
        command.args(["--weights", WeightScheme::from(weights).name()]);
    }
    let flags = [
        ("--json", global.json),
        ("--quiet", global.quiet),
        ("--verbose", global.verbose),
    ];
    command.args(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    Ok(command)
}

fn lengths(args: &BenchArgs, vlm: &Vlm) -> Result<Lengths, Fault> {
    let (prefill, decode) = (args.prefill.get(), args.decode.get());
    let limit = vlm.config().text.max_positions;
    if prefill.checked_add(decode).is_none_or(|sum| sum > limit) {
        return Err(Fault::Argument(format!(
            "--prefill {prefill} and --decode {decode} are together over the model's context of {limit}"
        )));
    }
    Ok(Lengths {
        prefill,
        decode,
        all_logits: args.all_logits,
    })
}

/// The model, with the threads that are reported, however hot the board is.
fn loaded(global: &Global, progress: &mut Progress) -> Result<(Vlm, Duration), Fault> {
    let (mut vlm, load) = model::load(global, progress)?;
    vlm.set_thread_limit(None);
    Ok((vlm, load))
}

fn measure(global: &Global, args: &BenchArgs) -> Result<(), Fault> {
    let mut progress = Progress::new(global);
    let peak = AnonymousPeak::watch();
    let (vlm, load) = loaded(global, &mut progress)?;
    let lengths = lengths(args, &vlm)?;
    let mut session = vlm.session()?;
    // The first round touches every page and is not counted.
    progress.show("bench: warming up");
    rounds::round(&vlm, &mut session, lengths)?;
    let peak_anonymous_bytes = peak.end();
    let mut rounds = Vec::new();
    for round in 1..=args.runs.get() {
        progress.show(&format!("bench {round}/{}", args.runs));
        rounds.push(rounds::round(&vlm, &mut session, lengths)?);
    }
    // Before the limits, whose buffer would count.
    let peak_rss_bytes = peak_rss_bytes();
    progress.show("bench: start");
    let first_token = time_first_token(global, &vlm, args.runs.get())?;
    progress.show("bench: the machine's limits");
    let limits = machine::measure(vlm.n_threads())?;
    progress.clear();
    let encode: Option<Vec<f64>> = rounds.iter().map(|round| round.encode).collect();
    let report = Report {
        vlm: &vlm,
        kv_bytes: session.kv_bytes(),
        scratch_bytes: session.scratch_bytes() + ocelli_kernels::scratch_bytes(),
        work: vlm.pack().map(|pack| Work::of(pack.header(), lengths)),
        lengths,
        limits,
        measured: Measured {
            load,
            encode: encode.map(Series::new),
            prefill: Series::of(&rounds, |round| round.prefill),
            decode_rate: Series::of(&rounds, |round| round.decode_rate),
            first_token,
            peak_anonymous_bytes,
            peak_rss_bytes,
        },
    };
    let mut out = io::stdout();
    if global.json {
        writeln!(out, "{}", serde_json::Value::Object(report.json()))?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}

/// Runs one stage for the cycle model, which finds it by its marks.
fn once(global: &Global, args: &BenchArgs, stage: Once) -> Result<(), Fault> {
    let (vlm, _) = loaded(global, &mut Progress::new(global))?;
    let lengths = lengths(args, &vlm)?;
    let mut session = vlm.session()?;
    match stage {
        Once::Tile => rounds::tile(&vlm, &mut session).map(drop),
        Once::Text => rounds::text(&vlm, &mut session, lengths).map(drop),
    }
}

/// Loads the model, reads a text prompt and prints the likeliest next token.
fn first_token(global: &Global) -> Result<(), Fault> {
    let (vlm, _) = loaded(global, &mut Progress::new(global))?;
    let ids = vlm
        .tokenizer()
        .encode(PROMPT)
        .map_err(ocelli_runtime::RunError::from)?;
    let ids: Vec<u32> = ids.iter().cycle().take(PROMPT_TOKENS).copied().collect();
    let mut session = vlm.session()?;
    session.extend(&ids)?;
    let best = session.likeliest(&mut Vec::new())?;
    writeln!(io::stdout(), "{best}")?;
    Ok(())
}

/// Seconds from starting a process to its first token; `None` for a model that would first have
/// to be packed.
fn time_first_token(global: &Global, vlm: &Vlm, runs: usize) -> Result<Option<Series>, Fault> {
    if vlm.pack().is_none()
        || matches!(model::resolve(&global.model)?, ModelSource::Path(path) if Published::is_at(&path))
    {
        return Ok(None);
    }
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let mut command = itself(global, &global.model)?;
        command.arg("--first-token").stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        times.push(start.elapsed().as_secs_f64());
        let status = child.wait()?;
        match status.code() {
            Some(0) => {}
            Some(_) => {
                let what = format!("starting again ended with {status}");
                return Err(Fault::Measurement(what));
            }
            None => return Err(killed(status)),
        }
    }
    Ok(Some(Series::new(times)))
}

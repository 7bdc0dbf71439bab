//! The command line: one definition for parsing, help, completions and the man page.

mod models;
mod records;

pub use models::{AddArgs, KeyArgs, ModelsArgs, ModelsVerb, PullArgs};
pub use records::{
    CheckArgs, EntryKind, ExplainArgs, ExportFormat, InventoryArgs, JournalArgs, JournalVerb,
    ReplayArgs, RulesArgs, RulesVerb, ShowArgs,
};

use crate::verbs::bench::{Depth, Once, Shape};
use crate::watch::PictureType;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ocelli_camera::Polygon;
use ocelli_camera::zone::{Sensitivity, Zone};
use ocelli_runtime::import::onnx::Variant;
use ocelli_runtime::pack::WeightScheme;
use ocelli_runtime::{GenerateOptions, Precision, Sampling};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// What is asked about a picture unless the user asks something else.
const DEFAULT_PROMPT: &str = "Can you describe this image?";

/// Describes pictures and answers questions about them, on this machine alone.
#[derive(Debug, Parser)]
#[command(
    name = "ocelli",
    version,
    after_help = "Answers go to stdout, everything else to stderr.\n\
                  Exit codes: 0 done, 1 a fault while running, 2 bad arguments or input, 3 model missing or unusable, 4 device missing."
)]
pub struct Cli {
    /// Flags every verb understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags every verb understands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Model: "default" (built in), an installed name, a pack, a model directory, or a GGUF file
    #[arg(
        long,
        short = 'm',
        global = true,
        default_value = "default",
        value_name = "M"
    )]
    pub model: String,
    /// Projector file of a GGUF model: its vision side
    #[arg(long, global = true, value_name = "FILE.gguf")]
    pub mmproj: Option<PathBuf>,
    /// ONNX files to take from a model directory that holds several: fp32, fp16, int8, uint8,
    /// quantized, q4, q4f16 or bnb4 [default: safetensors, else the most exact]
    #[arg(long, global = true, value_name = "NAME")]
    pub variant: Option<Variant>,
    /// Threads to compute with [default: for each phase as a short measurement on this machine says]
    #[arg(long, short = 't', global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Arithmetic; f32 is slow and needs a model directory or a GGUF file
    #[arg(long, global = true, value_enum, default_value_t = PrecisionArg::Int8)]
    pub precision: PrecisionArg,
    /// Weights of the decoder: what a model directory, GGUF file or --shape is quantised to
    /// [default: as the file has them if that is 4 bit, else int8], and what a pack must have
    #[arg(long, global = true, value_enum, value_name = "WEIGHTS")]
    pub weights: Option<WeightsArg>,
    /// Print one JSON object a line instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no remarks on stderr
    #[arg(long, short = 'q', global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say on stderr what is loaded and how long each stage took
    #[arg(long, short = 'v', global = true)]
    pub verbose: bool,
}

/// Arithmetic of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// int8 weights and activations.
    Int8,
    /// Plain f32, to check against.
    F32,
}

impl From<PrecisionArg> for Precision {
    fn from(value: PrecisionArg) -> Precision {
        match value {
            PrecisionArg::Int8 => Precision::Int8,
            PrecisionArg::F32 => Precision::F32,
        }
    }
}

/// How the decoder's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WeightsArg {
    /// One scale an output row.
    Int8,
    /// One scale for 32 values.
    Int4,
}

impl From<WeightsArg> for WeightScheme {
    fn from(value: WeightsArg) -> WeightScheme {
        match value {
            WeightsArg::Int8 => WeightScheme::Int8,
            WeightsArg::Int4 => WeightScheme::Int4,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Describe pictures
    Caption(CaptionArgs),
    /// Ask a question about a picture, or without one
    Ask(AskArgs),
    /// Watch through a camera and say what is seen
    Watch(Box<WatchArgs>),
    /// Run the agent: camera, rules, pins, serial, MQTT
    Run(RunArgs),
    /// Check rule files, and say what they would do
    Rules(RulesArgs),
    /// Show, verify or export a journal
    Journal(JournalArgs),
    /// Do again what a journal holds: bit for bit, or under other rules
    Replay(ReplayArgs),
    /// Turn a model directory or a GGUF file into a pack
    Pack(PackArgs),
    /// Fetch a model from a hub and pack it for this board
    Pull(Box<PullArgs>),
    /// List the models at hand, look at some of them, verify, add or remove them
    Models(ModelsArgs),
    /// Measure encode, prefill, decode, memory and start
    Bench(BenchArgs),
    /// Say what this machine has, what is missing and how to mend it
    Doctor,
    /// Print a systemd unit that runs the agent
    Service(ServiceArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

/// What the agent runs.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config: PathBuf,
    /// Show what would be done, and do none of it; no pin is opened
    #[arg(long)]
    pub dry_run: bool,
    /// Read configuration, rules and pins, say what is wrong, and end
    #[arg(long)]
    pub check: bool,
    /// Open every output pin once at its safe state, and end
    #[arg(long, conflicts_with_all = ["dry_run", "check"])]
    pub make_safe: bool,
    /// End after this time, e.g. "10min"
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub stop_after: Option<Duration>,
}

/// How an answer is made.
#[derive(Clone, Debug, Args)]
pub struct AnswerArgs {
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,
    /// Most image tiles a picture is split into; 0 = global view only [default: as the model asks]
    #[arg(long, value_name = "N")]
    pub max_tiles: Option<usize>,
    /// 0 = always the likeliest token; higher is more varied
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f32,
    /// Sample among the K likeliest tokens only; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Sample among the likeliest tokens that together reach P
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Make tokens that were used before less likely; 1 = off
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Seed of sampling
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// End the answer where this text begins (may be given several times)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// A system message in front of the question
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Write input_ids, pixel_values, image_features and logits as .npy files
    #[arg(long, value_name = "DIR")]
    pub dump_stages: Option<PathBuf>,
}

impl AnswerArgs {
    /// The part that the runtime reads.
    pub fn generate_options(&self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: self.max_tokens,
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                repetition_penalty: self.repetition_penalty,
                seed: self.seed,
            },
            stop: self.stop.clone(),
        }
    }
}

/// Arguments of `caption`.
#[derive(Debug, Args)]
pub struct CaptionArgs {
    /// Pictures: PNG, JPEG, GIF, WebP, BMP, TIFF or PNM
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// What to ask about every picture
    #[arg(
        long,
        value_name = "TEXT",
        default_value = DEFAULT_PROMPT
    )]
    pub prompt: String,
    /// How the answer is made.
    #[command(flatten)]
    pub answer: AnswerArgs,
}

/// Arguments of `ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The picture
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "text",
        requires = "question"
    )]
    pub image: Option<PathBuf>,
    /// The question
    #[arg(value_name = "QUESTION")]
    pub question: Option<String>,
    /// A question without a picture, instead of IMAGE and QUESTION
    #[arg(long, value_name = "QUESTION", conflicts_with = "image")]
    pub text: Option<String>,
    /// Closed answers, separated by commas: each is scored and the likeliest is printed
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    pub choices: Vec<String>,
    /// With --choices: answer "unsure" when the likeliest choice has less than this probability
    #[arg(long, value_name = "P", default_value_t = 0.0, requires = "choices")]
    pub unsure_below: f64,
    /// How the answer is made.
    #[command(flatten)]
    pub answer: AnswerArgs,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Camera or other source: /dev/video0, v4l2:..., pipe:rpicam, pipe:COMMAND, replay:PATH, http://..., rtsp://...
    /// [default: the first camera]
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// Look when something moves; this is what happens unless --every is given
    #[arg(long)]
    pub on_change: bool,
    /// Look every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub every: Option<Duration>,
    /// Least time between two looks because something moved
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub cooldown: Duration,
    /// Part of the picture that movement counts in: NAME:x,y x,y (a rectangle) or NAME:x,y x,y x,y..., from 0 to 1;
    /// NAME@1 to NAME@100 sets its sensitivity (may be given several times)
    #[arg(long, value_name = "ZONE")]
    pub zone: Vec<Zone>,
    /// Part of the picture that nobody may see, not even the model: x,y x,y (a rectangle) or x,y x,y x,y... (may be given several times)
    #[arg(long, value_name = "AREA")]
    pub mask: Vec<Polygon>,
    /// How little movement counts, 1 to 100
    #[arg(long, value_name = "N", default_value = "50")]
    pub sensitivity: Sensitivity,
    /// ONNX detector that has to confirm a movement; FILE.json beside it says what it finds
    #[cfg(feature = "onnx")]
    #[arg(long, value_name = "FILE.onnx")]
    pub detector: Option<PathBuf>,
    /// Look at dark, blurred and blown pictures too
    #[arg(long)]
    pub any_quality: bool,
    /// Size wanted of the camera
    #[arg(long, value_name = "WxH", default_value = "640x480", value_parser = size)]
    pub size: (u32, u32),
    /// Pictures a second that are compared, 0.1 to 30
    #[arg(long, value_name = "N", default_value = "5", value_parser = rate)]
    pub rate: f64,
    /// Turn the picture clockwise: 0, 90, 180 or 270 degrees
    #[arg(long, value_name = "DEGREES", default_value = "0", value_parser = ["0", "90", "180", "270"])]
    pub rotate: String,
    /// Exchange left and right
    #[arg(long)]
    pub mirror: bool,
    /// Set a control of the camera, for instance exposure_time_absolute=200 (may be given several times)
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub control: Vec<(String, String)>,
    /// What to ask about every picture
    #[arg(long, value_name = "TEXT", default_value = DEFAULT_PROMPT)]
    pub prompt: String,
    /// Keep every picture that was looked at, and what was said of it, in this folder
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// How pictures are kept
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "TYPE",
        requires = "save"
    )]
    pub save_as: PictureType,
    /// Stop after so many answers
    #[arg(long, value_name = "N")]
    pub count: Option<NonZeroUsize>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub stop_after: Option<Duration>,
    /// How the answer is made.
    #[command(flatten)]
    pub answer: AnswerArgs,
}

fn number_within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if !(least..=most).contains(&number) {
        return Err(format!(
            "{text} is out of range; allowed is {least} to {most}"
        ));
    }
    Ok(number)
}

fn seconds(text: &str) -> Result<Duration, String> {
    number_within(text, 0.1, 86_400.0).map(Duration::from_secs_f64)
}

fn rate(text: &str) -> Result<f64, String> {
    number_within(text, 0.1, 30.0)
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x');
    let sides = sides.and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match sides {
        Some((w @ 1..=16_384, h @ 1..=16_384)) => Ok((w, h)),
        _ => Err(format!(
            "{text:?} is no size; write for instance 640x480, sides from 1 to 16384"
        )),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!(
            "{text:?} has no `=`; write for instance brightness=128"
        )),
    }
}

/// Arguments of `pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// Model directory (config.json, tokenizer.json, model.safetensors or ONNX files and so on), or
    /// a GGUF file, with --mmproj FILE.gguf if it sees
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// The pack to write
    #[arg(long, short = 'o', value_name = "OUT")]
    pub output: PathBuf,
    /// Name of the model inside the pack [default: the name of the directory or GGUF file]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace OUT if it exists
    #[arg(long)]
    pub force: bool,
    /// With --weights int4: by how many percent the decoder's layers may be larger, so that some of
    /// their matrices stay int8, those that lose the most
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    pub spare: u8,
    /// Text that shows how the decoder's inputs go together, or `none` to round every weight to
    /// nearest [default: the text that comes with the program]
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Measure synthetic weights of this shape; no files are needed
    #[arg(long, value_enum, value_name = "SHAPE")]
    pub shape: Option<Shape>,
    /// Vision and decoder layers instead of the shape's own, with --shape
    #[arg(long, value_name = "V,D", requires = "shape")]
    pub depth: Option<Depth>,
    /// Only write the synthetic pack, with --shape
    #[arg(long, value_name = "FILE", requires = "shape")]
    pub write: Option<PathBuf>,
    /// Replace FILE of --write if it exists
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Tokens of the prompt that is run through the decoder
    #[arg(long, value_name = "N", default_value = "84")]
    pub prefill: NonZeroUsize,
    /// Tokens to decode after it
    #[arg(long, value_name = "N", default_value = "64")]
    pub decode: NonZeroUsize,
    /// After each token compute all logits, as sampling wants them, instead of the likeliest token
    #[arg(long)]
    pub all_logits: bool,
    /// Runs of each stage; the median is reported
    #[arg(long, value_name = "N", default_value = "5")]
    pub runs: NonZeroUsize,
    /// One stage, once, with marks for the cycle model around it
    #[arg(long, hide = true, value_enum, value_name = "STAGE", conflicts_with_all = ["shape", "first_token"])]
    pub once: Option<Once>,
    /// Answer one token and end: what the time to the first token is measured on
    #[arg(long, hide = true, conflicts_with = "shape")]
    pub first_token: bool,
}

/// Arguments of `service`.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Configuration of the agent
    #[arg(long, value_name = "FILE", default_value = "/etc/ocelli/ocelli.toml")]
    pub config: PathBuf,
    /// The program [default: the one that prints]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// User to run as, who must exist [default: one that systemd makes up]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn choices_are_split_at_commas() {
        let cli = Cli::parse_from(["ocelli", "ask", "a.png", "What?", "--choices", "a,b c,d"]);
        let Verb::Ask(args) = cli.verb else {
            panic!("ask was parsed as {:?}", cli.verb)
        };
        assert_eq!(args.choices, ["a", "b c", "d"]);
    }
}

//! Arguments of the verbs over rules and journal.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Arguments of `rules`.
#[derive(Debug, Args)]
pub struct RulesArgs {
    /// What to do with rule files
    #[command(subcommand)]
    pub verb: RulesVerb,
}

/// What to do with rule files.
#[derive(Debug, Subcommand)]
pub enum RulesVerb {
    /// Print every mistake of rule files
    Check(CheckArgs),
    /// Say what one observation would do, or what every rule may do
    Explain(ExplainArgs),
}

/// What a rule file is held against.
#[derive(Clone, Debug, Default, Args)]
pub struct InventoryArgs {
    /// Board whose lines the pins must be: a built-in name or a definition file [default: any line]
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// Zones of the camera settings [default: any name]
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    pub zones: Option<Vec<String>>,
    /// Folder of the installed schemas, NAME.json each [default: any name]
    #[arg(long, value_name = "DIR")]
    pub schemas: Option<PathBuf>,
}

/// Arguments of `rules check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Rule files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What they are held against.
    #[command(flatten)]
    pub inventory: InventoryArgs,
}

/// Words an observation is made of; also in docs/agent.md.
const OBSERVATIONS: &str = "Observations:\n  \
    pin NAME rising|falling            an edge of an input\n  \
    change ZONE[,ZONE] [SHARE] [motion|light|camera]\n  \
    packet NAME [BODY]                 from the serial peer\n  \
    topic NAME [BODY]                  from the broker\n  \
    picture [good|dark|bright|blurred|covered|none]\n  \
    answer RULE ANSWER [PROBABILITY] [early]   also: answer RULE unsure\n  \
    approve RULE [mqtt|serial|http|button]     also: reject\n  \
    hook NAME pass|veto|failed\n  \
    outcome RULE done|failed|timeout\n  \
    link mqtt|serial|http|button up|down\n  \
    fault camera|model|broker|disk|hot|memory [over]\n  \
    command PIN on|off [LINK]          a person wishes for an output\n  \
    switch RULE on|off                 a person switches a rule\n  \
    wait TIME                          nothing but time passes, e.g. wait 5 s\n  \
    at HH:MM [mon|tue|...]             the clock reaches this time\n  \
    start, stop, reload, tick\n\
    The device has been started, all links are up, all inputs are inactive and it is as late as --at says. \
    What must come before an answer (trigger, picture, pause) is added.";

/// Arguments of `rules explain`.
#[derive(Debug, Args)]
#[command(after_help = OBSERVATIONS)]
pub struct ExplainArgs {
    /// Rule file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What happens, in words, e.g. "pin pir rising" [default: say what every rule may do]
    #[arg(value_name = "OBSERVATION")]
    pub observation: Option<String>,
    /// Wall clock at the place of the device, e.g. "2026-11-22 23:10" [default: not known]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// What happened before (may be given several times)
    #[arg(long, value_name = "OBSERVATION", requires = "observation")]
    pub after: Vec<String>,
    /// What the file is held against.
    #[command(flatten)]
    pub inventory: InventoryArgs,
}

/// Arguments of `journal`.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// What to do with a journal
    #[command(subcommand)]
    pub verb: JournalVerb,
}

/// What to do with a journal.
#[derive(Debug, Subcommand)]
pub enum JournalVerb {
    /// Say what happened, in words
    Show(ShowArgs),
    /// Check every checksum and the chain
    Verify {
        /// Folder of the journal
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Write everything as JSON lines, or the answers as CSV
    Export {
        /// Folder of the journal
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// What to write
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
    },
}

/// What `journal export` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Every record, one JSON object a line.
    #[default]
    Jsonl,
    /// The answers, one a line.
    Csv,
}

/// Arguments of `journal show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Folder of the journal
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Only what is younger: 90 min, 1h, 2days, or from "2026-11-22 23:10" on (the device's time)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what concerns this rule
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// Only entries of this kind (may be given several times)
    #[arg(long, value_enum, value_name = "KIND")]
    pub kind: Vec<EntryKind>,
    /// Only the last so many
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
    /// Go on with what is written from now on
    #[arg(long)]
    pub follow: bool,
}

/// Kinds of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EntryKind {
    /// The agent began.
    Began,
    /// A rule file.
    Rules,
    /// A step.
    Step,
    /// How an answer came about.
    Answered,
    /// A picture was kept.
    Kept,
    /// Something that no step has seen.
    Remark,
    /// The agent ended.
    Ended,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Folder of the journal
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Say what these rules would have done instead
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Ask the model again about the pictures kept in this folder, and compare token by token
    #[arg(long, value_name = "DIR", conflicts_with = "rules")]
    pub answers: Option<PathBuf>,
    /// First record
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub from: u64,
    /// Last record [default: the newest]
    #[arg(long, value_name = "SEQ")]
    pub to: Option<u64>,
}

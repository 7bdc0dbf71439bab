//! Arguments of the verbs that bring, list and remove models.

use crate::hub::choice::Format;
use crate::hub::settings::DEFAULT_RETRIES;
use crate::signature::{Keys, SignatureError};
use clap::{Args, Subcommand};
use std::env;
use std::path::PathBuf;
use std::time::Duration;

/// Which keys a pack must be signed by.
#[derive(Clone, Debug, Default, Args)]
pub struct KeyArgs {
    /// Take only packs signed by this minisign key: its line, or its .pub file (may be given several times)
    /// [default: OCELLI_MODEL_KEYS, or `keys` in models.toml]
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// Install this one although it is not signed as the configured keys want it
    #[arg(long)]
    pub allow_unsigned: bool,
}

impl KeyArgs {
    /// The keys a pack must be signed by; none with `--allow-unsigned`.
    ///
    /// # Errors
    ///
    /// A key that cannot be read, whatever is allowed.
    pub fn keys(&self) -> Result<Keys, SignatureError> {
        let keys = Keys::configured(&self.key, |name| env::var_os(name))?;
        Ok(match self.allow_unsigned {
            true => Keys::default(),
            false => keys,
        })
    }
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// A model of the catalogue, or a repository: owner/name, or owner/name@REVISION
    #[arg(value_name = "NAME", required_unless_present = "list")]
    pub name: Option<String>,
    /// Show the catalogue and what fits this board
    #[arg(long, conflicts_with = "name")]
    pub list: bool,
    /// Which files to take: safetensors, gguf[:VARIANT], onnx[:VARIANT] or pack[:VARIANT]
    /// [default: the first of safetensors, pack, gguf, onnx that is there]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Install under this name [default: the name in the catalogue or of the repository]
    #[arg(long = "name", value_name = "NAME", id = "install_as")]
    pub install_as: Option<String>,
    /// Only fetch the files, and print the folder they are in
    #[arg(long)]
    pub no_pack: bool,
    /// Use what the cache has and open no connection
    #[arg(long)]
    pub offline: bool,
    /// Replace a model that was not pulled; try although memory seems too small
    #[arg(long)]
    pub force: bool,
    /// Longest time without a byte before a connection is given up and tried again
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub stall: Duration,
    /// Tries after a failure; progress begins the count anew
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RETRIES)]
    pub retries: u32,
    /// Pause before the second try; it doubles with every further one
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    pub pause: Duration,
    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// Arguments of `models`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ModelsArgs {
    /// Models to look at [default: all that are at hand]
    #[arg(value_name = "M")]
    pub names: Vec<String>,
    /// Compare every tensor with its checksum and the signature with the configured keys, and run the
    /// probes on this CPU
    #[arg(long)]
    pub verify: bool,
    /// Show the models that `ocelli pull` knows, and what fits this board
    #[arg(long, conflicts_with_all = ["names", "verify"])]
    pub catalogue: bool,
    /// What to do instead of listing.
    #[command(subcommand)]
    pub verb: Option<ModelsVerb>,
}

/// What to do with installed models.
#[derive(Debug, Subcommand)]
pub enum ModelsVerb {
    /// Compare every tensor with its checksum and signatures with the configured keys, and run the
    /// probes on this CPU
    Verify {
        /// Models to check [default: all that are at hand]
        #[arg(value_name = "M")]
        names: Vec<String>,
        /// Minisign key that signatures must be by: its line, or its .pub file (may be given several
        /// times) [default: OCELLI_MODEL_KEYS, or `keys` in models.toml]
        #[arg(long, value_name = "KEY")]
        key: Vec<String>,
    },
    /// Remove installed models
    Remove {
        /// Their names
        #[arg(value_name = "M", required = true)]
        names: Vec<String>,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
    /// Install a pack, a model directory or a GGUF file, for instance from a USB stick
    Add(AddArgs),
}

/// Arguments of `models add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// A pack, a folder with one, a model directory, or a GGUF file (with --mmproj if it sees)
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Install under this name [default: the file's or folder's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace an installed model of that name
    #[arg(long)]
    pub force: bool,
    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,
}

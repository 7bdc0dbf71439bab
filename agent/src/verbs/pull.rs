//! `ocelli pull`: a published model is fetched, packed for this board and installed.
//!
//! | file | defines |
//! |---|---|
//! | [`pace`] | speed and time left |
//! | [`transfer`] | what is shown while files come |

pub mod pace;
pub mod transfer;

use crate::catalogue::{KnownModel, known_models};
use crate::cli::{Global, PullArgs};
use crate::fault::Fault;
use crate::hub::address::{Address, DEFAULT_REVISION};
use crate::hub::cache::{CachedRepository, Lock};
use crate::hub::choice::{Choice, Format};
use crate::hub::listing::{Listing, RemoteFile};
use crate::hub::settings::HubSettings;
use crate::hub::{Hub, Watcher};
use crate::install::{Installed, Record, Slot, check_name};
use crate::model;
use crate::progress::Progress;
use crate::remark::remark;
use crate::room::{check_disks, check_memory};
use crate::signature::{self, Keys};
use crate::verbs::models::catalogue;
use crate::verbs::pack;
use ocelli_runtime::config::ModelFiles;
use ocelli_runtime::import::Published;
use ocelli_runtime::import::onnx::Variant;
use ocelli_runtime::pack::Pack;
use ocelli_runtime::packer::{self, PackModelError};
use serde_json::json;
use std::env;
use std::io::{self, Write};
use std::path::Path;
use transfer::Transfer;

/// Files up to this size are fetched before room is reckoned: they say what the large ones hold.
const SMALL_BYTES: u64 = 32 << 20;

/// What is pulled.
struct Order {
    address: Address,
    name: String,
    known: Option<KnownModel>,
    format: Option<Format>,
}

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`]. Nothing is installed then; what has come stays in the cache.
pub fn run(global: &Global, args: &PullArgs) -> Result<(), Fault> {
    if args.list {
        return catalogue::run(global);
    }
    let order = order(args)?;
    check_name(&order.name)?;
    let keys = args.keys.keys()?;
    let mut settings = HubSettings::of(|name| env::var_os(name))?;
    settings.offline |= args.offline;
    settings.stall = args.stall;
    settings.retries = args.retries;
    settings.pause = args.pause;
    let hub = Hub::new(settings)?;
    let mut transfer = Transfer::new(global);
    let listing = hub.list(&order.address, &mut transfer)?;
    let choice =
        Choice::make(&listing, order.format.as_ref()).map_err(crate::hub::HubError::from)?;
    refuse_unsigned(&choice, &order, &keys, args)?;
    let pull = Pull {
        global,
        args,
        cached: hub.cached(&order.address.repository),
        hub: &hub,
        order: &order,
        listing: &listing,
        choice: &choice,
    };
    let _lock = pull.lock(&mut transfer)?;
    match args.no_pack {
        true => pull.fetch_only(&mut transfer),
        false => pull.install(&keys, &mut transfer),
    }
}

/// Reads the name: a model of the catalogue, or a repository.
fn order(args: &PullArgs) -> Result<Order, Fault> {
    let name = args.name.as_deref().unwrap_or_default();
    let models = known_models().map_err(Fault::Argument)?;
    let named = models.iter().find(|model| model.name == name);
    let (address, short) = match named {
        Some(model) => {
            let repository = match args.format {
                Some(Format::Gguf(_)) => model.gguf.clone(),
                _ => model.repository.clone(),
            };
            let revision = DEFAULT_REVISION
                .parse()
                .map_err(crate::hub::HubError::from)?;
            (
                Address {
                    repository,
                    revision,
                },
                model.name.clone(),
            )
        }
        None if !name.contains('/') => {
            let known: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
            return Err(Fault::Argument(format!(
                "{name:?} is neither a model of the catalogue ({}) nor a repository; write owner/name, or see `ocelli pull --list`",
                known.join(", ")
            )));
        }
        None => {
            let address: Address = name.parse().map_err(crate::hub::HubError::from)?;
            let short = address.repository.name().to_owned();
            (address, short)
        }
    };
    let known = models
        .iter()
        .find(|model| model.repository == address.repository || model.gguf == address.repository);
    Ok(Order {
        known: known.cloned(),
        name: args.install_as.clone().unwrap_or(short),
        format: args.format.clone(),
        address,
    })
}

/// With keys configured only packs can be installed, and of them those with a signature.
fn refuse_unsigned(
    choice: &Choice,
    order: &Order,
    keys: &Keys,
    args: &PullArgs,
) -> Result<(), Fault> {
    let has_signature = choice
        .files
        .iter()
        .any(|file| file.path.ends_with(&format!(".{}", signature::EXTENSION)));
    if args.no_pack || keys.is_empty() || has_signature {
        return Ok(());
    }
    Err(keys.missing(order.address.to_string()).into())
}

/// A pull whose files are known.
struct Pull<'a> {
    global: &'a Global,
    args: &'a PullArgs,
    cached: CachedRepository,
    hub: &'a Hub,
    order: &'a Order,
    listing: &'a Listing,
    choice: &'a Choice,
}

impl Pull<'_> {
    /// One pull of a repository at a time.
    fn lock(&self, watcher: &mut dyn Watcher) -> Result<Option<Lock>, Fault> {
        match self.args.offline {
            // A cache that is only read may lie on a medium that cannot be written.
            true => Ok(None),
            false => Ok(Some(self.cached.lock("pull", watcher)?)),
        }
    }

    fn fetch_only(&self, transfer: &mut Transfer) -> Result<(), Fault> {
        let (small, large) = self.parts();
        self.fetch(&small, transfer)?;
        check_disks(&[(self.cached.dir(), self.missing(&large))])?;
        self.fetch(&large, transfer)?;
        let folder = self.cached.snapshot(&self.listing.commit);
        let mut out = io::stdout();
        if self.global.json {
            let event = json!({ "event": "fetched", "path": folder.display().to_string(),
                "commit": self.listing.commit, "format": self.choice.format.to_string() });
            writeln!(out, "{event}")?;
        } else {
            writeln!(out, "{}", folder.display())?;
        }
        Ok(())
    }

    fn install(&self, keys: &Keys, transfer: &mut Transfer) -> Result<(), Fault> {
        let slot = Slot::open(self.global, &self.order.name)?;
        let here = Pack::open(&slot.target()).ok();
        let record = here.as_ref().and_then(|pack| Record::of(slot.dir(), pack));
        if let (Some(pack), Some(record)) = (&here, &record)
            && record.commit.as_deref() == Some(self.listing.commit.as_str())
            && record.format == Some(self.choice.format.to_string())
            && record.source == self.order.address.repository.to_string()
            && !self.args.force
        {
            crate::install::check_signature(&slot.target(), Some(record), keys)?;
            let installed = Installed {
                name: self.order.name.clone(),
                path: slot.target(),
                bytes: pack.len() as u64,
            };
            return self.report(&installed, true);
        }
        if slot.target().exists() && record.is_none() && !self.args.force {
            return Err(Fault::Argument(format!(
                "{} is there and was not pulled; give --force to replace it, or --name to install under another name",
                slot.target().display()
            )));
        }
        let (small, large) = self.parts();
        self.fetch(&small, transfer)?;
        let folder = self.cached.snapshot(&self.listing.commit);
        self.check_room(&folder, &large, slot.dir())?;
        self.fetch(&large, transfer)?;
        let mut progress = Progress::new(self.global);
        let main = match &self.choice.main {
            Some(main) => folder.join(main),
            None => folder.clone(),
        };
        let mut record = Record::now(self.order.address.repository.to_string());
        if let Format::Pack(_) = self.choice.format {
            slot.copy(&main, &mut progress)?;
            record.signature = signature::read(&signature::beside(&main))?;
        } else {
            let projector = self.choice.projector.as_ref().map(|path| folder.join(path));
            let model = Published::open(&main, projector.as_deref(), self.variant()?)
                .map_err(PackModelError::from)?;
            slot.pack(self.global, &model, &mut progress)?;
        }
        record.commit = Some(self.listing.commit.clone());
        record.format = Some(self.choice.format.to_string());
        let of_catalogue = || self.order.known.as_ref().map(|known| known.licence.clone());
        record.licence = self.listing.licence.clone().or_else(of_catalogue);
        let installed = slot.install(&record, keys)?;
        self.report(&installed, false)
    }

    /// Small files, and large ones.
    fn parts(&self) -> (Vec<&RemoteFile>, Vec<&RemoteFile>) {
        let is_small = |file: &&RemoteFile| file.size.is_some_and(|size| size <= SMALL_BYTES);
        self.choice.files.iter().partition(is_small)
    }

    fn fetch(&self, files: &[&RemoteFile], transfer: &mut Transfer) -> Result<(), Fault> {
        transfer.begin(files);
        for file in files {
            let repository = &self.order.address.repository;
            let fetched = self.hub.fetch(repository, self.listing, file, transfer)?;
            transfer.end(&file.path, &fetched)?;
        }
        transfer.clear();
        Ok(())
    }

    /// Bytes that are still to come.
    fn missing(&self, files: &[&RemoteFile]) -> u64 {
        let missing = |file: &&RemoteFile| {
            let size = file.size.unwrap_or_default();
            let here = file.id.map_or(0, |id| self.cached.bytes_here(id));
            size.saturating_sub(here)
        };
        files.iter().map(missing).fold(0, u64::saturating_add)
    }

    /// Which ONNX files of the snapshot are packed: another pull may have left others there.
    fn variant(&self) -> Result<Option<Variant>, Fault> {
        match &self.choice.format {
            Format::Onnx(Some(name)) => match name.parse() {
                Ok(variant) => Ok(Some(variant)),
                Err(error) => Err(Fault::Argument(format!("--format onnx:{name}: {error}"))),
            },
            _ => Ok(None),
        }
    }

    /// Disks for what comes and for the pack, memory for packing.
    fn check_room(&self, folder: &Path, large: &[&RemoteFile], models: &Path) -> Result<(), Fault> {
        let all = self.choice.bytes();
        let (pack, memory) = match &self.choice.format {
            Format::Pack(_) => (all, 0),
            // The configuration lies within the large file: int8 takes at most twice its 4 bits.
            Format::Gguf(_) => (all.saturating_mul(2), 0),
            Format::Safetensors | Format::Onnx(_) => match ModelFiles::read(folder) {
                Ok(files) => (
                    pack::bytes(self.global, &files),
                    packer::working_bytes(&files.config),
                ),
                Err(error) => return Err(PackModelError::Import(error.into()).into()),
            },
        };
        check_disks(&[(self.cached.dir(), self.missing(large)), (models, pack)])?;
        if !self.args.force {
            check_memory(memory)?;
        }
        Ok(())
    }

    fn report(&self, installed: &Installed, was_there: bool) -> Result<(), Fault> {
        let mut out = io::stdout();
        let name = &installed.name;
        if self.global.json {
            let event = json!({ "event": "installed", "name": name,
                "path": installed.path.display().to_string(), "bytes": installed.bytes,
                "repository": self.order.address.repository.to_string(),
                "commit": self.listing.commit, "format": self.choice.format.to_string(),
                "was_there": was_there });
            writeln!(out, "{event}")?;
            return Ok(());
        }
        writeln!(out, "{name}")?;
        if !self.global.quiet {
            let done = match was_there {
                true => "is installed already",
                false => "installed",
            };
            remark!(
                "ocelli: {name} {done} ({:.1} MB, {}); try: ocelli caption photo.jpg -m {name}",
                installed.bytes as f64 / 1e6,
                model::installed_dir().display(),
            );
        }
        Ok(())
    }
}

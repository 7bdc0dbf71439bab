//! `ocelli pull` and what lies under it, against a hub on this machine that behaves badly.

mod protocol;
mod server;
mod signed;
mod verb;

use ocelli_agent::hub::address::{Address, Repository};
use ocelli_agent::hub::cache::CachedRepository;
use ocelli_agent::hub::download::Fetched;
use ocelli_agent::hub::listing::Listing;
use ocelli_agent::hub::settings::HubSettings;
use ocelli_agent::hub::{Hub, HubError, Watcher};
use server::Server;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// What the access token of the tests is.
const TOKEN: &str = "hf_secret";

/// A cache of its own for one test.
struct Desk {
    home: TempDir,
}

/// Remembers what it is told.
#[derive(Default)]
struct Heard {
    retries: Vec<String>,
    waited: usize,
}

impl Watcher for Heard {
    fn bytes(&mut self, _: &str, _: u64, _: Option<u64>) {}

    fn retry(&mut self, what: &str, _: Duration) {
        self.retries.push(what.to_owned());
    }

    fn waiting(&mut self, _: &Path) {
        self.waited += 1;
    }
}

impl Desk {
    fn new() -> Desk {
        Desk {
            home: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// Settings that ask `server`; failures are tried again at once.
    fn settings(&self, server: &Server) -> HubSettings {
        let home = self.home.path().as_os_str().to_owned();
        let mut settings = HubSettings::of(|name| match name {
            "HF_HOME" => Some(home.clone()),
            "HF_ENDPOINT" => Some(OsString::from(server.endpoint())),
            "HF_TOKEN" => Some(TOKEN.into()),
            _ => None,
        })
        .expect("good settings");
        settings.pause = Duration::ZERO;
        settings.retries = 3;
        settings
    }

    fn hub(&self, server: &Server) -> Hub {
        Hub::new(self.settings(server)).expect("a hub")
    }

    fn cached(&self, server: &Server) -> CachedRepository {
        self.hub(server).cached(&repository())
    }

    /// Names of the files in the blobs folder.
    fn blobs(&self, server: &Server) -> Vec<String> {
        names(&self.cached(server).dir().join("blobs"))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn address() -> Address {
    "owner/name".parse().expect("an address")
}

fn repository() -> Repository {
    address().repository
}

/// Lists the repository and fetches one file.
fn fetch(hub: &Hub, path: &str, heard: &mut Heard) -> Result<Fetched, HubError> {
    let listing = hub.list(&address(), heard)?;
    fetch_of(hub, &listing, path, heard)
}

fn fetch_of(
    hub: &Hub,
    listing: &Listing,
    path: &str,
    heard: &mut Heard,
) -> Result<Fetched, HubError> {
    let file = listing.file(path).expect("the file is listed");
    hub.fetch(&repository(), listing, file, heard)
}

//! Published models from a hub: its protocol, and the cache that other tools share.
//!
//! | file | defines |
//! |---|---|
//! | [`settings`] | endpoint, cache folder, token, patience |
//! | [`address`] | repositories, revisions, addresses |
//! | [`listing`] | the files of a revision |
//! | [`choice`] | which of them a model needs |
//! | [`client`] | requests and redirects |
//! | [`download`] | one file, resumed and checked |
//! | [`cache`] | folders and links on disk |
//! | [`digest`], [`patience`], [`pace`] | names of contents, when to try again, when to stop waiting |
//! | [`error`] | what goes wrong |
//!
//! Nothing here opens a connection with [`settings::HubSettings::offline`] set.
//!
//! Source: the hub's HTTP interface and the cache layout as `huggingface_hub` 2.4 uses them.

pub mod address;
pub mod cache;
pub mod choice;
pub mod client;
pub mod digest;
pub mod download;
pub mod error;
pub mod listing;
pub mod pace;
pub mod patience;
pub mod settings;

pub use error::HubError;

use address::{Address, Repository};
use cache::{Cache, CachedRepository};
use client::Client;
use download::{Download, Fetched};
use listing::{Listing, RemoteFile};
use patience::Patience;
use settings::HubSettings;
use std::path::Path;
use std::time::Duration;

/// Who hears how a transfer goes.
pub trait Watcher {
    /// A part of a file has come: bytes of it that are here, and its size if known.
    fn bytes(&mut self, path: &str, done: u64, total: Option<u64>);
    /// Something failed and is tried again after a pause.
    fn retry(&mut self, what: &str, pause: Duration);
    /// Another process holds a lock; it is waited for.
    fn waiting(&mut self, lock: &Path);
}

/// A hub and the cache for what it publishes.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    cache: Cache,
    client: Option<Client>,
}

impl Hub {
    /// Opens no connection yet.
    ///
    /// # Errors
    ///
    /// A token or certificate file that cannot be used.
    pub fn new(settings: HubSettings) -> Result<Hub, HubError> {
        let client = match settings.offline {
            true => None,
            false => Some(Client::new(&settings)?),
        };
        Ok(Hub {
            cache: Cache::new(settings.cache.clone()),
            client,
            settings,
        })
    }

    /// The cached part of a repository.
    pub fn cached(&self, repository: &Repository) -> CachedRepository {
        self.cache.repository(repository)
    }

    /// The files of a revision: asked of the hub, or offline what the cache has of it.
    ///
    /// # Errors
    ///
    /// See [`HubError`].
    pub fn list(&self, address: &Address, watcher: &mut dyn Watcher) -> Result<Listing, HubError> {
        let cached = self.cached(&address.repository);
        let Some(client) = &self.client else {
            return cached.listing(&address.revision);
        };
        let mut patience = Patience::new(&self.settings);
        let listing = loop {
            match client.list(address) {
                Ok(listing) => break listing,
                Err(failure) => patience.pause(failure, watcher)?,
            }
        };
        cached.remember(&address.revision, &listing.commit)?;
        Ok(listing)
    }

    /// Brings one file of a listing into the cache, if it is not there.
    ///
    /// # Errors
    ///
    /// See [`HubError`]. What has come stays and is resumed.
    pub fn fetch(
        &self,
        repository: &Repository,
        listing: &Listing,
        file: &RemoteFile,
        watcher: &mut dyn Watcher,
    ) -> Result<Fetched, HubError> {
        let cached = self.cached(repository);
        let here = cached.file(&listing.commit, &file.path);
        if let Some(bytes) = cache::whole(&here, file.size) {
            return Ok(Fetched {
                path: here,
                bytes,
                was_cached: true,
            });
        }
        let Some(client) = &self.client else {
            return Err(HubError::Offline {
                what: format!("{} of {repository}", file.path),
            });
        };
        let download = Download {
            client,
            settings: &self.settings,
            repository,
            cached: &cached,
            commit: &listing.commit,
        };
        download.run(file, watcher)
    }
}

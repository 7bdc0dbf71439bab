//! What goes wrong between a hub and this machine.

use super::address::AddressError;
use super::choice::ChoiceError;
use crate::remedy::remedy;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A repository, revision or endpoint cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A setting cannot be used.
    #[error("{name} = {value:?}: {rule}")]
    Setting {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
    /// The token cannot be used.
    #[error("the access token of {from} cannot be used: {reason}")]
    Token {
        /// Variable or file.
        from: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token would be readable on its way.
    #[error(
        "the access token would travel readable to {host}, which is not in the local network; name the hub with https:// in HF_ENDPOINT, or unset HF_TOKEN"
    )]
    PlainToken {
        /// The host.
        host: String,
    },
    /// The certificate authorities cannot be read.
    #[error("{}: the certificate authorities cannot be read: {reason}; install `ca-certificates` or set SSL_CERT_FILE", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something is not here and may not be fetched.
    #[error(
        "{what} is not in the cache, and the network is switched off; pull it without --offline (and with HF_HUB_OFFLINE unset) where there is a network"
    )]
    Offline {
        /// What is wanted.
        what: String,
    },
    /// The hub wants to know who asks.
    #[error(
        "{url} answered with status 401: it does not exist, or it is private, or the access token is wrong; check the name, or put a token into HF_TOKEN"
    )]
    Unauthorised {
        /// What was asked for.
        url: String,
    },
    /// The hub knows who asks and says no.
    #[error(
        "{url} answered with status 403: {reason}; accept the model's conditions on its page, or use a token that may read it"
    )]
    Forbidden {
        /// What was asked for.
        url: String,
        /// What the hub says.
        reason: String,
    },
    /// There is no such thing.
    #[error("{url} answered with status 404: {reason}; check the name and the revision")]
    NotFound {
        /// What was asked for.
        url: String,
        /// What the hub says.
        reason: String,
    },
    /// Another refusal.
    #[error("{url} answered with status {status}: {text}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// The begin of what it said.
        text: String,
    },
    /// The hub asks for more patience than there is.
    #[error(
        "{url} answered with status {status} and asks to come back in {} s, the limit is {} s; try again then", after.as_secs(), limit.as_secs()
    )]
    TooBusy {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// How long it wants to be left alone.
        after: Duration,
        /// Longest pause that is kept.
        limit: Duration,
    },
    /// A page for people came instead of a file.
    #[error(
        "{url} answered with a web page instead of the file: is there a network that wants you to log in first, or a proxy between? Is HF_ENDPOINT a hub?"
    )]
    WebPage {
        /// What was asked for.
        url: String,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects to {location:?}: {reason}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where it leads.
        location: String,
        /// Why that is refused.
        reason: &'static str,
    },
    /// Tries ran out.
    #[error(
        "{reason}; given up after {tries} tries. What has come is kept: pull again to go on from there"
    )]
    GivenUp {
        /// What happened last, with the address.
        reason: String,
        /// How often it was tried without progress.
        tries: u32,
    },
    /// No connection that could become one by waiting.
    #[error("{url}: {reason}; check this device's clock, the proxy settings and HF_ENDPOINT")]
    Connection {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The list of files cannot be used.
    #[error("{url} gave no usable list of files: {reason}")]
    Listing {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A file has another length than was said.
    #[error(
        "{url}: the list of files says {wanted} bytes, the server {found}; the file is not taken"
    )]
    Length {
        /// What was asked for.
        url: String,
        /// Bytes by the list.
        wanted: u64,
        /// Bytes by the server.
        found: u64,
    },
    /// A file has no end.
    #[error("{url} goes on beyond {limit} bytes; the file is not taken")]
    Endless {
        /// What was asked for.
        url: String,
        /// Most that was expected.
        limit: u64,
    },
    /// A file has another content than was said.
    #[error(
        "{url} has the wrong content: its hash is {found}, the hub says {wanted}; it was thrown away. A proxy or a broken mirror may have changed it: pull again, or set HF_ENDPOINT to another hub"
    )]
    Hash {
        /// What was asked for.
        url: String,
        /// The hash it should have.
        wanted: String,
        /// The hash it has.
        found: String,
    },
    /// The server does not name a file's content.
    #[error(
        "{url}: neither the list of files nor the server names a hash of the file, so it cannot be checked; is HF_ENDPOINT a hub?"
    )]
    NoHash {
        /// What was asked for.
        url: String,
    },
    /// Which files are wanted cannot be told.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// A file or folder of the cache cannot be used.
    #[error("{}: {source}{}", path.display(), remedy(source, "with HF_HOME"))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HubError {
    /// 1 a fault while running, 2 bad arguments, 3 model missing.
    pub fn exit_code(&self) -> u8 {
        match self {
            HubError::Address(_) | HubError::Setting { .. } | HubError::Token { .. } => 2,
            HubError::PlainToken { .. } | HubError::Choice(_) => 2,
            HubError::Offline { .. } | HubError::NotFound { .. } => 3,
            HubError::Unauthorised { .. } | HubError::Forbidden { .. } => 3,
            _ => 1,
        }
    }

    /// Makes an error about a file of what the system said.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> HubError {
        let path = path.into();
        |source| HubError::File { path, source }
    }
}

//! The page for a person at the device: what it sees, what waits for a yes, its figures.
//!
//! | file | defines |
//! |---|---|
//! | [`settings`] | the `[http]` table of the configuration |
//! | [`state`] | what is shown |
//! | [`request`] | the bytes of a request |
//! | `site` | which request is answered with what, and who may decide; without I/O |
//! | `metrics` | figures as text for Prometheus |
//! | `server` | the thread that holds the connections |
//!
//! | address | answers with |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /state.json` | the same as JSON |
//! | `GET /snapshot/NAME` | a picture the loop offers |
//! | `POST /decide` | takes a decision: `request`, `nonce`, `decision`, `csrf` as a form |
//! | `GET /health` | 200 while the loop makes progress, else 503 |
//! | `GET /metrics` | figures |

mod metrics;
pub mod request;
mod server;
pub mod settings;
mod site;
pub mod state;

pub use settings::{Settings, SettingsError};
pub use state::{AnswerShown, Fact, Family, FamilyKind, PageState, PendingAction, Picture, Sample};

use crate::mailbox::Mailbox;
use server::Shared;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Decisions that wait to be taken; one more is refused with 503.
const MAX_DECISIONS: usize = 32;

/// What a person decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The pending action.
    pub request: u64,
    /// The number that was shown with it.
    pub nonce: u64,
    /// True: it may be done.
    pub granted: bool,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// Settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address cannot be listened on.
    #[error(
        "`http.listen = \"{listen}\"`: {source}; is another program on this port, and has this machine the address?"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread, its descriptors or random numbers cannot be had.
    #[error("the page cannot be started: {source}; check the limits of open files and processes")]
    Start {
        /// What the system said.
        source: std::io::Error,
    },
}

/// The running page. Dropping it ends it.
pub struct Page {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Page {
    /// Listens and begins to answer; until the first [`Page::show`] the page is empty.
    ///
    /// # Errors
    ///
    /// [`PageError`].
    pub fn start(settings: &Settings) -> Result<Page, PageError> {
        let token = settings.token()?;
        let listen = settings.listen;
        let bound = TcpListener::bind(listen).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, address) = bound.map_err(|source| PageError::Listen { listen, source })?;
        let begin = || -> std::io::Result<Page> {
            let site = site::Site::new(settings, token.as_ref(), site::random()?);
            let shared = Arc::new(Shared::new(Mailbox::new(MAX_DECISIONS)?)?);
            let theirs = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name("page".to_owned())
                .spawn(move || server::run(&listener, &theirs, &site))?;
            Ok(Page {
                shared,
                address,
                thread: Some(thread),
            })
        };
        begin().map_err(|source| PageError::Start { source })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows another state from now on.
    pub fn show(&self, state: PageState) {
        self.shared.show(state);
    }

    /// The loop made progress; `/health` is well for `health_limit_s` after it.
    pub fn progressed(&self) {
        self.shared.progressed();
    }

    /// The next decision.
    pub fn try_next(&self) -> Option<Decision> {
        self.shared.decisions().take()
    }

    /// Readable while a decision waits.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.decisions().as_fd()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // It never blocks but in its poll, which it was just woken from.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;

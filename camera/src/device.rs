//! The camera devices of a board, and what to tell their owner when one cannot be used.

mod advice;
mod holder;

pub use advice::{Advice, Facts, Obstacle, advise};

use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::source::SourceError;
use crate::v4l2::{Capability, Node, nodes};

/// One video device.
#[derive(Clone, Debug)]
pub struct Device {
    /// What was found out about it.
    pub facts: Facts,
    /// Whether it can be used, and what to do if not.
    pub advice: Advice,
}

/// All video devices by number.
pub fn list() -> Vec<Device> {
    let look = |path: &Path| {
        let facts = facts(path);
        Device {
            advice: advise(&facts),
            facts,
        }
    };
    nodes().iter().map(|path| look(path)).collect()
}

/// Finds out about one device.
pub fn facts(path: &Path) -> Facts {
    let obstacle = |error: io::Error| Obstacle::of(&error);
    let opened = Node::open(path).and_then(|node| Ok((node.capability()?, node.formats())));
    match opened {
        Ok((capability, formats)) => Facts {
            capability,
            formats,
            ..Facts::new(path)
        },
        Err(error) => Facts {
            obstacle: Some(obstacle(error)),
            ..named(path)
        },
    }
}

/// What the system tells of a device that cannot be opened.
fn named(path: &Path) -> Facts {
    let mut facts = Facts::new(path);
    let node = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = node
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let card = std::fs::read_to_string(format!("/sys/class/video4linux/{name}/name"));
    facts.capability.card = card.unwrap_or_default().trim().to_owned();
    facts.holder = holder::of(&node);
    facts
}

/// Why a device cannot be opened, with advice.
pub(crate) fn open_error(path: &Path, error: &io::Error) -> SourceError {
    let facts = Facts {
        obstacle: Some(Obstacle::of(error)),
        ..named(path)
    };
    let retry = !matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EACCES | Errno::EPERM | Errno::ENOTTY | Errno::EINVAL)
    );
    refusal(&facts, retry)
}

/// The device streams to another program.
pub(crate) fn busy(address: &str) -> SourceError {
    let path = address.strip_prefix("v4l2:").unwrap_or(address);
    let path = path.split('?').next().unwrap_or(path);
    open_error(Path::new(path), &Errno::EBUSY.into())
}

/// Why a device that could be opened is no camera for this program.
pub(crate) fn unusable(
    path: &Path,
    capability: &Capability,
    formats: &[[u8; 4]],
) -> Option<SourceError> {
    let (capability, formats) = (capability.clone(), formats.to_vec());
    let facts = Facts {
        capability,
        formats,
        ..Facts::new(path)
    };
    (!advise(&facts).usable).then(|| refusal(&facts, false))
}

fn refusal(facts: &Facts, retry: bool) -> SourceError {
    let address = format!("v4l2:{}", facts.path.display());
    let Advice { what, advice, .. } = advise(facts);
    match retry {
        true => SourceError::Unavailable {
            address,
            what,
            advice,
        },
        false => SourceError::Unusable {
            address,
            what,
            advice,
        },
    }
}

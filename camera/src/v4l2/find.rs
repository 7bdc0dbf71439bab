//! Finding a camera again that has got another number.

use std::fs;
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use v4l::v4l_sys as sys;

use super::node::{Capability, Node};

/// A device node and what its driver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The node, for example `/dev/video0`.
    pub(crate) path: PathBuf,
    /// What the driver says.
    pub(crate) capability: Capability,
}

/// What is known of the camera that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Where it was, or a link to it.
    pub(super) path: Option<&'a Path>,
    /// Its name.
    pub(super) card: Option<&'a str>,
    /// Where it is plugged in.
    pub(super) bus: Option<&'a str>,
}

/// Picks the camera out of all that are there.
///
/// The node at the wanted path if name and place are right; else one with the right name and place; else,
/// if there is just one with the right name, that one: it was plugged in elsewhere.
pub(super) fn pick<'a>(wanted: Wanted<'_>, seen: &'a [Seen]) -> Option<&'a Seen> {
    let card = |it: &Seen| wanted.card.is_none_or(|card| card == it.capability.card);
    let bus = |it: &Seen| wanted.bus.is_none_or(|bus| bus == it.capability.bus);
    let at_path = seen
        .iter()
        .find(|it| wanted.path.is_some_and(|path| path == it.path));
    if let Some(found) = at_path.filter(|it| card(it) && bus(it)) {
        return Some(found);
    }
    if wanted.card.is_none() && wanted.bus.is_none() {
        return None;
    }
    let cameras = || {
        seen.iter()
            .filter(|it| is_camera(&it.capability) && card(it))
    };
    if let Some(found) = cameras().find(|it| bus(it)) {
        return Some(found);
    }
    let mut named = cameras().filter(|_| wanted.card.is_some());
    named.next().filter(|_| named.next().is_none())
}

/// Whether frames can be streamed from the node.
pub(super) fn is_camera(capability: &Capability) -> bool {
    let needed = sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_STREAMING;
    capability.abilities & needed == needed
}

/// All nodes that answer, by number.
pub(super) fn all() -> Vec<Seen> {
    let paths = nodes();
    let look = |path: PathBuf| {
        let capability = Node::open(&path).ok()?.capability().ok()?;
        Some(Seen { path, capability })
    };
    paths.into_iter().filter_map(look).collect()
}

/// All `/dev/video*`, by number.
pub(crate) fn nodes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("video")?.parse::<u32>().ok();
    let named =
        entries.filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())));
    let mut named: Vec<(u32, PathBuf)> = named.collect();
    named.sort();
    named.into_iter().map(|(_, path)| path).collect()
}

/// A URI that finds the camera at `path` again.
pub(super) fn address(path: &Path, capability: &Capability) -> String {
    // A link that was named stays the way to it.
    let link = if path.is_symlink() {
        Some(path.to_owned())
    } else {
        by_id(path)
    };
    if let Some(link) = link {
        return format!("v4l2:{}", link.display());
    }
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let (bus, card) = (encode(&capability.bus), encode(&capability.card));
    format!("v4l2:{}?bus={bus}&card={card}", path.display())
}

/// The link in `/dev/v4l/by-id` that leads to a node.
fn by_id(path: &Path) -> Option<PathBuf> {
    let node = fs::canonicalize(path).ok()?;
    let links = fs::read_dir("/dev/v4l/by-id")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let mut leading = links.filter(|link| fs::canonicalize(link).is_ok_and(|to| to == node));
    leading.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str, card: &str, bus: &str) -> Seen {
        let abilities = match card {
            "output" => sys::V4L2_CAP_VIDEO_OUTPUT | sys::V4L2_CAP_STREAMING,
            _ => sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_STREAMING,
        };
        let (card, bus) = (card.to_owned(), bus.to_owned());
        let capability = Capability {
            driver: "uvcvideo".into(),
            card,
            bus,
            abilities,
        };
        Seen {
            path: path.into(),
            capability,
        }
    }

    #[test]
    fn a_camera_is_found_again_by_place_and_name() {
        let two = [
            seen("/dev/video0", "Door", "usb-1"),
            seen("/dev/video2", "Yard", "usb-2"),
            seen("/dev/video3", "output", "usb-2"),
        ];
        let moved = [seen("/dev/video3", "Door", "usb-1")];
        let replugged = [
            seen("/dev/video5", "Door", "usb-7"),
            seen("/dev/video6", "Yard", "usb-2"),
        ];
        let twins = [
            seen("/dev/video0", "Eye", "usb-8"),
            seen("/dev/video2", "Eye", "usb-9"),
        ];
        type Case<'a> = (&'a str, &'a [Seen], [Option<&'a str>; 3], Option<&'a str>);
        let cases: [Case<'_>; 10] = [
            (
                "by path",
                &two,
                [Some("/dev/video2"), None, None],
                Some("/dev/video2"),
            ),
            (
                "path is gone",
                &two,
                [Some("/dev/video7"), None, None],
                None,
            ),
            (
                "at its place",
                &two,
                [Some("/dev/video0"), Some("Door"), Some("usb-1")],
                Some("/dev/video0"),
            ),
            (
                "renumbered",
                &moved,
                [Some("/dev/video0"), Some("Door"), Some("usb-1")],
                Some("/dev/video3"),
            ),
            (
                "another took its number",
                &two,
                [Some("/dev/video2"), Some("Door"), Some("usb-1")],
                Some("/dev/video0"),
            ),
            (
                "other socket",
                &replugged,
                [Some("/dev/video0"), Some("Door"), Some("usb-1")],
                Some("/dev/video5"),
            ),
            (
                "only others",
                &replugged,
                [Some("/dev/video5"), Some("Attic"), Some("usb-7")],
                None,
            ),
            (
                "twins elsewhere",
                &twins,
                [Some("/dev/video4"), Some("Eye"), Some("usb-1")],
                None,
            ),
            (
                "by name",
                &two,
                [None, Some("Yard"), None],
                Some("/dev/video2"),
            ),
            (
                "an output is no camera",
                &two,
                [None, Some("output"), None],
                None,
            ),
        ];
        for (name, all, [path, card, bus], expected) in cases {
            let wanted = Wanted {
                path: path.map(Path::new),
                card,
                bus,
            };
            let found = pick(wanted, all).map(|it| it.path.as_path());
            assert_eq!(found, expected.map(Path::new), "{name}");
        }
    }
}

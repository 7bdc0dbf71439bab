//! As much of MQTT's packets as the broker needs.
//!
//! Source: MQTT Version 5.0 and 3.1.1, OASIS Standards, chapters 2 and 3.

use std::io::{self, Read};

/// Longest packet that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    Connect(Version),
    /// Packet identifier and filters.
    Subscribe(u16, Vec<String>),
    /// Packet identifier and number of filters.
    Unsubscribe(u16, usize),
    Publish {
        topic: String,
        payload: Vec<u8>,
        /// Present at QoS 1.
        id: Option<u16>,
    },
    Ping,
    Disconnect,
    Other,
}

/// Reads one packet.
pub(super) fn read(stream: &mut impl Read, version: Version) -> io::Result<Inbound> {
    let head = byte(stream)?;
    let mut length = 0;
    for place in 0..4 {
        let part = byte(stream)?;
        length |= usize::from(part & 0x7f) << (7 * place);
        if part & 0x80 == 0 {
            break;
        }
    }
    if length > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    understand(head, &body, version).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn byte(stream: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn understand(head: u8, body: &[u8], version: Version) -> Option<Inbound> {
    let mut rest = body;
    Some(match head >> 4 {
        1 => {
            let _ = text(&mut rest)?;
            Inbound::Connect(match rest.first()? {
                5 => Version::V5,
                _ => Version::V311,
            })
        }
        3 => {
            let topic = text(&mut rest)?;
            let id = match head & 0b110 {
                0 => None,
                _ => Some(number(&mut rest)?),
            };
            properties(&mut rest, version)?;
            let payload = rest.to_vec();
            Inbound::Publish { topic, payload, id }
        }
        8 => {
            let id = number(&mut rest)?;
            properties(&mut rest, version)?;
            let mut filters = Vec::new();
            while !rest.is_empty() {
                filters.push(text(&mut rest)?);
                rest = rest.get(1..)?;
            }
            Inbound::Subscribe(id, filters)
        }
        10 => {
            let id = number(&mut rest)?;
            properties(&mut rest, version)?;
            let mut n_filters = 0;
            while !rest.is_empty() {
                text(&mut rest)?;
                n_filters += 1;
            }
            Inbound::Unsubscribe(id, n_filters)
        }
        12 => Inbound::Ping,
        14 => Inbound::Disconnect,
        _ => Inbound::Other,
    })
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u16::from_be_bytes(*number))
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(number(rest)?);
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

/// Passes over the properties, which MQTT 5 has.
fn properties(rest: &mut &[u8], version: Version) -> Option<()> {
    if version == Version::V311 {
        return Some(());
    }
    let mut length = 0;
    for place in 0..4 {
        let (part, after) = rest.split_first()?;
        *rest = after;
        length |= usize::from(part & 0x7f) << (7 * place);
        if part & 0x80 == 0 {
            break;
        }
    }
    *rest = rest.get(length..)?;
    Some(())
}

/// A packet with its length.
fn whole(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut length = body.len();
    loop {
        let part = (length & 0x7f) as u8;
        length >>= 7;
        packet.push(part | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// The length of no properties, where there are properties.
fn none(version: Version) -> &'static [u8] {
    match version {
        Version::V311 => &[],
        Version::V5 => &[0],
    }
}

pub(super) fn connack(version: Version) -> Vec<u8> {
    whole(0x20, &[&[0, 0], none(version)].concat())
}

pub(super) fn suback(id: u16, n_filters: usize, version: Version) -> Vec<u8> {
    let granted = vec![1; n_filters];
    whole(
        0x90,
        &[&id.to_be_bytes()[..], none(version), &granted].concat(),
    )
}

pub(super) fn unsuback(id: u16, n_filters: usize, version: Version) -> Vec<u8> {
    let done = match version {
        Version::V311 => Vec::new(),
        Version::V5 => vec![0; n_filters],
    };
    whole(
        0xb0,
        &[&id.to_be_bytes()[..], none(version), &done].concat(),
    )
}

pub(super) fn puback(id: u16) -> Vec<u8> {
    whole(0x40, &id.to_be_bytes())
}

pub(super) fn pong() -> Vec<u8> {
    whole(0xd0, &[])
}

/// A message at QoS 0 for the client.
pub(super) fn publish(topic: &str, payload: &[u8], version: Version) -> Vec<u8> {
    let length = (topic.len() as u16).to_be_bytes();
    whole(
        0x30,
        &[&length[..], topic.as_bytes(), none(version), payload].concat(),
    )
}

/// Whether a topic is one of a filter.
pub(super) fn fits(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_read_in_both_versions() {
        for version in [Version::V311, Version::V5] {
            let bytes = publish("a/b", b"payload", version);
            let expected = Inbound::Publish {
                topic: "a/b".to_owned(),
                payload: b"payload".to_vec(),
                id: None,
            };
            assert_eq!(read(&mut bytes.as_slice(), version).unwrap(), expected);
            assert!(read(&mut &bytes[..bytes.len() - 1], version).is_err());
        }
    }

    #[test]
    fn filters_have_wildcards() {
        for (filter, topic, is_in) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+/c", "a/b/c", true),
            ("a/+", "a", false),
            ("a/#", "a/b/c", true),
        ] {
            assert_eq!(fits(filter, topic), is_in, "{filter} {topic}");
        }
    }
}

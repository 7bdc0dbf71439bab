//! [`Record`]: what is written down, and its bytes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest payload in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 256 << 10;
/// Highest number of a record: what is higher is damage, so that counting on cannot overflow.
pub const MAX_SEQUENCE: u64 = u64::MAX >> 1;
/// Begin of a record.
const MARKER: [u8; 4] = *b"OJR1";
/// Marker, length, known bytes, CRC.
const PREFIX_BYTES: usize = 16;
/// Bytes of a record beside its payload.
pub const OVERHEAD_BYTES: usize = PREFIX_BYTES + size_of::<Hash>();

/// SHA-256 of the hash before and a payload.
pub type Hash = [u8; 32];

/// When something was written down, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since the board started (`CLOCK_BOOTTIME`).
    pub boot_ms: u64,
    /// Milliseconds since 1970-01-01 UTC; `None` while the clock has not been set.
    pub wall_ms: Option<u64>,
}

/// One entry of the journal. The type of the body is its owner's; it must stay readable, so new
/// variants go to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<T> {
    /// Counts from 1, without gaps.
    pub sequence: u64,
    /// When.
    pub at: Moment,
    /// Which start of the board, e.g. `/proc/sys/kernel/random/boot_id`.
    pub boot: u128,
    /// What the body is about, for those who do not know its type.
    pub kind: u8,
    /// What happened.
    pub body: T,
}

/// The next link of the chain.
pub fn chained(before: &Hash, payload: &[u8]) -> Hash {
    Sha256::new()
        .chain_update(before)
        .chain_update(payload)
        .finalize()
        .into()
}

/// Adds a record to `out`.
pub fn write(out: &mut Vec<u8>, payload: &[u8], known_bytes: u32, hash: &Hash) {
    // Payloads are at most MAX_PAYLOAD_BYTES.
    let length = (payload.len() as u32).to_le_bytes();
    let known = known_bytes.to_le_bytes();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&length);
    out.extend_from_slice(&known);
    out.extend_from_slice(&checksum(&length, &known, payload, hash).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(hash);
}

fn checksum(length: &[u8; 4], known: &[u8; 4], payload: &[u8], hash: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    [&length[..], known, payload, hash]
        .into_iter()
        .for_each(|part| crc.update(part));
    crc.finalize()
}

/// A record whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Sound<'a> {
    /// Its number.
    pub sequence: u64,
    /// Its content.
    pub payload: &'a [u8],
    /// Bytes of the segment that were on the disk when it was written.
    pub known_bytes: u32,
    /// Its link of the chain, as written.
    pub hash: Hash,
    /// Bytes it takes.
    pub n_bytes: usize,
}

/// Reads the record at the begin of `bytes`; `None` if there is no whole and sound one.
pub fn read(bytes: &[u8]) -> Option<Sound<'_>> {
    let (marker, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (known, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let n_payload = u32::from_le_bytes(*length) as usize;
    if *marker != MARKER || n_payload > MAX_PAYLOAD_BYTES {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(n_payload)?;
    let (hash, _) = rest.split_first_chunk::<32>()?;
    if checksum(length, known, payload, hash) != u32::from_le_bytes(*crc) {
        return None;
    }
    // The number is the first field of every record.
    let (sequence, _) = postcard::take_from_bytes::<u64>(payload).ok()?;
    if sequence > MAX_SEQUENCE {
        return None;
    }
    Some(Sound {
        sequence,
        payload,
        known_bytes: u32::from_le_bytes(*known),
        hash: *hash,
        n_bytes: OVERHEAD_BYTES + n_payload,
    })
}

/// Where the next sound record begins, at `from` or behind.
pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= OVERHEAD_BYTES) {
        let step = rest.windows(MARKER.len()).position(|four| four == MARKER)?;
        at += step;
        if read(&bytes[at..]).is_some() {
            return Some(at);
        }
        at += 1;
    }
    None
}

//! Packs: whatever the bytes, opening is an error or gives tensors inside the file.
//!
//! The first byte chooses: even, the rest is a pack; odd, the rest is a header that gets a right
//! prefix, checksum and zeros for data, so that what lies behind the checksum is reached: of the
//! usual format, or with the second bit set of that of packs in another basis.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_runtime::pack::{BASIS_VERSION, FORMAT_VERSION, Layout, MAGIC, PREFIX_BYTES, Pack};
use ocelli_runtime::weights::Region;

/// Zeros behind a header.
const DATA: usize = 1 << 20;

fn with_prefix(version: u32, header: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + 64 + DATA);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(header).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len().next_multiple_of(64) + DATA, 0);
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let version = if choice & 2 == 0 { FORMAT_VERSION } else { BASIS_VERSION };
    let bytes = if choice % 2 == 0 { rest.to_vec() } else { with_prefix(version, rest) };
    let Ok(pack) = Pack::from_region(Region::from_vec(bytes), "fuzz") else { return };
    let _ = pack.verify();
    for entry in &pack.header().tensors {
        let _ = pack.find(&entry.name, entry.layout, entry.shape);
        let _ = pack.find(&entry.name, Layout::Bytes, [1, 1]);
        let _ = pack.blob(&entry.name);
    }
});

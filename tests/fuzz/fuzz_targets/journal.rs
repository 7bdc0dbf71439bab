//! The journal: whatever is in its files, reading ends, and after an opening it takes records.
//!
//! The first byte chooses: even, the rest is the first segment; odd, it is payloads, each behind a
//! byte with its length, that get a right header, chain and checksums, so that what lies behind is
//! reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocelli_agent::journal::record::{Hash, chained, write};
use ocelli_agent::journal::segment::{Header, name};
use ocelli_agent::journal::{Journal, JournalSettings, Moment, Storage, export, verify};
use std::collections::BTreeMap;
use std::io;

/// Files in memory.
#[derive(Clone, Debug, Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Memory {
    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.0.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.0[name].len() as u64)
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let content = &self.0[name];
        Ok(content[..content.len().min(limit as usize)].to_vec())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        assert!(self.0.insert(name.to_owned(), Vec::new()).is_none());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.extend(bytes);
        Ok(())
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, name: &str, n_bytes: u64) -> io::Result<()> {
        self.file(name)?.truncate(n_bytes as usize);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let content = self.0.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.0.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name);
        Ok(())
    }
}

fn segment(mut payloads: &[u8]) -> Vec<u8> {
    let header = Header { first: 1, before: Hash::default(), created_ms: 5 };
    let (mut bytes, mut last) = (header.bytes().to_vec(), header.before);
    while let Some((&length, rest)) = payloads.split_first() {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(length)));
        payloads = rest;
        last = chained(&last, payload);
        let known = bytes.len() as u32;
        write(&mut bytes, payload, known, &last);
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let bytes = if choice % 2 == 0 { rest.to_vec() } else { segment(rest) };
    let disk = Memory(BTreeMap::from([(name(1), bytes)]));
    let before = verify(&disk).expect("memory does not fail");
    export::<(String, u32)>(&disk, io::sink()).expect("memory does not fail");
    let Ok((mut journal, _)) = Journal::open(disk, JournalSettings::default(), 1) else { return };
    let last = journal.durable();
    assert_eq!(before.range.map_or(0, |(_, newest)| newest), last);
    let sequence = journal
        .append_now(0, &("a record", 1), Moment::default())
        .expect("memory does not fail");
    assert_eq!(sequence, last + 1);
});

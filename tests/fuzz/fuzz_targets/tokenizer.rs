//! Prepared tokenizer tables: whatever the bytes, opening is an error or gives a tokenizer that
//! comes to an end, with tokens of its vocabulary, and a tree of tokens no larger than the tables.
//!
//! The first byte is the length of a text, the text follows, then the tables.

#![no_main]

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use ocelli_runtime::constrain::TokenTrie;
use ocelli_runtime::pack::{Header, Layout, Pack, PackWriter, PlannedTensor};
use ocelli_runtime::tokenizer::{TABLES_BLOB, Tokenizer};
use ocelli_runtime::weights::Region;

const MODEL: &[u8] = include_bytes!("../../../models/default.ocelli");

/// A pack of nothing but tables.
fn pack(tables: &[u8]) -> Pack {
    static HEADER: LazyLock<Header> = LazyLock::new(|| {
        let region = Region::from_vec(MODEL.to_vec());
        let pack = Pack::from_region(region, "default").expect("the default pack is sound");
        pack.header().clone()
    });
    let plan = [PlannedTensor {
        name: TABLES_BLOB.to_owned(),
        layout: Layout::Bytes,
        shape: [1, tables.len()],
        group: 0,
    }];
    let out = Cursor::new(Vec::new());
    let mut writer = PackWriter::new(out, HEADER.clone(), &plan).expect("memory can be written");
    writer.write(TABLES_BLOB, tables).expect("memory can be written");
    let bytes = writer.finish().expect("memory can be written").into_inner();
    Pack::from_region(Region::from_vec(bytes), "fuzz").expect("the header is sound")
}

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first() else { return };
    let Some((text, tables)) = rest.split_at_checked(usize::from(*length)) else { return };
    let Ok(tokenizer) = Tokenizer::from_pack(&Arc::new(pack(tables))) else { return };
    let text = String::from_utf8_lossy(text);
    let ids = tokenizer.encode(&text).expect("tables encode any text");
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.n_tokens()));
    let _ = tokenizer.decode(&ids, false);
    let _ = tokenizer.added_token_in(&text);
    let all: usize = tokenizer.text_tokens().map(|(_, bytes)| bytes.len()).sum();
    assert!(all <= tables.len());
    let _ = TokenTrie::new(tokenizer.text_tokens());
});

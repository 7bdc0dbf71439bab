//! Packs signed with keys of their own making; `agent/src/signature/tests.rs` has the vectors of
//! the real tool.

use crate::names;
use crate::server::{Published, Server};
use crate::verb::{Home, assert_done, assert_fails, events, published, tiny_pack};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fs;

/// A pair of keys as minisign makes them, without a file.
struct Signer {
    id: [u8; 8],
    keys: Ed25519KeyPair,
}

impl Signer {
    fn new(seed: u8) -> Signer {
        Signer {
            id: [seed; 8],
            keys: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed"),
        }
    }

    /// The line of the public key.
    fn line(&self) -> String {
        let key = self.keys.public_key().as_ref();
        STANDARD.encode([b"Ed", &self.id[..], key].concat())
    }

    /// The text of a signature file.
    fn sign(&self, bytes: &[u8]) -> String {
        let comment = "porch, version 1";
        let signature = self.keys.sign(&Blake2b512::digest(bytes));
        let line = STANDARD.encode([b"ED", &self.id[..], signature.as_ref()].concat());
        let both = [signature.as_ref(), comment.as_bytes()].concat();
        let last = STANDARD.encode(self.keys.sign(&both));
        format!("untrusted comment: x\n{line}\ntrusted comment: {comment}\n{last}\n")
    }
}

fn hub(signature: Option<&str>) -> Server {
    let mut files = vec![("porch.ocelli", tiny_pack())];
    files.extend(signature.map(|text| ("porch.ocelli.minisig", text.as_bytes())));
    Server::good(Published::of(&files))
}

#[test]
fn a_pulled_pack_must_be_signed_by_the_configured_key() {
    let (ours, theirs) = (Signer::new(1), Signer::new(2));
    let key = ours.line();
    let good = ours.sign(tiny_pack());
    let home = Home::new(&hub(Some(&good)));
    assert_done(&home.pull(&["--key", &key]));
    assert_eq!(home.installed(), ["name.ocelli"]);
    let verified = home.run(&["models", "verify", "name", "--key", &key, "--json"]);
    assert_done(&verified);
    let id = events(&verified)[0]["signed_by"].clone();
    let id = id.as_str().expect("an id").to_owned();
    let other = theirs.line();
    let refused = home.run(&["models", "verify", "name", "--key", &other]);
    assert_fails(&refused, 3, &[&id]);

    let stranger = theirs.sign(tiny_pack());
    let another = ours.sign(b"another pack");
    for (signature, wanted) in [
        (None, "has no signature"),
        (Some(stranger.as_str()), "is signed by key"),
        (Some(another.as_str()), "does not fit"),
        (Some("garbage"), "cannot be read"),
    ] {
        let home = Home::new(&hub(signature));
        assert_fails(&home.pull(&["--key", &key]), 3, &[wanted, &id]);
        assert_eq!(home.installed(), Vec::<String>::new(), "{wanted}");
        assert_done(&home.pull(&["--key", &key, "--allow-unsigned"]));
        assert_eq!(home.installed(), ["name.ocelli"]);
    }
}

#[test]
fn weights_that_would_be_packed_here_are_not_fetched_where_signatures_are_wanted() {
    let server = Server::good(published());
    let home = Home::new(&server);
    let key = Signer::new(1).line();
    assert_fails(&home.pull(&["--key", &key]), 3, &["has no signature"]);
    assert_eq!(server.log().len(), 1, "only the list was asked for");
}

#[test]
fn an_added_pack_is_held_against_the_keys_of_the_settings_file() {
    let ours = Signer::new(1);
    let home = Home::new(&Server::good(published()));
    let settings = home.path(".config/ocelli");
    fs::create_dir_all(&settings).expect("a folder");
    let line = format!("keys = [\"{}\"]\n", ours.line());
    fs::write(settings.join("models.toml"), line).expect("a file");
    let pack = home.path("porch.ocelli");
    fs::write(&pack, tiny_pack()).expect("a file");
    let pack = pack.display().to_string();
    let add = || home.run(&["models", "add", &pack]);
    assert_fails(&add(), 3, &["has no signature", "models.toml"]);
    let signature = home.path("porch.ocelli.minisig");
    fs::write(&signature, ours.sign(b"another pack")).expect("a file");
    assert_fails(&add(), 3, &["does not fit"]);
    assert_eq!(home.installed(), Vec::<String>::new());
    fs::write(&signature, ours.sign(tiny_pack())).expect("a file");
    assert_done(&add());
    let verified = home.run(&["models", "verify", "porch"]);
    assert_done(&verified);
    assert!(verified.stdout.contains("signed by key"), "{verified:?}");
    // The same header, but not the file that was signed.
    fs::write(
        home.models().join("hand.ocelli"),
        [tiny_pack(), &[0; 64]].concat(),
    )
    .expect("a file");
    let all = home.run(&["models", "verify"]);
    assert!(all.stdout.contains("porch"), "{all:?}");
    assert_fails(&all, 3, &["hand", "does not fit"]);
}

#[test]
fn a_signature_stays_while_another_name_has_the_same_content() {
    let ours = Signer::new(1);
    let home = Home::new(&Server::good(published()));
    let (pack, key) = (home.path("porch.ocelli"), ours.line());
    fs::write(&pack, tiny_pack()).expect("a file");
    fs::write(home.path("porch.ocelli.minisig"), ours.sign(tiny_pack())).expect("a file");
    let pack = pack.display().to_string();
    for name in ["porch", "garden"] {
        assert_done(&home.run(&["models", "add", &pack, "--name", name, "--key", &key]));
    }
    assert_done(&home.run(&["models", "remove", "porch", "--yes"]));
    let verified = home.run(&["models", "verify", "garden", "--key", &key]);
    assert_done(&verified);
    assert!(verified.stdout.contains("signed by key"), "{verified:?}");
    assert_done(&home.run(&["models", "remove", "garden", "--yes"]));
    assert_eq!(names(&home.models().join(".records")), Vec::<String>::new());
}

//! Measurements of threads on disk: one small JSON file a model.
//!
//! A file holds the times, not the choice, and what they were measured under. Whatever cannot be
//! read, or is of other circumstances, counts as no measurement.

use crate::hub::cache::{make_parent, replace};
use crate::hub::digest::ContentId;
use ocelli_boards::Cores;
use ocelli_runtime::file::open_regular;
use ocelli_runtime::threads::Trials;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Changes with the work that is measured.
const FORMAT: u32 = 2;
/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What a measurement is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circumstances {
    format: u32,
    /// SHA-256 of the pack's header in hexadecimal.
    pack: String,
    cpu: String,
    /// Cores that could be used.
    cores: Vec<usize>,
    kernel: String,
    /// Numbers of threads to try.
    pub candidates: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    circumstances: Circumstances,
    trials: Trials,
}

impl Circumstances {
    /// A pack by its SHA-256, the cores, a kernel, and at most so many threads.
    pub fn new(pack: [u8; 32], cores: Cores, kernel: &str, most: usize) -> Circumstances {
        Circumstances {
            format: FORMAT,
            pack: ContentId::Sha256(pack).to_string(),
            candidates: cores.candidates(most),
            cpu: cores.design,
            cores: cores.usable,
            kernel: kernel.to_owned(),
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.json", self.pack))
    }
}

/// The measurement that was made under these circumstances, of a model that sees or reads only.
pub fn recall(folder: &Path, circumstances: &Circumstances, sees: bool) -> Option<Trials> {
    let mut bytes = Vec::new();
    let file = open_regular(&circumstances.path(folder)).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let found: Remembered = serde_json::from_slice(&bytes).ok()?;
    let holds = found.circumstances == *circumstances
        && found.trials.are_of(&circumstances.candidates, sees);
    holds.then_some(found.trials)
}

/// Keeps a measurement; one of the same model under other circumstances goes.
///
/// # Errors
///
/// What the system says.
pub fn remember(folder: &Path, circumstances: &Circumstances, trials: &Trials) -> io::Result<()> {
    let kept = Remembered {
        circumstances: circumstances.clone(),
        trials: trials.clone(),
    };
    let bytes = serde_json::to_vec(&kept)?;
    let path = circumstances.path(folder);
    make_parent(&path)?;
    replace(&path, |file| file.write_all(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_runtime::threads::Trial;
    use proptest::prelude::*;
    use std::fs;

    fn circumstances() -> Circumstances {
        let cores = Cores {
            design: "CPU part 0xd0b".to_owned(),
            usable: vec![0, 1],
            groups: vec![2],
        };
        Circumstances::new([7; 32], cores, "scalar", 2)
    }

    fn trials() -> Trials {
        let of = |one, two| {
            let trial = |(threads, seconds)| Trial { threads, seconds };
            [(1, one), (2, two)].map(trial).to_vec()
        };
        Trials {
            encode: of(0.3, 0.15),
            prefill: of(0.002, 0.001),
            decode: of(1e-5, 1.1e-5),
        }
    }

    #[test]
    fn what_is_remembered_is_recalled_under_the_same_circumstances_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("ocelli/threads");
        let of = circumstances();
        assert_eq!(recall(&dir, &of, true), None);
        remember(&dir, &of, &trials()).unwrap();
        assert_eq!(recall(&dir, &of, true), Some(trials()));
        assert_eq!(recall(&dir, &of, false), None, "the model reads only");
        let others = [
            Circumstances {
                format: 0,
                ..of.clone()
            },
            Circumstances {
                cpu: "CPU part 0xd08".into(),
                ..of.clone()
            },
            Circumstances {
                cores: vec![0, 2],
                ..of.clone()
            },
            Circumstances {
                kernel: "neon".into(),
                ..of.clone()
            },
            Circumstances {
                candidates: vec![1],
                ..of.clone()
            },
        ];
        for other in others {
            assert_eq!(recall(&dir, &other, true), None, "{other:?}");
        }
        let other_pack = Circumstances {
            pack: "00".into(),
            ..of.clone()
        };
        assert_eq!(recall(&dir, &other_pack, true), None);
        // A file of another pack under this one's name.
        remember(&dir, &other_pack, &trials()).unwrap();
        fs::rename(other_pack.path(&dir), of.path(&dir)).unwrap();
        assert_eq!(recall(&dir, &of, true), None);
        // Measured again, it is replaced, and nothing else stays behind.
        remember(&dir, &of, &trials()).unwrap();
        assert_eq!(recall(&dir, &of, true), Some(trials()));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_no_measurement() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, of) = (folder.path(), circumstances());
        remember(dir, &of, &trials()).unwrap();
        let good = fs::read_to_string(of.path(dir)).unwrap();
        for bad in [
            String::new(),
            good[..good.len() - 1].to_owned(),
            good.replace("0.15", "-0.15"),
            good.replace("0.15", "1e999"),
            good.replace("0.15", "null"),
            good.replace("\"threads\":2", "\"threads\":1000000"),
            good.replace("\"kernel\"", "\"colonel\""),
            format!("{}{good}", " ".repeat(64 << 10)),
            "[".repeat(60_000),
        ] {
            assert_ne!(bad, good);
            fs::write(of.path(dir), &bad).unwrap();
            assert_eq!(
                recall(dir, &of, true),
                None,
                "{}",
                &bad[..bad.len().min(80)]
            );
        }
        fs::remove_file(of.path(dir)).unwrap();
        fs::create_dir(of.path(dir)).unwrap();
        assert_eq!(recall(dir, &of, true), None);
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error_and_no_measurement() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let dir = file.join("threads");
        assert!(remember(&dir, &circumstances(), &trials()).is_err());
        assert_eq!(recall(&dir, &circumstances(), true), None);
    }

    proptest! {
        #[test]
        fn whatever_a_byte_is_changed_to_the_choice_is_among_the_candidates(
            at in 0_usize..600,
            byte in any::<u8>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (dir, of) = (folder.path(), circumstances());
            remember(dir, &of, &trials()).unwrap();
            let mut bytes = fs::read(of.path(dir)).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            fs::write(of.path(dir), bytes).unwrap();
            if let Some(trials) = recall(dir, &of, true) {
                let chosen = trials.choose();
                for n in [chosen.encode, chosen.prefill, chosen.decode] {
                    prop_assert!(of.candidates.contains(&n));
                }
            }
        }
    }
}

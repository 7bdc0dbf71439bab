//! A guest saved right after its boot, from which others start in about a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::host;
use crate::image::{self, Image};
use crate::options::Options;
use crate::{Board, Error, shell};

const LIMIT: Duration = Duration::from_secs(120);

impl Board {
    /// Starts a guest from a snapshot, made on the first call for these options; boots instead
    /// where no snapshot can be made or restored. The clock is set.
    ///
    /// # Errors
    ///
    /// As [`Board::boot`].
    pub fn restore(image: &Image, options: &Options) -> Result<Board, Error> {
        let restored =
            snapshot(image, options).and_then(|path| Board::resume_from(image, options, &path));
        match restored {
            Ok(board) => Ok(board),
            Err(error) => {
                eprintln!("board: no snapshot, booting instead: {error}");
                Board::boot(image, options)
            }
        }
    }

    fn resume_from(image: &Image, options: &Options, snapshot: &Path) -> Result<Board, Error> {
        let board = Board::start(image, options, Some(snapshot))?;
        board.resume()?;
        board.set_clock(SystemTime::now())?;
        board.mount(options)?;
        Ok(board)
    }

    /// Writes the state of the guest to a file; the guest stands still afterwards.
    fn save(&self, path: &Path) -> Result<(), Error> {
        // A restored guest has other disks: nothing of these may stay in memory.
        self.sh("sync; echo 3 >/proc/sys/vm/drop_caches")?;
        self.monitor("stop", json!({}))?;
        let writer = format!(
            "exec:zstd -q -1 -f -o {}",
            shell::quoted(&path.to_string_lossy())
        );
        self.monitor("migrate", json!({"uri": writer}))?;
        let start = Instant::now();
        loop {
            let answer = self.monitor("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    return Err(Error::Refused {
                        command: "saving a snapshot".to_owned(),
                        reason: answer.to_string(),
                    });
                }
                _ if start.elapsed() > LIMIT => {
                    return Err(Error::Deadline {
                        what: "saving a snapshot".to_owned(),
                        limit: LIMIT,
                        console: self.console_tail(),
                    });
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// The snapshot for these options, made now if there is none for this emulator.
fn snapshot(image: &Image, options: &Options) -> Result<PathBuf, Error> {
    let version = host::run(host::command("qemu-system-aarch64").arg("--version"), LIMIT)?;
    let hardware = format!("{:?}", Board::hardware(image, options));
    let name = format!(
        "snapshot-{}",
        image::digest([version, hardware].into_iter())
    );
    let path = image.folder().join(name);
    let _lock = image::lock(&path.with_extension("lock"))?;
    if path.is_file() {
        return Ok(path);
    }
    let bare = Options {
        hand_in: None,
        data: None,
        log_writes: false,
        ..options.clone()
    };
    let board = Board::boot(image, &bare)?;
    let partial = path.with_extension("partial");
    board.save(&partial)?;
    drop(board);
    fs::rename(&partial, &path).map_err(Error::io("moving a snapshot to", &path))?;
    Ok(path)
}

//! A limit on how many guests run on a host at a time, over all processes.

use std::fs::File;
use std::thread;
use std::time::Duration;

use crate::{Error, image};

const SEATS: usize = 2;

/// One of two places for a guest; the place is free again when this is dropped.
pub(crate) struct Seat {
    _lock: File,
}

impl Seat {
    /// Waits for a free place.
    pub(crate) fn take() -> Result<Seat, Error> {
        let cache = image::cache()?;
        loop {
            for number in 0..SEATS {
                let path = cache.join(format!("guest-{number}.lock"));
                let file = File::create(&path).map_err(Error::io("making", &path))?;
                if file.try_lock().is_ok() {
                    return Ok(Seat { _lock: file });
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

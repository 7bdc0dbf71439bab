//! [`Leftover`]: a file or folder that a signal must not leave behind.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;
use std::path::Path;
use std::{fs, io, thread};

/// As long as it lives, SIGINT and SIGTERM remove a file or folder before they end the program.
#[derive(Debug)]
pub(crate) struct Leftover(Handle);

impl Leftover {
    /// Guards a path.
    ///
    /// # Errors
    ///
    /// Signals or a thread that the system refuses.
    pub(crate) fn guard(path: &Path) -> io::Result<Leftover> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let path = path.to_owned();
        thread::Builder::new()
            .name("ocelli-leftover".to_owned())
            .spawn(move || {
                let Some(signal) = signals.forever().next() else {
                    return;
                };
                // What cannot be removed stays.
                let _ = match path.is_dir() {
                    true => fs::remove_dir_all(&path),
                    false => fs::remove_file(&path),
                };
                let _ = emulate_default_handler(signal);
            })?;
        Ok(Leftover(handle))
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        self.0.close();
    }
}

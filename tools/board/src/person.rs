//! A guest for a person instead of a program.

use std::path::Path;

use crate::Error;
use crate::disk::Disk;
use crate::host;
use crate::image::Image;
use crate::options::{Files, Options};

/// Boots a guest whose console is this terminal, and waits until the person switches it off.
///
/// # Errors
///
/// When the emulator does not start or ends with a fault.
pub fn boot_for_a_person(image: &Image, hand_in: Option<&Path>) -> Result<(), Error> {
    let hand_in = hand_in.map_or_else(Disk::blank_hand_in, Disk::of_folder)?;
    let data = Disk::for_data()?;
    let (hand_in, data) = (hand_in.path(), data.path());
    let files = Files {
        hand_in: &hand_in,
        data: &data,
        write_log: None,
    };
    let mut command = Options::default().machine(image, "board.shell=person", &files);
    command.args(["-serial", "mon:stdio"]);
    let status = command
        .status()
        .map_err(Error::io("starting", "qemu-system-aarch64"))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Program {
        program: host::describe(&command),
        detail: status.to_string(),
    })
}

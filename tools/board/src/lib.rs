//! An emulated arm64 board with camera, serial line, pins, network and a power switch.
//!
//! [`Image::prepare`] builds the guest from Debian packages, [`Board::boot`] starts it and
//! [`Board::restore`] starts it from a snapshot in about a second. What a test can do to a board
//! is on [`Board`]; `README.md` says what the board cannot do.

#![forbid(unsafe_code)]

mod block_log;
mod board;
mod camera;
mod channel;
mod cpio;
mod disk;
mod error;
mod host;
mod image;
mod initramfs;
mod job;
mod modules;
mod network;
mod options;
mod packages;
mod person;
mod picture;
mod pins;
mod qemu;
mod qmp;
mod seat;
mod serial;
mod shell;
mod snapshot;

pub use block_log::{BlockLog, Kept};
pub use board::Board;
pub use camera::{Camera, Fault, Input, Showing, Signal};
pub use disk::Disk;
pub use error::Error;
pub use host::Missing;
pub use image::Image;
pub use job::Job;
pub use network::Network;
pub use options::{Cpu, Options, WatchdogAction};
pub use person::boot_for_a_person;
pub use picture::Picture;
pub use pins::{Edge, Pins};
pub use qmp::Event;
pub use serial::{SerialLine, UsbSerial};
pub use shell::{Output, quoted};

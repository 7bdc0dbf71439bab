//! What a board is made of.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use crate::disk::Disk;
use crate::image::Image;
use crate::qemu::Qemu;

/// Background commands at a time.
pub(crate) const JOBS: usize = 4;

/// The processor's core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cpu {
    /// Raspberry Pi 3, Zero 2 W.
    CortexA53,
    /// Raspberry Pi 4.
    CortexA72,
    /// Raspberry Pi 5, the fastest here.
    #[default]
    CortexA76,
}

impl Cpu {
    /// The emulator's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Cpu::CortexA53 => "cortex-a53",
            Cpu::CortexA72 => "cortex-a72",
            Cpu::CortexA76 => "cortex-a76",
        }
    }
}

/// What the hardware watchdog does when nobody feeds it. The event is reported in each case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogAction {
    /// Nothing more.
    #[default]
    Report,
    /// Switches the board off at once.
    PowerOff,
}

/// What a board is made of. Devices are always the same: camera, two disks, network, serial line,
/// USB, pins, watchdog.
#[derive(Clone, Debug)]
pub struct Options {
    /// The core.
    pub cpu: Cpu,
    /// How many cores; one is emulated fastest.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// A disk for reading, mounted at `/board/in`.
    pub hand_in: Option<Arc<Disk>>,
    /// A disk for data, mounted at `/data`.
    pub data: Option<Arc<Disk>>,
    /// Records every write to the data disk for [`crate::BlockLog`].
    pub log_writes: bool,
    /// What the watchdog does.
    pub watchdog: WatchdogAction,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cpu: Cpu::default(),
            cores: 1,
            memory_mib: 512,
            hand_in: None,
            data: None,
            log_writes: false,
            watchdog: WatchdogAction::default(),
        }
    }
}

/// Files a run needs besides the options.
pub(crate) struct Files<'a> {
    pub(crate) hand_in: &'a Path,
    pub(crate) data: &'a Path,
    /// Where writes to the data disk are recorded.
    pub(crate) write_log: Option<&'a Path>,
}

impl Options {
    /// The emulator's command line without consoles and sockets.
    pub(crate) fn machine(&self, image: &Image, kernel_arguments: &str, files: &Files) -> Command {
        let mut command = Qemu::command();
        command
            .args(["-M", "virt", "-accel", "tcg,thread=multi"])
            .args(["-cpu", self.cpu.name()])
            .args(["-smp", &self.cores.to_string()])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-display", "none", "-no-reboot", "-nodefaults"])
            .arg("-kernel")
            .arg(image.kernel())
            .arg("-initrd")
            .arg(image.initramfs())
            .arg("-append")
            .arg(format!(
                "console=ttyAMA0 loglevel=4 panic=-1 {kernel_arguments}"
            ))
            .args(["-device", "virtio-rng-pci"])
            .args(["-nic", "user,model=virtio-net-pci,id=net0"])
            .args(["-device", "qemu-xhci,id=xhci"])
            .args(["-device", "i6300esb"])
            .args(["-action", self.watchdog_action()]);
        add_disks(&mut command, files);
        command
    }

    fn watchdog_action(&self) -> &'static str {
        match self.watchdog {
            WatchdogAction::Report => "watchdog=none",
            WatchdogAction::PowerOff => "watchdog=poweroff",
        }
    }
}

/// `vda` is the hand-in, `vdb` the data.
fn add_disks(command: &mut Command, files: &Files) {
    let mut node = |value: serde_json::Value| {
        command.arg("-blockdev").arg(value.to_string());
    };
    let (file, raw) = ("file", "raw");
    node(
        json!({"driver": file, "node-name": "in-file", "filename": files.hand_in,
        "read-only": true, "locking": "off"}),
    );
    node(json!({"driver": raw, "node-name": "in", "file": "in-file", "read-only": true}));
    node(json!({"driver": file, "node-name": "data-file", "filename": files.data}));
    if let Some(log) = files.write_log {
        node(json!({"driver": raw, "node-name": "data-raw", "file": "data-file"}));
        node(json!({"driver": file, "node-name": "log-file", "filename": log}));
        node(
            json!({"driver": "blklogwrites", "node-name": "data", "file": "data-raw", "log": "log-file"}),
        );
    } else {
        node(json!({"driver": raw, "node-name": "data", "file": "data-file"}));
    }
    command
        .args(["-device", "virtio-blk-pci,drive=in"])
        .args(["-device", "virtio-blk-pci,drive=data"]);
}

/// Adds a chardev on a Unix socket in `folder`, then what uses it.
pub(crate) fn add_socket(command: &mut Command, folder: &Path, name: &str, device: &[&str]) {
    let path = folder.join(name);
    command
        .arg("-chardev")
        .arg(format!(
            "socket,id={name},path={},server=on,wait=off",
            path.display()
        ))
        .args(device);
}

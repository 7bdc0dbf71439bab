//! [`Port`]: an open serial device.

use super::super::{LinkError, LinkErrorKind};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::sys::termios::{self, BaudRate, ControlFlags, FlushArg, SetArg};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where udev keeps names that stay the same.
const BY_ID: &str = "/dev/serial/by-id";

/// Speeds every Linux serial driver knows by name.
const SPEEDS: [(u32, BaudRate); 14] = [
    (1200, BaudRate::B1200),
    (2400, BaudRate::B2400),
    (4800, BaudRate::B4800),
    (9600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
    (460_800, BaudRate::B460800),
    (500_000, BaudRate::B500000),
    (921_600, BaudRate::B921600),
    (1_000_000, BaudRate::B1000000),
    (2_000_000, BaudRate::B2000000),
];

/// Why a serial device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// It cannot be opened.
    #[error("cannot open serial device {path}: {source}; {present}")]
    Open {
        /// The device.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
        /// Devices that are there.
        present: String,
    },
    /// It is something else.
    #[error("{path} is no serial device; {present}")]
    NotSerial {
        /// The file.
        path: PathBuf,
        /// Devices that are there.
        present: String,
    },
    /// Another program has locked it.
    #[error("serial device {path} is in use by another program; stop it (see `fuser {path}`)")]
    InUse {
        /// The device.
        path: PathBuf,
    },
    /// Its speed cannot be set.
    #[error(
        "serial device {path} has no speed of {baud} bits a second; choose one of {}",
        speeds()
    )]
    Speed {
        /// The device.
        path: PathBuf,
        /// The speed asked for.
        baud: u32,
    },
    /// Its line settings cannot be set.
    #[error("cannot set up serial device {path}: {source}; unplug it and plug it in again")]
    Settings {
        /// The device.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
}

impl LinkError for PortError {
    fn kind(&self) -> LinkErrorKind {
        match self {
            PortError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                LinkErrorKind::Closed
            }
            PortError::Settings { .. } => LinkErrorKind::Closed,
            PortError::Open { .. }
            | PortError::NotSerial { .. }
            | PortError::InUse { .. }
            | PortError::Speed { .. } => LinkErrorKind::Other,
        }
    }
}

fn speeds() -> String {
    SPEEDS.map(|(baud, _)| baud.to_string()).join(", ")
}

/// Serial adapters plugged in, by the names that stay the same.
pub fn adapters() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(BY_ID)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    found
}

fn present() -> String {
    let adapters: Vec<String> = adapters()
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    match adapters.is_empty() {
        true => format!("no adapter is listed in {BY_ID}"),
        false => format!("plugged in: {}", adapters.join(", ")),
    }
}

/// An open serial device: raw, 8N1, without flow control, locked against other programs that ask
/// for the lock, and never blocking. The lock ends with the value.
#[derive(Debug)]
pub struct Port {
    fd: Flock<OwnedFd>,
}

impl Port {
    /// Opens, locks and sets up a device, and throws away what came in before.
    ///
    /// # Errors
    ///
    /// See [`PortError`].
    pub fn open(path: &Path, baud: u32) -> Result<Port, PortError> {
        let speed = SPEEDS
            .iter()
            .find(|(known, _)| *known == baud)
            .map(|(_, speed)| *speed)
            .ok_or_else(|| PortError::Speed {
                path: path.to_path_buf(),
                baud,
            })?;
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| PortError::Open {
            path: path.to_path_buf(),
            source: errno.into(),
            present: present(),
        })?;
        if !nix::unistd::isatty(&fd).unwrap_or(false) {
            return Err(PortError::NotSerial {
                path: path.to_path_buf(),
                present: present(),
            });
        }
        let fd =
            Flock::lock(fd, FlockArg::LockExclusiveNonblock).map_err(|_| PortError::InUse {
                path: path.to_path_buf(),
            })?;
        set_up(fd.as_fd(), speed).map_err(|source| PortError::Settings {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Port { fd })
    }

    /// To wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads what is there; 0 if nothing is.
    ///
    /// # Errors
    ///
    /// The device is gone, or failed.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match nix::unistd::read(self.fd.as_fd(), buffer) {
            // A terminal reads 0 bytes only when it has been hung up.
            Ok(0) if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            result => unless_busy(result),
        }
    }

    /// Writes what fits; 0 if nothing does.
    ///
    /// # Errors
    ///
    /// The device is gone, or failed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_busy(nix::unistd::write(self.fd.as_fd(), bytes))
    }
}

fn unless_busy(result: nix::Result<usize>) -> io::Result<usize> {
    match result {
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        result => Ok(result?),
    }
}

fn set_up(fd: BorrowedFd<'_>, speed: BaudRate) -> io::Result<()> {
    let mut settings = termios::tcgetattr(fd)?;
    termios::cfmakeraw(&mut settings);
    settings.control_flags.remove(
        // Without HUPCL, closing leaves DTR alone, which resets many boards.
        ControlFlags::CSTOPB | ControlFlags::CRTSCTS | ControlFlags::HUPCL,
    );
    settings
        .control_flags
        .insert(ControlFlags::CLOCAL | ControlFlags::CREAD);
    termios::cfsetspeed(&mut settings, speed)?;
    termios::tcsetattr(fd, SetArg::TCSANOW, &settings)?;
    // tcsetattr succeeds when any of the settings could be made.
    let made = termios::tcgetattr(fd)?;
    if termios::cfgetospeed(&made) != speed || made.control_flags != settings.control_flags {
        return Err(io::Error::other("the driver did not take speed and 8N1"));
    }
    termios::tcflush(fd, FlushArg::TCIFLUSH)?;
    Ok(())
}

//! [`Notify`]: tells systemd how the service is.
//!
//! Source: `sd_notify(3)` and `systemd.service(5)`, `Type=notify` and `Type=notify-reload`.

use nix::time::ClockId;
use ocelli_boards::{Fed, Pace};
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Why systemd cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The address is none we can use.
    #[error(
        "NOTIFY_SOCKET={address:?} cannot be used: {reason}; it is set by systemd, unset it to go on without"
    )]
    Address {
        /// Its value.
        address: OsString,
        /// Why not.
        reason: String,
    },
    /// A message was not taken.
    #[error("systemd did not take {message:?}: {source}")]
    Send {
        /// The message.
        message: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The way to systemd, if it runs us. Without it every call does nothing.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    pace: Option<Pace>,
}

impl Notify {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` of the environment.
    ///
    /// # Errors
    ///
    /// [`NotifyError::Address`].
    pub fn from_environment() -> Result<Notify, NotifyError> {
        Notify::new(|name| std::env::var_os(name), std::process::id())
    }

    fn new(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Notify, NotifyError> {
        let Some(address) = variable("NOTIFY_SOCKET") else {
            return Ok(Notify::default());
        };
        let socket = open(&address).map_err(|fault| NotifyError::Address {
            address,
            reason: fault.to_string(),
        })?;
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // The variable names the process the watchdog is for; a child may have inherited it.
        let ours = match variable("WATCHDOG_PID") {
            None => true,
            Some(_) => number("WATCHDOG_PID") == Some(pid.into()),
        };
        let timeout = number("WATCHDOG_USEC").filter(|&usec| ours && usec > 0);
        Ok(Notify {
            socket: Some(socket),
            pace: timeout.map(|usec| Pace::new(Some(Duration::from_micros(usec)))),
        })
    }

    /// Longest time between two calls of [`Notify::feed`]; `None` if no watchdog waits.
    pub fn every(&self) -> Option<Duration> {
        self.pace.as_ref().map(Pace::every)
    }

    /// The service does its work; also after a reload.
    ///
    /// # Errors
    ///
    /// [`NotifyError::Send`].
    pub fn ready(&self) -> Result<(), NotifyError> {
        self.send("READY=1")
    }

    /// One line for people, shown by `systemctl status`.
    ///
    /// # Errors
    ///
    /// [`NotifyError::Send`].
    pub fn status(&self, line: &str) -> Result<(), NotifyError> {
        let line = line.lines().next().unwrap_or("");
        self.send(&format!("STATUS={line}"))
    }

    /// New settings are being read; [`Notify::ready`] follows.
    ///
    /// # Errors
    ///
    /// [`NotifyError::Send`].
    pub fn reloading(&self) -> Result<(), NotifyError> {
        let now = ClockId::CLOCK_MONOTONIC.now();
        let now = now.map_or(Duration::ZERO, Duration::from);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()))
    }

    /// The service ends.
    ///
    /// # Errors
    ///
    /// [`NotifyError::Send`].
    pub fn stopping(&self) -> Result<(), NotifyError> {
        self.send("STOPPING=1")
    }

    /// Feeds systemd's watchdog if that is due and `progress` is another number than at the last
    /// feeding. The caller counts `progress` up with its work, never with a timer.
    ///
    /// # Errors
    ///
    /// [`NotifyError::Send`]; it is tried again at the next call.
    pub fn feed(&mut self, progress: u64, now: Duration) -> Result<Fed, NotifyError> {
        let Some(fed) = self.pace.as_ref().map(|pace| pace.due(progress, now)) else {
            return Ok(Fed::NotDue);
        };
        if fed == Fed::Fed {
            self.send("WATCHDOG=1")?;
            if let Some(pace) = &mut self.pace {
                pace.fed(progress, now);
            }
        }
        Ok(fed)
    }

    fn send(&self, message: &str) -> Result<(), NotifyError> {
        let Some((socket, address)) = &self.socket else {
            return Ok(());
        };
        let sent = socket.send_to_addr(message.as_bytes(), address);
        sent.map(drop).map_err(|source| NotifyError::Send {
            message: message.to_owned(),
            source,
        })
    }
}

fn open(address: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path @ [b'/', ..] => SocketAddr::from_pathname(OsString::from_vec(path.to_vec()))?,
        _ => return Err(io::Error::other("it begins neither with / nor with @")),
    };
    let socket = UnixDatagram::unbound()?;
    // A systemd that does not read must not stop the loop.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(variables: &[(&str, &str)]) -> Result<Notify, NotifyError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Notify::new(variable, 42)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn words_reach_a_socket_with_a_path_and_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("ocelli-notify-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (systemd, address) in [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.to_str().unwrap().to_owned(),
            ),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                format!("@{name}"),
            ),
        ] {
            let notify = notify(&[("NOTIFY_SOCKET", &address)]).unwrap();
            notify.ready().unwrap();
            assert_eq!(received(&systemd), "READY=1");
            notify.status("looking\nREADY=0").unwrap();
            assert_eq!(received(&systemd), "STATUS=looking");
            notify.reloading().unwrap();
            let text = received(&systemd);
            let (word, usec) = text.split_once('\n').unwrap();
            assert_eq!(word, "RELOADING=1");
            let usec = usec.strip_prefix("MONOTONIC_USEC=").unwrap();
            assert!(usec.parse::<u64>().unwrap() > 0);
            notify.stopping().unwrap();
            assert_eq!(received(&systemd), "STOPPING=1");
        }
    }

    #[test]
    fn only_progress_feeds_the_watchdog() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let mut notify = notify(&[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "15000000"),
            ("WATCHDOG_PID", "42"),
        ])
        .unwrap();
        assert_eq!(notify.every(), Some(Duration::from_secs(5)));
        for (progress, now, want) in [
            (1, 0, Fed::Fed),
            (2, 4, Fed::NotDue),
            (2, 5, Fed::Fed),
            (2, 11, Fed::NoProgress),
            (3, 12, Fed::Fed),
        ] {
            let fed = notify.feed(progress, Duration::from_secs(now)).unwrap();
            assert_eq!(fed, want, "{progress} at {now}");
            let heard = systemd.recv(&mut [0; 64]).is_ok();
            assert_eq!(heard, want == Fed::Fed, "{progress} at {now}");
        }
    }

    #[test]
    fn another_process_watchdog_is_not_fed() {
        for (pid, usec, watched) in [
            ("42", "1000000", true),
            ("41", "1000000", false),
            ("x", "1000000", false),
            ("42", "0", false),
            ("42", "soon", false),
        ] {
            let notify = notify(&[
                ("NOTIFY_SOCKET", "/run/systemd/notify"),
                ("WATCHDOG_USEC", usec),
                ("WATCHDOG_PID", pid),
            ])
            .unwrap();
            assert_eq!(notify.every().is_some(), watched, "{pid} {usec}");
        }
    }

    #[test]
    fn without_systemd_nothing_is_said_and_a_strange_address_is_an_error() {
        let mut silent = notify(&[("WATCHDOG_USEC", "1000000")]).unwrap();
        silent.ready().unwrap();
        assert_eq!(silent.feed(1, Duration::ZERO).unwrap(), Fed::NotDue);
        let wrong = notify(&[("NOTIFY_SOCKET", "vsock:2:1")]).unwrap_err();
        assert!(wrong.to_string().contains("vsock:2:1"), "{wrong}");
    }

    #[test]
    fn a_message_nobody_takes_is_an_error() {
        let gone = notify(&[("NOTIFY_SOCKET", "/no/such/socket")]).unwrap();
        assert!(matches!(gone.ready(), Err(NotifyError::Send { .. })));
    }
}

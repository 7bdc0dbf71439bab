//! The board's network cable and ways in from the host.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serde_json::json;

use crate::Error;
use crate::qmp::Qmp;

/// The network of a board. The guest is 10.0.2.15 and reaches the host's loopback as 10.0.2.2.
pub struct Network<'a> {
    qmp: &'a Qmp,
}

impl<'a> Network<'a> {
    pub(crate) fn new(qmp: &'a Qmp) -> Network<'a> {
        Network { qmp }
    }

    /// Pulls the cable.
    ///
    /// # Errors
    ///
    /// When the emulator refuses.
    pub fn pull_cable(&self) -> Result<(), Error> {
        self.set_link(false)
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    ///
    /// When the emulator refuses.
    pub fn plug_cable(&self) -> Result<(), Error> {
        self.set_link(true)
    }

    /// Opens a TCP port of the guest on the host's loopback and returns where.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub fn forward(&self, guest_port: u16) -> Result<SocketAddr, Error> {
        let free =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(Error::io("finding", "a free port"))?;
        let line = format!("hostfwd_add net0 tcp:{address}-:{guest_port}");
        let answer = self
            .qmp
            .execute("human-monitor-command", json!({"command-line": line}))?;
        match answer.as_str() {
            Some("") | None => Ok(address),
            Some(reason) => Err(Error::Refused {
                command: line,
                reason: reason.trim().to_owned(),
            }),
        }
    }

    fn set_link(&self, up: bool) -> Result<(), Error> {
        self.qmp
            .execute("set_link", json!({"name": "net0", "up": up}))
            .map(drop)
    }
}

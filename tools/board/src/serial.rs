//! Serial lines between guest and host.

use std::time::Duration;

use serde_json::json;

use crate::Error;
use crate::board::{Board, STEP_LIMIT};
use crate::channel::{Channel, Silence};

/// The host's end of a serial line.
pub struct SerialLine {
    channel: Channel,
}

impl SerialLine {
    pub(crate) fn new(channel: Channel) -> SerialLine {
        SerialLine { channel }
    }

    /// Sends bytes to the guest.
    ///
    /// # Errors
    ///
    /// When the line is gone.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        self.channel
            .send(bytes)
            .map_err(Error::io("writing to", "the serial line"))
    }

    /// Waits for bytes up to and including `end`: `\n` of a line, 0 of a packet.
    ///
    /// # Errors
    ///
    /// When they do not come in time.
    pub fn receive_through(&self, end: u8, limit: Duration) -> Result<Vec<u8>, Error> {
        let taken = self.channel.take_through(end, limit);
        taken.map_err(|silence| self.silence(limit, silence))
    }

    /// Waits for exactly `n` bytes.
    ///
    /// # Errors
    ///
    /// When they do not come in time.
    pub fn receive(&self, n: usize, limit: Duration) -> Result<Vec<u8>, Error> {
        let taken = self.channel.take_exactly(n, limit);
        taken.map_err(|silence| self.silence(limit, silence))
    }

    /// Takes what has come and was not received.
    pub fn drain(&self) -> Vec<u8> {
        self.channel.take_all()
    }

    fn silence(&self, limit: Duration, silence: Silence) -> Error {
        let what = format!("bytes from the serial line ({silence:?})");
        let console = format!(
            "received: {:?}",
            String::from_utf8_lossy(&self.channel.last(500))
        );
        Error::Deadline {
            what,
            limit,
            console,
        }
    }
}

/// A USB serial adapter that is plugged in; the guest sees an FTDI chip.
pub struct UsbSerial<'a> {
    board: &'a Board,
    line: SerialLine,
}

impl<'a> UsbSerial<'a> {
    pub(crate) fn plug(board: &'a Board) -> Result<UsbSerial<'a>, Error> {
        let device = json!({"driver": "usb-serial", "id": "adapter", "bus": "xhci.0", "chardev": "usb",
            "always-plugged": true});
        board.qmp().execute("device_add", device)?;
        let stream = board.qemu().connect("usb", STEP_LIMIT)?;
        let channel = Channel::new(stream).map_err(Error::io("using", "the USB serial line"))?;
        board.await_true("[ -e /dev/ttyUSB0 ]", STEP_LIMIT)?;
        Ok(UsbSerial {
            board,
            line: SerialLine::new(channel),
        })
    }

    /// The host's end.
    pub fn line(&self) -> &SerialLine {
        &self.line
    }

    /// Pulls it out, whether or not the guest uses it. The device file may stay while it is open.
    ///
    /// # Errors
    ///
    /// When the emulator refuses.
    pub fn unplug(self) -> Result<(), Error> {
        self.board
            .qmp()
            .execute("device_del", json!({"id": "adapter"}))?;
        let gone = self.board.qmp().event("DEVICE_DELETED", STEP_LIMIT);
        gone.map(drop).ok_or_else(|| {
            self.board
                .silence("pulling the adapter", STEP_LIMIT, Silence::Late)
        })
    }
}

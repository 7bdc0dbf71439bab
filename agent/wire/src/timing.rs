//! [`Timing`]: intervals and limits of an endpoint.

use crate::frame::MAX_FRAME_BYTES;

/// Milliseconds on a clock that only goes forward; its begin does not matter.
pub type Millis = u64;

/// Intervals and limits. Both ends should use the same line speed; the rest may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Bits a second on the line; frames are handed out no faster than they can leave.
    pub baud: u32,
    /// Between two hellos while the link is down.
    pub hello_ms: u32,
    /// After so long without another frame a heartbeat is sent.
    pub heartbeat_ms: u32,
    /// After so long without a valid frame from the other end the link is down.
    pub silence_ms: u32,
    /// Wait for an acknowledgement before the message is sent again.
    pub retry_ms: u32,
    /// Times a message is sent without acknowledgement before the link is down.
    pub max_tries: u8,
    /// Commands older than this are not sent any more.
    pub command_ms: u32,
}

impl Timing {
    /// Values that fit a line of `baud` bits a second with 10 bits a byte.
    ///
    /// At 115200: heartbeat after 500 ms, link down after 2 s of silence or 8 tries 152 ms apart.
    pub const fn for_baud(baud: u32) -> Timing {
        let baud = if baud == 0 { 1 } else { baud };
        let frame_ms = (MAX_FRAME_BYTES as u32 * 10_000) / baud + 1;
        let heartbeat_ms = if frame_ms > 125 { 4 * frame_ms } else { 500 };
        Timing {
            baud,
            hello_ms: 250 + 2 * frame_ms,
            heartbeat_ms,
            silence_ms: 4 * heartbeat_ms,
            retry_ms: 60 + 4 * frame_ms,
            max_tries: 8,
            command_ms: 2 * heartbeat_ms + 1000,
        }
    }

    /// Microseconds that `n_bytes` take on the line, at 10 bits a byte.
    pub(crate) fn line_us(&self, n_bytes: usize) -> u64 {
        n_bytes as u64 * 10_000_000 / u64::from(self.baud.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_frame_and_its_answer_fit_between_two_tries_at_every_speed() {
        for baud in [1200, 9600, 57_600, 115_200, 921_600, 3_000_000] {
            let timing = Timing::for_baud(baud);
            let there_and_back_ms = 2 * timing.line_us(MAX_FRAME_BYTES) / 1000;
            assert!(u64::from(timing.retry_ms) > there_and_back_ms, "{baud}");
            assert!(timing.silence_ms > 2 * timing.heartbeat_ms, "{baud}");
            assert!(u64::from(timing.heartbeat_ms) > there_and_back_ms, "{baud}");
        }
    }

    #[test]
    fn a_line_speed_of_zero_is_taken_as_one() {
        assert_eq!(Timing::for_baud(0).baud, 1);
    }
}

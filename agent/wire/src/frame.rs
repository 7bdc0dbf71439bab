//! Frames: packets as bytes on the line.
//!
//! ```text
//! COBS( packet, CRC-16 of the packet little endian ) 0x00
//! ```
//!
//! The CRC is CRC-16/IBM-3740 ("CCITT-FALSE"): polynomial 0x1021, begin 0xffff, no reflection, no
//! final exclusive-or; it finds every error of up to three bits in a packet. COBS (Cheshire and
//! Baker, 1999) keeps zero out of a frame, so that a zero is always an end and a reader finds the
//! next frame after any disturbance.

use crate::message::Message;
use crate::packet::{self, Head, MAX_PACKET_BYTES, Packet};

/// Bytes of the checksum.
pub const CRC_BYTES: usize = 2;
/// Longest packet and checksum; below 254, so that COBS adds one byte.
pub const MAX_RAW_BYTES: usize = MAX_PACKET_BYTES + CRC_BYTES;
/// Longest frame without its end.
const MAX_ENCODED_BYTES: usize = MAX_RAW_BYTES + 1;
/// Longest frame on the line: a zero before (hello only), the frame and a zero behind.
pub const MAX_FRAME_BYTES: usize = MAX_ENCODED_BYTES + 2;

const CRC: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_IBM_3740);

/// The checksum of a packet.
pub fn checksum(packet: &[u8]) -> u16 {
    CRC.checksum(packet)
}

/// Room for one frame.
#[derive(Clone, Debug)]
pub struct FrameBuffer {
    raw: [u8; MAX_RAW_BYTES],
    frame: [u8; MAX_FRAME_BYTES],
}

impl FrameBuffer {
    /// An empty buffer.
    pub const fn new() -> FrameBuffer {
        FrameBuffer {
            raw: [0; MAX_RAW_BYTES],
            frame: [0; MAX_FRAME_BYTES],
        }
    }

    /// Writes a frame and returns its bytes; `None` if the message is longer than a packet may be.
    ///
    /// A hello begins with a zero, which ends whatever stood half sent on the line.
    pub fn write(&mut self, head: &Head, message: Option<&Message>) -> Option<&[u8]> {
        let n_packet = packet::encode(head, message, &mut self.raw[..MAX_PACKET_BYTES])?;
        let crc = checksum(&self.raw[..n_packet]).to_le_bytes();
        self.raw[n_packet..n_packet + CRC_BYTES].copy_from_slice(&crc);
        let begin = usize::from(matches!(head, Head::Hello(_)));
        self.frame[0] = 0;
        let n_encoded = cobs::encode(
            &self.raw[..n_packet + CRC_BYTES],
            &mut self.frame[begin..=begin + MAX_RAW_BYTES],
        );
        self.frame[begin + n_encoded] = 0;
        Some(&self.frame[..=begin + n_encoded])
    }
}

impl Default for FrameBuffer {
    fn default() -> FrameBuffer {
        FrameBuffer::new()
    }
}

/// Why the bytes between two zeros are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More bytes without a zero than a frame can have.
    #[error("more than {} bytes without an end of frame", MAX_ENCODED_BYTES)]
    TooLong,
    /// The bytes are not COBS, or too few for a checksum.
    #[error("not a COBS frame with a checksum")]
    Damaged,
    /// The checksum is another one.
    #[error("checksum is {found:#06x}, the packet has {computed:#06x}")]
    Checksum {
        /// The one in the frame.
        found: u16,
        /// The one of its packet.
        computed: u16,
    },
    /// The checksum is right and the packet is none of this version.
    #[error("the packet is none of this version")]
    Unknown,
}

/// Finds frames in a stream of bytes.
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    bytes: [u8; MAX_ENCODED_BYTES],
    n_bytes: usize,
}

impl FrameDecoder {
    /// A decoder at the begin of a frame.
    pub const fn new() -> FrameDecoder {
        FrameDecoder {
            bytes: [0; MAX_ENCODED_BYTES],
            n_bytes: 0,
        }
    }

    /// Forgets a frame half read.
    pub fn clear(&mut self) {
        self.n_bytes = 0;
    }

    /// Takes one byte; `Some` if it ended a frame. Zeros between frames are ignored.
    pub fn push(&mut self, byte: u8) -> Option<Result<Packet, FrameError>> {
        if byte != 0 {
            if let Some(place) = self.bytes.get_mut(self.n_bytes) {
                *place = byte;
            }
            // One more than fits marks a frame that is too long.
            self.n_bytes = (self.n_bytes + 1).min(MAX_ENCODED_BYTES + 1);
            return None;
        }
        match core::mem::take(&mut self.n_bytes) {
            0 => None,
            n_bytes => Some(match self.bytes.get_mut(..n_bytes) {
                Some(frame) => decode(frame),
                None => Err(FrameError::TooLong),
            }),
        }
    }
}

impl Default for FrameDecoder {
    fn default() -> FrameDecoder {
        FrameDecoder::new()
    }
}

fn decode(frame: &mut [u8]) -> Result<Packet, FrameError> {
    let n_raw = cobs::decode_in_place(frame).map_err(|_| FrameError::Damaged)?;
    let raw = frame.get(..n_raw).ok_or(FrameError::Damaged)?;
    let (packet, crc) = raw
        .split_last_chunk::<CRC_BYTES>()
        .ok_or(FrameError::Damaged)?;
    let (found, computed) = (u16::from_le_bytes(*crc), checksum(packet));
    if found != computed {
        return Err(FrameError::Checksum { found, computed });
    }
    Packet::decode(packet).ok_or(FrameError::Unknown)
}

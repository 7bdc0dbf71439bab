//! Markers and the segments behind them (T.81 annex B).

use crate::jpeg::JpegError;

pub(super) const SOF0: u8 = 0xC0;
pub(super) const DHT: u8 = 0xC4;
pub(super) const JPG: u8 = 0xC8;
pub(super) const DAC: u8 = 0xCC;
pub(super) const SOF15: u8 = 0xCF;
pub(super) const RST0: u8 = 0xD0;
pub(super) const RST7: u8 = 0xD7;
pub(super) const SOI: u8 = 0xD8;
pub(super) const EOI: u8 = 0xD9;
pub(super) const SOS: u8 = 0xDA;
pub(super) const DQT: u8 = 0xDB;
pub(super) const DRI: u8 = 0xDD;
pub(super) const APP14: u8 = 0xEE;

/// A marker, and the bytes that belong to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// Second byte of the marker.
    pub(super) marker: u8,
    /// Where the marker stands.
    pub(super) offset: usize,
    /// Behind marker and length.
    pub(super) body: &'a [u8],
    /// Marker, length and body.
    pub(super) whole: &'a [u8],
}

impl Segment<'_> {
    pub(super) fn damaged(&self) -> JpegError {
        JpegError::Segment {
            marker: self.marker,
            offset: self.offset,
        }
    }

    pub(super) fn end(&self) -> usize {
        self.offset + self.whole.len()
    }

    /// Start of a frame: any coding process.
    pub(super) fn is_frame(&self) -> bool {
        matches!(self.marker, SOF0..=SOF15) && !matches!(self.marker, DHT | JPG | DAC)
    }
}

/// Where a picture begins: a start marker with another marker behind it.
pub(super) fn find_start(bytes: &[u8]) -> Option<usize> {
    bytes
        .array_windows()
        .position(|window| *window == [0xFF, SOI, 0xFF])
}

/// The next marker at or behind `from` and where its first byte stands. Bytes that are no marker are passed over,
/// as are restart markers unless `restarts`.
pub(super) fn find_marker(bytes: &[u8], from: usize, restarts: bool) -> Option<(u8, usize)> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        match *bytes.get(at + 1)? {
            0x00 => at += 2,
            0xFF => at += 1,
            RST0..=RST7 if !restarts => at += 2,
            marker => return Some((marker, at)),
        }
    }
}

/// The next segment at or behind `from`, whatever rubbish stands before it.
///
/// # Errors
///
/// [`JpegError::CutHeader`] if the bytes end first.
pub(super) fn next_segment(bytes: &[u8], from: usize) -> Result<Segment<'_>, JpegError> {
    let cut = JpegError::CutHeader { bytes: bytes.len() };
    let Some((marker, offset)) = find_marker(bytes, from, false) else {
        return Err(cut);
    };
    let rest = &bytes[offset..];
    if matches!(marker, SOI | EOI | 0x01) {
        return Ok(Segment {
            marker,
            offset,
            body: &[],
            whole: &rest[..2],
        });
    }
    let Some(length) = rest.get(2..4) else {
        return Err(cut);
    };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < 2 {
        return Err(JpegError::Segment { marker, offset });
    }
    let Some(whole) = rest.get(..2 + length) else {
        return Err(cut);
    };
    Ok(Segment {
        marker,
        offset,
        body: &whole[4..],
        whole,
    })
}

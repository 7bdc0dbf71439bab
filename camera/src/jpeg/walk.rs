//! The walk through a picture, from marker to marker and block to block.

use crate::jpeg::JpegError;
use crate::jpeg::header::{ColorHints, Header};
use crate::jpeg::huffman::{self, Tables};
use crate::jpeg::scan::{Data, Scan, Sink};
use crate::jpeg::segment::{self, DHT, DQT, DRI, EOI, SOI, SOS, Segment};

/// Most scans of a picture. Cameras send one or three.
pub(super) const MAX_SCANS: usize = 32;

/// What a DC coefficient times its quantisation step may be off zero. White and black are at 1024; encoders
/// round. What is beyond comes from bytes that were lost on the way.
const MAX_DC: i32 = 1024 + 256;

/// So many zeros at the end of the data are no data, unless an end marker follows.
const FILLING: usize = 8;

/// A picture after the walk.
pub(super) struct Walked {
    /// The picture as any decoder takes it: complete, with its tables, and nothing besides.
    pub(super) repaired: Vec<u8>,
    pub(super) header: Header,
    /// Absent if luma is not to be had without decoding.
    pub(super) luma: Option<LumaBlocks>,
}

/// Mean luma of each 8 × 8 block of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LumaBlocks {
    columns: usize,
    means: Vec<u8>,
}

impl LumaBlocks {
    /// Pixels along the side of a block.
    pub(crate) const SIDE: usize = 8;

    /// A row of blocks.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        &self.means[row * self.columns..][..self.columns]
    }
}

/// Walks through the first picture in the bytes.
pub(super) fn walk(bytes: &[u8]) -> Result<Walked, JpegError> {
    let none = JpegError::NoStart { bytes: bytes.len() };
    let start = segment::find_start(bytes).ok_or(none)?;
    let mut walk = Walk::new(bytes);
    let mut at = start + 2;
    while !walk.is_done() {
        let segment = segment::next_segment(bytes, at)?;
        at = walk.step(&segment)?;
    }
    walk.finish()
}

struct Walk<'a> {
    bytes: &'a [u8],
    kept: Vec<u8>,
    tables: Tables,
    /// Steps of the DC coefficients.
    steps: [Option<i32>; 4],
    interval: usize,
    hints: ColorHints,
    frame: Option<FrameWalk>,
    scans: usize,
    /// A progressive picture's end was found.
    ended: bool,
}

/// What is known once the frame header is.
struct FrameWalk {
    header: Header,
    /// Components whose scan has passed.
    seen: Vec<bool>,
    luma: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Walk<'a> {
        let mut kept = Vec::with_capacity(bytes.len() + 512);
        kept.extend_from_slice(&[0xFF, SOI]);
        Walk {
            bytes,
            kept,
            tables: Tables::new(),
            steps: [None; 4],
            interval: 0,
            hints: ColorHints::default(),
            frame: None,
            scans: 0,
            ended: false,
        }
    }

    fn is_done(&self) -> bool {
        self.ended
            || self
                .frame
                .as_ref()
                .is_some_and(|f| f.header.is_sequential && !f.seen.contains(&false))
    }

    /// Takes in one segment; returns where the next may begin.
    fn step(&mut self, segment: &Segment<'_>) -> Result<usize, JpegError> {
        match segment.marker {
            SOS => return self.scan(segment),
            EOI if self.may_end() => self.ended = true,
            SOI | EOI => return Err(self.ended_early(segment)),
            DHT => self.tables.define(segment)?,
            DQT => self.define_steps(segment)?,
            DRI => {
                let interval = segment
                    .body
                    .first_chunk::<2>()
                    .ok_or_else(|| segment.damaged())?;
                self.interval = usize::from(u16::from_be_bytes(*interval));
            }
            _ if segment.is_frame() => self.begin_frame(segment)?,
            _ => self.hints.note(segment),
        }
        let is_needed = matches!(segment.marker, DHT | DQT | DRI) || segment.is_frame();
        if is_needed || ColorHints::are_in(segment) {
            self.kept.extend_from_slice(segment.whole);
        }
        Ok(segment.end())
    }

    /// Whether an end marker may stand here: only the scans of a progressive picture are not counted.
    fn may_end(&self) -> bool {
        let frame = self.frame.as_ref();
        frame.is_some_and(|f| !f.header.is_sequential && !f.seen.contains(&false))
    }

    fn ended_early(&self, segment: &Segment<'_>) -> JpegError {
        match self.frame {
            Some(_) if self.scans > 0 => JpegError::NoEnd,
            _ => segment.damaged(),
        }
    }

    fn begin_frame(&mut self, segment: &Segment<'_>) -> Result<(), JpegError> {
        if self.frame.is_some() {
            return Err(segment.damaged());
        }
        let header = Header::parse(segment)?;
        let seen = vec![false; header.components.len()];
        self.frame = Some(FrameWalk {
            header,
            seen,
            luma: Vec::new(),
        });
        Ok(())
    }

    /// The DC steps of a segment of quantisation tables (T.81 B.2.4.1).
    fn define_steps(&mut self, segment: &Segment<'_>) -> Result<(), JpegError> {
        let mut rest = segment.body;
        while let Some((precision_and_slot, behind)) = rest.split_first() {
            let (is_wide, slot) = (
                precision_and_slot >> 4 != 0,
                usize::from(precision_and_slot & 15),
            );
            let values = behind.split_at_checked(if is_wide { 128 } else { 64 });
            let Some((values, behind)) = values.filter(|_| slot < 4) else {
                return Err(segment.damaged());
            };
            let step = if is_wide {
                u16::from_be_bytes([values[0], values[1]])
            } else {
                values[0].into()
            };
            self.steps[slot] = Some(step.into());
            rest = behind;
        }
        Ok(())
    }

    fn scan(&mut self, segment: &Segment<'_>) -> Result<usize, JpegError> {
        let Some(frame) = &mut self.frame else {
            return Err(segment.damaged());
        };
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(JpegError::TooManyScans { limit: MAX_SCANS });
        }
        if !frame.header.is_sequential {
            return self.progressive_scan(segment);
        }
        let scan = Scan::parse(segment, &frame.header, &mut self.tables)?;
        for component in scan.components() {
            if std::mem::replace(&mut frame.seen[component], true) {
                return Err(segment.damaged());
            }
        }
        self.kept.extend_from_slice(segment.whole);
        let mut sink = Means::new(frame, &self.steps, self.hints)?;
        let data = Data {
            bytes: self.bytes,
            start: segment.end(),
            interval: self.interval,
            tables: &self.tables,
        };
        let end = scan.walk(&data, &mut sink, &mut self.kept)?;
        if is_filled_up(&self.bytes[data.start..], end - data.start) {
            return Err(JpegError::NoEnd);
        }
        Ok(end)
    }

    /// Keeps the data of a scan as it is, up to the next marker.
    fn progressive_scan(&mut self, segment: &Segment<'_>) -> Result<usize, JpegError> {
        let Some(frame) = &mut self.frame else {
            return Err(segment.damaged());
        };
        let count = usize::from(*segment.body.first().ok_or_else(|| segment.damaged())?);
        let ids = segment
            .body
            .get(1..1 + 2 * count)
            .ok_or_else(|| segment.damaged())?;
        for [id, _] in ids.as_chunks::<2>().0 {
            let component = frame.header.components.iter().position(|c| c.id == *id);
            frame.seen[component.ok_or_else(|| segment.damaged())?] = true;
        }
        let (_, end) =
            segment::find_marker(self.bytes, segment.end(), false).ok_or(JpegError::NoEnd)?;
        self.kept
            .extend_from_slice(&self.bytes[segment.offset..end]);
        Ok(end)
    }

    fn finish(mut self) -> Result<Walked, JpegError> {
        let cut = JpegError::CutHeader {
            bytes: self.bytes.len(),
        };
        let Some(frame) = self.frame else {
            return Err(cut);
        };
        if self.tables.misses_standard {
            self.kept.splice(2..2, huffman::standard_segment());
        }
        self.kept.extend_from_slice(&[0xFF, EOI]);
        let columns = frame.header.blocks(&frame.header.components[0]).0;
        let luma = (!frame.luma.is_empty()).then_some(LumaBlocks {
            columns,
            means: frame.luma,
        });
        Ok(Walked {
            repaired: self.kept,
            header: frame.header,
            luma,
        })
    }
}

/// Whether data that ends at `end` are zeros in the place of a lost rest: they decode to blocks, but no marker
/// follows them.
fn is_filled_up(bytes: &[u8], end: usize) -> bool {
    let is_zero = bytes[..end].ends_with(&[0; FILLING]);
    is_zero && segment::find_marker(bytes, end, false).is_none()
}

/// Turns DC coefficients into means.
struct Means<'a> {
    steps: [i32; 4],
    columns: usize,
    /// Empty if the first component is no luma of full size.
    luma: &'a mut [u8],
}

impl<'a> Means<'a> {
    fn new(
        frame: &'a mut FrameWalk,
        steps: &[Option<i32>; 4],
        hints: ColorHints,
    ) -> Result<Means<'a>, JpegError> {
        let FrameWalk { header, luma, .. } = frame;
        let mut component_steps = [1; 4];
        for (step, component) in component_steps.iter_mut().zip(&header.components) {
            let slot = component.quantizer;
            let missing = JpegError::NoTable {
                kind: "quantisation",
                slot: slot as u8,
            };
            *step = steps.get(slot).copied().flatten().ok_or(missing)?;
        }
        let first = &header.components[0];
        let is_full = (first.across, first.down) == header.most;
        let (columns, rows) = header.blocks(first);
        if is_full && hints.has_luma(&header.components) && luma.is_empty() {
            luma.resize(columns * rows, 0);
        }
        Ok(Means {
            steps: component_steps,
            columns,
            luma,
        })
    }
}

impl Sink for Means<'_> {
    #[inline]
    fn dc(&mut self, component: usize, (x, y): (usize, usize), value: i32) -> bool {
        let level = value.saturating_mul(self.steps[component]);
        if component == 0
            && x < self.columns
            && let Some(mean) = self.luma.get_mut(y * self.columns + x)
        {
            *mean = ((level.saturating_add(4) >> 3) + 128).clamp(0, 255) as u8;
        }
        level.saturating_abs() <= MAX_DC.saturating_add(self.steps[component])
    }
}

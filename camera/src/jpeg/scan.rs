//! One scan of a sequential picture, block by block, coefficients counted and thrown away.

use crate::jpeg::JpegError;
use crate::jpeg::bits::Bits;
use crate::jpeg::header::{Component, Header};
use crate::jpeg::huffman::{AC, DC, END_OF_BLOCK, Table, Tables};
use crate::jpeg::segment::{self, RST0, RST7, Segment};

/// What a scan says about one of its components.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Place of the component in the frame header.
    index: usize,
    component: Component,
    /// Slots of its tables.
    slots: [usize; 2],
    /// Blocks across and down in a unit.
    unit: (usize, usize),
}

/// What a scan is read from.
pub(super) struct Data<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the data begins.
    pub(super) start: usize,
    /// Units between restarts, 0 = none.
    pub(super) interval: usize,
    pub(super) tables: &'a Tables,
}

/// A scan header.
pub(super) struct Scan {
    parts: Vec<Part>,
    /// Units across and down.
    units: (usize, usize),
}

/// Takes the DC coefficient of a component's block at a column and row.
pub(super) trait Sink {
    /// `false` if the value is impossible.
    fn dc(&mut self, component: usize, at: (usize, usize), value: i32) -> bool;
}

impl Scan {
    /// Reads a scan segment (T.81 B.2.3) and makes sure of its tables.
    pub(super) fn parse(
        segment: &Segment<'_>,
        header: &Header,
        tables: &mut Tables,
    ) -> Result<Scan, JpegError> {
        let count = usize::from(*segment.body.first().ok_or_else(|| segment.damaged())?);
        if !(1..=4).contains(&count) || segment.body.len() != 1 + 2 * count + 3 {
            return Err(segment.damaged());
        }
        let mut parts: Vec<Part> = Vec::with_capacity(count);
        for [id, slots] in segment.body[1..=2 * count].as_chunks::<2>().0 {
            let index = header
                .components
                .iter()
                .position(|component| component.id == *id);
            let slots = [usize::from(slots >> 4), usize::from(slots & 15)];
            let Some(index) = index.filter(|_| slots.iter().all(|slot| *slot < 4)) else {
                return Err(segment.damaged());
            };
            if parts.iter().any(|part| part.index == index) {
                return Err(segment.damaged());
            }
            tables.require(DC, slots[DC])?;
            tables.require(AC, slots[AC])?;
            let component = header.components[index];
            let unit = if count == 1 {
                (1, 1)
            } else {
                (component.across, component.down)
            };
            parts.push(Part {
                index,
                component,
                slots,
                unit,
            });
        }
        let units = match parts.as_slice() {
            [only] => header.blocks(&only.component),
            _ => header.units(),
        };
        Ok(Scan { parts, units })
    }

    /// Places of the components in the frame header.
    pub(super) fn components(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.index)
    }

    /// Walks the data of the scan and copies what belongs to it into `kept`. Returns where the data ends.
    pub(super) fn walk(
        &self,
        data: &Data<'_>,
        sink: &mut impl Sink,
        kept: &mut Vec<u8>,
    ) -> Result<usize, JpegError> {
        let of = self.units.0 * self.units.1;
        let bytes = data.bytes;
        let interval = if data.interval == 0 {
            of
        } else {
            data.interval
        };
        let mut blocks = Blocks {
            scan: self,
            tables: data.tables,
            dc: [0; 4],
        };
        let (mut start, mut mcu) = (data.start, 0);
        loop {
            let mut bits = Bits::new(bytes, start);
            let end = of.min(mcu + interval);
            blocks.dc = [0; 4];
            while mcu < end {
                let at = (mcu % self.units.0, mcu / self.units.0);
                let unit = blocks.unit(&mut bits, at, sink);
                if bits.is_past_the_end() {
                    return Err(JpegError::Truncated { mcus: mcu, of });
                }
                unit.map_err(|problem| JpegError::Damaged { problem, mcu, of })?;
                mcu += 1;
            }
            let data_end = bits.end();
            kept.extend_from_slice(&bytes[start..data_end]);
            if mcu == of {
                return Ok(data_end);
            }
            let number = (mcu / interval - 1) % 8;
            start = restart(bytes, data_end, RST0 + number as u8).map_err(|found| match found {
                Some(_) => JpegError::Damaged {
                    problem: "a restart out of turn",
                    mcu,
                    of,
                },
                None => JpegError::Truncated { mcus: mcu, of },
            })?;
            kept.extend_from_slice(&[0xFF, RST0 + number as u8]);
        }
    }
}

/// Behind the restart marker at or behind `from`, or which other restart marker stands there, if any.
fn restart(bytes: &[u8], from: usize, due: u8) -> Result<usize, Option<u8>> {
    match segment::find_marker(bytes, from, true) {
        Some((marker, at)) if marker == due => Ok(at + 2),
        Some((marker @ RST0..=RST7, _)) => Err(Some(marker)),
        _ => Err(None),
    }
}

struct Blocks<'a> {
    scan: &'a Scan,
    tables: &'a Tables,
    /// Last DC coefficient of each part.
    dc: [i32; 4],
}

impl Blocks<'_> {
    /// One unit: all blocks of all parts.
    #[inline]
    fn unit(
        &mut self,
        bits: &mut Bits<'_>,
        (x, y): (usize, usize),
        sink: &mut impl Sink,
    ) -> Result<(), &'static str> {
        for (part, last) in self.scan.parts.iter().zip(&mut self.dc) {
            let dc = self.tables.get(DC, part.slots[DC]).ok_or("a table gone")?;
            let ac = self.tables.get(AC, part.slots[AC]).ok_or("a table gone")?;
            let (across, down) = part.unit;
            for by in 0..down {
                for bx in 0..across {
                    *last = last.wrapping_add(difference(dc, bits)?);
                    if !sink.dc(part.index, (x * across + bx, y * down + by), *last) {
                        return Err("brightness beyond white");
                    }
                    pass_over_the_rest(ac, bits)?;
                }
            }
        }
        Ok(())
    }
}

/// The DC difference of a block (T.81 F.2.2.1).
#[inline]
fn difference(table: &Table, bits: &mut Bits<'_>) -> Result<i32, &'static str> {
    bits.fill();
    let symbol = table.symbol(bits).ok_or("no such DC code")?;
    let size = u32::from(symbol.size);
    if size == 0 {
        return Ok(0);
    }
    let value = bits.peek(size) as i32;
    bits.skip(size);
    let is_negative = value >> (size - 1) == 0;
    Ok(if is_negative {
        value - (1 << size) + 1
    } else {
        value
    })
}

/// Passes over the AC coefficients of a block (T.81 F.2.2.2).
#[inline]
fn pass_over_the_rest(table: &Table, bits: &mut Bits<'_>) -> Result<(), &'static str> {
    let mut place = 1;
    while place < 64 {
        bits.fill();
        let symbol = table.peek(bits).ok_or("no such AC code")?;
        bits.skip(u32::from(symbol.code_bits) + u32::from(symbol.size));
        place += u32::from(symbol.advance);
    }
    if place > 64 && place < u32::from(END_OF_BLOCK) {
        Err("too many coefficients")
    } else {
        Ok(())
    }
}

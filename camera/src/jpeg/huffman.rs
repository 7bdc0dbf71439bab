//! Huffman tables, and the ones that Motion JPEG leaves out.

use crate::jpeg::JpegError;
use crate::jpeg::bits::Bits;
use crate::jpeg::segment::{DHT, Segment};

/// Codes up to this long are found in one look.
const LOOK_BITS: u32 = 10;
/// Most bits of a coefficient of an 8-bit picture.
const MAX_SIZE: u8 = 11;
/// A [`Symbol::advance`] that ends its block.
pub(super) const END_OF_BLOCK: u8 = 0x80;

/// What a code means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Bits of the code; 0 = no such code.
    pub(super) code_bits: u8,
    /// Bits of the coefficient behind the code.
    pub(super) size: u8,
    /// Coefficients done with this one, or [`END_OF_BLOCK`].
    pub(super) advance: u8,
}

impl Symbol {
    fn new(code_bits: u8, value: u8, is_ac: bool) -> Symbol {
        let (run, size) = (value >> 4, value & 15);
        let advance = match (is_ac, run, size) {
            (true, 0..15, 0) => END_OF_BLOCK,
            _ => run + 1,
        };
        // DC codes have no run: whatever is above 11 is no size.
        let is_possible = size <= MAX_SIZE && (is_ac || run == 0);
        if is_possible {
            Symbol {
                code_bits,
                size,
                advance,
            }
        } else {
            Symbol::default()
        }
    }
}

/// A table ready for decoding.
#[derive(Clone)]
pub(super) struct Table {
    look: Vec<Symbol>,
    /// For each code length: the first code behind those of this length, left-aligned in 16 bits, and what to
    /// add to a code for its place in `symbols`.
    longer: [(u32, i32); 17],
    symbols: Vec<Symbol>,
}

impl Table {
    /// From the numbers of codes of 1 to 16 bits and their values (T.81 annex C). `None` if they are no prefix code.
    fn new(counts: &[u8; 16], values: &[u8], is_ac: bool) -> Option<Table> {
        let mut look = vec![Symbol::default(); 1 << LOOK_BITS];
        let mut longer = [(0, 0); 17];
        let mut symbols = Vec::with_capacity(values.len());
        let mut code = 0u32;
        for (bits, count) in (1u32..).zip(counts) {
            let first = symbols.len();
            longer[bits as usize].1 = first as i32 - code as i32;
            for value in values.get(first..first + usize::from(*count))? {
                let symbol = Symbol::new(bits as u8, *value, is_ac);
                symbols.push(symbol);
                if code >> bits != 0 {
                    return None;
                }
                if bits <= LOOK_BITS {
                    let start = (code << (LOOK_BITS - bits)) as usize;
                    look[start..start + (1 << (LOOK_BITS - bits))].fill(symbol);
                }
                code += 1;
            }
            longer[bits as usize].0 = code << (16 - bits);
            code <<= 1;
        }
        Some(Table {
            look,
            longer,
            symbols,
        })
    }

    /// Takes a code off the bits; the coefficient's bits stay. At least 16 bits must be there. `None` if it is
    /// no code.
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> Option<Symbol> {
        let symbol = self.peek(bits)?;
        bits.skip(symbol.code_bits.into());
        Some(symbol)
    }

    /// As [`Table::symbol`], and leaves the code where it is.
    pub(super) fn peek(&self, bits: &Bits<'_>) -> Option<Symbol> {
        let symbol = self.look[bits.peek(LOOK_BITS) as usize];
        if symbol.code_bits != 0 {
            Some(symbol)
        } else {
            self.peek_longer(bits)
        }
    }

    #[cold]
    fn peek_longer(&self, bits: &Bits<'_>) -> Option<Symbol> {
        let code = bits.peek(16);
        let length = (LOOK_BITS + 1..=16).find(|length| code < self.longer[*length as usize].0)?;
        let place = (code >> (16 - length)) as i32 + self.longer[length as usize].1;
        let symbol = *self.symbols.get(usize::try_from(place).ok()?)?;
        (symbol.code_bits != 0).then_some(symbol)
    }
}

/// The tables of both classes, and which of the standard ones are missed.
pub(super) struct Tables {
    slots: [[Option<Table>; 4]; 2],
    defined: [[bool; 4]; 2],
    pub(super) misses_standard: bool,
}

/// Table classes.
pub(super) const DC: usize = 0;
pub(super) const AC: usize = 1;

impl Tables {
    pub(super) fn new() -> Tables {
        Tables {
            slots: Default::default(),
            defined: Default::default(),
            misses_standard: false,
        }
    }

    /// Reads a segment of tables (T.81 B.2.4.2).
    pub(super) fn define(&mut self, segment: &Segment<'_>) -> Result<(), JpegError> {
        let mut rest = segment.body;
        while !rest.is_empty() {
            let Some((&[class_and_slot, ref counts @ ..], behind)) = rest.split_first_chunk::<17>()
            else {
                return Err(segment.damaged());
            };
            let (class, slot) = (
                usize::from(class_and_slot >> 4),
                usize::from(class_and_slot & 15),
            );
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let values = behind.split_at_checked(total);
            let Some((values, behind)) = values.filter(|_| class < 2 && slot < 4 && total <= 256)
            else {
                return Err(segment.damaged());
            };
            let table = Table::new(counts, values, class == AC);
            self.slots[class][slot] = Some(table.ok_or_else(|| segment.damaged())?);
            self.defined[class][slot] = true;
            rest = behind;
        }
        Ok(())
    }

    /// Makes sure that a table is there, the standard one if the picture has none.
    pub(super) fn require(&mut self, class: usize, slot: usize) -> Result<(), JpegError> {
        if self.defined[class][slot] {
            return Ok(());
        }
        let kind = if class == DC { "DC" } else { "AC" };
        let (counts, values) = match (class, slot) {
            (DC, 0) => STANDARD_DC_LUMA,
            (DC, 1) => STANDARD_DC_CHROMA,
            (AC, 0) => STANDARD_AC_LUMA,
            (AC, 1) => STANDARD_AC_CHROMA,
            _ => {
                return Err(JpegError::NoTable {
                    kind,
                    slot: slot as u8,
                });
            }
        };
        if self.slots[class][slot].is_none() {
            self.slots[class][slot] = Table::new(counts, values, class == AC);
        }
        self.misses_standard = true;
        Ok(())
    }

    pub(super) fn get(&self, class: usize, slot: usize) -> Option<&Table> {
        self.slots[class][slot].as_ref()
    }
}

/// A segment with the four standard tables.
pub(super) fn standard_segment() -> Vec<u8> {
    let tables = [
        (0x00, STANDARD_DC_LUMA),
        (0x10, STANDARD_AC_LUMA),
        (0x01, STANDARD_DC_CHROMA),
        (0x11, STANDARD_AC_CHROMA),
    ];
    let mut body = Vec::new();
    for (class_and_slot, (counts, values)) in tables {
        body.push(class_and_slot);
        body.extend_from_slice(counts);
        body.extend_from_slice(values);
    }
    let length = (body.len() + 2) as u16;
    let mut segment = vec![0xFF, DHT];
    segment.extend_from_slice(&length.to_be_bytes());
    segment.append(&mut body);
    segment
}

type Standard = (&'static [u8; 16], &'static [u8]);

/// T.81 table K.3.
const STANDARD_DC_LUMA: Standard = (
    &[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
);

/// T.81 table K.4.
const STANDARD_DC_CHROMA: Standard = (
    &[0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
    &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
);

/// T.81 table K.5.
const STANDARD_AC_LUMA: Standard = (
    &[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
    &[
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61,
        0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52,
        0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25,
        0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45,
        0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64,
        0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
        0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
        0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6,
        0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3,
        0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8,
        0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
);

/// T.81 table K.6.
const STANDARD_AC_CHROMA: Standard = (
    &[0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
    &[
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61,
        0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33,
        0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18,
        0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44,
        0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63,
        0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
        0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97,
        0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4,
        0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca,
        0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7,
        0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
);

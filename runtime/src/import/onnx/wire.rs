//! The protobuf wire format, read in place.
//!
//! A generated decoder copies every weight; here a message is a range of the mapped file, so that
//! a model of half a gigabyte takes no memory before a tensor is asked for.
//! Format: <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// A whole number, flag or enumeration.
    Varint(u64),
    /// Eight bytes, little endian.
    Fixed64([u8; 8]),
    /// Text, bytes, a packed list or a message: where it lies in the file.
    Bytes(Range<usize>),
    /// Four bytes, little endian.
    Fixed32([u8; 4]),
}

/// The fields of one message, in file order. After an error the iterator ends.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// The message in `range`, which must lie in `bytes`.
    pub(super) fn new(bytes: &'a [u8], range: Range<usize>) -> Fields<'a> {
        Fields {
            bytes,
            at: range.start,
            end: range.end.min(bytes.len()),
        }
    }

    /// Whether nothing is left.
    fn is_done(&self) -> bool {
        self.at >= self.end
    }

    fn varint(&mut self) -> Result<u64, String> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.bytes[..self.end].get(self.at) else {
                return Err(format!("the number at byte {start} is cut off"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!("the number at byte {start} has more than 64 bits"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let rest = &self.bytes[self.at..self.end];
        let Some(bytes) = rest.first_chunk::<N>() else {
            return Err(format!("the number at byte {} is cut off", self.at));
        };
        self.at += N;
        Ok(*bytes)
    }

    fn range(&mut self) -> Result<Range<usize>, String> {
        let start = self.at;
        let len = self.varint()?;
        let left = self.end - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                self.at += len;
                Ok(self.at - len..self.at)
            }
            _ => Err(format!(
                "the field at byte {start} claims {len} bytes, {left} are left"
            )),
        }
    }

    fn field(&mut self) -> Result<(u64, Wire), String> {
        let start = self.at;
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed()?),
            2 => Wire::Bytes(self.range()?),
            5 => Wire::Fixed32(self.fixed()?),
            other => return Err(format!("the field at byte {start} has wire type {other}")),
        };
        Ok((key >> 3, value))
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<(u64, Wire), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.end;
        }
        Some(field)
    }
}

/// The whole numbers of a repeated field, packed or single, read one by one.
pub(super) fn varints<'a>(
    bytes: &'a [u8],
    value: &Wire,
) -> impl Iterator<Item = Result<i64, String>> + use<'a> {
    let (single, list) = match value {
        Wire::Varint(value) => (Some(Ok(*value as i64)), 0..0),
        Wire::Bytes(range) => (None, range.clone()),
        other => (
            Some(Err(format!("{other:?} is no list of whole numbers"))),
            0..0,
        ),
    };
    let mut fields = Fields::new(bytes, list);
    let next = move || (!fields.is_done()).then(|| Ok(fields.varint()? as i64));
    single.into_iter().chain(std::iter::from_fn(next))
}

/// The bytes of a repeated field of fixed width, packed or single.
pub(super) fn fixed_bytes<'a>(bytes: &'a [u8], value: &'a Wire) -> Result<&'a [u8], String> {
    match value {
        Wire::Fixed32(value) => Ok(value),
        Wire::Fixed64(value) => Ok(value),
        Wire::Bytes(range) => Ok(&bytes[range.clone()]),
        Wire::Varint(value) => Err(format!("{value} is no list of floats")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Result<(u64, Wire), String>> {
        Fields::new(bytes, 0..bytes.len()).collect()
    }

    #[test]
    fn every_kind_of_field_is_read() {
        let bytes = [
            0x08, 0x96, 0x01, 0x12, 0x02, 7, 8, 0x1D, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        let expected = [
            Ok((1, Wire::Varint(150))),
            Ok((2, Wire::Bytes(5..7))),
            Ok((3, Wire::Fixed32([1, 2, 3, 4]))),
            Ok((4, Wire::Fixed64([1, 2, 3, 4, 5, 6, 7, 8]))),
        ];
        assert_eq!(all(&bytes), expected);
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_an_error_that_names_the_byte() {
        let cases: [(&[u8], &str); 6] = [
            (&[0x08], "byte 1 is cut off"),
            (&[0x08, 0x80], "byte 1 is cut off"),
            (&[0x12, 5, 1], "byte 1 claims 5 bytes, 1 are left"),
            (&[0x1D, 1, 2], "byte 1 is cut off"),
            (&[0x0B], "wire type 3"),
            (&[0x80; 11], "more than 64 bits"),
        ];
        for (bytes, expected) in cases {
            let fields = all(bytes);
            let error = fields.last().cloned().unwrap().unwrap_err();
            assert!(error.contains(expected), "{error}: {expected}");
            assert_eq!(fields.len(), 1);
        }
    }

    #[test]
    fn lists_are_read_packed_and_single() {
        let bytes = [1, 0x96, 0x01, 3];
        let list = |value: Wire| varints(&bytes, &value).collect::<Result<Vec<i64>, _>>();
        assert_eq!(list(Wire::Bytes(0..4)).unwrap(), [1, 150, 3]);
        assert_eq!(list(Wire::Varint(u64::MAX)).unwrap(), [-1]);
        assert!(list(Wire::Bytes(1..2)).is_err());
        assert!(list(Wire::Fixed32([0; 4])).is_err());
    }
}

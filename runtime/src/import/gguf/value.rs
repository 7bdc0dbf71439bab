//! Metadata values: where they lie in the file, and typed access to them.

use super::error::GgufError;
use super::file::GgufFile;
use std::ops::Range;

/// Arrays inside arrays deeper than this are refused.
const MAX_DEPTH: usize = 4;
/// Longest piece of an offending text that is quoted in an error.
const MAX_QUOTED_CHARS: usize = 80;

/// The types of a metadata value, numbered as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// 8-bit unsigned number.
    U8,
    /// 8-bit signed number.
    I8,
    /// 16-bit unsigned number.
    U16,
    /// 16-bit signed number.
    I16,
    /// 32-bit unsigned number.
    U32,
    /// 32-bit signed number.
    I32,
    /// 32-bit float.
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// Length (u64) and UTF-8 bytes.
    Text,
    /// Type of the elements (u32), their number (u64), and they themselves.
    Array,
    /// 64-bit unsigned number.
    U64,
    /// 64-bit signed number.
    I64,
    /// 64-bit float.
    F64,
}

impl ValueType {
    /// The type with this number.
    pub fn from_id(id: u32) -> Option<ValueType> {
        use ValueType::*;
        let types = [
            U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64,
        ];
        types.get(usize::try_from(id).ok()?).copied()
    }

    /// Bytes of a value, or `None` where it differs from value to value.
    pub fn width(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            Text | Array => None,
        }
    }

    /// Fewest bytes a value takes.
    fn least(self) -> usize {
        match self {
            ValueType::Text => 8,
            ValueType::Array => 12,
            _ => self.width().unwrap_or(1),
        }
    }
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number or flag: its bytes.
    Plain(ValueType, Range<usize>),
    /// A text: its bytes without the length.
    Text(Range<usize>),
    /// An array: type and number of its elements, and all their bytes.
    Array {
        /// Type of every element.
        element: ValueType,
        /// Number of elements.
        count: usize,
        /// The elements.
        at: Range<usize>,
    },
}

/// A number from a file, of whatever width.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Whole(i128),
    Real(f64),
    Flag(bool),
}

fn number(kind: ValueType, bytes: &[u8]) -> Number {
    let mut wide = [0u8; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let raw = u64::from_le_bytes(wide);
    match kind {
        ValueType::I8 => Number::Whole((raw as i8).into()),
        ValueType::I16 => Number::Whole((raw as i16).into()),
        ValueType::I32 => Number::Whole((raw as i32).into()),
        ValueType::I64 => Number::Whole((raw as i64).into()),
        ValueType::F32 => Number::Real(f32::from_bits(raw as u32).into()),
        ValueType::F64 => Number::Real(f64::from_bits(raw)),
        ValueType::Bool => Number::Flag(raw != 0),
        _ => Number::Whole(raw.into()),
    }
}

/// Reads bytes one after the other; every error says where it stopped.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, what: &str) -> Result<Range<usize>, String> {
        let left = self.bytes.len() - self.at;
        let fits = usize::try_from(len).ok().filter(|len| *len <= left);
        let Some(len) = fits else {
            return Err(format!(
                "{what} at byte {} takes {len} bytes, the file has {left} left",
                self.at
            ));
        };
        self.at += len;
        Ok(self.at - len..self.at)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, String> {
        let at = self.take(4, what)?;
        let bytes = self.bytes[at].first_chunk().copied().unwrap_or_default();
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, String> {
        let at = self.take(8, what)?;
        let bytes = self.bytes[at].first_chunk().copied().unwrap_or_default();
        Ok(u64::from_le_bytes(bytes))
    }

    /// A number of things that take at least `least` bytes each.
    pub(super) fn count(&mut self, least: usize, what: &str) -> Result<usize, String> {
        let at = self.at;
        let count = self.u64(what)?;
        let most = (self.bytes.len() - self.at) / least;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(format!(
                "{what} at byte {at} is {count}, the rest of the file has room for {most}"
            )),
        }
    }

    /// Length and bytes of a text; returns where the bytes are.
    pub(super) fn text(&mut self, what: &str) -> Result<Range<usize>, String> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    pub(super) fn utf8(&mut self, what: &str) -> Result<&'a str, String> {
        let at = self.text(what)?;
        let start = at.start;
        std::str::from_utf8(&self.bytes[at])
            .map_err(|e| format!("{what} at byte {start} is not UTF-8 text: {e}"))
    }

    pub(super) fn value_type(&mut self, what: &str) -> Result<ValueType, String> {
        let id = self.u32(what)?;
        ValueType::from_id(id).ok_or_else(|| format!("{what} has value type {id}, the last is 12"))
    }

    /// Steps over a value and says where it is.
    pub(super) fn value(&mut self, kind: ValueType, what: &str) -> Result<Value, String> {
        self.nested_value(kind, what, 0)
    }

    fn nested_value(&mut self, kind: ValueType, what: &str, depth: usize) -> Result<Value, String> {
        if let Some(width) = kind.width() {
            return Ok(Value::Plain(kind, self.take(width as u64, what)?));
        }
        if kind == ValueType::Text {
            return Ok(Value::Text(self.text(what)?));
        }
        if depth == MAX_DEPTH {
            return Err(format!("{what} nests arrays deeper than {MAX_DEPTH}"));
        }
        let element = self.value_type(what)?;
        let count = self.count(element.least(), what)?;
        let start = self.at;
        match element.width() {
            // `count` was bounded by the bytes left.
            Some(width) => self.at += count * width,
            None => {
                for _ in 0..count {
                    self.nested_value(element, what, depth + 1)?;
                }
            }
        }
        Ok(Value::Array {
            element,
            count,
            at: start..self.at,
        })
    }
}

/// Typed access to the metadata. An absent key is `None`, a key of another type an error.
impl GgufFile {
    /// A text.
    ///
    /// # Errors
    ///
    /// Another type, or no UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Text(at)) => match std::str::from_utf8(&self.bytes()[at.clone()]) {
                Ok(text) => Ok(Some(text)),
                Err(error) => Err(self.wrong(key, "a text", &format!("it is not UTF-8: {error}"))),
            },
            Some(other) => Err(self.wrong_type(key, other, "a text")),
        }
    }

    /// A count, size or id.
    ///
    /// # Errors
    ///
    /// Another type, or a number below zero or beyond `usize`.
    pub fn size(&self, key: &str) -> Result<Option<usize>, GgufError> {
        match self.number(key)? {
            None => Ok(None),
            Some(Number::Whole(whole)) => match usize::try_from(whole) {
                Ok(size) => Ok(Some(size)),
                Err(_) => Err(self.wrong(key, &whole.to_string(), "it must be zero or more")),
            },
            Some(other) => Err(self.wrong(key, &format!("{other:?}"), "it must be a whole number")),
        }
    }

    /// A count or size that has no default.
    ///
    /// # Errors
    ///
    /// As [`GgufFile::size`]; an absent key.
    pub fn required_size(&self, key: &str) -> Result<usize, GgufError> {
        self.size(key)?.ok_or_else(|| self.missing_key(key))
    }

    /// A number that need not be whole.
    ///
    /// # Errors
    ///
    /// Another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.number(key)? {
            None => Ok(None),
            Some(Number::Real(value)) => Ok(Some(value)),
            Some(Number::Whole(value)) => Ok(Some(value as f64)),
            Some(flag) => Err(self.wrong(key, &format!("{flag:?}"), "it must be a number")),
        }
    }

    /// A yes or no.
    ///
    /// # Errors
    ///
    /// Another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.number(key)? {
            None => Ok(None),
            Some(Number::Flag(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(key, &format!("{other:?}"), "it must be true or false")),
        }
    }

    /// An array of texts, in order.
    ///
    /// # Errors
    ///
    /// Another type, or an element that is no UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        let (count, at) = match self.value(key) {
            None => return Ok(None),
            Some(Value::Array {
                element: ValueType::Text,
                count,
                at,
            }) => (*count, at),
            Some(other) => return Err(self.wrong_type(key, other, "an array of texts")),
        };
        let mut cursor = Cursor {
            bytes: &self.bytes()[..at.end],
            at: at.start,
        };
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let text = cursor.utf8("an element");
            texts.push(text.map_err(|what| self.wrong(key, "an array of texts", &what))?);
        }
        Ok(Some(texts))
    }

    /// An array of numbers, in order.
    ///
    /// # Errors
    ///
    /// Another type.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        let rule = "an array of numbers";
        let numbers = self.numbers(key, rule)?;
        let float = |number: Number| match number {
            Number::Real(value) => Ok(value),
            Number::Whole(value) => Ok(value as f64),
            Number::Flag(_) => Err(self.wrong(key, "an array of flags", "it must hold numbers")),
        };
        numbers
            .map(|numbers| numbers.into_iter().map(float).collect())
            .transpose()
    }

    /// An array of whole numbers that fit 64 bits, in order.
    ///
    /// # Errors
    ///
    /// Another type.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        let rule = "an array of whole numbers";
        let numbers = self.numbers(key, rule)?;
        let whole = |number: Number| match number {
            Number::Whole(value) => i64::try_from(value)
                .map_err(|_| self.wrong(key, &value.to_string(), "its elements must fit 64 bits")),
            other => Err(self.wrong(key, &format!("{other:?}"), "it must hold whole numbers")),
        };
        numbers
            .map(|numbers| numbers.into_iter().map(whole).collect())
            .transpose()
    }

    fn numbers(&self, key: &str, rule: &str) -> Result<Option<Vec<Number>>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array { element, at, .. }) if element.width().is_some() => {
                let width = element.width().unwrap_or(1);
                let bytes = self.bytes()[at.clone()].chunks_exact(width);
                Ok(Some(bytes.map(|bytes| number(*element, bytes)).collect()))
            }
            Some(other) => Err(self.wrong_type(key, other, rule)),
        }
    }

    fn number(&self, key: &str) -> Result<Option<Number>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Plain(kind, at)) => Ok(Some(number(*kind, &self.bytes()[at.clone()]))),
            Some(other) => Err(self.wrong_type(key, other, "one number")),
        }
    }

    fn wrong_type(&self, key: &str, found: &Value, wanted: &str) -> GgufError {
        let found = match found {
            Value::Plain(kind, _) => format!("of type {kind:?}"),
            Value::Text(_) => "a text".to_owned(),
            Value::Array { element, count, .. } => format!("an array of {count} {element:?}"),
        };
        self.wrong(key, &found, &format!("it must be {wanted}"))
    }

    /// A key whose value breaks `rule`.
    pub(super) fn wrong(&self, key: &str, value: &str, rule: &str) -> GgufError {
        let mut quoted: String = value.chars().take(MAX_QUOTED_CHARS).collect();
        if quoted.len() < value.len() {
            quoted.push('…');
        }
        GgufError::Key {
            path: self.path().to_owned(),
            key: key.to_owned(),
            value: quoted,
            rule: rule.to_owned(),
        }
    }

    /// An absent key.
    pub(super) fn missing_key(&self, key: &str) -> GgufError {
        GgufError::MissingKey {
            path: self.path().to_owned(),
            key: key.to_owned(),
        }
    }
}

//! Tensors of an ONNX file: type, dimensions, and where their bytes are.

use super::wire::{Fields, Wire, fixed_bytes, varints};
use ocelli_kernels::half::{bf16_bits_to_f32, f16_bits_to_f32};
use std::ops::Range;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// Types of elements, numbered as in `onnx.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    F32,
    U8,
    I8,
    U16,
    I16,
    I32,
    I64,
    Text,
    Bool,
    F16,
    F64,
    U32,
    U64,
    Bf16,
    U4,
    I4,
}

/// Number in the file, type, bits of an element, name.
const TYPES: [(i64, DataType, usize, &str); 16] = [
    (1, DataType::F32, 32, "FLOAT"),
    (2, DataType::U8, 8, "UINT8"),
    (3, DataType::I8, 8, "INT8"),
    (4, DataType::U16, 16, "UINT16"),
    (5, DataType::I16, 16, "INT16"),
    (6, DataType::I32, 32, "INT32"),
    (7, DataType::I64, 64, "INT64"),
    (8, DataType::Text, 0, "STRING"),
    (9, DataType::Bool, 8, "BOOL"),
    (10, DataType::F16, 16, "FLOAT16"),
    (11, DataType::F64, 64, "DOUBLE"),
    (12, DataType::U32, 32, "UINT32"),
    (13, DataType::U64, 64, "UINT64"),
    (16, DataType::Bf16, 16, "BFLOAT16"),
    (21, DataType::U4, 4, "UINT4"),
    (22, DataType::I4, 4, "INT4"),
];

impl DataType {
    fn from_number(number: i64) -> Option<DataType> {
        let found = TYPES.iter().find(|(id, ..)| *id == number);
        found.map(|(_, data_type, ..)| *data_type)
    }

    /// Whether a number of the file, as the attribute `to` of `Cast` has it, is a float type.
    pub(super) fn is_float_number(number: i64) -> bool {
        DataType::from_number(number).is_some_and(DataType::is_float)
    }

    fn row(self) -> (usize, &'static str) {
        let found = TYPES.iter().find(|(_, data_type, ..)| *data_type == self);
        found.map_or((0, ""), |(_, _, bits, name)| (*bits, *name))
    }

    /// Bits of an element; 0 for texts.
    pub(super) fn bits(self) -> usize {
        self.row().0
    }

    /// The name in `onnx.proto`.
    pub(super) fn name(self) -> &'static str {
        self.row().1
    }

    /// Whether the elements are small whole numbers, as weights are quantised to.
    pub(super) fn is_quantised(self) -> bool {
        use DataType::{I4, I8, U4, U8};
        matches!(self, U8 | I8 | U4 | I4)
    }

    /// Whether the elements are floats.
    pub(super) fn is_float(self) -> bool {
        use DataType::{Bf16, F16, F32, F64};
        matches!(self, F32 | F16 | Bf16 | F64)
    }

    /// Element `index` of `bytes`, which must reach that far, as f64.
    pub(super) fn element(self, bytes: &[u8], index: usize) -> f64 {
        fn at<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&bytes[index * N..][..N]);
            out
        }
        match self {
            DataType::F32 => f32::from_le_bytes(at(bytes, index)).into(),
            DataType::F16 => f16_bits_to_f32(u16::from_le_bytes(at(bytes, index))).into(),
            DataType::Bf16 => bf16_bits_to_f32(u16::from_le_bytes(at(bytes, index))).into(),
            DataType::F64 => f64::from_le_bytes(at(bytes, index)),
            DataType::U8 | DataType::Bool => bytes[index].into(),
            DataType::I8 => (bytes[index] as i8).into(),
            DataType::U16 => u16::from_le_bytes(at(bytes, index)).into(),
            DataType::I16 => i16::from_le_bytes(at(bytes, index)).into(),
            DataType::U32 => u32::from_le_bytes(at(bytes, index)).into(),
            DataType::I32 => i32::from_le_bytes(at(bytes, index)).into(),
            DataType::U64 => u64::from_le_bytes(at(bytes, index)) as f64,
            DataType::I64 => i64::from_le_bytes(at(bytes, index)) as f64,
            DataType::U4 => nibble(bytes, index).into(),
            DataType::I4 => i8::from_ne_bytes([nibble(bytes, index) << 4])
                .wrapping_shr(4)
                .into(),
            DataType::Text => 0.0,
        }
    }
}

/// Four bits of a list that has two to a byte, the lower half first.
pub(super) fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 2] >> (4 * (index % 2)) & 15
}

/// Where the bytes of a tensor are.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// In a file: its number, 0 for the model file itself, and the range.
    At(usize, Range<usize>),
    /// In a typed field of the file, brought into the order of raw bytes.
    Owned(Vec<u8>),
    /// In another file, not looked up yet.
    Elsewhere(Elsewhere),
}

/// What a tensor says about its data file.
#[derive(Clone, Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) location: String,
    pub(super) offset: u64,
    pub(super) length: Option<u64>,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) dims: Vec<usize>,
    pub(super) data: Data,
}

impl Tensor {
    /// Number of elements, which fits `usize` for every tensor that was read.
    pub(super) fn n_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes its elements take; `None` where that is beyond `usize`.
    pub(super) fn n_bytes(&self) -> Option<usize> {
        let n = self
            .dims
            .iter()
            .try_fold(1usize, |n, dim| n.checked_mul(*dim))?;
        Some(n.checked_mul(self.data_type.bits())?.div_ceil(8))
    }

    /// A list of small constants that a node holds itself.
    pub(super) fn of_constants(data_type: DataType, dims: Vec<usize>, data: Vec<u8>) -> Tensor {
        Tensor {
            name: String::new(),
            data_type,
            dims,
            data: Data::Owned(data),
        }
    }

    /// Reads a `TensorProto`. The error is the broken rule.
    pub(super) fn read(bytes: &[u8], message: Range<usize>) -> Result<Tensor, String> {
        let (mut name, mut number) = (String::new(), 0);
        let (mut dims, mut n_dims) = (Vec::new(), 0usize);
        let (mut raw, mut typed, mut elsewhere) = (None, None, None);
        for field in Fields::new(bytes, message) {
            let (field, value) = field?;
            match (field, &value) {
                (1, _) => {
                    for dim in varints(bytes, &value) {
                        let dim = dim?;
                        n_dims += 1;
                        if n_dims <= MAX_RANK {
                            dims.push(dim);
                        }
                    }
                }
                (2, Wire::Varint(value)) => number = *value as i64,
                (8, Wire::Bytes(range)) => name = text(bytes, range)?,
                (9, Wire::Bytes(range)) => raw = Some(range.clone()),
                (4 | 5 | 7 | 10 | 11, _) => {
                    let typed = typed.get_or_insert_with(|| (field, Vec::new()));
                    if typed.0 != field {
                        return Err(format!("tensor {name} has its data in two places"));
                    }
                    append(&mut typed.1, bytes, &value, field, number)?;
                }
                (13, Wire::Bytes(range)) => {
                    let place = elsewhere.get_or_insert_with(Elsewhere::default);
                    place.read(bytes, range.clone())?;
                }
                _ => {}
            }
        }
        let data_type = DataType::from_number(number)
            .ok_or_else(|| format!("tensor {name} has data type {number}, which is not known"))?;
        if n_dims > MAX_RANK {
            return Err(format!(
                "tensor {name} has {n_dims} dimensions, the limit is {MAX_RANK}"
            ));
        }
        let dim = |dim: &i64| {
            usize::try_from(*dim).map_err(|_| format!("tensor {name} has a dimension of {dim}"))
        };
        let dims = dims.iter().map(dim).collect::<Result<_, _>>()?;
        let data = match (elsewhere, raw, typed) {
            (Some(place), _, _) => Data::Elsewhere(place),
            (None, Some(range), _) => Data::At(0, range),
            (None, None, Some((_, data))) => Data::Owned(data),
            (None, None, None) => Data::Owned(Vec::new()),
        };
        Ok(Tensor {
            name,
            data_type,
            dims,
            data,
        })
    }
}

impl Elsewhere {
    /// Takes one entry of the `external_data` list.
    fn read(&mut self, bytes: &[u8], entry: Range<usize>) -> Result<(), String> {
        let (mut key, mut value) = (String::new(), String::new());
        for field in Fields::new(bytes, entry) {
            match field? {
                (1, Wire::Bytes(range)) => key = text(bytes, &range)?,
                (2, Wire::Bytes(range)) => value = text(bytes, &range)?,
                _ => {}
            }
        }
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("external data: {key} is {value:?}, which is no number"))
        };
        match key.as_str() {
            "location" => self.location = value,
            "offset" => self.offset = number()?,
            "length" => self.length = Some(number()?),
            _ => {}
        }
        Ok(())
    }
}

/// A text of the file.
pub(super) fn text(bytes: &[u8], range: &Range<usize>) -> Result<String, String> {
    match std::str::from_utf8(&bytes[range.clone()]) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(format!("the text at byte {}: {error}", range.start)),
    }
}

/// Appends the elements of a typed field in the width they have in raw data.
fn append(
    out: &mut Vec<u8>,
    bytes: &[u8],
    value: &Wire,
    field: u64,
    data_type: i64,
) -> Result<(), String> {
    if matches!(field, 4 | 10) {
        out.extend_from_slice(fixed_bytes(bytes, value)?);
        return Ok(());
    }
    // Whole numbers of every width share a field; 4-bit ones come two to a byte.
    let bits = DataType::from_number(data_type).map_or(64, DataType::bits);
    let width = bits.div_ceil(8).clamp(1, 8);
    if let Wire::Bytes(range) = value {
        // Each number ends with the only byte of it below 128.
        let list = &bytes[range.clone()];
        out.reserve(width * list.iter().filter(|byte| **byte < 128).count());
    }
    for value in varints(bytes, value) {
        out.extend_from_slice(&value?.to_le_bytes()[..width]);
    }
    Ok(())
}

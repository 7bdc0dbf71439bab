//! Single values of a quantised weight: tables, grids of scales, packed integers.

use crate::import::onnx::tensor::{DataType, nibble};

/// The values of NF4, of bitsandbytes.
pub(super) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The values of FP4, of bitsandbytes.
pub(super) const FP4: [f32; 16] = [
    0.0,
    5.208_333_3e-3,
    0.666_666_7,
    1.0,
    0.333_333_34,
    0.5,
    0.166_666_67,
    0.25,
    -0.0,
    -5.208_333_3e-3,
    -0.666_666_7,
    -1.0,
    -0.333_333_34,
    -0.5,
    -0.166_666_67,
    -0.25,
];

/// Which scale belongs to an element of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grid {
    /// One for everything.
    Whole,
    /// One for each of the `len` entries of an axis; neighbours along it are `inner` elements apart.
    Axis { inner: usize, len: usize },
    /// One for each `block` entries of such an axis, all others apart.
    Block {
        inner: usize,
        len: usize,
        block: usize,
    },
}

impl Grid {
    /// Number of the scale of element `index`.
    fn scale(self, index: usize) -> usize {
        match self {
            Grid::Whole => 0,
            Grid::Axis { inner, len } => index / inner % len,
            Grid::Block { inner, len, block } => {
                let (outer, along) = (index / inner / len, index / inner % len);
                (outer * len.div_ceil(block) + along / block) * inner + index % inner
            }
        }
    }

    /// The grid of `n_scales` scales on a tensor; `None` if they do not fit it.
    pub(super) fn new(dims: &[usize], n_scales: usize, axis: i64, block: i64) -> Option<Grid> {
        let block = usize::try_from(block).ok()?;
        if n_scales == 1 && block == 0 {
            return Some(Grid::Whole);
        }
        let rank = dims.len() as i64;
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
        let len = *dims.get(axis)?;
        // Without a 0 among them, every product of theirs is at most the number of elements.
        if dims.contains(&0) {
            return None;
        }
        let inner = dims[axis + 1..].iter().product();
        if block == 0 {
            return (n_scales == len).then_some(Grid::Axis { inner, len });
        }
        let outer: usize = dims[..axis].iter().product();
        let fits = n_scales == outer * len.div_ceil(block) * inner;
        fits.then_some(Grid::Block { inner, len, block })
    }
}

/// Item `index` of a list of `bits` (2, 4 or 8) each, the low bits of a byte first.
pub(super) fn part(bytes: &[u8], bits: usize, index: usize) -> u8 {
    match bits {
        8 => bytes[index],
        4 => nibble(bytes, index),
        _ => bytes[index / 4] >> (2 * (index % 4)) & 3,
    }
}

/// Numbers where they lie, each brought to f32 when it is asked for: a table as long as the
/// vocabulary has many scales, too.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'g> {
    pub(super) kind: DataType,
    pub(super) bytes: &'g [u8],
    pub(super) len: usize,
}

impl Numbers<'_> {
    fn at(&self, index: usize) -> f32 {
        self.kind.element(self.bytes, index) as f32
    }
}

/// Zero points of scales.
#[derive(Clone, Copy)]
pub(super) enum Zeros<'g> {
    /// One for all.
    All(f32),
    /// One for each, or one for all.
    Listed(Numbers<'g>),
    /// One for each, `bits` of a byte, rows of `row` bytes for `blocks` scales each.
    Packed {
        bytes: &'g [u8],
        row: usize,
        blocks: usize,
        bits: usize,
    },
}

impl Zeros<'_> {
    fn at(&self, scale: usize) -> f32 {
        match *self {
            Zeros::All(zero) => zero,
            Zeros::Listed(zeros) if zeros.len == 1 => zeros.at(0),
            Zeros::Listed(zeros) => zeros.at(scale),
            Zeros::Packed {
                bytes,
                row,
                blocks,
                bits,
            } => part(&bytes[scale / blocks * row..], bits, scale % blocks).into(),
        }
    }
}

/// A value as its integer, relative to its zero point, and its scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) integer: f32,
    pub(super) scale: f32,
}

/// Reads single values of a weight.
pub(super) enum Values<'g> {
    Plain(Numbers<'g>),
    Integers {
        values: Numbers<'g>,
        scales: Numbers<'g>,
        zeros: Zeros<'g>,
        grid: Grid,
    },
    Blocks {
        bytes: &'g [u8],
        row_bytes: usize,
        scales: Numbers<'g>,
        zeros: Zeros<'g>,
        bits: usize,
        block: usize,
        columns: usize,
    },
    Bnb4 {
        bytes: &'g [u8],
        scales: Numbers<'g>,
        block: usize,
        table: &'static [f32; 16],
    },
}

impl Values<'_> {
    pub(super) fn at(&self, index: usize) -> f32 {
        match self {
            Values::Plain(values) => values.at(index),
            Values::Integers { .. } | Values::Blocks { .. } => {
                let step = self.step(index);
                step.map_or(0.0, |step| step.integer * step.scale)
            }
            Values::Bnb4 {
                bytes,
                scales,
                block,
                table,
            } => table[usize::from(nibble(bytes, index ^ 1))] * scales.at(index / block),
        }
    }

    /// A value of a scheme of integers with scales; `None` for any other scheme.
    pub(super) fn step(&self, index: usize) -> Option<Step> {
        let (q, scale, zeros, scales) = match self {
            Values::Integers {
                values,
                scales,
                zeros,
                grid,
            } => (values.at(index), grid.scale(index), zeros, scales),
            Values::Blocks {
                bytes,
                row_bytes,
                scales,
                zeros,
                bits,
                block,
                columns,
            } => {
                let (row, column) = (index / columns, index % columns);
                let q = part(&bytes[row * row_bytes..], *bits, column);
                let scale = row * columns.div_ceil(*block) + column / block;
                (f32::from(q), scale, zeros, scales)
            }
            Values::Plain(_) | Values::Bnb4 { .. } => return None,
        };
        Some(Step {
            integer: q - zeros.at(scale),
            scale: scales.at(scale),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::FP4;

    #[test]
    fn fp4_is_a_sign_and_a_number_of_twelfths() {
        let twelfths = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
        for (code, value) in FP4.iter().enumerate() {
            let sign = if code < 8 { 1.0 } else { -1.0 };
            assert_eq!(*value, sign * twelfths[code % 8] / 12.0, "{code}");
        }
    }
}

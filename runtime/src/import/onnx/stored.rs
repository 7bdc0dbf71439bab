//! Weights as a file stores them, and their values as f32.
//!
//! | scheme | in the graph |
//! |---|---|
//! | floats | an initialiser of FLOAT, FLOAT16, BFLOAT16 or DOUBLE |
//! | integers with scales | `DequantizeLinear`, or the weight of `MatMulInteger` and `ConvInteger`: one scale, one for each entry of an axis, or one for a block along an axis |
//! | `MatMulNBits`, `GatherBlockQuantized` | 2, 4 or 8 bits, one scale for a block of a row |
//! | `MatMulBnb4` | FP4 or NF4, one scale for a block of the rows read as one list |

mod values;

use super::error::OnnxError;
use super::graph::{Graph, Node, ValueId};
use super::tensor::{DataType, Tensor};
use ocelli_kernels::int4_panels::BLOCK;
use values::{FP4, Grid, NF4, Numbers, Values, Zeros};

/// How the numbers of a weight are stored.
#[derive(Clone, Debug)]
enum Scheme {
    /// As they are.
    Plain(ValueId),
    /// `(q − zero)·scale`.
    Integers {
        values: ValueId,
        scales: ValueId,
        zeros: Option<ValueId>,
        grid: Grid,
    },
    /// `[rows, blocks, bytes of a block]`, the low bits first.
    Blocks {
        values: ValueId,
        scales: ValueId,
        zeros: Option<ValueId>,
        bits: usize,
        block: usize,
    },
    /// Two to a byte, the upper half first.
    Bnb4 {
        values: ValueId,
        scales: ValueId,
        block: usize,
        nf4: bool,
    },
}

impl Scheme {
    /// Values, scales and zero points.
    fn tensors(&self) -> [Option<ValueId>; 3] {
        match *self {
            Scheme::Plain(values) => [Some(values), None, None],
            Scheme::Integers {
                values,
                scales,
                zeros,
                ..
            }
            | Scheme::Blocks {
                values,
                scales,
                zeros,
                ..
            } => [Some(values), Some(scales), zeros],
            Scheme::Bnb4 { values, scales, .. } => [Some(values), Some(scales), None],
        }
    }

    /// What else there is to know, without the tensors: the grid, bits and block, block and table.
    fn form(&self) -> (Option<Grid>, usize, usize) {
        match *self {
            Scheme::Plain(_) => (None, 0, 0),
            Scheme::Integers { grid, .. } => (Some(grid), 0, 0),
            Scheme::Blocks { bits, block, .. } => (None, bits, block),
            // No number of bits.
            Scheme::Bnb4 { block, nf4, .. } => (None, 100 + usize::from(nf4), block),
        }
    }
}

/// A weight of a graph.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    scheme: Scheme,
    /// The value that holds its numbers, for messages.
    value: ValueId,
    /// Dimensions, after `is_transposed`.
    dims: Vec<usize>,
    /// Whether the bytes hold the transposed matrix.
    is_transposed: bool,
}

impl Stored {
    /// Dimensions.
    pub(super) fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of elements.
    pub(super) fn n_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The value that holds its numbers.
    pub(super) fn value(&self) -> ValueId {
        self.value
    }

    /// The matrix with its axes exchanged.
    pub(super) fn transposed(mut self) -> Stored {
        self.dims.reverse();
        self.is_transposed = !self.is_transposed;
        self
    }

    /// Whether all axes but one have one entry.
    pub(super) fn is_list(&self) -> bool {
        self.dims.iter().filter(|dim| **dim != 1).count() <= 1
    }

    /// The same numbers as one list.
    fn flat(self) -> Stored {
        let n = self.n_elements();
        self.shaped(&[n])
    }

    /// The same numbers in the same order without axes of one entry, as `shape` has them; a
    /// transposed matrix, and one of which `shape` is a part, stay as they are.
    pub(super) fn shaped(mut self, shape: &[usize]) -> Stored {
        let same = shape.iter().product::<usize>() == self.n_elements();
        if same && (!self.is_transposed || self.is_list()) {
            self.is_transposed = false;
            self.dims = shape.to_vec();
        } else if self.is_list() {
            self.dims = vec![self.n_elements()];
        }
        self
    }

    /// What a value holds, if it is a constant or made of one by dequantising, casting,
    /// transposing, or reshaping a list.
    ///
    /// # Errors
    ///
    /// A quantised constant whose scales do not fit it.
    pub(super) fn of(graph: &Graph, value: ValueId) -> Result<Option<Stored>, OnnxError> {
        // Constants are at most a few nodes away.
        Stored::within(graph, value, 8)
    }

    fn within(graph: &Graph, value: ValueId, depth: usize) -> Result<Option<Stored>, OnnxError> {
        if let Some(tensor) = graph.constant(value) {
            let number = tensor.data_type.is_float();
            return Ok(number.then(|| Stored {
                scheme: Scheme::Plain(value),
                value,
                dims: tensor.dims.clone(),
                is_transposed: false,
            }));
        }
        let Some((node, 0)) = graph.producer(value) else {
            return Ok(None);
        };
        let node = &graph.nodes()[node];
        let (Some(input), false) = (node.input(0), depth == 0) else {
            return Ok(None);
        };
        let inner = || Stored::within(graph, input, depth - 1);
        Ok(match node.op.as_str() {
            "Identity" | "Cast" => inner()?,
            "Transpose" => {
                let swaps = node.ints("perm").is_none_or(|perm| perm == [1, 0]);
                let two = |stored: &Stored| stored.dims.len() == 2 && swaps;
                inner()?.filter(two).map(Stored::transposed)
            }
            "Unsqueeze" | "Squeeze" => inner()?,
            "Reshape" | "Flatten" => inner()?.filter(Stored::is_list).map(Stored::flat),
            "DequantizeLinear" => {
                if let Some(before) = rounded(graph, node) {
                    return Stored::within(graph, before, depth - 1);
                }
                let (Some(scales), zeros) = (node.input(1), node.input(2)) else {
                    return Ok(None);
                };
                let axis = node.int("axis").unwrap_or(1);
                let block = node.int("block_size").unwrap_or(0);
                Stored::integers(graph, [input, scales], zeros, axis, block)?
            }
            _ => None,
        })
    }

    /// Integers with scales for entries of `axis`, or for blocks of it. `None` if they are not
    /// constant.
    ///
    /// # Errors
    ///
    /// Scales that do not fit.
    pub(super) fn integers(
        graph: &Graph,
        [values, scales]: [ValueId; 2],
        zeros: Option<ValueId>,
        axis: i64,
        block: i64,
    ) -> Result<Option<Stored>, OnnxError> {
        let (Some(tensor), Some(scale)) = (graph.constant(values), graph.constant(scales)) else {
            return Ok(None);
        };
        if !tensor.data_type.is_quantised() && tensor.data_type != DataType::I32 {
            return Ok(None);
        }
        let n_scales = scale.n_elements();
        let grid = Grid::new(&tensor.dims, n_scales, axis, block);
        let zeros = zeros.filter(|zeros| graph.constant(*zeros).is_some());
        let zeros_fit = zeros
            .and_then(|zeros| graph.constant(zeros))
            .is_none_or(|zeros| zeros.n_elements() == n_scales || zeros.n_elements() == 1);
        let (Some(grid), true) = (grid, zeros_fit) else {
            return Err(graph.unrecognised(
                scales,
                format!(
                    "one scale (and zero point) for the tensor of shape {:?}, for each entry of axis {axis}, \
                     or for each block of {block} along it", tensor.dims
                ),
            ));
        };
        Ok(Some(Stored {
            scheme: Scheme::Integers {
                values,
                scales,
                zeros,
                grid,
            },
            value: values,
            dims: tensor.dims.clone(),
            is_transposed: false,
        }))
    }

    /// The weight `[n, k]` of a `MatMulNBits` node.
    ///
    /// # Errors
    ///
    /// Attributes or inputs this program does not know, sizes that do not fit.
    pub(super) fn n_bits(graph: &Graph, node: &Node, out: ValueId) -> Result<Stored, OnnxError> {
        let wanted = "MatMulNBits with constant weights of 2, 4 or 8 bits in blocks of a power of two from 16, without g_idx";
        let size = |name: &str| node.int(name).and_then(|value| usize::try_from(value).ok());
        let (Some(n), Some(k), Some(block)) = (size("N"), size("K"), size("block_size")) else {
            return Err(graph.unrecognised(out, wanted));
        };
        let bits = size("bits").unwrap_or(4);
        let sound = matches!(bits, 2 | 4 | 8) && block >= 16 && block.is_power_of_two();
        let has_order = node.input(4).is_some();
        let (Some(values), Some(scales), true, false) =
            (node.input(1), node.input(2), sound, has_order)
        else {
            return Err(graph.unrecognised(out, wanted));
        };
        let blocks = k.div_ceil(block);
        Stored::blocks(
            graph,
            out,
            [values, scales],
            node.input(3),
            [n, k, bits, block],
            blocks,
        )
    }

    /// The table `[n, k]` of a `GatherBlockQuantized` node.
    ///
    /// # Errors
    ///
    /// Attributes or inputs this program does not know, sizes that do not fit.
    pub(super) fn gather_blocks(
        graph: &Graph,
        node: &Node,
        out: ValueId,
    ) -> Result<Stored, OnnxError> {
        let wanted = "GatherBlockQuantized of a constant matrix, quantised along its last axis, gathered along its first";
        let (Some(values), Some(scales)) = (node.input(0), node.input(2)) else {
            return Err(graph.unrecognised(out, wanted));
        };
        let bits = node.int("bits").unwrap_or(4);
        let block = node.int("block_size").unwrap_or(128);
        let last = matches!(node.int("quantize_axis").unwrap_or(1), 1 | -1);
        let first = node.int("gather_axis").unwrap_or(0) == 0;
        let tensor = graph.constant(values).filter(|t| t.dims.len() == 2);
        let (Some(tensor), true, true, true) = (tensor, last, first, block >= 16) else {
            return Err(graph.unrecognised(out, wanted));
        };
        match (tensor.data_type, bits) {
            // Bytes that hold several values each, as in MatMulNBits.
            (DataType::U8, 2 | 4 | 8) => {
                let (bits, block) = (bits as usize, block as usize);
                let k = tensor.dims[1].saturating_mul(8 / bits);
                let (n, blocks) = (tensor.dims[0], k.div_ceil(block));
                let sizes = [n, k, bits, block];
                Stored::blocks(graph, out, [values, scales], node.input(3), sizes, blocks)
            }
            (DataType::U4 | DataType::I4, 4) => {
                let found = Stored::integers(graph, [values, scales], node.input(3), 1, block)?;
                found.ok_or_else(|| graph.unrecognised(out, wanted))
            }
            _ => Err(graph.unrecognised(out, wanted)),
        }
    }

    fn blocks(
        graph: &Graph,
        out: ValueId,
        [values, scales]: [ValueId; 2],
        zeros: Option<ValueId>,
        [n, k, bits, block]: [usize; 4],
        blocks: usize,
    ) -> Result<Stored, OnnxError> {
        let n_blocks = n.checked_mul(blocks);
        let padded = blocks.checked_mul(block);
        let row_bytes = padded
            .and_then(|k| k.checked_mul(bits))
            .map(|bits| bits / 8);
        // Tables of GatherBlockQuantized end a row where it ends, not at a whole block.
        let row_bytes = match graph.constant(values) {
            Some(tensor) if tensor.dims.len() == 2 && n > 0 && tensor.dims[0] == n => {
                Some(tensor.dims[1]).filter(|bytes| *bytes >= k.saturating_mul(bits).div_ceil(8))
            }
            _ => row_bytes,
        };
        let n_bytes = row_bytes.and_then(|bytes| bytes.checked_mul(n));
        let fits = |value: ValueId, wanted: &[Option<usize>]| {
            let found = graph.constant(value).map(Tensor::n_elements);
            found.is_some() && wanted.contains(&found)
        };
        let bytes = graph
            .constant(values)
            .is_some_and(|tensor| matches!(tensor.data_type, DataType::U8 | DataType::I8));
        let packed_zeros = (blocks * bits).div_ceil(8).checked_mul(n);
        let zeros_fit = zeros.is_none_or(|zeros| match graph.constant(zeros) {
            Some(tensor) if tensor.data_type == DataType::U8 => fits(zeros, &[packed_zeros]),
            Some(tensor) if tensor.data_type.is_float() => fits(zeros, &[n_blocks]),
            _ => false,
        });
        let whole = k > 0 && n > 0 && n.checked_mul(k).is_some();
        if !(whole && bytes && fits(values, &[n_bytes]) && fits(scales, &[n_blocks]) && zeros_fit) {
            return Err(graph.unrecognised(
                out,
                format!(
                    "constants for a {bits}-bit matrix of {n} rows and {k} columns in blocks of {block}: \
                     UINT8 values, {blocks} scales a row, zero points packed alike or as floats"
                ),
            ));
        }
        Ok(Stored {
            scheme: Scheme::Blocks {
                values,
                scales,
                zeros,
                bits,
                block,
            },
            value: values,
            dims: vec![n, k],
            is_transposed: false,
        })
    }

    /// The weight `[n, k]` of a `MatMulBnb4` node.
    ///
    /// # Errors
    ///
    /// Attributes or inputs this program does not know, sizes that do not fit.
    pub(super) fn bnb4(graph: &Graph, node: &Node, out: ValueId) -> Result<Stored, OnnxError> {
        let size = |name: &str| node.int(name).and_then(|value| usize::try_from(value).ok());
        let sizes = (size("N"), size("K"), size("block_size"));
        let kind = node.int("quant_type");
        let straight = node.int("transB").unwrap_or(1) == 1;
        if let (
            (Some(n), Some(k), Some(block @ 16..)),
            (Some(values), Some(scales)),
            Some(kind @ 0..=1),
            true,
        ) = (sizes, (node.input(1), node.input(2)), kind, straight)
        {
            let n_elements = n.checked_mul(k);
            let count = |value| graph.constant(value).map(Tensor::n_elements);
            let typed = |value, wanted: fn(DataType) -> bool| {
                graph.constant(value).is_some_and(|t| wanted(t.data_type))
            };
            if n_elements.is_some_and(|n| n > 0)
                && typed(values, |t| t == DataType::U8)
                && typed(scales, DataType::is_float)
                && count(values) == n_elements.map(|n| n.div_ceil(2))
                && count(scales) == n_elements.map(|n| n.div_ceil(block))
            {
                return Ok(Stored {
                    scheme: Scheme::Bnb4 {
                        values,
                        scales,
                        block,
                        nf4: kind == 1,
                    },
                    value: values,
                    dims: vec![n, k],
                    is_transposed: false,
                });
            }
        }
        Err(graph.unrecognised(
            out,
            "MatMulBnb4 with transB and constant FP4 or NF4 weights, half a byte each, and a float scale for each block",
        ))
    }

    /// The largest distance between two neighbours among the values that integers with scales can
    /// have; 0 of floats.
    pub(super) fn coarsest_step(&self, graph: &Graph) -> f64 {
        let scales = self.scheme.tensors()[1].and_then(|scales| graph.constant(scales));
        scales.map_or(0.0, |scales| {
            let at = |index| scales.data_type.element(graph.bytes(scales), index).abs();
            (0..scales.n_elements()).map(at).fold(0.0, f64::max)
        })
    }

    /// A reader of single values, by row-major index of the dimensions as they are in the file.
    fn values<'g>(&self, graph: &'g Graph) -> Values<'g> {
        let numbers = |value: ValueId| {
            let tensor = graph.constant(value);
            Numbers {
                kind: tensor.map_or(DataType::U8, |tensor| tensor.data_type),
                bytes: tensor.map_or(&[], |tensor| graph.bytes(tensor)),
                len: tensor.map_or(0, Tensor::n_elements),
            }
        };
        match self.scheme {
            Scheme::Plain(value) => Values::Plain(numbers(value)),
            Scheme::Integers {
                values,
                scales,
                zeros,
                grid,
            } => Values::Integers {
                values: numbers(values),
                scales: numbers(scales),
                zeros: zeros.map_or(Zeros::All(0.0), |zeros| Zeros::Listed(numbers(zeros))),
                grid,
            },
            Scheme::Blocks {
                values,
                scales,
                zeros,
                bits,
                block,
            } => {
                let [n, k] = self.file_dims();
                let (blocks, bytes) = (k.div_ceil(block), numbers(values).bytes);
                let zeros = match zeros.map(numbers) {
                    None => Zeros::All(f32::from(1u8 << (bits - 1))),
                    Some(zeros) if zeros.kind.is_float() => Zeros::Listed(zeros),
                    Some(zeros) => Zeros::Packed {
                        bytes: zeros.bytes,
                        row: (blocks * bits).div_ceil(8),
                        blocks,
                        bits,
                    },
                };
                Values::Blocks {
                    row_bytes: bytes.len() / n.max(1),
                    bytes,
                    scales: numbers(scales),
                    zeros,
                    bits,
                    block,
                    columns: k,
                }
            }
            Scheme::Bnb4 {
                values,
                scales,
                block,
                nf4,
            } => Values::Bnb4 {
                bytes: numbers(values).bytes,
                scales: numbers(scales),
                block,
                table: if nf4 { &NF4 } else { &FP4 },
            },
        }
    }

    /// Whether another weight, of another graph, is these numbers stored alike.
    pub(super) fn is_same(&self, graph: &Graph, other: &Stored, others: &Graph) -> bool {
        let same = |a: ValueId, b: ValueId| match (graph.constant(a), others.constant(b)) {
            (Some(a), Some(b)) => {
                let (mine, theirs) = (graph.bytes(a), others.bytes(b));
                // Bytes at the same place need not be read.
                let equal = std::ptr::eq(mine, theirs) || mine == theirs;
                a.data_type == b.data_type && a.dims == b.dims && equal
            }
            _ => false,
        };
        let mut pairs = self
            .scheme
            .tensors()
            .into_iter()
            .zip(other.scheme.tensors());
        let tensors = pairs.all(|pair| match pair {
            (Some(a), Some(b)) => same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        });
        let shape = |stored: &Stored| (stored.dims.clone(), stored.is_transposed);
        tensors && self.scheme.form() == other.scheme.form() && shape(self) == shape(other)
    }

    /// Rows and columns as they lie in the file; a list is one row.
    fn file_dims(&self) -> [usize; 2] {
        let columns = *self.dims.last().unwrap_or(&1);
        let rows = self.dims[..self.dims.len().saturating_sub(1)]
            .iter()
            .product();
        match self.is_transposed {
            true => [columns, rows],
            false => [rows, columns],
        }
    }

    /// The rows of the matrix in the order of `rows` as int4 values and a scale for every 32 of a
    /// row; `None` if its numbers are no such.
    pub(super) fn int4_rows(
        &self,
        graph: &Graph,
        rows: impl Iterator<Item = usize>,
    ) -> Option<(Vec<i8>, Vec<f32>)> {
        let [n_rows, width] = *self.dims.as_slice() else {
            return None;
        };
        if !width.is_multiple_of(BLOCK) {
            return None;
        }
        let (row_step, column_step) = if self.is_transposed {
            (1, n_rows)
        } else {
            (width, 1)
        };
        let values = self.values(graph);
        let (mut integers, mut scales) = (Vec::new(), Vec::new());
        for row in rows {
            for column in 0..width {
                let step = values.step(row * row_step + column * column_step)?;
                if column % BLOCK == 0 {
                    scales.push(step.scale);
                }
                let is_int4 = step.integer.fract() == 0.0 && (-8.0..=7.0).contains(&step.integer);
                if !is_int4 || scales.last() != Some(&step.scale) {
                    return None;
                }
                integers.push(step.integer as i8);
            }
        }
        Some((integers, scales))
    }

    /// The rows of the weight in the order of `rows`, each as f32. A list is one row; dimensions
    /// behind the first count as columns of a row.
    pub(super) fn read(&self, graph: &Graph, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        let n_rows = *self.dims.first().unwrap_or(&1);
        let width = self.n_elements() / n_rows.max(1);
        let values = self.values(graph);
        let mut out = Vec::with_capacity(rows.size_hint().0 * width);
        for row in rows {
            if self.is_transposed {
                out.extend((0..width).map(|column| values.at(column * n_rows + row)));
            } else {
                out.extend((row * width..(row + 1) * width).map(|index| values.at(index)));
            }
        }
        out
    }
}

/// What a `DequantizeLinear` node takes back from the `QuantizeLinear` in front: values that are
/// rounded to a scale of the file's own.
pub(super) fn rounded(graph: &Graph, node: &Node) -> Option<ValueId> {
    let integers = node.input(0).filter(|_| node.op == "DequantizeLinear")?;
    let (in_front, _) = graph.producer(integers)?;
    let in_front = &graph.nodes()[in_front];
    in_front
        .input(0)
        .filter(|_| in_front.op == "QuantizeLinear")
}

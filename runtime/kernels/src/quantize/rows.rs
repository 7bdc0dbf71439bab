//! [`Int8Rows`], its writable twin and its owner: shapes are checked here and trusted afterwards.

use std::fmt;

use super::for_each_row_range;
use crate::compute::Compute;
use crate::panels::{K_ALIGN, MAX_K, k_padded};
use crate::threads::SyncPtr;

/// Scales per row: 1 if `group` is 0 (one scale for the whole row), else `k / group`.
pub const fn n_groups(k: usize, group: usize) -> usize {
    match k.checked_div(group) {
        Some(groups) => groups,
        None => 1,
    }
}

/// Why lengths do not make rows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowsError {
    /// `group` is neither 0 nor a multiple of 16 that divides `k`.
    Group {
        /// The group given.
        group: usize,
        /// The row length given.
        k: usize,
    },
    /// `k` exceeds [`MAX_K`].
    TooWide {
        /// The row length given.
        k: usize,
    },
    /// The data is not `[m, k_padded]`.
    Data {
        /// Values given.
        got: usize,
        /// Values the shape needs.
        expected: usize,
    },
    /// The scales are not `[m, n_groups]`.
    Scales {
        /// Scales given.
        got: usize,
        /// Scales the shape needs.
        expected: usize,
    },
}

impl fmt::Display for RowsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowsError::Group { group, k } => {
                write!(
                    f,
                    "group {group} is not 0 or a multiple of {K_ALIGN} that divides k = {k}"
                )
            }
            RowsError::TooWide { k } => write!(f, "k = {k} exceeds {MAX_K}"),
            RowsError::Data { got, expected } => {
                write!(f, "{got} int8 values where the shape needs {expected}")
            }
            RowsError::Scales { got, expected } => {
                write!(f, "{got} scales where the shape needs {expected}")
            }
        }
    }
}

impl std::error::Error for RowsError {}

fn check(
    data_len: usize,
    n_scales: usize,
    m: usize,
    k: usize,
    group: usize,
) -> Result<(), RowsError> {
    if k > MAX_K {
        return Err(RowsError::TooWide { k });
    }
    if group != 0 && (!group.is_multiple_of(K_ALIGN) || !k.is_multiple_of(group)) {
        return Err(RowsError::Group { group, k });
    }
    let expected = m * k_padded(k);
    if data_len != expected {
        return Err(RowsError::Data {
            got: data_len,
            expected,
        });
    }
    let expected = m * n_groups(k, group);
    if n_scales != expected {
        return Err(RowsError::Scales {
            got: n_scales,
            expected,
        });
    }
    Ok(())
}

/// Int8 rows `[m, k]`, each padded with zeros to `k_padded`, with one scale per row or group.
///
/// Values may be anything in -128..=127.
#[derive(Clone, Copy)]
pub struct Int8Rows<'a> {
    data: &'a [i8],
    scales: &'a [f32],
    m: usize,
    k: usize,
    group: usize,
}

impl<'a> Int8Rows<'a> {
    /// Views `data` `[m, k_padded]` and `scales` `[m, n_groups]` as rows. `group` is 0 for one
    /// scale per row, else a multiple of 16 that divides `k`.
    ///
    /// # Errors
    ///
    /// Fails if a length or the group does not fit.
    pub fn new(
        data: &'a [i8],
        scales: &'a [f32],
        m: usize,
        k: usize,
        group: usize,
    ) -> Result<Self, RowsError> {
        check(data.len(), scales.len(), m, k, group)?;
        Ok(Int8Rows {
            data,
            scales,
            m,
            k,
            group,
        })
    }

    /// The values, `[m, k_padded]`.
    pub fn data(&self) -> &'a [i8] {
        self.data
    }

    /// The scales, `[m, n_groups]`.
    pub fn scales(&self) -> &'a [f32] {
        self.scales
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Values per row, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Values per scale, 0 for the whole row.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Scales per row.
    pub fn n_groups(&self) -> usize {
        n_groups(self.k, self.group)
    }

    /// Values per scale in the padded row.
    pub(crate) fn group_len(&self) -> usize {
        if self.group == 0 {
            k_padded(self.k)
        } else {
            self.group
        }
    }

    /// Rows `first..first + m`.
    ///
    /// # Panics
    ///
    /// Panics if a row is out of range.
    pub fn row_range(&self, first: usize, m: usize) -> Int8Rows<'a> {
        let (width, n_groups) = (k_padded(self.k), self.n_groups());
        Int8Rows {
            data: &self.data[first * width..][..m * width],
            scales: &self.scales[first * n_groups..][..m * n_groups],
            m,
            ..*self
        }
    }

    /// Writes `q * scale` of every value, `out` `[m, k]`.
    ///
    /// # Panics
    ///
    /// Panics if `out` has another length.
    pub fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.m * self.k, "out must be [m, k]");
        let group_len = self.group_len();
        for (i, value) in out.iter_mut().enumerate() {
            let (row, col) = (i / self.k, i % self.k);
            let scale = self.scales[row * self.n_groups() + col / group_len];
            *value = f32::from(self.data[row * k_padded(self.k) + col]) * scale;
        }
    }
}

impl fmt::Debug for Int8Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Int8Rows[{}, {}] group {}", self.m, self.k, self.group)
    }
}

/// What [`Int8RowsMut::for_each_row`] calls: row, values, scales.
type RowFn<'a> = dyn Fn(usize, &mut [i8], &mut [f32]) + Sync + 'a;

/// [`Int8Rows`] to be written.
pub struct Int8RowsMut<'a> {
    data: &'a mut [i8],
    scales: &'a mut [f32],
    m: usize,
    k: usize,
    group: usize,
}

impl<'a> Int8RowsMut<'a> {
    /// Views `data` and `scales` as rows to be written; shapes as in [`Int8Rows::new`].
    ///
    /// # Errors
    ///
    /// Fails if a length or the group does not fit.
    pub fn new(
        data: &'a mut [i8],
        scales: &'a mut [f32],
        m: usize,
        k: usize,
        group: usize,
    ) -> Result<Self, RowsError> {
        check(data.len(), scales.len(), m, k, group)?;
        Ok(Int8RowsMut {
            data,
            scales,
            m,
            k,
            group,
        })
    }

    /// The rows as written so far.
    pub fn as_rows(&self) -> Int8Rows<'_> {
        Int8Rows {
            data: self.data,
            scales: self.scales,
            m: self.m,
            k: self.k,
            group: self.group,
        }
    }

    /// The values, `[m, k_padded]`; padding must stay zero.
    pub fn data_mut(&mut self) -> &mut [i8] {
        self.data
    }

    /// The scales, `[m, n_groups]`.
    pub fn scales_mut(&mut self) -> &mut [f32] {
        self.scales
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Values per row, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Values per scale, 0 for the whole row.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Calls `f(row, values, scales)` for every row, in parallel. `values` has `k_padded` entries,
    /// the padding already zero.
    pub(crate) fn for_each_row(self, compute: &Compute, f: &RowFn<'_>) {
        let (m, k, width, n_groups) = (
            self.m,
            self.k,
            k_padded(self.k),
            n_groups(self.k, self.group),
        );
        let (data, scales) = (
            SyncPtr::new(self.data.as_mut_ptr()),
            SyncPtr::new(self.scales.as_mut_ptr()),
        );
        for_each_row_range(compute, m, k, &|rows| {
            for row in rows {
                // SAFETY: each row comes once; the constructor checked the lengths.
                let (values, scales) = unsafe {
                    (
                        data.slice_mut(row * width, width),
                        scales.slice_mut(row * n_groups, n_groups),
                    )
                };
                values[k..].fill(0);
                f(row, values, scales);
            }
        });
    }
}

/// Owner of [`Int8Rows`] that keeps its memory from one use to the next.
#[derive(Clone, Debug, Default)]
pub struct Int8RowsBuf {
    data: Vec<i8>,
    scales: Vec<f32>,
    m: usize,
    k: usize,
    group: usize,
}

impl Int8RowsBuf {
    /// Makes an empty buffer, `[0, 0]`.
    pub fn new() -> Int8RowsBuf {
        Int8RowsBuf::default()
    }

    /// Gives the buffer a shape and returns it for writing; the contents are unspecified.
    ///
    /// # Panics
    ///
    /// Panics if `k` and `group` are not those of [`Int8Rows::new`].
    pub fn reshape(&mut self, m: usize, k: usize, group: usize) -> Int8RowsMut<'_> {
        self.data.resize(m * k_padded(k), 0);
        self.scales.resize(m * n_groups(k, group), 0.0);
        (self.m, self.k, self.group) = (m, k, group);
        Int8RowsMut::new(&mut self.data, &mut self.scales, m, k, group)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The rows.
    pub fn rows(&self) -> Int8Rows<'_> {
        Int8Rows {
            data: &self.data,
            scales: &self.scales,
            m: self.m,
            k: self.k,
            group: self.group,
        }
    }
}

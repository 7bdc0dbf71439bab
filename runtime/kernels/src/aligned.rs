//! [`AlignedBytes`]: memory on 64-byte boundaries, for packed weights and scratch.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; LINE_BYTES]);

pub(crate) const LINE_BYTES: usize = 64;

impl Line {
    pub(crate) const ZERO: Line = Line([0; LINE_BYTES]);
}

/// A byte buffer that starts on a 64-byte boundary, as [`crate::Panels`] needs.
///
/// ```
/// let bytes = ocelli_kernels::AlignedBytes::copy_of(&[1, 2, 3]);
/// assert_eq!(&bytes[..], [1, 2, 3]);
/// assert_eq!(bytes.as_ptr().addr() % 64, 0);
/// ```
#[derive(Clone)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// Makes a buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> AlignedBytes {
        AlignedBytes {
            lines: vec![Line::ZERO; len.div_ceil(LINE_BYTES)],
            len,
        }
    }

    /// Copies `bytes` into a new buffer.
    pub fn copy_of(bytes: &[u8]) -> AlignedBytes {
        let mut copy = AlignedBytes::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &as_bytes(&self.lines)[..self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut words_mut::<u8>(&mut self.lines)[..self.len]
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

/// Plain numbers any bit pattern of which is a value: lines may be read as these.
///
/// # Safety
///
/// Implementors have no invalid bit patterns, no padding, and a size that divides 64.
pub(crate) unsafe trait Word: Copy {}
// SAFETY: every bit pattern is a value, the size divides 64.
unsafe impl Word for u8 {}
// SAFETY: as above.
unsafe impl Word for i8 {}
// SAFETY: as above.
unsafe impl Word for i32 {}
// SAFETY: as above.
unsafe impl Word for f32 {}

/// The lines as bytes.
fn as_bytes(lines: &[Line]) -> &[u8] {
    words(lines)
}

/// The lines as numbers of type `T`.
pub(crate) fn words<T: Word>(lines: &[Line]) -> &[T] {
    let len = size_of_val(lines) / size_of::<T>();
    // SAFETY: `Line` is 64 initialised bytes without padding, aligned for any `Word`, and `Word`
    // promises that every bit pattern is a value.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), len) }
}

/// The lines as numbers of type `T`, for writing.
pub(crate) fn words_mut<T: Word>(lines: &mut [Line]) -> &mut [T] {
    let len = size_of_val(lines) / size_of::<T>();
    // SAFETY: as in `words`; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) }
}

/// Number of lines that hold `len` values of `T`.
pub(crate) const fn lines_for<T>(len: usize) -> usize {
    (len * size_of::<T>()).div_ceil(LINE_BYTES)
}

/// Bytes of all buffers.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes of scratch that all threads of this process hold for the functions of this crate. A
/// thread's scratch grows to its largest request and stays until the thread ends.
pub fn scratch_bytes() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// A buffer that is counted.
struct Buffer(Vec<Line>);

impl Buffer {
    fn new(n_lines: usize) -> Buffer {
        HELD.fetch_add(n_lines * LINE_BYTES, Ordering::Relaxed);
        Buffer(vec![Line::ZERO; n_lines])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        HELD.fetch_sub(size_of_val(&self.0[..]), Ordering::Relaxed);
    }
}

thread_local! {
    /// Buffers not in use, the outermost caller's last.
    static SCRATCH: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Lends `f` at least `n_lines` lines of this thread's scratch, contents unspecified.
///
/// The memory stays with the thread for the next call. A nested call gets memory of its own, the
/// same each time, so that nothing is allocated once every depth has seen its largest request.
pub(crate) fn with_scratch<R>(n_lines: usize, f: impl FnOnce(&mut [Line]) -> R) -> R {
    let known = SCRATCH.with_borrow_mut(Vec::pop);
    // Grown by replacement: the old contents need not be copied.
    let known = known.filter(|buffer| buffer.0.len() >= n_lines);
    let mut buffer = known.unwrap_or_else(|| Buffer::new(n_lines));
    let result = f(&mut buffer.0[..n_lines]);
    SCRATCH.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

/// Cuts the first `len` values of type `T` from scratch, on a line of their own.
pub(crate) fn take_words<'a, T: Word>(rest: &mut &'a mut [Line], len: usize) -> &'a mut [T] {
    let (lines, after) = std::mem::take(rest).split_at_mut(lines_for::<T>(len));
    *rest = after;
    &mut words_mut(lines)[..len]
}

/// [`with_scratch`] for `len` f32 values.
pub(crate) fn with_f32_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with_scratch(lines_for::<f32>(len), |lines| {
        f(&mut words_mut(lines)[..len])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_depth_of_scratch_keeps_its_memory() {
        let addresses = || {
            with_scratch(9, |outer| {
                let inner = with_scratch(3, |inner| inner.as_ptr());
                (outer.as_ptr(), inner)
            })
        };
        let first = addresses();
        assert_ne!(first.0, first.1);
        assert_eq!(addresses(), first);
        assert_eq!(with_scratch(9, |outer| outer.as_ptr()), first.0);
    }

    #[test]
    fn scratch_is_counted_while_a_thread_holds_it() {
        const BYTES: usize = 64 << 20;
        let held = || {
            with_scratch(BYTES / LINE_BYTES, |_| ());
            scratch_bytes()
        };
        // Other tests hold some too, never so much.
        let during = std::thread::spawn(held).join().unwrap();
        assert!((BYTES..2 * BYTES).contains(&during), "{during}");
        assert!(scratch_bytes() < BYTES);
    }

    #[test]
    fn words_are_taken_line_by_line() {
        with_scratch(4, |lines| {
            let mut rest = &mut *lines;
            let bytes = take_words::<i8>(&mut rest, 65).as_ptr().addr();
            let floats = take_words::<f32>(&mut rest, 16).as_ptr().addr();
            assert_eq!((floats - bytes, rest.len()), (128, 1));
        });
    }
}

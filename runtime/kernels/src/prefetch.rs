//! Asking for memory some time before it is wanted: weights come from far away, in an order that is
//! known.

/// Bytes that one request brings, on most cores.
pub(crate) const LINE: usize = 64;

/// How far ahead of itself a kernel asks for a stream of weights, in bytes.
const STREAM_AHEAD: usize = if cfg!(target_arch = "x86_64") {
    6144
} else {
    512
};

/// Bytes that will be wanted after some tiles, in equal shares for the tiles to ask for.
pub(crate) struct Ahead<'a> {
    bytes: &'a [u8],
    share: usize,
}

impl<'a> Ahead<'a> {
    /// `bytes` in `n` shares.
    pub(crate) fn new(bytes: &'a [u8], n: usize) -> Ahead<'a> {
        let share = bytes.len().div_ceil(n.max(1)).next_multiple_of(LINE);
        Ahead { bytes, share }
    }

    /// Share `i`.
    pub(crate) fn share(&self, i: usize) -> &'a [u8] {
        let place = |i: usize| (i * self.share).min(self.bytes.len());
        &self.bytes[place(i)..place(i + 1)]
    }
}

/// Asks for all lines of `bytes`, into the second cache level.
pub(crate) fn prefetch(bytes: &[u8]) {
    let lines = bytes.len().div_ceil(LINE);
    let start = bytes.as_ptr();
    // Four at a time with one address; the last may lie behind the end, where nothing happens.
    for four in 0..lines.div_ceil(4) {
        prefetch_four(start.wrapping_add(4 * LINE * four));
    }
}

/// Asks for the line at an address, which need not be readable.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch_line(at: *const u8) {
    // SAFETY: part of every x86-64, and no access.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
}

/// Asks for the 128 bytes that a stream of weights read once comes to some time after `at`: the
/// prefetchers stop at every page, start late on small cores and bring too little ahead on large
/// ones. The address may be past the end; a prefetch never faults.
#[inline(always)]
pub(crate) fn prefetch_stream(at: *const u8) {
    let first = at.wrapping_add(STREAM_AHEAD);
    #[cfg(target_arch = "x86_64")]
    {
        prefetch_line(first);
        prefetch_line(first.wrapping_add(LINE));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: hints, no access.
    unsafe {
        std::arch::asm!(
            "prfm pldl1strm, [{first}]",
            "prfm pldl1strm, [{first}, #64]",
            first = in(reg) first,
            options(readonly, nostack, preserves_flags),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = first;
}

/// Asks for the lines of `rows` rows of `len` values, `stride` apart, to be written: they come from
/// far away while the values are computed.
#[inline(always)]
pub(crate) fn prefetch_rows_to_write(rows: usize, len: usize, at: *mut f32, stride: usize) {
    #[cfg(target_arch = "x86_64")]
    for row in 0..rows {
        for column in (0..len).step_by(LINE / size_of::<f32>()) {
            let at = at.wrapping_add(row * stride + column);
            // SAFETY: no access; a processor that does not know the instruction skips it.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags));
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (rows, len, at, stride);
}

#[inline(always)]
fn prefetch_four(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    for i in 0..4 {
        prefetch_line(at.wrapping_add(i * LINE));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: hints, no access.
    unsafe {
        std::arch::asm!(
            "prfm pldl2keep, [{at}]",
            "prfm pldl2keep, [{at}, #64]",
            "prfm pldl2keep, [{at}, #128]",
            "prfm pldl2keep, [{at}, #192]",
            at = in(reg) at,
            options(nostack, readonly, preserves_flags),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_bytes_once() {
        let bytes: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
        for len in [0, 1, 64, 65, 999, 1000] {
            for n in [1, 2, 7, 16, 40] {
                let ahead = Ahead::new(&bytes[..len], n);
                let shares: Vec<u8> = (0..n).flat_map(|i| ahead.share(i).to_vec()).collect();
                assert_eq!(shares, &bytes[..len], "{len} in {n}");
            }
        }
    }
}

//! The machine's own limits, measured in the same run as the figures that stand beside them.

use crate::fault::Fault;
use ocelli_kernels::Compute;
use ocelli_kernels::limits::{self, DotProduct};
use ocelli_runtime::{LoadError, memory};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// The read buffer is this many times the last cache.
const CACHES: u64 = 8;
/// Smallest and largest read buffer in bytes.
const BUFFER: (u64, u64) = (64 << 20, 1 << 30);
/// Measurements of each limit; the best counts, for a limit is what can be reached.
const RUNS: usize = 9;
/// A measurement of the arithmetic lasts at least this long.
const BURST: Duration = Duration::from_millis(40);

/// What this machine can do at most, with the threads of the measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Reading memory.
    pub(super) read_bytes_per_second: f64,
    /// int8 products in registers; a multiply-accumulate is two operations.
    pub(super) int8_ops_per_second: f64,
    /// The instructions of the latter.
    pub(super) instruction: &'static str,
    /// What was read.
    pub(super) buffer_bytes: u64,
}

/// Measures both limits.
pub(super) fn measure(n_threads: usize) -> Result<Limits, Fault> {
    let compute = Compute::new(n_threads).map_err(LoadError::from)?;
    let buffer_bytes = buffer_bytes(last_cache_bytes(), memory::available_bytes());
    let mut buffer: Vec<u64> = Vec::new();
    let reserved = usize::try_from(buffer_bytes / 8).map(|len| buffer.try_reserve_exact(len));
    if !matches!(reserved, Ok(Ok(()))) {
        return Err(Fault::Measurement(format!(
            "{buffer_bytes} bytes of memory to read cannot be had; raise the limit of the address space (ulimit -v)"
        )));
    }
    // Written, because pages of zeros that nobody wrote are one and the same page.
    buffer.extend(1..=buffer_bytes / 8);
    let read = best_rate(|| {
        black_box(limits::read_all(&compute, &buffer));
        buffer_bytes
    });
    drop(buffer);
    let product = DotProduct::of_this_cpu();
    let mut steps = 1 << 12;
    let ops = loop {
        let start = Instant::now();
        product.run(&compute, steps);
        if start.elapsed() >= BURST {
            break best_rate(|| product.run(&compute, steps));
        }
        steps *= 2;
    };
    Ok(Limits {
        read_bytes_per_second: read,
        int8_ops_per_second: ops,
        instruction: product.name(),
        buffer_bytes,
    })
}

/// Best of several runs of something that returns how much it did.
fn best_rate(mut run: impl FnMut() -> u64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = run() as f64;
        amount / start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(rate).fold(0.0, f64::max)
}

/// A buffer the last cache cannot hold, and no more than a quarter of free memory.
fn buffer_bytes(last_cache: Option<u64>, available: Option<u64>) -> u64 {
    let wanted = last_cache.map_or(BUFFER.0, |cache| cache.saturating_mul(CACHES));
    let wanted = wanted.clamp(BUFFER.0, BUFFER.1);
    available
        .map_or(wanted, |free| wanted.min(free / 4))
        .max(1 << 20)
        / 8
        * 8
}

/// Size of the largest cache of the first core, as the kernel tells it.
fn last_cache_bytes() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let size = |path: &Path| kilobytes(&fs::read_to_string(path).ok()?);
    caches
        .filter_map(|cache| size(&cache.ok()?.path().join("size")))
        .max()
}

/// `32768K` or `32768` in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    let digits = text.trim().trim_end_matches('K');
    digits.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_buffer_exceeds_the_last_cache_and_spares_free_memory() {
        let (mb, gb) = (1 << 20, 1 << 30);
        for (cache, free, expected) in [
            (None, None, 64 * mb),
            (Some(2 * mb), Some(8 * gb), 64 * mb),
            (Some(32 * mb), Some(8 * gb), 256 * mb),
            (Some(512 * mb), Some(64 * gb), gb),
            (Some(mb), Some(160 * mb), 40 * mb),
            (Some(u64::MAX), None, gb),
            (None, Some(0), mb),
        ] {
            assert_eq!(buffer_bytes(cache, free), expected, "{cache:?} {free:?}");
        }
    }

    #[test]
    fn cache_sizes_are_read_as_the_kernel_writes_them() {
        assert_eq!(kilobytes("32768K\n"), Some(32 << 20));
        assert_eq!(kilobytes("48"), Some(48 << 10));
        for odd in ["", "K", "12M", "-1K", "99999999999999999999K"] {
            assert_eq!(kilobytes(odd), None, "{odd:?}");
        }
    }
}

//! Matrices that lie on a symmetric 4-bit grid in their file, brought to the form packs store.

use ocelli_kernels::half::{f16_bits_to_f32, f32_to_f16_bits};
use ocelli_kernels::int4_groups::Int4Groups;
use ocelli_kernels::int4_panels::BLOCK;

/// Largest error of a scale that becomes f16, as a part of the largest scale of its row.
const SCALE_TOLERANCE: f32 = 1.0 / 2048.0;

/// Values `[n, k]` with a scale for every 32 of a row (`[n, k / 32]`); `None` if f16 cannot hold the
/// scales.
pub(super) fn on_grid(values: Vec<i8>, scales: &[f32], k: usize) -> Option<Int4Groups> {
    let mut bits = Vec::with_capacity(scales.len());
    for row in scales.chunks_exact(k / BLOCK) {
        let largest = row.iter().fold(0f32, |max, scale| max.max(scale.abs()));
        for scale in row {
            let half = f32_to_f16_bits(*scale);
            // A comparison that NaN and infinity fail.
            let is_near = (f16_bits_to_f32(half) - scale).abs() <= SCALE_TOLERANCE * largest;
            if !is_near {
                return None;
            }
            bits.push(half);
        }
    }
    Some(Int4Groups::new(values, bits, k))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales(scales: [f32; 3]) -> Option<Vec<u16>> {
        let groups = on_grid(vec![3; 3 * BLOCK], &scales, 3 * BLOCK);
        groups.map(|groups| groups.scales().to_vec())
    }

    #[test]
    fn scales_become_f16_unless_that_shows() {
        assert_eq!(scales([1.0, -0.5, 0.0]), Some(vec![0x3C00, 0xB800, 0]));
        // Below the smallest f16, beside larger ones and among their like.
        assert_eq!(scales([0.01, 1e-9, 0.02]).unwrap()[1], 0);
        assert_eq!(scales([1e-9, 2e-9, 3e-9]), None);
        assert_eq!(scales([0.01, 7e4, 0.02]), None);
        assert_eq!(scales([0.01, f32::NAN, 0.02]), None);
        assert_eq!(scales([0.01, f32::INFINITY, 0.02]), None);
        assert_eq!(scales([0.0; 3]), Some(vec![0; 3]));
    }
}

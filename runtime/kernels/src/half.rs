//! f16 (IEEE 754 binary16) and bf16 as bit patterns in `u16`, converted exactly.
//!
//! Narrowing rounds to nearest, ties to even; subnormals and infinities are kept; NaN stays NaN,
//! becomes quiet and keeps the upper bits of its payload, as the hardware conversions do.

use std::sync::OnceLock;

use crate::lanes::{FloatTier, Lanes, load_first, store_first, tiered};

/// Widens one f16.
pub fn f16_bits_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let mantissa = u32::from(bits & 0x3ff);
    match exponent {
        0 => {
            // A subnormal is its mantissa times 2^-24, exact in f32.
            let magnitude = mantissa as f32 * f32::from_bits(0x3380_0000);
            f32::from_bits(sign | magnitude.to_bits())
        }
        31 if mantissa == 0 => f32::from_bits(sign | 0x7f80_0000),
        31 => f32::from_bits(sign | 0x7fc0_0000 | mantissa << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | mantissa << 13),
    }
}

/// Narrows one f32 to f16.
pub fn f32_to_f16_bits(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16 & 0x8000) as u16;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let bits = match magnitude {
        0x7f80_0001.. => 0x7e00 | (magnitude >> 13 & 0x1ff),
        // 65520 and above round to infinity.
        0x477f_f000.. => 0x7c00,
        // Below 2^-14: in the sum with 0.5 the last bit of the mantissa is worth 2^-24.
        0..0x3880_0000 => (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000,
        _ => {
            let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
            (rounded >> 13) - (112 << 10)
        }
    };
    sign | bits as u16
}

/// Widens one bf16.
pub fn bf16_bits_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Narrows one f32 to bf16.
pub fn f32_to_bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    let half_or_less = 0x7fff + (bits >> 16 & 1);
    (bits.wrapping_add(half_or_less) >> 16) as u16
}

/// Narrows f32 values to f16 bits.
///
/// # Panics
///
/// Panics if the lengths differ.
pub fn f32_to_f16(src: &[f32], dst: &mut [u16]) {
    assert_eq!(src.len(), dst.len(), "src and dst must be of one length");
    // SAFETY: the lengths agree.
    unsafe { narrow_f16(widest(), src, dst) }
}

/// Widens f16 bits to f32.
///
/// # Panics
///
/// Panics if the lengths differ.
pub fn f16_to_f32(src: &[u16], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "src and dst must be of one length");
    // SAFETY: the lengths agree.
    unsafe { widen_f16(widest(), src, dst) }
}

/// Narrows f32 values to bf16 bits.
///
/// # Panics
///
/// Panics if the lengths differ.
pub fn f32_to_bf16(src: &[f32], dst: &mut [u16]) {
    assert_eq!(src.len(), dst.len(), "src and dst must be of one length");
    for (dst, src) in dst.iter_mut().zip(src) {
        *dst = f32_to_bf16_bits(*src);
    }
}

/// Widens bf16 bits to f32.
///
/// # Panics
///
/// Panics if the lengths differ.
pub fn bf16_to_f32(src: &[u16], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "src and dst must be of one length");
    for (dst, src) in dst.iter_mut().zip(src) {
        *dst = bf16_bits_to_f32(*src);
    }
}

/// All tiers give the same bits here, so the widest is taken.
fn widest() -> FloatTier {
    // Keys and values come in rows so short that asking for features by name would cost more.
    static WIDEST: OnceLock<FloatTier> = OnceLock::new();
    *WIDEST.get_or_init(|| {
        FloatTier::available()
            .next()
            .expect("the scalar tier runs everywhere")
    })
}

tiered! {
    /// # Safety
    ///
    /// * The lengths agree.
    pub(crate) unsafe fn narrow_f16(src: &[f32], dst: &mut [u16]) = narrow_f16_on
}
tiered! {
    /// # Safety
    ///
    /// * The lengths agree.
    pub(crate) unsafe fn widen_f16(src: &[u16], dst: &mut [f32]) = widen_f16_on
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the lengths agree.
#[inline(always)]
unsafe fn narrow_f16_on<L: Lanes>(src: &[f32], dst: &mut [u16]) {
    let len = src.len();
    let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
    let mut i = 0;
    // SAFETY: every access is below `len`.
    unsafe {
        while i + L::N <= len {
            L::load(src.add(i)).store_f16(dst.add(i));
            i += L::N;
        }
        if i < len {
            let mut last = [0; crate::lanes::MAX_LANES];
            load_first::<L>(src.add(i), len - i, 0.0).store_f16(last.as_mut_ptr());
            std::ptr::copy_nonoverlapping(last.as_ptr(), dst.add(i), len - i);
        }
    }
}

/// # Safety
///
/// * The CPU has the instructions of `L`; the lengths agree.
#[inline(always)]
pub(crate) unsafe fn widen_f16_on<L: Lanes>(src: &[u16], dst: &mut [f32]) {
    let len = src.len();
    let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
    let mut i = 0;
    // SAFETY: every access is below `len`.
    unsafe {
        while i + 4 * L::N <= len {
            for j in 0..4 {
                let at = i + j * L::N;
                L::load_f16(src.add(at)).store(dst.add(at));
            }
            i += 4 * L::N;
        }
        while i + L::N <= len {
            L::load_f16(src.add(i)).store(dst.add(i));
            i += L::N;
        }
        if i < len {
            let mut last = [0; crate::lanes::MAX_LANES];
            std::ptr::copy_nonoverlapping(src.add(i), last.as_mut_ptr(), len - i);
            store_first(L::load_f16(last.as_ptr()), dst.add(i), len - i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_f16_widen_as_ieee_says_on_every_tier() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        for tier in FloatTier::available() {
            let mut wide = vec![0.0; bits.len()];
            // SAFETY: the lengths agree.
            unsafe { widen_f16(tier, &bits, &mut wide) };
            for (&bits, wide) in bits.iter().zip(&wide) {
                let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0_f64 };
                let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
                let value = match exponent {
                    0 => mantissa * 2_f64.powi(-24),
                    31 if mantissa == 0.0 => f64::INFINITY,
                    31 => f64::NAN,
                    _ => (1.0 + mantissa / 1024.0) * 2_f64.powi(exponent - 15),
                };
                if value.is_nan() {
                    assert!(wide.is_nan(), "{tier:?} {bits:#06x}");
                } else {
                    assert_eq!(f64::from(*wide), sign * value, "{tier:?} {bits:#06x}");
                    assert_eq!(wide.is_sign_negative(), bits & 0x8000 != 0);
                }
                assert_eq!(
                    wide.to_bits(),
                    f16_bits_to_f32(bits).to_bits(),
                    "{tier:?} {bits:#06x}"
                );
            }
        }
    }

    /// Around each f16 and each midpoint between two: the neighbourhoods where rounding decides.
    #[test]
    fn narrowing_rounds_to_nearest_even_on_every_tier() {
        let mut values = vec![
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-45,
        ];
        for bits in 0..0x7c00_u16 {
            let (this, next) = (f16_bits_to_f32(bits), f16_bits_to_f32(bits + 1));
            let middle = if next.is_finite() {
                (this + next) / 2.0
            } else {
                65_520.0
            };
            for value in [this, middle, middle.next_up(), middle.next_down()] {
                values.extend([value, -value]);
            }
        }
        for tier in FloatTier::available() {
            let mut narrow = vec![0; values.len()];
            // SAFETY: the lengths agree.
            unsafe { narrow_f16(tier, &values, &mut narrow) };
            for (value, bits) in values.iter().zip(narrow) {
                assert_eq!(bits, f32_to_f16_bits(*value), "{tier:?} {value:e}");
                let error = (f64::from(f16_bits_to_f32(bits)) - f64::from(*value)).abs();
                for neighbour in [bits.wrapping_sub(1), bits.wrapping_add(1)] {
                    let other = f64::from(f16_bits_to_f32(neighbour));
                    if value.is_finite()
                        && (bits & 0x7fff) < 0x7bff
                        && neighbour & 0x8000 == bits & 0x8000
                    {
                        let other_error = (other - f64::from(*value)).abs();
                        assert!(
                            error <= other_error && (error < other_error || bits & 1 == 0),
                            "{value:e}"
                        );
                    }
                }
            }
        }
        assert_eq!(f32_to_f16_bits(65_519.996), 0x7bff);
        assert_eq!(f32_to_f16_bits(65_520.0), 0x7c00);
    }

    #[test]
    fn nan_survives_narrowing_with_its_payload_on_every_tier() {
        for bits in [
            0x7f80_0001_u32,
            0x7fc0_0000,
            0xffff_ffff,
            0x7fa5_a000,
            0xff80_2000,
        ] {
            let value = f32::from_bits(bits);
            let expected = f32_to_f16_bits(value);
            assert!(f16_bits_to_f32(expected).is_nan());
            for tier in FloatTier::available() {
                let mut narrow = [0];
                // SAFETY: the lengths agree.
                unsafe { narrow_f16(tier, &[value], &mut narrow) };
                assert_eq!(narrow[0], expected, "{tier:?} {bits:#010x}");
            }
            assert!(bf16_bits_to_f32(f32_to_bf16_bits(value)).is_nan());
        }
    }

    #[test]
    fn bf16_round_trips_and_rounds_to_nearest_even() {
        for bits in 0..=u16::MAX {
            let value = bf16_bits_to_f32(bits);
            if !value.is_nan() {
                assert_eq!(f32_to_bf16_bits(value), bits);
            }
        }
        assert_eq!(f32_to_bf16_bits(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(f32_to_bf16_bits(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(f32_to_bf16_bits(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert_eq!(f32_to_bf16_bits(f32::MAX), 0x7f80);
    }

    #[test]
    fn slices_of_any_length_convert() {
        for len in [0, 1, 3, 8, 17, 33] {
            let values: Vec<f32> = (0..len).map(|i| i as f32 * 0.25 - 2.0).collect();
            let (mut narrow, mut wide) = (vec![0; len], vec![0.0; len]);
            f32_to_f16(&values, &mut narrow);
            f16_to_f32(&narrow, &mut wide);
            assert_eq!(values, wide);
            f32_to_bf16(&values, &mut narrow);
            bf16_to_f32(&narrow, &mut wide);
            assert_eq!(values, wide);
        }
    }
}

//! [`Lanes`]: one vector of f32, whatever its width, and [`FloatTier`], which width to use.
//!
//! Float kernels are written once as `#[inline(always)]` functions over `L: Lanes` and
//! instantiated by [`tiered!`] inside one `#[target_feature]` function per tier. Results differ
//! between tiers in the last bits (width of a sum, fused or not), never within a tier.

use std::fmt;

use crate::isa::Isa;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod powers;
pub(crate) mod scalar;

/// Most lanes of any tier: size of the buffers that finish a row.
pub(crate) const MAX_LANES: usize = 16;

/// Added to a number below 2^22 in magnitude, it leaves the number rounded to an integer, ties to
/// even, in the low bits of the sum.
pub(crate) const INTEGER_SHIFT: f32 = 12_582_912.0;

/// One vector of `N` f32.
///
/// # Safety
///
/// Implementors read and write exactly `N` values through each pointer. Every method may be called
/// only where the CPU has the instructions of the tier; the pointers may be unaligned.
pub(crate) unsafe trait Lanes: Copy {
    /// Lanes.
    const N: usize;
    /// Rows and vectors of the sums of an f32 product that are held in registers together.
    const TILE_ROWS: usize;
    const TILE_VECTORS: usize;
    /// Four neighbouring values, each to be broadcast.
    type Four: Copy;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Widens f16 bits.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// Widens the f16 bits of two neighbouring vectors.
    unsafe fn load_f16_pair(from: *const u16) -> [Self; 2];
    /// Narrows to f16 bits, to nearest even.
    unsafe fn store_f16(self, to: *mut u16);
    /// Stores as int8: rounds to nearest even; lanes are within ±127 or NaN, and NaN becomes 0.
    unsafe fn store_i8(self, to: *mut i8);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, fused where the tier has it.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `self * factor + addend`, rounded once in every tier.
    unsafe fn fused_mul_add(self, factor: Self, addend: Self) -> Self;
    /// The four values at `from`, which stay readable as long as the result is used.
    unsafe fn load_four(from: *const f32) -> Self::Four;
    /// `self * four[I] + addend`, fused where the tier has it.
    unsafe fn mul_add_of_four<const I: i32>(self, four: Self::Four, addend: Self) -> Self;
    /// Widens and scales 8 × 8 f16: value `first + j` of row `i` goes to `to[j * stride + i]`.
    unsafe fn transpose_f16(
        rows: [*const u16; 8],
        first: usize,
        factor: f32,
        to: *mut f32,
        stride: usize,
    );
    /// `self * 2^n`, where `n_shifted` is `n + INTEGER_SHIFT` and the result is a normal number.
    unsafe fn shift_exponent(self, n_shifted: Self) -> Self;
    /// The low bytes of `4 * N` values: integers in -128..=127 to which [`INTEGER_SHIFT`] was added.
    unsafe fn store_low_bytes(four: [Self; 4], to: *mut i8);
    /// [`powers::power`] of `4 * N` codes, less [`powers::POWER_OFFSET`]; the codes are integers in
    /// 0..=[`powers::CODE_MAX`] to which [`INTEGER_SHIFT`] was added.
    unsafe fn store_powers(four: [Self; 4], to: *mut i8);
    /// Sums of 64 bytes each.
    unsafe fn sum_bytes_four(from: [*const i8; 4]) -> [i32; 4];
    /// The smaller; `other` where `self` is NaN.
    unsafe fn min(self, other: Self) -> Self;
    /// The larger; `other` where `self` is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// Between `low` and `high`; NaN stays NaN.
    unsafe fn clamp(self, low: f32, high: f32) -> Self;
    unsafe fn abs(self) -> Self;
    /// To the nearest integer, ties to even; only for magnitudes below 2^22.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for integral `n` in -252..=252, rounded at most twice.
    unsafe fn scale_by_power_of_two(self, n: Self) -> Self;
    /// `self / divisor` within two units in the last place, for a normal divisor below 2^126.
    unsafe fn div_roughly(self, divisor: Self) -> Self;
    /// The larger of the magnitude of `self` and of `magnitude`, which has no sign; NaN is larger
    /// than any number.
    unsafe fn max_magnitude(self, magnitude: Self) -> Self;
    /// Largest lane of [`Lanes::max_magnitude`]; NaN is larger than any number.
    unsafe fn reduce_magnitude(self) -> f32;
    /// Sum of the lanes, in an order fixed by the tier.
    unsafe fn reduce_add(self) -> f32;
    /// [`Lanes::reduce_add`] of four vectors.
    unsafe fn reduce_add_four(four: [Self; 4]) -> [f32; 4];
    /// Largest lane; lanes are not NaN.
    unsafe fn reduce_max(self) -> f32;
    /// [`Lanes::reduce_max`] of four vectors.
    unsafe fn reduce_max_four(four: [Self; 4]) -> [f32; 4];
}

/// Vector width for float kernels. Having one proves that the CPU executes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FloatTier(pub(crate) Tier);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Scalar,
}

impl FloatTier {
    /// Plain Rust, on every CPU.
    pub const SCALAR: FloatTier = FloatTier(Tier::Scalar);

    /// The tiers this CPU executes, widest first.
    pub fn available() -> impl Iterator<Item = FloatTier> {
        let isa = Isa::probe();
        let tiers = [
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx512, isa.has_avx512()),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx2, isa.has_avx2()),
            #[cfg(target_arch = "aarch64")]
            (Tier::Neon, isa.has("neon")),
            (Tier::Scalar, true),
        ];
        tiers
            .into_iter()
            .filter(|(_, found)| *found)
            .map(|(tier, _)| FloatTier(tier))
    }

    /// `avx512`, `avx2`, `neon` or `scalar`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Tier::Neon => "neon",
            Tier::Scalar => "scalar",
        }
    }

    /// The tier of this name, if the CPU executes it.
    pub(crate) fn by_name(name: &str) -> Option<FloatTier> {
        FloatTier::available().find(|tier| tier.name() == name)
    }
}

impl fmt::Debug for FloatTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Defines `fn name(tier: FloatTier, args…)`, which runs `body::<L>(args…)` compiled for the tier.
///
/// `unsafe` bodies are declared so that their own contract, beyond the instructions, is that of
/// the generated function.
macro_rules! tiered {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident $(<$lt:lifetime>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain pointers and lengths")]
        $vis unsafe fn $name $(<$lt>)? (tier: $crate::lanes::FloatTier, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            unsafe fn avx512 $(<$lt>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the instructions are enabled here, the rest is the caller's contract.
                unsafe { $body::<$crate::lanes::avx512::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            unsafe fn avx2 $(<$lt>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the instructions are enabled here, the rest is the caller's contract.
                unsafe { $body::<$crate::lanes::avx2::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            unsafe fn neon $(<$lt>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the instructions are enabled here, the rest is the caller's contract.
                unsafe { $body::<$crate::lanes::neon::Neon>($($arg),*) }
            }
            // SAFETY: having the tier proves the instructions; the rest is the caller's contract.
            unsafe {
                match tier.0 {
                    #[cfg(target_arch = "x86_64")]
                    $crate::lanes::Tier::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::lanes::Tier::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::lanes::Tier::Neon => neon($($arg),*),
                    $crate::lanes::Tier::Scalar => $body::<$crate::lanes::scalar::Scalar>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use tiered;

/// `map_lanes!(L, [x = inputs.., w = ..] => out, body)`: `out[i] = body` with the named lanes of the
/// inputs, all as long as `out`. A macro because a closure is compiled without the instructions of
/// the tier unless the optimiser happens to inline it.
///
/// To be used in unsafe code where the CPU has the instructions of `L`.
macro_rules! map_lanes {
    ($lanes:ty, [$($x:ident = $input:expr),+] => $out:expr, $body:expr) => {{
        let out: &mut [f32] = $out;
        let len = out.len();
        $(let $x: &[f32] = $input; debug_assert_eq!($x.len(), len);)+
        $(let $x = $x.as_ptr();)+
        let out = out.as_mut_ptr();
        let mut i = 0;
        // Four at a time: cores in order would wait for each step of one alone.
        while i + 4 * <$lanes>::N <= len {
            let mut four = [<$lanes>::splat(0.0); 4];
            for (j, result) in four.iter_mut().enumerate() {
                $(let $x = <$lanes>::load($x.add(i + j * <$lanes>::N));)+
                *result = $body;
            }
            for (j, result) in four.into_iter().enumerate() {
                result.store(out.add(i + j * <$lanes>::N));
            }
            i += 4 * <$lanes>::N;
        }
        while i + <$lanes>::N <= len {
            $(let $x = <$lanes>::load($x.add(i));)+
            $body.store(out.add(i));
            i += <$lanes>::N;
        }
        if i < len {
            $(let $x = $crate::lanes::load_first::<$lanes>($x.add(i), len - i, 0.0);)+
            $crate::lanes::store_first($body, out.add(i), len - i);
        }
    }};
}
pub(crate) use map_lanes;

/// `sum_lanes!(L, x = input, fill, body)`: the sum of `body` over the input in f32. Lanes after the
/// end hold `fill`, for which `body` must be 0. Use as [`map_lanes!`].
macro_rules! sum_lanes {
    ($lanes:ty, $x:ident = $input:expr, $fill:expr, $body:expr) => {{
        let input: &[f32] = $input;
        let (len, input) = (input.len(), input.as_ptr());
        let mut sums = [<$lanes>::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * <$lanes>::N <= len {
            for (j, sum) in sums.iter_mut().enumerate() {
                let $x = <$lanes>::load(input.add(i + j * <$lanes>::N));
                *sum = sum.add($body);
            }
            i += 4 * <$lanes>::N;
        }
        while i < len {
            let $x = if i + <$lanes>::N <= len {
                <$lanes>::load(input.add(i))
            } else {
                $crate::lanes::load_first::<$lanes>(input.add(i), len - i, $fill)
            };
            sums[0] = sums[0].add($body);
            i += <$lanes>::N;
        }
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).reduce_add()
    }};
}
pub(crate) use sum_lanes;

/// `COUNT` neighbouring vectors from memory.
///
/// # Safety
///
/// * The CPU has the instructions of `L`; `COUNT` vectors are readable at `from`.
#[inline(always)]
pub(crate) unsafe fn load_vectors<L: Lanes, const COUNT: usize>(from: *const f32) -> [L; COUNT] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut vectors = [L::splat(0.0); COUNT];
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = L::load(from.add(v * L::N));
        }
        vectors
    }
}

/// The first `len < N` lanes from memory, the others `fill`.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * `len` values are readable at `from`, and `len <= MAX_LANES`.
#[inline(always)]
pub(crate) unsafe fn load_first<L: Lanes>(from: *const f32, len: usize, fill: f32) -> L {
    let mut buffer = [fill; MAX_LANES];
    // SAFETY: `len` values are readable and fit the buffer; the buffer has at least N lanes.
    unsafe {
        std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), len);
        L::load(buffer.as_ptr())
    }
}

/// Writes the first `len < N` lanes.
///
/// # Safety
///
/// * The CPU has the instructions of `L`.
/// * `len` values are writable at `to`, and `len <= N`.
#[inline(always)]
pub(crate) unsafe fn store_first<L: Lanes>(lanes: L, to: *mut f32, len: usize) {
    let mut buffer = [0.0; MAX_LANES];
    // SAFETY: the buffer has at least N lanes; `len` values are writable.
    unsafe {
        lanes.store(buffer.as_mut_ptr());
        std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, len);
    }
}

/// Writes the first `len < N` lanes as int8, as [`Lanes::store_i8`] does.
///
/// # Safety
///
/// As [`store_first`].
#[inline(always)]
pub(crate) unsafe fn store_i8_first<L: Lanes>(lanes: L, to: *mut i8, len: usize) {
    let mut buffer = [0; MAX_LANES];
    // SAFETY: the buffer has at least N lanes; `len` values are writable.
    unsafe {
        lanes.store_i8(buffer.as_mut_ptr());
        std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::half;

    tiered! {
        unsafe fn all_operations(input: *const f32, out: &mut Vec<Vec<f32>>) = all_operations_on
    }

    /// Applies each operation to 16 pairs of lanes.
    #[inline(always)]
    unsafe fn all_operations_on<L: Lanes>(input: *const f32, out: &mut Vec<Vec<f32>>) {
        out.clear();
        let mut push = |operation: &dyn Fn(L, L) -> L| {
            let mut result = vec![0.0; MAX_LANES];
            for i in (0..MAX_LANES).step_by(L::N) {
                // SAFETY: 32 values are readable, 16 writable; the tier is available.
                unsafe {
                    let (a, b) = (L::load(input.add(i)), L::load(input.add(MAX_LANES + i)));
                    operation(a, b).store(result.as_mut_ptr().add(i));
                }
            }
            out.push(result);
        };
        // SAFETY: the tier is available.
        unsafe {
            push(&|a, b| a.add(b));
            push(&|a, b| a.sub(b));
            push(&|a, b| a.mul(b));
            push(&|a, b| a.div(b));
            push(&|a, b| a.min(b));
            push(&|a, b| a.max(b));
            push(&|a, _| a.clamp(-2.0, 3.0));
            push(&|a, _| a.abs());
            push(&|a, _| a.round());
            push(&|a, b| a.scale_by_power_of_two(b.round()));
            push(&|a, _| L::splat(a.reduce_max()));
            push(&|a, b| a.fused_mul_add(b, b));
            push(&|a, b| a.max_magnitude(b.abs()));
            push(&|a, b| a.shift_exponent(b.add(L::splat(INTEGER_SHIFT))));
            let mut low = [0; 4 * MAX_LANES];
            let four = std::array::from_fn(|i| {
                let a = L::load(input.add(i * L::N % MAX_LANES));
                a.add(L::splat(INTEGER_SHIFT))
            });
            L::store_low_bytes(four, low.as_mut_ptr());
            // The tiers differ in how many values they store; the first 16 are of the same lanes.
            out.push(low[..MAX_LANES].iter().map(|v| f32::from(*v)).collect());
            // All codes, in turns of as many as a tier takes.
            let mut powers = [0_i8; 320];
            for first in (0..320).step_by(4 * L::N) {
                let codes: [f32; 4 * MAX_LANES] =
                    std::array::from_fn(|i| ((first + i) % 288) as f32 + INTEGER_SHIFT);
                let four = std::array::from_fn(|i| L::load(codes.as_ptr().add(i * L::N)));
                L::store_powers(four, powers.as_mut_ptr().add(first));
            }
            out.push(powers.iter().map(|v| f32::from(*v)).collect());
            let sums = (0..320 - 64).flat_map(|i| {
                L::sum_bytes_four([0, i, 77, 255 - i].map(|i| powers.as_ptr().add(i)))
            });
            out.push(sums.map(|sum| sum as f32).collect());
            let mut narrow = vec![0_u16; MAX_LANES];
            let mut bytes = vec![0_i8; MAX_LANES];
            let mut wide = vec![0.0; MAX_LANES];
            for i in (0..MAX_LANES).step_by(L::N) {
                let a = L::load(input.add(i));
                a.store_f16(narrow.as_mut_ptr().add(i));
                L::load_f16(narrow.as_ptr().add(i)).store(wide.as_mut_ptr().add(i));
                a.store_i8(bytes.as_mut_ptr().add(i));
            }
            out.push(wide);
            out.push(bytes.into_iter().map(f32::from).collect());
        }
    }

    #[test]
    fn every_tier_agrees_with_scalar_on_single_operations() {
        let a = [
            0.5, -0.5, 1.5, 2.5, -2.5, 126.6, -127.0, 0.0, -0.0, 3.25, 1e-7, 99.5, 100.5, 7.0,
            -9.75, 64.0,
        ];
        let b = [
            3.0, -7.0, 20.0, -20.0, 0.25, 1.0, 2.0, -3.0, 4.0, 100.0, -100.0, 5.0, 11.0, -1.0,
            31.0, -31.0,
        ];
        let input: Vec<f32> = a.into_iter().chain(b).collect();
        let (mut want, mut got) = (Vec::new(), Vec::new());
        // SAFETY: 32 values are readable.
        unsafe { all_operations(FloatTier::SCALAR, input.as_ptr(), &mut want) };
        for tier in FloatTier::available() {
            // SAFETY: as above.
            unsafe { all_operations(tier, input.as_ptr(), &mut got) };
            // The maximum of a vector depends on its width.
            for operation in (0..want.len()).filter(|o| *o != 10) {
                assert_eq!(
                    got[operation], want[operation],
                    "{tier:?} operation {operation}"
                );
            }
            for (i, max) in got[10].iter().enumerate() {
                assert!(*max >= a[i], "{tier:?}");
            }
        }
    }

    tiered! {
        unsafe fn nan_rules(out: &mut [f32; 5]) = nan_rules_on
    }

    #[inline(always)]
    unsafe fn nan_rules_on<L: Lanes>(out: &mut [f32; 5]) {
        // SAFETY: the tier is available; the buffers hold MAX_LANES values.
        unsafe {
            let (nan, three) = (L::splat(f32::NAN), L::splat(3.0));
            out[0] = nan.max(three).reduce_max();
            out[1] = nan.min(three).reduce_max();
            let mut bytes = [1; MAX_LANES];
            nan.store_i8(bytes.as_mut_ptr());
            out[2] = f32::from(bytes[0]);
            out[3] = L::splat(2.0).reduce_add() / L::N as f32;
            let mut clamped = [0.0; MAX_LANES];
            nan.clamp(-1.0, 1.0).store(clamped.as_mut_ptr());
            out[4] = if clamped[0].is_nan() { 5.0 } else { 0.0 };
        }
    }

    #[test]
    fn nan_loses_against_a_number_and_stores_as_zero() {
        for tier in FloatTier::available() {
            let mut out = [9.0; 5];
            // SAFETY: no pointers are passed.
            unsafe { nan_rules(tier, &mut out) };
            assert_eq!(out, [3.0, 3.0, 0.0, 2.0, 5.0], "{tier:?}");
        }
    }

    tiered! {
        unsafe fn matrices(rows: [*const u16; 8], four: *const f32, out: &mut [f32]) = matrices_on
    }

    /// The transposed rows, tripled, and then products with each of four values, less those with one
    /// value in all lanes, and the sums of four vectors less the sum of each: zeros.
    #[inline(always)]
    unsafe fn matrices_on<L: Lanes>(rows: [*const u16; 8], four: *const f32, out: &mut [f32]) {
        let (out, rest) = out.split_at_mut(64);
        // SAFETY: rows hold nine values, of which the last eight are taken; 4 + MAX_LANES values are
        // readable at `four`, 2 · MAX_LANES at row 0; the tier is available.
        unsafe {
            L::transpose_f16(rows, 1, 3.0, out.as_mut_ptr(), 8);
            let [a, b] = L::load_f16_pair(rows[0]);
            for (i, a) in [a, b].into_iter().enumerate() {
                let want = L::load_f16(rows[0].add(i * L::N));
                rest[i] = a.sub(want).abs().reduce_add();
            }
            let values = L::load_four(four);
            let x = L::load(four.add(4));
            let products = [
                x.mul_add_of_four::<0>(values, x),
                x.mul_add_of_four::<1>(values, x),
                x.mul_add_of_four::<2>(values, x),
                x.mul_add_of_four::<3>(values, x),
            ];
            let sums = L::reduce_add_four(products);
            for (i, product) in products.into_iter().enumerate() {
                let want = x.mul_add(L::splat(*four.add(i)), x);
                rest[2 + i] = product.sub(want).abs().reduce_add();
                rest[6 + i] = sums[i] - product.reduce_add();
            }
        }
    }

    #[test]
    fn every_tier_transposes_broadcasts_and_sums_four() {
        let bits = |i: usize| half::f32_to_f16_bits(i as f32 / 8.0 - 5.0);
        let rows: [Vec<u16>; 8] =
            std::array::from_fn(|i| (0..2 * MAX_LANES).map(|j| bits(9 * i + j)).collect());
        let values: Vec<f32> = (0..4 + MAX_LANES).map(|i| (i as f32 * 0.7).sin()).collect();
        for tier in FloatTier::available() {
            let mut out = [f32::NAN; 74];
            let pointers = std::array::from_fn(|i| rows[i].as_ptr());
            // SAFETY: the rows hold two vectors of any tier, `values` four values and one vector.
            unsafe { matrices(tier, pointers, values.as_ptr(), &mut out) };
            for (place, value) in out[..64].iter().enumerate() {
                let want = 3.0 * half::f16_bits_to_f32(rows[place % 8][1 + place / 8]);
                assert_eq!(*value, want, "{tier:?} at {place}");
            }
            assert_eq!(out[64..], [0.0; 10], "{tier:?}");
        }
    }
}

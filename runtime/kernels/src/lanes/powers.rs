//! Powers of two as bytes, by a table: what [`super::Lanes::store_powers`] computes.

/// Steps of an octave.
pub(crate) const STEPS: usize = 32;
/// The largest power as a byte.
#[cfg(test)]
pub(crate) const POWER_MAX: i32 = 254;
/// What is taken from a power so that it fits a signed byte.
pub(crate) const POWER_OFFSET: i32 = 127;
/// `round(254 · 2^((step - 31) / 32))`: the octave below the largest power.
#[rustfmt::skip]
pub(crate) const OCTAVE: [u8; STEPS] = [
    130, 133, 136, 138, 142, 145, 148, 151, 154, 158, 161, 165, 168, 172, 176, 180,
    184, 188, 192, 196, 200, 205, 209, 214, 218, 223, 228, 233, 238, 243, 249, 254,
];

/// Half of `2^n` for the octaves 0 to 7 of a code, `n` of them below the largest; and what a step is
/// multiplied with before a division by 2^7, but for the highest.
#[cfg(target_arch = "x86_64")]
pub(crate) const HALVES: [u8; 16] = [64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
#[cfg(target_arch = "x86_64")]
pub(crate) const FACTORS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Twice [`OCTAVE`] in words.
#[cfg(target_arch = "x86_64")]
pub(crate) const DOUBLED: [u16; STEPS] = {
    let mut doubled = [0; STEPS];
    let mut i = 0;
    while i < STEPS {
        doubled[i] = 2 * OCTAVE[i] as u16;
        i += 1;
    }
    doubled
};

/// Every second of 64 words.
#[cfg(target_arch = "x86_64")]
pub(crate) const EVEN: [u16; 32] = {
    let mut even = [0; 32];
    let mut i = 0;
    while i < 32 {
        even[i] = 2 * i as u16;
        i += 1;
    }
    even
};

/// The code of the largest power: nine octaves, of which the lowest rounds to 1 throughout.
pub(crate) const CODE_MAX: u16 = 9 * STEPS as u16 - 1;

/// Code `c` in 1..=[`CODE_MAX`] stands for `2^((c - CODE_MAX) / 32)`; code 0 for nothing. The power
/// as a byte is the step of [`OCTAVE`] divided by the octaves below the largest, rounded half up.
pub(crate) fn power(code: u16) -> u8 {
    if code == 0 {
        return 0;
    }
    // The lowest octave is as the first step of the one above it.
    let code = code.saturating_sub(STEPS as u16);
    let step = u16::from(OCTAVE[usize::from(code) % STEPS]);
    let octaves = 7 - code / STEPS as u16;
    ((step + (1 << octaves >> 1)) >> octaves) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_within_a_rounding_of_two_to_the_code() {
        for code in 0..=CODE_MAX {
            let below = f64::from(CODE_MAX - code) / STEPS as f64;
            let exact = f64::from(POWER_MAX) * (-below).exp2();
            let error = (f64::from(power(code)) - exact).abs();
            // Once for the step, and once more for the shift.
            let bound = if below < 1.0 { 0.5 } else { 0.75 };
            assert!(error <= bound, "{code}: {} for {exact}", power(code));
        }
        assert_eq!((power(0), power(1), power(CODE_MAX)), (0, 1, 254));
    }
}

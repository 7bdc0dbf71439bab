//! Every available kernel against the definition.

use super::*;
use crate::int8_gemm;

#[test]
fn every_kernel_gives_the_sums_of_the_definition() {
    let scalar = scalar::probe().unwrap();
    let mut state = 7_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as u8
    };
    for (k, n_panels, tail) in [(32, 1, 0), (64, 3, 64), (576, 2, 64), (2048, 1, 0)] {
        let stride = k * PANEL_ROWS / 2 + tail;
        let noisy: (Vec<i8>, Vec<u8>) = (
            (0..k).map(|_| noise() as i8).collect(),
            (0..stride * n_panels).map(|_| noise()).collect(),
        );
        // The ends of the ranges, where sums of 16 bits are at their largest.
        let low = (vec![-128; k], vec![0x88; stride * n_panels]);
        let high = (vec![-128; k], vec![0x77; stride * n_panels]);
        for (token, panels) in [noisy, low, high] {
            let gemv = NibbleGemv {
                token_sum: token.iter().map(|x| i32::from(*x)).sum(),
                token: &token,
                panels: &panels,
                stride,
            };
            let mut expected = vec![[0; PANEL_ROWS]; n_panels];
            scalar.sums(&gemv, &mut expected);
            for kernels in int8_gemm::available() {
                let mut out = vec![[i32::MAX; PANEL_ROWS]; n_panels];
                kernels.nibble_gemv.sums(&gemv, &mut out);
                assert_eq!(out, expected, "{:?} k {k}", kernels.nibble_gemv);
            }
        }
    }
}

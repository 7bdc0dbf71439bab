use super::*;
use crate::AlignedBytes;

fn ramp(n: usize, k: usize) -> Vec<f32> {
    (0..n * k)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01)
        .collect()
}

#[test]
fn bytes_lie_where_the_picture_says() {
    let (n, k) = (9, 18);
    let weights: Vec<i8> = (0..n * k)
        .map(|i| (i % 255) as i8)
        .map(|w| w.max(-127))
        .collect();
    let scales: Vec<f32> = (0..n).map(|r| 1.0 + r as f32).collect();
    let biases: Vec<f32> = (0..n).map(|r| -(r as f32)).collect();
    let mut packed = vec![0; byte_len(n, k)];
    pack_int8_rows_into(&weights, &scales, Some(&biases), 0, k, &mut packed);
    let stride = 8 * 32 + 128;
    assert_eq!(packed.len(), 2 * stride);
    for row in 0..n {
        for col in 0..k {
            let at = row / 8 * stride + col / 4 * 32 + row % 8 * 4 + col % 4;
            assert_eq!(packed[at] as i8, weights[row * k + col]);
        }
        let tail = row / 8 * stride + 8 * 32;
        let word = |at: usize| <[u8; 4]>::try_from(&packed[at..at + 4]).unwrap();
        assert_eq!(f32::from_le_bytes(word(tail + 4 * (row % 8))), scales[row]);
        let sum: i32 = weights[row * k..][..k].iter().map(|&w| i32::from(w)).sum();
        assert_eq!(i32::from_le_bytes(word(tail + 32 + 4 * (row % 8))), sum);
        assert_eq!(
            f32::from_le_bytes(word(tail + 64 + 4 * (row % 8))),
            biases[row]
        );
    }
}

#[test]
fn packing_in_pieces_equals_packing_at_once() {
    let (n, k) = (21, 35);
    let weights = ramp(n, k);
    let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let whole = pack(&weights, Some(&bias), n, k);
    let mut pieces = vec![0; byte_len(n, k)];
    for first in (0..n).step_by(5) {
        let last = (first + 5).min(n);
        pack_rows_into(
            &weights[first * k..last * k],
            Some(&bias[first..last]),
            first,
            k,
            &mut pieces,
        );
    }
    assert_eq!(whole, pieces);
}

#[test]
fn dequantised_rows_are_within_half_a_step() {
    let (n, k) = (10, 33);
    let mut weights = ramp(n, k);
    weights[3 * k..4 * k].fill(0.0);
    weights[4 * k] = f32::NAN;
    let bytes = AlignedBytes::copy_of(&pack(&weights, None, n, k));
    let panels = Panels::new(&bytes, n, k).unwrap();
    panels.validate().unwrap();
    let mut row = vec![0.0; k];
    for r in 0..n {
        panels.dequantize_row(r, &mut row);
        for (got, want) in row.iter().zip(&weights[r * k..]) {
            let want = if want.is_nan() { 0.0 } else { *want };
            assert!((got - want).abs() <= panels.scale(r) * 0.5001);
        }
    }
    assert_eq!(panels.scale(3), 0.0);
    let unpacked = panels.unpack();
    assert_eq!(unpacked.weights.len(), n * k);
    assert_eq!(unpacked.weights[5 * k + 7], panels.weight(5, 7));
    assert_eq!(panels.panel_range(1, 1).n(), 2);
    assert_eq!(panels.panel_range(1, 1).weight(1, 2), panels.weight(9, 2));
}

#[test]
fn wrong_length_alignment_and_contents_are_refused() {
    let (n, k) = (8, 16);
    let mut bytes = AlignedBytes::zeroed(byte_len(n, k) + 64);
    let len = byte_len(n, k);
    assert!(Panels::new(&bytes[..len], n, k).is_ok());
    assert!(matches!(
        Panels::new(&bytes, n, k),
        Err(PanelsError::Length { .. })
    ));
    assert!(matches!(
        Panels::new(&bytes[4..len + 4], n, k),
        Err(PanelsError::Alignment { remainder: 4 })
    ));
    assert!(matches!(
        Panels::new(&bytes, 8, MAX_K + 1),
        Err(PanelsError::Width { .. })
    ));
    bytes[1] = 0x80;
    let error = Panels::new(&bytes[..len], n, k)
        .unwrap()
        .validate()
        .unwrap_err();
    assert_eq!(
        error,
        PanelsError::Contents {
            row: 0,
            what: "a weight is -128"
        }
    );
    bytes[1] = 1;
    assert!(
        Panels::new(&bytes[..len], n, k)
            .unwrap()
            .validate()
            .is_err()
    );
}

use super::*;
use crate::AlignedBytes;
use crate::panels::{byte_len, pack_int8_rows_into};

/// Some int8 panels and the same in two planes.
fn both(n: usize, k: usize) -> (AlignedBytes, AlignedBytes) {
    let weights: Vec<i8> = (0..n * k)
        .map(|i| ((i * 37 + i / k * 11) % 255) as i16 - 127)
        .map(|w| w as i8)
        .collect();
    let scales: Vec<f32> = (0..n).map(|row| 0.5 + row as f32).collect();
    let mut int8 = AlignedBytes::zeroed(byte_len(n, k));
    pack_int8_rows_into(&weights, &scales, None, 0, k, &mut int8);
    let (mut high, mut low) = (Vec::new(), Vec::new());
    split_panels(Panels::new(&int8, n, k).unwrap(), &mut high, &mut low);
    high.extend(low);
    assert_eq!(high.len(), nibble_byte_len(n, k));
    (int8, AlignedBytes::copy_of(&high))
}

#[test]
fn both_planes_together_are_the_int8_weights() {
    for (n, k) in [(1, 32), (8, 64), (21, 96), (16, 576)] {
        let (int8, planes) = both(n, k);
        let int8 = Panels::new(&int8, n, k).unwrap();
        let planes = NibblePanels::new(&planes, n, k).unwrap();
        planes.validate().unwrap();
        for row in 0..n {
            assert_eq!(planes.known(row)[0], int8.scale(row));
            for col in 0..k {
                let (found, expected) = (planes.weight(row, col), int8.weight(row, col));
                assert_eq!(found, expected, "[{row}, {col}] of [{n}, {k}]");
            }
        }
    }
}

#[test]
fn mean_and_deviation_are_those_of_the_low_halves() {
    let (n, k) = (8, 64);
    let mut weights = vec![0_i8; n * k];
    // A row without low halves, one whose low halves are all 9, one of 0 and 15 in turns.
    weights[k..2 * k].fill(-7);
    for (col, weight) in weights[2 * k..3 * k].iter_mut().enumerate() {
        *weight = if col % 2 == 0 { 16 } else { -1 };
    }
    let mut int8 = AlignedBytes::zeroed(byte_len(n, k));
    pack_int8_rows_into(&weights, &[1.0; 8], None, 0, k, &mut int8);
    let (mut high, mut low) = (Vec::new(), Vec::new());
    split_panels(Panels::new(&int8, n, k).unwrap(), &mut high, &mut low);
    high.extend(low);
    let bytes = AlignedBytes::copy_of(&high);
    let planes = NibblePanels::new(&bytes, n, k).unwrap();
    assert_eq!(planes.known(0), [1.0, 0.0, 0.0]);
    assert_eq!(planes.known(1), [1.0, 9.0, 0.0]);
    assert_eq!(planes.known(2), [1.0, 7.5, 7.5]);
}

#[test]
fn some_panels_are_weights_of_their_own() {
    let (n, k) = (21, 96);
    let (_, bytes) = both(n, k);
    let planes = NibblePanels::new(&bytes, n, k).unwrap();
    for (first, count, rows) in [(0, 1, 8), (1, 1, 8), (1, 2, 13), (2, 1, 5), (0, 3, 21)] {
        let some = planes.panel_range(first, count);
        assert_eq!((some.n(), some.k(), some.n_panels()), (rows, k, count));
        for row in 0..rows {
            assert_eq!(some.known(row), planes.known(8 * first + row));
            assert_eq!(some.weight(row, 40), planes.weight(8 * first + row, 40));
        }
    }
}

#[test]
fn bytes_that_are_no_planes_are_refused() {
    let (n, k) = (8, 64);
    let (_, bytes) = both(n, k);
    let error = |bytes, n, k| NibblePanels::new(bytes, n, k).unwrap_err().to_string();
    assert!(error(&bytes, n, 48).contains("k = 48"));
    assert!(error(&[], n, 0).contains("k = 0"));
    assert!(error(&bytes, n, MAX_K + 32).contains("up to 65536"));
    assert!(error(&bytes, 9, k).contains("576 bytes where the shape needs 1152"));
    assert!(error(&bytes[..575], n, k).contains("575 bytes"));
    assert!(error(&bytes, usize::MAX, k).contains("needs"));
    let mut shifted = AlignedBytes::zeroed(bytes.len() + 1);
    shifted[1..].copy_from_slice(&bytes);
    assert!(error(&shifted[1..], n, k).contains("1 bytes after"));
}

#[test]
fn broken_promises_are_found() {
    let (n, k) = (8, 64);
    let (_, bytes) = both(n, k);
    let high = high_stride(k);
    for (at, byte, what) in [
        // The scale of row 1 becomes infinite.
        (high - 64 + 7, 0x7f, "the scale is not finite"),
        (high - 32 + 1, 0xff, "mean and deviation"),
        (high - 16 + 1, 0xff, "mean and deviation"),
        (high + 4, bytes[high + 4] ^ 0x0f, "mean and deviation"),
    ] {
        let mut broken = bytes.clone();
        broken[at] = byte;
        if what.starts_with("the scale") {
            broken[at - 1] = 0x80;
        }
        let panels = NibblePanels::new(&broken, n, k).unwrap();
        let error = panels.validate().unwrap_err().to_string();
        assert!(error.contains(what), "{at}: {error}");
    }
    let mut broken = bytes.clone();
    // High half -8 and low half 0, stored as -8 less 8.
    (broken[0], broken[high]) = (bytes[0] & 0xf0 | 8, bytes[high] & 0xf0 | 8);
    let panels = NibblePanels::new(&broken, n, k).unwrap();
    assert!(panels.validate().unwrap_err().to_string().contains("-128"));
}

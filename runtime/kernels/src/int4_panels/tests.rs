use super::*;
use crate::AlignedBytes;
use crate::half::f32_to_f16_bits;
use crate::int4_groups::quantize_int4_groups;

fn packed(n: usize, k: usize) -> (Int4Groups, AlignedBytes) {
    let weights: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.7).sin()).collect();
    let groups = quantize_int4_groups(&weights, k);
    let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let mut bytes = AlignedBytes::zeroed(int4_byte_len(n, k));
    pack_int4_rows_into(&groups, Some(&bias), 0, &mut bytes);
    (groups, bytes)
}

#[test]
fn packed_weights_read_back() {
    for (n, k) in [(1, 32), (7, 64), (8, 96), (9, 32), (17, 576)] {
        let (groups, bytes) = packed(n, k);
        let panels = Int4Panels::new(&bytes, n, k).unwrap();
        panels.validate().unwrap();
        let mut row = vec![0.0; k];
        for r in 0..n {
            assert_eq!(panels.bias(r), r as f32);
            panels.dequantize_row(r, &mut row);
            for (b, (values, scale)) in groups.row(r).enumerate() {
                assert_eq!(panels.scale(r, b), f16_bits_to_f32(scale));
                for (j, value) in values.iter().enumerate() {
                    assert_eq!(panels.weight(r, b * BLOCK + j), *value, "[{r}, {b}, {j}]");
                    let expected = f32::from(*value) * f16_bits_to_f32(scale);
                    assert_eq!(row[b * BLOCK + j], expected);
                }
            }
        }
    }
}

#[test]
fn some_panels_are_weights_of_their_own() {
    let (n, k) = (21, 96);
    let (_, bytes) = packed(n, k);
    let panels = Int4Panels::new(&bytes, n, k).unwrap();
    for (first, count, rows) in [(0, 1, 8), (1, 1, 8), (1, 2, 13), (2, 1, 5), (0, 3, 21)] {
        let some = panels.panel_range(first, count);
        assert_eq!((some.n(), some.k(), some.n_panels()), (rows, k, count));
        for row in 0..rows {
            assert_eq!(some.bias(row), panels.bias(8 * first + row));
            assert_eq!(some.weight(row, 40), panels.weight(8 * first + row, 40));
        }
    }
}

#[test]
fn widened_panels_hold_the_same_weights() {
    let (n, k) = (21, 96);
    let (_, bytes) = packed(n, k);
    let panels = Int4Panels::new(&bytes, n, k).unwrap();
    let mut steps = AlignedBytes::zeroed(2 * panel_stride(k));
    let mut scales = vec![0.0; 2 * k / BLOCK * PANEL_ROWS];
    panels.widen_into(1, &mut steps, &mut scales);
    let wide = crate::Panels::new(&steps, 13, k).unwrap();
    for row in 0..13 {
        assert_eq!(
            (wide.scale(row), wide.bias(row)),
            (1.0, panels.bias(8 + row))
        );
        for col in 0..k {
            assert_eq!(wide.weight(row, col), panels.weight(8 + row, col));
            let place = (row / 8 * k / BLOCK + col / BLOCK) * PANEL_ROWS + row % 8;
            assert_eq!(scales[place], panels.scale(8 + row, col / BLOCK));
        }
    }
}

#[test]
fn wrong_shapes_and_contents_are_errors() {
    let (_, bytes) = packed(8, 64);
    let error = Int4Panels::new(&bytes, 8, 48).unwrap_err();
    assert_eq!(
        error,
        PanelsError::Width {
            k: 48,
            multiple: 32,
            limit: MAX_K
        }
    );
    let error = Int4Panels::new(&bytes[..64], 8, 64).unwrap_err();
    let (got, expected) = (64, int4_byte_len(8, 64));
    assert_eq!(error, PanelsError::Length { got, expected });
    let mut moved = AlignedBytes::zeroed(bytes.len() + 16);
    moved[16..].copy_from_slice(&bytes);
    let error = Int4Panels::new(&moved[16..], 8, 64).unwrap_err();
    assert_eq!(error, PanelsError::Alignment { remainder: 16 });
    let mut spoilt = bytes.clone();
    let infinite = f32_to_f16_bits(f32::INFINITY).to_le_bytes();
    spoilt[BLOCK_BYTES + BLOCK_WEIGHTS + 6..][..2].copy_from_slice(&infinite);
    let error = Int4Panels::new(&spoilt, 8, 64).unwrap().validate();
    assert_eq!(
        error.unwrap_err().to_string(),
        "row 3: a scale is not finite"
    );
}

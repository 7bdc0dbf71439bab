//! Arrays as `.npy` files, format version 1.0 (NumPy's NEP 1).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes an f32 array.
///
/// # Errors
///
/// Whatever writing reports.
pub fn write_f32(
    path: &Path,
    shape: &[usize],
    values: impl Iterator<Item = f32>,
) -> io::Result<()> {
    write(path, "<f4", shape, values.map(f32::to_le_bytes))
}

/// Writes an i64 array.
///
/// # Errors
///
/// Whatever writing reports.
pub fn write_i64(
    path: &Path,
    shape: &[usize],
    values: impl Iterator<Item = i64>,
) -> io::Result<()> {
    write(path, "<i8", shape, values.map(i64::to_le_bytes))
}

fn write<const N: usize>(
    path: &Path,
    descr: &str,
    shape: &[usize],
    values: impl Iterator<Item = [u8; N]>,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&header(descr, shape))?;
    for value in values {
        out.write_all(&value)?;
    }
    out.flush()
}

/// Magic, version, header length and the dictionary, padded to a multiple of 64.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dimensions: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let mut dict =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dimensions}), }}");
    let unpadded = 10 + dict.len() + 1;
    dict.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    dict.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(dict.len() as u16).to_le_bytes());
    bytes.extend_from_slice(dict.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_padded_and_names_the_shape() {
        for shape in [&[5usize][..], &[2, 3, 512, 512], &[]] {
            let bytes = header("<f4", shape);
            assert_eq!(bytes.len() % 64, 0);
            assert_eq!(
                usize::from(bytes[8]) + 256 * usize::from(bytes[9]) + 10,
                bytes.len()
            );
            assert_eq!(bytes.last(), Some(&b'\n'));
        }
        let text = String::from_utf8_lossy(&header("<i8", &[4, 2])[10..]).into_owned();
        assert!(text.starts_with("{'descr': '<i8', 'fortran_order': False, 'shape': (4, 2, ), }"));
    }
}

use super::*;
use crate::config::{ResampleFilter, SamplingDefaults, TextConfig, VisionConfig};
use ocelli_kernels::int4_groups::quantize_int4_groups;
use ocelli_kernels::nibble_panels::split_panels;
use ocelli_kernels::{AlignedBytes, Panels};
use std::io::Cursor;

fn header() -> Header {
    Header {
        name: "test".to_owned(),
        packer: "test".to_owned(),
        panel_layout: panels::LAYOUT_ID.to_owned(),
        int4_panel_layout: int4_panels::LAYOUT_ID.to_owned(),
        config: ModelConfig {
            vision: Some(VisionConfig {
                hidden_size: 16,
                intermediate_size: 32,
                n_layers: 1,
                n_heads: 2,
                image_size: 32,
                patch_size: 8,
                layer_norm_eps: 1e-6,
                scale_factor: 2,
                image_token_id: 3,
            }),
            text: TextConfig {
                hidden_size: 16,
                intermediate_size: 64,
                n_layers: 1,
                n_heads: 2,
                n_kv_heads: 1,
                head_dim: 8,
                vocab_size: 24,
                rope_theta: 1e4,
                rms_norm_eps: 1e-5,
                max_positions: 64,
            },
            tie_word_embeddings: false,
        },
        preprocess: Some(PreprocessConfig {
            tile_size: 32,
            longest_edge: 64,
            do_image_splitting: true,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale_factor: 1.0 / 255.0,
            filter: ResampleFilter::Lanczos,
        }),
        generation: GenerationConfig {
            stop_token_ids: vec![2],
            pad_token_id: 0,
            bos_token_id: None,
            sampling: SamplingDefaults {
                do_sample: false,
                temperature: None,
                top_k: None,
                top_p: None,
                repetition_penalty: None,
            },
        },
        image_seq_len: 4,
        chat_template: "{{ messages }}".to_owned(),
        text_rotation: Rotation::new(16, 1),
        sources: vec![SourceFile {
            name: "a".to_owned(),
            len: 1,
            sha256: [7; 32],
        }],
        tensors: Vec::new(),
        basis: StreamBasis::Rotated,
    }
}

fn plan() -> Vec<PlannedTensor> {
    let tensor = |name: &str, layout, shape, group| PlannedTensor {
        name: name.to_owned(),
        layout,
        shape,
        group,
    };
    vec![
        tensor("blob", Layout::Bytes, [1, 5], 0),
        tensor("matrix", Layout::Panels, [24, 64], 16),
        tensor("half", Layout::F16, [2, 3], 0),
        tensor("small", Layout::Int4Panels, [24, 64], 32),
        tensor(HEAD, Layout::NibblePanels, [24, 64], 0),
    ]
}

fn written(header: Header) -> Vec<u8> {
    let mut writer = PackWriter::new(Cursor::new(Vec::new()), header, &plan()).unwrap();
    let weights: Vec<f32> = (0..24 * 64)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
        .collect();
    writer.write("blob", b"hello").unwrap();
    writer
        .write("matrix", &panels::pack(&weights, None, 24, 64))
        .unwrap();
    writer.write("half", &[1; 12]).unwrap();
    let groups = quantize_int4_groups(&weights, 64);
    let mut small = vec![0; int4_panels::int4_byte_len(24, 64)];
    int4_panels::pack_int4_rows_into(&groups, None, 0, &mut small);
    writer.write("small", &small).unwrap();
    let int8 = AlignedBytes::copy_of(&panels::pack(&weights, None, 24, 64));
    let (mut head, mut low) = (Vec::new(), Vec::new());
    split_panels(Panels::new(&int8, 24, 64).unwrap(), &mut head, &mut low);
    head.append(&mut low);
    writer.write(HEAD, &head).unwrap();
    writer.finish().unwrap().into_inner()
}

fn open(bytes: Vec<u8>) -> Result<Pack, OpenError> {
    Pack::from_region(Region::from_vec(bytes), "test.ocelli")
}

/// A weight of the int8 matrix.
fn matrix_weight(pack: &Pack, row: usize, col: usize) -> i8 {
    let matrix = pack.matrix("matrix", 24, 64).unwrap();
    let WeightPanels::Int8(panels) = pack.panels(&matrix) else {
        panic!("it was written as int8")
    };
    panels.weight(row, col)
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = written(header());
    let pack = open(bytes.clone()).unwrap();
    assert_eq!(pack.blob("blob").unwrap(), b"hello");
    assert_eq!(pack.tensor("half", Layout::F16, [2, 3]).unwrap(), [1; 12]);
    let matrix = pack.matrix("matrix", 24, 64).unwrap();
    assert_eq!(matrix.group, 16);
    let WeightPanels::Int8(panels) = pack.panels(&matrix) else {
        panic!("it was written as int8")
    };
    assert_eq!((panels.n(), panels.k()), (24, 64));
    assert_eq!(panels.bytes().as_ptr().addr() % ALIGNMENT, 0);
    let small = pack.matrix("small", 24, 64).unwrap();
    assert_eq!(small.group, 32);
    let WeightPanels::Int4(panels) = pack.panels(&small) else {
        panic!("it was written as int4")
    };
    assert_eq!((panels.n(), panels.k()), (24, 64));
    panels.validate().unwrap();
    let head = pack.matrix(HEAD, 24, 64).unwrap();
    let WeightPanels::Nibbles(planes) = pack.panels(&head) else {
        panic!("it was written in two planes")
    };
    planes.validate().unwrap();
    for (row, col) in [(0, 0), (7, 63), (23, 31)] {
        assert_eq!(planes.weight(row, col), matrix_weight(&pack, row, col));
    }
    assert_eq!(pack.weights(), WeightScheme::Int4);
    pack.verify().unwrap();
    let mut expected = header();
    expected.tensors = pack.header().tensors.clone();
    assert_eq!(*pack.header(), expected);
    assert_eq!(bytes, written(header()), "equal inputs give equal packs");
}

#[test]
fn packs_of_another_basis_have_another_format() {
    let published = Header {
        basis: StreamBasis::Published,
        ..header()
    };
    for (header, version) in [(header(), 4), (published, 5)] {
        let bytes = written(header.clone());
        assert_eq!(bytes[8..12], [version, 0, 0, 0]);
        assert_eq!(open(bytes.clone()).unwrap().header().basis, header.basis);
        // Nothing may stand behind the header, in either.
        let (_, mut encoded) = header.encode().unwrap();
        encoded.push(0);
        let error = Header::decode(version.into(), &encoded).unwrap_err();
        assert_eq!(error, "1 bytes are left behind it");
    }
}

#[test]
fn a_pack_cut_anywhere_is_refused() {
    let bytes = written(header());
    // The last tensor fills its last line.
    let data_end = bytes.len();
    for len in (0..data_end).step_by(7).chain([data_end - 1]) {
        let error = open(bytes[..len].to_vec()).expect_err("a cut pack must not open");
        assert!(error.to_string().contains("test.ocelli"), "{error}");
    }
}

#[test]
fn every_flipped_bit_is_noticed_by_open_or_verify() {
    let bytes = written(header());
    let pack = open(bytes.clone()).unwrap();
    let covered = |at: usize| {
        at < pack.data_start
            || pack.header().tensors.iter().any(|t| {
                let start = pack.data_start + t.offset as usize;
                (start..start + t.len as usize).contains(&at)
            })
    };
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let noticed = open(damaged).and_then(|pack| pack.verify()).is_err();
        assert_eq!(noticed, covered(at), "byte {at}");
    }
}

/// Replaces the header of a written pack by another, with a right checksum.
fn with_header(bytes: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let (mut header, data_start) = read_prefix(bytes, "test").unwrap();
    change(&mut header);
    let (version, encoded) = header.encode().unwrap();
    let mut out = bytes[..8].to_vec();
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&encoded).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&encoded);
    out.resize(super::data_start(encoded.len()), 0);
    out.extend_from_slice(&bytes[data_start..]);
    out
}

#[test]
fn a_header_that_lies_is_refused_with_the_reason() {
    type Change = fn(&mut Header);
    let cases: [(Change, &str); 20] = [
        (|h| h.tensors[2].offset = 0, "overlap"),
        (|h| h.tensors[1].offset = 1 << 40, "claims"),
        (|h| h.tensors[1].offset = u64::MAX - 63, "claims"),
        (|h| h.tensors[1].offset += 1, "claims"),
        (|h| h.tensors[1].len -= 64, "has"),
        (
            |h| h.tensors[1].shape = [usize::MAX, usize::MAX],
            "cannot hold",
        ),
        (|h| h.tensors[3].shape = [0, 64], "cannot hold"),
        (|h| h.tensors[3].shape = [24, 48], "Int4Panels cannot hold"),
        (
            |h| h.tensors[3].shape = [32, 64],
            "Int4Panels of that shape has",
        ),
        (
            |h| h.tensors[3].layout = Layout::Panels,
            "Panels of that shape has",
        ),
        (
            |h| h.tensors[1].layout = Layout::Int4Panels,
            "Int4Panels of that shape has",
        ),
        (|h| h.tensors[3].group = 16, "only multiples of 32"),
        (
            |h| h.int4_panel_layout = "other".to_owned(),
            "int4 panel layout \"other\"",
        ),
        (|h| h.tensors[1].shape = [24, 48], "has"),
        (|h| h.tensors[1].group = 24, "groups of 24"),
        (|h| h.tensors[2].name = "blob".to_owned(), "twice"),
        (|h| h.panel_layout = "other".to_owned(), "panel layout"),
        (|h| h.image_seq_len = 5, "image_seq_len"),
        (|h| h.text_rotation = Rotation::new(32, 1), "rotation"),
        (|h| h.config.text.n_heads = 0, "num_attention_heads"),
    ];
    let bytes = written(header());
    open(with_header(&bytes, |_| {})).unwrap();
    for (change, expected) in cases {
        let error = open(with_header(&bytes, change)).unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "{error:?} should contain {expected:?}"
        );
    }
}

#[test]
fn another_format_version_asks_to_pack_again() {
    let mut bytes = written(header());
    bytes[8] = 9;
    let error = open(bytes).unwrap_err().to_string();
    assert!(
        error.contains("format 9") && error.contains("pack the model again"),
        "{error}"
    );
}

#[test]
fn a_pack_of_the_format_before_opens() {
    let mut bytes = written(header());
    bytes[8] = 3;
    open(bytes).unwrap();
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let pack = open(written(header())).unwrap();
    let error = pack.matrix("matrix", 24, 48).unwrap_err().to_string();
    assert!(
        error.contains("matrix") && error.contains("[24, 48]"),
        "{error}"
    );
    let error = pack.matrix("small", 24, 32).unwrap_err().to_string();
    assert!(
        error.contains("small is Int4Panels") && error.contains("[24, 32]"),
        "{error}"
    );
    let error = pack.matrix("half", 2, 3).unwrap_err().to_string();
    assert!(error.contains("half is F16"), "{error}");
    let error = pack.matrix("absent", 24, 48).unwrap_err().to_string();
    assert!(error.contains("absent is missing"), "{error}");
}

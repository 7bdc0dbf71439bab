//! Damaged packs.

use std::fs;

use ocelli_runtime::config::{PreprocessConfig, VisionConfig};
use ocelli_runtime::pack::{
    BASIS_VERSION, FORMAT_VERSION, Header, Layout, MAGIC, OpenError, PREFIX_BYTES, Pack,
    TensorEntry,
};
use ocelli_runtime::rotation::Rotation;
use ocelli_runtime::weights::Region;
use ocelli_runtime::{GenerateOptions, LoadError, LoadOptions, ModelSource, Precision, Vlm};

use crate::ruin::{chain, load, sound_grid_pack, sound_int4_pack, sound_pack};

fn open(bytes: &[u8]) -> Result<Pack, OpenError> {
    Pack::from_region(Region::from_vec(bytes.to_vec()), "the test pack")
}

/// Opens and starts a model, checksums of tensors not looked at.
fn start(bytes: &[u8]) -> Result<Vlm, LoadError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("test.ocelli");
    fs::write(&path, bytes).expect("the folder can be written");
    load(&path, Precision::Int8)
}

fn header_length() -> usize {
    header_length_of(sound_pack())
}

fn header_length_of(pack: &[u8]) -> usize {
    let bytes: [u8; 4] = pack[12..16].try_into().expect("four bytes");
    u32::from_le_bytes(bytes) as usize
}

fn vision(header: &mut Header) -> &mut VisionConfig {
    header.config.vision.as_mut().expect("the sound pack sees")
}

fn preprocess(header: &mut Header) -> &mut PreprocessConfig {
    header.preprocess.as_mut().expect("the sound pack sees")
}

/// The sound pack with another header, its checksum right.
fn forged(change: impl FnOnce(&mut Header)) -> Vec<u8> {
    forged_from(sound_pack(), change)
}

/// A pack with another header, its checksum right.
fn forged_from(sound: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let pack = open(sound).expect("the sound pack opens");
    let mut header = pack.header().clone();
    let data = &sound[(PREFIX_BYTES + header_length_of(sound)).next_multiple_of(64)..];
    change(&mut header);
    let (version, header) = header.encode().expect("a header can be written");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&header);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend_from_slice(data);
    bytes
}

/// The sound pack's rotation with another odd part, as the format stores it.
fn rotation(rest: usize) -> Rotation {
    let pack = open(sound_pack()).expect("the sound pack opens");
    let bytes = postcard::to_stdvec(&pack.header().text_rotation).expect("it can be written");
    let (signs, mix, _): (Vec<f32>, Vec<f32>, usize) =
        postcard::from_bytes(&bytes).expect("signs, mix and odd part");
    let bytes = postcard::to_stdvec(&(signs, mix, rest)).expect("it can be written");
    postcard::from_bytes(&bytes).expect("any odd part can be read")
}

#[test]
fn a_sound_pack_opens_and_so_does_its_forgery() {
    open(sound_pack())
        .expect("the sound pack opens")
        .verify()
        .expect("every checksum holds");
    assert_eq!(forged(|_| ()), sound_pack());
    start(sound_pack()).expect("the sound pack starts");
}

#[test]
fn truncated_packs_are_refused_at_every_length() {
    let whole = sound_pack();
    let header = PREFIX_BYTES + header_length();
    let near_header = header - 70..header + 70;
    let spread = (0..whole.len() - 64).step_by(4099);
    for length in (0..PREFIX_BYTES + 9)
        .chain(near_header)
        .chain(spread)
        .chain([whole.len() - 64])
    {
        let Err(error) = open(&whole[..length]) else {
            panic!("{length} bytes open")
        };
        assert!(
            error.to_string().contains("the test pack"),
            "{length} bytes: {error}"
        );
    }
}

#[test]
fn every_flipped_bit_before_the_tensors_is_found() {
    let mut bytes = sound_pack().to_vec();
    let header_bits = 8 * (PREFIX_BYTES + header_length());
    for bit in (0..8 * PREFIX_BYTES).chain((8 * PREFIX_BYTES..header_bits).step_by(13)) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Err(error) = open(&bytes) else {
            panic!("bit {bit} of byte {} is not noticed", bit / 8)
        };
        assert!(
            error.to_string().contains("the test pack"),
            "bit {bit}: {error}"
        );
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_flipped_tensor_bit_is_found_by_verify() {
    let pack = open(sound_pack()).expect("the sound pack opens");
    let data = (PREFIX_BYTES + header_length()).next_multiple_of(64);
    let mut bytes = sound_pack().to_vec();
    for entry in &pack.header().tensors {
        let begin = data + entry.offset as usize;
        for (at, bit) in [
            (begin, 0),
            (begin + entry.len as usize / 2, 3),
            (begin + entry.len as usize - 1, 7),
        ] {
            bytes[at] ^= 1 << bit;
            let error = open(&bytes).expect("tensors are not read on open").verify();
            let error = error.expect_err("a flipped bit is noticed").to_string();
            assert!(error.contains(&entry.name), "{error}");
            bytes[at] ^= 1 << bit;
        }
    }
}

/// A model on flipped weights may say anything, but it says it.
#[test]
fn flipped_tensor_bits_do_not_panic() {
    for sound in [sound_pack(), sound_int4_pack(), sound_grid_pack()] {
        let pack = open(sound).expect("the sound pack opens");
        let data = (PREFIX_BYTES + header_length_of(sound)).next_multiple_of(64);
        let mut bytes = sound.to_vec();
        for entry in pack
            .header()
            .tensors
            .iter()
            .filter(|entry| entry.layout != Layout::Bytes)
        {
            let begin = data + entry.offset as usize;
            for byte in bytes[begin..begin + entry.len as usize]
                .iter_mut()
                .step_by(5)
            {
                *byte ^= 0x7F;
            }
        }
        let model = start(&bytes).expect("weights are not judged");
        let mut session = model.session().expect("a session starts");
        let ids = [1, 398, 398, 398, 398, 5];
        let _ = session.prompt_ids(&ids, &[vec![200; 64 * 64 * 3]]);
        let options = GenerateOptions {
            max_tokens: 4,
            ..GenerateOptions::default()
        };
        let _ = session.generate(options).map(|mut g| g.rest());
    }
}

/// Index of an int4 matrix.
fn int4_at(header: &Header) -> usize {
    let tensors = &header.tensors;
    let at = tensors.iter().position(|t| t.layout == Layout::Int4Panels);
    at.expect("an int4 pack has int4 matrices")
}

fn rename(header: &mut Header, from: &str, to: &str) {
    let entry = header.tensors.iter_mut().find(|t| t.name == from);
    entry.expect("the int4 pack has it").name = to.to_owned();
}

#[test]
fn two_planes_are_the_heads_alone() {
    type Change = fn(&mut TensorEntry);
    let cases: &[(&str, Change)] = &[
        ("cannot be NibblePanels, only text.head", |t| {
            t.name = "text.tail".into()
        }),
        ("with groups of 32 cannot be NibblePanels", |t| t.group = 32),
        ("which NibblePanels cannot hold", |t| t.shape[1] += 16),
        ("of that shape has", |t| t.shape[0] += 8),
        ("NibblePanels of that shape has", |t| t.len -= 64),
        ("Panels of that shape has", |t| t.layout = Layout::Panels),
    ];
    for (wanted, change) in cases {
        let bytes = forged(|header| {
            let head = header.tensors.iter_mut().find(|t| t.name == "text.head");
            let head = head.expect("a pack has a head");
            assert_eq!(head.layout, Layout::NibblePanels);
            change(head);
        });
        let Err(error) = start(&bytes) else {
            panic!("{wanted}: it is believed")
        };
        let text = chain(&error);
        assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
    }
}

#[test]
fn int4_headers_that_lie_are_refused_with_tensor_and_reason() {
    type Change = fn(&mut Header, usize);
    let cases: &[(&str, Change)] = &[
        ("int4 panel layout", |h, _| {
            h.int4_panel_layout = "9x9".into()
        }),
        ("Panels of that shape has", |h, at| {
            h.tensors[at].layout = Layout::Panels
        }),
        ("of that shape has", |h, at| h.tensors[at].len -= 64),
        ("which Int4Panels cannot hold", |h, at| {
            h.tensors[at].shape[1] += 16
        }),
        ("of that shape has", |h, at| h.tensors[at].shape[1] += 32),
        ("which Int4Panels cannot hold", |h, at| {
            h.tensors[at].shape[0] = 0
        }),
        ("which Int4Panels cannot hold", |h, at| {
            h.tensors[at].shape[0] = usize::MAX
        }),
        ("groups of 16, only multiples of 32", |h, at| {
            h.tensors[at].group = 16
        }),
        ("groups of 96", |h, at| h.tensors[at].group = 96),
        ("text.0.qkv is missing", |h, _| {
            rename(h, "text.0.v", "text.0.w")
        }),
        ("text.0.qk is missing", |h, _| {
            rename(h, "text.0.qk", "text.0.qkv")
        }),
        ("claims", |h, at| h.tensors[at].offset = 1 << 40),
    ];
    start(&forged_from(sound_int4_pack(), |_| ())).expect("the sound pack starts");
    for (wanted, change) in cases {
        let bytes = forged_from(sound_int4_pack(), |header| change(header, int4_at(header)));
        let Err(error) = start(&bytes) else {
            panic!("{wanted}: it is believed")
        };
        let text = chain(&error);
        assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
    }
}

#[test]
fn headers_of_packs_on_a_grid_that_lie_are_refused_with_tensor_and_reason() {
    type Change = fn(&mut Header);
    fn tensor<'h>(header: &'h mut Header, name: &str) -> &'h mut TensorEntry {
        let entry = header.tensors.iter_mut().find(|t| t.name == name);
        entry.expect("the pack has it")
    }
    let cases: &[(&str, Change)] = &[
        ("text.1.gate_up_norm is missing", |h| {
            rename(h, "text.1.gate_up_norm", "text.1.norm")
        }),
        ("text.0.qkv_norm is", |h| {
            tensor(h, "text.0.qkv_norm").layout = Layout::F16;
            tensor(h, "text.0.qkv_norm").shape[1] *= 2;
        }),
        ("tensor text.0.v has groups of 32", |h| {
            tensor(h, "text.0.v").group = 32
        }),
    ];
    start(&forged_from(sound_grid_pack(), |_| ())).expect("the sound pack starts");
    for (wanted, change) in cases {
        let Err(error) = start(&forged_from(sound_grid_pack(), change)) else {
            panic!("{wanted}: it is believed")
        };
        let text = chain(&error);
        assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
    }
    // A header of one format under the number of the other.
    for (sound, version) in [
        (sound_grid_pack(), FORMAT_VERSION),
        (sound_pack(), BASIS_VERSION),
    ] {
        let mut bytes = sound.to_vec();
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let error = open(&bytes).expect_err("it is another format").to_string();
        assert!(error.contains("the header cannot be read"), "{error}");
    }
}

#[test]
fn a_norm_of_no_numbers_is_refused() {
    let mut bytes = sound_grid_pack().to_vec();
    let pack = open(&bytes).expect("the sound pack opens");
    let norm = pack
        .header()
        .tensors
        .iter()
        .find(|t| t.name == "text.1.qkv_norm");
    let at = pack.data_start() + norm.expect("norms have weights").offset as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = chain(&start(&bytes).expect_err("NaN is no weight"));
    assert!(error.contains("text.1.qkv_norm holds NaN"), "{error}");
}

#[test]
fn an_int4_pack_is_refused_at_every_length() {
    let whole = sound_int4_pack();
    for length in (0..whole.len() - 64)
        .step_by(1021)
        .chain([whole.len() - 64])
    {
        assert!(open(&whole[..length]).is_err(), "{length} bytes open");
    }
}

#[test]
fn things_that_are_no_pack_are_refused() {
    for bytes in [
        &b""[..],
        b"OCELLIPK",
        b"\x89PNG\r\n\x1a\n",
        &[0; 4096],
        &[0xFF; 4096],
    ] {
        assert!(open(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn another_format_version_says_so() {
    let mut bytes = sound_pack().to_vec();
    for version in [0u32, 1, 77, u32::MAX] {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let error = open(&bytes)
            .expect_err("another version is refused")
            .to_string();
        assert!(error.contains(&version.to_string()), "{error}");
    }
}

#[test]
fn header_lengths_that_lie_are_refused() {
    let sound = header_length() as u32;
    let mut bytes = sound_pack().to_vec();
    for lie in [
        0,
        1,
        sound - 1,
        sound + 1,
        sound + 64,
        16 << 20,
        (16 << 20) + 1,
        u32::MAX,
    ] {
        bytes[12..16].copy_from_slice(&lie.to_le_bytes());
        assert!(open(&bytes).is_err(), "{lie}");
    }
}

/// Headers whose checksum is right and whose content is not.
#[test]
fn headers_that_lie_are_refused() {
    type Change = fn(&mut Header);
    let cases: &[(&str, Change)] = &[
        ("an offset off alignment", |h| h.tensors[3].offset += 4),
        ("an offset beyond the end", |h| {
            h.tensors[3].offset = 1 << 40
        }),
        ("an offset that overflows", |h| {
            h.tensors[3].offset = u64::MAX - 63
        }),
        ("a length beyond the end", |h| h.tensors[3].len = 1 << 40),
        ("a length of nothing", |h| h.tensors[3].len = 0),
        ("a shape of another size", |h| h.tensors[3].shape[0] += 8),
        ("a shape of nothing", |h| h.tensors[3].shape = [0, 0]),
        ("a shape that overflows", |h| {
            h.tensors[3].shape = [usize::MAX, usize::MAX]
        }),
        ("groups that do not divide", |h| h.tensors[3].group = 48),
        ("groups beyond the row", |h| h.tensors[3].group = 1 << 40),
        ("a tensor twice", |h| {
            h.tensors[4].name = h.tensors[3].name.clone()
        }),
        ("two tensors in one place", |h| {
            h.tensors[2].offset = h.tensors[1].offset
        }),
        ("a missing tensor", |h| drop(h.tensors.remove(3))),
        ("no tensors", |h| h.tensors.clear()),
        ("another name", |h| {
            h.tensors[3].name = "vision.0.qkw".into()
        }),
        ("another layout", |h| h.tensors[2].layout = Layout::Bytes),
        ("another panel layout", |h| h.panel_layout = "9x9".into()),
        ("no heads", |h| h.config.text.n_heads = 0),
        ("heads of four values", |h| {
            let text = &mut h.config.text;
            text.n_heads *= text.head_dim / 4;
            text.n_kv_heads *= text.head_dim / 4;
            text.head_dim = 4;
        }),
        ("vision heads of four values", |h| {
            vision(h).n_heads = vision(h).hidden_size / 4
        }),
        ("more layers than tensors", |h| h.config.text.n_layers = 3),
        ("a wider model", |h| h.config.text.hidden_size *= 2),
        ("no patches", |h| vision(h).patch_size = 0),
        ("patches beyond the picture", |h| vision(h).patch_size = 65),
        ("a scale factor of nothing", |h| vision(h).scale_factor = 0),
        ("an epsilon that is no number", |h| {
            h.config.text.rms_norm_eps = f32::NAN
        }),
        ("a rope theta of nothing", |h| {
            h.config.text.rope_theta = 0.0
        }),
        ("an image token beyond the vocabulary", |h| {
            vision(h).image_token_id = 400
        }),
        ("a stop token beyond the vocabulary", |h| {
            h.generation.stop_token_ids = vec![400]
        }),
        ("no stop token", |h| h.generation.stop_token_ids.clear()),
        ("another tile size", |h| preprocess(h).tile_size = 65),
        ("a tile size of nothing", |h| preprocess(h).tile_size = 0),
        ("a std of nothing", |h| preprocess(h).std = [0.0; 3]),
        ("a mean that is no number", |h| {
            preprocess(h).mean = [f32::NAN; 3]
        }),
        ("shapes to see with, but no preprocessing", |h| {
            h.preprocess = None
        }),
        ("preprocessing, but nothing to see with", |h| {
            h.config.vision = None
        }),
        ("other image tokens a frame", |h| h.image_seq_len = 5),
        ("a rotation of nothing", |h| h.text_rotation = rotation(0)),
        ("a rotation of another width", |h| {
            h.text_rotation = rotation(3)
        }),
        ("a rotation that overflows", |h| {
            h.text_rotation = rotation(usize::MAX)
        }),
        ("a broken chat template", |h| {
            h.chat_template = "{% for".into()
        }),
    ];
    let mut accepted = Vec::new();
    for (what, change) in cases {
        match start(&forged(*change)) {
            Err(error) => println!("{what}: {}", chain(&error)),
            Ok(_) => accepted.push(*what),
        }
    }
    assert!(accepted.is_empty(), "these lies are believed: {accepted:?}");
}

/// Packs hold int8 weights only; the checking path says what it needs.
#[test]
fn a_pack_cannot_run_in_f32() {
    let options = LoadOptions {
        threads: 1,
        precision: Precision::F32,
        ..LoadOptions::default()
    };
    let source = ModelSource::Embedded("sound", sound_pack());
    let error =
        Vlm::load(&source, &options, &mut |_, _| {}).expect_err("a pack has no f32 weights");
    assert!(error.to_string().contains("f32"), "{error}");
}

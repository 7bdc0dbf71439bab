//! Random weights in the shapes of the published models, as a pack: for speed, not for sense.

use super::tokenizer::{IMAGE_TOKEN_FROM_END, tokenizer_json};
use clap::ValueEnum;
use ocelli_kernels::int4_groups::Int4Groups;
use ocelli_kernels::nibble_panels::split_panels;
use ocelli_kernels::{AlignedBytes, Panels, half, int4_panels, panels};
use ocelli_runtime::config::{
    GenerationConfig, ModelConfig, PreprocessConfig, ResampleFilter, SamplingDefaults, TextConfig,
    VisionConfig,
};
use ocelli_runtime::pack::{
    Header, Layout, PackError, PackWriter, PlannedTensor, StreamBasis, WeightScheme,
};
use ocelli_runtime::packer::{self, TokenizerBlobs};
use ocelli_runtime::rotation::Rotation;
use std::io::{Seek, Write};
use std::str::FromStr;

/// Seed of the weights.
const SEED: u64 = 0x0CE1_1BE7;
/// Standard deviation of int8 values that are uniform from -127 to 127.
const INT8_DEVIATION: f32 = 73.3;
/// The same of int4 values that are uniform from -8 to 7.
const INT4_DEVIATION: f32 = 4.6;

/// A published model whose shape is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// SmolVLM-256M-Instruct and SmolVLM2-256M.
    #[value(name = "smolvlm-256m")]
    Smolvlm256m,
    /// SmolVLM-500M-Instruct and SmolVLM2-500M.
    #[value(name = "smolvlm-500m")]
    Smolvlm500m,
    /// SmolVLM2-2.2B-Instruct; its image tile has 384 px.
    #[value(name = "smolvlm-2.2b")]
    Smolvlm2b,
}

/// Numbers of layers, `VISION,DECODER` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Layers of the vision encoder.
    pub vision: usize,
    /// Layers of the decoder.
    pub decoder: usize,
}

impl FromStr for Depth {
    type Err = String;

    fn from_str(text: &str) -> Result<Depth, String> {
        let limit = ocelli_runtime::config::MAX_LAYERS;
        let layers = |text: &str| text.trim().parse().ok().filter(|n| (1..=limit).contains(n));
        text.split_once(',')
            .and_then(|(vision, decoder)| {
                Some(Depth {
                    vision: layers(vision)?,
                    decoder: layers(decoder)?,
                })
            })
            .ok_or_else(|| {
                format!("two numbers of layers from 1 to {limit} are wanted, as in 12,30")
            })
    }
}

impl Shape {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The published configuration, on request with another depth.
    pub fn config(self, depth: Option<Depth>) -> ModelConfig {
        let small_vision = VisionConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            n_layers: 12,
            n_heads: 12,
            image_size: 512,
            patch_size: 16,
            layer_norm_eps: 1e-6,
            scale_factor: 4,
            image_token_id: 0,
        };
        let text = TextConfig {
            hidden_size: 576,
            intermediate_size: 1536,
            n_layers: 30,
            n_heads: 9,
            n_kv_heads: 3,
            head_dim: 64,
            vocab_size: 49_280,
            rope_theta: 100_000.0,
            rms_norm_eps: 1e-5,
            max_positions: 8192,
        };
        let (mut vision, mut text) = match self {
            Shape::Smolvlm256m => (small_vision, text),
            Shape::Smolvlm500m => {
                let text = TextConfig {
                    hidden_size: 960,
                    intermediate_size: 2560,
                    n_layers: 32,
                    n_heads: 15,
                    n_kv_heads: 5,
                    ..text
                };
                (small_vision, text)
            }
            Shape::Smolvlm2b => {
                let vision = VisionConfig {
                    hidden_size: 1152,
                    intermediate_size: 4304,
                    n_layers: 27,
                    n_heads: 16,
                    image_size: 384,
                    patch_size: 14,
                    scale_factor: 3,
                    ..small_vision
                };
                let text = TextConfig {
                    hidden_size: 2048,
                    intermediate_size: 8192,
                    n_layers: 24,
                    n_heads: 32,
                    n_kv_heads: 32,
                    rope_theta: 130_000.0,
                    ..text
                };
                (vision, text)
            }
        };
        vision.image_token_id = (text.vocab_size - IMAGE_TOKEN_FROM_END) as u32;
        if let Some(depth) = depth {
            vision.n_layers = depth.vision;
            text.n_layers = depth.decoder;
        }
        ModelConfig {
            vision: Some(vision),
            text,
            tie_word_embeddings: false,
        }
    }
}

/// Writes a pack of random weights, one tensor in memory at a time.
///
/// # Errors
///
/// Whatever writing reports.
pub(super) fn write_pack<W: Write + Seek>(
    name: &str,
    config: &ModelConfig,
    weights: WeightScheme,
    out: W,
    progress: packer::Progress<'_>,
) -> Result<W, PackError> {
    let tokenizer = tokenizer_json(config.text.vocab_size);
    let tokenizer = TokenizerBlobs::new(tokenizer.as_bytes());
    let plan = packer::plan(config, &tokenizer, &weights.into());
    let mut writer = PackWriter::new(out, header(name, config), &plan)?;
    let mut random = Xorshift(SEED);
    for (done, tensor) in plan.iter().enumerate() {
        match tokenizer.iter().find(|(name, _)| *name == tensor.name) {
            Some((name, bytes)) => writer.write(name, bytes)?,
            None => writer.write(&tensor.name, &random_bytes(tensor, &mut random))?,
        }
        progress(done + 1, plan.len());
    }
    writer.finish()
}

fn header(name: &str, config: &ModelConfig) -> Header {
    let last = (config.text.vocab_size - 1) as u32;
    Header {
        name: format!("{name}, random weights"),
        packer: concat!("ocelli ", env!("CARGO_PKG_VERSION"), " bench").to_owned(),
        panel_layout: panels::LAYOUT_ID.to_owned(),
        int4_panel_layout: int4_panels::LAYOUT_ID.to_owned(),
        config: config.clone(),
        preprocess: config.vision.as_ref().map(|vision| PreprocessConfig {
            tile_size: vision.image_size,
            longest_edge: 4 * vision.image_size,
            do_image_splitting: true,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale_factor: 1.0 / 255.0,
            filter: ResampleFilter::Lanczos,
        }),
        generation: GenerationConfig {
            stop_token_ids: vec![last],
            pad_token_id: 2,
            bos_token_id: None,
            sampling: SamplingDefaults::default(),
        },
        image_seq_len: config.image_tokens_per_tile(),
        chat_template: "{% for message in messages %}{{ message.role }}: {% for part in message.content %}\
            {% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
            .to_owned(),
        text_rotation: Rotation::new(config.text.hidden_size, SEED),
        sources: Vec::new(),
        tensors: Vec::new(),
        basis: StreamBasis::Rotated,
    }
}

/// The bytes of a weight tensor: uniform values whose products keep the size of their input.
fn random_bytes(tensor: &PlannedTensor, random: &mut Xorshift) -> Vec<u8> {
    let [rows, columns] = tensor.shape;
    match tensor.layout {
        Layout::F32 => (0..rows * columns)
            .flat_map(|_| (f32::from(random.int8()) / 127.0).to_le_bytes())
            .collect(),
        // Sign and mantissa at random, magnitude from 0.25 to 0.5.
        Layout::F16 => (0..rows * columns)
            .flat_map(|_| (random.next() as u16 & 0x83FF | 0x3400).to_le_bytes())
            .collect(),
        Layout::Int4Panels => random_int4_panels(rows, columns, random),
        Layout::NibblePanels => random_nibble_panels(rows, columns, random),
        _ => random_panels(rows, columns, random).to_vec(),
    }
}

fn random_nibble_panels(n: usize, k: usize, random: &mut Xorshift) -> Vec<u8> {
    let bytes = random_panels(n, k, random);
    let panels = Panels::new(&bytes, n, k).expect("made of this shape");
    let (mut planes, mut low) = (Vec::new(), Vec::new());
    split_panels(panels, &mut planes, &mut low);
    planes.append(&mut low);
    planes
}

fn random_panels(n: usize, k: usize, random: &mut Xorshift) -> AlignedBytes {
    let scale = 1.0 / (INT8_DEVIATION * (k as f32).sqrt());
    let mut packed = AlignedBytes::zeroed(panels::byte_len(n, k));
    let mut weights = vec![0_i8; panels::PANEL_ROWS * k];
    for first in (0..n).step_by(panels::PANEL_ROWS) {
        let rows = panels::PANEL_ROWS.min(n - first);
        let weights = &mut weights[..rows * k];
        random.fill(weights);
        let scales = [scale; panels::PANEL_ROWS];
        panels::pack_int8_rows_into(weights, &scales[..rows], None, first, k, &mut packed);
    }
    packed
}

fn random_int4_panels(n: usize, k: usize, random: &mut Xorshift) -> Vec<u8> {
    let scale = 1.0 / (INT4_DEVIATION * (k as f32).sqrt());
    let scale = half::f32_to_f16_bits(scale);
    let mut packed = vec![0; int4_panels::int4_byte_len(n, k)];
    for first in (0..n).step_by(panels::PANEL_ROWS) {
        let rows = panels::PANEL_ROWS.min(n - first);
        let mut weights = vec![0_i8; rows * k];
        random.fill(&mut weights);
        weights.iter_mut().for_each(|weight| *weight >>= 4);
        let scales = vec![scale; rows * k / int4_panels::BLOCK];
        let groups = Int4Groups::new(weights, scales, k);
        int4_panels::pack_int4_rows_into(&groups, None, first, &mut packed);
    }
    packed
}

/// The xorshift64* generator (Vigna 2016).
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// -127 to 127.
    fn int8(&mut self) -> i8 {
        ((self.next() >> 56) as u8 as i8).max(-127)
    }

    fn fill(&mut self, weights: &mut [i8]) {
        for eight in weights.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            for (weight, byte) in eight.iter_mut().zip(bytes) {
                *weight = (byte as i8).max(-127);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rounds::{self, Lengths};
    use super::super::work::Work;
    use super::*;
    use ocelli_kernels::Compute;
    use ocelli_runtime::Vlm;
    use ocelli_runtime::pack::Pack;
    use ocelli_runtime::weights::Region;
    use std::io::Cursor;
    use std::sync::Arc;

    fn small() -> ModelConfig {
        let shape = Shape::Smolvlm256m.config(Some(Depth {
            vision: 1,
            decoder: 2,
        }));
        let vision = shape.vision.map(|vision| VisionConfig {
            hidden_size: 48,
            intermediate_size: 96,
            n_heads: 3,
            image_size: 64,
            image_token_id: (1003 - IMAGE_TOKEN_FROM_END) as u32,
            ..vision
        });
        ModelConfig {
            vision,
            text: TextConfig {
                hidden_size: 64,
                intermediate_size: 96,
                n_heads: 2,
                n_kv_heads: 1,
                head_dim: 32,
                vocab_size: 1003,
                max_positions: 64,
                ..shape.text
            },
            ..shape
        }
    }

    fn pack(config: &ModelConfig, weights: WeightScheme) -> Pack {
        let out = Cursor::new(Vec::new());
        let bytes = write_pack("small", config, weights, out, &mut |_, _| {}).unwrap();
        Pack::from_region(Region::from_vec(bytes.into_inner()), "test").unwrap()
    }

    #[test]
    fn every_published_shape_is_a_valid_configuration() {
        for shape in Shape::value_variants() {
            let config = shape.config(None);
            config.validate(&shape.name()).unwrap();
            let preprocess = header(&shape.name(), &config).preprocess.unwrap();
            let vision = config.vision.as_ref().unwrap();
            preprocess.validate("header", vision).unwrap();
        }
        let depth = Some(Depth {
            vision: 3,
            decoder: 4,
        });
        let config = Shape::Smolvlm2b.config(depth);
        let vision_layers = config.vision.map(|vision| vision.n_layers);
        assert_eq!((vision_layers, config.text.n_layers), (Some(3), 4));
    }

    const LENGTHS: Lengths = Lengths {
        prefill: 5,
        decode: 3,
        all_logits: false,
    };

    fn load(config: &ModelConfig, weights: WeightScheme) -> Vlm {
        let pack = pack(config, weights);
        pack.verify().unwrap();
        let compute = Arc::new(Compute::new(1).unwrap());
        Vlm::from_pack(Arc::new(pack), compute).unwrap()
    }

    #[test]
    fn a_synthetic_pack_loads_and_every_stage_gives_finite_numbers() {
        for weights in [WeightScheme::Int8, WeightScheme::Int4] {
            let vlm = load(&small(), weights);
            assert_eq!(vlm.weights_name(), weights.name());
            let mut session = vlm.session().unwrap();
            let round = rounds::round(&vlm, &mut session, LENGTHS).unwrap();
            assert!(round.encode.is_some());
            let logits = session.logits().unwrap();
            assert!(logits.iter().all(|logit| logit.is_finite()));
            assert!(logits.iter().any(|logit| *logit != 0.0));
            let frame = vec![9; 64 * 64 * 3];
            let features = session.encode(&frame).unwrap();
            assert!(features.iter().all(|value| value.is_finite()));
            assert!(features.iter().any(|value| *value != 0.0));
        }
    }

    #[test]
    fn a_model_that_reads_text_only_is_measured_without_an_image_tile() {
        let config = ModelConfig {
            vision: None,
            ..small()
        };
        let vlm = load(&config, WeightScheme::Int8);
        let mut session = vlm.session().unwrap();
        let round = rounds::round(&vlm, &mut session, LENGTHS).unwrap();
        assert_eq!(round.encode, None);
        assert!(round.prefill > 0.0 && round.decode_rate > 0.0);
        let work = Work::of(vlm.pack().unwrap().header(), LENGTHS);
        assert_eq!(work.encode_macs, None);
        assert!(work.prefill_macs > 0.0);
        let fault = rounds::tile(&vlm, &mut session).unwrap_err();
        assert!(fault.to_string().contains("reads text only"), "{fault}");
    }

    #[test]
    fn a_synthetic_pack_is_the_same_every_time() {
        for weights in [WeightScheme::Int8, WeightScheme::Int4] {
            let bytes = || {
                let out = Cursor::new(Vec::new());
                let bytes = write_pack("small", &small(), weights, out, &mut |_, _| {}).unwrap();
                bytes.into_inner()
            };
            assert!(bytes() == bytes());
        }
    }

    const GOAL_LENGTHS: Lengths = Lengths {
        prefill: 84,
        decode: 64,
        all_logits: false,
    };

    /// The work of the whole 256M shape, from the tensor table alone.
    fn work_of_256m(weights: WeightScheme) -> Work {
        let config = Shape::Smolvlm256m.config(None);
        let entry = |tensor: &PlannedTensor| ocelli_runtime::pack::TensorEntry {
            name: tensor.name.clone(),
            layout: tensor.layout,
            shape: tensor.shape,
            group: tensor.group,
            offset: 0,
            len: tensor.layout.byte_len(tensor.shape).unwrap(),
            crc32: [0; 4],
        };
        let mut header = header("256m", &config);
        header.tensors = packer::plan(&config, &TokenizerBlobs::new(b"{}"), &weights.into())
            .iter()
            .map(entry)
            .collect();
        Work::of(&header, GOAL_LENGTHS)
    }

    /// The figures of the goals: 107.4 GMAC a tile, 9.07 GMAC of prefill.
    #[test]
    fn the_work_of_the_256m_shape_is_what_its_arithmetic_says() {
        for weights in [WeightScheme::Int8, WeightScheme::Int4] {
            let work = work_of_256m(weights);
            let encode_macs = work.encode_macs.unwrap();
            assert!((encode_macs / 1e9 - 107.36).abs() < 0.01, "{work:?}");
            assert!((work.prefill_macs / 1e9 - 9.07).abs() < 0.01, "{work:?}");
            let keys_and_values = (84.0 + 32.0) * 23_040.0;
            assert_eq!(work.decode_bytes, work.token_bytes as f64 + keys_and_values);
        }
    }

    /// Ideal: every weight, of the head its high half, and every scale once, nothing else.
    #[test]
    fn a_token_of_the_256m_shape_reads_at_most_2_percent_more_than_its_weights_and_scales() {
        let config = Shape::Smolvlm256m.config(None);
        let ideal = |weights: WeightScheme| -> f64 {
            let plan = packer::plan(&config, &TokenizerBlobs::new(b"{}"), &weights.into());
            let matrices = plan.iter().filter(|t| t.name.starts_with("text."));
            let bytes = matrices.map(|t| match (t.layout, t.shape) {
                (Layout::Panels, [n, k]) => n * k + 4 * n,
                (Layout::NibblePanels, [n, k]) => n * k / 2 + 4 * n,
                (Layout::Int4Panels, [n, k]) => n * k / 2 + 2 * n * k / int4_panels::BLOCK,
                _ => 0,
            });
            bytes.sum::<usize>() as f64
        };
        for (weights, expected) in [(WeightScheme::Int8, 121.2e6), (WeightScheme::Int4, 75.6e6)] {
            let ideal = ideal(weights);
            assert!((ideal - expected).abs() < 0.1e6, "{weights:?}: {ideal}");
            let share = work_of_256m(weights).token_bytes as f64 / ideal;
            assert!((1.0..1.02).contains(&share), "{weights:?}: {share}");
        }
    }

    #[test]
    fn a_depth_is_two_numbers_of_layers() {
        let depth = |text: &str| text.parse::<Depth>();
        assert_eq!(
            depth("12,30"),
            Ok(Depth {
                vision: 12,
                decoder: 30
            })
        );
        for odd in ["", "12", "0,1", "1,0", "1,2,3", "a,b", "1,99999"] {
            assert!(depth(odd).is_err(), "{odd:?}");
        }
    }
}

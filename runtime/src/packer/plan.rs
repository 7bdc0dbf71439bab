//! Which tensors a pack of a shape has, in which layouts.

use super::layer::Input;
use super::storage::Storage;
use super::{PackModelError, PackOptions, TokenizerBlobs};
use crate::config::{ModelConfig, TextConfig};
use crate::pack::{
    HEAD, Layout, PlannedTensor, StreamBasis, WeightScheme, splits, unfit_for_kernels,
};
use crate::weights::ALIGNMENT;
use ocelli_kernels::int4_panels::BLOCK;

/// Activations along k that share a scale where no rotation reaches them: in front of
/// `down_proj`, and in the vision tower in front of `out_proj` and `fc2`.
pub const GROUP: usize = 64;

/// The matrix behind `silu(gate)·up`.
const DOWN: &str = "down";

/// Refuses shapes that the kernels cannot run.
pub(super) fn check_shapes(
    config: &ModelConfig,
    storage: &Storage,
    options: &PackOptions,
) -> Result<(), PackModelError> {
    if let Some((field, value, multiple)) = unfit_for_kernels(config) {
        return Err(PackModelError::Shape {
            field,
            value,
            multiple,
        });
    }
    // What lies on a grid has the shape for it.
    let rounds_to_int4 = *storage == Storage::Rotated(WeightScheme::Int4);
    match rounds_to_int4 || !options.exceptions.is_empty() {
        true => check_int4_shapes(&config.text),
        false => Ok(()),
    }
}

fn check_int4_shapes(text: &TextConfig) -> Result<(), PackModelError> {
    let widths = [
        ("text_config.hidden_size", text.hidden_size),
        (
            "text_config.num_attention_heads · head_dim",
            text.n_heads * text.head_dim,
        ),
        ("text_config.intermediate_size", text.intermediate_size),
    ];
    match widths
        .into_iter()
        .find(|(_, width)| !width.is_multiple_of(BLOCK))
    {
        Some((field, value)) => Err(PackModelError::Int4Shape {
            field,
            value,
            multiple: BLOCK,
        }),
        None => Ok(()),
    }
}

/// Refuses exceptions that name no decoder matrix of the plan.
pub(super) fn check_exceptions(
    plan: &[PlannedTensor],
    options: &PackOptions,
) -> Result<(), PackModelError> {
    let is_matrix = |name: &str| {
        let mut tensors = plan.iter();
        tensors.any(|t| t.name == name && name.starts_with("text.") && t.layout.is_panels())
    };
    match options.exceptions.iter().find(|name| !is_matrix(name)) {
        Some(name) => Err(PackModelError::UnknownException { name: name.clone() }),
        None => Ok(()),
    }
}

/// How a decoder matrix is stored that is usually stored in the way of `usual`.
fn decoder_layout(options: &PackOptions, name: &str, usual: WeightScheme) -> Layout {
    let is_exception = options.exceptions.iter().any(|other| other == name);
    match (usual == WeightScheme::Int4) != is_exception {
        true => Layout::Int4Panels,
        false => Layout::Panels,
    }
}

/// Refuses spare bytes that change nothing in a pack of int4 weights.
pub(super) fn check_spare(
    t: &TextConfig,
    storage: &Storage,
    options: &PackOptions,
) -> Result<(), PackModelError> {
    let percent = options.spare_percent;
    match storage {
        _ if percent == 0 => Ok(()),
        Storage::Rotated(WeightScheme::Int8) => Ok(()),
        Storage::OnGrid(_) => Err(PackModelError::SpareOnGrid { percent }),
        Storage::Rotated(WeightScheme::Int4) => {
            if spared_layers(t, options, storage).contains(&true) {
                return Ok(());
            }
            let (all, extra) = int4_and_extra_bytes(t, options, storage);
            let least = (u128::from(extra) * 100).div_ceil(all.max(1));
            let least = u64::try_from(least).unwrap_or(u64::MAX);
            Err(PackModelError::SpareTooLittle { percent, least })
        }
    }
}

/// Bytes of all layers, and how many more `down` of one layer takes in int8.
fn int4_and_extra_bytes(t: &TextConfig, options: &PackOptions, storage: &Storage) -> (u128, u64) {
    let bytes = |layout: Layout, n: usize, k: usize| layout.byte_len([n, k]).unwrap_or(u64::MAX);
    let (mut layer, mut extra) = (0u64, 0);
    for matrix in storage.matrices(t, 0) {
        let layout = decoder_layout(options, "", storage.usual(&matrix));
        let stored = bytes(layout, matrix.n(), matrix.k);
        layer = layer.saturating_add(stored);
        if matrix.part() == DOWN {
            let int8 = bytes(Layout::Panels, matrix.n(), matrix.k);
            extra = int8.saturating_sub(stored);
        }
    }
    (u128::from(layer) * t.n_layers as u128, extra)
}

/// In which layers `down` is int8 beside int4 weights: as many as the spare bytes allow, evenly
/// among all.
fn spared_layers(t: &TextConfig, options: &PackOptions, storage: &Storage) -> Vec<bool> {
    let mut spared = 0;
    if *storage == Storage::Rotated(WeightScheme::Int4) {
        let (all, extra) = int4_and_extra_bytes(t, options, storage);
        let spare = all * u128::from(options.spare_percent) / 100;
        let allowed = spare.checked_div(u128::from(extra)).unwrap_or(0);
        spared = usize::try_from(allowed)
            .unwrap_or(usize::MAX)
            .min(t.n_layers);
    }
    let up_to = |layer: usize| layer * spared / t.n_layers.max(1);
    let layers = (0..t.n_layers).map(|layer| up_to(layer + 1) > up_to(layer));
    layers.collect()
}

/// Every tensor of a pack of this shape whose weights are rounded here, in file order.
pub fn plan(
    config: &ModelConfig,
    tokenizer: &TokenizerBlobs<'_>,
    options: &PackOptions,
) -> Vec<PlannedTensor> {
    plan_stored(config, tokenizer, options, &Storage::asked(options))
}

/// Every tensor of a pack whose layers are stored so, in file order.
pub(super) fn plan_stored(
    config: &ModelConfig,
    tokenizer: &TokenizerBlobs<'_>,
    options: &PackOptions,
    storage: &Storage,
) -> Vec<PlannedTensor> {
    let blob = |(name, bytes): (&str, &[u8])| PlannedTensor {
        name: name.to_owned(),
        layout: Layout::Bytes,
        shape: [1, bytes.len()],
        group: 0,
    };
    let weights = weights(config, options, storage);
    tokenizer.iter().map(blob).chain(weights).collect()
}

/// The tensors that hold weights.
fn weights(config: &ModelConfig, options: &PackOptions, storage: &Storage) -> Vec<PlannedTensor> {
    let tensor = |name: String, layout, rows, columns, group| PlannedTensor {
        name,
        layout,
        shape: [rows, columns],
        group,
    };
    let panels = |name: String, n, k| tensor(name, Layout::Panels, n, k, 0);
    let grouped = |name: String, n, k| {
        tensor(
            name,
            Layout::Panels,
            n,
            k,
            if usize::is_multiple_of(k, GROUP) {
                GROUP
            } else {
                0
            },
        )
    };
    let t = &config.text;
    let th = t.hidden_size;
    let mut plan = Vec::new();
    if let Some(v) = &config.vision {
        let vh = v.hidden_size;
        plan.extend([
            panels(
                "vision.patch_embed".into(),
                vh,
                3 * v.patch_size * v.patch_size,
            ),
            tensor("vision.positions".into(), Layout::F32, v.n_patches(), vh, 0),
        ]);
        for i in 0..v.n_layers {
            plan.extend([
                panels(format!("vision.{i}.qkv"), 3 * vh, vh),
                grouped(format!("vision.{i}.out"), vh, vh),
                panels(format!("vision.{i}.fc1"), v.intermediate_size, vh),
                grouped(format!("vision.{i}.fc2"), vh, v.intermediate_size),
            ]);
        }
        let shuffled = vh * v.scale_factor * v.scale_factor;
        plan.push(tensor("connector".into(), Layout::Panels, th, shuffled, vh));
    }
    plan.push(tensor(
        "text.embed".into(),
        Layout::F16,
        t.vocab_size,
        th,
        0,
    ));
    for (i, spares_down) in spared_layers(t, options, storage).into_iter().enumerate() {
        let mut matrices = storage.matrices(t, i).into_iter().peekable();
        for input in Input::ALL {
            let norm = input.norm(i).map(|(name, _)| name);
            let is_folded = storage.basis() == StreamBasis::Rotated;
            if let Some(name) = norm.filter(|_| !is_folded) {
                plan.push(tensor(name, Layout::F32, 1, th, 0));
            }
            while let Some(matrix) = matrices.next_if(|matrix| matrix.input == input) {
                let usual = match spares_down && matrix.part() == DOWN {
                    true => WeightScheme::Int8,
                    false => storage.usual(&matrix),
                };
                let layout = decoder_layout(options, &matrix.name, usual);
                let group = storage.group(&matrix, layout);
                plan.push(tensor(
                    matrix.name.clone(),
                    layout,
                    matrix.n(),
                    matrix.k,
                    group,
                ));
            }
        }
    }
    let head = match decoder_layout(options, HEAD, WeightScheme::Int8) {
        Layout::Panels if splits(th) => Layout::NibblePanels,
        layout => layout,
    };
    plan.push(tensor(HEAD.into(), head, t.vocab_size, th, 0));
    plan
}

/// Bytes of the tensors of a pack of this shape, about; its header comes on top. The tables made of a
/// `tokenizer.json` are taken to be as large as it: a large file's are smaller, a small one's some
/// kilobytes larger.
pub fn pack_bytes(config: &ModelConfig, tokenizer_len: usize, options: &PackOptions) -> u64 {
    let bytes = |tensor: &PlannedTensor| {
        let len = tensor.layout.byte_len(tensor.shape).unwrap_or(u64::MAX);
        len.checked_next_multiple_of(ALIGNMENT as u64)
            .unwrap_or(u64::MAX)
    };
    let weights = weights(config, options, &Storage::asked(options));
    let tokenizer = 2 * tokenizer_len as u64;
    weights
        .iter()
        .map(bytes)
        .fold(tokenizer, u64::saturating_add)
}

/// Memory that packing weights of this shape may take beside the mapped files, in bytes: the
/// largest tensor as f32, three tenths more, and 150 MB.
pub fn working_bytes(config: &ModelConfig) -> u64 {
    let elements = |tensor: &PlannedTensor| tensor.shape[0].saturating_mul(tensor.shape[1]) as u64;
    let options = PackOptions::default();
    let largest = weights(config, &options, &Storage::asked(&options))
        .iter()
        .map(elements)
        .max()
        .unwrap_or(0);
    largest.saturating_mul(4).saturating_mul(13) / 10 + 150_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hidden: usize, heads: usize, inter: usize) -> ModelConfig {
        ModelConfig {
            vision: None,
            text: TextConfig {
                hidden_size: hidden,
                intermediate_size: inter,
                n_layers: 1,
                n_heads: heads,
                n_kv_heads: 1,
                head_dim: 16,
                vocab_size: 24,
                rope_theta: 1e4,
                rms_norm_eps: 1e-5,
                max_positions: 64,
            },
            tie_word_embeddings: false,
        }
    }

    fn checked(config: &ModelConfig, weights: WeightScheme) -> Result<(), PackModelError> {
        let options = weights.into();
        check_shapes(config, &Storage::asked(&options), &options)
    }

    fn planned(config: &ModelConfig, options: &PackOptions) -> Vec<PlannedTensor> {
        weights(config, options, &Storage::asked(options))
    }

    #[test]
    fn a_shape_that_int4_weights_cannot_hold_is_refused_by_name_value_and_limit() {
        let cases = [
            (config(48, 2, 64), "text_config.hidden_size is 48"),
            (
                config(64, 3, 64),
                "text_config.num_attention_heads · head_dim is 48",
            ),
            (config(64, 2, 80), "text_config.intermediate_size is 80"),
        ];
        for (config, expected) in cases {
            checked(&config, WeightScheme::Int8).unwrap();
            let error = checked(&config, WeightScheme::Int4).unwrap_err();
            let text = error.to_string();
            for part in [expected, "a multiple of 32", "--weights int8"] {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        }
        checked(&config(64, 2, 96), WeightScheme::Int4).unwrap();
    }

    #[test]
    fn groups_in_front_of_int4_weights_are_whole_blocks() {
        for (inter, weights, group) in [
            (128, WeightScheme::Int8, 64),
            (128, WeightScheme::Int4, 64),
            (96, WeightScheme::Int8, 16),
            (96, WeightScheme::Int4, 32),
        ] {
            let plan = planned(&config(64, 2, inter), &weights.into());
            let down = plan.iter().find(|t| t.name == "text.0.down").unwrap();
            assert_eq!(down.group, group, "{inter} {weights:?}");
        }
    }

    #[test]
    fn the_head_lies_in_two_planes_where_its_width_allows() {
        let head = |hidden, exceptions: &[&str]| {
            let options = PackOptions {
                exceptions: exceptions.iter().map(|name| (*name).to_owned()).collect(),
                ..PackOptions::default()
            };
            let plan = planned(&config(hidden, 2, 128), &options);
            plan.last().map(|t| (t.name.clone(), t.layout)).unwrap()
        };
        let named = |layout| (HEAD.to_owned(), layout);
        assert_eq!(head(64, &[]), named(Layout::NibblePanels));
        assert_eq!(head(48, &[]), named(Layout::Panels));
        assert_eq!(head(64, &[HEAD]), named(Layout::Int4Panels));
    }

    #[test]
    fn spare_bytes_go_to_down_evenly_among_the_layers() {
        let mut config = config(64, 2, 128);
        config.text.n_layers = 6;
        let options = |weights, spare_percent| PackOptions {
            weights: Some(weights),
            spare_percent,
            ..PackOptions::default()
        };
        let int8 = |spare| {
            let plan = planned(&config, &options(WeightScheme::Int4, spare));
            let int8 = plan.into_iter().filter(|t| t.layout == Layout::Panels);
            let downs = int8.filter_map(|t| t.name.strip_suffix(".down").map(str::to_owned));
            downs.collect::<Vec<_>>()
        };
        let bytes = |spare| pack_bytes(&config, 0, &options(WeightScheme::Int4, spare)) as f64;
        assert_eq!(int8(0), [""; 0]);
        assert_eq!(int8(8), ["text.2", "text.5"]);
        assert_eq!(
            int8(255),
            ["text.0", "text.1", "text.2", "text.3", "text.4", "text.5"]
        );
        assert!(bytes(8) > bytes(0) && bytes(8) <= 1.08 * bytes(0));
        // Nothing is spared where all is int8.
        let plain = planned(&config, &options(WeightScheme::Int8, 0));
        assert_eq!(planned(&config, &options(WeightScheme::Int8, 50)), plain);
    }

    #[test]
    fn an_exception_is_stored_the_other_way_and_must_name_a_decoder_matrix() {
        let layouts = |weights, exceptions: &[&str]| {
            let options = PackOptions {
                weights: Some(weights),
                exceptions: exceptions.iter().map(|name| (*name).to_owned()).collect(),
                ..PackOptions::default()
            };
            let plan = planned(&config(64, 2, 128), &options);
            check_exceptions(&plan, &options).map(|()| {
                let int4 = plan.iter().filter(|t| t.layout == Layout::Int4Panels);
                int4.map(|t| t.name.clone()).collect::<Vec<_>>()
            })
        };
        let int4 = WeightScheme::Int4;
        assert_eq!(
            layouts(int4, &["text.0.qk", "text.0.gate_up", "text.head"]).unwrap(),
            ["text.0.out", "text.0.down", "text.head"]
        );
        assert_eq!(
            layouts(int4, &["text.0.v"]).unwrap()[..2],
            ["text.0.qk", "text.0.v"]
        );
        assert_eq!(
            layouts(WeightScheme::Int8, &["text.0.out"]).unwrap(),
            ["text.0.out"]
        );
        assert_eq!(layouts(WeightScheme::Int8, &[]).unwrap(), [""; 0]);
        for name in [
            "text.0.qkv",
            "text.1.qk",
            "text.embed",
            "tokenizer.json",
            "down",
        ] {
            let error = layouts(int4, &[name]).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}

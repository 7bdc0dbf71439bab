//! Fused ops of the vision encoder and the connector.
//!
//! ```text
//! frame u8 [T,T,3] → PatchEmbed → x f32 [patches, hidden]
//!   per layer:  x → NormQkv → qkv → VisionAttention → ctx
//!               x, ctx → OutProject → x
//!               x → NormFc1Gelu → rows (int8 + scales)
//!               x, rows → Fc2 → x
//! x → Connector → image features f32 [image tokens, text hidden]
//! ```

use super::{
    add_f32_le, f32s, fill, fill_int8, fused_op, i8s, inputs, int8_facts, to_tract, update,
};
use crate::config::VisionConfig;
use crate::engine::products::{linear, normed, project_add};
use crate::pack::{Layout, Matrix, OpenError, Pack};
use ocelli_kernels::quantize::{k_padded, n_groups};
use ocelli_kernels::{Compute, Int8Rows, Int8RowsBuf, Int8RowsMut, Store, activation, attention};
use std::sync::Arc;
use tract_core::internal::*;
use tract_core::{as_op, not_out_of_plan, op_as_typed_op};

/// Rows that pass through fc1 and GELU together; bounds the f32 intermediate.
const STRIP_ROWS: usize = 192;

/// Places of one encoder layer's matrices.
#[derive(Debug)]
struct Layer {
    qkv: Matrix,
    out: Matrix,
    fc1: Matrix,
    fc2: Matrix,
}

/// The vision tower and connector inside a pack.
#[derive(Debug)]
pub(in crate::engine) struct VisionModel {
    pack: Arc<Pack>,
    compute: Arc<Compute>,
    config: VisionConfig,
    text_hidden: usize,
    patch_embed: Matrix,
    layers: Vec<Layer>,
    connector: Matrix,
}

impl VisionModel {
    /// The vision side of a pack whose shapes are `config`.
    pub(in crate::engine) fn new(
        config: VisionConfig,
        pack: Arc<Pack>,
        compute: Arc<Compute>,
    ) -> Result<VisionModel, OpenError> {
        let text_hidden = pack.header().config.text.hidden_size;
        let v = &config;
        let hidden = v.hidden_size;
        model_positions(&pack, v)?;
        let layers = (0..v.n_layers)
            .map(|i| {
                Ok(Layer {
                    qkv: pack.matrix(&format!("vision.{i}.qkv"), 3 * hidden, hidden)?,
                    out: pack.matrix(&format!("vision.{i}.out"), hidden, hidden)?,
                    fc1: pack.matrix(&format!("vision.{i}.fc1"), v.intermediate_size, hidden)?,
                    fc2: pack.matrix(&format!("vision.{i}.fc2"), hidden, v.intermediate_size)?,
                })
            })
            .collect::<Result<Vec<Layer>, OpenError>>()?;
        let shuffled = hidden * config.scale_factor * config.scale_factor;
        let patch_embed = pack.matrix(
            "vision.patch_embed",
            hidden,
            3 * v.patch_size * v.patch_size,
        )?;
        let connector = pack.matrix("connector", text_hidden, shuffled)?;
        Ok(VisionModel {
            patch_embed,
            layers,
            connector,
            config,
            text_hidden,
            compute,
            pack,
        })
    }

    /// Wires the ops into a model from one frame to its image features.
    pub(in crate::engine) fn typed_model(self: &Arc<Self>) -> TractResult<TypedModel> {
        let mut graph = TypedModel::default();
        let side = self.config.image_size;
        let frame = graph.add_source("frame", u8::fact([side, side, 3]))?;
        let model = || self.clone();
        let op = PatchEmbed {
            model: model(),
            layer: 0,
        };
        let mut x = graph.wire_node("patch_embed", op, &[frame])?[0];
        for layer in 0..self.layers.len() {
            let op = NormQkv {
                model: model(),
                layer,
            };
            let qkv = graph.wire_node(format!("{layer}.qkv"), op, &[x])?;
            let op = VisionAttention {
                model: model(),
                layer,
            };
            let ctx = graph.wire_node(format!("{layer}.attention"), op, &qkv)?[0];
            let op = OutProject {
                model: model(),
                layer,
            };
            x = graph.wire_node(format!("{layer}.out"), op, &[x, ctx])?[0];
            let op = NormFc1Gelu {
                model: model(),
                layer,
            };
            let rows = graph.wire_node(format!("{layer}.fc1"), op, &[x])?;
            let op = Fc2 {
                model: model(),
                layer,
            };
            x = graph.wire_node(format!("{layer}.fc2"), op, &[x, rows[0], rows[1]])?[0];
        }
        let op = Connector {
            model: model(),
            layer: 0,
        };
        let features = graph.wire_node("connector", op, &[x])?;
        graph.select_output_outlets(&features)?;
        Ok(graph)
    }

    fn hidden(&self) -> usize {
        self.config.hidden_size
    }

    fn n_patches(&self) -> usize {
        self.config.n_patches()
    }

    /// Weightless norm of `x` (`[m, hidden]`), as int8 rows.
    fn normed(&self, x: &[f32]) -> Int8RowsBuf {
        let eps = self.config.layer_norm_eps;
        let mut rows = Int8RowsBuf::new();
        normed(&self.compute, x, self.hidden(), eps, &mut rows);
        rows
    }
}

/// The position embeddings of the pack, of which a smaller frame takes the first.
fn model_positions<'a>(pack: &'a Pack, config: &VisionConfig) -> Result<&'a [u8], OpenError> {
    let vision = pack.header().config.vision.as_ref().unwrap_or(config);
    let shape = [vision.n_patches(), vision.hidden_size];
    pack.tensor("vision.positions", Layout::F32, shape)
}

/// Frame bytes → patch embedding plus position embedding.
///
/// A patch row is the bytes of one patch, channel-major as the convolution's
/// weights, minus 128; the packer folded the normalisation into the weights.
#[derive(Clone)]
struct PatchEmbed {
    model: Arc<VisionModel>,
    layer: usize,
}

impl PatchEmbed {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [frame] = inputs(values)?;
        let pixels = frame.try_as_plain_ram()?.as_slice::<u8>()?;
        let model = &self.model;
        let (side, patch) = (model.config.image_size, model.config.patch_size);
        let (grid, n, hidden) = (
            model.config.patches_per_side(),
            model.n_patches(),
            model.hidden(),
        );
        let k = 3 * patch * patch;
        let mut buffer = Int8RowsBuf::new();
        let mut rows = buffer.reshape(n, k, 0);
        rows.scales_mut().fill(1.0);
        for (index, row) in rows.data_mut().chunks_exact_mut(k_padded(k)).enumerate() {
            let (top, left) = (index / grid * patch, index % grid * patch);
            for y in 0..patch {
                let start = ((top + y) * side + left) * 3;
                let line = &pixels[start..start + 3 * patch];
                for (x, rgb) in line.chunks_exact(3).enumerate() {
                    for (channel, byte) in rgb.iter().enumerate() {
                        row[(channel * patch + y) * patch + x] = byte.wrapping_sub(128) as i8;
                    }
                }
            }
        }
        let positions = model_positions(&model.pack, &model.config).map_err(to_tract)?;
        fill(&[n, hidden], |x| {
            let weights = model.pack.panels(&model.patch_embed);
            linear(&model.compute, buffer.rows(), weights, x, Store::Overwrite);
            add_f32_le(x, positions);
            Ok(())
        })
    }
}

fused_op!(PatchEmbed, |op, _| tvec!(f32::fact([
    op.model.n_patches(),
    op.model.hidden()
])));

/// Norm and the stacked q, k, v projection: `x → [patches, 3·hidden]`.
#[derive(Clone)]
struct NormQkv {
    model: Arc<VisionModel>,
    layer: usize,
}

impl NormQkv {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let model = &self.model;
        let rows = model.normed(f32s(&x)?);
        let weights = model.pack.panels(&model.layers[self.layer].qkv);
        fill(&[model.n_patches(), 3 * model.hidden()], |out| {
            linear(&model.compute, rows.rows(), weights, out, Store::Overwrite);
            Ok(())
        })
    }
}

fused_op!(NormQkv, |op, _| tvec!(f32::fact([
    op.model.n_patches(),
    3 * op.model.hidden()
])));

/// Full softmax attention over all patches: `[patches, 3·hidden] → [patches, hidden]`.
#[derive(Clone)]
struct VisionAttention {
    model: Arc<VisionModel>,
    layer: usize,
}

impl VisionAttention {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [qkv] = inputs(values)?;
        let model = &self.model;
        let (n, v) = (model.n_patches(), &model.config);
        fill(&[n, model.hidden()], |out| {
            let qkv = f32s(&qkv)?;
            attention::vision_attention_int8(&model.compute, qkv, n, v.n_heads, v.head_dim(), out);
            Ok(())
        })
    }
}

fused_op!(VisionAttention, |op, _| tvec!(f32::fact([
    op.model.n_patches(),
    op.model.hidden()
])));

/// Output projection added to the residual stream: `x, ctx → x`.
#[derive(Clone)]
struct OutProject {
    model: Arc<VisionModel>,
    layer: usize,
}

impl OutProject {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, ctx] = inputs(values)?;
        let model = &self.model;
        let matrix = &model.layers[self.layer].out;
        let weights = (model.pack.panels(matrix), matrix.group);
        let ctx = f32s(&ctx)?;
        update(x, |x| {
            project_add(&model.compute, weights, ctx, &mut Int8RowsBuf::new(), x);
            Ok(())
        })
    }
}

fused_op!(OutProject, |_, inputs| tvec!(inputs[0].without_value()));

/// Norm, first projection and tanh-GELU, re-quantised: `x → int8 rows [patches, intermediate]`.
#[derive(Clone)]
struct NormFc1Gelu {
    model: Arc<VisionModel>,
    layer: usize,
}

impl NormFc1Gelu {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let model = &self.model;
        let layer = &model.layers[self.layer];
        let (k, group) = (layer.fc1.n, layer.fc2.group);
        let weights = model.pack.panels(&layer.fc1);
        let mut data = Tensor::zero::<i8>(&[model.n_patches(), k_padded(k)])?;
        let mut scales = Tensor::zero::<f32>(&[model.n_patches(), n_groups(k, group)])?;
        let mut strip = vec![0f32; STRIP_ROWS.min(model.n_patches()) * k];
        let mut data_view = data.try_as_plain_ram_mut()?;
        let mut scales_view = scales.try_as_plain_ram_mut()?;
        let data_strips = data_view
            .as_slice_mut::<i8>()?
            .chunks_mut(STRIP_ROWS * k_padded(k));
        let scale_strips = scales_view
            .as_slice_mut::<f32>()?
            .chunks_mut(STRIP_ROWS * n_groups(k, group));
        let x_strips = f32s(&x)?.chunks(STRIP_ROWS * model.hidden());
        for ((x, data), scales) in x_strips.zip(data_strips).zip(scale_strips) {
            let m = x.len() / model.hidden();
            let strip = &mut strip[..m * k];
            linear(
                &model.compute,
                model.normed(x).rows(),
                weights,
                strip,
                Store::Overwrite,
            );
            let rows = Int8RowsMut::new(data, scales, m, k, group)?;
            activation::gelu_tanh_quantize_rows(&model.compute, strip, rows);
        }
        Ok(tvec!(data.into_tvalue(), scales.into_tvalue()))
    }
}

fused_op!(NormFc1Gelu, |op, _| {
    let layer = &op.model.layers[op.layer];
    int8_facts(op.model.n_patches().to_dim(), layer.fc1.n, layer.fc2.group)
});

/// Second projection added to the residual stream: `x, rows → x`.
#[derive(Clone)]
struct Fc2 {
    model: Arc<VisionModel>,
    layer: usize,
}

impl Fc2 {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, data, scales] = inputs(values)?;
        let model = &self.model;
        let matrix = &model.layers[self.layer].fc2;
        let n = model.n_patches();
        let rows = Int8Rows::new(i8s(&data)?, f32s(&scales)?, n, matrix.k, matrix.group)?;
        update(x, |x| {
            let weights = model.pack.panels(matrix);
            linear(&model.compute, rows, weights, x, Store::Add);
            Ok(())
        })
    }
}

fused_op!(Fc2, |_, inputs| tvec!(inputs[0].without_value()));

/// Final norm, pixel shuffle and modality projection.
///
/// Output row `(R, C)` reads, for `dr` then `dc` in `0..scale_factor`, the patch
/// `(R·s + dr, C·s + dc)`. Every patch keeps its own scale: a patch is one group.
#[derive(Clone)]
struct Connector {
    model: Arc<VisionModel>,
    layer: usize,
}

impl Connector {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let model = &self.model;
        let (s, hidden) = (model.config.scale_factor, model.hidden());
        let grid = model.config.patches_per_side();
        let (out_side, n) = (grid / s, model.config.image_tokens());
        let normed = model.normed(f32s(&x)?);
        let normed = normed.rows();
        let rows = fill_int8(n, s * s * hidden, hidden, |mut rows| {
            for part in 0..n * s * s {
                let (token, dr, dc) = (part / (s * s), part % (s * s) / s, part % s);
                let (row, col) = (token / out_side * s + dr, token % out_side * s + dc);
                let patch = row * grid + col;
                rows.scales_mut()[part] = normed.scales()[patch];
                rows.data_mut()[part * hidden..][..hidden]
                    .copy_from_slice(&normed.data()[patch * hidden..][..hidden]);
            }
            Ok(())
        })?;
        let rows = Int8Rows::new(i8s(&rows[0])?, f32s(&rows[1])?, n, s * s * hidden, hidden)?;
        fill(&[n, model.text_hidden], |out| {
            let weights = model.pack.panels(&model.connector);
            linear(&model.compute, rows, weights, out, Store::Overwrite);
            Ok(())
        })
    }
}

fused_op!(Connector, |op, _| tvec!(f32::fact([
    op.model.config.image_tokens(),
    op.model.text_hidden
])));

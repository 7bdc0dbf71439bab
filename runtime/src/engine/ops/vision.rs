//! Fused ops of the vision encoder and the connector.
//!
//! ```text
//! frame u8 [T,T,3] → PatchEmbed → x f32 [patches, hidden]
//!   per layer:  x → EncoderLayer → x
//! x → Connector → image features f32 [image tokens, text hidden]
//! ```

use super::{add_f32_le, f32s, fill, fill_int8, fused_op, i8s, inputs, to_tract, update};
use crate::config::VisionConfig;
use crate::engine::products::{Norm, linear, linear_activated, linear_blocks, project_add};
use crate::pack::{Layout, Matrix, OpenError, Pack};
use ocelli_kernels::quantize::k_padded;
use ocelli_kernels::{Activation, Compute, Int8Rows, Int8RowsBuf, Store, attention};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tract_core::internal::*;
use tract_core::{as_op, not_out_of_plan, op_as_typed_op};

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
    buffers: Mutex<Buffers>,
}

/// What the layers of one frame write over and over; large, so empty between frames.
#[derive(Debug, Default)]
struct Buffers {
    /// Normed patches, or what attention gives, quantised.
    rows: Int8RowsBuf,
    /// Queries, keys and values, `[3, heads, patches, head size]`.
    heads: Vec<f32>,
    /// What attention gives. `[patches, hidden]`
    ctx: Vec<f32>,
    /// Activated output of fc1.
    inner: Int8RowsBuf,
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
            buffers: Mutex::default(),
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
            let op = EncoderLayer {
                model: model(),
                layer,
            };
            x = graph.wire_node(format!("{layer}"), op, &[x])?[0];
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

    fn buffers(&self) -> MutexGuard<'_, Buffers> {
        // Nothing is read from them that was not written in the same layer.
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Weightless norm of `x` (`[m, hidden]`), as int8 rows.
    fn normed<'b>(&self, x: &[f32], rows: &'b mut Int8RowsBuf) -> Int8Rows<'b> {
        let norm = Norm {
            hidden: self.hidden(),
            eps: self.config.layer_norm_eps,
            weight: None,
            group: 0,
        };
        norm.rows(&self.compute, x, rows)
    }

    /// Full softmax attention over all patches, added to the residual stream: `x → x`.
    fn attend(&self, layer: usize, x: &mut [f32], buffers: &mut Buffers) {
        let (compute, v, n) = (&self.compute, &self.config, self.n_patches());
        let Layer { qkv, out, .. } = &self.layers[layer];
        let Buffers {
            rows, heads, ctx, ..
        } = buffers;
        heads.resize(n * qkv.n, 0.0);
        ctx.resize(n * out.k, 0.0);
        let normed = self.normed(x, rows);
        linear_blocks(compute, normed, self.pack.panels(qkv), v.head_dim(), heads);
        attention::vision_attention_int8(compute, heads, n, v.n_heads, v.head_dim(), ctx);
        project_add(compute, (self.pack.panels(out), out.group), ctx, rows, x);
    }

    /// Two projections with tanh-GELU between them, added to the residual stream: `x → x`.
    fn feed_forward(&self, layer: usize, x: &mut [f32], buffers: &mut Buffers) {
        let (compute, n) = (&self.compute, self.n_patches());
        let Layer { fc1, fc2, .. } = &self.layers[layer];
        let Buffers { rows, inner, .. } = buffers;
        let normed = self.normed(x, rows);
        let weights = self.pack.panels(fc1);
        let activated = inner.reshape(n, fc1.n, fc2.group);
        linear_activated(compute, normed, weights, Activation::GeluTanh, activated);
        let weights = self.pack.panels(fc2);
        linear(compute, inner.rows(), weights, x, Store::Add);
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

/// Norm, attention over all patches, output projection, norm, feed-forward: `x → x`.
#[derive(Clone)]
struct EncoderLayer {
    model: Arc<VisionModel>,
    layer: usize,
}

impl EncoderLayer {
    fn run(&self, _: &EvalContext, values: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x] = inputs(values)?;
        let model = &self.model;
        update(x, |x| {
            let mut buffers = model.buffers();
            model.attend(self.layer, x, &mut buffers);
            model.feed_forward(self.layer, x, &mut buffers);
            Ok(())
        })
    }
}

fused_op!(EncoderLayer, |_, inputs| tvec!(inputs[0].without_value()));

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
        let Buffers { mut rows, .. } = std::mem::take(&mut *model.buffers());
        let normed = model.normed(f32s(&x)?, &mut rows);
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

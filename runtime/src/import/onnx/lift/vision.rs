//! The vision graph taken apart.

use super::{Lift, Weights, input, output};
use crate::config::VisionConfig;
use crate::import::onnx::error::OnnxError;
use crate::import::onnx::graph::Graph;
use crate::import::onnx::stored::Stored;
use crate::import::onnx::walk::{Heads, Stream, Walk};

/// Every weight of the vision graph: `pixel_values` → `image_features`.
pub(in crate::import::onnx) fn vision(
    graph: &Graph,
    v: &VisionConfig,
    text_hidden: usize,
) -> Result<Weights, OnnxError> {
    let pixels = input(graph, "pixel_values")?;
    let walk = Walk::new(graph, &[pixels], v.head_dim());
    let heads = Heads {
        n_heads: v.n_heads,
        n_kv_heads: v.n_heads,
        head_dim: v.head_dim(),
        rope_theta: None,
    };
    let (h, inter, eps) = (v.hidden_size, v.intermediate_size, v.layer_norm_eps);
    let mut lift = Lift::new(graph);

    let features = walk.strip(output(graph, "image_features")?);
    let connector = walk.linear(features)?;
    let wanted = "the connector, a linear layer";
    let connector = connector.ok_or_else(|| graph.unrecognised(features, wanted))?;
    let shuffled = h * v.scale_factor * v.scale_factor;
    let normed = connector.input;
    let name = "model.connector.modality_projection.proj";
    lift.linear(name, connector, [text_hidden, shuffled], false)?;
    let norm = walk.norm(normed)?;
    let mut stream = lift.norm("model.vision_model.post_layernorm", norm, h, eps, true)?;

    for layer in (0..v.n_layers).rev() {
        let name = format!("model.vision_model.encoder.layers.{layer}");
        let wanted = "the sum of the stream and a feed-forward layer";
        let (fc2, middle) = walk.residual(stream, wanted)?;
        let fc1 = walk.gelu(fc2.input)?;
        let normed = fc1.input;
        lift.linear(&format!("{name}.mlp.fc2"), fc2, [h, inter], true)?;
        lift.linear(&format!("{name}.mlp.fc1"), fc1, [inter, h], true)?;
        let norm = walk.norm(normed)?;
        let read = lift.norm(&format!("{name}.layer_norm2"), norm, h, eps, true)?;
        lift.same(&walk, read, middle)?;

        let (out, before) = walk.residual(middle, "the sum of the stream and attention")?;
        let attention = walk.attention(out.input, &heads)?;
        let normed = lift.one_input(&[&attention.q, &attention.k, &attention.v])?;
        let name_of = |part: &str| format!("{name}.self_attn.{part}_proj");
        lift.linear(&format!("{name}.self_attn.out_proj"), out, [h, h], true)?;
        lift.linear(&name_of("q"), attention.q, [h, h], true)?;
        lift.linear(&name_of("k"), attention.k, [h, h], true)?;
        lift.linear(&name_of("v"), attention.v, [h, h], true)?;
        let norm = walk.norm(normed)?;
        let read = lift.norm(&format!("{name}.layer_norm1"), norm, h, eps, true)?;
        lift.same(&walk, read, before)?;
        stream = before;
    }
    patches(&mut lift, &walk, stream, v)?;
    Ok(lift.weights)
}

/// Patch embedding and positions, whose sum is the stream of the vision side.
fn patches(
    lift: &mut Lift<'_>,
    walk: &Walk<'_>,
    stream: Stream,
    v: &VisionConfig,
) -> Result<(), OnnxError> {
    let (graph, h) = (walk.graph, v.hidden_size);
    let wanted = format!(
        "patch embedding plus positions, as config.json says {} layers in front of the output",
        v.n_layers
    );
    let ([a, b], beside) = walk.summands(stream, &wanted)?;
    let (patches, positions) = match (walk.is_carried(a), walk.is_carried(b)) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        // Positions may be picked by what the pixels say about masked patches.
        _ => match walk.convolution(a)? {
            Some(_) => (a, b),
            None => (b, a),
        },
    };
    let name = "model.vision_model.embeddings";
    let found = walk.convolution(patches)?;
    let (pixels, weight, bias) = found.ok_or_else(|| {
        let value = walk.strip(patches);
        graph.unrecognised(value, &*wanted)
    })?;
    let source = walk.strip_picks(pixels);
    if !graph.is_input(source) {
        return Err(graph.unrecognised(source, "pixel_values as they come in"));
    }
    let kernel = [h, 3, v.patch_size, v.patch_size];
    lift.whole(format!("{name}.patch_embedding.weight"), weight, &kernel)?;
    let Some(bias) = bias.or(beside) else {
        return Err(graph.differs(walk.strip(patches), "the bias", "absent", "there"));
    };
    lift.whole(format!("{name}.patch_embedding.bias"), bias, &[h])?;

    let mut value = walk.strip(positions);
    let table = match Stored::of(graph, value)? {
        Some(table) => Some(table),
        None => {
            let mut behind = None;
            if let Some((node, 0)) = walk.node(value).filter(|(n, _)| n.op == "DequantizeLinear") {
                behind = node.input(1).map(|scale| (scale, node.input(2)));
                value = walk.strip(node.input(0).unwrap_or(value));
            }
            let node = walk.node(value).map(|(node, _)| node);
            match (
                node.map(|node| (node, node.op.as_str(), node.input(0))),
                behind,
            ) {
                (Some((_, "Gather", Some(data))), None) => Stored::of(graph, data)?,
                (Some((_, "Gather", Some(data))), Some((scale, zero))) => {
                    Stored::integers(graph, [data, scale], zero, 1, 0)?
                }
                (Some((node, "GatherBlockQuantized", _)), None) => {
                    Some(Stored::gather_blocks(graph, node, value)?)
                }
                _ => None,
            }
        }
    };
    let wanted = "positions picked from a constant table";
    let table = table.ok_or_else(|| graph.unrecognised(value, wanted))?;
    lift.whole(
        format!("{name}.position_embedding.weight"),
        table,
        &[v.n_patches(), h],
    )
}

//! The decoder graph taken apart.

use super::{Lift, Weights, input, output, picked_rows, table};
use crate::config::{ModelConfig, TextConfig};
use crate::import::onnx::error::OnnxError;
use crate::import::onnx::graph::{Graph, ValueId};
use crate::import::onnx::walk::{Heads, Walk};

/// Every weight of the decoder graph: `inputs_embeds` → `logits`.
pub(in crate::import::onnx) fn decoder(
    graph: &Graph,
    config: &ModelConfig,
) -> Result<Weights, OnnxError> {
    layers(graph, config, input(graph, "inputs_embeds")?)
}

/// Every weight of a text model in one graph: `input_ids` → `logits`.
pub(in crate::import::onnx) fn text(
    graph: &Graph,
    config: &ModelConfig,
) -> Result<Weights, OnnxError> {
    let embeds = picked_rows(graph, &config.text)?;
    let walk = Walk::new(graph, &[], config.text.head_dim);
    let mut weights = table(&walk, embeds, &config.text)?;
    weights.extend(layers(graph, config, embeds)?);
    Ok(weights)
}

/// Every weight between the embeddings and the logits.
fn layers(graph: &Graph, config: &ModelConfig, embeds: ValueId) -> Result<Weights, OnnxError> {
    let t = &config.text;
    check_caches(graph, t)?;
    let walk = Walk::new(graph, &[embeds], t.head_dim);
    let heads = Heads {
        n_heads: t.n_heads,
        n_kv_heads: t.n_kv_heads,
        head_dim: t.head_dim,
        rope_theta: Some(t.rope_theta),
    };
    let (h, inter) = (t.hidden_size, t.intermediate_size);
    let (queries, keys) = (t.n_heads * t.head_dim, t.n_kv_heads * t.head_dim);
    let eps = t.rms_norm_eps;
    let mut lift = Lift::new(graph);

    let logits = walk.strip_picks(output(graph, "logits")?);
    let head = walk.linear(logits)?;
    let head = head.ok_or_else(|| graph.unrecognised(logits, "the output head, a linear layer"))?;
    let normed = walk.strip_picks(head.input);
    lift.linear("lm_head", head, [t.vocab_size, h], false)?;
    let norm = walk.norm(normed)?;
    let mut stream = lift.norm("model.text_model.norm", norm, h, eps, false)?;

    let mut layer = t.n_layers;
    while stream != walk.stream(embeds) {
        layer = layer.checked_sub(1).ok_or_else(|| {
            let found = format!("more than {}", t.n_layers);
            graph.differs(
                walk.value_of(stream),
                "the number of layers",
                found,
                t.n_layers,
            )
        })?;
        let name = format!("model.text_model.layers.{layer}");
        let wanted = "the sum of the stream and a feed-forward layer";
        let (down, middle) = walk.residual(stream, wanted)?;
        let [gate, up] = walk.gated(down.input)?;
        let normed = lift.one_input(&[&gate, &up])?;
        lift.linear(&format!("{name}.mlp.down_proj"), down, [h, inter], false)?;
        lift.linear(&format!("{name}.mlp.gate_proj"), gate, [inter, h], false)?;
        lift.linear(&format!("{name}.mlp.up_proj"), up, [inter, h], false)?;
        let norm = walk.norm(normed)?;
        let read = lift.norm(
            &format!("{name}.post_attention_layernorm"),
            norm,
            h,
            eps,
            false,
        )?;
        lift.same(&walk, read, middle)?;

        let (out, before) = walk.residual(middle, "the sum of the stream and attention")?;
        let attention = walk.attention(out.input, &heads)?;
        let normed = lift.one_input(&[&attention.q, &attention.k, &attention.v])?;
        let paired = |heads: usize| attention.is_interleaved.then_some(heads);
        let name_of = |part: &str| format!("{name}.self_attn.{part}_proj");
        lift.linear(&name_of("o"), out, [h, queries], false)?;
        lift.rotary(
            &name_of("q"),
            attention.q,
            [queries, h],
            false,
            paired(t.n_heads),
        )?;
        lift.rotary(
            &name_of("k"),
            attention.k,
            [keys, h],
            false,
            paired(t.n_kv_heads),
        )?;
        lift.linear(&name_of("v"), attention.v, [keys, h], false)?;
        let norm = walk.norm(normed)?;
        let read = lift.norm(&format!("{name}.input_layernorm"), norm, h, eps, false)?;
        lift.same(&walk, read, before)?;
        stream = before;
    }
    if layer > 0 {
        let found = t.n_layers - layer;
        return Err(graph.differs(embeds, "the number of layers", found, t.n_layers));
    }
    Ok(lift.weights)
}

/// The caches' declared sizes: `[batch, key heads, positions, head size]`.
fn check_caches(graph: &Graph, t: &TextConfig) -> Result<(), OnnxError> {
    for port in graph.inputs() {
        let name = graph.name(port.value);
        if !name.starts_with("past_key_values.") {
            continue;
        }
        let [_, heads, _, width] = port.dims[..] else {
            continue;
        };
        for (what, found, expected) in [
            ("the number of key heads of the cache", heads, t.n_kv_heads),
            ("the head size of the cache", width, t.head_dim),
        ] {
            if let Some(found) = found.filter(|found| *found != expected) {
                return Err(graph.differs(port.value, what, found, expected));
            }
        }
    }
    Ok(())
}

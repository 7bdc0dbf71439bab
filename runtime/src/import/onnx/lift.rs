//! The three graphs taken apart: every weight under its published name.

use super::error::OnnxError;
use super::graph::{Graph, ValueId};
use super::stored::Stored;
use super::walk::{Heads, Norm, Projection, Stream, Walk};
use crate::config::{ModelConfig, TextConfig, VisionConfig};
use std::collections::BTreeMap;

/// Largest relative difference between an epsilon of the graph and of the configuration: small
/// ones are coarse in f16.
const EPSILON_TOLERANCE: f64 = 0.1;

/// A weight in one of the graphs.
#[derive(Clone, Debug)]
pub(super) struct Lifted {
    stored: Stored,
    /// The first row, or entry of a list, that belongs to it.
    start: usize,
    /// Its published shape.
    shape: Vec<usize>,
    /// Number of heads whose rows have rotary pairs side by side and have to be put in order.
    paired_heads: Option<usize>,
}

impl Lifted {
    /// Its published shape.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Name of the value in the file, for messages.
    pub(super) fn tensor<'g>(&self, graph: &'g Graph) -> &'g str {
        graph.name(self.stored.value())
    }

    /// Its values as f32, row-major.
    pub(super) fn read(&self, graph: &Graph) -> Vec<f32> {
        let rows = *self.shape.first().unwrap_or(&1);
        self.stored.read(
            graph,
            (0..rows).map(|row| self.start + self.row_in_file(row, rows)),
        )
    }

    /// Where row `row` of `rows` is: undoes neighbours that are turned against each other.
    fn row_in_file(&self, row: usize, rows: usize) -> usize {
        let Some(heads) = self.paired_heads else {
            return row;
        };
        let head = rows / heads;
        let (first, within) = (row / head * head, row % head);
        first + 2 * (within % (head / 2)) + within / (head / 2)
    }
}

/// Weights of one graph by published name.
pub(super) type Weights = BTreeMap<String, Lifted>;

/// A graph while it is taken apart.
#[derive(Debug)]
struct Lift<'g> {
    graph: &'g Graph,
    weights: Weights,
}

impl<'g> Lift<'g> {
    fn new(graph: &'g Graph) -> Lift<'g> {
        Lift {
            graph,
            weights: BTreeMap::new(),
        }
    }

    fn shape_error(
        &self,
        name: &str,
        stored: &Stored,
        found: &[usize],
        shape: &[usize],
    ) -> OnnxError {
        OnnxError::Shape {
            path: self.graph.path().to_owned(),
            tensor: self.graph.name(stored.value()).into(),
            name: name.into(),
            found: found.into(),
            expected: shape.into(),
        }
    }

    /// A whole tensor, which may have further axes of one entry in front, a list anywhere.
    fn whole(&mut self, name: String, stored: Stored, shape: &[usize]) -> Result<(), OnnxError> {
        let fits = match shape {
            [n] => stored.n_elements() == *n,
            _ => {
                let more = stored.dims().len().saturating_sub(shape.len());
                stored.dims()[..more].iter().all(|dim| *dim == 1) && stored.dims()[more..] == *shape
            }
        };
        if !fits {
            return Err(self.shape_error(&name, &stored, stored.dims(), shape));
        }
        self.insert(name, stored, 0, shape.to_vec(), None);
        Ok(())
    }

    fn insert(
        &mut self,
        name: String,
        stored: Stored,
        start: usize,
        shape: Vec<usize>,
        paired_heads: Option<usize>,
    ) {
        let stored = stored.shaped(&shape);
        let lifted = Lifted {
            stored,
            start,
            shape,
            paired_heads,
        };
        self.weights.insert(name, lifted);
    }

    /// A linear layer `[n, k]`.
    fn linear(
        &mut self,
        name: &str,
        layer: Projection,
        [n, k]: [usize; 2],
        has_bias: bool,
    ) -> Result<(), OnnxError> {
        self.rotary(name, layer, [n, k], has_bias, None)
    }

    /// A linear layer whose rows may have rotary pairs side by side in so many heads.
    fn rotary(
        &mut self,
        name: &str,
        layer: Projection,
        [n, k]: [usize; 2],
        has_bias: bool,
        paired_heads: Option<usize>,
    ) -> Result<(), OnnxError> {
        let weight = format!("{name}.weight");
        let found = [layer.rows.1, layer.weight.dims()[1]];
        if found != [n, k] {
            return Err(self.shape_error(&weight, &layer.weight, &found, &[n, k]));
        }
        match (layer.bias, has_bias) {
            (Some((bias, start)), true) => {
                let name = format!("{name}.bias");
                if start + n > bias.n_elements() {
                    return Err(self.shape_error(&name, &bias, bias.dims(), &[n]));
                }
                self.insert(name, bias, start, vec![n], paired_heads);
            }
            (None, false) => {}
            (found, _) => {
                let said = |has: bool| if has { "there" } else { "absent" };
                let (found, expected) = (said(found.is_some()), said(has_bias));
                return Err(self
                    .graph
                    .differs(layer.output, "the bias", found, expected));
            }
        }
        self.insert(weight, layer.weight, layer.rows.0, vec![n, k], paired_heads);
        Ok(())
    }

    /// Weight, and for a LayerNorm bias, of a normalisation. Gives what it reads.
    fn norm(
        &mut self,
        name: &str,
        norm: Norm,
        width: usize,
        eps: f32,
        is_centred: bool,
    ) -> Result<Stream, OnnxError> {
        let kind = |centred: bool| if centred { "LayerNorm" } else { "RMSNorm" };
        if norm.is_centred != is_centred {
            let (found, expected) = (kind(norm.is_centred), kind(is_centred));
            return Err(self.graph.differs(norm.output, "the norm", found, expected));
        }
        if (norm.eps / f64::from(eps) - 1.0).abs() > EPSILON_TOLERANCE {
            return Err(self
                .graph
                .differs(norm.output, "the norm's epsilon", norm.eps, eps));
        }
        self.whole(format!("{name}.weight"), norm.weight, &[width])?;
        match (norm.bias, is_centred) {
            (Some(bias), true) => self.whole(format!("{name}.bias"), bias, &[width])?,
            (None, false) => {}
            _ => {
                let wanted = format!(
                    "{} {} bias",
                    kind(is_centred),
                    if is_centred { "with" } else { "without" }
                );
                return Err(self.graph.unrecognised(norm.output, wanted));
            }
        }
        Ok(norm.input)
    }

    /// Layers that must read one and the same value.
    fn one_input(&self, layers: &[&Projection]) -> Result<ValueId, OnnxError> {
        let first = layers[0].input;
        match layers.iter().find(|layer| layer.input != first) {
            None => Ok(first),
            Some(layer) => {
                let wanted = format!("a layer that reads {:?}", self.graph.name(first));
                Err(self.graph.unrecognised(layer.output, wanted))
            }
        }
    }

    fn same(&self, walk: &Walk<'_>, found: Stream, expected: Stream) -> Result<(), OnnxError> {
        if found == expected {
            return Ok(());
        }
        let wanted = format!(
            "the stream at {:?}",
            self.graph.name(walk.value_of(expected))
        );
        Err(self.graph.unrecognised(walk.value_of(found), wanted))
    }
}

/// The output of a graph: the one of this name, or the first.
fn output(graph: &Graph, name: &str) -> Result<ValueId, OnnxError> {
    let named = graph
        .outputs()
        .iter()
        .find(|port| graph.name(port.value) == name);
    match named.or(graph.outputs().first()) {
        Some(port) => Ok(port.value),
        None => Err(OnnxError::Malformed {
            path: graph.path().to_owned(),
            what: "it has no output".to_owned(),
        }),
    }
}

/// The input of a graph that carries the stream.
fn input(graph: &Graph, name: &str) -> Result<ValueId, OnnxError> {
    match graph.input(name) {
        Some(port) => Ok(port.value),
        None => {
            let inputs: Vec<&str> = graph
                .inputs()
                .iter()
                .map(|port| graph.name(port.value))
                .collect();
            Err(OnnxError::Malformed {
                path: graph.path().to_owned(),
                what: format!("it has no input {name}, only {}", inputs.join(", ")),
            })
        }
    }
}

/// Every weight of the embedding graph: `input_ids` → `inputs_embeds`.
pub(super) fn embedding(graph: &Graph, text: &TextConfig) -> Result<Weights, OnnxError> {
    let wanted = "the rows of a constant table, picked by input_ids";
    let walk = Walk::new(graph, &[], text.head_dim);
    let mut value = walk.strip(output(graph, "inputs_embeds")?);
    let ids = input(graph, "input_ids")?;
    let refused = |value| graph.unrecognised(value, wanted);
    // Dequantising may stand before or behind the picking.
    let mut behind = None;
    let mut node = walk.node(value).ok_or_else(|| refused(value))?.0;
    if node.op == "DequantizeLinear" && node.input(0).is_some_and(|v| graph.constant(v).is_none()) {
        behind = Some(node);
        value = walk.strip(node.input(0).unwrap_or(value));
        node = walk.node(value).ok_or_else(|| refused(value))?.0;
    }
    let (Some(data), Some(picked)) = (node.input(0), node.input(1)) else {
        return Err(refused(value));
    };
    let table = match (node.op.as_str(), behind) {
        ("GatherBlockQuantized", None) => Some(Stored::gather_blocks(graph, node, value)?),
        ("Gather", None) if node.int("axis").unwrap_or(0) == 0 => Stored::of(graph, data)?,
        ("Gather", Some(behind)) if node.int("axis").unwrap_or(0) == 0 => match behind.input(1) {
            Some(scale) => Stored::integers(graph, [data, scale], behind.input(2), 1, 0)?,
            None => None,
        },
        _ => None,
    };
    let table = table
        .filter(|_| walk.strip(picked) == ids)
        .ok_or_else(|| refused(value))?;
    let mut lift = Lift::new(graph);
    let shape = [text.vocab_size, text.hidden_size];
    lift.whole(
        "model.text_model.embed_tokens.weight".to_owned(),
        table,
        &shape,
    )?;
    Ok(lift.weights)
}

/// Every weight of the decoder graph: `inputs_embeds` → `logits`.
pub(super) fn decoder(graph: &Graph, config: &ModelConfig) -> Result<Weights, OnnxError> {
    let t = &config.text;
    let embeds = input(graph, "inputs_embeds")?;
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

/// Every weight of the vision graph: `pixel_values` → `image_features`.
pub(super) fn vision(
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
            let node = walk.node(value).filter(|(node, _)| node.op == "Gather");
            match (node.and_then(|(node, _)| node.input(0)), behind) {
                (Some(data), None) => Stored::of(graph, data)?,
                (Some(data), Some((scale, zero))) => {
                    Stored::integers(graph, [data, scale], zero, 1, 0)?
                }
                (None, _) => None,
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

"""The decoder and the embedding table as ONNX graphs in the published interface.

decoder_model_merged: `inputs_embeds` f32 [B, S, H], `attention_mask` i64 [B, P + S], `position_ids` i64 [B, S],
`past_key_values.{i}.key|value` f32 [B, kv heads, P, d] -> `logits` f32 [B, S, V], `present.{i}.key|value`.
embed_tokens: `input_ids` i64 [B, S] -> `inputs_embeds` f32 [B, S, H].
A text model in one file has both: `input_ids` in front of the table, then the decoder.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from onnx_graph import FORMS, LOWEST, Form, Graph, Weights
from smolvlm import Config


def rotary_caches(config: Config, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of p·theta^(-2i/d), each [positions, d/2]."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    angles = np.arange(positions, dtype=np.float32)[:, None] * np.float32(config.rope_theta) ** -exponents
    return np.cos(angles), np.sin(angles)


@dataclass
class Shared:
    """Values that every layer takes."""

    bias: str = ""  # [B, 1, S, P + S]: 0 where a query sees a key, else the lowest number
    cos: str = ""
    sin: str = ""
    lengths: str = ""  # GroupQueryAttention's seqlens_k: index of the last key, i32 [B]
    total: str = ""  # and its total_sequence_length, an i32 scalar


class Decoder:
    """Builds one decoder graph: behind its embeddings, or with the table inside (`takes_ids`); with a cache in front
    of the new positions, or without."""

    def __init__(
        self,
        config: Config,
        tensors: dict[str, np.ndarray],
        form: Form,
        positions: int,
        takes_ids: bool = False,
        has_past: bool = True,
    ):
        self.config, self.form, self.positions = config, form, positions
        self.source, self.has_past = "input_ids" if takes_ids else "inputs_embeds", has_past
        self.graph = Graph("decoder", form)
        self.weights = Weights(self.graph, tensors)
        self.shared = Shared()

    def build(self) -> Graph:
        """The whole graph."""
        g, c = self.graph, self.config
        if self.source == "input_ids":
            ids = g.input("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])
            x = picked_rows(g, self.weights.tensors, ids)
        else:
            x = g.input("inputs_embeds", TensorProto.FLOAT, ["batch_size", "sequence_length", c.hidden])
        g.input("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])
        g.input("position_ids", TensorProto.INT64, ["batch_size", "sequence_length"])
        past = ["batch_size", c.kv_heads, "past_sequence_length", c.head_dim]
        for i in range(c.layers if self.has_past else 0):
            for part in ("key", "value"):
                g.input(f"past_key_values.{i}.{part}", TensorProto.FLOAT, past)
        self.prepare()
        presents, step = [], ""
        for i in range(c.layers):
            with g.scope(f"model/layers.{i}"):
                x, step, present = self.layer(x, step, i)
                presents.append(present)
        x, _ = self.norm(x, step, "model.text_model.norm")
        head = "model.text_model.embed_tokens" if c.tied else "lm_head"
        with g.scope("lm_head"):
            logits = self.weights.linear(x, head)
        g.output(logits, "logits", ["batch_size", "sequence_length", c.vocab])
        present = ["batch_size", c.kv_heads, "total_sequence_length", c.head_dim]
        for i, pair in enumerate(presents):
            for part, value in zip(("key", "value"), pair, strict=True):
                g.output(value, f"present.{i}.{part}", present)
        return g

    def prepare(self) -> None:
        """What all layers share: mask or lengths, cosines and sines."""
        g, s = self.graph, self.shared
        if self.form.attention == "grouped":
            with g.scope("model/attn_mask_reformat"):
                # The builder's versions differ in this: [B, 1] and [B] are both taken.
                keepdims = int(self.form.rotary == "op")
                total = g.reduce("ReduceSum", "attention_mask", [1], keepdims)
                s.lengths = g.cast(g.op("Sub", total, g.constant(1)), TensorProto.INT32)
                s.total = g.cast(g.length("attention_mask", 1), TensorProto.INT32)
        else:
            s.bias = self.attention_bias()
        if self.form.rotary == "frequencies":
            s.cos, s.sin = self.angles()
            return
        cos, sin = rotary_caches(self.config, self.positions)
        s.cos, s.sin = g.weight(cos, "cos_cache", "Gather"), g.weight(sin, "sin_cache", "Gather")
        if self.form.rotary == "cache":
            s.cos, s.sin = (self.looked_up(cache) for cache in (s.cos, s.sin))

    def attention_bias(self) -> str:
        """Causal mask and padding as numbers to add to the scores."""
        g = self.graph
        with g.scope("model/attention_bias"):
            total = g.length("attention_mask", 1)
            past = g.op("Sub", total, g.length(self.source, 1))
            keys = g.op("Range", g.constant(0), total, g.constant(1))
            queries = g.unsqueeze(g.op("Range", past, total, g.constant(1)), 1)
            causal = g.op("LessOrEqual", keys, queries)
            real = g.unsqueeze(g.cast("attention_mask", TensorProto.BOOL), 1, 2)
            return g.op("Where", g.op("And", causal, real), g.number(0), g.number(LOWEST))

    def looked_up(self, cache: str) -> str:
        """Rows of a cache by position id, both halves: [B, 1, S, d]."""
        g = self.graph
        half = g.op("Gather", cache, "position_ids", axis=0)
        g.unquantised.append(g.nodes[-1].name)
        return g.unsqueeze(g.op("Concat", half, half, axis=-1), 1)

    def angles(self) -> tuple[str, str]:
        """Cosines and sines computed from the position ids, in f32: [B, 1, S, d]."""
        g, d = self.graph, self.config.head_dim
        frequencies = self.config.rope_theta ** -(np.arange(0, d, 2, dtype=np.float32) / d)
        with g.scope("model/rotary_emb"), g.precise():
            weight = g.weight(frequencies[None, None, :], "model.rotary_emb.inv_freq", "Mul")
            places = g.unsqueeze(g.cast("position_ids", TensorProto.FLOAT), 2)
            half = g.op("Mul", places, weight)
            both = g.op("Concat", half, half, axis=-1)
            cos, sin = g.op("Cos", both), g.op("Sin", both)
        return g.unsqueeze(cos, 1), g.unsqueeze(sin, 1)

    def norm(self, x: str, step: str, name: str) -> tuple[str, str]:
        """RMS norm of x + step (of x when there is no step); returns the norm and the sum."""
        g, eps = self.graph, self.config.rms_norm_eps
        with g.scope(name.removeprefix("model.text_model.")):
            if self.form.norm == "fused":
                weight = self.weights.vector(f"{name}.weight", "Norm")
                if not step:
                    return g.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=eps, stash_type=1), x
                kind = "SkipSimplifiedLayerNormalization"
                if name == "model.text_model.norm":
                    return g.contrib(kind, x, step, weight, epsilon=eps), ""
                wanted = [True, False, False, True]
                normed, _, _, total = g.contrib(kind, x, step, weight, outputs=wanted, epsilon=eps)
                return normed, total
            total = g.op("Add", x, step) if step else x
            square = g.op("Pow", total, g.number(2))
            root = g.op("Sqrt", g.op("Add", g.reduce("ReduceMean", square, [-1]), g.number(eps)))
            inverse = g.op("Reciprocal", root) if self.form.readable else g.op("Div", g.number(1), root)
            normed = g.op("Mul", total, inverse)
            return g.op("Mul", self.weights.vector(f"{name}.weight", "Mul"), normed), total

    def layer(self, x: str, step: str, index: int) -> tuple[str, str, tuple[str, str]]:
        """One layer; returns the residual, what is still to be added to it, and (present key, present value)."""
        g, name = self.graph, f"model.text_model.layers.{index}"
        y, x = self.norm(x, step, f"{name}.input_layernorm")
        with g.scope("attn"):
            mixed, present = self.attention(y, f"{name}.self_attn", index)
            step = self.weights.linear(mixed, f"{name}.self_attn.o_proj")
        y, x = self.norm(x, step, f"{name}.post_attention_layernorm")
        with g.scope("mlp"):
            gate = self.weights.linear(y, f"{name}.mlp.gate_proj")
            up = self.weights.linear(y, f"{name}.mlp.up_proj")
            if self.form.activation == "quick":
                gate = g.contrib("QuickGelu", gate, alpha=1.0)
            else:
                gate = g.op("Mul", gate, g.op("Sigmoid", gate))
            step = self.weights.linear(g.op("Mul", gate, up), f"{name}.mlp.down_proj")
        return x, step, present

    def attention(self, y: str, name: str, index: int) -> tuple[str, tuple[str, str]]:
        """Attention of a normed input; returns the mix [B, S, heads·d] and the presents."""
        c = self.config
        stems = [f"{name}.{part}_proj" for part in "qkv"]
        paired = dict(zip(stems, (c.heads, c.kv_heads), strict=False)) if self.form.interleaved else {}
        if self.form.packed:
            return self.grouped(self.weights.linear(y, *stems, paired=paired), "", "", index)
        q, k, v = (self.weights.linear(y, stem, paired=paired) for stem in stems)
        if self.form.rotary == "op":
            q, k = (self.rotary_op(value) for value in (q, k))
        if self.form.attention == "grouped":
            return self.grouped(q, k, v, index)
        k, v = self.by_head(k, c.kv_heads), self.by_head(v, c.kv_heads)
        if self.form.attention == "parts":
            q = self.rotated(self.by_head(q, c.heads))
            k = self.rotated(k)
        g = self.graph
        if self.has_past:
            k, v = (
                g.op("Concat", self.past(f"past_key_values.{index}.{part}"), value, axis=2)
                for part, value in (("key", k), ("value", v))
            )
        mix = self.parts if self.form.attention == "parts" else self.all_heads
        return mix(q, self.repeated(k), self.repeated(v)), (k, v)

    def past(self, name: str) -> str:
        """A cache as it comes in."""
        return self.graph.op("Concat", name, axis=-2) if self.form.traced else name

    def by_head(self, x: str, heads: int) -> str:
        """[B, S, heads·d] -> [B, heads, S, d]."""
        return self.graph.transpose(self.graph.reshape(x, 0, 0, heads, self.config.head_dim), 0, 2, 1, 3)

    def rotary_op(self, x: str) -> str:
        """onnxruntime's RotaryEmbedding on [B, S, heads·d]."""
        s = self.shared
        return self.graph.contrib(
            "RotaryEmbedding",
            x,
            "position_ids",
            s.cos,
            s.sin,
            interleaved=int(self.form.interleaved),
            num_heads=0,
            rotary_embedding_dim=0,
        )

    def rotated(self, x: str) -> str:
        """x·cos + (−x₂, x₁)·sin on [B, heads, S, d]."""
        g, d = self.graph, self.config.head_dim
        low, high = g.slice(x, 0, d // 2, 3), g.slice(x, d // 2, 2**63 - 1, 3)
        turned = g.op("Concat", g.op("Neg", high), low, axis=-1)
        return g.op("Add", g.op("Mul", x, self.shared.cos), g.op("Mul", turned, self.shared.sin))

    def repeated(self, x: str) -> str:
        """Each kv head as often as it has query heads: [B, kv, T, d] -> [B, heads, T, d]."""
        g, c = self.graph, self.config
        group = c.heads // c.kv_heads
        if group == 1:
            return x
        with g.scope("repeat_kv"):
            wide = g.unsqueeze(x, 2)
            if self.form.readable:
                lengths = g.op("Shape", x)
                shape = [g.slice(lengths, 0, 2, 0), g.constant([group]), g.slice(lengths, 2, 4, 0)]
                wide = g.op("Expand", wide, g.op("Concat", *shape, axis=0))
            else:
                wide = g.op("Expand", wide, g.constant([1, 1, group, 1, 1]))
            batch = g.unsqueeze(g.length(x, 0), 0)
            flat = g.op("Concat", batch, g.constant([c.heads, -1, c.head_dim]), axis=0)
            return g.op("Reshape", wide, flat)

    def parts(self, q: str, k: str, v: str) -> str:
        """Softmax attention in single steps."""
        g, c = self.graph, self.config
        scale, turned = 1 / math.sqrt(c.head_dim), g.transpose(k, 0, 1, 3, 2)
        if self.form.readable:
            root = g.number(math.sqrt(scale))
            scores = g.op("MatMul", g.op("Mul", q, root), g.op("Mul", turned, root))
        else:
            scores = g.op("Mul", g.op("MatMul", q, turned), g.number(scale))
        share = g.op("Softmax", g.op("Add", scores, self.shared.bias), axis=-1)
        mixed = g.transpose(g.op("MatMul", share, v), 0, 2, 1, 3)
        return g.reshape(mixed, 0, 0, c.heads * c.head_dim)

    def all_heads(self, q: str, k: str, v: str) -> str:
        """MultiHeadAttention on rows; k and v come as [B, heads, T, d]."""
        g, c = self.graph, self.config
        k, v = (g.reshape(g.transpose(x, 0, 2, 1, 3), 0, 0, c.heads * c.head_dim) for x in (k, v))
        return g.contrib("MultiHeadAttention", q, k, v, "", "", self.shared.bias, num_heads=c.heads)

    def grouped(self, q: str, k: str, v: str, index: int) -> tuple[str, tuple[str, str]]:
        """GroupQueryAttention, which also appends to the cache."""
        g, c, s = self.graph, self.config, self.shared
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        inside = self.form.rotary == "inside"
        rotary = [s.cos, s.sin] if inside else ["", ""]
        attributes = {"num_heads": c.heads, "kv_num_heads": c.kv_heads, "softcap": 0.0}
        attributes["scale"] = 1 / math.sqrt(c.head_dim)
        attributes |= {"do_rotary": int(inside), "rotary_interleaved": int(inside and self.form.interleaved)}
        mixed, key, value = g.contrib(
            "GroupQueryAttention", q, k, v, *past, s.lengths, s.total, *rotary, outputs=3, **attributes
        )
        return mixed, (key, value)


def embed_tokens(config: Config, tensors: dict[str, np.ndarray], opset: int = 14) -> Graph:
    """The embedding table."""
    g = Graph("embed_tokens", replace(FORMS["fused"], opset=opset))
    ids = g.input("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])
    rows = picked_rows(g, tensors, ids)
    g.output(rows, "inputs_embeds", ["batch_size", "sequence_length", config.hidden])
    return g


def picked_rows(g: Graph, tensors: dict[str, np.ndarray], ids: str) -> str:
    """Rows of the embedding table by id."""
    name = "model.text_model.embed_tokens.weight"
    table = g.weight(tensors[name], "embed_tokens.weight", "Gather", lambda a: {name: a})
    return g.op("Gather", table, ids, axis=0)

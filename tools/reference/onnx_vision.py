"""The vision encoder with its connector as an ONNX graph in the published interface.

vision_encoder: `pixel_values` f32 [B, N, 3, S, S], `pixel_attention_mask` bool [B, N, S, S] -> `image_features`
f32 [frames, M, H]. Frames of zeros are dropped; position ids come from the mask, as transformers computes them.
"""

import math
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from onnx_graph import LOWEST, Form, Graph, Weights
from smolvlm import Config


class VisionEncoder:
    """Builds one vision graph."""

    def __init__(self, config: Config, tensors: dict[str, np.ndarray], form: Form):
        if form.linear == "transpose":
            form = replace(form, linear="gemm")
        if form.norm != "parts":
            form = replace(form, opset=max(form.opset, 17))  # LayerNormalization
        self.config, self.form, self.tensors = config, form, tensors
        self.graph = Graph("vision_encoder", form)
        self.weights = Weights(self.graph, tensors)
        self.bias = ""

    def build(self) -> Graph:
        """The whole graph."""
        g, c = self.graph, self.config
        size = c.image_size
        g.input("pixel_values", TensorProto.FLOAT, ["batch_size", "num_images", 3, size, size])
        g.input("pixel_attention_mask", TensorProto.BOOL, ["batch_size", "num_images", size, size])
        with g.scope("vision_model/embeddings"):
            x = self.embeddings()
        step, bias = "", ""
        for i in range(c.vision_layers):
            with g.scope(f"vision_model/encoder/layers.{i}"):
                x, step, bias = self.layer(x, step, bias, i)
        x, _ = self.norm(x, step, bias, "model.vision_model.post_layernorm")
        with g.scope("connector"):
            x = self.weights.linear(self.pixel_shuffle(x), "model.connector.modality_projection.proj")
        g.output(x, "image_features", ["num_frames", c.image_tokens, c.hidden])
        return g

    def embeddings(self) -> str:
        """Frames that are not all zero -> patches with their positions [F, N, D]."""
        g, c, name = self.graph, self.config, "model.vision_model.embeddings"
        side, size = c.patches, c.image_size
        frames = g.reshape("pixel_values", -1, 3, size, size)
        zeros = g.cast(g.op("Equal", frames, g.number(0)), TensorProto.INT64)
        empty = g.op("Equal", g.reduce("ReduceSum", zeros, [1, 2, 3], keepdims=0), g.constant(3 * size * size))
        places = g.op("Squeeze", g.transpose(g.op("NonZero", g.op("Not", empty)), 1, 0), g.constant([1]))
        frames = g.op("Gather", frames, places, axis=0)
        mask = self.patch_mask(places)
        kernel = f"{name}.patch_embedding.weight"
        weight = g.weight(self.tensors[kernel], kernel, "Conv", lambda a: {kernel: a})
        bias = self.weights.vector(f"{name}.patch_embedding.bias", "Conv")
        patch = [c.patch_size] * 2
        x = g.op("Conv", frames, weight, bias, kernel_shape=patch, strides=patch, pads=[0] * 4, group=1)
        x = g.transpose(g.reshape(x, 0, c.vision_hidden, -1), 0, 2, 1)
        table = f"{name}.position_embedding.weight"
        if self.form.norm == "op":
            rows = g.weight(self.tensors[table][None], table, "Add", lambda a: {table: a[0]})
        else:
            rows = g.weight(self.tensors[table], table, "Gather", lambda a: {table: a})
            rows = g.op("Gather", rows, self.position_ids(mask), axis=0)
        if self.form.norm == "parts":
            self.bias = g.op("Where", g.reshape(mask, -1, 1, 1, side * side), g.number(0), g.number(LOWEST))
        return g.op("Add", x, rows)

    def patch_mask(self, places: str) -> str:
        """Whether a patch has any real pixel: [F, P, P] bool."""
        g, c = self.graph, self.config
        side, patch, size = c.patches, c.patch_size, c.image_size
        mask = g.op("Gather", g.reshape("pixel_attention_mask", -1, size, size), places, axis=0)
        if side * patch < size:
            mask = g.slice(g.slice(mask, 0, side * patch, 1), 0, side * patch, 2)
        pixels = g.cast(g.reshape(mask, -1, side, patch, side, patch), TensorProto.INT64)
        return g.op("Greater", g.reduce("ReduceSum", pixels, [2, 4], keepdims=0), g.constant(0))

    def buckets(self, mask: str, axis: int) -> str:
        """For each row or column of patches the number of boundaries k/P at or below i·(1/n): [F, P] i64;
        n is the number of real rows or columns."""
        g, side = self.graph, self.config.patches
        line = g.op("Gather", mask, g.constant(0), axis=3 - axis)
        count = g.reduce("ReduceSum", g.cast(line, TensorProto.INT64), [1])
        part = g.op("Div", g.number(1), g.cast(count, TensorProto.FLOAT))
        places = g.op("Mul", g.constant(np.arange(side)[None], np.float32), part)
        places = g.op("Clip", places, g.number(0), g.number(1 - 1e-6))
        # Onnxruntime's division may be off in the last bit, which would put row 5 of 12 into bucket 4.
        boundaries = g.constant(np.arange(1, side) / side - 1e-6, np.float32)
        reached = g.op("GreaterOrEqual", g.unsqueeze(places, 2), boundaries)
        return g.reduce("ReduceSum", g.cast(reached, TensorProto.INT64), [2], keepdims=0)

    def position_ids(self, mask: str) -> str:
        """P·row bucket + column bucket of real patches, else 0: [F, N] i64."""
        g, side = self.graph, self.config.patches
        with g.scope("position_ids"), g.precise():
            rows = g.op("Mul", g.unsqueeze(self.buckets(mask, 1), 2), g.constant(side))
            ids = g.op("Add", rows, g.unsqueeze(self.buckets(mask, 2), 1))
            flat = g.reshape(ids, -1, side * side)
            return g.op("Where", g.reshape(mask, -1, side * side), flat, g.constant(0))

    def norm(self, x: str, step: str, bias: str, name: str) -> tuple[str, str]:
        """Layer norm of x + step + bias; returns the norm and the sum."""
        g, eps = self.graph, self.config.layer_norm_eps
        with g.scope(name.removeprefix("model.vision_model.").split(".")[-1]):
            weight, offset = (self.weights.vector(f"{name}.{part}", "Norm") for part in ("weight", "bias"))
            if self.form.norm == "fused" and step:
                wanted = [True, False, False, True]
                values = [x, step, weight, offset] + ([bias] if bias else [])
                normed, _, _, total = g.contrib("SkipLayerNormalization", *values, outputs=wanted, epsilon=eps)
                return normed, total
            total = g.op("Add", x, step) if step else x
            if self.form.norm != "parts":
                return g.op("LayerNormalization", total, weight, offset, axis=-1, epsilon=eps), total
            centred = g.op("Sub", total, g.reduce("ReduceMean", total, [-1]))
            var = g.reduce("ReduceMean", g.op("Pow", centred, g.number(2)), [-1])
            normed = g.op("Div", centred, g.op("Sqrt", g.op("Add", var, g.number(eps))))
            return g.op("Add", g.op("Mul", normed, weight), offset), total

    def layer(self, x: str, step: str, bias: str, index: int) -> tuple[str, str, str]:
        """One layer; returns the residual and what is still to be added to it: a value and, where norms take it,
        a bias."""
        g, name = self.graph, f"model.vision_model.encoder.layers.{index}"
        y, x = self.norm(x, step, bias, f"{name}.layer_norm1")
        with g.scope("self_attn"):
            mixed = self.attention(y, f"{name}.self_attn")
            step, bias = self.last(mixed, f"{name}.self_attn.out_proj")
        y, x = self.norm(x, step, bias, f"{name}.layer_norm2")
        with g.scope("mlp"):
            step, bias = self.last(self.widened(y, f"{name}.mlp.fc1"), f"{name}.mlp.fc2")
        return x, step, bias

    def last(self, x: str, stem: str) -> tuple[str, str]:
        """The linear before a residual sum; its bias apart when the norm takes it."""
        if not self.form.biased:
            return self.weights.linear(x, stem, bias=True), ""
        return self.weights.linear(x, stem), self.weights.biases(stem)

    def attention(self, y: str, name: str) -> str:
        """Every patch sees every real patch; [F, N, D] -> [F, N, D] before the out projection."""
        g, c = self.graph, self.config
        stems = [f"{name}.{part}_proj" for part in "qkv"]
        if self.form.packed:
            width = c.vision_hidden
            whole = self.weights.linear(y, *stems)
            q, k, v = g.op("Split", whole, g.constant([width] * 3), outputs=3, axis=-1)
        else:
            q, k, v = (self.weights.linear(y, stem, bias=not self.form.biased) for stem in stems)
        if self.form.fused_vision:
            bias = [self.weights.biases(*stems)] if self.form.biased else []
            return g.contrib("MultiHeadAttention", q, k, v, *bias, num_heads=c.vision_heads)
        head_dim = c.vision_hidden // c.vision_heads
        q, k, v = (g.transpose(g.reshape(x, 0, 0, c.vision_heads, head_dim), 0, 2, 1, 3) for x in (q, k, v))
        scores = g.op("MatMul", q, g.transpose(k, 0, 1, 3, 2))
        scores = g.op("Mul", scores, g.number(1 / math.sqrt(head_dim)))
        if self.bias:
            scores = g.op("Add", scores, self.bias)
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        return g.reshape(g.transpose(mixed, 0, 2, 1, 3), 0, 0, c.vision_hidden)

    def widened(self, y: str, stem: str) -> str:
        """gelu(fc1(y)), gelu by tanh."""
        g = self.graph
        if self.form.fused_vision:
            if self.form.biased:
                return g.contrib("FastGelu", self.weights.linear(y, stem), self.weights.biases(stem))
            return g.contrib("FastGelu", self.weights.linear(y, stem, bias=True))
        z = self.weights.linear(y, stem, bias=True)
        if self.form.opset >= 20:
            return g.op("Gelu", z, approximate="tanh")
        cube = g.op("Mul", g.op("Pow", z, g.number(3)), g.number(0.044715))
        inner = g.op("Mul", g.op("Add", z, cube), g.number(math.sqrt(2 / math.pi)))
        return g.op("Mul", g.op("Mul", z, g.number(0.5)), g.op("Add", g.op("Tanh", inner), g.number(1)))

    def pixel_shuffle(self, x: str) -> str:
        """[F, N, D] -> [F, M, D·s²]: by two transposes as transformers does, or by one."""
        g, c = self.graph, self.config
        side, s, d = c.patches, c.scale_factor, c.vision_hidden
        small = side // s
        if self.form.fused_vision:
            x = g.transpose(g.reshape(x, -1, small, s, small, s, d), 0, 1, 3, 2, 4, 5)
            return g.reshape(x, -1, small * small, d * s * s)
        x = g.transpose(g.reshape(x, -1, side, small, d * s), 0, 2, 1, 3)
        x = g.transpose(g.reshape(x, -1, small, small, d * s * s), 0, 2, 1, 3)
        return g.reshape(x, -1, small * small, d * s * s)

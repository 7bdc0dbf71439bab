#!/usr/bin/env python3
"""Writes ONNX graphs of SmolVLM-256M's shape with random int8 weights: for speed, not for sense.

    graphs.py vision|decoder OUT

The form is the one that onnxruntime itself gives a dynamically quantised model: activations
quantised to uint8 by tensor, weights int8 by output column, products by MatMulIntegerToFloat. The
decoder is given the rotary angles and the mask, and returns the logits of the last position.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
PATCHES, HIDDEN, VISION_HEADS, VISION_INTER, VISION_LAYERS = 1024, 768, 12, 3072, 12
TEXT, INTER, HEADS, KV_HEADS, HEAD_DIM, LAYERS, VOCAB = 576, 1536, 9, 3, 64, 30, 49280
FLOAT = TensorProto.FLOAT


class Graph:
    """Nodes and weights under construction; every method returns the name of its result."""

    def __init__(self):
        self.nodes, self.weights, self.count = [], [], 0
        self.random = np.random.default_rng(1)

    def name(self, stem):
        self.count += 1
        return f"{stem}_{self.count}"

    def op(self, kind, *inputs, outputs=1, domain="", **attributes):
        names = [self.name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array):
        name = self.name("weight")
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, *shape, size=0.1):
        return self.constant((self.random.standard_normal(shape) * size).astype(np.float32))

    def reshape(self, x, *shape):
        return self.op("Reshape", x, self.constant(np.array(shape, np.int64)))

    def transpose(self, x, *order):
        return self.op("Transpose", x, perm=order)

    def quantized(self, x):
        return self.op("DynamicQuantizeLinear", x, outputs=3)

    def linear(self, quantized, k, n, bias):
        x, scale, zero = quantized
        weights = self.constant(self.random.integers(-127, 128, (k, n), np.int8))
        scales = self.constant(np.full(n, 1 / (73.3 * np.sqrt(k)), np.float32))
        zeros = self.constant(np.zeros(n, np.int8))
        inputs = [x, weights, scale, scales, zero, zeros]
        if bias:
            inputs.append(self.floats(n, size=0.01))
        return self.op("MatMulIntegerToFloat", *inputs, domain="com.microsoft")

    def save(self, path, inputs, outputs):
        info = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs]
        results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "random", info, results, self.weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.save(model, path)


def vision(path):
    g = Graph()
    head = HIDDEN // VISION_HEADS

    def norm(x):
        ones = g.constant(np.ones(HIDDEN, np.float32))
        return g.op("LayerNormalization", x, ones, g.floats(HIDDEN), axis=-1, epsilon=1e-6)

    def heads(x, *order):
        return g.transpose(g.reshape(x, 1, PATCHES, VISION_HEADS, head), *order)

    patches = g.op("Conv", "pixel_values", g.floats(HIDDEN, 3, 16, 16, size=0.03), g.floats(HIDDEN), strides=[16, 16])
    x = g.transpose(g.reshape(patches, 1, HIDDEN, PATCHES), 0, 2, 1)
    x = g.op("Add", x, g.floats(1, PATCHES, HIDDEN))
    scale = g.constant(np.float32(head**-0.5))
    for _ in range(VISION_LAYERS):
        rows = g.quantized(norm(x))
        q, k, v = (g.linear(rows, HIDDEN, HIDDEN, True) for _ in range(3))
        scores = g.op("MatMul", g.op("Mul", heads(q, 0, 2, 1, 3), scale), heads(k, 0, 2, 3, 1))
        context = g.op("MatMul", g.op("Softmax", scores, axis=-1), heads(v, 0, 2, 1, 3))
        context = g.reshape(g.transpose(context, 0, 2, 1, 3), 1, PATCHES, HIDDEN)
        x = g.op("Add", x, g.linear(g.quantized(context), HIDDEN, HIDDEN, True))
        wide = g.linear(g.quantized(norm(x)), HIDDEN, VISION_INTER, True)
        wide = g.op("Gelu", wide, approximate="tanh")
        x = g.op("Add", x, g.linear(g.quantized(wide), VISION_INTER, HIDDEN, True))
    x = g.reshape(norm(x), 1, 32, 8, 4 * HIDDEN)
    x = g.reshape(g.transpose(x, 0, 2, 1, 3), 1, 8, 8, 16 * HIDDEN)
    x = g.reshape(g.transpose(x, 0, 2, 1, 3), 1, 64, 16 * HIDDEN)
    features = g.linear(g.quantized(x), 16 * HIDDEN, TEXT, False)
    g.save(path, [("pixel_values", [1, 3, 512, 512])], [features])


def decoder(path):
    g = Graph()
    group = HEADS // KV_HEADS
    epsilon, two = g.constant(np.float32(1e-5)), g.constant(np.array([-1], np.int64))
    scale = g.constant(np.float32(HEAD_DIM**-0.5))

    def norm(x):
        mean = g.op("ReduceMean", g.op("Mul", x, x), two, keepdims=1)
        root = g.op("Sqrt", g.op("Add", mean, epsilon))
        return g.op("Mul", g.op("Div", x, root), g.constant(np.ones(TEXT, np.float32)))

    def turned(x):
        left, right = g.op("Split", x, outputs=2, axis=-1, num_outputs=2)
        half = g.op("Concat", g.op("Neg", right), left, axis=-1)
        return g.op("Add", g.op("Mul", x, "cos"), g.op("Mul", half, "sin"))

    def heads(x, count):
        return g.transpose(g.reshape(x, 1, -1, count, HEAD_DIM), 0, 2, 1, 3)

    inputs = [("embeddings", [1, "S", TEXT]), ("cos", ["S", HEAD_DIM]), ("sin", ["S", HEAD_DIM]), ("mask", ["S", "T"])]
    outputs, x = [], "embeddings"
    for i in range(LAYERS):
        past = [f"past.{i}.{part}" for part in "kv"]
        inputs += [(name, [1, KV_HEADS, "P", HEAD_DIM]) for name in past]
        rows = g.quantized(norm(x))
        q = turned(heads(g.linear(rows, TEXT, HEADS * HEAD_DIM, False), HEADS))
        k = turned(heads(g.linear(rows, TEXT, KV_HEADS * HEAD_DIM, False), KV_HEADS))
        v = heads(g.linear(rows, TEXT, KV_HEADS * HEAD_DIM, False), KV_HEADS)
        k, v = (g.op("Concat", old, new, axis=2) for old, new in zip(past, (k, v)))
        outputs += [k, v]
        q = g.reshape(g.op("Mul", q, scale), 1, KV_HEADS, group, -1, HEAD_DIM)
        k = g.reshape(g.transpose(k, 0, 1, 3, 2), 1, KV_HEADS, 1, HEAD_DIM, -1)
        scores = g.op("Add", g.op("MatMul", q, k), "mask")
        v = g.reshape(v, 1, KV_HEADS, 1, -1, HEAD_DIM)
        context = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        context = g.transpose(g.reshape(context, 1, HEADS, -1, HEAD_DIM), 0, 2, 1, 3)
        context = g.reshape(context, 1, -1, HEADS * HEAD_DIM)
        x = g.op("Add", x, g.linear(g.quantized(context), HEADS * HEAD_DIM, TEXT, False))
        rows = g.quantized(norm(x))
        gate, up = (g.linear(rows, TEXT, INTER, False) for _ in range(2))
        wide = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), up)
        x = g.op("Add", x, g.linear(g.quantized(wide), INTER, TEXT, False))
    last = g.op("Gather", norm(x), g.constant(np.int64(-1)), axis=1)
    logits = g.linear(g.quantized(last), TEXT, VOCAB, False)
    g.save(path, inputs, [logits, *outputs])


if __name__ == "__main__":
    {"vision": vision, "decoder": decoder}[sys.argv[1]](sys.argv[2])

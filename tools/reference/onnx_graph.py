"""A builder of ONNX graphs that remembers which weight of the checkpoint each initializer holds.

`Form` says how a graph is written: which operators, which names, which opset. `FORMS` lists those of
`onnx_files.py`. Needs numpy and onnx.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONTRIB = "com.microsoft"
LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Form:
    """How graphs are written."""

    name: str
    opset: int
    readable: bool  # names that say what a node or weight is; else numbers, as the older torch exporter gives
    linear: str  # `matmul`: W transposed beforehand; `transpose`: in the graph; `gemm`: on flattened rows
    norm: str  # `parts`: arithmetic; `op`: LayerNormalization, RMS in parts; `fused`: contrib, with the residual sum
    attention: str  # decoder: `parts`, `grouped` (GroupQueryAttention) or `heads` (MultiHeadAttention)
    rotary: str  # `cache`, `frequencies`: arithmetic; `op`: RotaryEmbedding; `inside`: GroupQueryAttention's own
    interleaved: bool  # rotary pairs side by side: rows of q and k stand in that order
    packed: bool  # q, k and v are one linear
    fused_vision: bool  # MultiHeadAttention, FastGelu; else Softmax and tanh
    biased: bool  # biases go into SkipLayerNormalization, MultiHeadAttention and FastGelu
    activation: str  # silu: `parts` (Sigmoid, Mul) or `quick` (QuickGelu, alpha 1)
    traced: bool = False  # the cache is put together alone first, as torch traces transformers' own
    optimised: bool = False  # what onnxruntime writes when it has optimised the graph


FORMS = {
    form.name: form
    for form in (
        Form("plain", 14, False, "matmul", "parts", "parts", "cache", False, False, False, False, "parts"),
        Form("traced", 14, False, "matmul", "parts", "parts", "cache", False, False, False, False, "parts", traced=True),
        Form("optimised", 14, False, "matmul", "parts", "parts", "cache", False, False, False, False, "parts", optimised=True),
        Form("named", 20, True, "transpose", "op", "parts", "frequencies", False, False, False, False, "parts"),
        # Operator by operator what the model builder of onnxruntime-genai 0.6 makes of a Llama decoder, which the
        # published 256M decoders fit to within 700 bytes of graph.
        Form("fused", 14, True, "matmul", "fused", "grouped", "op", False, False, True, False, "parts"),
        # The same builder's form for CPUs.
        Form("packed", 14, True, "matmul", "fused", "grouped", "inside", False, True, True, True, "parts"),
        Form("interleaved", 17, False, "matmul", "fused", "grouped", "op", True, False, True, False, "quick"),
        Form("inside_interleaved", 17, True, "matmul", "fused", "grouped", "inside", True, False, True, False, "parts"),
        Form("heads", 17, True, "matmul", "fused", "heads", "op", False, False, True, True, "quick"),
    )
}

# Turns an initializer, f32 and in the graph's shape, back into tensors of the checkpoint by name.
Undo = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass
class Graph:
    """A graph under construction. Values are known by their names."""

    name: str
    form: Form
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    sources: dict[str, Undo] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)  # nodes that stay f32 when the graph becomes f16
    unquantised: list[str] = field(default_factory=list)  # nodes that int8 schemes leave alone
    path: str = ""
    keep: bool = False
    count: int = 0
    constants: dict[tuple, str] = field(default_factory=dict)

    @contextmanager
    def scope(self, part: str):
        """Names of nodes made inside get `part` in front."""
        before, self.path = self.path, f"{self.path}/{part}"
        yield
        self.path = before

    @contextmanager
    def precise(self):
        """Nodes made inside stay f32."""
        before, self.keep = self.keep, True
        yield
        self.keep = before

    def next(self) -> int:
        """A number not used before."""
        self.count += 1
        return self.count

    def op(self, kind: str, *inputs: str, outputs: int | list[bool] = 1, domain: str = "", **attributes):
        """Adds a node; returns the name of its output, or a list of them. `outputs`: how many, or which are wanted."""
        n = self.next()
        name = f"{self.path}/{kind}_{n}" if self.form.readable else f"{kind}_{n}"
        wanted = [True] * outputs if isinstance(outputs, int) else outputs
        results = []
        for i, is_wanted in enumerate(wanted):
            result = f"{name}/output_{i}" if self.form.readable else f"{self.next()}"
            results.append(result if is_wanted else "")
        self.nodes.append(helper.make_node(kind, list(inputs), results, name=name, domain=domain, **attributes))
        if self.keep:
            self.kept.append(name)
        return results[0] if len(results) == 1 else results

    def contrib(self, kind: str, *inputs: str, **attributes):
        """A node of onnxruntime's own domain."""
        return self.op(kind, *inputs, domain=CONTRIB, **attributes)

    def constant(self, values, dtype=np.int64) -> str:
        """A small constant: a Constant node in graphs with numbers for names, else an initializer."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes(), self.keep)
        if key not in self.constants:
            if self.form.readable:
                name = f"/constants/{array.dtype.name}_{self.next()}"
                self.initializers[name] = numpy_helper.from_array(array, name)
            else:
                name = self.op("Constant", value=numpy_helper.from_array(array))
            self.constants[key] = name
        return self.constants[key]

    def number(self, value: float) -> str:
        """An f32 scalar."""
        return self.constant(value, np.float32)

    def weight(self, array: np.ndarray, readable: str, consumer: str, undo: Undo | None = None) -> str:
        """An initializer; `undo` tells what of the checkpoint it is. Graphs with numbers for names call it by the
        operator that takes it."""
        name = readable if self.form.readable else f"onnx::{consumer}_{self.next()}"
        assert name not in self.initializers, name
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
        if undo is not None:
            self.sources[name] = undo
        return name

    def input(self, name: str, dtype: int, shape: list) -> str:
        """A graph input; strings in `shape` are free lengths."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, shape: list, dtype: int = TensorProto.FLOAT) -> None:
        """Makes `value` the graph's output `name`."""
        for node in self.nodes:
            for places in (node.input, node.output):
                places[:] = [name if place == value else place for place in places]
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def reduce(self, kind: str, value: str, axes: list[int], keepdims: int = 1) -> str:
        """A reduction; axes are an attribute before opset 18 (13 for sums)."""
        if self.form.opset >= 18 or kind == "ReduceSum":
            return self.op(kind, value, self.constant(axes), keepdims=keepdims)
        return self.op(kind, value, axes=axes, keepdims=keepdims)

    def cast(self, value: str, to: int) -> str:
        """A conversion."""
        return self.op("Cast", value, to=to)

    def reshape(self, value: str, *shape: int) -> str:
        """Reshape to constants; 0 keeps an axis, -1 takes the rest."""
        return self.op("Reshape", value, self.constant(list(shape)))

    def transpose(self, value: str, *perm: int) -> str:
        """Axes in another order."""
        return self.op("Transpose", value, perm=list(perm))

    def unsqueeze(self, value: str, *axes: int) -> str:
        """New axes of length 1."""
        return self.op("Unsqueeze", value, self.constant(list(axes)))

    def slice(self, value: str, start: int, end: int, axis: int) -> str:
        """Entries start..end of an axis."""
        return self.op("Slice", value, *(self.constant([n]) for n in (start, end, axis)))

    def length(self, value: str, axis: int) -> str:
        """The length of an axis, a scalar."""
        return self.op("Gather", self.op("Shape", value), self.constant(axis), axis=0)

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, list(self.initializers.values()))
        imports = [helper.make_opsetid("", self.form.opset)]
        if any(node.domain == CONTRIB for node in self.nodes):
            imports.append(helper.make_opsetid(CONTRIB, 1))
        ir_version = 10 if self.form.opset >= 20 else 8
        return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, producer_name="ocelli")


class Weights:
    """The checkpoint's tensors, put into a graph."""

    def __init__(self, graph: Graph, tensors: dict[str, np.ndarray]):
        self.graph, self.tensors = graph, tensors

    def vector(self, name: str, consumer: str) -> str:
        """A norm's weight or a bias."""
        return self.graph.weight(self.tensors[name], name, consumer, lambda a: {name: a})

    def biases(self, *stems: str) -> str:
        """Several biases one behind another."""
        names = [f"{stem}.bias" for stem in stems]
        sizes = np.cumsum([len(self.tensors[name]) for name in names])[:-1]
        whole = np.concatenate([self.tensors[name] for name in names])
        undo = lambda a: dict(zip(names, np.split(a, sizes), strict=True))  # noqa: E731
        return self.graph.weight(whole, names[0] if len(names) == 1 else f"{names[0]}.packed", "Add", undo)

    def linear(self, x: str, *stems: str, bias: bool = False, paired: dict[str, int] | None = None) -> str:
        """y = x·Wᵀ (+ b), W the rows of `stems` one below another; `paired`: stems whose rows are put side by side
        for interleaved rotary, with the number of heads."""
        g, form, paired = self.graph, self.graph.form, paired or {}
        names = [f"{stem}.weight" for stem in stems]
        matrices = [self.tensors[name] for name in names]
        sizes = np.cumsum([len(matrix) for matrix in matrices])[:-1]
        rows = np.concatenate([
            paired_rows(matrix, paired[stem]) if stem in paired else matrix
            for stem, matrix in zip(stems, matrices, strict=True)
        ])  # fmt: skip

        def undo(array: np.ndarray) -> dict[str, np.ndarray]:
            parts = zip(stems, names, np.split(array, sizes), strict=True)
            return {name: split_rows(part, paired[stem]) if stem in paired else part for stem, name, part in parts}

        label = names[0] if len(names) == 1 else f"{names[0]}.packed"
        if form.linear == "matmul":
            w = g.weight(rows.T, label, "MatMul", lambda a: undo(a.T))
            y = g.op("MatMul", x, w)
        elif form.linear == "gemm" and bias:
            w = g.weight(rows, label, "Gemm", undo)
            flat = g.op("Gemm", g.reshape(x, -1, rows.shape[1]), w, self.biases(*stems), transB=1)
            shape = g.op("Concat", g.slice(g.op("Shape", x), 0, 2, 0), g.constant([len(rows)]), axis=0)
            return g.op("Reshape", flat, shape)
        else:
            w = g.weight(rows, label, "Transpose", undo)
            y = g.op("MatMul", x, g.transpose(w, 1, 0))
        return g.op("Add", self.biases(*stems), y) if bias else y


def paired_rows(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head with the two that rotary turns together side by side: (i, i + d/2) become (2i, 2i + 1)."""
    n, width = rows.shape
    return rows.reshape(heads, 2, n // heads // 2, width).swapaxes(1, 2).reshape(n, width)


def split_rows(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `paired_rows`."""
    n, width = rows.shape
    return rows.reshape(heads, n // heads // 2, 2, width).swapaxes(1, 2).reshape(n, width)

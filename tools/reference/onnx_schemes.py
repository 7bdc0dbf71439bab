"""The published number formats of an ONNX export, made with onnxruntime's own tools, and the way back.

| suffix | tool | what becomes of the weights |
|---|---|---|
| none | | f32 |
| `_fp16` | float16 converter | f16; `inputs_embeds`, `logits`, pixels and features stay f32, the KV cache becomes f16 |
| `_int8`, `_uint8` | dynamic quantisation | a byte a weight, one scale a tensor; `_quantized` is `_uint8` |
| `_q4` | block quantisation | MatMulNBits, 4 bits, blocks of 32, no zero points, f32 scales |
| `_q4f16` | both | the same with f16 scales, everything else as `_fp16` |
| `_bnb4` | bitsandbytes' NF4 | MatMulBnb4, blocks of 64 of the flattened matrix, f32 absmax |

Others that importers meet: `q4_zero`, `q8`, `q8_zero` (MatMulNBits with zero points, with 8 bits), `qdq4`,
`qdq4_zero` (DequantizeLinear with block_size on INT4 and UINT4), and for the table `gather4`, `gather4_zero`
(GatherBlockQuantized); `products` (`int8` where products of two activations are integers, too) and `static`
(DequantizeLinear on bytes, a scale for each column, and activations of every operator rounded to scales that were
calibrated).
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantFormat, QuantizationMode
from onnxruntime.quantization.registry import IntegerOpsRegistry
from onnxruntime.transformers.float16 import convert_float_to_float16

from onnx_graph import Graph

# What a graph is run on: its inputs by name.
Feed = dict[str, np.ndarray]

PUBLISHED = ["", "fp16", "int8", "uint8", "quantized", "q4", "q4f16", "bnb4"]
BLOCK_SCHEMES = {  # bits, zero points, format, operator
    "q4": (4, False, QuantFormat.QOperator, "MatMul"),
    "q4_zero": (4, True, QuantFormat.QOperator, "MatMul"),
    "q8": (8, False, QuantFormat.QOperator, "MatMul"),
    "q8_zero": (8, True, QuantFormat.QOperator, "MatMul"),
    "qdq4": (4, False, QuantFormat.QDQ, "MatMul"),
    "qdq4_zero": (4, True, QuantFormat.QDQ, "MatMul"),
    "gather4": (4, False, QuantFormat.QOperator, "Gather"),
    "gather4_zero": (4, True, QuantFormat.QOperator, "Gather"),
}
# Schemes with 4-bit tensors, which opset 21 brought.
OPSET_21 = ["qdq4", "qdq4_zero", "gather4", "gather4_zero"]
BLOCK = 32
NF4_BLOCK = 64
KEPT_F32 = {"inputs_embeds", "logits", "pixel_values", "image_features"}

# The sixteen values of NF4 (QLoRA, Dettmers et al. 2023, appendix E).
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    np.float32,
)  # fmt: skip

logging.disable(logging.WARNING)  # the quantisers tell of every node


def apply(graph: Graph, scheme: str, feeds: Sequence[Feed] = ()) -> onnx.ModelProto:
    """The graph in a scheme; `feeds` are inputs to calibrate by."""
    model = graph.model()
    match scheme:
        case "":
            return model
        case "fp16":
            return halved(graph, model)
        case "q4f16":
            return halved(graph, in_blocks(model, "q4"))
        case "int8":
            return in_bytes(graph, model, QuantType.QInt8)
        case "products":
            return in_bytes(graph, model, QuantType.QInt8, constants_only=False)
        case "static":
            return in_static_bytes(graph, model, feeds)
        case "uint8" | "quantized":
            return in_bytes(graph, model, QuantType.QUInt8)
        case "bnb4":
            quantizer = MatMulBnb4Quantizer(model, MatMulBnb4Quantizer.NF4, NF4_BLOCK)
            quantizer.process()
            return quantizer.model.model
        case _:
            return in_blocks(model, scheme)


def halved(graph: Graph, model: onnx.ModelProto) -> onnx.ModelProto:
    """f16, with f32 at the doors that the published files keep so."""
    doors = [value.name for value in [*model.graph.input, *model.graph.output] if value.name in KEPT_F32]
    return without_detours(convert_float_to_float16(model, keep_io_types=doors, node_block_list=graph.kept))


def without_detours(model: onnx.ModelProto) -> onnx.ModelProto:
    """Lets neighbours that stay f32 meet directly: the converter leads each through f16."""
    producers = {output: node for node in model.graph.node for output in node.output}
    direct = {}
    for node in model.graph.node:
        before = producers.get(node.input[0]) if node.name.endswith("_cast_to_fp32_node") else None
        if before is not None and before.name.endswith("_cast_to_fp16_node"):
            direct[node.output[0]] = before.input[0]
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = direct.get(name, name)
    outputs = {value.name for value in model.graph.output}
    while True:
        taken = outputs | {name for node in model.graph.node for name in node.input}
        idle = [n for n in model.graph.node if n.op_type == "Cast" and n.output[0] not in taken]
        if not idle:
            return model
        for node in idle:
            model.graph.node.remove(node)


def in_bytes(graph: Graph, model: onnx.ModelProto, kind: QuantType, constants_only: bool = True) -> onnx.ModelProto:
    """Dynamic quantisation of every operator that onnxruntime quantises so, weights by tensor."""
    quantizer = ONNXQuantizer(
        model,
        False,
        False,
        QuantizationMode.IntegerOps,
        False,
        kind,
        QuantType.QUInt8,
        None,
        [],
        graph.unquantised,
        list(IntegerOpsRegistry),
        {"EnableSubgraph": True, "MatMulConstBOnly": constants_only, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    quantizer.quantize_model()
    model = quantizer.model.model
    del model.graph.value_info[:]
    return model


class Reader(CalibrationDataReader):
    """Hands out inputs, one after the other."""

    def __init__(self, feeds: Sequence[Feed]):
        self.feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next ones."""
        return next(self.feeds, None)


def in_static_bytes(graph: Graph, model: onnx.ModelProto, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """Static quantisation of everything but sums that no single scale fits: with the mask, whose range would swallow
    the scores, and under the root of an RMSNorm, where small rows would become 0."""
    before = {"Softmax", "Sqrt"} if "inputs_embeds" in {value.name for value in model.graph.input} else {"Softmax"}
    read = {node.input[0] for node in model.graph.node if node.op_type in before}
    unfit = [n.name for n in model.graph.node if n.op_type == "Softmax" or n.op_type == "Add" and n.output[0] in read]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("in.onnx", "out.onnx")]
        onnx.save(model, paths[0])
        kept = [*graph.unquantised, *unfit]
        quantize_static(
            *paths, Reader(feeds), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_exclude=kept
        )  # fmt: skip
        model = onnx.load(paths[1])
    del model.graph.value_info[:]
    return model


def in_blocks(model: onnx.ModelProto, scheme: str) -> onnx.ModelProto:
    """4 or 8 bits in blocks along the input axis."""
    bits, zero_points, format, operator = BLOCK_SCHEMES[scheme]
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK,
        is_symmetric=not zero_points,
        quant_format=format,
        op_types_to_quantize=(operator,),
        bits=bits,
    )
    quantizer = MatMulNBitsQuantizer(model, algo_config=config)
    quantizer.process()
    return quantizer.model.model


# The way back


def nibbles(packed: np.ndarray, count: int) -> np.ndarray:
    """Unpacks the last axis, low half first, to `count` entries."""
    both = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:-1], -1)
    return both[..., :count]


def from_blocks(node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """MatMulNBits: w = (q - zero)·scale, zero 2^(bits-1) unless given; returns [K, N]."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    k, n, bits, block = (attributes[key] for key in ("K", "N", "bits", "block_size"))
    blocks = -(-k // block)
    packed = arrays[node.input[1]].reshape(n, blocks, -1)
    codes = packed if bits == 8 else nibbles(packed, block)
    scales = arrays[node.input[2]].astype(np.float32).reshape(n, blocks, 1)
    zero = np.float32(1 << (bits - 1))
    if len(node.input) > 3 and node.input[3]:
        zeros = arrays[node.input[3]].reshape(n, -1)
        zero = (zeros if bits == 8 else nibbles(zeros, blocks)).astype(np.float32)[..., None]
    return ((codes.astype(np.float32) - zero) * scales).reshape(n, -1)[:, :k].T


def from_nf4(node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """MatMulBnb4: w = NF4[code]·absmax over the flattened [N, K], the high half of a byte first; returns [K, N]."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    k, n, block = (attributes[key] for key in ("K", "N", "block_size"))
    packed = arrays[node.input[1]]
    codes = np.stack([packed >> 4, packed & 15], -1).reshape(-1)[: k * n]
    absmax = np.repeat(arrays[node.input[2]].astype(np.float32), block)[: k * n]
    return (NF4[codes] * absmax).reshape(n, k).T


def from_scaled(codes, scales, zeros, axis: int, block: int) -> np.ndarray:
    """w = (q - zero)·scale with one scale a tensor or an entry of `axis` (block 0), or for each `block` entries along
    `axis`."""

    def spread(values):
        values = np.asarray(values).astype(np.float32)
        if block == 0:
            return values.reshape([-1 if i == axis else 1 for i in range(codes.ndim)]) if values.size > 1 else values
        return np.repeat(values, block, axis).take(np.arange(codes.shape[axis]), axis)

    return (codes.astype(np.float32) - spread(zeros)) * spread(scales)


def dequantised(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every weight in f32 under the name it had before a scheme was applied."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    out = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype in (np.float32, np.float16)}
    through_nodes = set()
    for node in model.graph.node:
        match node.op_type:
            case "MatMulNBits":
                out[node.input[1].rsplit("_Q", 1)[0]] = from_blocks(node, arrays)
            case "MatMulBnb4":
                out[node.input[1].removesuffix("_Bnb4")] = from_nf4(node, arrays)
            case "DequantizeLinear" if node.input[0] in arrays:
                codes, scales = (arrays[name] for name in node.input[:2])
                zeros = arrays[node.input[2]] if len(node.input) > 2 else np.zeros_like(scales)
                attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
                through_nodes.add(node.input[0])
                axis = attributes.get("axis", 1) % max(codes.ndim, 1)
                values = from_scaled(codes, scales, zeros, axis, attributes.get("block_size", 0))
                out[node.input[0].rsplit("_DQ_Q", 1)[0].removesuffix("_quantized")] = values
            case "GatherBlockQuantized":
                codes, scales = arrays[node.input[0]], arrays[node.input[2]]
                zeros = arrays[node.input[3]] if len(node.input) > 3 else np.zeros_like(scales)
                out[node.input[0].removesuffix("_Q4")] = from_scaled(codes, scales, zeros, 1, BLOCK)
    for name, codes in arrays.items():
        if name.endswith("_quantized") and name not in through_nodes:
            stem = name.removesuffix("_quantized")
            out[stem] = from_scaled(codes, arrays[f"{stem}_scale"], arrays[f"{stem}_zero_point"], 0, 0)
    return out


def lifted(graph: Graph, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The checkpoint's tensors as a file holds them."""
    values, tensors = dequantised(model), {}
    for name, undo in graph.sources.items():
        # Dynamic quantisation makes MatMul of Gemm and transposes its matrix.
        tensors |= undo(values[name] if name in values else values[f"{name}_Transposed"].T)
    return tensors

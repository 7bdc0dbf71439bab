"""Small ONNX files that lie: each must be refused with an error that names what is wrong."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH = 16

def model(nodes, initializers):
    """A decoder of a few nodes."""
    shape = ["batch_size", "sequence_length", WIDTH]
    names = ("inputs_embeds", "logits")
    embeds, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names)
    graph = helper.make_graph(nodes, "decoder", [embeds], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def matrix(name: str = "weight") -> TensorProto:
    """A small matrix."""
    return numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), name)


def bare(dtype: int, dims: list[int], raw: bytes = b"") -> TensorProto:
    """A tensor whose dtype and dims need not fit its bytes."""
    tensor = TensorProto(name="weight", data_type=dtype, dims=dims)
    tensor.raw_data = raw
    return tensor


def external(location: str, offset: int = 0, length: int = WIDTH * WIDTH * 4) -> TensorProto:
    """A matrix whose data lies elsewhere."""
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def product(weight: TensorProto):
    """logits = inputs_embeds · weight."""
    return model([helper.make_node("MatMul", ["inputs_embeds", "weight"], ["logits"], name="head")], [weight])


def cycle():
    """Two nodes, each of which needs the other."""
    nodes = [
        helper.make_node("Add", ["inputs_embeds", "b"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "weight"], ["b"], name="second"),
        helper.make_node("Identity", ["b"], ["logits"], name="last"),
    ]
    return model(nodes, [matrix()])


def twice():
    """A value made by two nodes."""
    nodes = [helper.make_node("MatMul", ["inputs_embeds", "weight"], ["logits"], name=name) for name in ("one", "two")]
    return model(nodes, [matrix()])


def deep(count: int = 1000):
    """A chain of many nodes."""
    names = ["inputs_embeds", *(f"v{i}" for i in range(count)), "logits"]
    nodes = [helper.make_node("Neg", [a], [b]) for a, b in zip(names, names[1:], strict=False)]
    return model(nodes, [])


def choice(depth: int = 1, outputs: int = 1, name: str = "then_branch"):
    """`If` nodes inside each other, all decided by one input; the innermost multiplies."""
    nodes = [helper.make_node("MatMul", ["inputs_embeds", "weight"], ["logits"], name="head")]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    for level in range(depth):
        branch = helper.make_graph(nodes, f"level_{level}", [], logits)
        names = ["logits", *(f"more_{i}" for i in range(1, outputs))]
        nodes = [helper.make_node("If", ["use_cache_branch"], names, name=f"if_{level}", **{name: branch})]
    made = model(nodes, [matrix()])
    made.graph.input.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))
    return made


def files() -> dict:
    """Every file by name."""
    missing = model([helper.make_node("MatMul", ["inputs_embeds", "weight"], ["logits"], name="head")], [])
    return {
        "cycle": cycle(),
        "deep": deep(),
        "two_producers": twice(),
        "missing_initializer": missing,
        "no_nodes": model([], []),
        "external_parent": product(external("../secret.bin")),
        "external_absolute": product(external("/etc/passwd", length=64)),
        "external_absent": product(external("nowhere.onnx_data")),
        "external_beyond_end": product(external("short.onnx_data", offset=2**62)),
        "external_negative": product(external("short.onnx_data", offset=-8, length=-1)),
        "external_too_long": product(external("short.onnx_data")),
        "huge_dims": product(bare(TensorProto.FLOAT, [2**31, 2**31])),
        "overflowing_dims": product(bare(TensorProto.FLOAT, [2**62, 4, WIDTH])),
        "negative_dims": product(bare(TensorProto.FLOAT, [-WIDTH, WIDTH], bytes(WIDTH * WIDTH * 4))),
        "short_data": product(bare(TensorProto.FLOAT, [WIDTH, WIDTH], bytes(100))),
        "wrong_dtype": product(bare(TensorProto.STRING, [WIDTH, WIDTH], bytes(WIDTH * WIDTH))),
        "unknown_dtype": product(bare(99, [WIDTH, WIDTH], bytes(WIDTH * WIDTH))),
        "if_too_deep": choice(depth=6),
        "if_of_other_count": choice(outputs=2),
        "if_without_branch": choice(name="otherwise"),
        "unknown_operator": model(
            [helper.make_node("Frobnicate", ["inputs_embeds"], ["logits"], name="odd", domain="com.example")], []
        ),
    }


def write_hostile(folder: Path) -> None:
    """Writes them all, the data file of some, and one cut short."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files().items():
        (folder / f"{name}.onnx").write_bytes(file.SerializeToString(deterministic=True))
    (folder / "short.onnx_data").write_bytes(bytes(64))
    whole = product(matrix()).SerializeToString(deterministic=True)
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])

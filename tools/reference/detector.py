"""Writes tests/fixtures/detector/: very small ONNX models, and what onnxruntime computes with them.

    python tools/reference/detector.py            writes the fixtures
    python tools/reference/detector.py --mask MODEL.onnx PICTURE WIDTH HEIGHT THRESHOLD
        what onnxruntime finds with a model of output form "mask" on a stretched picture, to hold
        against `cargo run --release -p ocelli-runtime --example detect`

Needs numpy, onnx, onnxruntime, pillow and scipy (requirements.txt).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy import ndimage

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/detector"
SIDE = 32


def model(name, nodes, inputs, outputs, weights):
    initializers = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def mask(rng):
    """Size left open: a 3x3 convolution and a sigmoid."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c"], ["y"]),
    ]
    weights = {
        "w": rng.normal(0, 0.6, (1, 3, 3, 3)).astype(np.float32),
        "b": np.array([-0.3], np.float32),
    }
    return model("mask", nodes, [tensor("x", [1, 3, "h", "w_"])], [tensor("y", [1, 1, "h", "w_"])], weights)


def yolo(rng):
    """Four places of four box numbers and two scores."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[16, 16]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["y"]),
    ]
    weights = {
        "w": rng.normal(0, 0.15, (6, 3, 16, 16)).astype(np.float32),
        "scale": np.array([SIDE] * 4 + [1, 1], np.float32).reshape(1, 6, 1, 1),
        "shape": np.array([1, 6, 4], np.int64),
    }
    return model("yolo", nodes, [tensor("x", [1, 3, SIDE, SIDE])], [tensor("y", [1, 6, 4])], weights)


def classes(rng):
    """Bytes with the channels last: mean colour, a linear layer."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["m", "w", "b"], ["y"]),
    ]
    weights = {
        "w": rng.normal(0, 0.05, (3, 3)).astype(np.float32),
        "b": rng.normal(0, 1, (3,)).astype(np.float32),
    }
    shape = [1, SIDE, SIDE, 3]
    return model("classes", nodes, [tensor("x", shape, TensorProto.UINT8)], [tensor("y", [1, 3])], weights)


def write():
    OUT.mkdir(parents=True, exist_ok=True)
    expected = {}
    for make in (mask, yolo, classes):
        name = make.__name__
        made = make(np.random.default_rng(7))
        path = OUT / f"{name}.onnx"
        path.write_bytes(made.SerializeToString())
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        pixels = (np.arange(SIDE * SIDE * 3) * 37 % 251).astype(np.uint8)
        if given.type == "tensor(uint8)":
            values = pixels.reshape(1, SIDE, SIDE, 3)
        else:
            values = (pixels.astype(np.float32) / 255).reshape(1, 3, SIDE, SIDE)
        (output,) = session.run(None, {given.name: values})
        expected[name] = {
            "shape": list(output.shape),
            "values": [round(float(v), 6) for v in output.ravel()[:: max(1, output.size // 64)]],
            "every": max(1, output.size // 64),
        }
    (OUT / "expected.json").write_text(json.dumps(expected) + "\n")


def mask_boxes(path, picture, width, height, threshold):
    resized = Image.open(picture).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    values = np.asarray(resized, np.float32).transpose(2, 0, 1)[None] / 255
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: values})[0][0, 0]
    labels, count = ndimage.label(scores >= threshold)
    boxes = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        box = [columns.start / width, rows.start / height, columns.stop / width, rows.stop / height]
        boxes.append((float(scores[labels == index].mean()), [round(edge, 6) for edge in box]))
    for score, box in sorted(boxes, reverse=True):
        print(f"{score:.6f} {box}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mask", nargs=5, metavar=("MODEL", "PICTURE", "WIDTH", "HEIGHT", "THRESHOLD"))
    given = parser.parse_args().mask
    if given:
        mask_boxes(given[0], given[1], int(given[2]), int(given[3]), float(given[4]))
    else:
        write()

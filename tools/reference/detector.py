"""Writes tests/fixtures/detector/: very small ONNX models, and what onnxruntime computes with them.

    python tools/reference/detector.py            writes the fixtures
    python tools/reference/detector.py --mask MODEL.onnx PICTURE WIDTH HEIGHT THRESHOLD
        what onnxruntime finds with a model of output form "mask" on a stretched picture, to hold
        against `cargo run --release -p ocelli-runtime --example detect`
    python tools/reference/detector.py --yolo MODEL.onnx PICTURE WIDTH HEIGHT THRESHOLD
        the same with a model of output form "yolo-v8" on a letterboxed picture; boxes of one class
        that overlap by more than half are one

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


def grid(rng):
    """As YOLOv8 is exported with open lengths: features scaled up, distances to the four edges as
    the mean of bins, places counted from the features' shape. Lengths between the nodes have names."""
    bins, classes = 4, 2
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[16, 16], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["c", "", "twice"], ["u"], mode="nearest", coordinate_transformation_mode="asymmetric"),
        helper.make_node("Split", ["u", "parts"], ["distances", "scores"], axis=1),
        helper.make_node("Reshape", ["distances", "bins"], ["by_bin"]),
        helper.make_node("Transpose", ["by_bin"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Softmax", ["t"], ["share"], axis=1),
        helper.make_node("Conv", ["share", "number"], ["mean"]),
        helper.make_node("Reshape", ["mean", "edges"], ["edge"]),
        helper.make_node("Split", ["edge"], ["before", "behind"], axis=1),
        # The middle of every place.
        helper.make_node("Shape", ["u"], ["shape"]),
        *(helper.make_node("Gather", ["shape", i], [n], axis=0) for n, i in (("rows", "two"), ("columns", "three"))),
        *(helper.make_node("Range", ["zero", n, "one"], [f"{n}_i"]) for n in ("rows", "columns")),
        *(helper.make_node("Cast", [f"{n}_i"], [f"{n}_f"], to=TensorProto.FLOAT) for n in ("rows", "columns")),
        *(helper.make_node("Add", [f"{n}_f", "half"], [f"{n}_m"]) for n in ("rows", "columns")),
        helper.make_node("Unsqueeze", ["rows_m", "axis_1"], ["y_1"]),
        helper.make_node("Unsqueeze", ["rows", "axis_0"], ["rows_1"]),
        helper.make_node("Unsqueeze", ["columns", "axis_0"], ["columns_1"]),
        helper.make_node("Concat", ["rows_1", "columns_1"], ["area"], axis=0),
        helper.make_node("Expand", ["y_1", "area"], ["ys"]),
        helper.make_node("Expand", ["columns_m", "area"], ["xs"]),
        *(helper.make_node("Reshape", [f"{n}s", "row"], [f"{n}_row"]) for n in "xy"),
        helper.make_node("Concat", ["x_row", "y_row"], ["middle"], axis=0),
        # Centre and size in pixels, then scores.
        helper.make_node("Sub", ["middle", "before"], ["from"]),
        helper.make_node("Add", ["middle", "behind"], ["to"]),
        helper.make_node("Add", ["from", "to"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["centre"]),
        helper.make_node("Sub", ["to", "from"], ["size"]),
        helper.make_node("Concat", ["centre", "size"], ["box"], axis=1),
        helper.make_node("Mul", ["box", "stride"], ["pixels"]),
        helper.make_node("Reshape", ["scores", "flat"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["s"]),
        helper.make_node("Concat", ["pixels", "s"], ["y"], axis=1),
    ]
    whole = {"zero": 0, "one": 1, "two": 2, "three": 3, "axis_0": [0], "axis_1": [1], "row": [1, -1]}
    whole |= {"parts": [4 * bins, classes], "bins": [0, 4, bins, -1], "edges": [0, 4, -1], "flat": [0, classes, -1]}
    weights = {name: np.array(value, np.int64) for name, value in whole.items()}
    weights |= {
        "w": rng.normal(0, 0.6, (4 * bins + classes, 3, 3, 3)).astype(np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "number": np.arange(bins, dtype=np.float32).reshape(1, bins, 1, 1),
        "half": np.float32(0.5),
        "stride": np.float32(8),
    }
    given = tensor("x", ["batch", 3, "height", "width"])
    made = model("grid", nodes, [given], [tensor("y", ["batch", 4 + classes, "places"])], weights)
    made.graph.value_info.append(tensor("c", ["batch", 4 * bins + classes, "height/16", "width/16"]))
    return made


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
    for make in (mask, yolo, grid, classes):
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
    show(boxes)


def yolo_boxes(path, picture, width, height, threshold):
    picture = Image.open(picture).convert("RGB")
    ratio = min(width / picture.width, height / picture.height)
    w, h = round(picture.width * ratio), round(picture.height * ratio)
    left, top = (width - w) // 2, (height - h) // 2
    whole = Image.new("RGB", (width, height), (114, 114, 114))
    whole.paste(picture.resize((w, h), Image.Resampling.LANCZOS), (left, top))
    values = np.asarray(whole, np.float32).transpose(2, 0, 1)[None] / 255
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output = session.run(None, {session.get_inputs()[0].name: values})[0][0]
    kept = []
    for column in sorted(output.T, key=lambda column: -column[4:].max()):
        (x, y, across, down), scores = column[:4], column[4:]
        box = np.array([x - across / 2, y - down / 2, x + across / 2, y + down / 2])
        label = int(scores.argmax())
        twins = (overlap(box, other) for _, other_label, other in kept if other_label == label)
        if scores.max() >= threshold and not any(twin > 0.5 for twin in twins):
            kept.append((float(scores.max()), label, box))
    sides = np.array([left, top, left, top]), np.array([w, h, w, h])
    show([(score, [label, *np.clip((box - sides[0]) / sides[1], 0, 1).round(6).tolist()]) for score, label, box in kept])


def overlap(a, b):
    """Intersection over union of two boxes."""
    common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def show(boxes):
    for score, box in sorted(boxes, reverse=True):
        print(f"{score:.6f} {box}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for form in ("mask", "yolo"):
        parser.add_argument(f"--{form}", nargs=5, metavar=("MODEL", "PICTURE", "WIDTH", "HEIGHT", "THRESHOLD"))
    arguments = parser.parse_args()
    given = arguments.mask or arguments.yolo
    if given:
        find = mask_boxes if arguments.mask else yolo_boxes
        find(given[0], given[1], int(given[2]), int(given[3]), float(given[4]))
    else:
        write()

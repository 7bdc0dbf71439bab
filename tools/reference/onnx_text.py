"""Text models in one ONNX file, as they are published beside the family's.

    python tools/reference/onnx_text.py         tests/fixtures/onnx/text (`onnx_files.py fixtures` writes it too)

`model*.onnx`: `input_ids`, `attention_mask`, `position_ids`, `past_key_values.*` -> `logits`, `present.*`; the
embedding table is inside. `decoder_model_merged*.onnx`: the same as exporters wrote it earlier, two graphs under an
`If` that the input `use_cache_branch` decides: with a cache in front, and without; initialisers that both have are
the outer graph's. `decoder_model*.onnx` and `decoder_with_past_model*.onnx`: the same two graphs in files of their
own. Each is run by onnxruntime, the prompt and then token by token, and held against `smolvlm.py` on the weights it
holds. Needs the packages of requirements.txt.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import onnx_files
import smolvlm
from checkpoint import shapes
from onnx_decoder import Decoder
from onnx_graph import FORMS
from onnx_run import session
from onnx_schemes import OPSET_21, apply, lifted

FOLDER = onnx_files.FIXTURES / "text"
PROMPT = [1, *range(20, 44)]
STEPS = 12
CONDITION = "use_cache_branch"
FIRST, LATER = "decoder_model", "decoder_with_past_model"


@dataclass(frozen=True)
class Case:
    """One file."""

    file: str
    form: str
    scheme: str
    merged: bool = False

    def later(self) -> str | None:
        """The file of the steps behind a cache, where that is another."""
        is_first = self.file.startswith(f"{FIRST}_") and not self.merged
        return self.file.replace(FIRST, LATER) if is_first else None


CASES = (
    Case("model_fp16.onnx", "plain", "fp16"),
    Case("model_int8.onnx", "plain", "int8"),
    Case("model_q4.onnx", "fused", "q4"),
    Case("decoder_model_merged_fp16.onnx", "plain", "fp16", True),
    Case("decoder_model_merged_int8.onnx", "plain", "int8", True),
    Case("decoder_model_fp16.onnx", "plain", "fp16"),
)


def build(export: onnx_files.Export, case: Case, has_past: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A graph in a scheme, and the checkpoint's tensors as it holds them."""
    form = FORMS[case.form]
    form = replace(form, opset=21) if case.scheme in OPSET_21 else form
    graph = Decoder(export.config, export.tensors, form, export.positions, True, has_past).build()
    model = apply(graph, case.scheme)
    return model, lifted(graph, model)


def merged(with_past: onnx.ModelProto, without: onnx.ModelProto) -> onnx.ModelProto:
    """Both under one `If`. An initialiser of the second that the first has too, under whatever name, becomes the
    first's; all go to the outer graph."""

    def content(tensor: onnx.TensorProto) -> tuple:
        array = numpy_helper.to_array(tensor)
        return tensor.data_type, array.shape, array.tobytes()

    known = {content(tensor): tensor.name for tensor in with_past.graph.initializer}
    outer, renamed = list(with_past.graph.initializer), {}
    taken = {tensor.name for tensor in outer}
    for tensor in without.graph.initializer:
        if content(tensor) in known:
            renamed[tensor.name] = known[content(tensor)]
        else:
            renamed[tensor.name] = f"{tensor.name}_alone" if tensor.name in taken else tensor.name
            tensor.name = renamed[tensor.name]
            outer.append(tensor)
    for node in without.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    branches = {}
    for name, model in (("then_branch", with_past), ("else_branch", without)):
        branches[name] = helper.make_graph(model.graph.node, name, [], model.graph.output)
    outputs = [value.name for value in with_past.graph.output]
    choice = helper.make_node("If", [CONDITION], outputs, name="optimum::if", **branches)
    condition = helper.make_tensor_value_info(CONDITION, TensorProto.BOOL, [1])
    inputs = [*with_past.graph.input, condition]
    graph = helper.make_graph([choice], "decoder", inputs, with_past.graph.output, outer)
    return helper.make_model(graph, opset_imports=with_past.opset_import, ir_version=with_past.ir_version)


class Runner:
    """A text model with its cache; `later` is the file of what comes behind the prompt."""

    def __init__(self, path: Path, later: Path | None):
        self.length, self.later, self.cache = 0, later, {}
        self.open(path)
        for name, entry in self.inputs.items():
            if name.startswith("past"):
                dtype = np.float16 if "float16" in entry.type else np.float32
                self.cache[name] = np.zeros((1, entry.shape[1], 0, entry.shape[3]), dtype)

    def open(self, path: Path) -> None:
        """Goes on with a file."""
        self.session = session(path)
        self.names = [entry.name for entry in self.session.get_outputs()]
        self.inputs = {entry.name: entry for entry in self.session.get_inputs()}

    def step(self, ids: list[int]) -> np.ndarray:
        """Logits of the last of some more tokens."""
        if self.length > 0 and self.later:
            self.open(self.later)
            self.later = None
        before, self.length = self.length, self.length + len(ids)
        feeds = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, self.length), np.int64),
            "position_ids": np.arange(before, self.length, dtype=np.int64)[None],
            CONDITION: np.array([before > 0]),
        }
        feeds = {name: value for name, value in (feeds | self.cache).items() if name in self.inputs}
        out = dict(zip(self.names, self.session.run(None, feeds), strict=True))
        self.cache = {f"past_key_values{k.removeprefix('present')}": v for k, v in out.items() if k != "logits"}
        return out["logits"][0, -1].astype(np.float32)


def onnxruntime_rows(path: Path, later: Path | None, steps: list[int]) -> np.ndarray:
    """Logits after the prompt and after each step."""
    runner = Runner(path, later)
    return np.stack([runner.step(PROMPT), *(runner.step([token]) for token in steps)])


def reference_rows(config: smolvlm.Config, tensors: dict[str, np.ndarray], steps: list[int]) -> np.ndarray:
    """The same with `smolvlm.py`."""
    model = smolvlm.Model(config, {name: torch.from_numpy(array) for name, array in tensors.items()})
    with torch.no_grad():
        caches = model.new_cache()
        parts = [PROMPT, *([token] for token in steps)]
        rows = [model.decode(model.input_embeddings(torch.tensor(ids), None), caches) for ids in parts]
    return torch.stack(rows).numpy()


def greedy(config: smolvlm.Config, tensors: dict[str, np.ndarray]) -> list[int]:
    """The tokens the checkpoint says after the prompt."""
    tokens = []
    for _ in range(STEPS):
        tokens.append(int(reference_rows(config, tensors, tokens)[-1].argmax()))
    return tokens


def distance(rows: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the standard deviation."""
    return float(np.abs(rows - expected).max() / expected.std())


def write_text(folder: Path) -> None:
    """Writes the files and what they say, checked."""
    with tempfile.TemporaryDirectory() as checkpoint:
        shapes()["narrow"].write(Path(checkpoint))
        export = onnx_files.Export.of(Path(checkpoint))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    steps = greedy(export.config, export.tensors)
    cases = {}
    for case in CASES:
        path = folder / case.file
        later = case.later() and folder / case.later()
        model, tensors = build(export, case, True)
        if later:
            later.write_bytes(model.SerializeToString(deterministic=True))
            model, tensors = build(export, case, False)
        if case.merged:
            model = merged(model, build(export, case, False)[0])
        if case.scheme == "fp16":
            onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
        found, own = (
            onnxruntime_rows(path, later, steps),
            reference_rows(export.config, export.tensors | tensors, steps),
        )
        apart = distance(found, own)
        print(f"{case.file}: {apart:.1e} std, {path.stat().st_size} bytes", flush=True)
        assert apart < onnx_files.BOUNDS[onnx_files.arithmetic(case.scheme)], (case, apart)
        rows = [onnx_files.numbers(row, 32) for row in own]
        cases[case.file] = {"scheme": case.scheme, "merged": case.merged, "lifted": rows}
    whole = {"checkpoint": "narrow", "prompt": PROMPT, "greedy": steps, "cases": cases}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in whole.items()]
    (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_text(FOLDER)

"""The three-file ONNX export of a checkpoint, in the published interface and number formats.

    python tools/reference/onnx_files.py write DIR OUT                          every form and published scheme
    python tools/reference/onnx_files.py write DIR OUT --forms fused --schemes fp32 q4
    python tools/reference/onnx_files.py fixtures                               tests/fixtures/onnx

`write` makes OUT/FORM a model directory: the small files of DIR and onnx/{vision_encoder, embed_tokens,
decoder_model_merged}{suffix}.onnx. A form is a way to write the graph (`onnx_graph.py`), a scheme a number format
(`onnx_schemes.py`). Every file is run by onnxruntime and held against `smolvlm.py`, on the checkpoint's weights and
on those that the file holds; the second must agree within the bound of the scheme's arithmetic, f32 and f16 files
also on the first.
Needs the packages of requirements.txt.
"""

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import onnx_run
import smolvlm
import stages
from checkpoint import shapes
from onnx_decoder import Decoder, embed_tokens
from onnx_graph import FORMS, Form, Graph
from onnx_hostile import write_hostile
from onnx_run import Answer, Task
from onnx_schemes import OPSET_21, PUBLISHED, apply, lifted
from onnx_vision import VisionEncoder

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "onnx"
PARTS = ("vision_encoder", "embed_tokens", "decoder_model_merged")
# The decoder where it is not merged: without a cache in front, and behind one.
UNMERGED = ("decoder_model", "decoder_with_past_model")
# Largest difference from `smolvlm.py` on the file's own weights, over the standard deviation: f32 arithmetic, f16
# arithmetic, activations rounded to bytes by tensor, and all of them by one scale for every input.
BOUNDS = {"f32": 1e-4, "f16": 5e-2, "bytes": 0.5, "static": 1.0}
STEPS = 3


def arithmetic(scheme: str) -> str:
    """Which of `BOUNDS` a scheme has."""
    if scheme in ("int8", "uint8", "quantized", "products"):
        return "bytes"
    if scheme == "static":
        return "static"
    return "f16" if "f16" in scheme or "fp16" in scheme else "f32"


@dataclass
class Export:
    """A checkpoint on its way to ONNX."""

    config: smolvlm.Config
    tensors: dict[str, np.ndarray]
    positions: int  # rows of the rotary caches
    task: Task

    @staticmethod
    def of(directory: Path) -> "Export":
        """Reads a checkpoint and makes up a task: two frames, some text, the tokens that come next."""
        config, weights = smolvlm.load(directory)
        tensors = {name: tensor.numpy() for name, tensor in weights.items()}
        text = json.loads((directory / "config.json").read_text())["text_config"]
        frames = stages.pixel_values(config.image_size, 2)
        image = [config.image_token_id] * config.image_tokens
        ids = [1, *range(20, 26), *image, *range(30, 34), *image, *range(40, 47)]
        tokens, _ = smolvlm.Model(config, weights).greedy(smolvlm.torch.tensor(ids), frames, STEPS)
        return Export(config, tensors, text["max_position_embeddings"], Task(ids, frames.numpy(), tokens))

    def graph(self, part: str, form: Form) -> Graph:
        """One of the graphs."""
        match part:
            case "vision_encoder":
                return VisionEncoder(self.config, self.tensors, form).build()
            case "embed_tokens":
                return embed_tokens(self.config, self.tensors, form.opset)
            case _:
                has_past = part != UNMERGED[0]
                return Decoder(self.config, self.tensors, form, self.positions, has_past=has_past).build()

    def write(self, part: str, form: Form, scheme: str, path: Path, external: bool = False) -> dict[str, np.ndarray]:
        """Writes a file; returns the tensors of the checkpoint as it holds them."""
        if scheme in OPSET_21:
            form = replace(form, opset=21)
        graph = self.graph(part, form)
        model = apply(graph, scheme, self.feeds(part, form) if scheme == "static" else [])
        tensors = lifted(graph, model)
        if form.optimised:
            model = optimised(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = Path(f"{path}_data")
        data.unlink(missing_ok=True)
        if external:
            onnx.save_model(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
        else:
            path.write_bytes(model.SerializeToString(deterministic=True))
        return tensors

    def feeds(self, part: str, form: Form) -> onnx_run.Feeds:
        """What a part is given when this task is answered in f32, whole and with the prefill cut."""
        log = {}
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / name for name in PARTS}
            for name, path in files.items():
                onnx.save(self.graph(name, form).model(), path)
            for cut in (None, len(self.task.input_ids) // 2):
                onnx_run.run(files, self.task, self.config.image_token_id, cut, log)
        return log[part]

    def check(self, files: dict[str, Path], tensors: dict[str, np.ndarray], scheme: str, label: str):
        """Runs an export, once whole and once with the prefill cut, and holds it against `smolvlm.py`; returns
        onnxruntime's answer and that on the file's own weights."""
        answer = onnx_run.run(files, self.task, self.config.image_token_id)
        cut = onnx_run.run(files, self.task, self.config.image_token_id, cut=len(self.task.input_ids) // 2)
        own = onnx_run.reference(self.config, self.tensors | tensors, self.task)
        true = onnx_run.reference(self.config, self.tensors, self.task)
        bound = BOUNDS[arithmetic(scheme)]
        rows = {"file's weights": onnx_run.difference(answer, own), "true weights": onnx_run.difference(answer, true)}
        rows["cut prefill"] = onnx_run.difference(cut, answer)
        text = ", ".join(f"{name} {a:.1e} {b:.1e}" for name, (a, b) in rows.items())
        print(f"{label}: features and logits against {text} std", flush=True)
        assert max(rows["file's weights"]) < bound, (label, rows)
        assert max(rows["cut prefill"]) < bound, (label, rows)
        assert scheme not in ("", "fp16") or max(rows["true weights"]) < bound, (label, rows)
        return answer, own


def optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    """What onnxruntime writes of a graph at its level for any machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def suffix(scheme: str) -> str:
    """What a scheme adds to a file's name."""
    return f"_{scheme}" if scheme else ""


def write_all(directory: Path, out: Path, forms: list[str], schemes: list[str], external: bool) -> None:
    """Model directories in every form and scheme, checked."""
    export = Export.of(directory)
    for form in forms:
        folder = out / form
        folder.mkdir(parents=True, exist_ok=True)
        for small in directory.glob("*.json"):
            if "index" not in small.name:
                shutil.copy(small, folder)
        for scheme in schemes:
            files, tensors = {}, {}
            for part in PARTS:
                path = files[part] = folder / "onnx" / f"{part}{suffix(scheme)}.onnx"
                path.unlink(missing_ok=True)
                apart = external and part == "decoder_model_merged" and scheme in ("", "fp16")
                tensors |= export.write(part, FORMS[form], scheme, path, apart)
            export.check(files, tensors, scheme, f"{form} {scheme or 'fp32'}")


# Fixtures


@dataclass(frozen=True)
class Case:
    """One export among the fixtures: for each file its form and scheme."""

    name: str
    vision: tuple[str, str]
    embed: str
    decoder: tuple[str, str]
    external: bool = False  # the decoder's weights in a file of their own
    unmerged: bool = False  # the decoder in two files


def cases() -> list[Case]:
    """What is committed: the published schemes in both forms, then single traits on small files. The same file
    serves wherever a case is not about it."""
    out = [Case(f"plain{suffix(s)}", ("plain", s), s, ("plain", s)) for s in PUBLISHED if s != "quantized"]
    for scheme in ("", "int8", "q4", "q4f16"):
        out.append(Case(f"fused{suffix(scheme)}", ("fused", scheme), scheme, ("fused", scheme), scheme == ""))
    for scheme in ("fp16", "bnb4"):
        out.append(Case(f"fused_{scheme}", ("plain", scheme), scheme, ("fused", scheme)))
    out += [
        Case("packed_q4", ("packed", "q4"), "", ("packed", "q4")),
        Case("interleaved_q4", ("packed", "q4"), "", ("interleaved", "q4")),
        Case("inside_interleaved_q4", ("packed", "q4"), "", ("inside_interleaved", "q4")),
        Case("heads_q4", ("packed", "q4"), "", ("heads", "q4")),
        Case("named_fp16", ("named", "fp16"), "fp16", ("named", "fp16")),
        Case("traced_q4", ("packed", "q4"), "", ("traced", "q4")),
        Case("optimised_q4", ("optimised", "q4"), "", ("optimised", "q4")),
        Case("optimised_q4f16", ("optimised", "q4f16"), "q4f16", ("optimised", "q4f16")),
    ]
    for scheme in ("q4_zero", "q8", "q8_zero", "qdq4", "qdq4_zero"):
        out.append(Case(f"fused_{scheme}", ("plain", "q4"), "", ("fused", scheme)))
    for scheme in ("gather4", "gather4_zero"):
        out.append(Case(f"fused_q4_{scheme}", ("plain", "q4"), scheme, ("fused", "q4")))
        # The table of positions.
        out.append(Case(f"packed_q4_{scheme}", ("plain", scheme), "", ("packed", "q4")))
    out.append(Case("plain_products", ("plain", "products"), "int8", ("plain", "products")))
    out.append(Case("plain_static", ("plain", "static"), "static", ("plain", "static")))
    out.append(Case("unmerged_q4f16", ("plain", "q4f16"), "q4f16", ("plain", "q4f16"), external=True, unmerged=True))
    return out


def numbers(values: np.ndarray, count: int) -> list[float]:
    """`count` values at equal distance, seven digits."""
    flat = values.reshape(-1)
    return [float(f"{v:.7g}") for v in flat[:: len(flat) // count][:count]]


def told(answer: Answer) -> dict:
    """An answer in few numbers."""
    return {"features": numbers(answer.features, 32), "logits": [numbers(row, 32) for row in answer.logits]}


def write_fixtures(names: list[str]) -> None:
    """Writes tests/fixtures/onnx."""
    with tempfile.TemporaryDirectory() as folder:
        shapes()["narrow"].write(Path(folder))
        export = Export.of(Path(folder))
    stage = json.loads((stages.FIXTURES / "narrow.json").read_text())
    tokens = [step["token"] for step in stage["greedy"]][:STEPS]
    frames = stages.pixel_values(export.config.image_size, stage["frames"])
    export.task = Task(stage["input_ids"], frames.numpy(), tokens)
    true = onnx_run.reference(export.config, export.tensors, export.task)
    shutil.rmtree(FIXTURES, ignore_errors=True)
    held, entries = {}, {}
    for case in cases():
        if names and case.name not in names:
            continue
        parts = {"vision_encoder": case.vision, "embed_tokens": ("shared", embed_scheme(case.embed))}
        decoders = UNMERGED if case.unmerged else ("decoder_model_merged",)
        parts |= dict.fromkeys(decoders, case.decoder)
        files, tensors = {}, {}
        for part, (form, scheme) in parts.items():
            path = files[part] = FIXTURES / form / f"{part}{suffix(scheme)}.onnx"
            if path not in held:
                external = case.external and part in decoders
                held[path] = export.write(part, FORMS["fused" if form == "shared" else form], scheme, path, external)
            tensors |= held[path]
        scheme = case.decoder[1]
        answer, own = export.check(files, tensors, scheme, case.name)
        names_of = {part: os.path.relpath(path, FIXTURES) for part, path in files.items()}
        entry = {"scheme": scheme or "fp32", "arithmetic": arithmetic(scheme), "files": names_of}
        entries[case.name] = entry | {"onnxruntime": told(answer), "lifted": told(own)}
    write_hostile(FIXTURES / "hostile")
    # It builds on this file.
    from onnx_text import write_text

    write_text(FIXTURES / "text")
    whole = {
        "checkpoint": "narrow",
        "frames": stage["frames"],
        "input_ids": export.task.input_ids,
        "steps": export.task.steps,
        "reference": told(true),
        "cases": entries,
    }
    (FIXTURES / "expected.json").write_text(as_text(whole))
    size = sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file())
    print(f"{len(entries)} cases, {size / 1e6:.2f} MB")


def embed_scheme(scheme: str) -> str:
    """Tables are left as they are by schemes for matrices, and int8 and uint8 come out the same."""
    same = {"uint8": "int8", "q4": "", "bnb4": "", "q4f16": "fp16"}
    return same.get(scheme, scheme)


def as_text(whole: dict) -> str:
    """JSON with a line for each short value."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in whole.items() if key != "cases"]
    entries = []
    for name, entry in whole["cases"].items():
        inner = ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items())
        entries.append(f"  {json.dumps(name)}: {{\n{inner}\n  }}")
    return "{\n" + ",\n".join(lines) + ',\n "cases": {\n' + ",\n".join(entries) + "\n }\n}\n"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("write")
    verb.add_argument("directory", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("--forms", nargs="+", choices=list(FORMS), default=["plain", "fused"])
    verb.add_argument("--schemes", nargs="+", default=["fp32" if s == "" else s for s in PUBLISHED])
    verb.add_argument("--external", action="store_true", help="f32 and f16 decoders with their data apart")
    verb = verbs.add_parser("fixtures")
    verb.add_argument("names", nargs="*", help="cases; all when empty")
    args = parser.parse_args()
    smolvlm.torch.set_num_threads(1)
    if args.verb == "fixtures":
        write_fixtures(args.names)
    else:
        schemes = ["" if scheme == "fp32" else scheme for scheme in args.schemes]
        write_all(args.directory, args.out, args.forms, schemes, args.external)


if __name__ == "__main__":
    main()

"""Runs an export in onnxruntime: vision, embedding, prefill, then steps with the cache. Its decoder is one file, or one
for the begin and one for what comes behind a cache."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import smolvlm


@dataclass
class Task:
    """What every export of a checkpoint is asked."""

    input_ids: list[int]
    pixel_values: np.ndarray  # [F, 3, S, S]
    steps: list[int]  # tokens given one by one after the prefill


@dataclass
class Answer:
    """What came out."""

    features: np.ndarray  # [F·M, H]
    logits: np.ndarray  # [1 + steps, V]: last row of the prefill, then each step's


# Inputs by name, as a model got them.
Feeds = list[dict[str, np.ndarray]]


def session(path: Path) -> onnxruntime.InferenceSession:
    """A model on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # onnxruntime turns DequantizeLinear and MatMul into a product of bytes unless told to stay with f32.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def vision(path: Path, task: Task, log: Feeds) -> np.ndarray:
    """Image features [F·M, H] of all frames as one batch entry."""
    pixels = task.pixel_values[None]
    mask = np.ones((1, pixels.shape[1], *pixels.shape[3:]), bool)
    log.append({"pixel_values": pixels, "pixel_attention_mask": mask})
    (features,) = session(path).run(None, log[-1])
    return features.reshape(-1, features.shape[-1])


def embed(path: Path, ids: list[int], log: Feeds) -> np.ndarray:
    """Rows of the embedding table [T, H]."""
    log.append({"input_ids": np.array([ids], np.int64)})
    (rows,) = session(path).run(None, log[-1])
    return rows[0]


class Decoder:
    """A decoder with its cache; `later` is the file of what comes behind the first rows, where that is another."""

    def __init__(self, path: Path, later: Path | None, log: Feeds):
        self.later, self.cache, self.log = later, {}, log
        self.open(path)
        for entry in self.session.get_inputs():
            if entry.name.startswith("past"):
                dtype = np.float16 if "float16" in entry.type else np.float32
                self.cache[entry.name] = np.zeros((1, entry.shape[1], 0, entry.shape[3]), dtype)
        self.length = 0

    def open(self, path: Path) -> None:
        """Goes on with a file."""
        self.session = session(path)
        self.names = [entry.name for entry in self.session.get_outputs()]

    def step(self, rows: np.ndarray) -> np.ndarray:
        """Logits [T, V] of the next T rows [T, H]."""
        if self.length > 0 and self.later:
            self.open(self.later)
            self.later = None
        before, self.length = self.length, self.length + len(rows)
        feeds = {
            "inputs_embeds": rows[None],
            "attention_mask": np.ones((1, self.length), np.int64),
            "position_ids": np.arange(before, self.length, dtype=np.int64)[None],
        }
        taken = {entry.name for entry in self.session.get_inputs()}
        feeds = {name: value for name, value in (feeds | self.cache).items() if name in taken}
        self.log.append(feeds)
        out = dict(zip(self.names, self.session.run(None, feeds), strict=True))
        self.cache = {f"past_key_values{k.removeprefix('present')}": v for k, v in out.items() if k != "logits"}
        return out["logits"][0]


def merged(rows: np.ndarray, features: np.ndarray, ids: list[int], image_token: int) -> np.ndarray:
    """Embedding rows with the image features in their places."""
    rows = rows.copy()
    rows[np.array(ids) == image_token] = features
    return rows


def run(
    files: dict[str, Path], task: Task, image_token: int, cut: int | None = None, log: dict[str, Feeds] | None = None
) -> Answer:
    """Runs a whole export; with `cut` the prefill is given in two parts. `log` gets what each part is given."""
    log = {} if log is None else log
    features = vision(files["vision_encoder"], task, log.setdefault("vision_encoder", []))
    table = embed(files["embed_tokens"], task.input_ids + task.steps, log.setdefault("embed_tokens", []))
    count = len(task.input_ids)
    rows = merged(table[:count], features, task.input_ids, image_token)
    one = files.get("decoder_model_merged")
    heard = log.setdefault("decoder_model_merged", [])
    pair = (one, None) if one else (files["decoder_model"], files["decoder_with_past_model"])
    decoder = Decoder(*pair, heard)
    if cut is not None:
        decoder.step(rows[:cut])
        rows = rows[cut:]
    logits = [decoder.step(rows)[-1]]
    logits += [decoder.step(table[count + i : count + i + 1])[-1] for i in range(len(task.steps))]
    return Answer(features, np.stack(logits).astype(np.float32))


def reference(config: smolvlm.Config, tensors: dict[str, np.ndarray], task: Task) -> Answer:
    """The same with `smolvlm.py`."""
    model = smolvlm.Model(config, {name: torch.from_numpy(array) for name, array in tensors.items()})
    with torch.no_grad():
        features = model.image_features(torch.from_numpy(task.pixel_values))
        caches = model.new_cache()
        rows = [model.decode(model.input_embeddings(torch.tensor(task.input_ids), features), caches)]
        for token in task.steps:
            rows.append(model.decode(model.input_embeddings(torch.tensor([token]), None), caches))
    return Answer(features.numpy(), torch.stack(rows).numpy())


def difference(a: Answer, b: Answer) -> tuple[float, float]:
    """Largest difference of features and logits over the standard deviation of `b`'s."""
    pairs = ((a.features, b.features), (a.logits, b.logits))
    features, logits = (float(np.abs(x - y).max() / y.std()) for x, y in pairs)
    return features, logits

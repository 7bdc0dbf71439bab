#!/usr/bin/env python3
"""Times onnxruntime on the graphs of graphs.py; prints one JSON line a round.

    run_ort.py vision|decoder MODEL THREADS ROUNDS PREFILL DECODE
"""

import json
import resource
import sys
import time

import numpy as np
import onnxruntime

from graphs import HEAD_DIM, KV_HEADS, LAYERS, TEXT


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def encode(model, random):
    pixels = random.standard_normal((1, 3, 512, 512), np.float32)
    start = time.perf_counter()
    model.run(None, {"pixel_values": pixels})
    return {"encode_tile_ms": 1e3 * (time.perf_counter() - start)}


class Decoder:
    """Keys and values between the steps, and the inputs that our graph wants from outside."""

    def __init__(self, model, longest):
        self.model = model
        self.names = [f"past.{i}.{part}" for i in range(LAYERS) for part in "kv"]
        angles = np.outer(np.arange(longest), 100000.0 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        angles = np.concatenate([angles, angles], 1)
        self.cos, self.sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        empty = np.zeros((1, KV_HEADS, 0, HEAD_DIM), np.float32)
        self.past = dict.fromkeys(self.names, empty)
        self.position = 0

    def step(self, embeddings):
        first, count = self.position, embeddings.shape[1]
        end = first + count
        mask = np.where(np.arange(end)[None] <= np.arange(first, end)[:, None], 0, -1e9)
        feed = {
            "embeddings": embeddings,
            "cos": self.cos[first:end],
            "sin": self.sin[first:end],
            "mask": mask.astype(np.float32),
        }
        logits, *present = self.model.run(None, feed | self.past)
        self.past = dict(zip(self.names, present))
        self.position = end
        return int(np.argmax(logits))


def text(model, random, prefill, decode):
    decoder = Decoder(model, prefill + decode)
    embeddings = (random.standard_normal((1, prefill, TEXT)) * 0.02).astype(np.float32)
    start = time.perf_counter()
    decoder.step(embeddings)
    prefilled = time.perf_counter()
    for _ in range(decode):
        decoder.step(embeddings[:, :1])
    return {
        "prefill_ms": 1e3 * (prefilled - start),
        "decode_tokens_per_second": decode / (time.perf_counter() - prefilled),
    }


def main():
    kind, path = sys.argv[1:3]
    threads, rounds, prefill, decode = map(int, sys.argv[3:])
    model = session(path, threads)
    random = np.random.default_rng(0)
    for _ in range(rounds):
        figures = encode(model, random) if kind == "vision" else text(model, random, prefill, decode)
        figures["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

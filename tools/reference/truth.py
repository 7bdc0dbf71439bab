"""What int8 and int4 cost on real weights: KL, top-1 and perplexity against f32, llama.cpp's files beside them.

    python tools/reference/truth.py text CACHE
    python tools/reference/truth.py offgrid MODEL.gguf OUT.gguf
    python tools/reference/truth.py measure [--base here] LOGITS F32.gguf CACHE WAY ...
    python tools/reference/truth.py chat LOGITS F32.gguf WAY ...

A WAY is `f32`: our f32 path; `int8` or `int4`: a pack of the file made in memory, `int8:nearest`, `int4:nearest`: one
without calibration; any of these with `@FILE.gguf` behind: the same of another file; a `.ocelli` file: that pack; or a
`.gguf` file: llama.cpp on it. LOGITS is the example program `logits` of the runtime (`cargo build -p ocelli-runtime --example logits`). `measure`
compares each way with llama.cpp on the F32 file, token by token (our f32 path gives the same logits to 5e-5, see
`gguf_peer.py`, but one token at a time; `--base here` compares with that, without llama.cpp), on 4096 tokens: four windows of 256 each from four public-domain
texts that the source package of Brotli carries for its tests (two plays and books, a government report, a long poem).
`text` fetches them into CACHE by pip and checks them; `measure` does so too where they are missing. `chat` prints what
each way and f32 answer to ten questions, greedily. The other files come from `gguf_peer.py quantise`.

`offgrid` turns a file whose weights lie on a 4-bit grid into F32 and moves every weight of a matrix by a random part of
a step, up to a half in each direction: weights as they may have been before they were rounded. On a file that is on the
grid already, a 4-bit file of the same kind loses nothing, which says nothing about other checkpoints.

Needs llama-cpp-python 0.3.36 (but for ours against ours), gguf 0.19.0, numpy and pip.
"""

import argparse
import ctypes
import hashlib
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
from gguf_peer import PROMPTS, WINDOW, Ours, Peer, chat, llama_cpp

PACKAGE, VERSION = "Brotli", "1.1.0"
TEXTS = {
    "alice29.txt": "7467306ee0feed4971260f3c87421154a05be571d944e9cb021a5713700c38f0",
    "asyoulik.txt": "eaa3526fe53859f34ecdf255712f9ecf0b2c903451d4755b2edaa2e2599cb0fc",
    "lcet10.txt": "5314ba1dbb03f471df88bec6cd120a938ef60d0fd3511c5c1dce61bf7463245f",
    "plrabn12.txt": "07e2e0b461af78c7c647cb53dab39de560198e16f799b4516eccf0fbd69f764c",
}
WINDOWS_A_TEXT = 4
# Past title pages and contents, in bytes.
SKIP = 4000
QUESTIONS, ANSWER = PROMPTS[:10], 96
# An answer repeats itself if a run of so many tokens occurs so often.
RUN, OFTEN = 8, 3
SEED = 20
BASE = "f32"


def fetch(cache: Path) -> None:
    """The texts, from the pinned source package."""
    if not all((cache / name).exists() for name in TEXTS):
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(cache), f"{PACKAGE}=={VERSION}"], check=True)
        with tarfile.open(cache / f"{PACKAGE}-{VERSION}.tar.gz") as archive:
            for name in TEXTS:
                member = archive.extractfile(f"{PACKAGE}-{VERSION}/tests/testdata/{name}")
                (cache / name).write_bytes(member.read())
    for name, sha256 in TEXTS.items():
        found = hashlib.sha256((cache / name).read_bytes()).hexdigest()
        if found != sha256:
            raise SystemExit(f"{cache / name}: SHA-256 is {found}, wanted is {sha256}")


def windows(cache: Path, tokenise) -> list[list[int]]:
    """Token ids, `WINDOW` each, the texts in turn."""
    cut = []
    for name in TEXTS:
        text = (cache / name).read_bytes()[SKIP:].decode("ascii", "ignore")
        cut.append(tokenise(text[: 8 * WINDOW * WINDOWS_A_TEXT]))
    return [ids[i * WINDOW : (i + 1) * WINDOW] for i in range(WINDOWS_A_TEXT) for ids in cut]


def opened(program: str, model: str, ways: list[str]) -> dict:
    """Each way by its name, as something that scores ids."""
    found = {}
    for way in ways:
        if "@" in way:
            arithmetic, file = way.split("@", 1)
            found[f"{arithmetic}, here, {Path(file).stem}"] = Ours(program, file, arithmetic)
        elif way.endswith(".gguf"):
            found[f"llama.cpp {Path(way).stem}"] = Peer(way)
        elif way.endswith(".ocelli"):
            found[f"pack {Path(way).stem}"] = Ours(program, way, "int8")
        else:
            found[f"{way}, here"] = Ours(program, model, way)
    return found


def scores(way, ids: list[int], vocabulary: int) -> np.ndarray:
    """Logits after each id. [ids, vocabulary]"""
    if isinstance(way, Peer):
        way.clear()
        return way.score(ids)
    return way.score(ids, vocabulary)


def log_softmax(rows: np.ndarray) -> np.ndarray:
    """Row by row, sums in double precision."""
    rows = rows - rows.max(axis=1, keepdims=True)
    sums = np.exp(rows).sum(axis=1, keepdims=True, dtype=np.float64)
    return rows - np.log(sums).astype(np.float32)


class Sums:
    """What a way has cost so far."""

    def __init__(self) -> None:
        self.divergences: list[np.ndarray] = []
        self.agreed = self.tokens = self.predicted = 0
        self.loss = 0.0

    def add(self, p: np.ndarray, q: np.ndarray, ids: list[int]) -> None:
        """Adds a window: log probabilities of f32 and of the way. [ids, vocabulary]"""
        self.divergences.append((np.exp(p) * (p - q)).sum(axis=1, dtype=np.float64))
        self.agreed += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
        self.tokens += len(ids)
        self.loss -= float(q[np.arange(len(ids) - 1), ids[1:]].sum(dtype=np.float64))
        self.predicted += len(ids) - 1

    def perplexity(self) -> float:
        """Perplexity over the tokens that have one before them in their window."""
        return float(np.exp(self.loss / self.predicted))

    def row(self, name: str, base: float) -> str:
        """A row of the table; `base` is the perplexity of f32."""
        kl = np.concatenate(self.divergences)
        quantiles = " | ".join(f"{value:.4f}" for value in np.quantile(kl, [0.5, 0.9, 0.99]))
        change = 100 * (self.perplexity() / base - 1)
        top = 100 * self.agreed / self.tokens
        return f"| {name} | {kl.mean():.5f} | {quantiles} | {top:.2f} % | {self.perplexity():.3f} | {change:+.2f} % |"


def measure(program: str, model: str, cache: Path, ways: list[str], base: str) -> None:
    """Prints the table, again after each window."""
    fetch(cache)
    base = Ours(program, model, "f32") if base == "here" else Peer(model)
    others = opened(program, model, ways)
    cut = windows(cache, base.ids)
    vocabulary = gguf_vocabulary(model)
    sums = {name: Sums() for name in (BASE, *others)}
    for number, ids in enumerate(cut, 1):
        reference = log_softmax(scores(base, ids, vocabulary))
        sums[BASE].add(reference, reference, ids)
        for name, way in others.items():
            sums[name].add(reference, log_softmax(scores(way, ids, vocabulary)), ids)
        print(f"\n{sums[BASE].tokens} tokens, window {number} of {len(cut)}\n")
        print("| | KL mean | median | 90 % | 99 % | top-1 | perplexity | |\n|---|---|---|---|---|---|---|---|")
        for name, way in sums.items():
            print(way.row(name, sums[BASE].perplexity()), flush=True)


def gguf_vocabulary(path: str) -> int:
    """Tokens of a GGUF file."""
    return len(gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].data)


def answer(way, ids: list[int], vocabulary: int, stop: set[int]) -> list[int]:
    """Up to `ANSWER` greedy tokens of ours, without the one that stops."""
    rows = way.rows(f"greedy {ANSWER} " + " ".join(map(str, ids)), ANSWER, vocabulary)
    tokens = [int(row.argmax()) for row in rows]
    ends = [i for i, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens


def repeats(tokens: list[int]) -> bool:
    """Whether a run of tokens comes again and again."""
    runs = Counter(tuple(tokens[i : i + RUN]) for i in range(len(tokens) - RUN + 1))
    return any(count >= OFTEN for count in runs.values())


def converse(program: str, model: str, ways: list[str]) -> None:
    """Answers of f32 and of each of our ways to the same questions."""
    peer, vocabulary = Peer(model), gguf_vocabulary(model)
    stop = {peer.ids(mark)[0] for mark in ("<|im_end|>", "<|endoftext|>")}
    ours = {"f32": Ours(program, model, "f32"), **opened(program, model, ways)}
    for question in QUESTIONS:
        print(f"\n**{question}**")
        for name, way in ours.items():
            tokens = answer(way, way.ids(chat(question)), vocabulary, stop)
            text = ctypes.create_string_buffer(16 * ANSWER)
            ids = (llama_cpp.llama_token * len(tokens))(*tokens)
            n = llama_cpp.llama_detokenize(peer.vocabulary, ids, len(tokens), text, len(text), False, False)
            mark = " (repeats itself)" if repeats(tokens) else ""
            print(f"- {name}{mark}: {text.raw[:n].decode(errors='replace')!r}", flush=True)


def step(block_type, data: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The distance of neighbouring grid points for each value; 0 where the file holds floats."""
    match block_type.name:
        case "Q4_0" | "Q4_1" | "Q8_0":
            bytes_a_block = gguf.GGML_QUANT_SIZES[block_type][1]
            blocks = data.reshape(-1, bytes_a_block)
            scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
            return np.abs(np.repeat(scale, 32, axis=0)).reshape(values.shape)
        case _:
            return np.zeros_like(values)


def offgrid(source: str, out: str) -> None:
    """A file in F32 whose weights lie on no grid."""
    reader, random = gguf.GGUFReader(source), np.random.default_rng(SEED)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        parts = field.types[1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, parts)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        moved = values + step(tensor.tensor_type, tensor.data, values) * random.uniform(-0.5, 0.5, values.shape)
        writer.add_tensor(tensor.name, moved.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("text")
    verb.add_argument("cache", type=Path)
    verb = verbs.add_parser("offgrid")
    verb.add_argument("source")
    verb.add_argument("out")
    verb = verbs.add_parser("measure")
    verb.add_argument("--base", choices=("llama.cpp", "here"), default="llama.cpp")
    verb.add_argument("program")
    verb.add_argument("model")
    verb.add_argument("cache", type=Path)
    verb.add_argument("ways", nargs="+")
    verb = verbs.add_parser("chat")
    verb.add_argument("program")
    verb.add_argument("model")
    verb.add_argument("ways", nargs="+")
    arguments = vars(parser.parse_args())
    if llama_cpp is not None:
        quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
    {"text": fetch, "offgrid": offgrid, "measure": measure, "chat": converse}[arguments.pop("verb")](**arguments)


if __name__ == "__main__":
    main()

"""A GGUF text model here and in llama.cpp: the same tokens.

    python tools/reference/gguf_peer.py greedy LOGITS F32.gguf
    python tools/reference/gguf_peer.py quantise F32.gguf OUT.gguf Q8_0

LOGITS is the example program `logits` of the runtime (`cargo build -p ocelli-runtime --example logits`).
`greedy` runs 20 prompts for 32 tokens in both programs, all f32, and fails if the ids of a prompt differ, or if the
tokens differ where the two best logits are 0.05 or more apart. `quantise` is llama.cpp's own quantisation. F32 files
come from `gguf_files.py again`. What each arithmetic costs is measured by `truth.py`.

Needs llama-cpp-python 0.3.36 and numpy.
"""

import argparse
import ctypes
import json
import subprocess

import numpy as np

try:
    import llama_cpp
except ImportError:
    # What compares only ours with ours does without.
    llama_cpp = None

# Most tokens of a text, half of what the context holds.
WINDOW = 256
TOKENS, GAP = 32, 0.05
PROMPTS = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain photosynthesis in one sentence.",
    "List three uses of a hammer.",
    "How many legs does a spider have?",
    "Translate 'good morning' into Spanish.",
    "What is 12 + 30?",
    "Who wrote Romeo and Juliet?",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "Name the planets of the solar system.",
    "What does a thermometer measure?",
    "Summarise: The cat sat on the mat and slept all day.",
    "Write a Python function that adds two numbers.",
    "What is the opposite of 'hot'?",
    "Tell me a joke about a robot.",
    "How do I boil an egg?",
    "What are the primary colours?",
    "Describe a raspberry in two sentences.",
    "Finish the sentence: Once upon a time",
]


class Ours:
    """The example program as a child."""

    def __init__(self, program: str, model: str, precision: str) -> None:
        self.child = subprocess.Popen([program, model, precision], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def say(self, line: str) -> None:
        """Sends a line."""
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        self.say("ids " + json.dumps(text))
        return [int(word) for word in self.child.stdout.readline().split()]

    def rows(self, line: str, n: int, vocabulary: int) -> np.ndarray:
        """The `n` rows of logits a line is answered with. [n, vocabulary]"""
        self.say(line)
        data = self.child.stdout.read(4 * n * vocabulary)
        return np.frombuffer(data, "<f4").reshape(n, vocabulary)

    def score(self, ids: list[int], vocabulary: int) -> np.ndarray:
        """Logits after each id. [ids, vocabulary]"""
        return self.rows("score " + " ".join(map(str, ids)), len(ids), vocabulary)


class Peer:
    """llama.cpp on one file, keys and values in f32, no flash attention."""

    def __init__(self, path: str) -> None:
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = 2 * WINDOW
        settings.n_threads = settings.n_threads_batch = 1
        settings.type_k = settings.type_v = 0
        settings.flash_attn_type = 0
        self.context = llama_cpp.llama_init_from_model(model, settings)
        self.vocabulary = llama_cpp.llama_model_get_vocab(model)
        self.n = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        self.position = 0

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, special tokens recognised, none added."""
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), False, True)
        return list(ids[:n])

    def clear(self) -> None:
        """Starts over."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.position = 0

    def score(self, ids: list[int], only_last: bool = False) -> np.ndarray:
        """Logits after each id, or after the last. [ids or 1, vocabulary]"""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        wanted = [i for i in range(len(ids)) if not only_last or i == len(ids) - 1]
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, self.position + i, 1, 0
            batch.logits[i] = i in wanted
        if llama_cpp.llama_decode(self.context, batch):
            raise SystemExit("llama_decode failed")
        self.position += len(ids)
        rows = [llama_cpp.llama_get_logits_ith(self.context, i) for i in wanted]
        logits = np.stack([np.ctypeslib.as_array(row, shape=(self.n,)).copy() for row in rows])
        llama_cpp.llama_batch_free(batch)
        return logits


def chat(question: str) -> str:
    """The chat template of SmolLM2-Instruct."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    turns = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
    return turns + "<|im_start|>assistant\n"


def greedy(program: str, model: str) -> None:
    """Both programs continue 20 prompts."""
    ours, peer = Ours(program, model, "f32"), Peer(model)
    equal = bad = 0
    largest = 0.0
    for question in PROMPTS:
        ids = ours.ids(chat(question))
        if ids != peer.ids(chat(question)):
            raise SystemExit(f"{question!r}: the ids differ")
        rows = ours.rows(f"greedy {TOKENS} " + " ".join(map(str, ids)), TOKENS, peer.n)
        peer.clear()
        row, verdict = peer.score(ids, True)[0], "equal"
        for step in range(TOKENS):
            largest = max(largest, float(np.abs(rows[step] - row).max()))
            mine, theirs = int(rows[step].argmax()), int(row.argmax())
            if mine != theirs:
                gap = max(rows[step][mine] - rows[step][theirs], row[theirs] - row[mine])
                verdict = f"differ at token {step}, gap {gap:.4f}"
                bad += gap >= GAP
                break
            row = peer.score([mine], True)[0]
        equal += verdict == "equal"
        print(f"{verdict:40} {question}")
    print(f"{equal} of {len(PROMPTS)} equal, {bad} wrong, largest difference of a logit {largest:.1e}")
    if bad:
        raise SystemExit(1)


def quantise(source: str, path: str, kind: str) -> None:
    """llama.cpp's own quantisation of a file."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = 2
    if llama_cpp.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(settings)):
        raise SystemExit("llama_model_quantize failed")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("greedy")
    verb.add_argument("program")
    verb.add_argument("model")
    verb = verbs.add_parser("quantise")
    verb.add_argument("source")
    verb.add_argument("path")
    verb.add_argument("kind")
    arguments = vars(parser.parse_args())
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    {"greedy": greedy, "quantise": quantise}[arguments.pop("verb")](**arguments)


if __name__ == "__main__":
    main()

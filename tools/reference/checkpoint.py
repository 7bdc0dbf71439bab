"""Random checkpoints that any language can write again: every weight is a pure function of
(tensor name, index, seed).

The rule is stated in `tests/fixtures/README.md`; `tests/src/checkpoint.rs` is its Rust twin and writes
the same bytes. Nothing random is committed, only shapes and expected outputs.

    python tools/reference/checkpoint.py tiny OUT
    python tools/reference/checkpoint.py smolvlm_256m OUT --dtype bf16 --max-shard-mb 200
    python tools/reference/checkpoint.py --list

writes a Hugging Face style directory: configuration, processor and generation files, chat template,
a small tokenizer of SmolLM2's kind, and safetensors in f32, f16 or bf16, single or sharded.
Needs numpy only.
"""

import argparse
import copy
import hashlib
import json
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
CHUNK = 1 << 19

QUERY_KEY_GAIN = 1.5
VOCABULARY_GAIN = 2.0
POSITION_SCALE = 0.5
NORM_SCALE = 0.2
BIAS_SCALE = 0.1


# Weights


def fnv1a64(text: str) -> int:
    """FNV-1a, 64 bits, of the UTF-8 bytes."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def signed_units(name: str, seed: int, start: int, count: int) -> np.ndarray:
    """Elements start..start+count of the tensor's sequence in [-1, 1), each a multiple of 2^-23, f32.

    x = mix(key + (i + 1)·GOLDEN_GAMMA) mod 2^64, mix of SplitMix64, key = fnv1a64(name) xor seed;
    r = ((x >> 40) - 2^23) / 2^23.
    """
    key = np.uint64(fnv1a64(name) ^ seed)
    z = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z *= np.uint64(GOLDEN_GAMMA)
    z += key
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(40)
    return (z.astype(np.int32) - np.int32(1 << 23)).astype(np.float32) * np.float32(2.0**-23)


def offset_and_scale(name: str, shape: list[int]) -> tuple[np.float32, np.float32]:
    """The affine map from [-1, 1) to weights, by kind of tensor."""

    def fan_in_scale(gain: float) -> np.float32:
        return np.float32(gain * math.sqrt(3.0 / math.prod(shape[1:])))

    zero, one = np.float32(0), np.float32(1)
    if name.endswith(".bias"):
        return zero, np.float32(BIAS_SCALE)
    if "norm" in name:
        return one, np.float32(NORM_SCALE)
    if name.endswith("position_embedding.weight"):
        return zero, np.float32(POSITION_SCALE)
    if name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return zero, fan_in_scale(VOCABULARY_GAIN)
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        return zero, fan_in_scale(QUERY_KEY_GAIN)
    return zero, fan_in_scale(1.0)


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """f32 values as they are stored: f32, f16 or bf16, rounded to nearest even."""
    if dtype == "f32":
        return values.astype("<f4")
    if dtype == "f16":
        return values.astype("<f2")
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def tensor_chunks(name: str, shape: list[int], seed: int, dtype: str):
    """The tensor's bytes in storage order, a chunk at a time."""
    offset, scale = offset_and_scale(name, shape)
    count = math.prod(shape)
    for start in range(0, count, CHUNK):
        values = signed_units(name, seed, start, min(CHUNK, count - start)) * scale + offset
        yield stored(values, dtype).tobytes()


# Checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """What determines every file of a directory."""

    name: str
    config: dict  # config.json
    dtype: str = "f32"  # f32, f16 or bf16
    seed: int = 1
    max_shard_bytes: int | None = None  # None: one file
    tile_tokens: bool = True  # False: `<global-img>` and `<row_r_col_c>` are plain text, as in the first 2.2B

    def numbers(self) -> dict:
        """The sizes the tensor list depends on, defaults filled in."""
        vision, text = self.config["vision_config"], self.config["text_config"]
        heads = text.get("num_attention_heads", 32)
        head_dim = text.get("head_dim", text["hidden_size"] // heads)
        return {
            "vision": vision["hidden_size"],
            "vision_ffn": vision.get("intermediate_size", 3072),
            "vision_layers": vision.get("num_hidden_layers", 12),
            "patch": vision["patch_size"],
            "side": vision["image_size"] // vision["patch_size"],
            "scale": self.config["scale_factor"],
            "hidden": text["hidden_size"],
            "ffn": text["intermediate_size"],
            "layers": text["num_hidden_layers"],
            "q": heads * head_dim,
            "kv": text.get("num_key_value_heads", heads) * head_dim,
            "vocab": text["vocab_size"],
            "tied": self.config["tie_word_embeddings"],
        }

    def tensors(self) -> list[tuple[str, list[int]]]:
        """Names and shapes, sorted by name."""
        n = self.numbers()
        d, h = n["vision"], n["hidden"]
        out = {
            "model.vision_model.embeddings.patch_embedding.weight": [d, 3, n["patch"], n["patch"]],
            "model.vision_model.embeddings.patch_embedding.bias": [d],
            "model.vision_model.embeddings.position_embedding.weight": [n["side"] ** 2, d],
            "model.vision_model.post_layernorm.weight": [d],
            "model.vision_model.post_layernorm.bias": [d],
            "model.connector.modality_projection.proj.weight": [h, d * n["scale"] ** 2],
            "model.text_model.embed_tokens.weight": [n["vocab"], h],
            "model.text_model.norm.weight": [h],
        }
        if not n["tied"]:
            out["lm_head.weight"] = [n["vocab"], h]
        for i in range(n["vision_layers"]):
            layer = f"model.vision_model.encoder.layers.{i}"
            linears = {f"self_attn.{p}_proj": [d, d] for p in ("q", "k", "v", "out")}
            linears |= {"mlp.fc1": [n["vision_ffn"], d], "mlp.fc2": [d, n["vision_ffn"]]}
            for part, shape in linears.items():
                out[f"{layer}.{part}.weight"] = shape
                out[f"{layer}.{part}.bias"] = shape[:1]
            for part in ("layer_norm1", "layer_norm2"):
                out[f"{layer}.{part}.weight"] = [d]
                out[f"{layer}.{part}.bias"] = [d]
        for i in range(n["layers"]):
            layer = f"model.text_model.layers.{i}"
            out |= {
                f"{layer}.self_attn.q_proj.weight": [n["q"], h],
                f"{layer}.self_attn.k_proj.weight": [n["kv"], h],
                f"{layer}.self_attn.v_proj.weight": [n["kv"], h],
                f"{layer}.self_attn.o_proj.weight": [h, n["q"]],
                f"{layer}.mlp.gate_proj.weight": [n["ffn"], h],
                f"{layer}.mlp.up_proj.weight": [n["ffn"], h],
                f"{layer}.mlp.down_proj.weight": [h, n["ffn"]],
                f"{layer}.input_layernorm.weight": [h],
                f"{layer}.post_attention_layernorm.weight": [h],
            }
        return sorted(out.items())

    def files(self) -> dict[str, list[tuple[str, list[int]]]]:
        """Weight files and the tensors of each: a new shard begins where the next tensor would pass the limit."""
        width = 4 if self.dtype == "f32" else 2
        shards, size = [[]], 0
        for name, shape in self.tensors():
            n_bytes = width * math.prod(shape)
            if self.max_shard_bytes and shards[-1] and size + n_bytes > self.max_shard_bytes:
                shards.append([])
                size = 0
            shards[-1].append((name, shape))
            size += n_bytes
        if len(shards) == 1:
            return {"model.safetensors": shards[0]}
        return {f"model-{i + 1:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards)}

    def write(self, directory: Path) -> dict[str, str]:
        """Writes the directory; returns the SHA-256 of each weight file and of tokenizer.json."""
        directory.mkdir(parents=True, exist_ok=True)
        files = self.files()
        hashes = {file: self.write_weights(directory / file, tensors) for file, tensors in files.items()}
        if len(files) > 1:
            weight_map = {name: file for file, tensors in files.items() for name, _ in tensors}
            width = 4 if self.dtype == "f32" else 2
            total = sum(width * math.prod(shape) for _, shape in self.tensors())
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
        for file, content in self.small_files().items():
            (directory / file).write_text(json.dumps(content, indent=2))
        tokenizer = self.tokenizer_json().encode()
        (directory / "tokenizer.json").write_bytes(tokenizer)
        return hashes | {"tokenizer.json": hashlib.sha256(tokenizer).hexdigest()}

    def write_weights(self, path: Path, tensors: list[tuple[str, list[int]]]) -> str:
        """Writes one safetensors file and returns its SHA-256: u64 little endian header length, compact JSON
        header padded with spaces to a multiple of 8, then the tensors in order of name without gaps."""
        width = 4 if self.dtype == "f32" else 2
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in tensors:
            begin, end = end, end + width * math.prod(shape)
            header[name] = {"dtype": self.dtype.upper(), "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        digest = hashlib.sha256()
        with path.open("wb") as file:

            def put(data: bytes) -> None:
                file.write(data)
                digest.update(data)

            put(struct.pack("<Q", len(text)))
            put(text)
            for name, shape in tensors:
                for chunk in tensor_chunks(name, shape, self.seed, self.dtype):
                    put(chunk)
        return digest.hexdigest()

    def small_files(self) -> dict[str, dict]:
        """Every JSON file but the tokenizer."""
        n, vision = self.numbers(), self.config["vision_config"]
        second = self.config["model_type"] == "smolvlm"
        kind = "SmolVLM" if second else "Idefics3"
        longest_edge = 4 * vision["image_size"]
        preprocessor = {
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": f"{kind}ImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "max_image_size": {"longest_edge": vision["image_size"]},
            "processor_class": f"{kind}Processor",
            "resample": 1,
            "rescale_factor": 1 / 255,
            "size": {"longest_edge": longest_edge},
        }
        if second:
            video_size = {"longest_edge": vision["image_size"]}
            preprocessor["video_sampling"] = {"fps": 1, "max_frames": 64, "video_size": video_size}
        image_seq_len = (n["side"] // n["scale"]) ** 2
        return {
            "config.json": self.config,
            "preprocessor_config.json": preprocessor,
            "processor_config.json": {"image_seq_len": image_seq_len, "processor_class": f"{kind}Processor"},
            "generation_config.json": {"bos_token_id": 0, "eos_token_id": n["vocab"] - 1, "pad_token_id": 2},
            "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        }

    def added_tokens(self) -> list[str]:
        """Special tokens behind the base vocabulary, in the order of the published checkpoints; the reserved
        ones are there when the vocabulary is large."""
        if not self.tile_tokens:
            return ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
        tiles = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
        n_reserved = 88 if self.numbers()["vocab"] > 4096 else 0
        reserved = [f"<|reserved_special_token_{i}|>" for i in range(n_reserved)]
        return ["<global-img>", *tiles, "<fake_token_around_image>", "<image>", *reserved, "<end_of_utterance>"]

    def tokenizer_json(self) -> str:
        """tokenizer.json, compact: byte-level BPE with single digits, as SmolLM2's.

        Ids: 17 special tokens, 256 bytes by code point of their stand-in character, merges in order,
        unreachable fillers, then `added_tokens`.
        """
        added = self.added_tokens()
        base = [*FIRST_TOKENS, *sorted(byte_characters()), *("".join(pair) for pair in merges())]
        n_fillers = self.numbers()["vocab"] - len(added) - len(base)
        assert n_fillers >= 0, f"the vocabulary must hold at least {len(base) + len(added)} tokens"
        base += [f"<|filler_{i}|>" for i in range(n_fillers)]
        ids = [*enumerate(FIRST_TOKENS), *enumerate(added, len(base))]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(base)},
            "merges": [list(pair) for pair in merges()],
        }
        tokenizer = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": token} | flags for i, token in ids],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
            },
            "post_processor": None,
            "decoder": byte_level | {"add_prefix_space": True},
            "model": model,
        }
        return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))


# Tokenizer

# Does what the published template does, in other words.
CHAT_TEMPLATE = (
    "<|im_start|>{% for turn in messages %}{{ turn.role | capitalize }}:"
    "{% if turn.content[0].type != 'image' %}{{ ' ' }}{% endif %}"
    "{% for part in turn.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

FIRST_TOKENS = (
    "<|endoftext|> <|im_start|> <|im_end|> <repo_name> <reponame> <file_sep> <filename> <gh_stars> <issue_start>"
    " <issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <jupyter_script>"
    " <empty_output>"
).split()

# Words that become one token each, with Ġ for a leading space and Ċ for a newline.
WORDS = "ĊĊ User Assistant System Can What Ġyou Ġdescribe Ġthis Ġthe Ġimage Ġpicture Ġis Ġthere Ġa Ġand".split()


def byte_characters() -> list[str]:
    """The printable stand-in of each byte in byte-level BPE: itself where Latin-1 prints it, else U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]


def merges() -> list[tuple[str, str]]:
    """Merge pairs that grow each word of `WORDS` from its left end, repeats left out."""
    pairs = {}
    for word in WORDS:
        for length in range(1, len(word)):
            pairs[(word[:length], word[length])] = None
    return list(pairs)


# Shapes


def shape_config(
    model_type: str,
    vision: tuple[int, int, int, int],
    image: tuple[int, int, int],
    text: tuple[int, int, int, int, int],
    vocab: int,
    tile_tokens: bool = True,
    head_dim: int = 64,
    rope_theta: float = 100000,
    max_positions: int = 8192,
    tied: bool = False,
    eps: tuple[float, float] = (1e-6, 1e-5),
) -> dict:
    """config.json of (width, ffn, layers, heads), (image size, patch size, scale factor) and
    (hidden, ffn, layers, heads, kv heads); `eps` is that of layer norm and RMS norm."""
    n_reserved = 88 if tile_tokens and vocab > 4096 else 0
    architecture = "SmolVLMForConditionalGeneration" if model_type == "smolvlm" else "Idefics3ForConditionalGeneration"
    return {
        "architectures": [architecture],
        "image_token_id": vocab - 2 - n_reserved,
        "model_type": model_type,
        "scale_factor": image[2],
        "text_config": {
            "architectures": ["VLlama3ForCausalLM"],
            "attention_bias": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "head_dim": head_dim,
            "hidden_act": "silu",
            "hidden_size": text[0],
            "intermediate_size": text[1],
            "max_position_embeddings": max_positions,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": text[3],
            "num_hidden_layers": text[2],
            "num_key_value_heads": text[4],
            "pad_token_id": 2,
            "rms_norm_eps": eps[1],
            "rope_interleaved": False,
            "rope_scaling": None,
            "rope_theta": rope_theta,
            "tie_word_embeddings": tied,
            "vocab_size": vocab,
        },
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vision_config": {
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": vision[0],
            "image_size": image[0],
            "intermediate_size": vision[1],
            "layer_norm_eps": eps[0],
            "model_type": f"{model_type}_vision" if model_type == "smolvlm" else "idefics3",
            "num_attention_heads": vision[3],
            "num_channels": 3,
            "num_hidden_layers": vision[2],
            "patch_size": image[1],
        },
    }


def without(config: dict, *paths: str) -> dict:
    """A copy of `config` that leaves keys out, as published SmolVLM2 files do; a path is `section.key`."""
    config = copy.deepcopy(config)
    for path in paths:
        section, key = path.split(".")
        del config[section][key]
    return config


def rope_parameters(config: dict) -> dict:
    """A copy of `config` in the newer spelling: `rope_parameters` instead of `rope_theta` and `rope_scaling`."""
    config = copy.deepcopy(config)
    text = config["text_config"]
    del text["rope_scaling"]
    text["rope_parameters"] = {"rope_theta": text.pop("rope_theta"), "rope_type": "default"}
    return config


def shapes() -> dict[str, Checkpoint]:
    """Every named checkpoint; those with fixtures first, then the true sizes for timing."""
    small_image = (64, 16, 2)
    cases = [
        Checkpoint(
            "tiny",
            shape_config("idefics3", (64, 128, 2, 1), small_image, (128, 256, 2, 2, 1), 400, max_positions=512),
            seed=13,
        ),
        Checkpoint(
            "smolvlm_256m_cut",
            shape_config("idefics3", (768, 3072, 2, 12), (512, 16, 4), (576, 1536, 2, 9, 3), 49280),
            dtype="bf16",
            seed=5,
        ),
        Checkpoint(
            "smolvlm_2b_patch_rule",
            shape_config(
                "idefics3",
                (144, 304, 2, 2),
                (384, 14, 3),
                (128, 352, 2, 2, 2),
                515,
                tile_tokens=False,
                rope_theta=273768,
                max_positions=16384,
            ),
            dtype="f16",
            tile_tokens=False,
            seed=13,
        ),
        Checkpoint(
            "smolvlm2_2b_cut",
            without(
                shape_config(
                    "smolvlm",
                    (1152, 4304, 1, 16),
                    (384, 14, 3),
                    (2048, 2048, 1, 32, 32),
                    515,
                    rope_theta=130000,
                ),
                "text_config.num_attention_heads",
            ),
            dtype="bf16",
            max_shard_bytes=50_000_000,
            seed=8,
        ),
        Checkpoint(
            "smolvlm2_omitted_keys",
            rope_parameters(
                without(
                    shape_config("smolvlm", (64, 3072, 12, 1), small_image, (192, 384, 2, 3, 3), 403),
                    "vision_config.intermediate_size",
                    "vision_config.num_hidden_layers",
                    "text_config.head_dim",
                    "text_config.num_key_value_heads",
                )
            ),
            dtype="f16",
            seed=2,
        ),
        Checkpoint(
            "gqa5",
            shape_config("idefics3", (64, 128, 2, 1), small_image, (960, 1280, 2, 15, 3), 640),
            dtype="f16",
            seed=8,
        ),
        Checkpoint(
            "tied",
            shape_config(
                "idefics3", (64, 128, 2, 1), small_image, (128, 256, 2, 2, 1), 401, tied=True, eps=(1e-4, 1e-3)
            ),
            dtype="bf16",
            seed=8,
        ),
        Checkpoint(
            "frames",
            shape_config("idefics3", (128, 256, 2, 2), (96, 16, 2), (192, 512, 3, 3, 1), 448),
            max_shard_bytes=2_000_000,
            seed=12,
        ),
        Checkpoint(
            "narrow",
            shape_config(
                "idefics3", (32, 64, 2, 2), (32, 8, 2), (64, 96, 2, 4, 2), 384, head_dim=16, max_positions=64
            ),
            dtype="f16",
            seed=3,
        ),
        Checkpoint(
            "smolvlm_256m",
            shape_config("idefics3", (768, 3072, 12, 12), (512, 16, 4), (576, 1536, 30, 9, 3), 49280),
            dtype="bf16",
        ),
        Checkpoint(
            "smolvlm_500m",
            shape_config("idefics3", (768, 3072, 12, 12), (512, 16, 4), (960, 2560, 32, 15, 5), 49280),
            dtype="bf16",
        ),
        Checkpoint(
            "smolvlm_2b",
            shape_config(
                "idefics3",
                (1152, 4304, 27, 16),
                (384, 14, 3),
                (2048, 8192, 24, 32, 32),
                49155,
                tile_tokens=False,
                rope_theta=273768,
                max_positions=16384,
            ),
            dtype="bf16",
            tile_tokens=False,
        ),
    ]
    return {case.name: case for case in cases}


def main() -> None:
    """Writes one named checkpoint."""
    parser = argparse.ArgumentParser(description="writes a deterministic random checkpoint")
    parser.add_argument("name", nargs="?", choices=list(shapes()))
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--list", action="store_true", help="print the names and parameter counts")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--max-shard-mb", type=int, help="shard above this many 10^6 bytes")
    args = parser.parse_args()
    if args.list:
        for name, checkpoint in shapes().items():
            print(f"{name}: {sum(math.prod(shape) for _, shape in checkpoint.tensors()):,} parameters")
        return
    if args.name is None or args.out is None:
        parser.error("NAME and OUT are needed")
    changes = {"dtype": args.dtype, "seed": args.seed}
    changes["max_shard_bytes"] = args.max_shard_mb and args.max_shard_mb * 1_000_000
    checkpoint = replace(shapes()[args.name], **{key: value for key, value in changes.items() if value is not None})
    for file, digest in checkpoint.write(args.out).items():
        print(f"{digest}  {file}")


if __name__ == "__main__":
    main()

"""GGUF files as llama.cpp's converter names things, and what their blocks hold.

    python tools/reference/gguf_files.py model models/default /tmp/out F16 Q8_0    text and mmproj files of a directory
    python tools/reference/gguf_files.py again IN.gguf OUT.gguf F32                the same text model in another type
    python tools/reference/gguf_files.py blocks                                    writes tests/fixtures/gguf/blocks.json

Needs gguf 0.19.0 and numpy 2. Names, keys and the order of query and key rows are those of llama.cpp's
`convert_hf_to_gguf.py`; quantising and the values of blocks are the gguf package's.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, quants

FIXTURE = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "gguf" / "blocks.json"
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4

TEXT_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
VISION_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
OTHER_NAMES = {
    "model.text_model.embed_tokens": "token_embd",
    "model.text_model.norm": "output_norm",
    "lm_head": "output",
    "model.vision_model.embeddings.patch_embedding": "v.patch_embd",
    "model.vision_model.embeddings.position_embedding": "v.position_embd",
    "model.vision_model.post_layernorm": "v.post_ln",
    "model.connector.modality_projection.proj": "mm.model.fc",
}


def gguf_name(name: str) -> str:
    """The GGUF name of a published tensor."""
    stem, kind = name.rsplit(".", 1)
    for prefix, target, names in (
        ("model.text_model.layers.", "blk.", TEXT_NAMES),
        ("model.vision_model.encoder.layers.", "v.blk.", VISION_NAMES),
    ):
        if stem.startswith(prefix):
            layer, part = stem.removeprefix(prefix).split(".", 1)
            return f"{target}{layer}.{names[part]}.{kind}"
    return f"{OTHER_NAMES[stem]}.{kind}"


def read_safetensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of a directory as f32."""
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            raw = data[first:last]
            match entry["dtype"]:
                case "F32":
                    values = np.frombuffer(raw, "<f4")
                case "F16":
                    values = np.frombuffer(raw, "<f2").astype(np.float32)
                case "BF16":
                    values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
                case other:
                    raise SystemExit(f"{path}: {name} has dtype {other}")
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def paired_rows(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in the converter's order: the values that rotary positions turn together side by side."""
    n, width = rows.shape
    return rows.reshape(heads, 2, n // heads // 2, width).swapaxes(1, 2).reshape(n, width)


def add(writer: GGUFWriter, name: str, values: np.ndarray, wanted: Type) -> None:
    """Adds a tensor: vectors, patches and positions in F32, rows that fill no block in F16."""
    kind = wanted
    if values.ndim == 1 or "norm" in name or name.startswith(("v.patch_embd", "v.position_embd")):
        kind = Type.F32
    elif values.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
        kind = Type.F16
    data = quants.quantize(np.ascontiguousarray(values, np.float32), kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def finish(writer: GGUFWriter) -> None:
    """Writes the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_json(directory: Path, name: str) -> dict:
    """A JSON file of a model directory; empty if there is none."""
    path = directory / name
    return json.loads(path.read_text()) if path.exists() else {}


def add_vocabulary(writer: GGUFWriter, directory: Path) -> None:
    """Tokens, merges, special tokens and chat template."""
    tokenizer = read_json(directory, "tokenizer.json")
    added = {entry["id"]: entry for entry in tokenizer["added_tokens"]}
    by_id = {id: token for token, id in tokenizer["model"]["vocab"].items()} | {
        id: entry["content"] for id, entry in added.items()
    }
    tokens = [by_id[id] for id in range(len(by_id))]
    kinds = [NORMAL if id not in added else CONTROL if added[id]["special"] else USER_DEFINED for id in range(len(tokens))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    digits = "Digits" in json.dumps(tokenizer["pre_tokenizer"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if digits else "gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if merges:
        writer.add_token_merges(merges)
    generation = read_json(directory, "generation_config.json")
    writer.add_eos_token_id(generation["eos_token_id"])
    if "bos_token_id" in generation:
        writer.add_bos_token_id(generation["bos_token_id"])
    unknown = tokenizer["model"].get("unk_token")
    if unknown is not None:
        writer.add_unk_token_id(tokens.index(unknown))
    if generation.get("pad_token_id", len(tokens)) < len(tokens):
        writer.add_pad_token_id(generation["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(read_json(directory, "chat_template.json")["chat_template"])


def write_text(directory: Path, tensors: dict[str, np.ndarray], path: Path, kind: Type) -> None:
    """The text model of a directory."""
    text = read_json(directory, "config.json")["text_config"]
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    writer = GGUFWriter(path, "llama")
    writer.add_name(directory.name)
    writer.add_vocab_size(text["vocab_size"])
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(text["rope_theta"])
    writer.add_rope_dimension_count(text["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    add_vocabulary(writer, directory)
    for name, values in tensors.items():
        if "text_model" in name or name == "lm_head.weight":
            target = gguf_name(name)
            if ".attn_q." in target:
                values = paired_rows(values, heads)
            elif ".attn_k." in target:
                values = paired_rows(values, kv_heads)
            add(writer, target, values, kind)
    finish(writer)


def write_projector(directory: Path, tensors: dict[str, np.ndarray], path: Path, kind: Type) -> None:
    """The vision side of a directory."""
    config = read_json(directory, "config.json")
    vision = config["vision_config"]
    pictures = read_json(directory, "preprocessor_config.json")
    edge = pictures["size"]["longest_edge"] if pictures["do_image_splitting"] else vision["image_size"]
    writer = GGUFWriter(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("idefics3")
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(vision["layer_norm_eps"])
    writer.add_vision_image_mean(pictures["image_mean"])
    writer.add_vision_image_std(pictures["image_std"])
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_projector_scale_factor(config["scale_factor"])
    writer.add_uint32("clip.vision.preproc_image_size", edge)
    for name, values in tensors.items():
        if "vision_model" in name or "connector" in name:
            add(writer, gguf_name(name), values, kind)
    finish(writer)


def model(directory: Path, out: Path, kinds: list[str]) -> None:
    """Both files of a directory in each type."""
    tensors = read_safetensors(directory)
    out.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        write_text(directory, tensors, out / f"{directory.name}-{kind}.gguf", Type[kind])
        write_projector(directory, tensors, out / f"mmproj-{directory.name}-{kind}.gguf", Type[kind])


def again(source: Path, path: Path, kind: Type) -> None:
    """The same keys and tensors, every matrix turned to f32 and to another type."""
    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(path, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        add(writer, tensor.name, values.reshape(tensor.shape[::-1]), kind)
    finish(writer)


def blocks() -> None:
    """Random blocks of every type and their values, floats as the bits of an f32."""
    random = np.random.default_rng(6)
    # Where in a block its half-precision scales are: random bits there may be no number.
    scales = {
        "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
        "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "F16": [0],
    }  # fmt: skip
    fixture = {}
    for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"):
        kind = Type[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        n = 3 if elements > 1 else 32
        data = random.integers(0, 256, (n, size), np.uint8)
        for offset in scales.get(name, []):
            data[:, offset : offset + 2] = random.normal(0, 0.1, (n, 1)).astype("<f2").view(np.uint8)
        if name in ("F32", "BF16"):
            values = random.normal(0, 3, (n, 1)).astype("<f4")
            data = quants.quantize(values, kind).view(np.uint8)
        values = quants.dequantize(np.ascontiguousarray(data).reshape(-1) if elements > 1 else data.reshape(-1).view(
            {"F32": np.float32, "F16": np.float16, "BF16": np.uint8}[name]), kind)
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
        fixture[name] = {"bytes": data.tobytes().hex(), "values": [int(value) for value in bits]}
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in fixture.items())
    FIXTURE.write_text("{\n" + lines + "\n}\n")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("model")
    verb.add_argument("directory", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("kinds", nargs="+", metavar="TYPE")
    verb = verbs.add_parser("again")
    verb.add_argument("source", type=Path)
    verb.add_argument("path", type=Path)
    verb.add_argument("kind", metavar="TYPE")
    verbs.add_parser("blocks")
    args = parser.parse_args()
    match args.verb:
        case "model":
            model(args.directory, args.out, args.kinds)
        case "again":
            again(args.source, args.path, Type[args.kind])
        case "blocks":
            blocks()


if __name__ == "__main__":
    main()

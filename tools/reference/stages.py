"""Stage fixtures: what transformers computes, stage by stage, on the random checkpoints of `checkpoint.py`.

    python tools/reference/stages.py                    writes every tests/fixtures/stages/NAME.json
    python tools/reference/stages.py tiny frames        only these
    python tools/reference/stages.py --check            writes nothing, fails if a committed fixture differs

For each case the checkpoint directory is written to a temporary folder, run by transformers in f32 with
eager attention, and again by `smolvlm.py`; the two must agree. The fixture keeps transformers' numbers.
Fields are described in tests/fixtures/README.md. Needs the packages of requirements.txt.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

import smolvlm
from checkpoint import Checkpoint, shapes

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "stages"
N_TOKENS = 8
# smolvlm.py against transformers, relative to the standard deviation of the stage.
# Observed at most 2e-5; erf instead of tanh in GELU moves the image features by 5e-4.
AGREEMENT = 5e-5


# Prompts


@dataclass(frozen=True)
class Image:
    """A picture in a prompt: rows x cols image tiles before the global view, or the global view alone."""

    rows: int = 0
    cols: int = 0

    @property
    def frames(self) -> int:
        """Number of S x S frames, the global view last."""
        return self.rows * self.cols + 1

    def text(self, image_tokens: int) -> str:
        """The text `<image>` expands to."""
        images = "<image>" * image_tokens
        tiles = ""
        for row in range(1, self.rows + 1):
            for col in range(1, self.cols + 1):
                tiles += f"<fake_token_around_image><row_{row}_col_{col}>{images}"
            tiles += "\n"
        if tiles:
            tiles += "\n"
        return f"{tiles}<fake_token_around_image><global-img>{images}<fake_token_around_image>"


@dataclass(frozen=True)
class Case:
    """One fixture: a checkpoint and a chat of (role, parts), a part being text or an image."""

    name: str
    checkpoint: Checkpoint
    chat: tuple[tuple[str, tuple[str | Image, ...]], ...]

    @property
    def images(self) -> list[Image]:
        """The pictures in order."""
        return [part for _, parts in self.chat for part in parts if isinstance(part, Image)]

    def prompt(self, image_tokens: int) -> str:
        """The chat template and the image expansion, written out by hand."""
        text = "<|im_start|>"
        for role, parts in self.chat:
            text += role.capitalize() + (":" if isinstance(parts[0], Image) else ": ")
            text += "".join(part.text(image_tokens) if isinstance(part, Image) else part for part in parts)
            text += "<end_of_utterance>\n"
        return text + "Assistant:"


def cases() -> list[Case]:
    """Every fixture."""
    named = shapes()
    one_image = (("user", (Image(), "Can you describe this image?")),)
    two_turns = (
        ("system", ("You look at pictures.",)),
        ("user", (Image(2, 2), "What is there?")),
        ("assistant", ("12 bright squares.",)),
        ("user", ("Is this the same? ", Image())),
    )
    return [
        Case("tiny", named["tiny"], one_image),
        Case("smolvlm_256m_cut", named["smolvlm_256m_cut"], one_image),
        Case("smolvlm_2b_patch_rule", named["smolvlm_2b_patch_rule"], one_image),
        Case("smolvlm2_2b_cut", named["smolvlm2_2b_cut"], one_image),
        Case("smolvlm2_omitted_keys", named["smolvlm2_omitted_keys"], one_image),
        Case("gqa5", named["gqa5"], (("user", (Image(1, 3), "Can you describe the picture?")),)),
        Case("tied", named["tied"], (("user", ("What is this? ", Image())),)),
        Case("frames", named["frames"], two_turns),
        Case("narrow", named["narrow"], (("user", (Image(1, 1), "What is this?")),)),
        Case("text_only", replace(named["tiny"], dtype="bf16", seed=8), (("user", ("What is the answer to 42?",)),)),
    ]


def frame_pixels(size: int, frame: int) -> np.ndarray:
    """u8 pixels [size, size, 3] of a frame by number, the golden pictures' formula shifted by the frame:
    R = (7x + 3y + 29f) mod 256, G = (255x div (S-1) + 53f) mod 256,
    B = (c + 17f) mod 256, c = 255 where (x div 16 + y div 16) is odd, else 255y div (S-1)."""
    y, x = np.mgrid[:size, :size]
    checker = np.where((x // 16 + y // 16) % 2 == 1, 255, 255 * y // (size - 1))
    rgb = [7 * x + 3 * y + 29 * frame, 255 * x // (size - 1) + 53 * frame, checker + 17 * frame]
    return (np.stack(rgb, axis=-1) % 256).astype(np.uint8)


def pixel_values(size: int, frames: int) -> torch.Tensor:
    """[F, 3, S, S]: u8/127.5 - 1 in f32."""
    pixels = np.stack([frame_pixels(size, frame) for frame in range(frames)]).transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(127.5) - np.float32(1))


# Running


def run_transformers(directory: Path, model_type: str, ids: torch.Tensor, pixels: torch.Tensor | None):
    """Stages, greedy tokens and their logits from transformers in f32."""
    kind = "SmolVLM" if model_type == "smolvlm" else "Idefics3"
    cls = getattr(transformers, f"{kind}ForConditionalGeneration")
    model = cls.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    stages, hooks = {}, []

    def record(name: str, module: torch.nn.Module, of_input: bool = False) -> None:
        def hook(_module, args, output=None):
            value = args[0] if of_input else output
            value = getattr(value, "last_hidden_state", value)
            stages[name] = (value[0] if isinstance(value, tuple) else value).detach().clone()

        hooks.append(module.register_forward_pre_hook(hook) if of_input else module.register_forward_hook(hook))

    vision, text = model.model.vision_model, model.model.text_model
    record("patch_embedding", vision.embeddings)
    for i, layer in enumerate(vision.encoder.layers):
        record(f"vision_layer_{i}", layer)
    record("post_layernorm", vision.post_layernorm)
    record("pixel_shuffle", model.model.connector.modality_projection, of_input=True)
    record("image_features", model.model.connector)
    record("input_embeddings", text.layers[0], of_input=True)
    for i, layer in enumerate(text.layers):
        record(f"decoder_layer_{i}", layer)
    record("norm", text.norm)

    with torch.no_grad():
        inputs = {} if pixels is None else {"pixel_values": pixels[None]}
        out = model(input_ids=ids[None], use_cache=True, **inputs)
        for hook in hooks:
            hook.remove()
        rows = [out.logits[0, -1]]
        tokens = [int(rows[-1].argmax())]
        while len(tokens) < N_TOKENS:
            step = torch.tensor([tokens[-1:]])
            out = model(input_ids=step, past_key_values=out.past_key_values, use_cache=True)
            rows.append(out.logits[0, -1])
            tokens.append(int(rows[-1].argmax()))
    for name in ("input_embeddings", "norm", *(f"decoder_layer_{i}" for i in range(len(text.layers)))):
        stages[name] = stages[name][0]
    if "image_features" in stages:
        stages["image_features"] = stages["image_features"].flatten(0, 1)
    stages["logits"] = rows[0]
    return stages, tokens, rows


def compare(ours: dict, theirs: dict, our_rows: list, their_rows: list) -> dict[str, float]:
    """Largest absolute difference of each stage, relative to its standard deviation."""
    assert ours.keys() == theirs.keys(), (sorted(ours), sorted(theirs))
    pairs = {name: (ours[name], theirs[name]) for name in theirs}
    pairs["continuation"] = (torch.stack(our_rows), torch.stack(their_rows))
    result = {}
    for name, (a, b) in pairs.items():
        assert a.shape == b.shape, (name, a.shape, b.shape)
        result[name] = float((a - b).abs().max() / b.std())
    return result


# Writing


def number(value: float) -> float:
    """An f32 with the nine digits that give it back."""
    return float(f"{float(value):.9g}")


def samples(flat: np.ndarray, count: int) -> list[list]:
    """[[flat index, value]..]: the first, the last and others spread by a fixed stride."""
    n = len(flat)
    indices = {0, n - 1} | {(k * 2654435761 + 97) % n for k in range(count - 2)}
    return [[i, number(flat[i])] for i in sorted(indices)]


def summary(x: torch.Tensor, count: int) -> dict:
    """Shape, mean and standard deviation over all values (f64) and exact samples."""
    flat = x.numpy().astype(np.float64).ravel()
    moments = {"mean": number(flat.mean()), "std": number(flat.std())}
    return {"shape": list(x.shape)} | moments | {"samples": samples(flat, count)}


def logits_summary(row: torch.Tensor, count: int) -> dict:
    """All logits of a small vocabulary, else the 32 largest as [id, value] and exact samples."""
    values = row.numpy()
    whole = len(values) <= 1024
    moments = {"mean": number(values.mean(dtype=np.float64)), "std": number(values.std(dtype=np.float64))}
    top = [[int(i), number(values[i])] for i in np.argsort(-values, kind="stable")[:32]]
    body = {"all": [number(v) for v in values]} if whole else {"top": top, "samples": samples(values, count)}
    return {"vocab": len(values)} | moments | body


def fixture(case: Case) -> dict:
    """Runs both implementations on a case and gathers the fixture."""
    checkpoint = case.checkpoint
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        hashes = checkpoint.write(directory)
        tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        config, weights = smolvlm.load(directory)
        prompt = case.prompt(config.image_tokens)
        input_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        n_frames = sum(image.frames for image in case.images)
        assert input_ids.count(config.image_token_id) == n_frames * config.image_tokens
        ids = torch.tensor(input_ids)
        pixels = pixel_values(config.image_size, n_frames) if n_frames else None
        theirs, tokens, rows = run_transformers(directory, checkpoint.config["model_type"], ids, pixels)
    stages = {}
    our_tokens, our_rows = smolvlm.Model(config, weights, stages).greedy(ids, pixels, N_TOKENS)
    differences = compare(stages, theirs, our_rows, rows)
    assert our_tokens == tokens, (our_tokens, tokens)
    assert max(differences.values()) < AGREEMENT, differences
    forbidden = {config.image_token_id, config.vocab - 1, 2}
    assert not forbidden & set(tokens), f"{case.name}: seed gives a stop or image token in {tokens}"

    logits = theirs.pop("logits")
    features = theirs.pop("image_features", None)
    out = {
        "name": case.name,
        "command": f"python tools/reference/stages.py {case.name}",
        "versions": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
        "checkpoint": {
            "dtype": checkpoint.dtype,
            "seed": checkpoint.seed,
            "max_shard_bytes": checkpoint.max_shard_bytes,
            "tile_tokens": checkpoint.tile_tokens,
        },
        **{file.removesuffix(".json"): content for file, content in checkpoint.small_files().items()},
        "sha256": hashes,
        "chat": [
            {"role": role, "content": [[part.rows, part.cols] if isinstance(part, Image) else part for part in parts]}
            for role, parts in case.chat
        ],
        "prompt": prompt,
        "input_ids": input_ids,
        "frames": n_frames,
        "frame_size": config.image_size,
        "stages": {name: summary(x, 24) for name, x in theirs.items()},
    }
    if features is not None:
        m = config.image_tokens
        out["image_features"] = summary(features, 96) | {
            "first_row": [number(v) for v in features[0][:256]],
            "last_row": [number(v) for v in features[-1][:256]],
            "frame_norms": [number(features[f * m : (f + 1) * m].double().norm()) for f in range(n_frames)],
        }
    out["logits"] = logits_summary(logits, 64)
    out["greedy"] = [
        {
            "token": token,
            "gap": number(float(row.topk(2).values[0] - row.topk(2).values[1])),
            "std": number(row.double().std(correction=0)),
            "top": [[int(i), number(v)] for v, i in zip(*row.topk(4), strict=True)],
        }
        for token, row in zip(tokens, rows, strict=True)
    ]
    worst = max(differences, key=differences.get)
    gaps = min(step["gap"] / step["std"] for step in out["greedy"])
    print(
        f"{case.name}: {len(input_ids)} ids, {n_frames} frames, logits std {out['logits']['std']:.3f}, "
        f"features std {out.get('image_features', {}).get('std', 0):.3f}, tokens {tokens}, "
        f"smallest gap {gaps:.3f} std, smolvlm.py differs by at most {differences[worst]:.1e} std ({worst}), "
        f"logits {differences['logits']:.1e}"
    )
    return out


def as_text(fixture: dict) -> str:
    """JSON with one line for each field of the first two levels."""

    def dump(value) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = []
    for key, value in fixture.items():
        if isinstance(value, dict) and key in ("stages", "image_features", "logits", "config"):
            inner = ",\n".join(f"  {dump(k)}: {dump(v)}" for k, v in value.items())
            lines.append(f"{dump(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f"{dump(key)}: {dump(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def same(committed, fresh, tolerance: float = 1e-4) -> bool:
    """Equal up to `tolerance` in numbers; versions are not compared."""
    if isinstance(committed, dict) and isinstance(fresh, dict):
        keys = committed.keys() - {"versions"}
        return keys == fresh.keys() - {"versions"} and all(same(committed[k], fresh[k]) for k in keys)
    if isinstance(committed, list) and isinstance(fresh, list):
        return len(committed) == len(fresh) and all(map(same, committed, fresh))
    if isinstance(committed, float) or isinstance(fresh, float):
        return abs(committed - fresh) <= tolerance * max(1.0, abs(committed))
    return committed == fresh


def main() -> None:
    """Writes or checks fixtures."""
    parser = argparse.ArgumentParser(description="writes the stage fixtures from transformers")
    parser.add_argument("names", nargs="*", help="cases; all when empty")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known = {case.name: case for case in cases()}
    if unknown := set(args.names) - known.keys():
        sys.exit(f"no case {sorted(unknown)}; there are {sorted(known)}")
    FIXTURES.mkdir(parents=True, exist_ok=True)
    stale = []
    for name in args.names or known:
        fresh = fixture(known[name])
        path = FIXTURES / f"{name}.json"
        if not args.check:
            path.write_text(as_text(fresh))
        elif not path.exists() or not same(json.loads(path.read_text()), json.loads(as_text(fresh))):
            stale.append(name)
    if stale:
        sys.exit(f"fixtures differ: {stale}")


if __name__ == "__main__":
    main()

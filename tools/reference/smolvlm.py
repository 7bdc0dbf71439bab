"""The simplest correct SmolVLM inference: plain f32 tensors, one function a stage.

    input ids, pixel values
      -> patch embedding -> vision layers -> post layernorm     (image hidden states)
      -> pixel shuffle -> modality projection                   (image features)
      -> inputs merger -> decoder layers -> norm -> head        (logits)

It covers Idefics3, SmolVLM and SmolVLM2 checkpoints (`model_type` idefics3 or smolvlm) in the Hugging
Face layout: `config.json` and safetensors, single or sharded, in f32, f16 or bf16. There is no batch
axis and no speed; read it to learn what every other implementation must compute. Needs torch and numpy.

    python tools/reference/smolvlm.py DIR --input-ids input_ids.npy --pixel-values pixel_values.npy \\
        --max-tokens 8 --dump-stages OUT

Letters in shapes: F frames (image tiles and global views), S pixels a side, P = S div patch_size
patches a side, N = P² patches, s scale factor, M = N/s² image tokens a frame, D vision width,
H hidden size, T tokens, V vocabulary.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Config:
    """The numbers of one checkpoint, defaults filled in."""

    image_size: int  # S
    patch_size: int
    vision_hidden: int  # D
    vision_intermediate: int
    vision_layers: int
    vision_heads: int
    layer_norm_eps: float
    scale_factor: int  # s
    image_token_id: int
    hidden: int  # H
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int  # V
    rms_norm_eps: float
    rope_theta: float
    tied: bool

    @property
    def patches(self) -> int:
        """P: patches a side. A remainder of the side is left unused (384 div 14 = 27: 6 pixels)."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        """M: image tokens a frame."""
        return (self.patches // self.scale_factor) ** 2

    @staticmethod
    def from_json(config: dict) -> "Config":
        """Reads `config.json`; keys that published checkpoints leave out get their defaults."""
        vision, text = config["vision_config"], config["text_config"]
        heads = text.get("num_attention_heads", 32)
        rope = text.get("rope_parameters") or {}
        return Config(
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            vision_hidden=vision["hidden_size"],
            vision_intermediate=vision.get("intermediate_size", 3072),
            vision_layers=vision.get("num_hidden_layers", 12),
            vision_heads=vision["num_attention_heads"],
            layer_norm_eps=vision.get("layer_norm_eps", 1e-6),
            scale_factor=config["scale_factor"],
            image_token_id=config["image_token_id"],
            hidden=text["hidden_size"],
            intermediate=text["intermediate_size"],
            layers=text["num_hidden_layers"],
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            vocab=text["vocab_size"],
            rms_norm_eps=text.get("rms_norm_eps", 1e-5),
            rope_theta=rope.get("rope_theta", text.get("rope_theta", 10000.0)),
            tied=config.get("tie_word_embeddings", False),
        )


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads one file: u64 little endian header length, JSON header, tensor bytes. Returns f32 tensors."""
    data = np.memmap(path, dtype=np.uint8, mode="c")
    length = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + length]))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        raw = torch.from_numpy(np.array(data[begin:end]))
        tensors[name] = raw.view(DTYPES[entry["dtype"]]).reshape(entry["shape"]).float()
    return tensors


def load(directory: Path) -> tuple[Config, dict[str, torch.Tensor]]:
    """Reads the configuration and every weight of a Hugging Face style directory."""
    config = Config.from_json(json.loads((directory / "config.json").read_text()))
    index = directory / "model.safetensors.index.json"
    files = (
        sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    )
    weights = {}
    for file in files:
        weights |= load_safetensors(directory / file)
    return config, weights


class Model:
    """A checkpoint and its stages. `stages`, if a dict, receives every intermediate tensor by name."""

    def __init__(self, config: Config, weights: dict[str, torch.Tensor], stages: dict | None = None):
        self.config, self.weights, self.stages = config, weights, stages

    def keep(self, stage: str, x: torch.Tensor) -> torch.Tensor:
        """Records `x` under `stage` when recording is on; returns `x`."""
        if self.stages is not None:
            self.stages[stage] = x
        return x

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """y = x·Wᵀ + b; x [.., k], W [n, k], b [n] if the checkpoint has one. Returns [.., n]."""
        y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def layer_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """y = (x - mean)/√(var + eps)·w + b along the last axis; var is the mean square deviation."""
        centred = x - x.mean(-1, keepdim=True)
        var = centred.pow(2).mean(-1, keepdim=True)
        normed = centred * torch.rsqrt(var + self.config.layer_norm_eps)
        return normed * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def rms_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """y = x/√(mean(x²) + eps)·w along the last axis."""
        mean_square = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.config.rms_norm_eps) * self.weights[f"{name}.weight"]

    # Vision encoder

    def patch_embedding(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """e[r·P + c] = W·patch(r, c) + b + position[r·P + c].

        A convolution with stride = kernel = patch size is a linear over the flattened patch
        [channel, row, column]. Position ids are the identity: row-major, no class token.
        pixel_values [F, 3, S, S] -> [F, N, D].
        """
        c, name = self.config, "model.vision_model.embeddings"
        size, side = c.patch_size, c.patches
        used = pixel_values[:, :, : side * size, : side * size]
        patches = used.reshape(-1, 3, side, size, side, size).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(-1, side * side, 3 * size * size)
        kernel = self.weights[f"{name}.patch_embedding.weight"].reshape(c.vision_hidden, -1)
        x = patches @ kernel.T + self.weights[f"{name}.patch_embedding.bias"]
        return self.keep("patch_embedding", x + self.weights[f"{name}.position_embedding.weight"])

    def vision_attention(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """softmax(q·kᵀ/√d)·v for each head of d = D/heads, every patch sees every patch; [F, N, D] -> [F, N, D]."""
        c = self.config
        head_dim = c.vision_hidden // c.vision_heads

        def heads(projection: str) -> torch.Tensor:
            y = self.linear(x, f"{name}.{projection}")
            return y.reshape(*y.shape[:2], c.vision_heads, head_dim).transpose(1, 2)  # [F, heads, N, d]

        q, k, v = heads("q_proj"), heads("k_proj"), heads("v_proj")
        attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(head_dim), dim=-1)
        mixed = (attention @ v).transpose(1, 2).reshape(x.shape)
        return self.linear(mixed, f"{name}.out_proj")

    def vision_layer(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """x += attention(norm1(x)); x += fc2(gelu(fc1(norm2(x)))), gelu in its tanh form
        0.5·z·(1 + tanh(√(2/π)·(z + 0.044715·z³))); [F, N, D] -> [F, N, D]."""
        name = f"model.vision_model.encoder.layers.{layer}"
        x = x + self.vision_attention(self.layer_norm(x, f"{name}.layer_norm1"), f"{name}.self_attn")
        z = self.linear(self.layer_norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        z = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        return self.keep(f"vision_layer_{layer}", x + self.linear(z, f"{name}.mlp.fc2"))

    def image_hidden_states(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The vision encoder with its final layer norm; [F, 3, S, S] -> [F, N, D]."""
        x = self.patch_embedding(pixel_values)
        for layer in range(self.config.vision_layers):
            x = self.vision_layer(x, layer)
        return self.keep("post_layernorm", self.layer_norm(x, "model.vision_model.post_layernorm"))

    # Connector

    def pixel_shuffle(self, x: torch.Tensor) -> torch.Tensor:
        """out[R·(P/s) + C][(dr·s + dc)·D + i] = x[(R·s + dr)·P + C·s + dc][i]; [F, N, D] -> [F, M, D·s²]."""
        side, s = self.config.patches, self.config.scale_factor
        x = x.reshape(-1, side // s, s, side // s, s, x.shape[-1])  # F, R, dr, C, dc, i
        x = x.permute(0, 1, 3, 2, 4, 5)  # F, R, C, dr, dc, i
        return self.keep("pixel_shuffle", x.reshape(x.shape[0], (side // s) ** 2, -1))

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encoder and connector, frame by frame; [F, 3, S, S] -> [F·M, H]."""
        x = self.pixel_shuffle(self.image_hidden_states(pixel_values))
        x = self.linear(x, "model.connector.modality_projection.proj")
        return self.keep("image_features", x.reshape(-1, x.shape[-1]))

    # Decoder

    def input_embeddings(self, input_ids: torch.Tensor, image_features: torch.Tensor | None) -> torch.Tensor:
        """Embedding rows; the k-th `<image>` id is replaced by the k-th image feature; [T] -> [T, H]."""
        x = self.weights["model.text_model.embed_tokens.weight"][input_ids]
        if image_features is not None:
            places = input_ids == self.config.image_token_id
            if int(places.sum()) != len(image_features):
                raise ValueError(f"{int(places.sum())} image tokens but {len(image_features)} image features")
            x[places] = image_features
        return self.keep("input_embeddings", x)

    def rope(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """Rotates the pair (i, i + d/2) of the row at position p by the angle p·theta^(-2i/d); [heads, T, d]."""
        d = self.config.head_dim
        frequencies = self.config.rope_theta ** -(torch.arange(0, d, 2, dtype=torch.float32) / d)
        positions = torch.arange(start, start + x.shape[1], dtype=torch.float32)
        angles = positions[:, None] * frequencies  # [T, d/2]
        cos, sin = angles.cos(), angles.sin()
        low, high = x[..., : d // 2], x[..., d // 2 :]
        return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)

    def attention(self, x: torch.Tensor, name: str, cache: list) -> torch.Tensor:
        """Causal attention over cached and new positions; kv head h serves q heads h·g .. h·g + g-1,
        g = heads/kv_heads. `cache` holds [k, v], each [kv_heads, positions, d], and grows by T; [T, H] -> [T, H]."""
        c = self.config
        tokens, start = len(x), cache[0].shape[1]

        def heads(projection: str, count: int) -> torch.Tensor:
            return self.linear(x, f"{name}.{projection}").reshape(tokens, count, c.head_dim).transpose(0, 1)

        q = self.rope(heads("q_proj", c.heads), start)
        cache[0] = torch.cat([cache[0], self.rope(heads("k_proj", c.kv_heads), start)], dim=1)
        cache[1] = torch.cat([cache[1], heads("v_proj", c.kv_heads)], dim=1)
        k, v = (t.repeat_interleave(c.heads // c.kv_heads, dim=0) for t in cache)
        scores = q @ k.transpose(-1, -2) / math.sqrt(c.head_dim)  # [heads, T, positions]
        future = torch.ones(tokens, start + tokens, dtype=torch.bool).triu(start + 1)
        attention = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
        mixed = (attention @ v).transpose(0, 1).reshape(tokens, -1)
        return self.linear(mixed, f"{name}.o_proj")

    def decoder_layer(self, x: torch.Tensor, layer: int, cache: list) -> torch.Tensor:
        """x += attention(norm1(x)); x += down(silu(gate(y))·up(y)), y = norm2(x), silu(z) = z/(1 + e⁻ᶻ);
        [T, H] -> [T, H]."""
        name = f"model.text_model.layers.{layer}"
        x = x + self.attention(self.rms_norm(x, f"{name}.input_layernorm"), f"{name}.self_attn", cache)
        y = self.rms_norm(x, f"{name}.post_attention_layernorm")
        gate, up = self.linear(y, f"{name}.mlp.gate_proj"), self.linear(y, f"{name}.mlp.up_proj")
        return self.keep(
            f"decoder_layer_{layer}", x + self.linear(gate * torch.sigmoid(gate) * up, f"{name}.mlp.down_proj")
        )

    def new_cache(self) -> list[list[torch.Tensor]]:
        """An empty KV cache: for each layer [k, v] of shape [kv_heads, 0, head_dim]."""
        empty = torch.empty(self.config.kv_heads, 0, self.config.head_dim)
        return [[empty, empty] for _ in range(self.config.layers)]

    def decode(self, x: torch.Tensor, caches: list) -> torch.Tensor:
        """All decoder layers, then the logits of the last row: norm(x[-1])·headᵀ; [T, H] -> [V].
        With tied embeddings the head is the embedding table."""
        for layer, cache in enumerate(caches):
            x = self.decoder_layer(x, layer, cache)
        x = self.keep("norm", self.rms_norm(x, "model.text_model.norm"))
        head = "model.text_model.embed_tokens.weight" if self.config.tied else "lm_head.weight"
        return self.keep("logits", x[-1] @ self.weights[head].T)

    @torch.no_grad()
    def greedy(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None, count: int
    ) -> tuple[list[int], list[torch.Tensor]]:
        """Prefill, then `count` tokens by largest logit, stop tokens ignored. Returns the tokens and the
        logits [V] each was chosen from; the first are the logits after prefill."""
        features = None if pixel_values is None else self.image_features(pixel_values)
        caches = self.new_cache()
        rows = [self.decode(self.input_embeddings(input_ids, features), caches)]
        self.stages = None
        tokens = [int(rows[-1].argmax())]
        while len(tokens) < count:
            rows.append(self.decode(self.input_embeddings(torch.tensor(tokens[-1:]), None), caches))
            tokens.append(int(rows[-1].argmax()))
        return tokens, rows


def main() -> None:
    """Runs one prompt and writes the stages under the names of `ocelli caption --dump-stages`."""
    parser = argparse.ArgumentParser(description="SmolVLM inference in plain f32 tensors")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--input-ids", type=Path, required=True, help="[T] integers, .npy")
    parser.add_argument("--pixel-values", type=Path, help="[F, 3, S, S] f32, .npy")
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--dump-stages", type=Path, help="folder for image_features.npy and logits.npy")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stages = {}
    model = Model(*load(args.directory), stages)
    input_ids = torch.from_numpy(np.load(args.input_ids).astype(np.int64)).flatten()
    pixel_values = (
        None if args.pixel_values is None else torch.from_numpy(np.load(args.pixel_values).astype(np.float32))
    )
    tokens, _ = model.greedy(input_ids, pixel_values, args.max_tokens)
    if args.dump_stages:
        args.dump_stages.mkdir(parents=True, exist_ok=True)
        for name in ["image_features", "logits"]:
            if name in stages:
                np.save(args.dump_stages / f"{name}.npy", stages[name].numpy())
    print(json.dumps({"token_ids": tokens}))


if __name__ == "__main__":
    main()

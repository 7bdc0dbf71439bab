"""The default model as lean torch: SigLIP-style tower, pixel shuffle, Llama decoder.

Parameter names equal those of Hugging Face's Idefics3ForConditionalGeneration,
so that a state dict is the exported model. Linear layers that share an input
are run as one product.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Shape:
    tile: int = 192
    patch: int = 16
    shuffle: int = 2
    vision_hidden: int = 192
    vision_layers: int = 6
    vision_ffn: int = 768
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 512
    vocab: int = 456
    rope_theta: float = 10000.0
    head_dim: int = 64

    @property
    def grid(self):
        return self.tile // self.patch

    @property
    def image_tokens(self):
        return (self.grid // self.shuffle) ** 2

    def as_dict(self):
        return asdict(self)


class Names(nn.Module):
    """A module that only names its children."""

    def __init__(self, **children):
        super().__init__()
        for k, v in children.items():
            setattr(self, k, v)


def attend(q, k, v, bias=None):
    """Attention written out: on CPUs its backward is several times faster than the fused one.

    q, k, v [b, heads, n, 64]; bias broadcastable to [b, heads, n, n] or None.
    """
    a = (q * q.shape[-1] ** -0.5) @ k.mT
    if bias is not None:
        a = a + bias
    return a.softmax(-1) @ v


def joint(x, *linears):
    """One product for several linear layers of the same input; returns their outputs."""
    w = torch.cat([m.weight for m in linears])
    b = torch.cat([m.bias for m in linears]) if linears[0].bias is not None else None
    return F.linear(x, w, b).split([m.weight.shape[0] for m in linears], -1)


class VisionLayer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        d = s.vision_hidden
        self.heads = d // s.head_dim
        self.self_attn = Names(k_proj=nn.Linear(d, d), v_proj=nn.Linear(d, d), q_proj=nn.Linear(d, d), out_proj=nn.Linear(d, d))
        self.layer_norm1 = nn.LayerNorm(d, eps=1e-6)
        self.mlp = Names(fc1=nn.Linear(d, s.vision_ffn), fc2=nn.Linear(s.vision_ffn, d))
        self.layer_norm2 = nn.LayerNorm(d, eps=1e-6)

    def forward(self, x):
        b, n, d = x.shape
        a = self.self_attn
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2)
                   for t in joint(self.layer_norm1(x), a.q_proj, a.k_proj, a.v_proj))
        x = x + a.out_proj(attend(q, k, v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.layer_norm2(x)), approximate="tanh"))


class Tower(nn.Module):
    """Pixels [b, 3, T, T] in -1..1 -> patch features [b, grid*grid, d]."""

    def __init__(self, s: Shape):
        super().__init__()
        d = s.vision_hidden
        self.patch = s.patch
        self.embeddings = Names(patch_embedding=nn.Conv2d(3, d, s.patch, s.patch), position_embedding=nn.Embedding(s.grid ** 2, d))
        self.encoder = Names(layers=nn.ModuleList(VisionLayer(s) for _ in range(s.vision_layers)))
        self.post_layernorm = nn.LayerNorm(d, eps=1e-6)

    def forward(self, pixels):
        b, c, t, _ = pixels.shape
        g, p = t // self.patch, self.patch
        e = self.embeddings
        rows = pixels.view(b, c, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(b, g * g, c * p * p)
        x = F.linear(rows, e.patch_embedding.weight.flatten(1), e.patch_embedding.bias) + e.position_embedding.weight
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), 1e-5)


def rotate(x, cos, sin):
    """Rotary embedding, halves rotated; x [b, heads, n, 64], cos/sin [b, 1, n, 64]."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class TextLayer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        d, q, kv = s.hidden, s.heads * s.head_dim, s.kv_heads * s.head_dim
        self.head_dim = s.head_dim
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.self_attn = Names(q_proj=lin(d, q), k_proj=lin(d, kv), v_proj=lin(d, kv), o_proj=lin(q, d))
        self.mlp = Names(gate_proj=lin(d, s.ffn), up_proj=lin(d, s.ffn), down_proj=lin(s.ffn, d))
        self.input_layernorm, self.post_attention_layernorm = Norm(d), Norm(d)

    def forward(self, x, cos, sin, bias):
        b, n, _ = x.shape
        a, m = self.self_attn, self.mlp
        q, k, v = (t.view(b, n, -1, self.head_dim).transpose(1, 2)
                   for t in joint(self.input_layernorm(x), a.q_proj, a.k_proj, a.v_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        r = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(r, 1), v.repeat_interleave(r, 1)
        o = attend(q, k, v, bias)
        x = x + a.o_proj(o.transpose(1, 2).reshape(b, n, -1))
        g, u = joint(self.post_attention_layernorm(x), m.gate_proj, m.up_proj)
        return x + m.down_proj(F.silu(g) * u)


class Ocelli(nn.Module):
    """The whole model; `see` makes image tokens, `say` makes hidden states."""

    def __init__(self, s: Shape):
        super().__init__()
        self.shape = s
        connector = Names(modality_projection=Names(proj=nn.Linear(s.vision_hidden * s.shuffle ** 2, s.hidden, bias=False)))
        text = Names(embed_tokens=nn.Embedding(s.vocab, s.hidden), layers=nn.ModuleList(TextLayer(s) for _ in range(s.layers)),
                     norm=Norm(s.hidden))
        self.model = Names(vision_model=Tower(s), connector=connector, text_model=text)
        self.lm_head = nn.Linear(s.hidden, s.vocab, bias=False)
        self.reset()

    @torch.no_grad()
    def reset(self):
        """Weights to start from: residual branches silent, keys equal to queries in the tower, positions as waves."""
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=0.7 * p[0].numel() ** -0.5)
                if name.endswith(("out_proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight")):
                    nn.init.zeros_(p)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        nn.init.normal_(self.model.text_model.embed_tokens.weight, std=0.3)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        v = self.model.vision_model
        for layer in v.encoder.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
        g, d = self.shape.grid, self.shape.vision_hidden
        y, x = (t.reshape(-1, 1).float() for t in torch.meshgrid(torch.arange(g), torch.arange(g), indexing="ij"))
        f = torch.pi / g * torch.linspace(0, 1, d // 4).mul(2.5).exp()
        v.embeddings.position_embedding.weight.copy_(0.3 * torch.cat(((x * f).sin(), (x * f).cos(), (y * f).sin(), (y * f).cos()), -1))

    @torch.no_grad()
    def reset_patches(self, pixels):
        """Patch filters as low cosines of brightness and two colour differences, each scaled by what `pixels` [b, 3, T, T] hold of it."""
        p, e = self.shape.patch, self.model.vision_model.embeddings.patch_embedding
        n = torch.arange(p).float()
        wave = (torch.pi / p * (n[None] + 0.5) * n[:, None]).cos()
        wave = wave / wave.norm(dim=1, keepdim=True)
        order = sorted(((u, v) for u in range(p) for v in range(p)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
        mixes = [torch.tensor([1.0, 1, 1]) / 3 ** 0.5, torch.tensor([1.0, 0, -1]) / 2 ** 0.5, torch.tensor([1.0, -2, 1]) / 6 ** 0.5]
        half = e.weight.shape[0] // 2
        plan = [(0, i) for i in range(half)] + [(1 + i % 2, i // 2) for i in range(e.weight.shape[0] - half)]
        w = torch.stack([mixes[c][:, None, None] * wave[order[i][0]][None, :, None] * wave[order[i][1]][None, None, :] for c, i in plan])
        std = F.conv2d(pixels, w, stride=p).std((0, 2, 3))
        e.weight.copy_(w * (0.5 / (std + 0.15))[:, None, None, None] + 0.003 * torch.randn_like(w))

    def shuffle(self, x):
        """Pixel shuffle: [b, g*g, d] -> [b, (g/s)^2, s*s*d], inner order row, column, channel."""
        b, _, d = x.shape
        g, s = self.shape.grid, self.shape.shuffle
        x = x.view(b, g // s, s, g // s, s, d).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(b, (g // s) ** 2, s * s * d)

    def see(self, pixels):
        """Pixels -> (patch features [b, g*g, d], image tokens [b, S, hidden])."""
        features = self.model.vision_model(pixels)
        return features, self.model.connector.modality_projection.proj(self.shuffle(features))

    def say(self, image, tokens, positions, bias, first):
        """Last hidden state [b, n, hidden], ready for `lm_head`.

        image [b, S, hidden]; tokens, positions [b, n]; bias [b, 1, n, n], 0 where seen, very low elsewhere;
        `first` is the place of the first <image> token, the same in every row.
        """
        t = self.model.text_model
        x = t.embed_tokens(tokens).to(image.dtype)
        x = torch.cat((x[:, :first], image, x[:, first + image.shape[1]:]), 1)
        inv = 1.0 / self.shape.rope_theta ** (torch.arange(0, self.shape.head_dim, 2) / self.shape.head_dim)
        angle = positions[..., None].float() * inv
        angle = torch.cat((angle, angle), -1)[:, None]
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for layer in t.layers:
            x = layer(x, cos, sin, bias)
        return t.norm(x)


def packed_bias(segment, dtype=torch.bfloat16):
    """Block mask of packed turns, [b, 1, n, n], from segments [b, n]: a turn sees the prefix and itself."""
    s = segment.long()
    n = s.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    same = (s[:, :, None] == s[:, None, :]) | (s[:, None, :] == 0)
    return torch.zeros(same.shape, dtype=dtype).masked_fill(~(same & causal), -30000.0)[:, None]


class Heads(nn.Module):
    """What the patches show: linear heads for training only, thrown away afterwards."""

    def __init__(self, s: Shape, classes, orders):
        super().__init__()
        self.classes, self.orders = classes, orders
        self.patch = nn.Linear(s.vision_hidden, classes + orders + 1)
        self.token = nn.Linear(s.hidden, s.shuffle ** 2 * (classes + orders))

    def forward(self, features, image):
        """-> (class [b,g*g,C], order [b,g*g,R], centre [b,g*g]), (class [b,S,s*s,C], order [b,S,s*s,R])."""
        a, b, c = self.patch(features).split([self.classes, self.orders, 1], -1)
        t = self.token(image).unflatten(-1, (-1, self.classes + self.orders))
        return (a, b, c[..., 0]), t.split([self.classes, self.orders], -1)

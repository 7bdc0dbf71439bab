"""Backgrounds: uint8 pictures [h, w, 3] without objects, one function a kind.

`TRAIN` and `HELD` name disjoint sets of kinds: what a held-out picture stands
on was never seen in training.
"""

import numpy as np
from PIL import Image, ImageDraw


def colour(rng, low=0, high=255):
    """A random colour, now and then nearly grey, as float [3]."""
    c = rng.uniform(low, high, 3)
    return c * 0.25 + c.mean() * 0.75 if rng.random() < 0.35 else c


def near(rng, c, spread=40):
    """A colour near `c`."""
    return np.clip(c + rng.uniform(-spread, spread, 3), 0, 255)


def smooth(rng, w, h, cells):
    """Smooth noise in 0..1 of about `cells` bumps across, float [h, w]."""
    g = rng.integers(0, 256, (max(2, cells * h // w), max(2, cells)), dtype=np.uint8)
    return np.asarray(Image.fromarray(g).resize((w, h), Image.BICUBIC), np.float32) / 255


def mix(t, a, b):
    """Colours `a` to `b` by t [h, w] -> uint8 [h, w, 3]."""
    return (a + t[..., None] * (b - a)).clip(0, 255).astype(np.uint8)


def grid(w, h):
    """x, y in 0..1, each float [h, w]."""
    return np.meshgrid(np.linspace(0, 1, w, dtype=np.float32), np.linspace(0, 1, h, dtype=np.float32))


def flat(rng, w, h):
    return mix(np.zeros((h, w), np.float32), colour(rng), colour(rng))


def gradient(rng, w, h):
    x, y = grid(w, h)
    a = rng.uniform(0, 2 * np.pi)
    t = x * np.cos(a) + y * np.sin(a)
    return mix((t - t.min()) / np.ptp(t), colour(rng), colour(rng))


def blotches(rng, w, h):
    t = smooth(rng, w, h, int(rng.choice([3, 5, 9, 16])))
    c = colour(rng)
    return mix(t, c, near(rng, c, 120))


def mottled(rng, w, h):
    """Several scales of noise with colour: grass, gravel, carpet."""
    c = colour(rng, 30, 220)
    out = np.tile(c.astype(np.float32), (h, w, 1))
    for cells, amount in ((4, 40), (14, 30), (45, 30)):
        out += (smooth(rng, w, h, cells) - 0.5)[..., None] * rng.uniform(-amount, amount, 3) * 2
    return out.clip(0, 255).astype(np.uint8)


def shapes(rng, w, h):
    """Clutter: many flat boxes, discs and lines."""
    im = Image.fromarray(gradient(rng, w, h))
    d = ImageDraw.Draw(im)
    base = colour(rng)
    spread = rng.choice([30, 70, 140])
    for _ in range(int(rng.integers(5, 28))):
        x, y = rng.uniform(-0.1, 1) * w, rng.uniform(-0.1, 1) * h
        s, t = rng.uniform(0.03, 0.4) * w, rng.uniform(0.03, 0.4) * h
        c = tuple(int(v) for v in near(rng, base, spread))
        k = rng.random()
        if k < 0.5:
            d.rectangle((x, y, x + s, y + t), fill=c)
        elif k < 0.75:
            d.ellipse((x, y, x + s, y + s), fill=c)
        else:
            d.line((x, y, x + s * 2 - w * 0.3, y + t * 2 - h * 0.3), fill=c, width=max(1, int(w * rng.uniform(0.004, 0.03))))
    return np.asarray(im)


def room(rng, w, h):
    """A wall above a floor or table, each with its own noise."""
    a, b = mottled(rng, w, h), blotches(rng, w, h)
    x, y = grid(w, h)
    edge = rng.uniform(0.3, 0.8) + (x - 0.5) * rng.uniform(-0.15, 0.15)
    return np.where((y > edge)[..., None], a, b)


def stripes(rng, w, h):
    x, y = grid(w, h)
    a = rng.uniform(0, np.pi)
    t = np.sin((x * np.cos(a) + y * np.sin(a)) * rng.uniform(15, 70))
    c = colour(rng)
    t = (t > 0).astype(np.float32) if rng.random() < 0.5 else (t + 1) / 2
    return mix(t, c, near(rng, c, 90))


def checks(rng, w, h):
    x, y = grid(w, h)
    n = rng.uniform(3, 16)
    c = colour(rng)
    return mix(((x * n).astype(int) + (y * n).astype(int)) % 2 * np.float32(1), c, near(rng, c, 90))


def cells(rng, w, h):
    """Flat irregular cells around random points (stones, patchwork)."""
    n = int(rng.integers(6, 40))
    x, y = grid(w // 4 + 1, h // 4 + 1)
    px, py = rng.random(n), rng.random(n)
    who = ((x[..., None] - px) ** 2 + (y[..., None] - py) ** 2).argmin(-1)
    base = colour(rng)
    table = np.stack([near(rng, base, 70) for _ in range(n)]).astype(np.uint8)
    return np.asarray(Image.fromarray(table[who]).resize((w, h), Image.BILINEAR))


def bricks(rng, w, h):
    x, y = grid(w, h)
    n = rng.uniform(5, 14)
    row = np.floor(y * n)
    u = x * n / 2 + (row % 2) * 0.5
    joint = ((u % 1) < 0.06) | ((y * n % 1) < 0.12)
    c = colour(rng, 40, 220)
    tint = np.sin(np.floor(u) * 12.9 + row * 78.2) * 0.5 + 0.5
    out = mix(tint.astype(np.float32), c, near(rng, c, 50))
    out[joint] = near(rng, c, 90).astype(np.uint8)
    return out


def wood(rng, w, h):
    x, y = grid(w, h)
    t = np.sin((y * rng.uniform(6, 20) + smooth(rng, w, h, 5) * rng.uniform(1, 4)) * 2 * np.pi) * 0.5 + 0.5
    c = near(rng, np.array([150.0, 105.0, 65.0]), 50)
    return mix(t, c, near(rng, c, 45))


def waves(rng, w, h):
    """Sums of sines in each colour channel (water, plasma)."""
    x, y = grid(w, h)
    out = np.empty((h, w, 3), np.float32)
    mean = colour(rng, 40, 215)
    for k in range(3):
        fx, fy, p, q = rng.uniform(2, 14, 4)
        out[..., k] = mean[k] + rng.uniform(10, 45) * (np.sin(x * fx * 3 + p) + np.sin((x + y) * fy * 2 + q))
    return out.clip(0, 255).astype(np.uint8)


TRAIN = [flat, gradient, blotches, mottled, shapes, shapes, room, room, stripes, checks]
HELD = [cells, bricks, wood, waves]


def make(rng, w, h, held=False):
    """A background of a random kind, uint8 [h, w, 3]; `rng` is a numpy Generator."""
    kinds = HELD if held else TRAIN
    return np.ascontiguousarray(kinds[rng.integers(len(kinds))](rng, w, h))

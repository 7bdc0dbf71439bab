"""The held-out pictures and questions, made from a seed.

Nothing in them was met in training: other font families, other kinds of
background, other strangers, words from another list, and wherever two or more
kinds stand together, a pair that training never joins. They are rendered as
camera frames of 640x480 and the like, and go through the published preprocessing.
"""

import random

import numpy as np
from PIL import Image

import backgrounds
import language
import render

SIZES = [(640, 480), (640, 480), (800, 600), (640, 360), (480, 640), (480, 480)]


class Maker:
    """Renders held-out pictures; the same seed gives the same pictures."""

    def __init__(self, seed=2026):
        self.rng, self.nrng = random.Random(seed), np.random.default_rng(seed)
        self.grain = {}

    def picture(self, kind, size=None, lines=None):
        """A held-out `render.Picture`, kind "scene" or "sign"."""
        size = size or self.rng.choice(SIZES)
        if size not in self.grain:
            self.grain[size] = render.Grain(self.nrng, *size, count=4)
        ground = backgrounds.make(self.nrng, *size, held=True)
        if kind == "sign":
            p = render.sign(self.rng, self.nrng, size, size, ground, held=True, lines=lines)
        else:
            p = render.scene(self.rng, self.nrng, size, size, ground, held=True)
        p.image = render.shoot(self.rng, self.nrng, p.image, self.grain[size], 1.8)
        return p

    def questions(self, p):
        """List of (kind, question, answer) about a picture."""
        rng = self.rng
        if p.lines:
            absent = rng.choice(language.NAMES)
            return [("read", rng.choice(language.ASK_READ), " " + "\n".join(p.lines)),
                    ("yes_no", language.fill(rng.choice(language.ASK_THERE), absent), language.yes_no(False))]
        out = [("caption", rng.choice(language.ASK_CAPTION), language.caption(p.counts))]
        present = list(p.counts)
        alike = [n for g in language.ALIKE for n in sorted(g) if g & set(present) and n not in present]
        absent = [n for n in language.NAMES if n not in present]
        for name in ([rng.choice(present)] if present else []) + [rng.choice(alike if alike and rng.random() < 0.5 else absent)]:
            out.append(("yes_no", language.fill(rng.choice(language.ASK_THERE), name), language.yes_no(name in p.counts)))
        if present:
            name = rng.choice(present) if rng.random() < 0.9 else rng.choice(absent)
            out.append(("count", language.fill(rng.choice(language.ASK_COUNT), name), language.count_answer(p.counts.get(name, 0))))
        return out


def make(scenes=240, signs=180, seed=2026):
    """Yields (number, Picture, questions); scenes and signs are mixed evenly."""
    maker = Maker(seed)
    total = scenes + signs
    for i in range(total):
        kind = "sign" if (i + 1) * signs // total > i * signs // total else "scene"
        p = maker.picture(kind)
        yield i, p, maker.questions(p)


def preprocess(image, tile):
    """The published preprocessing without splitting: PIL image -> uint8 [tile, tile, 3].

    Longest edge to `tile` (the other one truncated, plus one if odd), then squashed to the
    square; Lanczos with rounding to uint8 after each step.
    """
    image = image.convert("RGB")
    w, h = image.size
    aspect = w / h
    if w >= h:
        w2, h2 = tile, int(tile / aspect)
        h2 += h2 % 2
    else:
        w2, h2 = int(tile * aspect), tile
        w2 += w2 % 2
    image = image.resize((max(1, w2), max(1, h2)), Image.LANCZOS).resize((tile, tile), Image.LANCZOS)
    return np.asarray(image)

"""Pictures that know what they show: scenes of emoji and printed signs.

A picture is rendered on a canvas of any size that stands for a virtual camera
frame, so that training can draw at tile size what the preprocessing would make
of a 4:3 or 16:9 frame, and evaluation can draw the frame itself.
"""

import glob
import os
import random
import string
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import backgrounds
import language

PATCH = 16
FONT_ROOT = os.environ.get("OCELLI_FONTS", "/usr/share/fonts")
FRAMES = [(640, 480), (640, 480), (640, 360), (480, 480), (480, 640), (800, 600)]

CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits + ".,:-/%$€#&!?+"
CHAR_INDEX = {c: i for i, c in enumerate(CHARACTERS)}
OBJECT_CLASS = 1
CHAR_CLASS = OBJECT_CLASS + len(language.NAMES)
CLASSES = CHAR_CLASS + len(CHARACTERS)
ORDERS = 32
SHADOW = [v * 2 // 5 for v in range(256)]

# whole families are kept apart, so that a held-out face has no sibling in training
HELD_FAMILIES = ("OpenSans", "Caladea", "Cabin", "Inconsolata")
FAMILIES = HELD_FAMILIES + (
    "DejaVuSans", "DejaVuSerif", "FreeSans", "FreeSerif", "FreeMono", "Lato", "Liberation", "Roboto", "Cantarell", "Carlito",
    "Quicksand", "EBGaramond", "JetBrainsMono", "Comfortaa", "Dosis", "Play", "Vollkorn", "Hack")
TOO_THIN = ("Thin", "Hairline", "ExtraLight", "Math", "CondLight")

WORDS_TRAIN = """exit total gate open stop price ticket train room floor menu coffee water sale name date order table street
danger push left right north hello world paris london berlin tokyo bus park school hotel airport police fire milk bread sugar
tea juice beer pizza fresh new hot cold free shop market bank post city road lane bridge river lake garden house door window
light power switch level speed limit slow fast start end begin caution wet paint keep clear private staff only please wait
here press button call help test unit box lot part serial model type size made in out off on low high full empty mixed paper
glass metal plastic sun moon star green blue red black white silver gold king queen club radio video photo music book news
zone area block line track platform bay dock cargo ship fish meat rice salt oil gas fuel pump car taxi van truck bike""".split()
WORDS_HELD = """closed cash pull south noon office library station harbor camera storage battery warning voltage honey
lemon orange tomato butter cheese museum theatre castle island forest summer winter monday friday engine filter handle""".split()


@dataclass
class Picture:
    """A rendered picture and its truth.

    `image` uint8 [h, w, 3]; `counts` kind -> count; `lines` the printed lines;
    `crowded`: a page or a crowd, too much for a caption, there for its patch labels;
    `classes`, `order`, `centre` uint8 [h/16, w/16]: class of the patch (0 background),
    1-based place of its character in reading order, whether an object's middle lies in it.
    """
    image: np.ndarray
    counts: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)
    classes: np.ndarray = None
    order: np.ndarray = None
    centre: np.ndarray = None
    crowded: bool = False


# ---- sprites and fonts -------------------------------------------------------------------

@lru_cache
def emoji_font():
    return ImageFont.truetype(glob.glob(FONT_ROOT + "/**/NotoColorEmoji.ttf", recursive=True)[0], 109)


@lru_cache(None)
def sprite(emoji, turn, mirrored):
    """The emoji turned by `turn` degrees, cropped, RGBA of about 130 px."""
    im = Image.new("RGBA", (220, 220), (0, 0, 0, 0))
    ImageDraw.Draw(im).text((40, 45), emoji, font=emoji_font(), embedded_color=True)
    im = im.convert("RGBa").rotate(turn, Image.BICUBIC).convert("RGBA")
    if mirrored:
        im = im.transpose(Image.FLIP_LEFT_RIGHT)
    return im.crop(im.getbbox())


@lru_cache
def faces(held):
    """Font files of the training or the held-out families, sorted."""
    found = []
    for f in glob.glob(FONT_ROOT + "/**/*.[to]tf", recursive=True):
        base = os.path.basename(f)
        if base.startswith(FAMILIES) and not any(t in base for t in TOO_THIN):
            if base.startswith(HELD_FAMILIES) == held:
                found.append(f)
    return sorted(found)


@lru_cache(None)
def face(path, size):
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


# ---- scenes ------------------------------------------------------------------------------

def pick_kinds(rng, n, held):
    """`n` different kinds; training never joins a held-out pair, held-out pictures always contain one."""
    for _ in range(200):
        names = rng.sample(language.NAMES, n)
        if rng.random() < 0.3 and n > 1:
            group = sorted(rng.choice(language.ALIKE) - {names[0]})
            names[1] = rng.choice(group)
            if len(set(names)) < n:
                continue
        pairs = [language.held_pair(a, b) for i, a in enumerate(names) for b in names[:i]]
        if n == 1 or any(pairs) == held:
            return names
    return names[:1]


def plan_crowd(rng):
    """Six to eleven objects, no two kinds of a held-out pair among them."""
    names = []
    for name in rng.sample(language.NAMES, 30):
        if len(names) < 9 and not any(language.held_pair(name, n) for n in names):
            names.append(name)
    names += rng.choices(names, k=rng.randint(0, 2))
    return [(n, rng.choice(language.KINDS[n].split())) for n in names[rng.randint(0, 2):]]


def plan_scene(rng, held, ease):
    """What to show: list of (kind or None for a stranger, emoji)."""
    k = rng.random()
    n = 0 if k < 0.02 else 1 if k < 0.36 + 0.2 * ease else 2 if k < 0.78 else 3
    names = pick_kinds(rng, n, held) if n else []
    items = []
    for name in names:
        most = 5 if n == 1 else 4 if n == 2 else 2
        c = 1 if rng.random() < (0.5 if n < 3 else 0.75) else rng.randint(2, most)
        variants = language.KINDS[name].split()
        one = rng.choice(variants)
        items += [(name, one if rng.random() < 0.7 else rng.choice(variants)) for _ in range(c)]
    if rng.random() < 0.2 * (1 - ease):
        strangers = language.STRANGERS_HELD if held else language.STRANGERS_TRAIN
        items += [(None, rng.choice(strangers)) for _ in range(rng.randint(1, 2))]
    return items


def scene(rng, nrng, canvas, frame, background, held=False, ease=0.0, crowded=False):
    """A scene on `background` (uint8 [h, w, 3] of size canvas=(w, h)) that stands for a frame of size `frame`."""
    W, H = canvas
    sx, sy = W / frame[0], H / frame[1]
    unit = (frame[0] * frame[1]) ** 0.5
    items = plan_crowd(rng) if crowded else plan_scene(rng, held, ease)
    low, high = {0: (0.3, 0.7), 1: (0.3, 0.8), 2: (0.25, 0.5), 3: (0.2, 0.42), 4: (0.19, 0.36)}.get(len(items), (0.18, 0.30))
    low = low + (high - low) * 0.4 * ease
    base = rng.uniform(low, high) * unit
    im = Image.fromarray(background)
    labels = np.zeros((H // PATCH, W // PATCH), np.uint8)
    centre = np.zeros_like(labels)
    cover = np.zeros(labels.shape, np.int16)
    boxes, counts = [], {}
    rng.shuffle(items)
    for name, emoji in items:
        s = sprite(emoji, rng.choice((-24, -16, -10, -5, 0, 0, 5, 10, 16, 24)), rng.random() < 0.5)
        for attempt in range(25):
            size = base * rng.uniform(0.82, 1.2) * (1 if attempt < 10 else 0.8)
            scale = size / max(s.size)
            w = max(8, round(s.width * scale * sx * rng.uniform(0.92, 1.08)))
            h = max(8, round(s.height * scale * sy * rng.uniform(0.92, 1.08)))
            if w >= W or h >= H:
                base *= 0.9
                continue
            x, y = rng.randint(0, W - w), rng.randint(0, H - h)
            mx, my = 0.08 * w, 0.08 * h
            if all(x + w - mx <= b[0] or b[2] <= x + mx or y + h - my <= b[1] or b[3] <= y + my for b in boxes):
                break
        else:
            continue
        small = s.resize((w, h), Image.BILINEAR, reducing_gap=None)
        if rng.random() < 0.3:
            im.paste((0, 0, 0), (x + max(1, w // 16), y + max(1, h // 16)), small.getchannel("A").point(SHADOW))
        im.paste(small, (x, y), small)
        boxes.append((x, y, x + w, y + h))
        mask = Image.new("L", (W, H))
        mask.paste(small.getchannel("A"), (x, y))
        part = np.asarray(mask.reduce(PATCH), np.int16)[:labels.shape[0], :labels.shape[1]]
        won = (part > 50) & (part >= cover)
        cover[won] = part[won]
        labels[won] = OBJECT_CLASS + language.INDEX[name] if name else 0
        if name:
            counts[name] = counts.get(name, 0) + 1
            centre[min(labels.shape[0] - 1, (y + h // 2) // PATCH), min(labels.shape[1] - 1, (x + w // 2) // PATCH)] = 1
    return Picture(np.asarray(im), counts, [], labels, np.zeros_like(labels), centre, crowded)


# ---- signs -------------------------------------------------------------------------------

def cased(rng, word):
    return rng.choice((word.upper(), word.upper(), word.capitalize(), word.lower()))


def one_line(rng, held, longest):
    """A printed line of at most `longest` characters: word, number, price, code, date or two words."""
    words = WORDS_HELD if held else WORDS_TRAIN
    for _ in range(40):
        k = rng.random()
        if k < 0.28:
            s = cased(rng, rng.choice(words))
        elif k < 0.40:
            s = cased(rng, "".join(rng.choice("bcdfghjklmnprstvwz" if i % 2 else "aeiou") if rng.random() < 0.85
                                   else rng.choice(string.ascii_lowercase) for i in range(rng.randint(2, longest))))
        elif k < 0.52:
            s = str(rng.randint(0, 10 ** rng.randint(1, min(6, longest)) - 1))
        elif k < 0.64:
            s = rng.choice(("", "", "$", "€")) + f"{rng.randint(0, 10 ** rng.randint(1, 3) - 1)}.{rng.randint(0, 99):02d}"
        elif k < 0.82:
            s = "".join(rng.choice(string.ascii_uppercase + string.digits) for _ in range(rng.randint(1, longest)))
        elif k < 0.87:
            s = rng.choice((f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}", f"{rng.randint(1, 31)}/{rng.randint(1, 12)}",
                            f"{rng.randint(1, 31):02d}.{rng.randint(1, 12):02d}.{rng.randint(2000, 2030)}"))
        elif k < 0.91:
            s = "".join(rng.choice(string.ascii_letters) for _ in range(rng.randint(2, max(2, longest - 1)))) + rng.choice(("", "!", "?", ":", ","))
        elif k < 0.96:
            s = cased(rng, rng.choice(words)) + " " + str(rng.randint(0, 99))
        else:
            s = rng.choice((f"{rng.randint(0, 100)}%", f"#{rng.randint(0, 999)}", f"A-{rng.randint(0, 99)}", f"{rng.randint(1, 9)}+{rng.randint(1, 9)}",
                            f"{rng.choice(string.ascii_uppercase)}&{rng.choice(string.ascii_uppercase)}"))
        if 0 < len(s) <= longest:
            return s
    return s[:longest].strip() or "A"


def sign(rng, nrng, canvas, frame, background, held=False, ease=0.0, crowded=False, lines=None):
    """Printed lines on `background` or on a plate before it; arguments as in `scene`."""
    W, H = canvas
    sx, sy = W / frame[0], H / frame[1]
    unit = (frame[0] * frame[1]) ** 0.5
    if lines is None:
        longest = max(2, round(10 - 7 * ease))
        n = rng.randint(4, 7) if crowded else 1 if rng.random() < 0.68 + 0.3 * ease else rng.choice((2, 2, 3)) if ease < 0.1 else 2
        lines = [one_line(rng, held, longest) for _ in range(n)]
        if crowded:
            lines = [(s + " " + one_line(rng, held, 10) + one_line(rng, held, 10))[:rng.randint(8, 11)].strip() for s in lines]
    font = face(rng.choice(faces(held)), 64 if W <= 256 else 160)
    ascent, descent = font.getmetrics()
    masks = []
    for s in lines:
        width = int(font.getlength(s)) + 24
        m = Image.new("L", (width, ascent + descent + 16))
        ImageDraw.Draw(m).text((8, 8), s, font=font, fill=255)
        masks.append((m, [8 + font.getlength(s[:i]) for i in range(len(s) + 1)], m.getbbox() or (0, 0, *m.size)))
    ink = max(b[2] - b[0] for _, _, b in masks)
    # size so that a character is about one patch wide or more
    pitch = ink / max(len(s) for s in lines)
    wish = rng.uniform(13 + 9 * ease, 30 + 6 * ease) / 192 * unit / pitch
    stretch = rng.uniform(0.85, 1.2)
    scale = min(wish, 0.94 * frame[0] / (ink * stretch), 0.88 * frame[1] / (len(lines) * (ascent + descent) * 0.95))
    scale_x, scale_y = scale * sx * stretch, scale * sy
    leading = (ascent + descent) * scale_y * rng.uniform(0.85, 1.15)
    block_w, block_h = ink * scale_x, leading * (len(lines) - 1) + (ascent + descent) * scale_y
    x0 = rng.uniform(2, max(2.5, W - block_w - 2))
    y0 = rng.uniform(0, max(0.5, H - block_h))
    centred = rng.random() < 0.5

    image = background
    plate = rng.random() < 0.72
    dark = rng.random() < 0.35
    if plate:
        if rng.random() < 0.55:
            image = (background * 0 + (backgrounds.colour(nrng, 0, 90) if dark else backgrounds.colour(nrng, 165, 255))).astype(np.uint8)
        else:
            c = backgrounds.colour(nrng, 0, 90) if dark else backgrounds.colour(nrng, 165, 255)
            im = Image.fromarray(background)
            pad_x, pad_y = rng.uniform(0.02, 0.12) * W, rng.uniform(0.0, 0.08) * H
            ImageDraw.Draw(im).rectangle((x0 - pad_x, y0 - pad_y, x0 + block_w + pad_x, y0 + block_h + pad_y), fill=tuple(int(v) for v in c))
            image = np.asarray(im)
    if crowded:
        leading = max(leading, min((ascent + descent) * scale_y * 1.4, (H - 4) / n))
        block_h = leading * (n - 1) + (ascent + descent) * scale_y
        y0 = rng.uniform(0, max(0.5, H - block_h))
    mask = Image.new("L", (W, H))
    spots, place = [], 0
    for i, (s, (m, stops, box)) in enumerate(zip(lines, masks)):
        crop = m.crop((box[0], 0, box[2], m.height))
        w, h = max(2, round(crop.width * scale_x)), max(4, round(crop.height * scale_y))
        lx = x0 + ((block_w - w) / 2 if centred else 0)
        ly = y0 + i * leading - 8 * scale_y
        small = crop.resize((w, h), Image.BOX if scale_x < 0.4 else Image.BILINEAR)
        mask.paste(small, (round(lx), round(ly)), small)
        top, bottom = ly + box[1] * scale_y, ly + box[3] * scale_y
        for j, c in enumerate(s):
            if c != " ":
                place += 1
                spots.append((c, place, lx + (stops[j] - box[0]) * scale_x, top, lx + (stops[j + 1] - box[0]) * scale_x, bottom))
    # the tilt and shear of a hand-held camera, about the middle of the picture
    a, b = (rng.uniform(-0.06, 0.06), rng.uniform(-0.1, 0.1)) if rng.random() < 0.45 * (1 - ease) else (0.0, 0.0)
    if a or b:
        cx, cy = x0 + block_w / 2, y0 + block_h / 2
        # only the part of the mask that can hold ink after the move
        gx, gy = abs(b) * block_h + 4, abs(a) * block_w + 4
        l, t = max(0, int(x0 - gx)), max(0, int(y0 - gy))
        r, u = min(W, int(x0 + block_w + gx) + 1), min(H, int(y0 + block_h + gy) + 1)
        moved = mask.transform((r - l, u - t), Image.AFFINE, (1, b, l + b * (t - cy), a, 1, t + a * (l - cx)), Image.BILINEAR)
        mask = Image.new("L", (W, H))
        mask.paste(moved, (l, t))
        det = 1 - a * b
        def move(x, y):
            u, v = x + b * cy, y + a * cx
            return (u - b * v) / det, (v - a * u) / det
    else:
        def move(x, y):
            return x, y

    m = np.asarray(mask, np.float32)[..., None] / 255
    ys, xs = np.nonzero(m[..., 0] > 0.5)
    under = image[ys, xs].mean() if len(ys) else image.mean()
    for _ in range(12):
        ink_colour = backgrounds.colour(nrng, 0, 255)
        if abs(ink_colour.mean() - under) > 95:
            break
    else:
        ink_colour = np.array([15.0] * 3 if under > 127 else [240.0] * 3)
    out = (image + m * (ink_colour - image)).clip(0, 255).astype(np.uint8)

    gh, gw = H // PATCH, W // PATCH
    labels, order = np.zeros((gh, gw), np.uint8), np.zeros((gh, gw), np.uint8)
    best = np.zeros((gh, gw))
    for c, number, l, t, r, btm in spots:
        mx, my = (l + r) / 2, (t + btm) / 2
        dx, dy = move(mx, my)
        l, r, t, btm = l + dx - mx, r + dx - mx, t + dy - my, btm + dy - my
        for gy in range(max(0, int(t // PATCH)), min(gh, int(btm // PATCH) + 1)):
            oy = min(btm, gy * PATCH + PATCH) - max(t, gy * PATCH)
            if oy < 6 and oy < (btm - t) * 0.5:
                continue
            for gx in range(max(0, int(l // PATCH)), min(gw, int(r // PATCH) + 1)):
                ox = min(r, gx * PATCH + PATCH) - max(l, gx * PATCH)
                if ox > min(6, (r - l) * 0.45) and ox * oy > best[gy, gx]:
                    best[gy, gx] = ox * oy
                    labels[gy, gx] = CHAR_CLASS + CHAR_INDEX[c]
                    order[gy, gx] = min(number, ORDERS - 1)
    return Picture(out, {}, lines, labels, order, np.zeros_like(labels), crowded)


# ---- light and camera --------------------------------------------------------------------

class Grain:
    """A pool of noise fields, so that noise costs an addition and not a draw."""

    def __init__(self, nrng, w, h, count=12):
        self.fields = nrng.normal(0, 1, (count, h + 64, w + 64, 3)).astype(np.float32)
        self.fields[::2] = self.fields[::2].mean(-1, keepdims=True) * 1.5
        self.h, self.w = h, w

    def take(self, rng):
        f = self.fields[rng.randrange(len(self.fields))]
        y, x = rng.randrange(64), rng.randrange(64)
        return f[y:y + self.h, x:x + self.w]


def shoot(rng, nrng, image, grain, strength=1.0):
    """Light, colour cast, blur and noise of a camera: uint8 [h, w, 3] -> uint8 [h, w, 3]."""
    h, w, _ = image.shape
    if rng.random() < 0.3:
        image = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.95) * min(w, h) / 192)))
    gain = rng.uniform(0.5, 1.3) * np.array([rng.uniform(0.88, 1.12) for _ in range(3)], np.float32)
    out = image * gain.astype(np.float32)
    if rng.random() < 0.4:
        a, b = rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35)
        ramp = 1 + a * np.linspace(-1, 1, w, dtype=np.float32)[None, :, None] + b * np.linspace(-1, 1, h, dtype=np.float32)[:, None, None]
        out *= ramp
    out += rng.uniform(-15, 15)
    sigma = strength * (rng.uniform(0, 4) if rng.random() < 0.6 else rng.uniform(4, 14))
    out += grain.take(rng) * np.float32(sigma)
    return out.clip(0, 255).astype(np.uint8)


class Studio:
    """Renders training pictures at tile size from a slowly renewed pool of backgrounds."""

    def __init__(self, seed, tile=192, pool=400):
        self.rng, self.nrng, self.tile = random.Random(seed), np.random.default_rng(seed), tile
        self.grain = Grain(self.nrng, tile, tile)
        self.pool = [self._background() for _ in range(pool)]

    def _background(self):
        return backgrounds.make(self.nrng, self.tile, self.tile)

    def _ground(self):
        rng = self.rng
        i = rng.randrange(len(self.pool))
        if rng.random() < 0.12:
            self.pool[i] = self._background()
        b = self.pool[i]
        if rng.random() < 0.5:
            b = b[:, ::-1]
        if rng.random() < 0.5:
            b = b[::-1]
        if rng.random() < 0.5:
            b = b[..., [2, 0, 1]]
        if rng.random() < 0.3:
            b = 255 - b
        return np.ascontiguousarray(b)

    def picture(self, read_share=0.4, ease=0.0, crowd_share=0.0, sign_ease=None):
        """One training picture; `ease` 1 is the easiest, 0 the full difficulty; pages are 2.5 times the `crowd_share` of the signs."""
        rng, size = self.rng, (self.tile, self.tile)
        make = sign if rng.random() < read_share else scene
        if make is sign:
            crowd_share = min(1.0, 2.5 * crowd_share)
            ease = ease if sign_ease is None else sign_ease
        e = ease * rng.random() ** 0.5
        p = make(rng, self.nrng, size, rng.choice(FRAMES), self._ground(), False, e, rng.random() < crowd_share)
        p.image = shoot(rng, self.nrng, p.image, self.grain, 1 - 0.5 * e)
        return p


def sheet(path, held=False, columns=6, rows=5, ease=0.0, seed=1):
    """Saves a sheet of sample pictures to look at; prints their truth."""
    st = Studio(seed)
    t = st.tile
    out = Image.new("RGB", (columns * t, rows * t))
    for i in range(columns * rows):
        p = st.picture(0.5, ease, 0.4)
        out.paste(Image.fromarray(p.image), (i % columns * t, i // columns * t))
        print(i // columns, i % columns, p.lines or language.caption(p.counts))
    out.save(path)
    return st


if __name__ == "__main__":
    import sys
    import time
    st = sheet(sys.argv[1], ease=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    print(len(faces(False)), "training faces,", len(faces(True)), "held-out faces,", CLASSES, "classes")
    for share in (0.0, 1.0):
        t0 = time.time()
        for _ in range(300):
            st.picture(share)
        print("signs" if share else "scenes", round((time.time() - t0) / 0.3, 2), "ms a picture")

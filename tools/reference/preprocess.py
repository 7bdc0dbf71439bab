"""Writes the fixtures for preprocessing, tokenizing and prompt building.

    python tools/reference/preprocess.py                  # writes tests/fixtures/preprocess
    python tools/reference/preprocess.py --model DIR      # prompts with DIR's own files, to stdout

Needs transformers, tokenizers, pillow and numpy; torch only because transformers asks for it. The
versions that wrote the committed files stand in their `made_with`.

Expected values come from the published image processor and processor classes of transformers with
Pillow as backend (`Idefics3ImageProcessorPil`). The default backend of newer transformers resizes
with torchvision, whose Lanczos differs from Pillow's by a few levels; the models were trained with
Pillow's. Pillow itself changed in release 13: it now takes the height first when that shrinks much
more than the width. Fixtures follow release 13, so an earlier one does not reproduce them. All pictures come from integer formulas, all chats and the training text of the two small
tokenizers are written below, so that nothing of a third party is in the fixtures.
"""

import argparse
import hashlib
import io
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import PIL
import tokenizers
import transformers
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from tokenizers.trainers import BpeTrainer
from transformers import Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The chat template that all published models of the family share (in other words).
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

MADE_WITH = {
    "transformers": transformers.__version__,
    "pillow": PIL.__version__,
    "tokenizers": tokenizers.__version__,
    "numpy": np.__version__,
}


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


# Pictures


def gradient(width, height):
    """Smooth and stepped gradients with a checkerboard in blue."""
    y, x = np.mgrid[0:height, 0:width]
    blue = np.where((x // 16 + y // 16) % 2 == 1, 255, 255 * y // max(height - 1, 1))
    planes = [(7 * x + 3 * y) % 256, 255 * x // max(width - 1, 1), blue]
    return np.stack(planes, axis=-1).astype(np.uint8)


def noise(width, height):
    """Every value far from its neighbours, half of them at an end of the range."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    v = (x * 2654435761 + y * 2246822519 + c * 3266489917) & 0xFFFFFFFF
    v = ((v ^ (v >> 15)) * 2654435761) & 0xFFFFFFFF
    v = v >> 16
    return np.where(v & 0x100 == 0, v & 0xFF, np.where(v & 0x200 == 0, 0, 255)).astype(np.uint8)


FORMULAS = {"gradient": gradient, "noise": noise}


# Resizing


def resize_cases():
    sizes = [
        ((1, 1), (7, 5)), ((7, 5), (1, 1)), ((2, 3), (3, 2)), ((1, 500), (4, 2048)),
        ((513, 511), (512, 512)), ((512, 512), (513, 511)), ((40, 30), (40, 61)),
        ((40, 30), (81, 30)), ((40, 30), (40, 30)), ((40, 30), (13, 30)), ((40, 30), (40, 7)),
        ((100, 2000), (51, 999)), ((2000, 100), (1024, 52)), ((33, 17), (640, 330)),
        ((257, 255), (64, 64)), ((64, 64), (257, 255)), ((3, 1000), (1000, 3)), ((5, 4), (4, 5)),
        ((127, 129), (126, 130)), ((9, 8), (72, 64)), ((72, 64), (9, 8)), ((31, 7), (8, 29)),
        ((1, 2), (2, 1)), ((2, 2), (300, 300)), ((300, 300), (2, 2)), ((24, 9), (25, 8)),
    ]
    for formula, make in FORMULAS.items():
        for size, new_size in sizes:
            resized = Image.fromarray(make(*size)).resize(new_size, Image.Resampling.LANCZOS)
            yield {
                "formula": formula, "size": size, "new_size": new_size,
                "input_sha256": sha256(make(*size)), "sha256": sha256(np.array(resized)),
            }


# Image tiles


def image_processor(tile, longest_edge, split, **more):
    return Idefics3ImageProcessorPil(
        size={"longest_edge": longest_edge}, max_image_size={"longest_edge": tile},
        do_image_splitting=split, resample=1, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        rescale_factor=1 / 255, return_row_col_info=True, **more,
    )


def frames(processor, picture):
    """Runs the processor twice: as published, and stopped before rescaling."""
    picture = Image.fromarray(picture)
    whole = processor(picture, return_tensors="np")
    raw = processor(picture, return_tensors="np", do_rescale=False, do_normalize=False)
    u8 = raw["pixel_values"][0]
    assert u8.dtype == np.uint8, u8.dtype
    values = whole["pixel_values"][0]
    assert values.dtype == np.float32, values.dtype
    return {
        "rows": int(whole["rows"][0][0]), "cols": int(whole["cols"][0][0]), "n_frames": len(u8),
        "u8_sha256": sha256(u8), "pixel_values_sha256": sha256(values),
    }


def tile_cases():
    small = [(1, 1), (1, 500), (500, 1), (513, 511), (640, 480), (100, 2000), (2000, 100),
             (33, 17), (480, 640), (3, 2), (257, 256), (256, 257), (1920, 1080)]
    plan = [(64, 256, size, split) for size in small for split in (True, False)]
    # A longest edge that is no multiple of the tile, one below it, and one equal to it.
    plan += [(96, 300, size, True) for size in small]
    plan += [(96, 90, (640, 480), True), (96, 96, (640, 480), True), (96, 96, (100, 2000), True)]
    # The published sizes.
    plan += [(512, 2048, size, True) for size in [(513, 511), (1, 500), (640, 480)]]
    plan += [(512, 2048, (640, 480), False)]
    plan += [(384, 1536, size, True) for size in [(513, 511), (100, 2000), (33, 17)]]
    # The first resize stops at 4096, whatever the longest edge.
    plan += [(512, 4608, (97, 11), True), (512, 4608, (11, 97), True)]
    for tile, longest_edge, size, split in plan:
        processor = image_processor(tile, longest_edge, split)
        yield {
            "tile_size": tile, "longest_edge": longest_edge, "do_image_splitting": split,
            "size": size, **frames(processor, gradient(*size)),
        }


def max_tiles_cases():
    """`max_tiles` is a rule of this project: the largest lower longest edge, a multiple of the tile
    size and at least two tiles, whose grid fits; otherwise the global view alone."""
    tile, longest_edge = 64, 256
    for size in [(640, 480), (480, 640), (513, 511), (100, 2000), (1920, 1080), (50, 50)]:
        picture = gradient(*size)
        for max_tiles in [0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 15, 16, 100]:
            edges = [longest_edge] + [n * tile for n in range(longest_edge // tile - 1, 1, -1)]
            for edge in edges if max_tiles else []:
                made = frames(image_processor(tile, edge, True), picture)
                if made["rows"] * made["cols"] <= max_tiles:
                    break
            else:
                made = frames(image_processor(tile, longest_edge, False), picture)
            yield {"tile_size": tile, "longest_edge": longest_edge, "size": size,
                   "max_tiles": max_tiles, **made}


def pixel_value_cases():
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=-1)
    settings = [
        ([0.5] * 3, [0.5] * 3, 1 / 255),
        ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711], 1 / 255),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0.00392156862745098),
        ([0.0, 0.25, 1.0], [1.0, 2.0, 0.1], 1 / 127.5),
    ]
    for mean, std, factor in settings:
        processor = image_processor(256, 256, False)
        chw = np.moveaxis(ramp, -1, 0)
        values = processor.normalize(processor.rescale(chw, factor), mean, std)
        assert values.dtype == np.float32 and values.shape == (3, 1, 256)
        yield {"mean": mean, "std": std, "rescale_factor": factor, "sha256": sha256(values)}


# Picture files


def png(width, height, depth, colour, rows, extra=b""):
    """A PNG from raw rows, for kinds that Pillow does not write."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = b"".join(b"\0" + row for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
            + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b""))


def file_cases():
    """Picture files with the RGB values Pillow reads from them.

    `max_difference` is how far a decoder may be off: 0 where the format leaves no freedom."""
    width, height = 11, 6
    rgb = gradient(width, height)
    # Gentle enough for JPEG's coarse colours to be compared closely.
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([60 + 10 * x, 200 - 12 * y, 90 + 5 * x + 5 * y], axis=-1).astype(np.uint8)
    alpha = np.dstack([rgb, (gradient(width, height)[..., 1])])

    def saved(picture, kind, **options):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    def exif(orientation):
        tags = Image.Exif()
        tags[0x0112] = orientation
        return tags

    image, soft = Image.fromarray(rgb), Image.fromarray(smooth)
    files = {
        "rgb.png": (saved(image, "PNG"), 0),
        "rgb.bmp": (saved(image, "BMP"), 0),
        "rgb.tiff": (saved(image, "TIFF"), 0),
        "rgb_lzw.tiff": (saved(image, "TIFF", compression="tiff_lzw"), 0),
        "rgb.ppm": (saved(image, "PPM"), 0),
        "rgb_lossless.webp": (saved(image, "WEBP", lossless=True), 0),
        "rgba.png": (saved(Image.fromarray(alpha), "PNG"), 0),
        "rgba_lossless.webp": (saved(Image.fromarray(alpha), "WEBP", lossless=True, exact=True), 0),
        "grey.png": (saved(image.convert("L"), "PNG"), 0),
        "grey_alpha.png": (saved(Image.fromarray(alpha).convert("LA"), "PNG"), 0),
        "black_and_white.png": (saved(image.convert("1"), "PNG"), 0),
        "palette.png": (saved(image.quantize(13), "PNG"), 0),
        "palette_transparent.png": (saved(image.quantize(13), "PNG", transparency=3), 0),
        "grey_4_bit.png": (png(2, 2, 4, 0, [b"\x1f", b"\x80"]), 0),
        "palette.gif": (saved(image.quantize(13), "GIF"), 0),
        "animated.gif": (saved(image.quantize(13), "GIF", save_all=True,
                               append_images=[soft.quantize(13)], duration=50), 0),
        "animated.webp": (saved(image, "WEBP", save_all=True, lossless=True,
                                append_images=[soft], duration=50), 0),
        "soft.jpg": (saved(soft, "JPEG", quality=97, subsampling=0), 3),
        "progressive.jpg": (saved(soft, "JPEG", quality=97, subsampling=0, progressive=True), 3),
        "chroma_420.jpg": (saved(soft, "JPEG", quality=97, subsampling=2), 16),
        "grey.jpg": (saved(soft.convert("L"), "JPEG", quality=97), 3),
        "cmyk.jpg": (saved(soft.convert("CMYK"), "JPEG", quality=97), 4),
        "soft.webp": (saved(soft, "WEBP", quality=97), 12),
    }
    for orientation in range(1, 9):
        name = f"orientation_{orientation}.jpg"
        files[name] = (saved(soft, "JPEG", quality=97, subsampling=0, exif=exif(orientation)), 3)
    files["orientation_6.png"] = (saved(image, "PNG", exif=exif(6)), 0)
    files["orientation_8.webp"] = (saved(image, "WEBP", lossless=True, exif=exif(8)), 0)
    for name, (data, difference) in files.items():
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        yield {"name": name, "hex": data.hex(), "width": picture.width, "height": picture.height,
               "rgb_hex": np.array(picture.convert("RGB")).tobytes().hex(),
               "max_difference": difference}

    # 16 bits a channel: the high byte. Pillow agrees for colour, but cuts greys off at 255.
    deep = (np.arange(width * height * 3, dtype=np.uint32) * 331 % 65536).astype(">u2")
    deep = deep.reshape(height, width, 3)
    data = png(width, height, 16, 2, [row.tobytes() for row in deep])
    assert (np.array(Image.open(io.BytesIO(data))) == deep >> 8).all()
    grey = png(width, height, 16, 0, [row.tobytes() for row in deep[..., 0]])
    for name, data, high in [("rgb_16_bit.png", data, deep >> 8),
                             ("grey_16_bit.png", grey, (deep >> 8)[..., :1].repeat(3, axis=-1))]:
        yield {"name": name, "hex": data.hex(), "width": width, "height": height,
               "rgb_hex": high.astype(np.uint8).tobytes().hex(), "max_difference": 0}


# Tokenizers and prompts

FIRST_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>",
    "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>",
    "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>",
    "<empty_output>",
]
# As in the 49280-token files, with fewer reserved tokens.
LAST_TOKENS = (
    ["<global-img>"] + [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    + ["<fake_token_around_image>", "<image>"]
    + [f"<|reserved_special_token_{n}|>" for n in range(3)] + ["<end_of_utterance>"]
)
# As in the first 2.2B model: no tokens for rows, columns and the global view.
LAST_TOKENS_V1 = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]

TRAINING_TEXT = [
    "User: Can you describe this image?\nAssistant: A red cup stands on the table.\n\n",
    "System: You answer in one sentence.\n\nUser: What is in the picture?\n\n",
    "The door is open. Two boxes are in front of the door, one of them is open.\n\n",
    "Is there a person in the image? There is a person next to the blue car.\n\n",
    "Read the text on the sign: STOP 42, 7 of 9, row 1, col 12.\n\nThe sign reads: EXIT\n",
    "User: And now?\nAssistant: The same image, a little later; nothing has changed.\n\n",
    "  def count(items):\n    return len(items)  # counts\n\t\tprint('done')\n\n\n",
    "Üben, naïve café, größer; 東京 東京, привет привет, 🙂🙂 → ✓\n",
]

TEXTS = [
    "", "Hello world", " leading and trailing ", "two  spaces   three", "tab\tand\nnewline\n\n\nend",
    "digits 0 12 345 67890", "don't we'll it's I'm", "Üben naïve café", "東京タワー", "🙂👩‍👩‍👧‍👦 →✓",
    "code: x[i] = {a: 1};", "<row_1_col_1>", "<global-img>", "<image>", "a<image>b",
    "<end_of_utterance>\n", "\n<fake_token_around_image><global-img><image><image>", "<|im_start|>User:",
    "\u0000\u0001\u007f", "e\u0301 combining", "<notatoken>", "1\n\n2", "\r\n", "\u00a0nbsp",
]

PICTURES = {"tall": (20, 90), "wide": (200, 60), "square": (64, 64), "photo": (64, 48)}

CHATS = {
    "one_image": [("user", ["@photo", "Can you describe this image?"])],
    "text_only": [("user", ["What is a picture?"])],
    "text_before_image": [("user", ["Look: ", "@wide", " What is it?"])],
    "two_images": [("user", ["@wide", "@tall", "Compare the images."])],
    "images_between_texts": [("user", ["First:", "@square", "second:", "@photo", "done."])],
    "image_only": [("user", ["@tall"])],
    "system": [("system", ["You answer in one sentence."]), ("user", ["@photo", "What is in it?"])],
    "turns_1": [("user", ["@photo", "Is there a person in the image?"])],
    "turns_2": [("user", ["@photo", "Is there a person in the image?"]),
                ("assistant", ["Yes, next to the blue car."]),
                ("user", ["@wide", "And now?"])],
    "turns_3": [("user", ["@photo", "Is there a person in the image?"]),
                ("assistant", ["Yes, next to the blue car."]),
                ("user", ["@wide", "And now?"]),
                ("assistant", ["No."]),
                ("user", ["Read the text:\n\n  - 東京 42 🙂\n"])],
    "adjacent_texts": [("user", ["one", "two", "@square", "three", "four"])],
    "jinja_in_text": [("user", ["{{ messages }} {% if x %} \\n {# no #}", "@square"])],
    "empty_text": [("user", ["", "@square", ""])],
    "angle_brackets": [("user", ["@square", "a < b <b> <imag e> <row_1_col_7> </image>"])],
}


def small_tokenizers():
    """Two byte-level BPE tokenizers with the published rules and our own merges."""
    model = Tokenizer(BPE())
    model.pre_tokenizer = Sequence([Digits(individual_digits=True),
                                    ByteLevel(add_prefix_space=False)])
    model.train_from_iterator(TRAINING_TEXT * 2, BpeTrainer(
        vocab_size=420, initial_alphabet=ByteLevel.alphabet(), show_progress=False))
    trained = json.loads(model.to_str())
    pieces = sorted(trained["model"]["vocab"], key=trained["model"]["vocab"].get)
    files = {}
    for name, last in [("tokenizer", LAST_TOKENS), ("tokenizer_v1", LAST_TOKENS_V1)]:
        words = FIRST_TOKENS + pieces
        added = [(words.index(t), t) for t in FIRST_TOKENS]
        added += [(len(words) + n, t) for n, t in enumerate(last)]
        files[name] = {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False, "special": True}
                             for i, t in added],
            "normalizer": None, "pre_tokenizer": trained["pre_tokenizer"], "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True},
            "model": {**trained["model"], "vocab": {t: i for i, t in enumerate(words)}},
        }
        double_newline = Tokenizer.from_str(json.dumps(files[name])).encode("\n\n").ids
        assert len(double_newline) == 1, "row end and blank line must be one token, as published"
    return files


def prompt_cases(processor, split):
    for name, chat in CHATS.items():
        pictures, messages = [], []
        for role, parts in chat:
            content = []
            for part in parts:
                if part.startswith("@"):
                    pictures.append(part[1:])
                    content.append({"type": "image"})
                else:
                    content.append({"type": "text", "text": part})
            messages.append({"role": role, "content": content})
        chat_text = processor.apply_chat_template(messages, add_generation_prompt=True)
        images = [Image.fromarray(gradient(*PICTURES[p])) for p in pictures]
        ids = processor(text=chat_text, images=images or None, add_special_tokens=False,
                        do_image_splitting=split)["input_ids"]
        ids = ids[0] if isinstance(ids[0], list) else ids
        text = processor.tokenizer.decode(ids, skip_special_tokens=False,
                                          clean_up_tokenization_spaces=False)
        layouts = [(int(r), int(c)) for r, c in (layout(processor, i, split) for i in images)]
        yield {"name": name, "do_image_splitting": split, "messages": messages, "layouts": layouts,
               "chat": chat_text, "text": text, "ids": list(map(int, ids))}


def layout(processor, image, split):
    made = processor.image_processor(image, do_image_splitting=split, return_row_col_info=True,
                                     return_tensors="np")
    return made["rows"][0][0], made["cols"][0][0]


def shortened(case):
    """Runs of `<image>` are long and tell nothing: the text is kept as its hash."""
    text = case.pop("text")
    return {**case, "text_sha256": hashlib.sha256(text.encode()).hexdigest()}


def all_prompts(make_processor):
    for split in (True, False):
        yield from map(shortened, prompt_cases(make_processor(split), split))


def tokenizer_cases(tokenizer):
    for text in TEXTS:
        encoded = tokenizer.encode(text, add_special_tokens=False)
        yield {"text": text, "ids": encoded.ids,
               "decoded": tokenizer.decode(encoded.ids, skip_special_tokens=False),
               "without_special": tokenizer.decode(encoded.ids, skip_special_tokens=True)}


def small_processor(tokenizer_json, split):
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(tokenizer_json)))
    return Idefics3Processor(image_processor(64, 128, split), fast, image_seq_len=4,
                             chat_template=CHAT_TEMPLATE)


def published_processor(directory):
    image = json.loads((directory / "preprocessor_config.json").read_text())
    seq_len = json.loads((directory / "processor_config.json").read_text())["image_seq_len"]
    fast = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    template = json.loads((directory / "chat_template.json").read_text())["chat_template"]
    edges = image["max_image_size"]["longest_edge"], image["size"]["longest_edge"]
    return lambda split: Idefics3Processor(image_processor(*edges, split), fast,
                                           image_seq_len=seq_len, chat_template=template)


def write(path, **content):
    lines = [f'{json.dumps(key)}: [\n' + ",\n".join(json.dumps(v, ensure_ascii=False) for v in value)
             + "\n]" if isinstance(value, list) else f"{json.dumps(key)}: {json.dumps(value)}"
             for key, value in content.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "tests/fixtures/preprocess")
    parser.add_argument("--model", type=pathlib.Path, help="print prompts made with this directory")
    arguments = parser.parse_args()

    if arguments.model:
        make = published_processor(arguments.model)
        cases = list(all_prompts(make))
        json.dump({"made_with": MADE_WITH, "prompts": cases}, sys.stdout, ensure_ascii=False)
        return

    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write(out / "resize.json", made_with=MADE_WITH, cases=list(resize_cases()))
    write(out / "tiles.json", made_with=MADE_WITH, cases=list(tile_cases()),
          max_tiles=list(max_tiles_cases()), pixel_values=list(pixel_value_cases()))
    write(out / "files.json", made_with=MADE_WITH, files=list(file_cases()))
    (out / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}) + "\n")
    for name, tokenizer_json in small_tokenizers().items():
        compact = json.dumps(tokenizer_json, ensure_ascii=False, separators=(",", ":"))
        (out / f"{name}.json").write_text(compact + "\n")
        cases = list(tokenizer_cases(Tokenizer.from_str(compact)))
        prompts = list(all_prompts(lambda split: small_processor(tokenizer_json, split)))
        write(out / f"prompts_{name}.json", made_with=MADE_WITH, image_seq_len=4,
              texts=cases, prompts=prompts)


if __name__ == "__main__":
    main()

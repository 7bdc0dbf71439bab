"""The picture of a terminal in README: real commands, their real output, the pictures they were about.

    python tools/terminal_picture.py target/release/ocelli docs/terminal.png

needs Pillow and a DejaVu Sans Mono font (`OCELLI_FONTS` names the folder, default /usr/share/fonts).
"""

import os
import pathlib
import subprocess
import sys

from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = pathlib.Path("models/samples")
COMMANDS = [
    ("bells-hats.jpg", ["caption", "{}"]),
    ("trees.jpg", ["ask", "{}", "How many trees are there?"]),
    ("sign-office.jpg", ["ask", "{}", "What does it say?"]),
    ("bell-cat-pizza.jpg", ["ask", "{}", "Is there a dog?", "--choices", "Yes.,No.", "--verbose"]),
]
WIDTH, LINE, SIDE, MARGIN = 1180, 24, 150, 24
BACK, TEXT, DIM, MARK = (24, 26, 31), (226, 228, 232), (140, 146, 158), (126, 200, 120)


def font():
    """DejaVu Sans Mono, 16 px."""
    folder = pathlib.Path(os.environ.get("OCELLI_FONTS", "/usr/share/fonts"))
    path = next(folder.rglob("DejaVuSansMono.ttf"))
    return ImageFont.truetype(str(path), 16)


def run(binary, arguments):
    """stdout and stderr lines of a command, which must succeed."""
    done = subprocess.run([binary, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return [(TEXT, line) for line in done.stdout.splitlines()] + [(DIM, line) for line in done.stderr.splitlines()]


def main(binary, out, commands):
    blocks = []
    for picture, arguments in commands:
        path = str(SAMPLES / picture)
        arguments = [a.replace("{}", path) for a in arguments]
        shown = " ".join(f'"{a}"' if " " in a else a for a in arguments)
        blocks.append((picture, [(MARK, f"$ ocelli {shown}"), *run(binary, arguments)]))
    heights = [max(SIDE, LINE * len(lines)) + MARGIN for _, lines in blocks]
    page = Image.new("RGB", (WIDTH, sum(heights) + MARGIN), BACK)
    draw, face, y = ImageDraw.Draw(page), font(), MARGIN
    for (picture, lines), height in zip(blocks, heights):
        small = Image.open(ROOT / SAMPLES / picture).convert("RGB")
        small.thumbnail((SIDE, SIDE), Image.LANCZOS)
        page.paste(small, (MARGIN + (SIDE - small.width) // 2, y))
        for i, (colour, line) in enumerate(lines):
            draw.text((2 * MARGIN + SIDE, y + 6 + i * LINE), line, font=face, fill=colour)
        y += height
    page.save(out, optimize=True)


if __name__ == "__main__":
    main(str(pathlib.Path(sys.argv[1]).resolve()), sys.argv[2], COMMANDS)

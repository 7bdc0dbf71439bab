"""Writes the sample pictures: held-out scenes and signs of the size of camera frames.

    python samples.py FOLDER                   # the chosen ten
    python samples.py FOLDER --candidates 40   # many to choose from, as c000.jpg ...

A sample is named by its seed: the same seed gives the same picture.
"""

import argparse
import os

from PIL import Image

import heldout
import language

# file name -> (seed, kind, size, printed lines or None for what the seed gives)
CHOSEN = {
    "apple-stars.jpg": (5022, "scene", (480, 640), None),
    "ball.jpg": (5005, "scene", (800, 600), None),
    "bell-cat-pizza.jpg": (5040, "scene", (640, 480), None),
    "bells-hats.jpg": (5050, "scene", (480, 640), None),
    "dog-person.jpg": (5054, "scene", (480, 640), None),
    "trees.jpg": (5007, "scene", (640, 480), None),
    "sign-closed.jpg": (7010, "sign", (800, 600), ["CLOSED"]),
    "sign-office.jpg": (7002, "sign", (480, 640), ["OFFICE 24"]),
    "sign-price.jpg": (7001, "sign", (800, 600), ["$12.50"]),
    "sign-time.jpg": (7024, "sign", (640, 480), ["18:45"]),
}

SIZES = [(640, 480), (800, 600), (480, 640), (640, 480)]


def picture(seed, kind, size, lines=None):
    return heldout.Maker(seed).picture(kind, size, lines)


def truth(p):
    return " / ".join(p.lines) if p.lines else language.caption(p.counts).strip()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder")
    ap.add_argument("--candidates", type=int)
    args = ap.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    chosen = CHOSEN
    if args.candidates:
        chosen = {f"c{i:03d}.jpg": (5000 + i, "sign" if i % 5 in (1, 3) else "scene", SIZES[i % len(SIZES)], None) for i in range(args.candidates)}
    for name, (seed, kind, size, lines) in chosen.items():
        p = picture(seed, kind, size, lines)
        Image.fromarray(p.image).save(os.path.join(args.folder, name), quality=88)
        print(f"{name}\t{size[0]}x{size[1]}\t{truth(p)}")


if __name__ == "__main__":
    main()

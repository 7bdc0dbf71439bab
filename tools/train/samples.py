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

# file name -> (seed, kind, size)
CHOSEN = {}

SIZES = [(640, 480), (800, 600), (480, 640), (640, 480)]


def picture(seed, kind, size):
    return heldout.Maker(seed).picture(kind, size)


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
        chosen = {f"c{i:03d}.jpg": (5000 + i, "sign" if i % 5 in (1, 3) else "scene", SIZES[i % len(SIZES)]) for i in range(args.candidates)}
    for name, (seed, kind, size) in chosen.items():
        p = picture(seed, kind, size)
        Image.fromarray(p.image).save(os.path.join(args.folder, name), quality=88)
        print(f"{name}\t{size[0]}x{size[1]}\t{truth(p)}")


if __name__ == "__main__":
    main()

"""Seeds of the fuzz targets: small files, sound and nearly sound.

    python tests/fuzz/seeds.py PACK

writes tests/fuzz/corpus; PACK is a pack of the `tiny` checkpoint. Needs nothing but Python.
"""

import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PICTURES = (
    "rgb.png rgb.bmp rgb_lzw.tiff rgb.ppm rgb_lossless.webp palette.gif animated.gif animated.webp interlaced_grey4.png"
    " soft.jpg progressive.jpg cmyk.jpg soft.webp orientation_6.jpg rgb_16_bit.png"
).split()


def put(target: str, name: str, data: bytes) -> None:
    """Writes one seed."""
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def safetensors(header: dict | str, data: bytes) -> bytes:
    """A safetensors file."""
    text = header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))
    return struct.pack("<Q", len(text)) + text.encode() + data


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict:
    """One header entry."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def main() -> None:
    """Writes every seed."""
    pack = Path(sys.argv[1]).read_bytes()
    length = struct.unpack("<I", pack[12:16])[0]
    put("pack", "header", b"\x01" + pack[24 : 24 + length])
    put("pack", "cut_header", b"\x01" + pack[24 : 24 + length // 2])
    put("pack", "prefix", b"\x00" + pack[:24])
    put("pack", "cut_pack", b"\x00" + pack[: 24 + length + 200])

    a = tensor("F32", [2, 3], 0, 24)
    whole = {"a": a, "b": tensor("BF16", [4], 24, 32), "c": tensor("F16", [0], 32, 32), "d": tensor("F16", [], 32, 34)}
    data = struct.pack("<6f", *range(6)) + struct.pack("<4H", 0x3F80, 0x4000, 0xC000, 0) + struct.pack("<e", 1.5)
    put("safetensors", "whole", safetensors({"__metadata__": {"format": "pt"}} | whole, data))
    put("safetensors", "overlap", safetensors({"a": a, "b": tensor("F32", [4], 12, 28)}, bytes(28)))
    put("safetensors", "beyond", safetensors({"a": tensor("F32", [2, 3], 8, 32)}, bytes(24)))
    put("safetensors", "overflow", safetensors({"a": tensor("F32", [1 << 62, 4], 0, 0)}, b""))
    put("safetensors", "not_finite", safetensors({"a": a}, struct.pack("<6f", 0, 1, float("nan"), 2, 3, 4)))
    put("safetensors", "length", struct.pack("<Q", 1 << 63))
    put("safetensors", "no_json", safetensors("{", b""))

    files = json.loads((HERE.parent / "fixtures" / "preprocess" / "files.json").read_text())["files"]
    for file in files:
        if file["name"] in PICTURES:
            put("picture", file["name"], bytes.fromhex(file["hex"]))


if __name__ == "__main__":
    main()

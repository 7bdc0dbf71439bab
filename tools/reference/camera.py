"""Fixtures for the camera's conversions: libswscale, OpenCV and libjpeg-turbo say what the pixels are.

    pip install av==18.1.0 opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
    python tools/reference/camera.py

Chroma: each format's samples are first repeated to one a pixel (nearest), so libswscale only applies matrix and
range to 4:4:4. OpenCV's conversions of YUV formats repeat them too; they are limited-range BT.601 and need even
sides. OpenCV's debayer is bilinear; it copies the picture's edge from the next pixels inside, so edges are left out.
JPEGs are decoded by Pillow's libjpeg-turbo with its defaults (accurate IDCT, smoothed chroma).
"""

import io
import json
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation
from PIL import Image, features

OUT = Path(__file__).parents[2] / "tests/fixtures/camera"
MATRICES = {"Bt601": 5, "Bt709": 1, "Bt2020": 9}  # AVColorSpace
RANGES = {"Limited": ColorRange.MPEG, "Full": ColorRange.JPEG}
# Pixels of a chroma sample across and down; (2, 2) where it is not said.
HALVED = {"YUYV": (2, 1), "UYVY": (2, 1), "422P": (2, 1), "I444": (1, 1)}

rng = np.random.default_rng(20261122)


def samples(width, height, code):
    """Planes of a picture: rows of noise below a ramp of luma, in legal range."""
    across, down = HALVED.get(code, (2, 2))
    y = rng.integers(16, 236, (height, width), dtype=np.uint8)
    y[0] = np.linspace(16, 235, width)
    shape = (-(-height // down), -(-width // across))
    u, v = (rng.integers(40, 216, shape, dtype=np.uint8) for _ in range(2))
    return y, u, v


def nearest(plane, width, height, code):
    across, down = HALVED.get(code, (2, 2))
    return plane.repeat(down, 0).repeat(across, 1)[:height, :width]


def pad(rows, stride):
    """Rows of bytes `stride` apart; the gap is noise."""
    gap = rng.integers(0, 256, (rows.shape[0], stride - rows.shape[1]), dtype=np.uint8)
    return np.concatenate([rows, gap], 1).tobytes()


def packed(code, y, u, v):
    width = y.shape[1]
    if width % 2:
        y = np.concatenate([y, y[:, -1:]], 1)
    order = {"YUYV": (y[:, ::2], u, y[:, 1::2], v), "UYVY": (u, y[:, ::2], v, y[:, 1::2])}[code]
    return np.stack(order, -1).reshape(y.shape[0], -1)


def encode(code, y, u, v, gap):
    """Bytes of a frame and its stride, 0 if rows follow without a gap."""
    if code in ("YUYV", "UYVY"):
        rows = packed(code, y, u, v)
        stride = rows.shape[1] + gap
        return pad(rows, stride), stride if gap else 0
    stride = y.shape[1] + gap
    if code in ("NV12", "NV21"):
        pairs = np.stack((u, v) if code == "NV12" else (v, u), -1).reshape(u.shape[0], -1)
        chroma = pad(pairs, max(stride, pairs.shape[1]))
    else:
        chroma_stride = stride if code == "I444" else -(-stride // 2)
        planes = (v, u) if code == "YV12" else (u, v)
        chroma = b"".join(pad(plane, max(chroma_stride, plane.shape[1])) for plane in planes)
    return pad(y, stride) + chroma, stride if gap else 0


def swscale(y, u, v, matrix, value_range):
    """RGB of full-size planes. Widths are brought to a multiple of 64: the planes of PyAV's frames have gaps."""
    height, width = y.shape
    full = [np.pad(p, ((0, 0), (0, -width % 64)), mode="edge") for p in (y, u, v)]
    frame = av.VideoFrame.from_ndarray(np.stack(full), format="yuv444p")
    flags = Interpolation.POINT | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    space = MATRICES[matrix]
    rgb = frame.reformat(
        format="rgb24", src_colorspace=space, dst_colorspace=space,
        src_color_range=RANGES[value_range], dst_color_range=ColorRange.JPEG, interpolation=flags,
    )
    return rgb.to_ndarray()[:, :width]


def yuv_cases():
    codes = ["YUYV", "UYVY", "NV12", "NV21", "YU12", "YV12", "422P", "I444"]
    colors = [(matrix, value_range) for matrix in MATRICES for value_range in RANGES]
    for i, code in enumerate(codes):
        for width, height, gap in ((7, 5, 0), (6, 3, 5)):
            matrix, value_range = colors[(2 * i + (gap > 0)) % len(colors)]
            planes = samples(width, height, code)
            frame, stride = encode(code, *planes, gap)
            y, u, v = planes[0], *(nearest(p, width, height, code) for p in planes[1:])
            rgb = swscale(y, u, v, matrix, value_range)
            yield case(code, (width, height, stride), frame, rgb, "libswscale", matrix, value_range)


def opencv_cases():
    codes = {
        "YUYV": cv2.COLOR_YUV2RGB_YUYV, "UYVY": cv2.COLOR_YUV2RGB_UYVY, "NV12": cv2.COLOR_YUV2RGB_NV12,
        "NV21": cv2.COLOR_YUV2RGB_NV21, "YU12": cv2.COLOR_YUV2RGB_I420, "YV12": cv2.COLOR_YUV2RGB_YV12,
    }
    width, height = 8, 4
    for code, conversion in codes.items():
        frame, stride = encode(code, *samples(width, height, code), 0)
        raw = np.frombuffer(frame, np.uint8)
        raw = raw.reshape(height, width, 2) if code in ("YUYV", "UYVY") else raw.reshape(-1, width)
        yield case(code, (width, height, stride), frame, cv2.cvtColor(raw, conversion), "OpenCV")


def bayer_cases():
    codes = {
        "BA81": cv2.COLOR_BayerBGGR2RGB, "GBRG": cv2.COLOR_BayerGBRG2RGB,
        "GRBG": cv2.COLOR_BayerGRBG2RGB, "RGGB": cv2.COLOR_BayerRGGB2RGB,
    }
    for code, conversion in codes.items():
        raw = rng.integers(0, 256, (6, 7), dtype=np.uint8)
        yield case(code, (7, 6, 0), raw.tobytes(), cv2.cvtColor(raw, conversion), "OpenCV")


def case(code, size, frame, rgb, reference, matrix="Bt601", value_range="Limited"):
    width, height, stride = size
    return {
        "reference": reference, "fourcc": code, "width": width, "height": height, "stride": stride,
        "matrix": matrix, "range": value_range, "frame": frame.hex(), "rgb": rgb.astype(np.uint8).tobytes().hex(),
    }


def scene(width, height):
    """A picture with soft colours, a few hard edges and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 / width, y * 255 / height, 255 - (x + y) * 128 / (width + height)], -1)
    rgb[height // 4 : height // 2, width // 3 : width // 2] = (230, 40, 30)
    rgb[height // 2 :, width // 5 : width // 4] = 15
    noise = np.random.default_rng(width).normal(0, 3, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def without_tables(jpeg):
    """As Motion JPEG leaves them out; the file must use the standard ones."""
    out, at = jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != 0xC4:
            out += jpeg[at:end]
        at = end
    return out + jpeg[at:]


def jpegs():
    options = {
        "420": dict(subsampling="4:2:0"), "422": dict(subsampling="4:2:2"), "444": dict(subsampling="4:4:4"),
        "420_restart": dict(subsampling="4:2:0", restart_marker_blocks=2),
        "422_optimized": dict(subsampling="4:2:2", optimize=True),
        "420_progressive": dict(subsampling="4:2:0", progressive=True),
        "grey": dict(), "422_without_tables": dict(subsampling="4:2:2"),
        "rgb": dict(keep_rgb=True),
    }
    for name, option in options.items():
        picture = Image.fromarray(scene(45, 35))
        if name == "grey":
            picture = picture.convert("L")
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80, **option)
        whole = file.getvalue()
        rgb = Image.open(io.BytesIO(whole)).convert("RGB")
        yield name, without_tables(whole) if name.endswith("tables") else whole, rgb


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    cases = [*yuv_cases(), *opencv_cases(), *bayer_cases()]
    (OUT / "conversions.json").write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")
    for name, jpeg, rgb in jpegs():
        (OUT / f"{name}.jpg").write_bytes(jpeg)
        rgb.save(OUT / f"{name}.png", optimize=True)
    print(f"{len(cases)} conversions; libjpeg-turbo {features.version('libjpeg_turbo')}")


if __name__ == "__main__":
    main()

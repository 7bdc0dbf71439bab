"""Seeds of the fuzz targets: small files, sound and nearly sound.

    python tests/fuzz/seeds.py PACK GRID

writes tests/fuzz/corpus; PACK is a pack of the `tiny` checkpoint, made with `--weights int4` so that every layout is in it,
GRID one of 4-bit ONNX files, which has the format with another basis (README.md). Needs nothing but Python.
"""

import hashlib
import json
import struct
import sys
import zlib
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


def put_camera() -> None:
    """Camera JPEGs and Y4M streams."""
    jpegs = {path.stem: path.read_bytes() for path in (HERE.parent / "fixtures" / "camera").glob("*.jpg")}
    for name, data in jpegs.items():
        put("mjpeg", name, data)
    put("mjpeg", "cut", jpegs["420"][: len(jpegs["420"]) * 2 // 3])
    put("mjpeg", "rubbish_around", b"\r\n\r\n" + jpegs["420"] + bytes(9))
    put("mjpeg", "stream_of_two", jpegs["grey"][:-2] + b"\x11\xff\xff\xd9--b\r\n" + jpegs["grey"])

    frame = b"FRAME\n" + bytes(range(16, 36))
    put("y4m", "420", b"YUV4MPEG2 W4 H3 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG\n" + 2 * frame)
    full = b"YUV4MPEG2 W3 H2 F30000:1001 It C422 XCOLORRANGE=FULL\nFRAME Ixyz\n"
    put("y4m", "422_full", full + bytes(range(14)))
    put("y4m", "444", b"YUV4MPEG2 W2 H2 F0:0 C444\nFRAME\n" + bytes(range(12)))
    put("y4m", "mono_limited", b"YUV4MPEG2 W3 H2 Cmono XCOLORRANGE=LIMITED\nFRAME\n" + bytes(range(6)))
    put("y4m", "cut_frame", b"YUV4MPEG2 W4 H4\nFRAME\nabc")
    put("y4m", "ten_bits", b"YUV4MPEG2 W4 H4 C420p10\nFRAME\nabc")


def put_onnx() -> None:
    """Exports of the fixtures, sound and lying."""
    fixtures = HERE.parent / "fixtures" / "onnx"
    sound = "shared/embed_tokens_gather4_zero fused/decoder_model_merged_q4_zero plain/vision_encoder_int8"
    for path in sound.split():
        put("onnx", path.replace("/", "_"), (fixtures / f"{path}.onnx").read_bytes())
    for path in (fixtures / "hostile").glob("*.onnx"):
        if path.stem != "deep":
            put("onnx", path.stem, path.read_bytes())


def put_tokenizer() -> None:
    """The tables of the default model behind texts, sound and cut."""
    pack = (HERE.parent.parent / "models" / "default.ocelli").read_bytes()
    for at in range(0, len(pack) - 32, 64):
        form, _, tokens, words, merges, added, classes, text = struct.unpack_from("<8I", pack, at)
        length = 4 * (8 + 3 * tokens + 2 + words + 3 * merges + added + classes + 256) + text
        if form == 1 and 256 <= words <= tokens and at + length <= len(pack):
            tables = pack[at : at + length]
            break
    else:
        raise SystemExit("the default model has no tables")
    texts = {"prose": "It's 12 o'clock,  isn't it?\n", "tokens": "<|im_start|><image> café 日本 ½<|im_end|>"}
    for name, text in texts.items():
        put("tokenizer", name, counted([text.encode()]) + tables)
    put("tokenizer", "cut", counted([b"a"]) + tables[:999])


def counted(parts: list[bytes]) -> bytes:
    """Parts, each behind a byte with its length."""
    return b"".join(bytes([len(part)]) + part for part in parts)


def put_wire() -> None:
    """Serial packets, lines of text and journal segments."""
    put("packet", "hello", bytes.fromhex("00 000102010ae3d294d00101013412010101 0804646f6f7263f600"))
    put("packet", "set_pin", bytes.fromhex("00 05043412070d0209046c616d7002f403f2f400"))
    put("packet", "edge", bytes.fromhex("00 05043412070b040370697201e807f3c200"))
    put("packet", "heartbeat", bytes.fromhex("00 08013412ac02170800"))
    hello = bytes.fromhex("000100e3d294d0010001341201389e0004") + b"door"
    event = bytes.fromhex("04389e000000010004") + b"door" + b"\x06person" + bytes.fromhex("ffff03")
    put("packet", "framed", b"\x01" + counted([hello, event, bytes.fromhex("040102070007")]))

    asks = b'AT\r\nAT+LOOK?\r\nat+ask="who \\"x\\"?","a, b"\nAT+PIN=lamp,1\r'
    put("line", "commands", asks + b"AT+STATE?\nAT+RULES?\nAT+VER?\nAT+HELP?\n")
    put("line", "packets", b'AT+PACKET=bell\nat+packet=b-1,"a, \\"b\\""\nAT+PACKET=bell,a\nAT+PACKET=\n')
    wrong = b'AT+PIN=lamp,2\nAT+ASK="\xff"\nATZ\nOK\n+LOOK: x\n'
    put("line", "wrong", wrong + b"AT" + b"x" * 300 + b"\n")

    records = [bytes([n]) + bytes.fromhex("050180d095ffbc31070003") + b"abc\x05" for n in (1, 2, 3)]
    put("journal", "payloads", b"\x01" + counted(records))
    header = b"OCELLIJN" + struct.pack("<IQ", 1, 1) + bytes(32) + struct.pack("<Q", 5)
    whole, last = header + struct.pack("<I", zlib.crc32(header)), bytes(32)
    for record in records:
        last = hashlib.sha256(last + record).digest()
        numbers = struct.pack("<II", len(record), len(whole))
        whole += b"OJR1" + numbers + struct.pack("<I", zlib.crc32(numbers + record + last)) + record + last
    put("journal", "segment", b"\x00" + whole)
    put("journal", "torn", b"\x00" + whole[:-20])
    put("journal", "damaged", b"\x00" + whole[:90] + bytes([whole[90] ^ 1]) + whole[91:])


def put_page_and_hooks() -> None:
    """What hooks print and browsers send."""
    put("hook", "pass", b'{"verdict":"pass"}\n')
    put("hook", "veto", b' {"reason":"night\\nand day","verdict":"veto"} ')
    put("hook", "unknown_field", b'{"verdict":"pass","force":true}')
    put("hook", "said_twice", b'{"verdict":"veto","verdict":"pass"}')
    put("hook", "list", b'["pass",null]')
    put("hook", "map_as_word", b'{"verdict":{"pass":null}}')
    put("hook", "two", b'{"verdict":"pass"}{"verdict":"veto"}')
    put("hook", "cut", b'{"verdict":"pass"')

    head = b"Host: 127.0.0.1:8080\r\nSec-Fetch-Site: same-origin\r\nAuthorization: Basic YTpi\r\n"
    body = b"request=7&nonce=99&decision=allow&csrf=00ff"
    length = b"Content-Length: %d\r\n" % len(body)
    post = b"POST /decide?x HTTP/1.1\r\nOrigin: http://127.0.0.1:8080\r\n" + head + length
    put("request", "get", b"GET /snapshot/a.jpg HTTP/1.1\r\n" + head + b"\r\n")
    put("request", "decide", post + b"\r\n" + body)
    put("request", "cut", post + b"\r\n" + body[:9])
    put("request", "said_twice", post + length + b"\r\n" + body)
    put("request", "chunked", post + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


def gguf_text(text: str) -> bytes:
    """A text behind its length."""
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value: object) -> tuple[int, bytes]:
    """Type number and bytes of a value; a list takes the type of its first element."""
    match value:
        case bool():
            return 7, bytes([value])
        case int():
            return 4, struct.pack("<I", value)
        case float():
            return 6, struct.pack("<f", value)
        case str():
            return 8, gguf_text(value)
        case [first, *_]:
            kind = gguf_value(first)[0]
            return 9, struct.pack("<IQ", kind, len(value)) + b"".join(gguf_value(element)[1] for element in value)
    raise TypeError(value)


def gguf(keys: dict[str, object], tensors: dict[str, tuple[list[int], int, bytes]]) -> bytes:
    """A GGUF file; a tensor is its dimensions innermost first, a format number, and bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, value in keys.items():
        kind, data = gguf_value(value)
        head += gguf_text(name) + struct.pack("<I", kind) + data
    body = b""
    for name, (dimensions, kind, data) in tensors.items():
        head += gguf_text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        head += struct.pack("<IQ", kind, len(body))
        body += data + bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + body


def floats(*dimensions: int) -> tuple[list[int], int, bytes]:
    """A tensor of small floats, dimensions innermost first."""
    n = 1
    for dimension in dimensions:
        n *= dimension
    return list(dimensions), 0, struct.pack(f"<{n}f", *(i / n for i in range(n)))


def put_gguf() -> None:
    """GGUF files: a text model, a projector, every block format, lies."""
    keys = {
        "general.architecture": "llama", "llama.context_length": 16, "llama.embedding_length": 4,
        "llama.block_count": 1, "llama.feed_forward_length": 8, "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<|im_end|>", "a", "b", "ab", "<image>", "[PAD5]"],
        "tokenizer.ggml.token_type": [3, 1, 1, 1, 3, 5], "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 0, "tokenizer.chat_template": "{{ bos_token }}{{ messages }}",
        "tokenizer.ggml.bos_token_id": 0,
    }  # fmt: skip
    tensors = {
        "token_embd.weight": floats(4, 6), "output_norm.weight": floats(4), "blk.0.attn_norm.weight": floats(4),
        "blk.0.attn_q.weight": floats(4, 4), "blk.0.attn_k.weight": floats(4, 2),
        "blk.0.attn_v.weight": floats(4, 2), "blk.0.attn_output.weight": floats(4, 4),
        "blk.0.ffn_norm.weight": floats(4), "blk.0.ffn_gate.weight": floats(4, 8),
        "blk.0.ffn_up.weight": floats(4, 8), "blk.0.ffn_down.weight": floats(8, 4),
    }  # fmt: skip
    whole = gguf(keys, tensors)
    put("gguf", "text", whole)
    put("gguf", "cut", whole[:-40])
    without = {key: value for key, value in keys.items() if key != "tokenizer.chat_template"}
    put("gguf", "no_template", gguf(without, tensors))
    vision = {
        "image_size": 8, "patch_size": 4, "embedding_length": 4, "feed_forward_length": 8, "block_count": 1,
        "projection_dim": 4, "attention.head_count": 1, "attention.layer_norm_epsilon": 1e-6,
        "projector.scale_factor": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    clip = {"general.architecture": "clip", "clip.projector_type": "idefics3", "clip.use_gelu": True}
    clip |= {f"clip.vision.{key}": value for key, value in vision.items()}
    put("gguf", "projector", gguf(clip, {"v.patch_embd.weight": floats(4, 4, 3, 4), "mm.model.fc.weight": floats(16, 4)}))
    sizes = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 30: (1, 2)}
    sizes |= {12: (256, 144), 13: (256, 176), 14: (256, 210)}
    formats = {f"t{kind}": ([n], kind, bytes(i * 37 % 120 for i in range(size))) for kind, (n, size) in sizes.items()}
    put("gguf", "formats", gguf({"general.alignment": 32}, formats))
    put("gguf", "counts", b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 1 << 63))
    put("gguf", "array", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_text("k") + struct.pack("<IIQ", 9, 9, 1 << 62))


def put_tokenizer_files() -> None:
    """Tokenizer files: sound, of a text-only model, and wrong."""
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    special = ["<|im_end|>", "a", "b", "ab", "<image>", "<fake_token_around_image>", "\u0120", "\u0120a"]

    def added(id: int) -> dict:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return {"id": id, "content": special[id], **flags, "special": True}

    sound = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [added(0), added(4), added(5)],
        "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, bytewise]},
        "post_processor": None, "decoder": bytewise,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: id for id, token in enumerate(special)}, "merges": [["a", "b"], ["\u0120", "a"]],
        },
    }  # fmt: skip

    def put_json(name: str, choice: bytes, json_value: dict) -> None:
        put("tokenizer_json", name, choice + json.dumps(json_value, separators=(",", ":")).encode())

    put_json("sees", b"\x01", sound)
    put_json("text_only", b"\x00", sound | {"added_tokens": [added(0)]})
    put_json("old_merges", b"\x00", sound | {"model": sound["model"] | {"merges": ["a b"]}})
    put_json("wrong_merge", b"\x00", sound | {"model": sound["model"] | {"merges": [["a", "x"]]}})
    put_json("high_id", b"\x00", sound | {"model": sound["model"] | {"vocab": {"a": 4294967295}}})
    put_json("other_decoder", b"\x00", sound | {"decoder": {"type": "Fuse"}})
    put_json("no_decoder", b"\x00", sound | {"decoder": None})
    padding = {"strategy": {"Fixed": 1 << 40}, "direction": "Right", "pad_to_multiple_of": None}
    put_json("padding", b"\x00", sound | {"padding": padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "a"}})
    normalizers = [{"type": "NFC"}, {"type": "Prepend", "prepend": "b"}, {"type": "Replace", "pattern": {"Regex": "(a|b)*$"}, "content": "ab"}]
    put_json("normalizers", b"\x00", sound | {"normalizer": {"type": "Sequence", "normalizers": normalizers}})


def put_packs(pack: bytes, grid: bytes) -> None:
    """Headers that get a right checksum, and begins of whole packs, of every format that is read."""
    for data, version, name in ((pack, 4, ""), (grid, 5, "_of_basis")):
        found, length = struct.unpack_from("<2I", data, 8)
        assert found == version, f"format {found}, not {version}"
        choice = b"\x01" if version == 4 else b"\x03"
        header = data[24 : 24 + length]
        put("pack", f"header{name}", choice + header)
        put("pack", f"cut_header{name}", choice + header[: length // 2])
        put("pack", f"prefix{name}", b"\x00" + data[:24])
        put("pack", f"cut_pack{name}", b"\x00" + data[: 24 + length + 200])
    # The oldest format differs in its number.
    begin = 24 + struct.unpack_from("<I", pack, 12)[0] + 200
    oldest = pack[:8] + struct.pack("<I", 3) + pack[12:begin]
    put("pack", "prefix_of_3", b"\x00" + oldest[:24])
    put("pack", "cut_pack_of_3", b"\x00" + oldest)


def main() -> None:
    """Writes every seed."""
    put_packs(*(Path(path).read_bytes() for path in sys.argv[1:3]))

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
    put_camera()
    put_onnx()
    put_tokenizer()
    put_gguf()
    put_tokenizer_files()
    put_wire()
    put_page_and_hooks()


if __name__ == "__main__":
    main()

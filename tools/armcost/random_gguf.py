#!/usr/bin/env python3
"""Writes a GGUF with SmolVLM-256M's decoder shape and random weights: for speed, not for sense.

    tools/armcost/random_gguf.py OUT [LAYERS [q8_0|q4_0]]

q4_0 leaves embedding and head at Q8_0, as llama.cpp's own quantisation does at this width, which
its smaller types of 256 values do not divide.
"""

import random
import struct
import sys

HIDDEN, INTER, LAYERS, HEADS, KV_HEADS, VOCAB = 576, 1536, 30, 9, 3, 49280
ALIGNMENT = 32
U32, F32, STRING = 4, 6, 8
TYPE_F32 = 0
# Values of a block. In both types an f16 scale precedes them.
BLOCK = 32
# Type in the file, bytes of a block, scale.
Q8_0 = (8, 34, 0.0006)
Q4_0 = (2, 18, 0.01)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def settings(layers):
    """Keys and values of the header. Without a vocabulary, ids go in and logits come out."""
    shape = [
        ("block_count", U32, layers),
        ("context_length", U32, 8192),
        ("embedding_length", U32, HIDDEN),
        ("feed_forward_length", U32, INTER),
        ("attention.head_count", U32, HEADS),
        ("attention.head_count_kv", U32, KV_HEADS),
        ("attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("rope.freq_base", F32, 100000.0),
        ("rope.dimension_count", U32, 64),
        ("vocab_size", U32, VOCAB),
    ]
    rows = [("general.architecture", STRING, "llama"), ("tokenizer.ggml.model", STRING, "no_vocab")]
    rows += [(f"llama.{name}", kind, value) for name, kind, value in shape]
    packed = {
        U32: lambda v: struct.pack("<I", v),
        F32: lambda v: struct.pack("<f", v),
        STRING: text,
    }
    return len(rows), b"".join(
        text(name) + struct.pack("<I", kind) + packed[kind](value) for name, kind, value in rows
    )


def tensors(layers):
    """(name, columns, rows) of every tensor; one row: a norm in f32."""
    kv = KV_HEADS * 64
    yield "token_embd.weight", HIDDEN, VOCAB
    for i in range(layers):
        yield f"blk.{i}.attn_norm.weight", HIDDEN, 1
        yield f"blk.{i}.attn_q.weight", HIDDEN, HIDDEN
        yield f"blk.{i}.attn_k.weight", HIDDEN, kv
        yield f"blk.{i}.attn_v.weight", HIDDEN, kv
        yield f"blk.{i}.attn_output.weight", HIDDEN, HIDDEN
        yield f"blk.{i}.ffn_norm.weight", HIDDEN, 1
        yield f"blk.{i}.ffn_gate.weight", HIDDEN, INTER
        yield f"blk.{i}.ffn_up.weight", HIDDEN, INTER
        yield f"blk.{i}.ffn_down.weight", INTER, HIDDEN
    yield "output_norm.weight", HIDDEN, 1
    yield "output.weight", HIDDEN, VOCAB


def blocks_of(name, small):
    """How a matrix is stored: in `small` blocks inside the layers."""
    return small if name.startswith("blk.") else Q8_0


def data_bytes(columns, rows, block_bytes):
    return 4 * columns if rows == 1 else rows * columns // BLOCK * block_bytes


def data(columns, rows, blocks, source):
    if rows == 1:
        return struct.pack("<f", 1.0) * columns
    _, block_bytes, scale = blocks
    out = bytearray(source.randbytes(data_bytes(columns, rows, block_bytes)))
    for i, byte in enumerate(struct.pack("<e", scale)):
        out[i::block_bytes] = bytes([byte]) * (len(out) // block_bytes)
    return out


def aligned(size):
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def write(path, layers=LAYERS, small=Q8_0):
    plan = [(name, columns, rows, blocks_of(name, small)) for name, columns, rows in tensors(layers)]
    n_settings, header = settings(layers)
    table, offset = b"", 0
    for name, columns, rows, blocks in plan:
        shape = [columns] if rows == 1 else [columns, rows]
        kind = TYPE_F32 if rows == 1 else blocks[0]
        table += text(name) + struct.pack("<I", len(shape))
        table += b"".join(struct.pack("<Q", size) for size in shape)
        table += struct.pack("<IQ", kind, offset)
        offset += aligned(data_bytes(columns, rows, blocks[1]))
    source = random.Random(1)
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(plan), n_settings) + header + table)
        file.write(bytes(aligned(file.tell()) - file.tell()))
        for _, columns, rows, blocks in plan:
            bytes_ = data(columns, rows, blocks, source)
            file.write(bytes_)
            file.write(bytes(aligned(len(bytes_)) - len(bytes_)))


def main(arguments):
    if not 1 <= len(arguments) <= 3 or arguments[2:] not in ([], ["q8_0"], ["q4_0"]):
        sys.exit(__doc__)
    layers = int(arguments[1]) if len(arguments) > 1 else LAYERS
    write(arguments[0], layers, Q4_0 if arguments[2:] == ["q4_0"] else Q8_0)


if __name__ == "__main__":
    main(sys.argv[1:])

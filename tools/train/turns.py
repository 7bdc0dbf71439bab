"""Questions about a picture, and several of them packed after one image prefix.

A packed row is `prefix, turn, turn, ...`: each turn sees the prefix and itself,
and its positions go on from the end of the prefix, as if it stood alone.
"""

import random

import numpy as np

import language

READ_WEIGHT, FIRST_WEIGHT, REST_WEIGHT = 1.0, 1.5, 0.25


def scene_turns(rng: random.Random, counts, crowded=False):
    """Endless (question, answer, kind) about a scene of `{kind: count}`; the caption comes first unless it is a crowd."""
    present = list(counts)
    if not crowded:
        yield rng.choice(language.ASK_CAPTION), language.caption(counts), "caption"
    if rng.random() < 0.06:
        yield (rng.choice(language.ASK_READ), language.NO_TEXT, "read") if rng.random() < 0.5 else (
            rng.choice(language.ASK_TEXT), language.yes_no(False), "yes_no")
    alike = [n for group in language.ALIKE for n in sorted(group) if group & set(present) and n not in counts]
    while True:
        k = rng.random()
        if k < 0.4:
            if present and rng.random() < 0.5:
                name = rng.choice(present)
            else:
                name = rng.choice(alike) if alike and rng.random() < 0.5 else rng.choice(language.NAMES)
            yield language.fill(rng.choice(language.ASK_THERE), name), language.yes_no(name in counts), "yes_no"
        else:
            several = [n for n in present if counts[n] > 1]
            if several and rng.random() < 0.5:
                name = rng.choice(several)
            else:
                name = rng.choice(present) if present and rng.random() < 0.85 else rng.choice(alike or language.NAMES)
            yield language.fill(rng.choice(language.ASK_COUNT), name), language.count_answer(counts.get(name, 0)), "count"


def sign_turns(rng: random.Random, lines, crowded=False):
    """Endless (question, answer, kind) about a sign; the text comes first unless it is a page."""
    text = "\n".join(lines)
    if not crowded:
        yield rng.choice(language.ASK_READ), " " + text, "read"
        yield rng.choice(language.ASK_CAPTION), ' A sign that says "' + " ".join(lines) + '".', "sign"
    while True:
        k = rng.random()
        if k < 0.25:
            yield rng.choice(language.ASK_TEXT), language.yes_no(True), "yes_no"
        else:
            yield language.fill(rng.choice(language.ASK_THERE), rng.choice(language.NAMES)), language.yes_no(False), "yes_no"


def answer_ids(codec, answer, kind):
    """Ids and loss weights of an answer with its end: read text is spelt, closed answers weigh on their first token."""
    if kind == "read" and answer != language.NO_TEXT:
        ids = codec.spell(answer) + [codec.end]
        return ids, [READ_WEIGHT] * len(ids)
    if kind == "sign":
        head = codec.encode(" A sign that says")
        rest = codec.spell(answer[len(" A sign that says"):]) + [codec.end]
        return head + rest, [REST_WEIGHT] * len(head) + [0.5] * len(rest)
    ids = codec.encode(answer) + [codec.end]
    if kind == "caption":
        return ids, [1.4] * len(ids)
    return ids, [FIRST_WEIGHT] + [REST_WEIGHT] * (len(ids) - 1)


def pack(codec, rng, picture, image_tokens, length):
    """One row for a picture: tokens, segment, position, weight, each [length].

    weight[i] belongs to predicting tokens[i + 1] at i. Segment 0 is the prefix, padding is segment 255.
    """
    prefix = codec.prefix(image_tokens)
    tokens = np.full(length, codec.pad, np.int16)
    segment = np.full(length, 255, np.uint8)
    position = np.zeros(length, np.int16)
    weight = np.zeros(length, np.float32)
    n = len(prefix)
    tokens[:n], segment[:n], position[:n] = prefix, 0, np.arange(n)
    at, number, misses = n, 1, 0
    source = sign_turns(rng, picture.lines, picture.crowded) if picture.lines else scene_turns(rng, picture.counts, picture.crowded)
    for question, answer, kind in source:
        q = codec.turn(language.rough(rng, question))
        a, w = answer_ids(codec, answer, kind)
        size = len(q) + len(a)
        if at + size > length:
            misses += 1
            if misses > 3:
                break
            continue
        tokens[at:at + size] = q + a
        segment[at:at + size] = number
        position[at:at + size] = n + np.arange(size)
        weight[at + len(q) - 1:at + size - 1] = w
        at, number = at + size, number + 1
    return tokens, segment, position, weight

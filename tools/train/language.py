"""The words of the default model: object kinds, questions, answers, captions.

Everything the model is trained to say or to be asked is written here, so that
the tokenizer, the renderer and the evaluation agree on it.
"""

import random

# kind -> emoji that may stand for it
KINDS = {
    "airplane": "✈️ 🛩️", "apple": "🍎", "bag": "👜 🛍️", "ball": "⚽ 🏀", "banana": "🍌", "bed": "🛏️",
    "bell": "🔔", "bicycle": "🚲", "bird": "🐦 🦜", "boat": "⛵ 🚤", "book": "📕 📘 📗", "bottle": "🍾",
    "box": "📦", "bus": "🚌", "camera": "📷 📸", "car": "🚗 🚙", "cat": "🐈 🐱", "chair": "🪑",
    "clock": "🕐 🕖 🕓", "cup": "☕ 🍵", "dog": "🐕 🐶", "fish": "🐟 🐠", "flower": "🌻 🌷", "guitar": "🎸",
    "hat": "🎩 👒", "heart": "❤️ 💙", "horse": "🐎 🐴", "house": "🏠 🏡", "key": "🔑 🗝️", "lamp": "💡",
    "laptop": "💻", "person": "🧍 🧍🏽 🚶 🚶🏿", "phone": "📱", "pizza": "🍕", "shoe": "👞 👟", "star": "⭐",
    "train": "🚆 🚂", "tree": "🌳 🌲", "truck": "🚚 🚛", "umbrella": "☂️ ☔",
}
NAMES = list(KINDS)
INDEX = {n: i for i, n in enumerate(NAMES)}

PLURALS = {"person": "people", "box": "boxes", "bus": "buses", "fish": "fish"}

# kinds that look alike or keep company: the hard negatives of yes/no questions
ALIKE = [
    {"car", "bus", "truck", "train", "bicycle"}, {"dog", "cat", "horse", "person"}, {"bird", "airplane", "fish", "boat"},
    {"apple", "heart", "ball", "star"}, {"banana", "guitar", "shoe", "key"}, {"book", "box", "laptop", "phone", "camera"},
    {"tree", "flower", "umbrella", "lamp"}, {"bottle", "cup", "bell", "hat", "clock"}, {"bed", "chair", "house", "bag", "pizza"},
]

# emoji that are never named: things the model has to keep silent about
STRANGERS_TRAIN = "🎈 🧲 🪁 🥨 🧦 🪣 🍩 🧀 🥦 🍇 🔨 🪜 🎁 🎲 🧸 🪴 🥕 🍄 🛴 🧯".split()
STRANGERS_HELD = "🎺 🧺 🍍 🦀 🔧 🥐 🐢 🪵 🎀 🧤".split()

NUMBERS = ["none", "one", "two", "three", "four", "five"]
NOTHING = " Nothing that I know."
NO_TEXT = " There is no text."

ASK_CAPTION = ["Can you describe this image?", "Describe the image.", "What do you see?", "What is in the picture?",
               "What is this?", "Describe this picture.", "What can you see?", "Describe this image.",
               "What is in the image?", "Write a caption."]
ASK_THERE = ["Is there {a}?", "Is there {a} in the picture?", "Is there {a} in the image?", "Do you see {a}?",
             "Can you see {a}?", "Are there any {pl}?"]
ASK_COUNT = ["How many {pl} are there?", "How many {pl}?", "How many {pl} do you see?", "How many {pl} are in the picture?",
             "Count the {pl}."]
ASK_READ = ["Read the text.", "What does it say?", "What is written here?", "What does the sign say?",
            "What is the text?", "Read this."]
ASK_TEXT = ["Is there any text?", "Is there text in the image?", "Is there a sign?"]


def article(noun):
    """`a dog`, `an apple`."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun):
    return PLURALS.get(noun, noun + "s")


def held_pair(a, b):
    """Whether the kinds `a` and `b` may meet only in held-out pictures (one pair in eight)."""
    i, j = sorted((INDEX[a], INDEX[b]))
    return (i * 31 + j * 17 + i * j) % 7 == 3


def caption(counts):
    """Caption of `{kind: count}`, kinds in the order of NAMES: ` A dog and two cars.`"""
    if not counts:
        return NOTHING
    parts = [article(n) if counts[n] == 1 else f"{NUMBERS[counts[n]]} {plural(n)}" for n in NAMES if n in counts]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return " " + text[0].upper() + text[1:] + "."


def yes_no(flag):
    return " Yes." if flag else " No."


def count_answer(n):
    return f" {NUMBERS[n].capitalize()}."


def fill(template, kind):
    return template.format(a=article(kind), pl=plural(kind))


def rough(rng: random.Random, question):
    """The question as hurried people type it: now and then without capital or end mark."""
    k = rng.random()
    if k < 0.08:
        question = question[0].lower() + question[1:]
    if k < 0.04 or 0.96 < k:
        question = question[:-1]
    return question


def words():
    """Every whole word that deserves its own token, with leading space or capital as used."""
    import re
    texts = []
    for t in ASK_CAPTION + ASK_THERE + ASK_COUNT + ASK_READ + ASK_TEXT:
        for n in (NAMES if "{" in t else NAMES[:1]):
            q = fill(t, n)
            texts += [q, q[0].lower() + q[1:]]
    for n in NAMES:
        for c in range(1, 6):
            texts += [caption({n: c}), caption({"airplane": 1, n: c})]
            texts += [" " + article(n) + " and " + NUMBERS[c] + " " + plural(n)]
    texts += [count_answer(c) for c in range(6)] + [yes_no(True), yes_no(False), NOTHING, NO_TEXT]
    texts += [" A sign that says", "User:", "Assistant:", " Yes yes No no", "Yes No"]
    found = set()
    for t in texts:
        found.update(re.findall(r" ?[A-Za-z]+", t))
    return sorted(w for w in found if len(w.strip()) > 1 or w in (" a", " A"))

"""The tokenizer of the default model: 256 byte characters, whole words, SmolVLM's special tokens.

It is a byte-level BPE without merges: a pre-token that is a word of the
vocabulary becomes one id, everything else falls into single bytes. So captions
are short and text that is read from a picture is spelt.
"""

import json
from functools import lru_cache

import language

SPECIALS_FRONT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIALS_BACK = (["<global-img>"] + [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
                 + ["<fake_token_around_image>", "<image>", "<end_of_utterance>"])


@lru_cache
def byte_characters():
    """GPT-2's printable character for each of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for b in range(256):
        if b in plain:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def spell(text):
    """`text` in byte characters: ` dog` -> `Ġdog`."""
    table = byte_characters()
    return "".join(table[b] for b in text.encode())


def build():
    """The tokenizer.json document (a dict) and the padded vocabulary size."""
    vocab = {}
    for t in SPECIALS_FRONT:
        vocab[t] = len(vocab)
    for b in range(256):
        vocab[byte_characters()[b]] = len(vocab)
    for w in language.words():
        vocab.setdefault(spell(w), len(vocab))
    specials = dict((t, vocab[t]) for t in SPECIALS_FRONT)
    for t in SPECIALS_BACK:
        specials[t] = vocab[t] = len(vocab)
    size = -(-len(vocab) // 8) * 8
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for t, i in specials.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<|endoftext|>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": vocab, "merges": []},
    }
    return document, size


class Codec:
    """The tokenizer with the ids that training needs at hand."""

    def __init__(self):
        from tokenizers import Tokenizer
        document, self.size = build()
        self.inner = Tokenizer.from_str(json.dumps(document))
        one = self.inner.token_to_id
        self.start, self.pad, self.end = one("<|im_start|>"), one("<|im_end|>"), one("<end_of_utterance>")
        self.image, self.fake, self.whole = one("<image>"), one("<fake_token_around_image>"), one("<global-img>")
        self.byte_ids = [one(c) for c in (byte_characters()[b] for b in range(256))]
        self._cache = {}

    def encode(self, text):
        ids = self._cache.get(text)
        if ids is None:
            ids = self.inner.encode(text, add_special_tokens=False).ids
            if len(self._cache) < 50000:
                self._cache[text] = ids
        return ids

    def spell(self, text):
        """One id per byte, never whole words: the form in which text is read from a picture."""
        return [self.byte_ids[b] for b in text.encode()]

    def decode(self, ids):
        return self.inner.decode(ids, skip_special_tokens=True)

    def prefix(self, image_tokens):
        """Ids before the question of a prompt with one picture."""
        return ([self.start] + self.encode("User:") + [self.fake, self.whole]
                + [self.image] * image_tokens + [self.fake])

    def turn(self, question):
        """Ids from the question to where the answer begins."""
        return self.encode(question) + [self.end] + self.encode("\nAssistant:")


if __name__ == "__main__":
    c = Codec()
    samples = [" A dog and two cars.", "Can you describe this image?", 'x" EXIT 24.99 é\n€', " Yes.", "Is there a dog in the picture?"]
    for s in samples:
        assert c.decode(c.encode(s)) == s, s
        print(len(c.encode(s)), s)
    full = c.inner.encode("<|im_start|>User:<fake_token_around_image><global-img>" + "<image>" * 36
                          + "<fake_token_around_image>Is there a dog?<end_of_utterance>\nAssistant:").ids
    assert full == c.prefix(36) + c.turn("Is there a dog?"), "prompt ids differ"
    print("vocabulary", c.size, "prefix", len(c.prefix(36)))

"""Scores of answers: objects, counts, yes/no, character errors."""

import re

import language


def distance(a, b):
    """Levenshtein distance of two strings."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


PATTERNS = {n: re.compile(rf"\b({n}|{language.plural(n)})\b", re.I) for n in language.NAMES}


def objects(text):
    """The set of kinds that a caption names."""
    return {n for n, p in PATTERNS.items() if p.search(text)}


def plain(text):
    return " ".join(text.split())


def score(items, answers):
    """Metrics of {id: text} against items with keys id, kind, answer.

    An item without an answer counts as an empty answer.
    """
    n = dict(caption=0, yes_no=0, count=0, read=0)
    exact = dict(n)
    hit = said = true = 0
    errors = length = errors8 = length8 = exact8 = reads8 = 0
    yes_right = yes_total = 0
    kinds = {}
    for item in items:
        want, got = plain(item["answer"]), plain(answers.get(item["id"], ""))
        kind = item["kind"]
        n[kind] += 1
        if kind in ("yes_no", "count"):
            same = want.rstrip(".").lower() == got.rstrip(".").lower()
        else:
            same = want == got
        exact[kind] += same
        if kind == "caption":
            a, b = objects(want), objects(got)
            hit, said, true = hit + len(a & b), said + len(b), true + len(a)
            for k in a:
                kinds.setdefault(k, [0, 0])[0] += k in b
                kinds[k][1] += 1
        elif kind == "yes_no" and want == "Yes.":
            yes_total += 1
            yes_right += same
        elif kind == "read":
            e = distance(want, got)
            errors, length = errors + e, length + len(want)
            if len(want) <= 8:
                errors8, length8, exact8, reads8 = errors8 + e, length8 + len(want), exact8 + same, reads8 + 1
    r = lambda a, b: round(a / b, 4) if b else None
    return {
        "object_recall": r(hit, true), "object_precision": r(hit, said), "caption_exact": r(exact["caption"], n["caption"]),
        "count_accuracy": r(exact["count"], n["count"]), "yes_no_accuracy": r(exact["yes_no"], n["yes_no"]),
        "yes_recall": r(yes_right, yes_total), "no_recall": r(exact["yes_no"] - yes_right, n["yes_no"] - yes_total),
        "cer": r(errors, length), "cer_up_to_8": r(errors8, length8), "read_exact": r(exact["read"], n["read"]),
        "read_exact_up_to_8": r(exact8, reads8), "object_kinds_seen": len(kinds),
        "object_kinds_recall_at_least_half": sum(a * 2 >= b for a, b in kinds.values()),
        "questions": dict(n, read_up_to_8=reads8),
    }

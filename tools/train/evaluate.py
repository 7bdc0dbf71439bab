"""Makes the held-out set, answers it, scores the answers.

    python evaluate.py make SET                                  # pictures and items.jsonl into the folder SET
    python evaluate.py answer SET --torch DIR -o answers.jsonl   # the exported directory in torch, f32
    python evaluate.py answer SET --binary PATH --model M -o answers.jsonl [--precision f32]
    python evaluate.py score SET answers.jsonl [-o metrics.json]

items.jsonl has one object a line: id, image, kind (caption, yes_no, count, read), question, answer.
answers.jsonl has one object a line: id, text.
"""

import argparse
import json
import os
import subprocess
import sys

import heldout
import score


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def make(folder, scenes, signs, seed):
    """Writes the held-out pictures as PNG and their questions; the same seed gives the same files."""
    from PIL import Image
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "items.jsonl"), "w", encoding="utf-8") as f:
        for i, p, questions in heldout.make(scenes, signs, seed):
            name = f"{i:04d}.png"
            Image.fromarray(p.image).save(os.path.join(folder, name))
            for j, (kind, question, answer) in enumerate(questions):
                item = dict(id=f"{i:04d}-{j}", image=name, kind=kind, question=question, answer=answer)
                f.write(json.dumps(item, ensure_ascii=False) + "\n")
    print(scenes + signs, "pictures in", folder)


def answer_torch(folder, items, directory):
    """{id: text} by the exported directory in torch f32, through the published preprocessing."""
    import torch
    from PIL import Image

    import export
    import train
    from tokenizer import Codec
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    model, codec = export.load(directory), Codec()
    tiles = {}
    for item in items:
        if item["image"] not in tiles:
            tiles[item["image"]] = heldout.preprocess(Image.open(os.path.join(folder, item["image"])), model.shape.tile)
    texts = train.answer(model, codec, [tiles[i["image"]] for i in items], [i["question"] for i in items], most=48)
    return {i["id"]: t for i, t in zip(items, texts)}


def answer_binary(folder, items, binary, model, precision):
    """{id: text} by the program, one call an item; a failed call is reported and counts as no answer."""
    answers = {}
    for n, item in enumerate(items):
        command = [binary, "ask", os.path.join(folder, item["image"]), item["question"], "--model", model, "--json", "--max-tokens", "48"]
        if precision:
            command += ["--precision", precision]
        run = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
        if run.returncode or not lines:
            print(item["id"], "exit", run.returncode, run.stderr.strip()[-300:], file=sys.stderr)
            continue
        answers[item["id"]] = json.loads(lines[-1])["text"]
        if n % 100 == 99:
            print(n + 1, "of", len(items), file=sys.stderr)
    return answers


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = ap.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("make")
    p.add_argument("set")
    p.add_argument("--scenes", type=int, default=240)
    p.add_argument("--signs", type=int, default=180)
    p.add_argument("--seed", type=int, default=2026)
    p = verbs.add_parser("answer")
    p.add_argument("set")
    p.add_argument("--torch", metavar="DIR")
    p.add_argument("--binary", metavar="PATH")
    p.add_argument("--model")
    p.add_argument("--precision")
    p.add_argument("-o", "--out", required=True)
    p = verbs.add_parser("score")
    p.add_argument("set")
    p.add_argument("answers")
    p.add_argument("-o", "--out")
    args = ap.parse_args()
    if args.verb == "make":
        make(args.set, args.scenes, args.signs, args.seed)
        return
    items = read_lines(os.path.join(args.set, "items.jsonl"))
    if args.verb == "answer":
        if bool(args.torch) == bool(args.binary):
            ap.error("give --torch DIR or --binary PATH --model M")
        if args.torch:
            answers = answer_torch(args.set, items, args.torch)
        else:
            answers = answer_binary(args.set, items, args.binary, args.model or "default", args.precision)
        with open(args.out, "w", encoding="utf-8") as f:
            for item in items:
                if item["id"] in answers:
                    f.write(json.dumps(dict(id=item["id"], text=answers[item["id"]]), ensure_ascii=False) + "\n")
    else:
        answers = {a["id"]: a["text"] for a in read_lines(args.answers)}
        metrics = score.score(items, answers)
        metrics["answered"] = sum(i["id"] in answers for i in items)
        text = json.dumps(metrics, indent=2)
        print(text)
        if args.out:
            with open(args.out, "w", encoding="utf-8") as f:
                f.write(text + "\n")


if __name__ == "__main__":
    main()

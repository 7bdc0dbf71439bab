"""Trains the default model from rendered pictures on CPUs.

    python train.py --out DIR --minutes 100        # from scratch
    python train.py --out DIR --minutes 60 --resume DIR/last.pt [--fresh-schedule]

Every picture is encoded once and answers several questions. Linear heads on the
tower and on the image tokens learn what every patch shows; they carry most of the
learning at first. Writes DIR/log.jsonl, DIR/last.pt (all state), DIR/ema.pt (weights).

One process a core renders and learns on one thread; the processes share the weights
and meet twice a step: to add up their gradients, and when each has updated its share
of the parameters. On a busy machine that is much faster than one process with threads,
which wait for each other in every layer.
"""

import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

import heldout
import render
import score
import turns
from model import Heads, Ocelli, Shape, packed_bias
from optimizer import inner, split
from tokenizer import Codec

LENGTH = 112


class Batches:
    """Endless batches of rendered pictures with packed turns and patch labels."""

    def __init__(self, shape, codec, seed, length=LENGTH):
        self.shape, self.codec, self.length = shape, codec, length
        self.studio = render.Studio(seed, shape.tile)

    def take(self, count, read_share, ease, sign_ease, crowd_share):
        """-> images uint8 [b, t, t, 3], (tokens, segment, position, weight) [b, n], (classes, order, centre) [b, g, g]."""
        pictures = [self.studio.picture(read_share, ease, crowd_share, sign_ease) for _ in range(count)]
        rows = [turns.pack(self.codec, self.studio.rng, p, self.shape.image_tokens, self.length) for p in pictures]
        stack = lambda values: torch.from_numpy(np.stack(values))
        labels = [stack([getattr(p, k) for p in pictures]) for k in ("classes", "order", "centre")]
        return stack([p.image for p in pictures]), [stack(c) for c in zip(*rows)], labels


def pixels(images):
    """uint8 [b, h, w, 3] -> float [b, 3, h, w] in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def shuffle_labels(labels, s):
    """[b, g, g] -> [b, tokens, s*s], in the order of the pixel shuffle."""
    b, g, _ = labels.shape
    return labels.view(b, g // s, s, g // s, s).permute(0, 1, 3, 2, 4).reshape(b, (g // s) ** 2, s * s)


def class_weights():
    """Weights of the patch classes: little for background, more for characters, which are small and many."""
    w = torch.full((render.CLASSES,), 0.8)
    w[0], w[render.CHAR_CLASS:] = 0.12, 2.2
    return w


def order_weights():
    w = torch.ones(render.ORDERS)
    w[0] = 0.1
    return w


def weighted(logits, target, weights):
    """Cross-entropy with a weight per class."""
    return F.cross_entropy(logits.float().flatten(0, -2), target.long().flatten(), weight=weights)


def patch_losses(see, heads, shape, images, classes, order, centre):
    """-> (image tokens, losses [4]: patch class, token class, order, centre; patch class logits)."""
    features, image = see(pixels(images))
    (pc, po, pm), (tc, to) = heads(features, image)
    s = shape.shuffle
    flat = lambda x: x.reshape(x.shape[0], -1)
    losses = torch.stack([
        weighted(pc, flat(classes), class_weights()),
        weighted(tc, shuffle_labels(classes, s), class_weights()),
        weighted(po, flat(order), order_weights()) + weighted(to, shuffle_labels(order, s), order_weights()),
        F.binary_cross_entropy_with_logits(pm.float(), flat(centre).float(), pos_weight=torch.tensor(8.0))])
    return image, losses, pc


@torch.no_grad()
def answer(model, codec, images, questions, most=40, batch=50):
    """Greedy answers to one question per image; images uint8 [n, t, t, 3] (numpy), returns texts."""
    prefix = codec.prefix(model.shape.image_tokens)
    first = prefix.index(codec.image)
    rows = [prefix + codec.turn(q) for q in questions]
    starts = [len(r) for r in rows]
    for at in range(0, len(rows), batch):
        open_rows = list(range(at, min(at + batch, len(rows))))
        _, image = model.see(pixels(torch.from_numpy(np.stack([images[i] for i in open_rows]))))
        for _ in range(most):
            n = max(len(rows[i]) for i in open_rows)
            tokens = torch.tensor([rows[i] + [codec.pad] * (n - len(rows[i])) for i in open_rows])
            bias = torch.zeros(n, n).masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -30000.0)[None, None]
            hidden = model.say(image[[i - at for i in open_rows]], tokens, torch.arange(n).expand(len(open_rows), n), bias.to(image.dtype), first)
            last = hidden[torch.arange(len(open_rows)), torch.tensor([len(rows[i]) - 1 for i in open_rows])]
            chosen = model.lm_head(last).argmax(-1).tolist()
            for i, t in zip(open_rows, chosen):
                if t != codec.end:
                    rows[i].append(t)
            open_rows = [i for i, t in zip(open_rows, chosen) if t != codec.end]
            if not open_rows:
                break
    return [codec.decode(r[s:]) for r, s in zip(rows, starts)]


class HeldOut:
    """A preprocessed held-out set for quick looks while training."""

    def __init__(self, path, tile, scenes, signs):
        from PIL import Image
        self.items, self.images = [], []
        if os.path.exists(path):
            data = np.load(path, allow_pickle=True)
            self.items, self.images = list(data["items"]), data["images"]
        else:
            for i, p, qs in heldout.make(scenes, signs, seed=77):
                self.images.append(heldout.preprocess(Image.fromarray(p.image), tile))
                self.items += [dict(id=f"{i}.{j}", picture=i, kind=k, question=q, answer=a) for j, (k, q, a) in enumerate(qs)]
            np.savez(path, items=np.array(self.items, dtype=object), images=np.stack(self.images))

    def look(self, model, codec):
        model.eval()
        with torch.autocast("cpu", torch.bfloat16):
            texts = answer(model, codec, [self.images[i["picture"]] for i in self.items], [i["question"] for i in self.items], most=24)
        model.train()
        answers = {i["id"]: t for i, t in zip(self.items, texts)}
        return score.score(self.items, answers), [(i["answer"], answers[i["id"]]) for i in self.items if i["kind"] in ("caption", "read")]


def save(path, value):
    torch.save(value, path + ".part")
    os.replace(path + ".part", path)


class Shared:
    """What the training processes share: weights, averaged weights, gradients, the clock and a meeting point."""

    def __init__(self, model, heads, ema, workers):
        self.model, self.heads, self.ema = model.share_memory(), heads.share_memory(), ema
        for v in ema.values():
            v.share_memory_()
        size = sum(p.numel() for p in [*model.parameters(), *heads.parameters()])
        self.grads = torch.zeros(workers, size).share_memory_()
        # seconds trained; whether to save now
        self.clock = torch.zeros(2, dtype=torch.float64).share_memory_()
        self.barrier = torch.multiprocessing.get_context("spawn").Barrier(workers)


def cost(name, p):
    """A rough time of a parameter's update: Newton-Schulz for matrices, memory for the rest."""
    return p.numel() * (min(p.shape) if p.dim() == 2 and inner(name) else 10)


def deal(named, workers):
    """Deals the parameters (name, parameter) out to the workers so that all updates take the same time: a set of indices each."""
    hands, load = [set() for _ in range(workers)], [0.0] * workers
    for i in sorted(range(len(named)), key=lambda i: -cost(*named[i])):
        r = load.index(min(load))
        load[r] += cost(*named[i])
        hands[r].add(i)
    return hands


class Update:
    """One process's share of the parameter updates, and its optimizer state."""

    def __init__(self, rank, args, shared, resumed):
        self.rank, self.shared = rank, shared
        named = [*shared.model.named_parameters(), *shared.heads.named_parameters()]
        self.params = [p for _, p in named]
        self.offsets = np.cumsum([0] + [p.numel() for p in self.params])
        self.mine = sorted(deal(named, args.workers)[rank])
        self.optimizers = split([named[i] for i in self.mine], args.lr, args.lr_rest)
        self.peaks = (args.lr, args.lr_rest)
        self.average = [(shared.ema[named[i][0]], self.params[i]) for i in self.mine if named[i][0] in shared.ema]
        self.path = os.path.join(args.out, f"optimizer{rank}.pt")
        if resumed and os.path.exists(self.path):
            for opt, state in zip(self.optimizers, torch.load(self.path, weights_only=True)):
                opt.load_state_dict(state)

    def save(self):
        save(self.path, [opt.state_dict() for opt in self.optimizers])

    def _slot(self, i):
        return slice(self.offsets[i], self.offsets[i + 1])

    def step(self, rate, number):
        """Hands in this process's gradients and, when all have, updates its share; returns the seconds waited."""
        for i, p in enumerate(self.params):
            slot = self.shared.grads[self.rank, self._slot(i)]
            slot.zero_() if p.grad is None else slot.copy_(p.grad.flatten())
            p.grad = None
        wait = time.time()
        self.shared.barrier.wait()
        wait = time.time() - wait
        for i in self.mine:
            self.params[i].grad = self.shared.grads[:, self._slot(i)].mean(0).view_as(self.params[i])
        muon, adam = self.optimizers
        torch.nn.utils.clip_grad_norm_([p for g in adam.param_groups for p in g["params"]], 0.7)
        for opt, peak in zip(self.optimizers, self.peaks):
            for g in opt.param_groups:
                g["lr"] = peak * rate
            opt.step()
        for i in self.mine:
            self.params[i].grad = None
        with torch.no_grad():
            torch._foreach_lerp_([e for e, _ in self.average], [p for _, p in self.average], 1 - min(0.998, number / (19 + number)))
        self.shared.barrier.wait()
        return wait


class Report:
    """The log of a run: means over some steps, and looks at the held-out set."""

    def __init__(self, args, shape):
        self.file = open(os.path.join(args.out, "log.jsonl"), "a", buffering=1)
        self.quick = HeldOut(os.path.join(args.out, "quick.npz"), shape.tile, 60, 50)
        self.sums, self.count, self.stall, self.since = {}, 0, 0.0, time.time()

    def note(self, **fields):
        line = json.dumps(fields)
        self.file.write(line + "\n")
        print(line, flush=True)

    def add(self, losses, told, guess, classes):
        """Adds the losses of a step and how many patches were seen rightly."""
        values = dict(zip(("patch", "token", "order", "centre"), losses.tolist()))
        if told is not None:
            values["say"] = told.item()
        y = classes.flatten(1).long()
        for k, sel in (("see_objects", (y > 0) & (y < render.CHAR_CLASS)), ("see_letters", y >= render.CHAR_CLASS)):
            if sel.any():
                values[k] = (guess.argmax(-1) == y)[sel].float().mean().item()
        for k, v in values.items():
            self.sums[k] = self.sums.get(k, 0) + v
        self.count += 1

    def flush(self, pictures, **fields):
        now = time.time()
        self.note(**fields, speed=round(pictures / (now - self.since), 1), stall=round(self.stall / (now - self.since), 2),
                  **{k: round(v / self.count, 4) for k, v in self.sums.items()})
        self.sums, self.count, self.stall, self.since = {}, 0, 0.0, now

    def look(self, ema, shape, codec, **fields):
        """Evaluates the averaged weights on the quick held-out set."""
        probe = Ocelli(shape)
        probe.load_state_dict(ema)
        result, examples = self.quick.look(probe, codec)
        self.note(eval=result, **fields, examples=examples[:12])
        self.since = time.time()


def work(rank, args, shared, start):
    """One training process; process 0 also keeps the clock, reports and saves."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed + rank)
    codec = Codec()
    model, heads, ema = shared.model, shared.heads, shared.ema
    shape = model.shape
    update = Update(rank, args, shared, start["resumed"])
    step, seen, before = start["step"], start["seen"], start["elapsed"]
    data = Batches(shape, codec, args.seed * 100003 + seen * 7 + rank)
    aux, say = patch_losses, model.say
    if not args.no_compile:
        aux, say = torch.compile(patch_losses, dynamic=False), torch.compile(model.say, dynamic=False)
    first = codec.prefix(shape.image_tokens).index(codec.image)
    report = Report(args, shape) if rank == 0 else None
    if report:
        report.note(parameters=sum(p.numel() for p in model.parameters()), shape=shape.as_dict(), arguments=vars(args))
    clock = last_look = last_save = time.time()

    while True:
        # process 0 sets the clock, so that all take the same decisions
        if report:
            now = time.time()
            stop = before + now - clock >= args.minutes * 60 or os.path.exists(os.path.join(args.out, "stop"))
            shared.clock[0], shared.clock[1] = before + now - clock, 2.0 if stop else float(now - last_save > args.save_minutes * 60)
        shared.barrier.wait()
        elapsed, command = shared.clock.tolist()
        shared.barrier.wait()
        if command:
            update.save()
            if report:
                save(os.path.join(args.out, "last.pt"), dict(model=model.state_dict(), heads=heads.state_dict(), ema=ema,
                                                             step=step, seen=seen, elapsed=elapsed, shape=shape.as_dict()))
                save(os.path.join(args.out, "ema.pt"), {k: v.bfloat16() for k, v in ema.items()})
                last_save = time.time()
        if command == 2:
            break
        done = min(1.0, elapsed / (args.minutes * 60))
        ease, sign_ease = (max(0.0, 1 - done / until) if until > 0 else 0.0 for until in (args.easy_until, args.easy_signs_until))
        rate = min(1, (step + 1) / 120) * (0.5 * (1 + math.cos(math.pi * done)) * 0.99 + 0.01)
        tower_only = done < args.tower_first
        crowd_share = 0.65 if tower_only else 0.18 * (1 - 0.7 * done)

        images, (tokens, segment, position, weight), (classes, order, centre) = data.take(args.batch, args.read_share, ease, sign_ease, crowd_share)
        with torch.autocast("cpu", torch.bfloat16):
            image, losses, guess = aux(model.see, heads, shape, images, classes, order, centre)
        fade = 1.0 if tower_only else 0.25 + 0.75 * 0.5 * (1 + math.cos(math.pi * done))
        loss = fade * (losses * torch.tensor([1.0, 0.7, 0.25, 0.3])).sum()
        told = None
        if not tower_only:
            with torch.autocast("cpu", torch.bfloat16):
                hidden = say(image, tokens.long(), position.long(), packed_bias(segment), first)
                where = weight[:, :-1] > 0
                logits = model.lm_head(hidden[:, :-1][where])
            w = weight[:, :-1][where]
            each = F.cross_entropy(logits.float(), tokens[:, 1:][where].long(), reduction="none")
            told = (each * w).sum() / w.sum()
            loss = loss + 1.5 * told
        loss.backward()
        step += 1
        seen += args.batch * args.workers
        wait = update.step(rate, step)
        if report:
            report.stall += wait
            if step % 5 == 0:
                report.add(losses, told, guess, classes)
            if step % 50 == 0:
                report.flush(50 * args.batch * args.workers, step=step, seen=seen, minute=round(elapsed / 60, 1), ease=round(ease, 2), rate=round(rate, 3))
            if not tower_only and time.time() - last_look > args.eval_minutes * 60:
                report.look(ema, shape, codec, seen=seen, minute=round(elapsed / 60, 1))
                last_look = time.time()
    if report:
        report.look(ema, shape, codec, seen=seen, minute=round(elapsed / 60, 1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--minutes", type=float, default=100)
    ap.add_argument("--batch", type=int, default=24, help="pictures a step in each process")
    ap.add_argument("--workers", type=int, default=2, help="processes, one a core")
    ap.add_argument("--lr", type=float, default=4e-3, help="peak learning rate of the matrices (Muon)")
    ap.add_argument("--lr-rest", type=float, default=2e-3, help="peak learning rate of everything else (AdamW)")
    ap.add_argument("--tower-first", type=float, default=0.13, help="share of the time in which only the tower learns")
    ap.add_argument("--easy-until", type=float, default=0.4, help="share of the time in which pictures grow harder")
    ap.add_argument("--easy-signs-until", type=float, default=0.8, help="the same for signs")
    ap.add_argument("--read-share", type=float, default=0.58)
    ap.add_argument("--eval-minutes", type=float, default=15)
    ap.add_argument("--save-minutes", type=float, default=5)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--resume", help="last.pt of an earlier run; the optimizer state is looked for in --out")
    ap.add_argument("--fresh-schedule", action="store_true", help="with --resume: keep the weights, start the schedule anew")
    ap.add_argument("--no-compile", action="store_true")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    model = Ocelli(Shape(vocab=Codec().size))
    heads = Heads(model.shape, render.CLASSES, render.ORDERS)
    ema = {k: v.clone() for k, v in model.state_dict().items()}
    start = dict(step=0, seen=0, elapsed=0.0, resumed=bool(args.resume))
    if args.resume:
        st = torch.load(args.resume, weights_only=True)
        model.load_state_dict(st["model"])
        heads.load_state_dict(st["heads"])
        ema = st["ema"]
        start["seen"] = st["seen"]
        if not args.fresh_schedule:
            start.update(step=st["step"], elapsed=st["elapsed"])
    else:
        studio = render.Studio(args.seed, model.shape.tile, pool=60)
        model.reset_patches(pixels(torch.from_numpy(np.stack([studio.picture(0.4, 0.3, 0.3).image for _ in range(120)]))))
        ema = {k: v.clone() for k, v in model.state_dict().items()}
    shared = Shared(model, heads, ema, args.workers)
    torch.multiprocessing.spawn(work, (args, shared, start), args.workers)


if __name__ == "__main__":
    main()

"""Muon for the matrices of the layers, AdamW for everything else.

Muon replaces the momentum of a matrix by its nearest orthogonal matrix, found
with five Newton-Schulz steps; matrices of one size are treated as one batch.
It learns from markedly fewer pictures than AdamW alone.
"""

import torch


def orthogonal(g, steps=5):
    """Approximately orthogonal matrices of g [k, rows, cols] in bf16."""
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Step of root-mean-square 0.2 lr on every entry, with decoupled weight decay."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.05):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(tuple(p.shape), []).append(p)
            for (rows, cols), ps in by_shape.items():
                moms = []
                for p in ps:
                    st = self.state[p]
                    if "momentum" not in st:
                        st["momentum"] = torch.zeros_like(p)
                    moms.append(st["momentum"])
                grads = [p.grad for p in ps]
                torch._foreach_lerp_(moms, grads, 1 - group["momentum"])
                update = orthogonal(torch.stack(torch._foreach_lerp(grads, moms, group["momentum"])))
                scale = 0.2 * max(rows, cols) ** 0.5
                torch._foreach_mul_(ps, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(ps, [u.float() for u in update.unbind()], alpha=-group["lr"] * scale)


def inner(name):
    """Whether a two-dimensional parameter of this name is a matrix inside the layers, so one for Muon."""
    return name.startswith("model.") and "embed" not in name


def split(named, lr_matrix, lr_rest):
    """(Muon, AdamW) over the parameters `named`, a list of (name, parameter)."""
    matrices = [p for n, p in named if p.dim() == 2 and inner(n)]
    rest = [p for n, p in named if not (p.dim() == 2 and inner(n))]
    decay = [p for p in rest if p.dim() > 1]
    plain = [p for p in rest if p.dim() == 1]
    adam = torch.optim.AdamW([dict(params=decay, weight_decay=0.02), dict(params=plain, weight_decay=0.0)],
                             lr=lr_rest, betas=(0.9, 0.97), fused=True)
    return Muon(matrices, lr_matrix), adam

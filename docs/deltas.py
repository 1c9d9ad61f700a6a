"""The numbers of ``docs/deltas.md``: ``python docs/deltas.py`` prints its blocks, and a test compares them.

One linear encoder is called three times, on an anchor, a positive and a negative. What each call brings to
the one weight is computed here without gradflow's capture, so that the page stands on its own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradflow.updates import DeltaSplitter

STEPS = 20
BRANCHES = ("anchor", "positive", "negative")
Make = Callable[[list[Tensor]], Optimizer]


@dataclass(frozen=True, slots=True)
class Seen:
    """One step: what each call brought, the parts of the delta, and the delta as measured."""

    brought: dict[str, Tensor]
    parts: dict[str, Tensor]
    delta: Tensor


def weight() -> torch.nn.Parameter:
    """Give the encoder's weight as it is before training, [4, 8] float64."""
    generator = torch.Generator().manual_seed(3)
    return torch.nn.Parameter(torch.randn(4, 8, generator=generator, dtype=torch.float64) / 3)


def contributions(step: int, param: Tensor) -> dict[str, Tensor]:
    """Compute what each call brings: the triplet loss's gradient at its output, times its input."""
    generator = torch.Generator().manual_seed(step)
    anchor, noise, negative = torch.randn(3, 16, 8, generator=generator, dtype=torch.float64)
    inputs = (anchor, anchor + noise / 2, negative)
    outputs = [(x @ param.detach().T).requires_grad_() for x in inputs]
    with torch.enable_grad():
        loss = torch.nn.functional.triplet_margin_loss(*outputs, margin=2.0)
    arriving = torch.autograd.grad(loss, outputs)
    return {name: g.T @ x for name, g, x in zip(BRANCHES, arriving, inputs, strict=True)}


def train(make: Make, *, watch_from: int = 0) -> list[Seen]:
    """Train, and give the steps from ``watch_from`` on."""
    param = weight()
    optimizer = make([param])
    splitter, seen = DeltaSplitter(optimizer), []
    with torch.no_grad():
        for step in range(STEPS):
            brought, theta = contributions(step, param), param.detach().clone()
            param.grad = total(brought.values())
            if step < watch_from:
                optimizer.step()
                continue
            splitter.before(param, brought)
            optimizer.step()
            parts = splitter.after(param, theta).parts
            seen.append(Seen(brought, parts, param.detach() - theta))
    return seen


def alone(make: Make, gradients: Iterable[Tensor]) -> Tensor:
    """Give how far an optimizer of its own goes that is fed these gradients and no others."""
    param = weight()
    optimizer, start = make([param]), param.detach().clone()
    for gradient in gradients:
        param.grad = gradient.clone()
        optimizer.step()
    return param.detach() - start


def total(tensors: Iterable[Tensor]) -> Tensor:
    """Sum tensors."""
    return torch.stack(list(tensors)).sum(dim=0)


def share(part: Tensor, whole: Tensor) -> float:
    """Project a part on the whole, as a fraction of it."""
    return float((part * whole).sum() / (whole * whole).sum())


def adam(params: list[Tensor]) -> Optimizer:
    """Make the Adam of the page."""
    return torch.optim.Adam(params, lr=0.05)


def adamw(params: list[Tensor]) -> Optimizer:
    """Make the AdamW of the page; its decay is large, to be seen."""
    return torch.optim.AdamW(params, lr=0.05, weight_decay=0.3)


def sgd(params: list[Tensor]) -> Optimizer:
    """Make the SGD of the page."""
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


def last_step() -> str:
    """Show one AdamW step: what each brought, and what of the delta it is credited with."""
    seen = train(adamw)[-1]
    gradient = total(seen.brought.values())
    rows = ["step 20, AdamW   gradient  share      part  share"]
    for name, part in seen.parts.items():
        given = seen.brought.get(name)
        before = "" if given is None else f"{given.norm():9.4f}{share(given, gradient):7.0%}"
        rows.append(f"{name:16}{before:16}{part.norm():10.4f}{share(part, seen.delta):7.0%}")
    whole = total(seen.parts.values())
    rows.append(
        f"{'sum':16}{gradient.norm():9.4f}{1:7.0%}{whole.norm():10.4f}{share(whole, seen.delta):7.0%}"
    )
    rows.append(f"{'measured delta':32}{seen.delta.norm():10.4f}")
    return "\n".join(rows)


def whole_run() -> str:
    """Set the accounting beside the counterfactual, for SGD and for Adam: norms over 20 steps."""
    columns, reals = [], []
    for make in (sgd, adam):
        seen = train(make)
        columns.append({b: total(s.parts[b] for s in seen) for b in BRANCHES})
        columns.append({b: alone(make, (s.brought[b] for s in seen)) for b in BRANCHES})
        reals += [total(s.delta for s in seen)] * 2
    sums = [total(column.values()) for column in columns]
    apart = [f"{(s - real).norm() / real.norm():.1%}" for s, real in zip(sums, reals, strict=True)]
    rows = [
        row("20 steps", ("SGD part", "SGD alone", "Adam part", "Adam alone")),
        *(row(name, (f"{c[name].norm():.3f}" for c in columns)) for name in BRANCHES),
        row("their sum", (f"{s.norm():.3f}" for s in sums)),
        row("real delta", (f"{real.norm():.3f}" for real in reals)),
        row("apart by", apart),
    ]
    return "\n".join(rows)


def row(title: str, cells: Iterable[str]) -> str:
    """Set out one line of a table."""
    return f"{title:12}" + "".join(f"{cell:>12}" for cell in cells)


def attached_late() -> str:
    """Show how momentum from before watching fades: the share of ``history`` in each of Adam's steps."""
    shares = [share(seen.parts["history"], seen.delta) for seen in train(adam, watch_from=10)]
    steps = "".join(f"{number:6d}" for number in range(1, len(shares) + 1))
    return f"watched step{steps}\nhistory     " + "".join(f"{s:6.0%}" for s in shares)


def this_step() -> str:
    """Tell how much of Adam's momentum is this step's gradient: the rest is what earlier ones left."""
    shares, momentum = [], torch.zeros_like(weight())
    for seen in train(adam):
        now = 0.1 * total(seen.brought.values())
        momentum = 0.9 * momentum + now
        shares.append(share(now, momentum))
    average = sum(shares[10:]) / len(shares[10:])
    return f"share of this step's own gradient in Adam's momentum, steps 11 to 20: {average:.0%}"


def muon_rounding() -> str:
    """Tell how much of Muon's delta its bfloat16 iteration rounds, at worst in 20 steps."""
    generator = torch.Generator().manual_seed(0)
    param = torch.nn.Parameter(torch.randn(64, 32, generator=generator))
    optimizer = torch.optim.Muon([param], lr=0.02)
    splitter, worst = DeltaSplitter(optimizer), 0.0
    with torch.no_grad():
        for _ in range(STEPS):
            brought = dict(zip("ab", torch.randn(2, 64, 32, generator=generator), strict=True))
            param.grad, theta = total(brought.values()), param.detach().clone()
            splitter.before(param, brought)
            optimizer.step()
            rounding = splitter.after(param, theta).parts["rounding"]
            worst = max(worst, float(rounding.norm() / (param - theta).norm()))
    return f"rounding in Muon's delta, a matrix of 64 by 32: less than {math.ceil(100 * worst)}%"


BLOCKS = (last_step, whole_run, attached_late, this_step, muon_rounding)

if __name__ == "__main__":
    sys.stdout.write("\n\n".join(block() for block in BLOCKS) + "\n")

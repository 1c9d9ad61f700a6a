"""A trunk under three heads: what it costs to tell apart what each loss wants of the trunk."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import torch

import gradflow
from benchmarks.floors import bare
from benchmarks.nets import Job, sgd, trunk
from benchmarks.page import Row, Table, timed
from benchmarks.timing import Spread, Variant, Work, interleave, then

__all__ = ["grads_instead", "split"]

_BASE = "the plain step, and three `autograd.grad` of the trunk beside it"
_FLOOR = "floor: that, with hooks on the nodes that keep references"


def split(scale: float = 1.0) -> Table:
    """Compare ``stems="split"`` with a call of ``autograd.grad`` for each loss, and with TorchJD."""
    variants: dict[str, Work | Variant] = {"a plain step": trunk(sgd).step}
    variants[_BASE] = partial(_grads_beside, trunk(sgd))
    job = trunk(sgd)
    variants[_FLOOR] = bare(job, partial(_grads_beside, job))
    variants["three `autograd.grad` instead of `backward`, summed by hand"] = partial(
        grads_instead, trunk(sgd)
    )
    flows = []
    for stems in ("split", "report"):
        job = trunk(sgd)
        flows.append(gradflow.watch(job.model, branches=job.branches, last=1, stems=stems))
        variants[f'gradflow, `stems="{stems}"`'] = then(job.step, flows[-1].step)
    failed = []
    for what, chunk in (("at once", None), ("one by one", 1)):
        work = partial(_torchjd, trunk(sgd), chunk)
        name = f"TorchJD `mtl_backward`, losses {what}, and `jac_to_grad` with `Sum`"
        try:
            work()
        except ImportError as error:
            failed.append(Row(name, f"{type(error).__name__}: {error}"))
        else:
            variants[name] = work
    times = interleave(variants, rounds=max(2, round(30 * scale)), steps=5)
    for flow in flows:
        flow.close()
    rows = []
    for name, one in times.items():
        target = 1.0 if "split" in name else None
        more = (f"{1e3 * Spread.of(one.cpu).median:.1f}",)
        floor = Spread.of(times[_FLOOR].over(times[_BASE]).cpu)
        rows.append(timed(name, one.over(times[_BASE]), target=target, more=more, floor=floor))
    return Table(
        "One trunk under three heads, told apart",
        "An MLP of six layers of 512, three heads, batch 64: a whole training step, as a multiple of one "
        "beside which `torch.autograd.grad` is called for each of the three losses (gradients of the trunk, "
        "and nothing computed from them). gradflow computes inner products and the check as well.",
        [*rows, *(Row(row.what, row.cpu, more=("–",)) for row in failed)],
        "× the second row",
        ("ms",),
    )


def _grads_beside(job: Job) -> None:
    job.optimizer.zero_grad()
    _, losses = job.model(*job.batch)
    params = list(job.model.trunk.parameters())
    _ = [torch.autograd.grad(loss, params, retain_graph=True) for loss in losses]
    torch.stack(losses).sum().backward()
    job.optimizer.step()


def grads_instead(job: Job) -> None:
    """Take the step of someone who backpropagates each loss on its own, and adds up."""
    _, losses = job.model(*job.batch)
    params = list(job.model.parameters())
    found = [torch.autograd.grad(one, params, retain_graph=True, allow_unused=True) for one in losses]
    for param, *parts in zip(params, *found, strict=True):
        param.grad = sum(part for part in parts if part is not None)
    job.optimizer.step()


def _torchjd(job: Job, chunk: int | None) -> None:
    autojac, aggregation = import_module("torchjd.autojac"), import_module("torchjd.aggregation")
    job.optimizer.zero_grad()
    features, losses = job.model(*job.batch)
    autojac.mtl_backward(losses, features, parallel_chunk_size=chunk)
    autojac.jac_to_grad(job.model.trunk.parameters(), aggregation.Sum())
    job.optimizer.step()

"""What a whole training step costs: watched every time or every tenth time, and with deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.autograd.graph import Node

import gradflow
from benchmarks.nets import NETS, Job, Net, adam, sgd
from benchmarks.page import Row, Table, timed
from benchmarks.timing import Spread, Times, Work, interleave

__all__ = ["bare", "deltas", "every_tenth", "then", "times_of", "watched", "whole"]

_SEEN = "bench"
_EVERY = 10
_found: dict[tuple[str, int], dict[str, Times]] = {}


def whole(scale: float = 1.0, nets: Iterable[Net] = NETS.values()) -> Table:
    """Compare a watched step with a plain one."""
    rows = []
    for net in nets:
        times = times_of(net, rounds=_rounds(net, scale))
        plain, seen, floor = times["plain"], times["watched"], times["bare"]
        more = (
            f"{1e3 * Spread.of(plain.cpu).median:.1f}",
            str(Spread.of(floor.over(plain).cpu)),
            str(Spread.of(seen.over(floor).cpu)),
        )
        rows.append(timed(net.title, seen.over(plain), target=net.target, more=more))
    return Table(
        "A whole training step",
        "Watched (contributions, inner products, the check), as a multiple of a plain step with SGD. *bare*: "
        "hooks that keep a reference to each contribution and do nothing else, the floor of any recorder "
        "that uses hooks.",
        rows,
        "× plain",
        ("plain, ms", "bare, × plain", "watched, × bare"),
    )


def every_tenth(scale: float = 1.0, nets: Iterable[Net] = NETS.values()) -> Table:
    """Compare steps of which every tenth is watched with plain ones."""
    rows = []
    for net in nets:
        times = times_of(net, rounds=_rounds(net, scale))
        size = _EVERY // net.steps  # rounds in which one step is watched
        plain, seen = (times[name].in_groups(size) for name in ("plain", "every 10th"))
        if plain.cpu:
            rows.append(timed(net.title, seen.over(plain), target=1.02))
        else:
            rows.append(Row(net.title, "fewer than ten steps were run"))
    return Table(
        "Every tenth step watched",
        "`every=10`: ten steps in a row, the watched one and those without hooks, as a multiple of ten plain "
        "ones. Taken in the same rounds as the table before.",
        rows,
        "× plain",
    )


def deltas(scale: float = 1.0, nets: Iterable[Net] = NETS.values()) -> Table:
    """Compare a watched step whose delta is split with one whose delta is not, with Adam."""
    rows = []
    for net in nets:
        variants, flows = {}, []
        for name in ("plain", "watched", "deltas"):
            variants[name], flow = watched(net.build(adam), name)
            flows += flow
        rounds = max(2, _rounds(net, scale) // 2)
        times = interleave(variants, rounds=rounds, steps=max(1, net.steps // 2), warm=net.warm)
        for flow in flows:
            flow.close()
        more = (str(Spread.of(times["deltas"].over(times["plain"]).cpu)),)
        target = 1.15 if net.name == "B4" else None
        rows.append(timed(net.title, times["deltas"].over(times["watched"]), target=target, more=more))
    return Table(
        "Shares of the delta, with Adam",
        "A watched step whose delta is split among the contributors, as a multiple of a watched one whose "
        "delta is not.",
        rows,
        "× watched",
        ("× plain",),
    )


def times_of(net: Net, *, rounds: int) -> dict[str, Times]:
    """Time a plain step, one with bare hooks, a watched one, and those of which every tenth is watched."""
    if (net.name, rounds) not in _found:
        variants, flows = {}, []
        for name in ("plain", "bare", "watched", "every 10th"):
            variants[name], flow = watched(net.build(sgd), name)
            flows += flow
        _found[net.name, rounds] = interleave(variants, rounds=rounds, steps=net.steps, warm=net.warm)
        for flow in flows:
            flow.close()
    return _found[net.name, rounds]


def _rounds(net: Net, scale: float) -> int:
    return max(2, round(net.rounds * scale))


def watched(job: Job, name: str, **options: object) -> tuple[Work, list[gradflow.Recorder]]:
    """Give the step of a job, observed in the way of that name, and the recorder to close afterwards."""
    if name == "plain":
        return job.step, []
    if name == "bare":
        return bare(job), []
    if name == "every 10th":
        options["every"] = _EVERY
    optimizer = job.optimizer if name == "deltas" else None
    flow = gradflow.watch(job.model, optimizer, branches=job.branches, last=1, **options)
    return (job.step if optimizer is not None else then(job.step, flow.step)), [flow]


def then(first: Work, second: Work) -> Callable[[], None]:
    """Do one after the other."""

    def both() -> None:
        first()
        second()

    return both


def bare(job: Job) -> Callable[[], None]:
    """Give a step whose nodes have hooks that keep references until the step is over, and do nothing else.

    No names, no check, no inner product: what any recorder must pay that plants hooks while forward runs.
    """
    kept: list[torch.Tensor | None] = []

    def plant(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        stack = [t.grad_fn for t in outputs if isinstance(t, torch.Tensor) and t.grad_fn is not None]
        while stack:
            node: Node = stack.pop()
            if _SEEN in node.metadata:
                continue
            node.metadata[_SEEN] = True
            children = node.next_functions
            slots = [i for i, (c, _) in enumerate(children) if type(c).__name__ == "AccumulateGrad"]
            if slots:
                node.register_hook(lambda grads, _, slots=slots: kept.extend(grads[i] for i in slots))
            stack += [c for c, _ in children if c is not None and type(c).__name__ != "AccumulateGrad"]

    for module in job.model.modules():
        module.register_forward_hook(plant)
    return then(job.step, kept.clear)

"""What a whole training step costs: watched every time or every tenth time, and with deltas."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import gradflow
from benchmarks.floors import bare, least, least_split
from benchmarks.nets import NETS, Job, Net, adam, sgd
from benchmarks.page import Table, timed
from benchmarks.timing import Spread, Times, Variant, Work, interleave, pooled, then, warmed

__all__ = ["builds_of", "deltas", "every_tenth", "kept_on", "on_one_model", "times_of", "ways", "whole"]

_EVERY = 10
_found: dict[tuple[str, int], dict[str, Times]] = {}


def whole(scale: float = 1.0, nets: Iterable[Net] = NETS.values()) -> Table:
    """Compare a watched step with a plain one."""
    rows = []
    for net in nets:
        times = times_of(net, rounds=_rounds(net, scale))
        plain, seen = times["plain"], times["watched"]
        floor = Spread.of(times["floor"].over(plain).cpu)
        more = (
            f"{1e3 * Spread.of(plain.cpu).median:.1f}",
            str(Spread.of(times["bare"].over(plain).cpu)),
            str(floor),
        )
        rows.append(timed(net.title, seen.over(plain), target=net.target, more=more, floor=floor))
    return Table(
        "A whole training step",
        "Watched (contributions, inner products, the check), as a multiple of a plain step with SGD. *bare*: "
        "hooks that keep a reference to each contribution and do nothing else. *floor*: a recorder in "
        "straight lines that does the same by the same means, and trusts its user: it numbers the calls, "
        "reads each contribution once with the total, names it, lets go of it, and keeps what a record is "
        "made of when somebody looks.",
        rows,
        "× plain",
        ("plain, ms", "bare, × plain", "floor, × plain"),
    )


def every_tenth(scale: float = 1.0, nets: Iterable[Net] = NETS.values()) -> Table:
    """Compare steps of which every tenth is watched with plain ones."""
    rows = []
    for net in nets:
        times = times_of(net, rounds=_rounds(net, scale))
        plain = times["plain"]
        floor = Spread.of(times["floor, every 10th"].over(plain).cpu)
        found = times["every 10th"].over(plain)
        rows.append(timed(net.title, found, target=1.02, more=(str(floor),), floor=floor))
    return Table(
        "Every tenth step watched",
        "`every=10`: whole cycles of ten steps, the watched one and those without hooks, as a multiple of "
        "plain ones. Taken in the same rounds as the table before; *floor*: the same cycles, in which the "
        "hooks of the floor are put on for one step and taken off after it.",
        rows,
        "× plain",
        ("floor, × plain",),
    )


def deltas(scale: float = 1.0, nets: Iterable[Net] = NETS.values()) -> Table:
    """Compare a watched step whose delta is split with one whose delta is not, with Adam."""
    rows = []
    for net in nets:
        variants, flows = {}, []
        for name in ("plain", "watched", "deltas"):
            variants[name], flow = kept_on(net.build(adam), name)
            flows += flow
        target = 1.15 if net.name == "B4" else None
        if target is not None:
            variants["floor"], flow = least_split(net.build(adam))
            flows += flow
        rounds = max(2, _rounds(net, scale) // 4)
        times = interleave(variants, rounds=rounds, steps=max(1, net.steps // 2), warm=net.warm)
        for flow in flows:
            flow.close()
        floor = Spread.of(times["floor"].over(times["watched"]).cpu) if "floor" in times else None
        more = (
            str(Spread.of(times["deltas"].over(times["plain"]).cpu)),
            "–" if floor is None else str(floor),
        )
        found = times["deltas"].over(times["watched"])
        rows.append(timed(net.title, found, target=target, more=more, floor=floor))
    return Table(
        "Shares of the delta, with Adam",
        "A watched step whose delta is split among the contributors, as a multiple of a watched one whose "
        "delta is not. *floor*: the latter, which keeps the contributions until the optimizer steps, for "
        "until then they may be clipped; beside it the parameters are copied before they are moved, and one "
        "compiled pass advances a momentum for each path and reads what it makes of the delta.",
        rows,
        "× watched",
        ("× plain", "floor, × watched"),
    )


def times_of(net: Net, *, rounds: int) -> dict[str, Times]:
    """Time a plain step, both floors, a watched one, and steps of which every tenth is of these."""
    if (net.name, rounds) not in _found:
        runs = [_times_of_build(net, each) for each in builds_of(net, rounds)]
        _found[net.name, rounds] = pooled(runs)
    return _found[net.name, rounds]


def builds_of(net: Net, rounds: int) -> list[int]:
    """Give the rounds of each build of a net."""
    builds = max(1, min(net.builds, rounds // 2))
    return [rounds // builds + (each < rounds % builds) for each in range(builds)]


def _times_of_build(net: Net, rounds: int) -> dict[str, Times]:
    variants, flows = ways(net.build(sgd))
    times = interleave(variants, rounds=rounds, steps=net.steps, warm=net.warm)
    for flow in flows:
        flow.close()
    return times


def ways(job: Job) -> tuple[dict[str, Variant], list[gradflow.Recorder]]:
    """Give the ways to take the step of one model, none of them on, and the recorders to close afterwards.

    All have the same tensors, which lie where they lie: from one build of a net to the next a plain step
    differs by more than watching costs. A turn begins with a step that is not timed.
    """
    found, flows = on_one_model(job)
    found["bare"] = warmed(bare(job))
    tenth = gradflow.watch(job.model, branches=job.branches, last=1, every=_EVERY)
    tenth.pause()
    found["every 10th"] = Variant(
        then(job.step, tenth.step), then(job.step, tenth.resume), tenth.pause, _EVERY
    )
    once = _once_in(_EVERY, least(job)[0], job.step)
    found["floor, every 10th"] = Variant(once, job.step, steps=_EVERY)
    return found, [*flows, tenth]


def on_one_model(job: Job) -> tuple[dict[str, Variant], list[gradflow.Recorder]]:
    """Give a plain step, the floor and a watched one, none of them on, and what to close afterwards."""
    flow = gradflow.watch(job.model, branches=job.branches, last=1)
    flow.pause()
    watched = Variant(then(job.step, flow.step), flow.resume, flow.pause)
    found = {"plain": Variant(job.step), "floor": least(job)[0], "watched": watched}
    return {name: warmed(way) for name, way in found.items()}, [flow]


def _once_in(count: int, way: Variant, step: Work) -> Work:
    """Give a step that is of a way once in so many times, with its hooks on for it alone."""
    numbers = itertools.cycle(range(count))
    hooked = then(then(way.on, way.work), way.off)
    return lambda: hooked() if next(numbers) == 0 else step()


def _rounds(net: Net, scale: float) -> int:
    return max(2, round(net.rounds * scale))


def kept_on(job: Job, name: str) -> tuple[Work, list[gradflow.Recorder]]:
    """Give the step of a job, plain, watched or with deltas, and the recorder to close afterwards."""
    if name == "plain":
        return job.step, []
    optimizer = job.optimizer if name == "deltas" else None
    flow = gradflow.watch(job.model, optimizer, branches=job.branches, last=1)
    return (job.step if optimizer is not None else then(job.step, flow.step)), [flow]

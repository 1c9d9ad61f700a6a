"""Page faults: what a step costs because the allocator gives memory back to the system, and takes it anew.

Each net is run in processes of its own, for how memory comes to lie differs from one to the next.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.nets import NETS, sgd
from benchmarks.page import Row, Table, timed
from benchmarks.steps import ways
from benchmarks.timing import Spread, Times, Work, interleave

__all__ = ["table"]

_ROOT = Path(__file__).parents[1]
_PROCESSES = 3
_KEEPS = {"MALLOC_TRIM_THRESHOLD_": str(1 << 36), "MALLOC_MMAP_THRESHOLD_": str(1 << 36)}
_HABITS = {"as it comes": {}, "told to keep its memory": _KEEPS}


def table(scale: float = 1.0, names: Iterable[str] = ("A4", "A32", "B4", "B32")) -> Table:
    """Compare watched steps with plain ones under an allocator as it comes, and one that keeps its memory."""
    rows = [
        _row(name, habit, max(1, round(NETS[name].rounds * scale / 10)))
        for name in names
        for habit in _HABITS
    ]
    return Table(
        "What the allocator has to do with it",
        "A watched step as a multiple of a plain one, and the page faults of both, where glibc is as it "
        "comes and where it is told to keep the memory that is freed "
        f"({' '.join(f'{name}={value}' for name, value in _KEEPS.items())}). As it comes it gives large "
        "stretches back to the system, and each page of them is a fault when it is used anew; how many those "
        f"are differs from process to process. Medians of {_PROCESSES} processes each.",
        rows,
        "× plain",
        ("plain, ms", "faults of a plain step", "faults of a watched one"),
    )


def _row(name: str, habit: str, rounds: int) -> Row:
    runs = [_run(name, habit, rounds) for _ in range(_PROCESSES)]
    ratios = Times([r for run in runs for r in run["cpu"]], [r for run in runs for r in run["wall"]])
    plain, *faults = (
        Spread.of([value for run in runs for value in run[key]]) for key in ("plain", "before", "after")
    )
    more = (f"{1e3 * plain.median:.1f}", *(f"{s.median:.0f} ({s.low:.0f}–{s.high:.0f})" for s in faults))
    return timed(f"{NETS[name].title}, {habit}", ratios, more=more)


def _run(name: str, habit: str, rounds: int) -> dict[str, list[float]]:
    """Measure one net in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.faults", name, str(rounds)]
    environment = {key: value for key, value in os.environ.items() if key not in _KEEPS} | _HABITS[habit]
    done = subprocess.run(command, check=True, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _measured(name: str, rounds: int) -> dict[str, list[float]]:
    net = NETS[name]
    found, flows = ways(net.build(sgd))
    counts: dict[str, list[float]] = {"plain": [], "watched": []}
    variants = {
        way: replace(found[way], work=_counted(found[way].work, counts[way]), steps=max(2, net.steps // 2))
        for way in counts
    }
    times = interleave(variants, rounds=rounds, warm=0)
    for flow in flows:
        flow.close()
    over = times["watched"].over(times["plain"])
    return {
        "cpu": over.cpu,
        "wall": over.wall,
        "plain": times["plain"].cpu,
        "before": counts["plain"],
        "after": counts["watched"],
    }


def _counted(work: Work, counts: list[float]) -> Work:
    """Give work that takes note of its page faults."""

    def counted() -> None:
        before = _faults()
        work()
        counts.append(_faults() - before)

    return counted


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(_measured(sys.argv[1], int(sys.argv[2]))))

"""Memory and disk: counted, and so the same on every machine."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

import gradflow
from benchmarks.nets import NETS, Job, Optimize, adam, chain, sgd
from benchmarks.page import Row, Table
from benchmarks.timing import Spread

__all__ = ["Case", "cases", "disk_bytes", "extra", "live_bytes", "sizes"]

_MARGIN = 1.1
_COUNTED = "counted"


@dataclass(frozen=True)
class Case:
    """A way to train that memory is measured in.

    Attributes:
        what: In words.
        build: Makes the job.
        optimize: Makes its optimizer.
        branches: How many paths there are.
        backwards: Backward passes in a step.
        before: Steps that are over when counting begins.
        steps: How many are counted.
        splits: Whether the delta is split.
        is_bound: Whether the bound of the plain step applies.
    """

    what: str
    build: Callable[[Optimize], Job]
    optimize: Optimize = sgd
    branches: int = 3
    backwards: int = 1
    before: int = 1
    steps: int = 2
    splits: bool = False
    is_bound: bool = False

    @property
    def target(self) -> float | None:
        """The most that a plain step may add, in multiples of the parameters."""
        return _MARGIN * (self.branches - 1) if self.is_bound else None


def momentum(params: object) -> torch.optim.Optimizer:
    """Gradient descent with momentum."""
    return torch.optim.SGD(params, lr=1e-3, momentum=0.9)


def cases() -> list[Case]:
    """Give what is measured: plain steps, and what each further thing adds."""
    paths = [
        Case(f"dense layers of 512, {count} paths", chain(4, 512, 4, count), branches=count, is_bound=True)
        for count in (2, 3, 5)
    ]
    longer = replace(paths[1], what="dense layers of 512, 3 paths, twenty steps", steps=20)
    plain = Case("net B, batch 4", NETS["B4"].build, is_bound=True)
    return [
        *paths,
        longer,
        plain,
        replace(plain, what="net B, the first step", before=0, steps=1, is_bound=False),
        replace(plain, what="net B, accumulated over two backwards", backwards=2, is_bound=False),
        replace(plain, what="net B, θ before the step (SGD, deltas)", splits=True, is_bound=False),
        replace(plain, what="net B, momentum, no deltas", optimize=momentum, is_bound=False),
        replace(plain, what="net B, momentum, deltas", optimize=momentum, splits=True, is_bound=False),
        replace(plain, what="net B, Adam, deltas", optimize=adam, splits=True, is_bound=False),
    ]


def sizes(_scale: float = 1.0, measured: Iterable[Case] | None = None) -> Table:
    """Count the peak of live tensor bytes over the steps, watched and not, and a recording's bytes."""
    rows = []
    for case in cases() if measured is None else measured:
        most, last = extra(case)
        rows.append(Row(case.what, Spread.of([most]), target=case.target, more=(f"{last:.3f}",)))
    return Table(
        "Memory",
        "Bytes of live tensors in two steps after the first (where nothing else is told), counted from every "
        "allocation and release that torch reports (numpy's scratch space, of a fixed size, is not in it): "
        "the peak of the watched run less that of the same run unwatched, as a multiple of the bytes of the "
        "watched parameters. The target of a plain step is (branches − 1) + 10 %. In the first step of a run "
        "contributions are kept to its end, for a second backward may add to them; later ones let go of them "
        "where no optimizer is watched and no step had a second one. *kept*: what of it lives on when the "
        "last step is over.",
        rows,
        "extra peak, × parameters",
        ("kept, × parameters",),
    )


def disk(_scale: float = 1.0) -> Table:
    """Count the bytes that one more step adds to a recording on disk."""
    rows = [
        Row(what, Spread.of([disk_bytes(splits=splits)]), target=600)
        for what, splits in (("net A, inner products", False), ("net A, inner products and deltas", True))
    ]
    return Table(
        "A recording on disk",
        "Bytes that each further step adds to the file, for each parameter.",
        rows,
        "bytes a parameter and step",
    )


def extra(case: Case) -> tuple[float, float]:
    """Give how much watching adds at the peak and at the end, as multiples of the parameters."""
    found = []
    for is_watched in (False, True):
        job = case.build(case.optimize)
        size = sum(p.numel() * p.element_size() for p in job.model.parameters())
        run = _Run(case, job, is_watched=is_watched)
        found.append(live_bytes(partial(run.go_on, case.steps), before=partial(run.go_on, case.before)))
    (peak, end), (watched_peak, watched_end) = found
    return (watched_peak - peak) / size, (watched_end - end) / size


class _Run:
    """A training run, watched or not."""

    def __init__(self, case: Case, job: Job, *, is_watched: bool) -> None:
        self._job, self._backwards, self._splits = job, case.backwards, case.splits
        optimizer = job.optimizer if case.splits else None
        options = {"branches": job.branches, "last": 1}
        self._flow = gradflow.watch(job.model, optimizer, **options) if is_watched else None

    def go_on(self, steps: int) -> None:
        """Train for so many steps."""
        job, flow = self._job, self._flow
        for _ in range(steps):
            job.optimizer.zero_grad()
            for _ in range(self._backwards):
                job.forward().backward()
            job.optimizer.step()
            if flow is not None and not self._splits:
                flow.step()


def live_bytes(work: Callable[[], object], before: Callable[[], object] = tuple) -> tuple[int, int]:
    """Give by how many bytes live tensors grow at most while ``work`` runs, and by how many in the end.

    Grown since ``before``, which runs first, began. What ``work`` returns is still alive in the end.
    """
    cpu = torch.profiler.ProfilerActivity.CPU
    gc.collect()
    gc.disable()  # what only the collector frees counts as alive: when that comes is chance
    try:
        with torch.profiler.profile(activities=[cpu], profile_memory=True) as seen:
            before()
            with torch.profiler.record_function(_COUNTED):
                alive = work()
    finally:
        gc.enable()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    del alive
    now, most, is_counted = 0, 0, False
    for event in events:
        is_counted = is_counted or event.name() == _COUNTED
        now += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, now) if is_counted else now
    return most, now


def disk_bytes(steps: int = 20, *, splits: bool = True) -> float:
    """Give the bytes per parameter and step of a recording of net A with inner products."""
    job = NETS["A4"].build(sgd)
    optimizer = job.optimizer if splits else None
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for count in (steps, 2 * steps):
            path = Path(folder) / f"{count}.gradflow"
            with gradflow.watch(job.model, optimizer, branches=job.branches, to=path) as flow:
                for _ in range(count):
                    job.step()
                    if not splits:
                        flow.step()
                params = len(flow.recording.last.params)
            found.append(path.stat().st_size)
    return (found[1] - found[0]) / (steps * params)

"""What lasts over a window: branches that never arrive or dominate, conflict and cancellation.

Over the whole model: one step's noise averages out, and one layer's quarrel does not count for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from statistics import fmean, median

from gradflow.findings.branches import absent
from gradflow.findings.thresholds import CANCELLATION, CONFLICT, DOMINANT, LASTING
from gradflow.findings.window import Window
from gradflow.findings.words import count, named, some
from gradflow.record import RESERVED, Finding
from gradflow.recording import Step

__all__ = ["findings"]

_MOST_PAIRS = 3


def findings(window: Window) -> Iterator[Finding]:
    """Tell of what the branches do over a window."""
    yield from _absent(window)
    yield from _nothing_shared(window)
    yield from _conflicts(window)
    yield from _cancels(window)
    yield from _dominant(window)


def _absent(window: Window) -> Iterator[Finding]:
    """Branches that never arrived, those that now and then do not, and what the newest step says of parts."""
    steps = [step for step in window.fed if step.complete]
    missed = {b: sum(_is_absent(b, step) for step in steps) for b in window.branches}
    never = [b for b, times in missed.items() if steps and times == len(steps)]
    if never:
        yield Finding(
            "warning",
            "branch-absent",
            f"{named(never)} reached none of the parameters in any of {count(len(steps), 'step')}: no "
            f"gradient arrived along {'it' if len(never) == 1 else 'them'}.",
            "Look for detach(), no_grad(), or an output that the loss does not use. "
            "Where that is meant (a stop-gradient), all is well.",
        )
    for branch, times in missed.items():
        if 0 < times < len(steps):
            text = f"Branch {branch!r} reached no parameter in {times} of {len(steps)} steps."
            yield Finding("note", "branch-absent", text, "A path that not every batch takes is so.")
    if steps:
        yield from (f for f in absent(steps[-1]) if f.severity == "note")


def _is_absent(branch: str, step: Step) -> bool:
    return not any(branch in p.contributors for p in step)


def _nothing_shared(window: Window) -> Iterator[Finding]:
    """Several branches arrive, and no parameter is reached by two of them."""
    if not window.fed:
        return
    reached = [{n for n in p.contributors if n not in RESERVED} for step in window.fed for p in step]
    arrived = set().union(*reached)
    behind = any("shared" in p.contributors for step in window.fed for p in step)
    if len(arrived) > 1 and not behind and all(len(names) < 2 for names in reached):
        yield Finding(
            "note",
            "nothing-shared",
            f"{len(arrived)} branches arrive, and no parameter is reached by two of them: each has weights "
            "of its own.",
            "If one set of weights is meant, call one module for every input; gradflow.check finds copies.",
        )


def _conflicts(window: Window) -> Iterator[Finding]:
    """Pairs of branches that pull against each other in most steps, over the whole model."""
    found: list[tuple[float, int, int, str, str]] = []
    for a, b in combinations(window.branches, 2):
        cosines = [m.cosine(a, b) for m in window.models if a in m.contributors and b in m.contributors]
        clear = [c for c in cosines if not math.isnan(c)]
        against = sum(-c >= CONFLICT for c in clear)
        if clear and against >= LASTING * len(clear):
            found.append((median(clear), against, len(clear), a, b))
    for middle, against, known, a, b in sorted(found)[:_MOST_PAIRS]:
        yield Finding(
            "note",
            "conflict-lasting",
            f"{a!r} and {b!r} pull against each other over the whole model in {against} of {known} steps: "
            f"median cosine {middle:.2f}.",
            "A positive and a negative of one loss do so. Two tasks that do cost each other: weigh them, or "
            "give each some weights of its own.",
        )


def _cancels(window: Window) -> Iterator[Finding]:
    values = [model.cancellation for model in window.models if len(model.contributors) > 1]
    known = [value for value in values if not math.isnan(value)]
    lossy = sum(value >= CANCELLATION for value in known)
    if known and lossy >= LASTING * len(known):
        yield Finding(
            "note",
            "cancellation-lasting",
            f"Over the whole model half or more of what the branches bring cancels in {lossy} of "
            f"{len(known)} steps; the median is {100 * median(known):.0f} %.",
            "What cancels moves nothing: look at which layers lose most (gradflow.plot.contributions).",
        )


def _dominant(window: Window) -> Iterator[Finding]:
    """One branch that brings nearly all of the effort, where others arrive too."""
    efforts: dict[str, list[float]] = {}
    for model in window.models:
        norms = {b: model.norms[b] for b in window.branches if b in model.contributors}
        whole = sum(norms.values())
        if whole and sum(value > 0.0 for value in norms.values()) > 1:
            for branch, norm in norms.items():
                efforts.setdefault(branch, []).append(norm / whole)
    for branch, parts in efforts.items():
        if median(parts) >= DOMINANT and len(parts) >= LASTING * len(window.fed):
            others = [b for b in efforts if b != branch]
            yield Finding(
                "note",
                "dominating",
                f"Branch {branch!r} brings {100 * fmean(parts):.0f} % of the effort (the branches' norms "
                f"together) on average over {count(len(parts), 'step')}; {some(others)} bring the rest.",
                "Weigh the losses, or divide each by its own size, if the others are to be heard.",
            )

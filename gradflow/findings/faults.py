"""What goes wrong in a run and shows only over several steps: leftovers, NaN, weights that nothing moves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradflow.findings.branches import is_finite, nonfinite
from gradflow.findings.thresholds import ACCUMULATED
from gradflow.findings.window import Window
from gradflow.findings.words import some
from gradflow.record import Finding, ParamStep
from gradflow.recording import Step

__all__ = ["findings"]


def findings(window: Window) -> Iterator[Finding]:
    """Tell of NaN where it began, of gradients that were not cleared, and of weights that never move."""
    yield from _nonfinite(window)
    yield from _accumulated(window)
    yield from _skipped(window)
    yield from _unmoved(window)


def _nonfinite(window: Window) -> Iterator[Finding]:
    """NaN or Inf in the first step in which the optimizer did not skip it; else how often it was skipped."""
    sick = [step for step in window.fed if not all(is_finite(p) for p in step)]
    if not sick:
        return
    first = next((step for step in sick if not step.skipped), sick[0])
    (told,) = nonfinite(first)
    text = f"It began in step {first.index}, and {len(sick)} of {len(window.fed)} steps have it. {told.text}"
    yield Finding(told.severity, told.code, text, told.do, told.where)


def _accumulated(window: Window) -> Iterator[Finding]:
    """What was left over has the norm of what was read a step before: ``zero_grad`` was forgotten."""
    pairs = list(window.neighbours())
    times = sum(_is_left_over(before, after) for before, after in pairs)
    if times:
        last = next(after for before, after in reversed(pairs) if _is_left_over(before, after))
        left = math.hypot(*(p.norms.get("edited", 0.0) for p in last))
        whole = math.hypot(*(p.total_norm for p in last))
        yield Finding(
            "warning",
            "accumulated",
            f"The gradient of the step before was still there in {times} of {len(pairs)} steps: in step "
            f"{last.index} the optimizer read a rest of norm {left:.4g} beside the new gradient of norm "
            f"{whole:.4g}.",
            "optimizer.zero_grad() once in every step. To accumulate over micro-batches, call it once for "
            "each optimizer.step().",
        )


def _is_left_over(before: Step, after: Step) -> bool:
    """Whether every rest of a step agrees with what was read in the step before; norms, not directions."""
    rests = [p for p in after if p.norms.get("edited", 0.0) > 0.0]
    known = [
        (p.norms["edited"], _read_norm(before.parameters[p.fqn])) for p in rests if p.fqn in before.parameters
    ]
    return bool(known) and all(math.isclose(rest, read, rel_tol=ACCUMULATED) for rest, read in known)


def _read_norm(p: ParamStep) -> float:
    """Norm of what the optimizer read: the contributions, scaled, and what was edited."""
    factors = np.array([1.0 if name == "edited" else p.scale for name in p.contributors])
    return math.sqrt(max(float(factors @ p.gram @ factors), 0.0))


def _skipped(window: Window) -> Iterator[Finding]:
    skipped = [step for step in window.steps if step.skipped]
    if skipped:
        often = len(window.steps) > 1 and len(skipped) > 0.5 * len(window.steps)
        yield Finding(
            "warning" if often else "note",
            "skipped",
            f"The optimizer skipped {len(skipped)} of {len(window.steps)} steps, the last of them step "
            f"{skipped[-1].index}.",
            "A GradScaler skips steps whose gradients overflow; a few at the start are normal. If most are "
            "skipped, the loss or the model overflows at any scale.",
        )


def _unmoved(window: Window) -> Iterator[Finding]:
    """Parameters that get a gradient and are moved in no step, while others are."""
    times: dict[str, int] = {}
    moved: set[str] = set()
    for step in window.steps:
        for p in step:
            times[p.fqn] = times.get(p.fqn, 0) + 1
            if p.delta is not None:
                moved.add(p.fqn)
    still = [fqn for fqn, n in times.items() if fqn not in moved and n > 1]
    if moved and still:
        yield Finding(
            "warning",
            "not-moved",
            f"{len(still)} of {len(times)} parameters got gradients, and no watched optimizer ever moved "
            f"them: {some(still)}.",
            "Add them to the optimizer, or watch with every optimizer: watch(model, [first, second]).",
        )

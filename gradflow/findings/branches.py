"""What each branch brought in one step: nothing at all, exact zeros, or no numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradflow.findings.thresholds import NOISE_FLOOR
from gradflow.findings.words import count, named, some
from gradflow.record import Finding, ParamStep
from gradflow.recording import Step

__all__ = ["absent", "is_finite", "noise_floor", "nonfinite", "zero", "zero_terms"]


def noise_floor(step: Step) -> float:
    """Give the norm below which a contribution of this step is taken for rounding, in gradient units."""
    return NOISE_FLOOR * max((v for p in step for v in p.norms.values() if math.isfinite(v)), default=0.0)


def absent(step: Step) -> Iterator[Finding]:
    """Branches that reached nothing, one by one; then those that missed the same parameters, together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for branch in step.branches:
        missed = tuple(p.fqn for p in step if branch in p.absent or branch not in p.contributors)
        if step.parameters and len(missed) == len(step):
            yield Finding(
                "warning",
                "branch-absent",
                f"Branch {branch!r} reached none of the parameters: no gradient arrived along it.",
                "Look for detach(), no_grad(), or an output that the loss does not use. "
                "Where that is meant (a stop-gradient), all is well.",
            )
        elif missed:
            alike.setdefault(missed, []).append(branch)
    for missed, branches in alike.items():
        yield Finding(
            "note",
            "branch-absent",
            f"{named(branches)} did not reach {len(missed)} of {len(step)} parameters: {some(missed)}.",
            where=missed[0] if len(missed) == 1 else "",
        )


def zero(step: Step) -> Iterator[Finding]:
    """Branches that arrived with exact zeros everywhere."""
    arrived = [b for b in step.branches if any(b in p.contributors for p in step)]
    dead = [b for b in arrived if not any(p.norms[b] for p in step if b in p.contributors)]
    if dead:
        known = f" Logged with the step: dead {step.scalars['dead']:.0%}." if "dead" in step.scalars else ""
        yield Finding(
            "warning",
            "branch-zero",
            f"{named(dead)} arrived with exact zeros everywhere ({len(dead)} of {len(arrived)} that "
            f"arrived).{known}".replace("%", " %"),
            "A hinge whose margin is met gives zeros (a dead triplet): "
            "harder examples or a larger margin bring the gradient back.",
        )


def zero_terms(step: Step) -> Iterator[Finding]:
    """Named terms of the loss that sent exact zeros along every branch, in all parameters that know them."""
    sizes: dict[str, float] = {}
    for p in step:
        for term, norm in zip(p.terms.terms, p.terms.norms.sum(axis=0), strict=True) if p.terms else ():
            sizes[term] = sizes.get(term, 0.0) + float(norm)
    dead = [term for term, size in sizes.items() if size == 0.0 and term != "unclaimed"]
    if dead:
        yield Finding(
            "note",
            "term-zero",
            f"{count(len(dead), 'term')} of the loss sent exact zeros along every branch: {some(dead)}.",
            "A hinge whose margin is met, or a factor of 0.",
        )


def nonfinite(step: Step) -> Iterator[Finding]:
    """NaN or Inf: along which branches, and in which parameter, counted from the loss."""
    sick = [p for p in step if not is_finite(p)]
    if not sick:
        return
    along = [b for b in step.branches if any(not math.isfinite(p.norms.get(b, 0.0)) for p in sick)]
    part = f"along {some([repr(b) for b in along])} ({len(along)} of {count(len(step.branches), 'branch')})"
    part = part if along else "beside the branches"
    yield Finding(
        "note" if step.skipped else "warning",
        "nonfinite",
        f"NaN or Inf arrived {part}, at {len(sick)} of {len(step)} parameters; in the model's order, the one "
        f"nearest to the loss is {sick[-1].fqn}.",
        "GradScaler skipped the step, as it should; a few at the start are normal."
        if step.skipped
        else "Look behind that parameter for a division, a log or a square root at 0, or an overflow; "
        "torch.autograd.set_detect_anomaly(True) names the operation.",
        where=sick[-1].fqn,
    )


def is_finite(p: ParamStep) -> bool:
    """Tell whether everything that arrived at a parameter is a finite number."""
    return bool(np.isfinite(p.gram).all()) and math.isfinite(p.total_norm)

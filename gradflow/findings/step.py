"""What is wrong or worth seeing in one step, in words.

A *warning* says that the numbers or the training are in doubt; a *note* tells what the numbers show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from gradflow.findings import branches
from gradflow.findings.branches import is_finite, noise_floor
from gradflow.findings.listing import Findings
from gradflow.findings.thresholds import CANCELLATION, CONFLICT, NOISE_FLOOR, RESIDUAL, ROUNDING, UNCLAIMED
from gradflow.findings.words import some
from gradflow.record import Finding, ParamStep
from gradflow.recording import Step

__all__ = ["of_step"]

_FUSED = ("MkldnnRnn", "CudnnRnn", "MiopenRnn", "ThnnFused")


def of_step(step: Step) -> Findings:
    """Give the findings of one step: what capture reported first, then what the numbers show.

    Example:
        >>> import numpy as np
        >>> w = ParamStep(("a",), np.eye(1), 1.0, absent=("b",), fqn="w", names=("w",), shape=(1,))
        >>> for finding in of_step(Step(0, {"w": w}, ("a", "b"))):
        ...     print(finding.code, "|", finding.text)
        branch-absent | Branch 'b' reached none of the parameters: no gradient arrived along it.
    """
    told = {(f.code, f.where) for f in step.reports}
    found = (
        *_state(step),
        *branches.nonfinite(step),
        *branches.absent(step),
        *branches.zero(step),
        *branches.zero_terms(step),
        *_unclaimed(step),
        *_shared(step),
        *_edited(step),
        *_rounding(step),
        *_fused(step),
        *_history(step),
        *_residual(step),
        *_noise(step),
        *_striking(step),
    )
    new = (f for f in found if (f.code, f.where) not in told)
    return Findings((*step.reports, *new), about=f"Step {step.index}")


def _state(step: Step) -> Iterator[Finding]:
    if not step.complete:
        yield Finding(
            "warning",
            "incomplete",
            "Recording this step failed in part; its numbers may lack contributions.",
            "Read the report that goes with it; training itself was not disturbed.",
        )
    if step.skipped:
        yield Finding(
            "note",
            "skipped",
            "The optimizer did not move: the step was skipped.",
            "A GradScaler skips steps whose gradients overflow; a few at the start are normal.",
        )


def _unclaimed(step: Step) -> Iterator[Finding]:
    found = [p for p in step if p.norms.get("unclaimed", 0.0) > 0.0]
    if not found:
        return
    part = math.hypot(*(p.norms["unclaimed"] for p in found))
    whole = math.hypot(*(p.total_norm for p in step))
    fraction = part / whole if whole else math.inf
    size = f"{100 * fraction:.3g} % of the total's norm" if whole else "while the total is zero"
    most = max(found, key=lambda p: p.norms["unclaimed"])
    yield Finding(
        "warning" if fraction >= UNCLAIMED else "note",
        "unclaimed",
        f"Gradient of no branch arrived at {len(found)} of {len(step)} parameters, {size}; "
        f"most at {most.fqn}.",
        "A penalty on the weights in the loss does this, and so does a forward outside any branch: "
        'name it with gradflow.branch("..."), or claim its output.',
    )


def _shared(step: Step) -> Iterator[Finding]:
    found = [p for p in step if p.norms.get("shared", 0.0) > 0.0]
    if found:
        yield Finding(
            "note",
            "shared",
            f"{len(found)} of {len(step)} parameters lie behind something that several branches read: "
            f"{some([p.fqn for p in found])}.",
            'gradflow.watch(..., stems="split") splits it exactly, for one more backward of it per branch.',
        )


def _edited(step: Step) -> Iterator[Finding]:
    found = [p for p in step if p.norms.get("edited", 0.0) > 0.0]
    if found:
        most = max(found, key=lambda p: p.norms["edited"])
        yield Finding(
            "warning",
            "edited",
            f"The optimizer read another gradient than the backward brought, at {len(found)} of {len(step)} "
            f"parameters; most at {most.fqn}.",
            "Left over where zero_grad() was not called, clipped by value, or changed by hand or a hook.",
        )


def _rounding(step: Step) -> Iterator[Finding]:
    floor = noise_floor(step)
    found = [p for p in step if p.norms.get("rounding", 0.0) > max(floor, ROUNDING * sum(p.norms.values()))]
    if found:
        most = max(found, key=lambda p: p.norms["rounding"])
        yield Finding(
            "warning",
            "rounding",
            f"What several branches share was split, and {len(found)} of {len(step)} parameters received "
            f"more beside the parts than rounding explains; most at {most.fqn}.",
            "Something reads the inside of what is shared. Name it with gradflow.branch, or claim it.",
        )


def _fused(step: Step) -> Iterator[Finding]:
    found = [p for p in step if any(use.node.startswith(_FUSED) for use in p.uses)]
    if found:
        node = next(use.node for use in found[0].uses if use.node.startswith(_FUSED))
        yield Finding(
            "note",
            "fused",
            f"A fused kernel ({node}) uses {len(found)} of {len(step)} parameters once per call: its time "
            "steps cannot be told apart.",
            "Run it unfused (with torch.backends.mkldnn.flags(enabled=False):) or by cells (nn.LSTMCell).",
        )


def _history(step: Step) -> Iterator[Finding]:
    found = [p for p in step if p.delta is not None and "history" in p.delta.contributors]
    if found:
        most = max(found, key=lambda p: p.delta.norms["history"] if p.delta else 0.0)
        why = f" ({most.delta.note})" if most.delta is not None and most.delta.note else ""
        yield Finding(
            "note",
            "history",
            f"Momentum that was not watched as it came moves {len(found)} of {len(step)} parameters{why}; "
            f"most at {most.fqn}.",
            "It is the contributor 'history' and fades with the optimizer's own momentum.",
        )


def _residual(step: Step) -> Iterator[Finding]:
    """Sums that do not add up; unclaimed gradient, NaN and Inf explain it and are told of elsewhere."""
    off = [p for p in step if p.residual != 0.0 and not p.norms.get("unclaimed") and is_finite(p)]
    if not off:
        return
    worst = max(off, key=lambda p: math.inf if math.isnan(p.residual) else p.residual)
    doubt = math.isnan(worst.residual) or worst.residual > RESIDUAL
    yield Finding(
        "warning" if doubt else "note",
        "residual",
        f"At {len(off)} of {len(step)} parameters the arrivals do not add up bitwise to what the weight "
        f"received; the largest difference is {worst.residual:.2g} of the largest entry, at {worst.fqn}.",
        "Part of the gradient was not seen. Report it with the model's code." if doubt else "",
        where=worst.fqn,
    )


def _noise(step: Step) -> Iterator[Finding]:
    """Parameters that receive nothing above rounding: their angles mean nothing."""
    floor = noise_floor(step)
    found = [p.fqn for p in step if 0.0 < max(p.norms.values(), default=0.0) <= floor]
    if found:
        yield Finding(
            "note",
            "noise",
            f"{len(found)} of {len(step)} parameters receive only rounding, less than {NOISE_FLOOR:g} of the "
            f"step's largest contribution: {some(found)}.",
            "A bias right before a batch-norm is so: bias=False saves it. A weight that is so is not taught.",
        )


def _striking(step: Step) -> Iterator[Finding]:
    """The strongest conflict and the strongest cancellation, where they are striking at all."""
    floor = noise_floor(step)
    audible = [p for p in step if max(p.norms.values(), default=0.0) > floor]
    conflicts = [(p.conflict(a, b), p, a, b) for p in audible for a, b in _pairs(p, step.branches, floor)]
    conflicts = [c for c in conflicts if c[0] >= CONFLICT]
    if conflicts:
        strength, p, a, b = max(conflicts, key=lambda c: c[0])
        yield Finding(
            "note",
            "conflict",
            f"{a!r} and {b!r} pull against each other: cosine {-strength:.2f}.",
            where=p.fqn,
        )
    lossy = [p for p in audible if len(p.contributors) > 1 and p.cancellation >= CANCELLATION]
    if lossy:
        p = max(lossy, key=lambda p: p.cancellation)
        yield Finding(
            "note",
            "cancellation",
            f"{p.cancellation:.0%} of what the branches bring cancels in the sum.".replace("%", " %"),
            where=p.fqn,
        )


def _pairs(p: ParamStep, branches: Sequence[str], floor: float) -> Iterator[tuple[str, str]]:
    """Pairs of branches whose contributions to ``p`` both stand above the noise."""
    return combinations([b for b in branches if p.norms.get(b, 0.0) > floor], 2)

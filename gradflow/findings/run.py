"""What is wrong or worth seeing over a recording: ``recording.findings()``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradflow.findings import faults, lasting, losses
from gradflow.findings.catalogue import CATALOGUE
from gradflow.findings.listing import Findings
from gradflow.findings.step import of_step
from gradflow.findings.thresholds import LASTING, WINDOW
from gradflow.findings.window import Window, window_of
from gradflow.record import Finding
from gradflow.recording import Recording, Step

__all__ = ["CHECKED", "of_recording"]

CHECKED = tuple(entry.code for entry in CATALOGUE if entry.seen == "check")
"""Codes of what ``gradflow.check`` sees and a recorder keeps with the step in which it was seen."""

_OVER_THE_WINDOW = (
    "branch-absent",
    "branch-zero",
    "nonfinite",
    "skipped",
)  # told of by lasting, losses, faults
_IF_LASTING = ("cancellation", "conflict", "noise", "term-zero")


def of_recording(recording: Recording, last: int | None = WINDOW) -> Findings:
    """Give the findings over the newest steps of a recording, warnings first.

    Args:
        recording: The recording.
        last: How many of the newest steps are looked at; None for all. What was seen of the model when
            watching began is told of in any case.

    Example:
        >>> import numpy as np
        >>> from gradflow.record import ParamStep
        >>> w = ParamStep(("a", "b"), np.diag([400.0, 1.0]), 20.0, fqn="w", names=("w",), shape=(2,))
        >>> of_recording(Recording([Step(i, {"w": w}, ("a", "b")) for i in range(3)])).codes
        ('dominating',)
    """
    window = window_of(recording, last)
    found = [*_checked(recording, window)]
    found += [*faults.findings(window), *losses.findings(window), *lasting.findings(window)]
    found += _repeated(window, {f.code for f in found})
    return Findings(sorted(found, key=lambda f: f.severity != "warning"), about=_about(window))


def _about(window: Window) -> str:
    return window.span[:1].upper() + window.span[1:]


def _checked(recording: Recording, window: Window) -> Iterator[Finding]:
    """What was seen of the model itself, each once: when watching began, and what changed in the window."""
    is_outside = window.steps and recording[0].index != window.steps[0].index
    begin = recording[0].reports if is_outside else ()
    seen: dict[tuple[str, str], Finding] = {}
    for finding in (*begin, *(f for step in window.steps for f in step.reports)):
        if finding.code in CHECKED:
            seen.setdefault((finding.code, finding.text), finding)
    yield from seen.values()


def _repeated(window: Window, told: set[str]) -> Iterator[Finding]:
    """What single steps tell, once for each code, with how often and when last."""
    skip = {*_OVER_THE_WINDOW, *CHECKED, *(("edited",) if "accumulated" in told else ())}
    groups: dict[str, list[tuple[Step, Finding]]] = {}
    for step in window.steps:
        here = {f.code: f for f in reversed(of_step(step)) if f.code not in skip}
        for code, finding in here.items():
            groups.setdefault(code, []).append((step, finding))
    for code, seen in groups.items():
        if code not in _IF_LASTING or len(seen) >= LASTING * len(window.fed):
            yield _once(seen, len(window.steps))


def _once(seen: list[tuple[Step, Finding]], steps: int) -> Finding:
    """The newest of the severest, with how many steps have it."""
    severe = [(step, f) for step, f in seen if f.severity == "warning"] or seen
    step, finding = severe[-1]
    if steps == 1:
        return finding
    return replace(
        finding, text=f"In {len(seen)} of {steps} steps, last so in step {step.index}: {finding.text}"
    )

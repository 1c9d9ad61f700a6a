"""What the logged scalars tell over a window: dead examples, a loss stuck at its margin or anywhere.

Read are ``loss``, ``margin``, and ``dead`` (the fraction of a batch whose hinge is 0) or ``active`` (the
rest), as ``flow.log(loss=loss, margin=0.2, dead=(hinge == 0).float().mean())`` keeps them. A recording does
not know them otherwise: contributions are sums over a batch, in which a dead example leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from gradflow.findings.thresholds import DEAD, LASTING, MARGIN, STUCK, STUCK_STEPS
from gradflow.findings.window import Window
from gradflow.findings.words import named
from gradflow.record import Finding
from gradflow.recording import Step

__all__ = ["findings"]

_WAKE = "Where the loss is as low as wanted, training is done; else harder examples or a larger margin."
_LOG_DEAD = "flow.log(dead=(hinge == 0).float().mean()) keeps the fraction of dead examples with each step."


def findings(window: Window) -> Iterator[Finding]:
    """Tell of dead examples and of a loss that stays where it is."""
    yield from _dead(window)
    yield from _silent(window)
    yield from _at_margin(window)
    yield from _stuck(window)


def _dead(window: Window) -> Iterator[Finding]:
    """The logged fraction of dead examples."""
    fractions = window.scalar("dead") or [1.0 - value for value in window.scalar("active")]
    if fractions and fmean(fractions) >= 0.5:
        whole = sum(value >= 1.0 for value in fractions)
        yield Finding(
            "warning" if fmean(fractions) >= DEAD else "note",
            "dead-hinge",
            f"On average {100 * fmean(fractions):.3g} % of a batch is dead (its hinge is 0 and it sends "
            f"zeros), all of it in {whole} of {len(fractions)} steps; now {100 * fractions[-1]:.3g} %.",
            _WAKE,
        )


def _silent(window: Window) -> Iterator[Finding]:
    """Branches that arrive with exact zeros in most steps: all of them, or some."""
    silent = {b: sum(_is_silent(b, step) for step in window.fed) for b in window.branches}
    all_dead = sum(
        any(silent.values()) and all(_is_silent(b, step) or _missed(b, step) for b in step.branches)
        for step in window.fed
    )
    lasting = [b for b, times in silent.items() if times and times >= LASTING * len(window.fed)]
    if lasting:
        known = any(window.scalar(name) for name in ("dead", "active"))
        yield Finding(
            "warning",
            "branch-zero",
            f"{named(lasting)} arrived with exact zeros in at least {min(silent[b] for b in lasting)} of "
            f"{len(window.fed)} steps; nothing but zeros arrived along any branch in {all_dead}.",
            f"Look for a hinge whose margin is met, or a factor of 0. {'' if known else _LOG_DEAD}".strip(),
        )
    elif any(silent.values()):
        most = max(silent, key=lambda b: silent[b])
        text = f"Branch {most!r} arrived with exact zeros in {silent[most]} of {len(window.fed)} steps."
        yield Finding("note", "branch-zero", text, "A batch whose margins are all met is so.")


def _is_silent(branch: str, step: Step) -> bool:
    norms = [p.norms[branch] for p in step if branch in p.contributors]
    return bool(norms) and not any(norms)


def _missed(branch: str, step: Step) -> bool:
    return not any(branch in p.contributors for p in step)


def _at_margin(window: Window) -> Iterator[Finding]:
    """A loss that stays at its margin: all distances are the same, as when all embeddings are one point."""
    steps = [s for s in window.steps if "loss" in s.scalars and "margin" in s.scalars][-STUCK_STEPS:]
    if len(steps) < STUCK_STEPS or any(not s.scalars["margin"] for s in steps):
        return
    off = max(abs(s.scalars["loss"] / s.scalars["margin"] - 1.0) for s in steps)
    if off <= MARGIN:
        yield Finding(
            "warning",
            "collapse",
            f"The loss stayed within {100 * off:.2g} % of its margin {steps[-1].scalars['margin']:g} for "
            f"{len(steps)} steps: the positive is as far away as the negative, as when all embeddings are "
            "one point.",
            "Look at the spread of the embeddings. If it is 0 they have collapsed: a smaller learning rate, "
            "semi-hard instead of hardest negatives, normalised embeddings. If not, nothing was learned yet.",
        )


def _stuck(window: Window) -> Iterator[Finding]:
    """A loss that does not move while the weights do, where no margin was logged to tell why."""
    losses = window.scalar("loss")[-STUCK_STEPS:]
    moved = any(p.delta is not None and p.delta.norm for step in window.steps[-STUCK_STEPS:] for p in step)
    if len(losses) < STUCK_STEPS or not moved or window.scalar("margin"):
        return
    size = max(map(abs, losses))
    if size and all(map(math.isfinite, losses)) and max(losses) - min(losses) <= STUCK * size:
        yield Finding(
            "note",
            "loss-stuck",
            f"The loss has not moved for {len(losses)} steps (from {min(losses):.6g} to {max(losses):.6g}), "
            "though the weights did.",
            "If that is the margin of the loss, the embeddings have collapsed: log it beside the loss, "
            "flow.log(loss=loss, margin=...), and this is told.",
        )

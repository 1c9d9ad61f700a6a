"""What is told of two runs side by side, as plain strings: text and HTML share it."""

from __future__ import annotations

import math

from gradflow.comparison import Comparison, Measure, Run
from gradflow.findings.words import count
from gradflow.render.story import Story, Table
from gradflow.render.theme import number, percent, signed

__all__ = ["of_comparison"]


def of_comparison(compared: Comparison) -> Story:
    """Tell of two runs: how long they are, what they have in common, every measure, and the warnings."""
    a, b = compared.a, compared.b
    heading = f"{a.name} beside {b.name}: {compared.where or 'the whole model'}"
    facts = (_length(a), _length(b), _common(a, b), *(_warned(run) for run in (a, b)))
    rows = tuple(_row(measure) for measure in compared.measures)
    title = "What was logged, first and last; all else as medians over the steps of each run"
    table = Table(("measure", a.name, b.name, "change"), rows, title=title, note=_NOTE)
    return Story(heading, facts, (table,))


_NOTE = "Change: a factor for norms, else a difference. Fractions in per cent, their difference in points."


def _length(run: Run) -> str:
    thinned = f", one in {run.every} read" if run.every > 1 else ""
    return f"{run.name}: {count(run.steps, 'step')}{thinned}, {count(len(run.parameters), 'parameter')}"


def _common(a: Run, b: Run) -> str:
    both = len(set(a.parameters) & set(b.parameters))
    if both == len(a.parameters) == len(b.parameters):
        return "the same parameters in both"
    alone = (f"{len(set(x.parameters) - set(y.parameters))} only in {x.name}" for x, y in ((a, b), (b, a)))
    return f"{count(both, 'parameter')} in both, {', '.join(alone)}"


def _warned(run: Run) -> str:
    warned = ", ".join(run.findings.warnings.codes)
    return f"{run.name}: " + (f"warned of {warned}" if warned else "no warning")


def _row(measure: Measure) -> tuple[str, str, str, str]:
    return (measure.name, _value(measure, measure.a), _value(measure, measure.b), _change(measure))


def _value(measure: Measure, value: float) -> str:
    if math.isnan(value):
        return "–"
    if measure.kind == "fraction":
        return percent(value)
    return signed(value) if measure.kind == "cosine" else number(value)


def _change(measure: Measure) -> str:
    change = measure.change
    if math.isnan(change):
        return "–"
    if change == 0.0:
        return "0"
    if measure.kind == "size":
        return f"× {number(change)}"
    if measure.kind == "fraction":
        return f"{100 * change:+.0f}".replace("-", "−")
    return signed(change) if measure.kind == "cosine" else f"{change:+.3g}".replace("-", "−")

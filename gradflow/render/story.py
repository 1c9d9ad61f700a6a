"""What a record has to say, as plain strings in tables: text and HTML both tell it, and so tell the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from gradflow import findings
from gradflow.record import RESERVED, Contributions, Delta, Finding, ParamStep, TermTable
from gradflow.recording import Recording, Step
from gradflow.render.theme import letters, number, percent, signed

__all__ = [
    "ACCOUNTING",
    "Story",
    "Table",
    "of_findings",
    "of_param_step",
    "of_recording",
    "of_step",
    "share_words",
    "step_table",
    "sum_words",
]

ACCOUNTING = (
    "Shares of Δ are an accounting under a frozen preconditioner, not what the branch alone would have done."
)
"""Stands wherever a share of a delta is told or drawn."""

_MOST_USES = 9
_MOST_STEPS = 8


@dataclass(frozen=True, slots=True)
class Table:
    """Strings in rows and columns.

    Attributes:
        columns: Headings; the first column names the row, the others hold numbers.
        rows: The cells.
        title: What it shows.
        more: What was left out, such as ``"… 149 more"``; empty if nothing.
        note: How to read it; empty if that is plain.
        bars: The norms of each row by contributor, for those who draw; empty where there are none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    more: str = ""
    note: str = ""
    bars: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """A heading, facts of one line each, tables, and findings."""

    heading: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...]
    findings: tuple[Finding, ...] = ()


def of_step(step: Step, *, most: int = 12) -> Story:
    """Tell of a step: the most interesting rows of its table, and its findings."""
    kept = sum(p.tensors is not None for p in step)
    facts = [_branches_words(step.branches)]
    if step.scalars:
        facts.append(", ".join(f"{name} {number(value)}" for name, value in step.scalars.items()))
    facts.append(_sum_words(step))
    facts.append(f"tensors kept for {kept} of {len(step)} parameters")
    state = [
        words for is_so, words in ((not step.complete, "incomplete"), (step.skipped, "skipped")) if is_so
    ]
    heading = f"Step {step.index}: {_count(len(step), 'parameter')}" + "".join(f", {s}" for s in state)
    return Story(heading, tuple(facts), (step_table(step, most=most),), step.findings)


def of_param_step(p: ParamStep) -> Story:
    """Tell of one parameter in one step: its contributions, their sum, the delta, and every use."""
    shape = "×".join(map(str, p.shape)) or "scalar"
    facts = []
    if len(p.names) > 1:
        facts.append(f"tied: also {', '.join(n for n in p.names if n != p.fqn)}")
    facts.append(f"Σ has norm {number(p.total_norm)}; {percent(p.cancellation)} of the contributions cancels")
    facts.append(sum_words(p))
    if p.scale != 1.0:
        facts.append(f"the optimizer read {number(p.scale)} × Σ")
    if p.delta is not None:
        facts.append(_delta_words(p.delta))
    facts.append("tensors kept" if p.tensors is not None else "tensors not kept")
    tables = [_contributor_table(p)]
    if p.terms is not None:
        tables.append(_term_table(p.terms))
    if p.uses:
        tables.append(_use_table(p))
    return Story(f"{p.fqn or 'parameter'} [{shape}]", tuple(facts), tuple(tables))


def of_recording(recording: Recording) -> Story:
    """Tell of a recording: a few of its steps, evenly spaced, summed over the whole model."""
    if not len(recording):
        return Story("Recording of 0 steps", ("nothing was recorded yet: train a step",), ())
    first, last = recording[0], recording.last
    kept = sum(p.tensors is not None for p in last)
    facts = [
        f"{_count(len(last), 'parameter')} in the last step, {_branches_words(last.branches)}",
        *(
            f"{name} from {number(first.scalars[name])} to {number(last.scalars[name])}"
            for name in last.scalars
            if name in first.scalars
        ),
        f"tensors kept for {kept} of {len(last)} parameters",
    ]
    heading = f"Recording of {_count(len(recording), 'step')} ({first.index} to {last.index})"
    return Story(heading, tuple(facts), (_steps_table(recording),), last.findings)


def of_findings(found: findings.Findings) -> Story:
    """Tell what was found: how much of it, and each finding with what to do about it."""
    warnings, notes = len(found.warnings), len(found.notes)
    counts = f"{_count(warnings, 'warning')}, {_count(notes, 'note')}".replace("0 warnings", "no warning")
    amount = counts.removesuffix(", 0 notes") if warnings or notes else "nothing out of the ordinary"
    heading = f"{found.about}: {amount}" if found.about else amount[:1].upper() + amount[1:]
    return Story(heading, (), (), tuple(found))


def step_table(step: Step, *, most: int | None = None) -> Table:
    """Give one row per parameter, in the model's order.

    Args:
        step: The step.
        most: Keep only so many rows: those with absences, residuals, the strongest conflicts and the
            largest sums. All by default.
    """
    names = _order(list(step), step.branches)
    shown = list(step) if most is None or len(step) <= most else _interesting(step, most)
    moved = any(p.delta for p in step)
    heads = [
        "parameter",
        *names,
        "‖Σ‖",
        "cancels",
        "residual",
        *(("‖Δ‖", "shares of Δ in %") if moved else ()),
    ]
    cells = [
        (
            p.fqn,
            *_norm_cells(p, names),
            number(p.total_norm),
            percent(p.cancellation),
            number(p.residual),
            *(_delta_cells(p.delta, step.branches) if moved else ()),
        )
        for p in shown
    ]
    left = len(step) - len(shown)
    more = f"… {left} more; print(gradflow.render.text.table(step)) shows all" if left else ""
    title = "Norm of each contribution, their sum and the delta"
    note = ACCOUNTING if moved else ""
    return Table(tuple(heads), tuple(cells), title, more, note, tuple(p.norms for p in shown))


def sum_words(p: ParamStep) -> str:
    """Say how well the arrivals at the parameter's edges add up to what it received.

    Example:
        >>> import numpy as np
        >>> sum_words(ParamStep(("a",), np.eye(1), 1.0))
        'the arrivals add up to Σ bitwise'
    """
    if p.residual == 0.0:
        return "the arrivals add up to Σ bitwise"
    if p.norms.get("unclaimed"):
        return "the arrivals add up to Σ but for the unclaimed gradient"
    return f"the arrivals add up to Σ but for {number(p.residual)} of its largest entry"


def share_words(delta: Delta | None, branches: Sequence[str], *, most: int = 3) -> str:
    """Write the largest shares of a delta in percent, branches by their letters.

    Example:
        >>> import numpy as np
        >>> delta = Delta(("anchor", "decay"), np.diag([3.0, 1.0]), norm=2.0, parameter_norm=1.0)
        >>> share_words(delta, ["anchor"])
        'A 75, decay 25'
        >>> share_words(delta, ["anchor", "decay", "another"])
        '1: 75, 2: 25'
    """
    if delta is None:
        return ""
    if not delta.rule and delta.contributors == ("unattributed",):
        return "not split"
    if any(math.isnan(v) for v in delta.shares.values()):
        return "–"
    called = {name: f"{mark}:" if mark.isdigit() else mark for name, mark in letters(branches).items()}
    shares = {n: v for n, v in delta.shares.items() if abs(v) >= 0.005}
    largest = sorted(shares, key=lambda n: -abs(shares[n]))[:most]
    said = [f"{called.get(n, n)} {100 * shares[n]:.0f}" for n in shares if n in largest]
    return ", ".join([*said, *(["…"] if len(shares) > most else [])]).replace("-", "−")


def _branches_words(branches: Sequence[str]) -> str:
    called = letters(branches)
    return "branches " + ", ".join(f"{b} ({called[b]})" for b in branches) if branches else "no branches"


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" + ("" if number_of == 1 else "s")


def _sum_words(step: Step) -> str:
    exact = [p for p in step if p.residual == 0.0]
    if len(exact) == len(step):
        return "every sum is conserved bitwise"
    said = [f"{len(exact)} of {len(step)} sums are conserved bitwise"]
    others = [p for p in step if p.residual != 0.0]
    off = [p.residual for p in others if not p.norms.get("unclaimed")]
    if len(off) < len(others):
        said.append(f"{len(others) - len(off)} but for unclaimed gradient")
    if off:
        worst = max(off, key=lambda r: math.inf if math.isnan(r) else r)
        said.append(f"{len(off)} with a residual of at most {number(worst)}")
    return ", ".join(said)


def _order(parameters: Sequence[Contributions], branches: Sequence[str]) -> list[str]:
    """Contributors and absent branches of all these, branches first."""
    seen = {name for p in parameters for name in (*p.contributors, *p.absent)}
    known = [n for n in (*branches, *RESERVED) if n in seen]
    return known + sorted(seen - set(known))


def _norm_cells(data: Contributions, names: Sequence[str]) -> list[str]:
    norms = data.norms
    return ["absent" if n in data.absent else number(norms[n]) if n in norms else "" for n in names]


def _delta_cells(delta: Delta | None, branches: Sequence[str]) -> tuple[str, str]:
    return ("", "") if delta is None else (number(delta.norm), share_words(delta, branches))


def _delta_words(delta: Delta) -> str:
    rule = delta.rule or "the optimizer"
    said = f"{rule} moved it by {number(delta.norm)}, {percent(delta.relative)} of its norm"
    return f"{said}; {delta.note}" if delta.note else said


def _interesting(step: Step, most: int) -> list[ParamStep]:
    """A third each: what is out of order, the strongest conflicts above the noise, the largest sums."""
    floor = findings.noise_floor(step)
    loud = [p for p in step if p.total_norm > floor]
    odd = [p for p in step if p.absent or p.residual != 0.0 or 0.0 in p.norms.values()]
    fights = sorted(loud, key=lambda p: _smallest_cosine(p, step.branches))
    large = sorted(loud, key=lambda p: -p.total_norm)
    chosen = [*odd[: most // 3], *fights[: most // 3]]
    for p in (*large, *step):
        if len({q.fqn for q in chosen}) < most:
            chosen.append(p)
    names = {p.fqn for p in chosen}
    return [p for p in step if p.fqn in names]


def _smallest_cosine(data: Contributions, branches: Sequence[str]) -> float:
    """The smallest cosine between two branches; infinite where there is none."""
    there = [b for b in branches if b in data.contributors]
    found = [data.cosine(a, b) for a, b in combinations(there, 2)]
    return min((c for c in found if not math.isnan(c)), default=math.inf)


def _contributor_table(p: ParamStep) -> Table:
    called = letters([n for n in (*p.contributors, *p.absent) if n not in RESERVED])
    others = [n for n in p.contributors if n not in RESERVED]
    names = [*p.contributors, *p.absent, *(n for n in (p.delta.contributors if p.delta else ()))]
    moved = p.delta is not None
    heads = ["contributor", "norm", "share of Σ", *(f"cos {called[n]}" for n in others)]
    heads += ["share of Δ", "norm in Δ"] if moved else []
    cells = []
    for name in dict.fromkeys(names):
        known = name in p.contributors
        row = [f"{name} ({called[name]})" if name in called else name]
        row.append("absent" if name in p.absent else number(p.norms[name]) if known else "")
        row.append(percent(p.share(name)) if known else "")
        row += [signed(p.cosine(name, other)) if known else "" for other in others]
        if p.delta is not None:
            row.append(percent(p.delta.shares[name]) if name in p.delta.shares else "")
            row.append(number(p.delta.norms[name]) if name in p.delta.norms else "")
        cells.append(tuple(row))
    return Table(tuple(heads), tuple(cells), "Contributions", note=ACCOUNTING if moved else "")


def _term_table(terms: TermTable) -> Table:
    rows = zip(terms.contributors, terms.norms, strict=True)
    cells = tuple((name, *(number(float(norm)) for norm in norms)) for name, norms in rows)
    return Table(("contributor", *terms.terms), cells, "Norm of each term of the loss along each branch")


def _use_table(p: ParamStep) -> Table:
    shown = p.uses[:_MOST_USES]
    rows = tuple((f"{u.node}[{u.index}]", u.branch, u.call or "–", number(u.norm)) for u in shown)
    left = len(p.uses) - len(shown)
    more = f"… {left} more in .uses" if left else ""
    return Table(("use", "counts to", "module call", "norm"), rows, _count(len(p.uses), "use"), more)


def _steps_table(recording: Recording) -> Table:
    every = len(recording)
    picked = sorted({round(i * (every - 1) / max(1, _MOST_STEPS - 1)) for i in range(_MOST_STEPS)})
    steps = [recording[i] for i in picked if len(recording[i])]
    whole = [step.layer("") for step in steps]
    branches = tuple(dict.fromkeys(b for step in steps for b in step.branches))
    names = _order(whole, branches)
    heads = ("step", *names, "‖Σ‖", "cancels", "smallest cosine", "‖Δ‖", "shares of Δ in %")
    rows = []
    for step, data in zip(steps, whole, strict=True):
        least = _smallest_cosine(data, branches)
        cells = [number(data.total_norm), percent(data.cancellation), signed(least) if least < 2 else "–"]
        rows.append((str(step.index), *_norm_cells(data, names), *cells, *_delta_cells(data.delta, branches)))
    left = every - len(steps)
    more = f"… {left} more steps" if left else ""
    note = ACCOUNTING if any(data.delta for data in whole) else ""
    norms = tuple(data.norms for data in whole)
    return Table(heads, tuple(rows), "The whole model, step by step", more, note, norms)

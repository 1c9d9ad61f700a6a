"""What happened in a step, in sentences with numbers, for those who would rather read than look.

Tables of the same numbers are in :mod:`gradflow.render.text`; here it is said what they mean.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import combinations

from gradflow import findings
from gradflow.errors import NoSuchParameterError, NoSuchStepError, did_you_mean
from gradflow.record import Contributions, Delta, Finding, ParamStep
from gradflow.recording import Recording, Step
from gradflow.render.rows import measured
from gradflow.render.story import ACCOUNTING, sum_words
from gradflow.render.theme import number, percent, signed

__all__ = ["explain"]

_WIDTH = 88
_WHERE = "gradflow.render.explain.explain"
_MOST_PAIRS = 3  # of one kind that are told one by one
_ANGLES = (  # cosines from which these words hold
    (0.9, "pull the same way"),
    (0.3, "pull mostly the same way"),
    (-0.3, "pull about at right angles"),
    (-findings.CONFLICT, "pull partly against each other"),
    (-0.9, "pull against each other"),
    (-math.inf, "pull straight against each other"),
)


def explain(recording: Recording, *, step: int | None = None, param: str = "", width: int = _WIDTH) -> str:
    """Tell in words what happened in one step: to one parameter, to a module, or to the whole model.

    Args:
        recording: The recording.
        step: Number of the step, as in ``Step.index``, or ``-1`` for the last, ``-2`` for the one before;
            by default the last in which a gradient was recorded, with the findings over the newest steps.
        param: FQN or module path; ``""`` tells of the whole model.
        width: Characters to a line.

    Returns:
        Paragraphs, parted by empty lines.

    Raises:
        NoSuchStepError: no such step was recorded.
        NoSuchParameterError: neither a parameter nor a module of that name in that step.

    Example:
        >>> import numpy as np
        >>> gram = np.array([[1.0, -0.98], [-0.98, 1.0]])
        >>> w = ParamStep(("left", "right"), gram, 0.2, fqn="w", names=("w",), shape=(2,))
        >>> print(explain(Recording([Step(0, {"w": w}, ("left", "right"))]), param="w"))
        Step 0, w [2]: 2 branches send it a gradient.
        <BLANKLINE>
        right and left are equally large (norm 1). left and right pull straight against each
        other: cosine −0.98. 90 % of the effort cancels: norms that add up to 2 leave a sum of
        norm 0.2.
        <BLANKLINE>
        The arrivals add up to Σ bitwise.
    """
    found = _step(recording, step)
    data, called = _there(found, param)
    paragraphs = [
        _heading(found, data, called),
        _since(recording, found, param),
        " ".join((*_sizes(found, data), *_angles(found, data), *_cancels(data))),
        " ".join(_terms(data)) if isinstance(data, ParamStep) else " ".join(_standing_out(found, param)),
        " ".join(_moved(data.delta)),
        _checked(found, data, param),
    ]
    folded = [_folded(words, width) for words in paragraphs if words]
    is_about_all = step is None and not param and len(recording) > 1
    told = recording.findings() if is_about_all else found.findings
    notes = [_folded(f"- {f}", width) for f in told if _is_told(f, param)]
    if notes and is_about_all:
        notes.insert(0, f"Findings over {told.about[:1].lower()}{told.about[1:]}:")
    return "\n\n".join([*folded, *filter(None, ["\n".join(notes)])])


def _step(recording: Recording, wanted: int | None) -> Step:
    if not len(recording):
        raise NoSuchStepError(
            "the recording is empty", where=_WHERE, do="train a step while it is being watched"
        )
    if wanted is None:
        newest = (recording[i] for i in range(len(recording) - 1, -1, -1))
        return next((found for found in newest if len(found)), recording.last)
    if -len(recording) <= wanted < 0:
        return recording[wanted]
    found = next((each for each in recording if each.index == wanted), None)
    if found is None:
        first, last = recording[0].index, recording.last.index
        gaps = "" if last - first + 1 == len(recording) else f"; only {len(recording)} of them were watched"
        raise NoSuchStepError(
            f"no step {wanted} was recorded",
            where=_WHERE,
            do=f"steps are {first} to {last}{gaps}; -1 is the last",
        )
    return found


def _there(step: Step, param: str) -> tuple[Contributions, str]:
    if not len(step):
        raise NoSuchParameterError(
            f"no gradient was recorded in step {step.index}", where=_WHERE, do="take another step"
        )
    names = [name for p in step for name in p.names]
    if param and not any(name == param or name.startswith(param + ".") for name in names):
        modules = [fqn.rpartition(".")[0] for fqn in names]
        raise NoSuchParameterError(
            f"no parameter or module {param!r} among the {len(step)} parameters of step {step.index}",
            where=_WHERE,
            do=did_you_mean(param, [*names, *filter(None, modules)]),
        )
    return measured(step, param)


def _heading(step: Step, data: Contributions, called: str) -> str:
    state = [
        words for is_so, words in ((step.skipped, "skipped"), (not step.complete, "incomplete")) if is_so
    ]
    place = called
    if isinstance(data, ParamStep):
        place += f" [{'×'.join(map(str, data.shape)) or 'scalar'}]"
    there = [b for b in step.branches if b in data.contributors]
    each = f"{len(there)} branches send" if len(there) != 1 else "1 branch sends"
    gone = f"; {_listed(data.absent)} never reached it" if data.absent else ""
    said = f"Step {step.index}{''.join(f' ({s})' for s in state)}, {place}: {each} it a gradient{gone}."
    logged = [f"{name} {number(value)}" for name, value in step.scalars.items()]
    return said + (f" Logged: {', '.join(logged)}." if logged else "")


def _since(recording: Recording, step: Step, param: str) -> str:
    """How the sum has changed since the first step."""
    first = recording[0]
    if first.index == step.index or not len(first):
        return ""
    try:
        then, now = measured(first, param)[0], measured(step, param)[0]
    except NoSuchParameterError:
        return ""
    return (
        f"Since step {first.index} the norm of the sum went from {number(then.total_norm)} to "
        f"{number(now.total_norm)}, and what cancels from {percent(then.cancellation)} to "
        f"{percent(now.cancellation)}."
    )


def _sizes(step: Step, data: Contributions) -> Iterator[str]:
    """Which contribution is largest, and how the others compare."""
    there = {name: norm for name, norm in data.norms.items() if norm > 0}
    silent = [name for name in step.branches if data.norms.get(name) == 0.0]
    if there:
        most, *others = sorted(there, key=lambda name: -there[name])
        if others and math.isclose(there[most], min(there.values()), rel_tol=0.005):
            same = _listed([*others, most])
            yield f"{same} are equally large (norm {number(there[most])})."
        elif others:
            rest = ", ".join(f"{name} {number(there[name])}" for name in others)
            yield f"{most} is largest (norm {number(there[most])}), then {rest}."
        else:
            yield f"{most} alone brings anything (norm {number(there[most])})."
    if silent:
        verb = "brings" if len(silent) == 1 else "bring"
        yield f"{_listed(silent)} {verb} exact zeros, as a hinge does whose margin is met."


def _angles(step: Step, data: Contributions) -> Iterator[str]:
    """What every two branches do to each other; those lost in rounding have no angle."""
    floor = findings.noise_floor(step)
    audible = [b for b in step.branches if data.norms.get(b, 0.0) > floor]
    faint = [b for b in step.branches if 0.0 < data.norms.get(b, 0.0) <= floor]
    alike: dict[str, dict[str, float]] = {}
    for a, b in combinations(audible, 2):
        cosine = data.cosine(a, b)
        words = next((said for least, said in _ANGLES if cosine >= least), "have no angle")
        alike.setdefault(words, {})[f"{a} and {b}"] = cosine
    for words, pairs in alike.items():
        if len(pairs) > _MOST_PAIRS:
            low, high = signed(min(pairs.values())), signed(max(pairs.values()))
            yield f"{len(pairs)} pairs of branches {words}: cosines from {low} to {high}."
        else:
            yield from (f"{pair} {words}: cosine {signed(cosine)}." for pair, cosine in pairs.items())
    if faint:
        yield f"What {_listed(faint)} brings here may be mere rounding: its direction means nothing."


def _cancels(data: Contributions) -> Iterator[str]:
    lost, effort = data.cancellation, sum(data.norms.values())
    if len(data.contributors) < 2 or math.isnan(lost):
        return
    yield (
        f"{percent(lost)} of the effort cancels: norms that add up to {number(effort)} leave a sum of norm "
        f"{number(data.total_norm)}."
    )


def _terms(p: ParamStep) -> Iterator[str]:
    """Which named terms of the loss came along which branch."""
    if p.terms is None:
        return
    for name, norms in zip(p.terms.contributors, p.terms.norms, strict=True):
        each = [f"{t} {number(float(v))}" for t, v in zip(p.terms.terms, norms, strict=True) if v > 0]
        lost = p.terms.along(name).cancellation
        cancels = f", of which {percent(lost)} cancels" if len(each) > 1 else ""
        yield f"Along {name} came {_listed(each)}{cancels}." if each else f"No term came along {name}."


def _standing_out(step: Step, param: str) -> Iterator[str]:
    """The parameters with the strongest conflict, the most cancellation and the best agreement."""
    floor = findings.noise_floor(step)
    inside = [p for p in step if not param or any(n.startswith(param + ".") or n == param for n in p.names)]
    pairs = [
        (p.cosine(a, b), a, b, p)
        for p in inside
        for a, b in combinations([b for b in step.branches if p.norms.get(b, 0.0) > floor], 2)
    ]
    if len(inside) < 2 or not pairs:
        return
    least, most = min(pairs, key=lambda x: x[0]), max(pairs, key=lambda x: x[0])
    for found, words in ((least, "The sharpest conflict"), (most, "The best agreement")):
        if (found[0] < 0) == (found is least):
            cosine, a, b, p = found
            lost = f", {percent(p.cancellation)} of the effort cancels"
            yield f"{words}: {a} and {b} on {p.fqn}, cosine {signed(cosine)}{lost}."


def _moved(delta: Delta | None) -> Iterator[str]:
    if delta is None:
        return
    rule = delta.rule or "The optimizer"
    if not delta.norm:
        yield f"{rule} did not move it."
        return
    yield f"{rule} moved it by {number(delta.norm)}, {percent(delta.relative)} of its norm."
    shares = {name: share for name, share in delta.shares.items() if not math.isnan(share)}
    if delta.rule and shares:
        order = sorted(shares, key=lambda name: -abs(shares[name]))
        each = [f"{percent(shares[name])} is credited to {name}" for name in order]
        yield f"Of that, {_listed(each)}."
        yield ACCOUNTING
    if delta.note:
        yield f"{delta.note[0].upper()}{delta.note[1:].rstrip('.')}."


def _checked(step: Step, data: Contributions, param: str) -> str:
    """Whether the sums are conserved."""
    if isinstance(data, ParamStep):
        words = sum_words(data)
        return f"{words[0].upper()}{words[1:]}."
    inside = [p for p in step if not param or any(n.startswith(param + ".") for n in p.names)]
    exact = sum(p.residual == 0.0 for p in inside)
    return f"The arrivals add up bitwise to what the weights received at {exact} of {len(inside)} parameters."


def _is_told(finding: Finding, param: str) -> bool:
    """Whether a finding adds to what the sentences say; of one place, only what concerns it."""
    if finding.code in ("conflict", "cancellation"):
        return False
    return not param or finding.where == param or finding.where.startswith(param + ".")


def _listed(names: Sequence[str]) -> str:
    """Join as a sentence does: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _folded(words: str, width: int) -> str:
    after = "  " if words.startswith("- ") else ""
    whole = words.replace(" %", "\u00a0%")  # a number and its sign stay on one line
    told = textwrap.fill(
        whole, width, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )
    return told.replace("\u00a0%", " %")

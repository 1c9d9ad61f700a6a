"""A step as rows that a reader can take in: its parameters, or its layers where there are too many.

Figures, tables and diagrams share this, so that they collapse a deep model in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gradflow.errors import InvalidArgumentError, NoSuchParameterError
from gradflow.record import Contributions, ParamStep
from gradflow.recording import Step

__all__ = ["Row", "largest", "measured", "rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter, or the parameters of one module together.

    Attributes:
        name: FQN or module path.
        data: What was brought to it.
        members: Its parameters, in the model's order.
    """

    name: str
    data: Contributions
    members: tuple[ParamStep, ...]


def rows(step: Step, *, most: int, by: str = "auto") -> tuple[tuple[Row, ...], str]:
    """Group a step's parameters into at most ``most`` rows, in the model's order, where that can be done.

    Args:
        step: The step.
        most: Most rows wanted.
        by: ``"parameter"``; ``"module"`` for the modules that own parameters; ``"auto"`` for parameters
            if they are few enough, else for modules, at the greatest depth that is readable.

    Returns:
        The rows, and what they are, such as ``"parameters"`` or ``"modules to depth 2"``.

    Raises:
        InvalidArgumentError: ``by`` is something else.
        NoSuchParameterError: the step has no parameters.
    """
    if by not in ("auto", "parameter", "module"):
        raise InvalidArgumentError(
            f"by={by!r}", where="gradflow.plot", do="known: 'auto', 'parameter', 'module'"
        )
    if not len(step):
        raise NoSuchParameterError(
            f"no gradient was recorded in step {step.index}",
            where="gradflow.plot",
            do="take another step: recording[-2], or look at step.findings",
        )
    if by == "parameter" or (by == "auto" and len(step) <= most):
        return tuple(Row(p.fqn, p, (p,)) for p in step), "parameters"
    deepest = max((fqn.count(".") for fqn in step.params), default=0)
    for depth in range(deepest, 0, -1):
        groups = _groups(step, depth)
        if len(groups) <= most or depth == 1:
            what = "modules" if depth == deepest else f"modules to depth {depth}"
            return tuple(_row(step, name, members) for name, members in groups.items()), what
    return tuple(Row(p.fqn, p, (p,)) for p in step), "parameters"


def largest(shown: Sequence[Row], top: int) -> tuple[Row, ...]:
    """Keep the ``top`` rows with the largest contributions, in their order."""
    by_size = sorted(shown, key=lambda row: -max(row.data.norms.values(), default=0.0))
    names = {row.name for row in by_size[:top]}
    return tuple(row for row in shown if row.name in names)


def measured(step: Step, where: str) -> tuple[Contributions, str]:
    """Give the measures of a parameter or layer (``""``: the whole model), and what to call it.

    Raises:
        NoSuchParameterError: neither a parameter nor a module of that name.
    """
    if where in step.parameters or any(where in p.names for p in step):
        return step[where], where
    return step.layer(where), where or "the whole model"


def _groups(step: Step, depth: int) -> dict[str, list[ParamStep]]:
    """Parameters by the module they are in, no deeper than ``depth``; a bare parameter is its own group."""
    groups: dict[str, list[ParamStep]] = {}
    for p in step:
        module = p.fqn.split(".")[:-1][:depth]
        groups.setdefault(".".join(module) or p.fqn, []).append(p)
    return groups


def _row(step: Step, name: str, members: list[ParamStep]) -> Row:
    if len(members) == 1:
        return Row(name, members[0], (members[0],))
    part = replace(step, parameters={p.fqn: p for p in members})
    return Row(name, part.layer(""), tuple(members))

"""The rules that split a step, by optimizer class, and why some optimizers have none.

A rule is a function that reads one parameter's step and writes it down as a linear map
(:class:`~gradflow.updates.frozen.Frozen`). One more optimizer is one more such function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer

from gradflow.updates.frozen import Frozen, Stepped

__all__ = ["Freeze", "Rule", "register", "rule_of", "why_whole"]

Freeze = Callable[[Stepped], Frozen | str]
"""Writes one step down as a linear map, or says why this step must be shown whole."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How the steps of one optimizer class are split.

    Attributes:
        name: Name of the optimizer class.
        freeze: Writes one step down as a linear map.
        momentum: Name of the state entry that holds the momentum; empty when there is none.
        before: Names of the state entries to copy before the step, because the step uses their old
            values and overwrites them.
        by_element: Whether each element moves by itself, so that a shard can be split alone.
    """

    name: str
    freeze: Freeze
    momentum: str = ""
    before: tuple[str, ...] = ()
    by_element: bool = True


_RULES: dict[type[Optimizer], Rule] = {}  # filled by `register` alone

_WHOLE: dict[str, str] = {
    "LBFGS": "LBFGS evaluates the loss several times in one step and divides by products of gradients",
    "Rprop": "Rprop steps by the sign of the whole gradient, not by its size",
}

_DEFINES_THE_STEP = ("step", "_init_group")


def register(
    optimizer: type[Optimizer], *, momentum: str = "", before: tuple[str, ...] = (), by_element: bool = True
) -> Callable[[Freeze], Freeze]:
    """Register the decorated function as the rule of an optimizer class.

    Args:
        optimizer: The class. A subclass that does not override ``step`` is covered too.
        momentum: Name of the state entry that holds the momentum, such as ``"exp_avg"``; empty when
            the optimizer has none.
        before: Names of state entries to copy before each step.
        by_element: False if what moves one element depends on others (rows, columns, the whole matrix).

    Returns:
        A decorator that gives the function back unchanged. The function may return a sentence instead of a
        :class:`~gradflow.updates.frozen.Frozen`: then the step is shown whole, for that reason.

    Note:
        An option named ``maximize`` is honoured for you: the gradients arrive with their sign turned.

    Example:
        >>> import torch
        >>> from gradflow.updates.frozen import Accumulate
        >>> class HeavyBall(torch.optim.Optimizer):
        ...     pass  # its step: v = mu * v - lr * grad;  theta = theta + v
        >>> @register(HeavyBall, momentum="velocity")
        ... def heavy_ball(step):
        ...     memory = Accumulate(keep=step.option("mu"), take=-step.option("lr"))
        ...     return Frozen(memory=memory, momentum=1.0)
    """

    def keep(freeze: Freeze) -> Freeze:
        _RULES[optimizer] = Rule(optimizer.__name__, freeze, momentum, tuple(before), by_element)
        return freeze

    return keep


def rule_of(optimizer: Optimizer) -> Rule | None:
    """Give the rule of an optimizer's class or nearest registered base, or None.

    A base's rule holds only while nothing that defines the step is overridden.
    """
    kind = type(optimizer)
    for base in kind.__mro__:
        if base in _RULES:
            return _RULES[base] if _steps_alike(kind, base) else None
    return None


def why_whole(optimizer: Optimizer) -> str:
    """Say why the deltas of an optimizer without a rule are shown whole."""
    kind = type(optimizer)
    if kind.__module__.startswith("torch.optim") and kind.__name__ in _WHOLE:
        return f"shown whole: {_WHOLE[kind.__name__]}"
    base = next((b.__name__ for b in kind.__mro__ if b in _RULES), None)
    reason = f"it overrides the step of {base}" if base else "there is no rule for it"
    return f"shown whole: {kind.__name__} has its own step, {reason}; gradflow.updates.register adds one"


def _steps_alike(kind: type[Optimizer], base: type[Optimizer]) -> bool:
    """Tell whether a subclass runs the very functions of its base; torch wraps ``step`` for its hooks."""
    return all(
        inspect.unwrap(getattr(kind, name)) is inspect.unwrap(getattr(base, name))
        for name in _DEFINES_THE_STEP
        if hasattr(base, name)
    )

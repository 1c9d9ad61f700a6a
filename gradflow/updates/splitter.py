"""Splits what an optimizer did to each parameter among the contributors of its gradient, exactly.

An accounting under a frozen preconditioner, not a counterfactual: a part tells how much of the move the
optimizer made is credited to a contributor, not what it would have done alone.

Nothing here waits for a device, changes a tensor of the user's, or draws a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradflow.errors import InvalidArgumentError
from gradflow.updates.frozen import Factor, Frozen, OverRoot, Stepped, is_zero
from gradflow.updates.memory import HISTORY, Memory
from gradflow.updates.rules import Rule, rule_of, why_whole
from gradflow.updates.working import HALF, apart, as_read, held, is_sharded, scalar, working

__all__ = ["DECAY", "ROUNDING", "DeltaSplitter", "Products", "Split", "Terms"]

DECAY = "decay"
ROUNDING = "rounding"

_OURS = (DECAY, HISTORY)

Products = dict[str, list[tuple[Factor, Tensor]]]
"""By contributor, what sums to its part: each a factor and the tensor that it is applied to."""


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of one parameter's delta.

    Attributes:
        parts: One tensor per contributor, dense, of the parameter's shape and dtype (float32 for a
            half-precision one); they sum to the delta. Of a sharded parameter, what this process holds.
            Empty when the delta is shown whole.
        rule: Name of the rule, such as ``"Adam"``; empty when the delta is shown whole.
        note: Why it is shown whole, or what the reader should know.
    """

    parts: dict[str, Tensor] = field(default_factory=dict)
    rule: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of one parameter's delta, not multiplied out; they hold until the optimizer steps again.

    Attributes:
        products: By contributor, the products that sum to its part: a factor and a tensor each, real (a
            last dimension of 2 for a complex parameter). Empty when the delta is shown whole.
        rule: As in :class:`Split`.
        note: As in :class:`Split`.
        is_complex: Whether the parameter is complex.
    """

    products: Products = field(default_factory=dict)
    rule: str = ""
    note: str = ""
    is_complex: bool = False

    def split(self, make: Callable[[OverRoot], Tensor] = OverRoot.tensor) -> Split:
        """Multiply out.

        Args:
            make: Works out a number over a root.
        """
        parts = _multiplied_out(self.products, make)
        if self.is_complex:
            parts = {name: torch.view_as_complex(part) for name, part in parts.items()}
        return Split(parts, self.rule, self.note)


@dataclass(frozen=True, slots=True)
class _Pending:
    """What was read of a parameter before its step."""

    contributions: dict[str, Tensor]
    gradient: Tensor
    copies: dict[str, Tensor]
    fresh: bool
    scale: Tensor | None
    skipped: Tensor | None


class DeltaSplitter:
    """Splits the deltas of one optimizer by contributor; lives as long as what watches it.

    Call :meth:`before` from the optimizer's step pre-hook and :meth:`after` from its post-hook, for each
    watched parameter that has a gradient, both under ``torch.no_grad()``; and :meth:`unwatched` from the
    hook of a step that is not watched.

    Args:
        optimizer: Any optimizer; without a rule for it, every delta is shown whole.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.SGD([w], lr=0.5)
        >>> splitter = DeltaSplitter(optimizer)
        >>> parts = {"anchor": torch.tensor([2.0, 0.0]), "positive": torch.tensor([0.0, 4.0])}
        >>> w.grad, theta = sum(parts.values()), w.detach().clone()
        >>> with torch.no_grad():
        ...     splitter.before(w, parts)
        ...     optimizer.step()
        ...     split = splitter.after(w, theta)
        >>> {name: part.tolist() for name, part in split.parts.items()}
        {'anchor': [-1.0, -0.0], 'positive': [-0.0, -2.0]}
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._rule = rule_of(optimizer)
        self._memories: dict[Tensor, Memory] = {}
        self._pending: dict[Tensor, _Pending] = {}
        self._groups: dict[Tensor, dict[str, Any]] = {}  # options are of any type
        self._groups_key: tuple[tuple[int, int], ...] = ()

    def before(self, param: Tensor, contributions: Mapping[str, Tensor]) -> None:
        """Take in what each contributor brought, before the step.

        Args:
            param: A parameter of the optimizer, with a gradient.
            contributions: What each contributor brought, as the optimizer will read it; they sum to
                ``param.grad``, or to what this process holds of it. Dense or sparse.
                Kept by reference until :meth:`after`, never modified.
                Where ``GradScaler`` leaves the unscaling to a fused optimizer (``grad_scale``), both
                ``param.grad`` and the contributions still carry the scale: it is divided out here.

        Raises:
            InvalidArgumentError: a contributor is called ``decay`` or ``history``.
        """
        interrupted = self._pending.pop(param, None) is not None
        rule, gradient = self._rule, param.grad
        if rule is None or gradient is None or (is_sharded(param) and not rule.by_element):
            return
        _refuse_our_names(contributions)
        state: Mapping[str, Any] = self._optimizer.state.get(param, {})
        own = state.get(rule.momentum)
        if interrupted and param in self._memories:
            self._memories[param].lose()
        if own is not None or param in self._memories:
            self._memory(param, rule).reconcile(state)
        self._pending[param] = _Pending(
            contributions={name: apart(g, gradient) for name, g in contributions.items()},
            gradient=gradient,
            copies={name: working(state[name]).clone() for name in rule.before if name in state},
            fresh=own is None,
            scale=scalar(getattr(self._optimizer, "grad_scale", None)),
            skipped=self._skipped(param),
        )

    def after(self, param: Tensor, theta_before: Tensor) -> Split:
        """Give the parts of ``theta_after - theta_before``, after the step.

        Args:
            param: The parameter, moved.
            theta_before: Its value before the step.
        """
        return self.terms(param, theta_before).split()

    def terms(self, param: Tensor, theta_before: Tensor) -> Terms:
        """Give the parts as :meth:`after` does, but not multiplied out: call one of the two."""
        pending, group = self._pending.pop(param, None), self._group(param)
        if self._rule is None:
            return Terms(note=why_whole(self._optimizer))
        reason = _why_not(param, pending, self._rule)
        if pending is None or group is None or reason:
            return self._whole(param, reason)
        frozen = self._rule.freeze(self._read(param, theta_before, pending))
        if isinstance(frozen, str):
            return self._whole(param, frozen)
        products = self._products(param, frozen, pending, working(theta_before))
        memory = self._memories.get(param)
        why = memory.why if memory is not None and HISTORY in products else ""
        note = "; ".join(filter(None, (frozen.note, why)))
        return Terms(products, self._rule.name, note, param.is_complex())

    def unwatched(self) -> None:
        """Tell that a step went by which was not watched; call it while the gradients are still there."""
        for param, memory in self._memories.items():
            if param.grad is not None:
                memory.miss()

    def memory_bytes(self) -> int:
        """Give what the momentum buffers of the contributors take, in bytes."""
        return sum(memory.bytes() for memory in self._memories.values())

    def _read(self, param: Tensor, theta_before: Tensor, pending: _Pending) -> Stepped:
        state = self._optimizer.state.get(param, {})
        return Stepped(
            group=self._groups[param],
            state={k: working(v) if isinstance(v, Tensor) else v for k, v in state.items()},
            before=pending.copies,
            theta=working(theta_before),
            fresh=pending.fresh,
            raw=held(pending.gradient),
            scale=pending.scale,
        )

    def _products(self, param: Tensor, frozen: Frozen, pending: _Pending, theta: Tensor) -> Products:
        maximize = self._groups[param].get("maximize", False)
        gradients = {
            name: as_read(working(g), maximize=maximize, scale=pending.scale)
            for name, g in pending.contributions.items()
        }
        if not is_zero(frozen.penalty):
            gradients[DECAY] = _apply(frozen.penalty, theta)
        skipped = (
            None if pending.skipped is None else pending.skipped.to(theta.device) == 1
        )  # as kernels test
        buffers = self._advance(param, gradients, frozen, skipped)
        products = _linear(frozen, gradients, buffers, theta)
        is_half = any(g.dtype in HALF for g in (param, *pending.contributions.values()))
        if skipped is None and not frozen.rounds and not is_half:
            return products
        parts = _multiplied_out(products)
        if skipped is not None:
            parts = {n: torch.where(skipped, torch.zeros_like(p), p) for n, p in parts.items()}
        if frozen.rounds or is_half:
            rest = working(param.detach()) - theta - sum(parts.values())
            parts[ROUNDING] = parts[ROUNDING] + rest if ROUNDING in parts else rest
        return {name: [(1.0, part)] for name, part in parts.items()}

    def _advance(
        self, param: Tensor, gradients: dict[str, Tensor], frozen: Frozen, skipped: Tensor | None
    ) -> dict[str, Tensor]:
        if self._rule is None or (frozen.memory is None and param not in self._memories):
            return {}
        memory = self._memory(param, self._rule)
        buffers = memory.advance(gradients, frozen.memory, skipped) if frozen.memory else {}
        memory.mark(self._optimizer.state.get(param, {}))
        return buffers

    def _skipped(self, param: Tensor) -> Tensor | None:
        """Tell, on the device, whether a fused step finds infinities and stays; its kernels test for 1."""
        found = scalar(getattr(self._optimizer, "found_inf", None))
        return None if found is None else found.to(param.device, non_blocking=True) == 1

    def _whole(self, param: Tensor, reason: str) -> Terms:
        """Show a step whole, and forget whose the momentum is that it leaves."""
        if param in self._memories:
            self._memories[param].lose()
        return Terms(note=f"shown whole: {reason}")

    def _memory(self, param: Tensor, rule: Rule) -> Memory:
        return self._memories.setdefault(param, Memory(rule.momentum))

    def _group(self, param: Tensor) -> dict[str, Any] | None:
        """Give the options of a parameter's group; groups may be added or replaced at any time."""
        groups = self._optimizer.param_groups
        key = tuple((id(group), len(group["params"])) for group in groups)
        if key != self._groups_key:
            self._groups = {p: group for group in groups for p in group["params"]}
            self._groups_key = key
        return self._groups.get(param)


def _why_not(param: Tensor, pending: _Pending | None, rule: Rule) -> str:
    """Say why this one step cannot be split; empty when it can."""
    if is_sharded(param) and not rule.by_element:
        return f"the parameter is sharded, and {rule.name} moves each element by what it knows of the others"
    if pending is None:
        return "the optimizer had no gradient for it before this step"
    if param.grad is not None and param.grad is not pending.gradient:
        return "step(closure) computed another gradient inside the step"
    if any(g.shape != held(param).shape for g in pending.contributions.values()):
        return "a contribution has another shape than the parameter"
    return ""


def _linear(
    frozen: Frozen, gradients: Mapping[str, Tensor], buffers: Mapping[str, Tensor], theta: Tensor
) -> Products:
    """Write the frozen step down for each contributor's gradient and momentum, and for the parameter."""
    products: Products = {}
    terms = ((gradients, frozen.gradient), (buffers, frozen.momentum), ({DECAY: theta}, frozen.theta))
    for tensors, factor in terms:
        if not is_zero(factor):
            for name, tensor in tensors.items():
                products.setdefault(name, []).append((factor, tensor))
    return products


def _multiplied_out(
    products: Products, make: Callable[[OverRoot], Tensor] = OverRoot.tensor
) -> dict[str, Tensor]:
    parts: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}  # factors that several contributors share are worked out once
    for name, pairs in products.items():
        for factor, tensor in pairs:
            if isinstance(factor, OverRoot) and id(factor) not in made:
                made[id(factor)] = make(factor)
            part = _apply(made.get(id(factor), factor), tensor)
            parts[name] = parts[name] + part if name in parts else part
    return parts


def _apply(factor: Factor, tensor: Tensor) -> Tensor:
    applied = factor(tensor) if callable(factor) else tensor * factor
    return applied.to(tensor.dtype)  # a float64 counter would widen a parameter without dimensions


def _refuse_our_names(contributions: Mapping[str, Tensor]) -> None:
    taken = [name for name in _OURS if name in contributions]
    if taken:
        raise InvalidArgumentError(
            f"a contributor is called {taken[0]!r}",
            where="DeltaSplitter.before",
            do="that name is for what the optimizer itself adds; give the branch another one",
        )

"""What arrived at each parameter: kept per backward until the leaf accumulates, then per step.

Three things happen to a parameter in a backward, always in this order. The hooks planted on its uses
fire, one for each (:meth:`Account.arrive`). The hook on the leaf gets the sum the engine made of them:
here it is compared, bit for bit, with the raw arrivals summed in arrival order (:meth:`Account.receive`).
The post-accumulate hook fires when ``.grad`` has changed, which is what makes the arrivals count
(:meth:`Account.commit`); under ``autograd.grad`` it does not fire, and they are dropped.

Note:
    A kept gradient is the hook's own tensor, never a view or ``.detach()`` of it: the engine may hand
    the storage of such a tensor to ``.grad``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from gradflow.capture.marking import Edge
from gradflow.capture.reduce import norm
from gradflow.capture.stems import SHARED
from gradflow.updates.working import held, is_sharded

__all__ = ["Account", "Arrival", "Backward", "Part", "fold", "is_zero", "probe", "stamp"]

_PENDING = 8  # backwards that never accumulated (``autograd.grad``) are dropped beyond so many
_PROBED = 256


@dataclass(eq=False, slots=True)
class Arrival:
    """A use that brought something: counted towards a contributor, its norm taken only when asked for."""

    edge: Edge
    contributor: str
    norm: Tensor | None = None


class Part(NamedTuple):
    """What one contributor sent through a stem to a use behind it.

    Attributes:
        contributor: Who sent it.
        gradient: What came out at the use.
    """

    contributor: str
    gradient: Tensor


@dataclass(eq=False, slots=True)
class Backward:
    """One parameter in one backward call, until it is committed.

    Attributes:
        arrivals: Uses and what each brought, in arrival order.
        parts: What came through stems to a use, by contributor.
        terms: What named terms of the loss sent to each use.
        residual: How far they were from the leaf's total; None while conserved bitwise.
        remainder: What the leaf received beyond the arrivals; None while conserved bitwise.
        was_clear: Whether ``.grad`` was None before.
        stamp: Storage and version of the total the leaf received.
        total: The total itself, where it may have to be kept.
    """

    arrivals: list[tuple[Edge, Tensor]] = field(default_factory=list)
    parts: dict[Edge, list[Part]] = field(default_factory=dict)
    terms: list[tuple[Edge, str, Tensor]] = field(default_factory=list)
    residual: Tensor | None = None
    remainder: Tensor | None = None
    was_clear: bool = False
    stamp: tuple[int, int] = (0, -1)
    total: Tensor | None = None


@dataclass(eq=False, slots=True)
class Account:
    """One parameter in the step that is open.

    Attributes:
        param: The parameter.
        keep: Whether full tensors are kept, so that the total needs a copy of its own.
        pending: Backward calls under way, by id of their graph task.
        sums: Contribution of each contributor so far, in the order they first arrived.
        owned: Contributors whose sum is a tensor of ours, which may be added to in place.
        cells: What each named term of the loss sent along each branch, by (contributor, term).
        uses: Every use that brought something.
        residuals: Residuals of the backwards that were not conserved bitwise.
        total: What the leaf received so far; None while ``.grad`` itself is just that.
        probe: A few elements of that ``.grad``, which tell by what factor it is scaled later.
        grad_stamp: Storage and version of ``.grad`` after the last backward.
    """

    param: Tensor
    keep: bool = False
    pending: dict[int, Backward] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)
    cells: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    uses: list[Arrival] = field(default_factory=list)
    residuals: list[Tensor] = field(default_factory=list)
    total: Tensor | None = None
    probe: Tensor | None = None
    grad_stamp: tuple[int, int] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was committed in this step."""
        return self.grad_stamp is None

    @property
    def is_awaited(self) -> bool:
        """Whether ``.grad`` is yet to be filled by somebody else than the engine."""
        return False

    @property
    def is_cleared(self) -> bool:
        """Whether ``.grad`` was cleared since the last backward, so that no step will read it."""
        if self.is_empty or self.is_awaited:
            return False
        grad = self.param.grad
        return grad is None or self._was_zeroed(grad)

    def arrive(self, task: int, edge: Edge, gradient: Tensor) -> None:
        """Take in what one use brings."""
        if gradient.requires_grad:  # under create_graph it would hold the whole double graph
            gradient = gradient.detach().clone()
        self._backward(task).arrivals.append((edge, gradient))

    def divide(self, task: int, edge: Edge, part: Part) -> None:
        """Take in what one contributor sent through a stem to a use, ahead of the sum that will arrive."""
        self._backward(task).parts.setdefault(edge, []).append(part)

    def divide_by_term(self, task: int, edge: Edge, term: str, gradient: Tensor) -> None:
        """Take in what one term of the loss sent to a use, ahead of the sum that will arrive."""
        self._backward(task).terms.append((edge, term, gradient))

    def receive(self, task: int, total: Tensor) -> None:
        """Compare the arrivals with the sum that the leaf receives."""
        backward = self._backward(task)
        self._notice_clearing()
        backward.was_clear = self.param.grad is None
        backward.stamp = stamp(total)
        folded = fold([gradient for _, gradient in backward.arrivals])
        if folded is None or not _same(folded, total):
            backward.residual, backward.remainder = _difference(folded, total)
            folded = total.detach().clone() if total.requires_grad else total
        backward.total = folded

    def commit(self, task: int, label: Callable[[Edge], str]) -> None:
        """Count the arrivals of a backward: ``.grad`` has taken them in."""
        backward = self.pending.pop(task, None)
        if backward is None or backward.total is None:
            return
        for edge, gradient in backward.arrivals:
            if edge in backward.parts and label(edge) == SHARED:
                self._add_parts(edge, gradient, backward.parts[edge])
            else:
                self._add(label(edge), edge, gradient)
        for edge, term, gradient in backward.terms:
            cell = (label(edge), term)
            self.cells[cell] = self.cells[cell] + gradient if cell in self.cells else gradient
        if backward.residual is not None and backward.remainder is not None:
            self.residuals.append(backward.residual)
            self._sum("unclaimed", backward.remainder, is_ours=True)
        self._total(backward, backward.total)
        self.grad_stamp = stamp(self.param.grad) if self.param.grad is not None else (0, -1)

    def parts(self) -> dict[str, Tensor]:
        """Give the contributions in the form that the optimizer moves."""
        return self.sums

    def clear(self) -> None:
        """Forget the step."""
        self.sums, self.owned, self.uses, self.residuals, self.cells = {}, set(), [], [], {}
        self.total, self.probe, self.grad_stamp = None, None, None

    def _was_zeroed(self, grad: Tensor) -> bool:
        return stamp(grad) != self.grad_stamp and is_zero(grad)

    def _backward(self, task: int) -> Backward:
        backward = self.pending.get(task)
        if backward is None:
            backward = self.pending[task] = Backward()
            while len(self.pending) > _PENDING:
                del self.pending[next(iter(self.pending))]
        return backward

    def _add_parts(self, edge: Edge, whole: Tensor, parts: list[Part]) -> None:
        rest = whole
        for part in parts:
            self._add(part.contributor, edge, part.gradient)
            rest = rest - part.gradient
        if rest.device.type != "cpu" or bool(_dense_values(rest).any()):
            self._sum("rounding", rest, is_ours=True)

    def _add(self, name: str, edge: Edge, gradient: Tensor) -> None:
        arrival = Arrival(edge, name)
        alone = [use for use in self.uses if use.contributor == name]
        if alone:
            if len(alone) == 1 and alone[0].norm is None:
                alone[0].norm = norm(self.sums[name])
            arrival.norm = norm(gradient)
        self.uses.append(arrival)
        self._sum(name, gradient, is_ours=False)

    def _sum(self, name: str, gradient: Tensor, *, is_ours: bool) -> None:
        before = self.sums.get(name)
        if before is None:
            self.sums[name] = gradient
            if is_ours:
                self.owned.add(name)
        elif name in self.owned and not before.is_sparse and before.dtype == gradient.dtype:
            before.add_(gradient)
        else:
            self.sums[name] = before + gradient
            self.owned.add(name)

    def _total(self, backward: Backward, received: Tensor) -> None:
        """Keep what the leaf received, unless ``.grad`` holds just that and can be asked later."""
        grad = self.param.grad
        is_first = self.is_empty and backward.was_clear and grad is not None and stamp(grad) == backward.stamp
        is_further = not self.is_empty and self.total is None and not backward.was_clear
        if grad is not None and (is_first or is_further) and not self.keep:
            self.probe = probe(grad)
        elif self.total is None:
            self.total = received.detach().clone() if self.keep else received
        else:
            self.total = self.total + received

    def _notice_clearing(self) -> None:
        """Drop what was counted before ``.grad`` was cleared: no step will read it."""
        if self.is_empty:
            return
        grad = self.param.grad
        if self.is_cleared:
            self.clear()
        elif self.total is None and grad is not None and stamp(grad) != self.grad_stamp:
            self.total = fold(list(self.sums.values()))


def probe(tensor: Tensor) -> Tensor:
    """Copy a few elements, spread over the tensor."""
    flat = tensor.coalesce().values().reshape(-1) if tensor.is_sparse else tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // _PROBED)].detach().clone()


def stamp(tensor: Tensor) -> tuple[int, int]:
    """Identify the contents of a dense tensor without reading them: its storage and its version."""
    if tensor.is_sparse:
        return id(tensor), tensor._version
    if is_sharded(tensor):  # what changes a shard is counted by itself, or by what holds it
        shard = held(tensor)
        return shard.data_ptr(), shard._version + tensor._version
    return tensor.data_ptr(), tensor._version


def fold(gradients: list[Tensor]) -> Tensor | None:
    """Sum in the given order, as the engine does; a single one is given back itself."""
    if not gradients:
        return None
    total = gradients[0]
    for i, gradient in enumerate(gradients[1:]):
        if i == 0 or total.is_sparse or total.dtype != gradient.dtype:
            total = total + gradient
        else:
            total += gradient
    return total


def _same(folded: Tensor, total: Tensor) -> bool:
    """Tell whether two gradients are the same bits; on a device that cannot be asked, say no."""
    if folded is total or stamp(folded)[0] == stamp(total)[0]:
        return True
    if total.device.type != "cpu" or total.is_sparse or folded.is_sparse:
        return False
    if torch.equal(folded, total):
        return True
    nans = folded.isnan(), total.isnan()
    return torch.equal(*nans) and torch.equal(folded[~nans[0]], total[~nans[1]])


def _difference(folded: Tensor | None, total: Tensor) -> tuple[Tensor, Tensor]:
    """Give (max |folded − total| / max |total|, total − folded)."""
    total = total.detach()
    remainder = total.clone() if folded is None else total - folded
    magnitudes = [_dense_values(t).abs().amax().double() for t in (remainder, total)]
    residual = torch.where(magnitudes[0] == 0, 0.0, magnitudes[0] / magnitudes[1])
    return residual.reshape(1), remainder


def _dense_values(tensor: Tensor) -> Tensor:
    values = tensor.coalesce().values() if tensor.is_sparse else tensor
    return values if values.numel() else values.new_zeros(1)


def is_zero(grad: Tensor) -> bool:
    """Tell whether a gradient was zeroed in place; asks only the host's own memory."""
    if grad.device.type != "cpu":
        return False
    return not bool(_dense_values(grad).any())

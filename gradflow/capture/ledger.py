"""What arrived at each parameter: kept per backward until the leaf accumulates, then per step.

Three things happen to a parameter in a backward, always in this order. The hooks planted on its uses
fire, one for each (:meth:`Account.arrive`). The hook on the leaf gets the sum the engine made of them:
here it is compared, bit for bit, with the raw arrivals summed in arrival order (:meth:`Account.receive`).
The post-accumulate hook fires when ``.grad`` has changed, which is what makes the arrivals count
(:meth:`Account.commit`); under ``autograd.grad`` it does not fire, and they are dropped.

Contributions are kept until the step is over, for a further backward may add to them, and the optimizer's
step is split among them. Where nobody asks for either (:attr:`Account.lets_go`), they are let go of as the
leaf receives their sum: all that is told of them was read by then, and the engine may reuse their memory.

Note:
    A kept gradient is the hook's own tensor, never a view or ``.detach()`` of it: the engine may hand
    the storage of such a tensor to ``.grad``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture import kernels
from gradflow.capture.arrivals import ROUNDING, Arrival, Backward, Part
from gradflow.capture.calls import Mark
from gradflow.capture.comparing import dense_values, fold, is_zero, probe, stamp
from gradflow.capture.known import Layout
from gradflow.capture.marking import Edge
from gradflow.capture.reduce import norm, norms
from gradflow.capture.stems import SHARED, UNCLAIMED

__all__ = ["Account"]

_PENDING = 8  # backwards that never accumulated (``autograd.grad``) are dropped beyond so many


@dataclass(eq=False, slots=True)
class Account:
    """One parameter in the step that is open.

    It is empty, or all it has lies in ``gone`` (the one backward of the step, in which the arrivals summed to
    the total to the last bit, and no term of the loss was named), or in ``sums`` and ``uses``; never in both.

    Attributes:
        param: The parameter.
        keep: Whether full tensors are kept, so that the total needs a copy of its own.
        lets_go: Whether contributions are let go of once they are read.
        pending: Backward calls under way, by id of their graph task.
        sums: Contribution of each contributor so far, in the order they first arrived.
        gone: The backward whose contributions were read and let go of.
        owned: Contributors whose sum is a tensor of ours, which may be added to in place.
        cells: What each named term of the loss sent along each branch, by (contributor, term).
        uses: Every use that brought something.
        alone: The use of each contributor that has but one: its norm is the contributor's.
        residuals: Residuals of the backwards that were not conserved bitwise.
        total: What the leaf received so far; None while ``.grad`` itself is just that.
        probe: A few elements of that ``.grad``, which tell by what factor it is scaled later; None where
            they can be had from the sums.
        is_refoldable: Whether the sums, added up in their order, are what the leaf received to the last bit.
        survey: All there is to know of the sums and their total; None where it is yet to be worked out.
        grad_stamp: Storage and version of ``.grad`` after the last backward.
        room: What was read of an earlier step, to be written over; None where a survey has it.
        layout: What was recorded last beside numbers, for the next record to share.
    """

    param: Tensor
    keep: bool = False
    lets_go: bool = False
    pending: dict[int, Backward] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    gone: Backward | None = None
    owned: set[str] = field(default_factory=set)
    cells: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    uses: list[Arrival] = field(default_factory=list)
    alone: dict[str, Arrival] = field(default_factory=dict)
    residuals: list[Tensor] = field(default_factory=list)
    total: Tensor | None = None
    probe: Tensor | None = None
    is_refoldable: bool = False
    survey: kernels.Survey | None = None
    grad_stamp: tuple[int, int] | None = None
    room: NDArray[np.float64] | None = None
    layout: Layout | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was committed in this step."""
        return self.grad_stamp is None

    @property
    def contributors(self) -> tuple[str, ...]:
        """Who brought something in this step, in the order they first did."""
        return tuple(self.sums) if self.gone is None else self.gone.contributors()

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
        self._backward(task).add(edge, gradient)

    def divide(self, task: int, edge: Edge, part: Part) -> None:
        """Take in what one contributor sent through a stem to a use, ahead of the sum that will arrive."""
        backward = self._backward(task)
        backward.parts = backward.parts or {}
        backward.parts.setdefault(edge, []).append(part)

    def divide_by_term(self, task: int, edge: Edge, term: str, gradient: Tensor) -> None:
        """Take in what one term of the loss sent to a use, ahead of the sum that will arrive."""
        backward = self._backward(task)
        backward.terms = [*(backward.terms or ()), (edge, term, gradient)]

    def receive(self, task: int, total: Tensor, label: Callable[[Mark], str]) -> bool:
        """Compare the arrivals with the sum that the leaf receives.

        Args:
            task: The backward.
            total: The sum.
            label: Gives the contributor of a node.

        Returns:
            Whether contributions of an earlier backward are missing, because they were let go of.
        """
        backward = self._backward(task)
        is_missing = self._notice_clearing()
        backward.was_clear = self.param.grad is None
        may_let_go = self.lets_go and self.is_empty and backward.was_clear and backward.terms is None
        names = [label(edge.mark) for edge in backward.edges]
        room = None
        if may_let_go:  # then the survey has the room until the step is over
            room, self.room = self.room, None
        backward.receive(total, names, may_let_go=may_let_go, room=room)
        return is_missing

    def commit(self, task: int) -> list[Edge]:
        """Count the arrivals of a backward, for ``.grad`` has taken them in; give their uses."""
        backward = self.pending.pop(task, None)
        if backward is None or backward.stamp is None:
            return []
        if backward.is_let_go:
            self._count_let_go(backward)
        else:
            self._count(backward)
        return backward.edges

    def _count(self, backward: Backward) -> None:
        is_plain = self.is_empty and backward.residual is None and backward.parts is None
        lengths = backward.lengths()
        further: list[tuple[Arrival, Tensor]] = []
        for i, (name, edge, gradient) in enumerate(
            zip(backward.names, backward.edges, backward.gradients, strict=True)
        ):
            if backward.parts is not None and edge in backward.parts and name == SHARED:
                self._add_parts(edge, gradient, backward.parts[edge], further)
            else:
                self._add(Arrival(edge, name, lengths[i]), gradient, further)
        for (arrival, _), found in zip(further, norms([g for _, g in further]), strict=True):
            arrival.norm = found
        if backward.terms is not None:
            self._add_terms(backward, backward.terms)
        if backward.residual is not None and backward.remainder is not None:
            self.residuals.append(backward.residual)
            self._sum(UNCLAIMED, backward.remainder, is_ours=True)
        if backward.rest is not None:
            self._sum(ROUNDING, backward.rest, is_ours=True)
        is_refoldable = backward.total is None and len(self.sums) == len(backward.edges)
        self.is_refoldable = is_plain and is_refoldable
        self.survey = backward.survey if is_plain else None
        self._total(backward)
        self.grad_stamp = stamp(self.param.grad) if self.param.grad is not None else (0, -1)

    def _count_let_go(self, backward: Backward) -> None:
        """Count what was read and let go of: ``.grad``, which was clear, is the total now."""
        self.gone, self.survey, self.probe = backward, backward.survey, backward.probe
        grad = self.param.grad
        is_untouched = grad is not None and self._is_untouched(grad, backward)
        self.grad_stamp = stamp(grad) if grad is not None and is_untouched else backward.stamp

    def _is_untouched(self, grad: Tensor, backward: Backward) -> bool:
        """Tell whether ``.grad`` is the total as the engine put it there, itself or a copy of it."""
        hooks = self.param._post_accumulate_grad_hooks or ()  # ours is one: nobody else may have changed it
        return stamp(grad) == backward.stamp or (len(hooks) == 1 and not grad.is_sparse)

    def _take_back(self, gone: Backward, grad: Tensor) -> None:
        """A further backward adds to what was let go of: of that, only what is in ``.grad`` is left."""
        self.uses = [Arrival(edge, UNCLAIMED, length) for edge, _, length in gone.uses()]
        self.sums, self.gone, self.survey = {UNCLAIMED: grad.detach().clone()}, None, None

    def brought(self) -> list[Tensor]:
        """Give all that was brought in this step, by whom ever."""
        return list(self.sums.values())

    def parts(self) -> dict[str, Tensor]:
        """Give the contributions in the form that the optimizer moves."""
        return self.sums

    def clear(self) -> None:
        """Forget the step."""
        if self.gone is not None and self.survey is not None:
            self.room = self.survey.numbers
        self.gone, self.survey, self.probe, self.grad_stamp = None, None, None, None
        if not self.uses and not self.sums:  # all was let go of
            return
        self.sums, self.owned, self.uses, self.residuals, self.cells = {}, set(), [], [], {}
        self.alone, self.total, self.is_refoldable = {}, None, False

    def _was_zeroed(self, grad: Tensor) -> bool:
        return stamp(grad) != self.grad_stamp and is_zero(grad)

    def _backward(self, task: int) -> Backward:
        backward = self.pending.get(task)
        if backward is None:
            backward = self.pending[task] = Backward()
            while len(self.pending) > _PENDING:
                del self.pending[next(iter(self.pending))]
        return backward

    def _add_parts(
        self, edge: Edge, whole: Tensor, parts: list[Part], further: list[tuple[Arrival, Tensor]]
    ) -> None:
        rest = whole
        for part in parts:
            self._add(Arrival(edge, part.contributor), part.gradient, further)
            rest = rest - part.gradient
        if rest.device.type != "cpu" or bool(dense_values(rest).any()):
            self._sum(ROUNDING, rest, is_ours=True)

    def _add(self, arrival: Arrival, gradient: Tensor, further: list[tuple[Arrival, Tensor]]) -> None:
        """Count a use; the norm of a contributor's second and further ones is to be taken, if unknown."""
        name = arrival.contributor
        alone = self.alone.pop(name, None)
        if alone is not None:
            alone.norm = norm(self.sums[name])
        if arrival.norm is None and name in self.sums:
            further.append((arrival, gradient))
        elif arrival.norm is None:
            self.alone[name] = arrival
        self.uses.append(arrival)
        self._sum(name, gradient, is_ours=False)

    def _add_terms(self, backward: Backward, terms: list[tuple[Edge, str, Tensor]]) -> None:
        names = dict(zip(backward.edges, backward.names, strict=True))
        for edge, term, gradient in terms:
            cell = (names[edge], term)
            self.cells[cell] = self.cells[cell] + gradient if cell in self.cells else gradient

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

    def _total(self, backward: Backward) -> None:
        """Keep what the leaf received, unless ``.grad`` holds just that and can be asked later."""
        grad = self.param.grad
        is_first = (
            self.is_empty and backward.was_clear and grad is not None and self._is_untouched(grad, backward)
        )
        is_further = not self.is_empty and self.total is None and not backward.was_clear
        if grad is not None and (is_first or is_further) and not self.keep:
            self.probe = None if self.is_refoldable else probe(grad)
        elif self.total is None:
            received = backward.received()
            self.total = received.detach().clone() if self.keep else received
        else:
            self.total = self.total + backward.received()

    def _notice_clearing(self) -> bool:
        """Drop what was counted before ``.grad`` was cleared, for no step will read it.

        Tells whether something was counted, not cleared, and let go of.
        """
        if self.is_empty:
            return False
        if self.is_cleared:
            self.clear()
            return False
        grad, gone = self.param.grad, self.gone
        if gone is not None and grad is not None:
            self._take_back(gone, grad)
        if self.total is None and grad is not None and stamp(grad) != self.grad_stamp:
            self.total = fold(list(self.sums.values()))
        return gone is not None

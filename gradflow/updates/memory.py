"""The momentum of one parameter, one buffer per contributor, and what they do not explain.

The optimizer's own buffer is the sum of the contributors' buffers, as long as every step since its
first was watched. Where it is more than that sum, the rest is a contributor of its own, ``history``:
it takes in nothing, and fades by the optimizer's own factor.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradflow.updates.frozen import Recurrence, Scalar
from gradflow.updates.working import working

__all__ = ["HISTORY", "Memory"]

HISTORY = "history"

_UNWATCHED = "history is momentum from steps that were not watched, or shown whole"
_REPLACED = "history is momentum that was loaded, or changed from outside"
_FOLDED = "history is what is left of contributors that have long been absent"


class Memory:
    """Momentum buffers of one parameter.

    After a step that was not watched (:meth:`miss`), a contributor's buffer is decayed by the factor of the
    last watched step and the rest of the optimizer's buffer becomes ``history``. When the optimizer's buffer
    was replaced (``load_state_dict``) or changed from outside, nothing is known about whose it is: all of it
    becomes ``history``.

    Args:
        momentum: Name of the state entry that holds the optimizer's own buffer.

    Attributes:
        buffers: One tensor per contributor that has momentum, ``history`` among them.
        why: Where ``history`` comes from, in words; empty when there is none.
    """

    def __init__(self, momentum: str) -> None:
        self._momentum = momentum
        self.buffers: dict[str, Tensor] = {}
        self.why = ""
        self._fading: dict[str, float] = {}  # what remains of a buffer since its contributor last came
        self._keep: Scalar | None = None
        self._missed = 0
        self._seen: tuple[weakref.ref[Tensor], object] | None = None

    def miss(self) -> None:
        """Count a step that moved the parameter without being watched."""
        self._missed += 1

    def lose(self) -> None:
        """Forget whose the optimizer's momentum is: from the next step on, all of it is ``history``."""
        self._seen = None

    def reconcile(self, state: Mapping[str, Any]) -> None:
        """Make the buffers explain the optimizer's own one, before a step.

        Args:
            state: The optimizer's state of the parameter.
        """
        own = state.get(self._momentum)
        if own is None:
            self._clear()
        elif not self._explains(own, state):
            self._age(own)
            rest = working(own).clone()
            for name, buffer in self.buffers.items():
                if name != HISTORY:
                    rest -= buffer
            self._put(HISTORY, rest)
        self._missed = 0

    def advance(
        self, gradients: Mapping[str, Tensor], recurrence: Recurrence, skipped: Tensor | None
    ) -> dict[str, Tensor]:
        """Take one step's gradients into the buffers, and give the buffers.

        Args:
            gradients: One per contributor that came in this step.
            recurrence: How a buffer takes in a gradient.
            skipped: A tensor of no dimensions, true when the optimizer did not move after all; or None.
        """
        self._keep = _as_number(recurrence)
        for name, gradient in gradients.items():
            if name not in self.buffers:
                self.buffers[name] = torch.zeros_like(gradient)
        for name, buffer in self.buffers.items():
            gradient = gradients[name] if name in gradients else buffer.new_zeros(())
            if skipped is None:
                recurrence.advance_(buffer, gradient)
            else:
                advanced = recurrence.advance_(buffer.clone(), gradient)
                self.buffers[name] = torch.where(skipped, buffer, advanced)
        self._fade(gradients)
        return dict(self.buffers)

    def mark(self, state: Mapping[str, Any]) -> None:
        """Remember the optimizer's buffer as it is now, after a step: the buffers explain it."""
        own = state.get(self._momentum)
        self._seen = None if own is None else (weakref.ref(own), _version(own, state))

    def bytes(self) -> int:
        """Give what the buffers take, in bytes."""
        return sum(b.numel() * b.element_size() for b in self.buffers.values())

    def _explains(self, own: Tensor, state: Mapping[str, Any]) -> bool:
        if self._seen is None or self._missed:
            return False
        return self._same(own) and self._seen[1] == _version(own, state)

    def _same(self, own: Tensor) -> bool:
        return self._seen is not None and self._seen[0]() is own

    def _age(self, own: Tensor) -> None:
        """Decay the buffers over the steps that were missed, or drop them when nothing is known."""
        announced = self._missed > 0 and self._same(own)
        first = self._seen is None
        if announced and self._keep is not None:
            factor = self._keep**self._missed
            self.buffers = {n: (b * factor).to(b.dtype) for n, b in self.buffers.items()}
        else:
            self._clear()
        self.why = _UNWATCHED if announced or first else _REPLACED

    def _fade(self, came: Mapping[str, Tensor]) -> None:
        """Drop what has faded to nothing; fold what has all but faded into ``history``."""
        keep = self._keep if isinstance(self._keep, float) else 1.0
        for name, buffer in list(self.buffers.items()):
            left = 1.0 if name in came else self._fading.get(name, 1.0) * keep
            self._fading[name] = left
            limits = torch.finfo(buffer.dtype)
            if left < limits.tiny:
                self._drop(name)
            elif left < limits.eps and name != HISTORY:
                self._drop(name)
                known = self.buffers.get(HISTORY)
                self.why = self.why or _FOLDED
                self._put(HISTORY, buffer if known is None else known + buffer)

    def _put(self, name: str, buffer: Tensor) -> None:
        self.buffers[name], self._fading[name] = buffer, 1.0

    def _drop(self, name: str) -> None:
        del self.buffers[name], self._fading[name]
        if name == HISTORY:
            self.why = ""

    def _clear(self) -> None:
        self.buffers, self._fading, self.why = {}, {}, ""


def _version(own: Tensor, state: Mapping[str, Any]) -> object:
    """Give what changes when somebody steps or edits: fused kernels leave no mark on the buffer itself."""
    step = state.get("step")
    return own._version, step._version if isinstance(step, Tensor) else step


def _as_number(recurrence: Recurrence) -> Scalar | None:
    """Give the factor by which a buffer fades when nothing comes in; None if it differs by element."""
    keep = recurrence.keep
    if isinstance(keep, Tensor):
        return keep if keep.dim() == 0 else None
    return float(keep)

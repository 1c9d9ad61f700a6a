"""One parameter whose gradient is averaged over several processes: under DDP and FSDP2.

Hooks fire with this rank's own gradients; the average is put into ``.grad`` when the backward is over.
So the account keeps what the leaf received here, and reads at the end of each backward what ``.grad``
has become. With ``W`` ranks that is a mean, and what makes it whole is the contributor ``other ranks``:

    grad = (contributions of this rank + other ranks) / W

``other ranks`` is the *sum* of what the leaves of the other ranks received, in the unit of the
contributions; the factor ``1 / W`` is the ``scale`` of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from gradflow.capture.arrivals import Backward
from gradflow.capture.comparing import is_zero, stamp
from gradflow.capture.ledger import Account
from gradflow.updates.working import held, is_sharded

__all__ = ["AveragedAccount"]


@dataclass(eq=False, slots=True)
class AveragedAccount(Account):
    """One averaged parameter in the step that is open.

    Attributes:
        divisor: By what the sum over the ranks is divided; mostly their number.
        is_local: Whether the sums are this rank's own, and not those of all ranks together.
        seen: What ``.grad`` was, as far as this rank holds it, once the ranks had met; None before.
        stale: What ``.grad`` held before the first backward of the step; None if nothing.
    """

    divisor: float = 1.0
    is_local: bool = True
    seen: Tensor | None = None
    stale: Tensor | None = None

    @property
    def grad(self) -> Tensor | None:
        """What this rank holds of ``.grad``."""
        return None if self.param.grad is None else held(self.param.grad)

    @property
    def is_awaited(self) -> bool:
        """Whether ``.grad`` is yet to be filled: that of a sharded parameter is, until it is reduced."""
        return self.seen is None and is_sharded(self.param)

    @property
    def is_averaged(self) -> bool:
        """Whether ``.grad`` holds a mean over the ranks by now."""
        return self.seen is not None

    @property
    def others(self) -> Tensor | None:
        """The contributor ``other ranks``, as far as this rank holds the parameter; None if there is none."""
        if self.seen is None or not self.is_local:
            return None
        whole = (self.seen if self.stale is None else self.seen - self.stale) * self.divisor
        return whole if self.total is None else whole - self.part(self.total)

    def begin(self) -> None:
        """A backward begins: see what ``.grad`` holds before anything of this step is in it."""
        if self.is_empty:
            self.stale = None if self.grad is None else self.grad.detach().clone()

    def average(self) -> None:
        """A backward is over and the ranks have met: read what ``.grad`` has become."""
        grad = self.grad
        if grad is None or self.param.grad is None:
            return
        now = stamp(self.param.grad)
        if is_sharded(self.param) and now == self.grad_stamp:
            return  # nothing was reduced; DDP leaves no mark on gradients that are views of its buckets
        self.seen, self.grad_stamp = grad.detach().clone(), now

    def clear(self) -> None:
        """Forget the step."""
        Account.clear(self)
        self.seen, self.stale = None, None

    def part(self, gradient: Tensor) -> Tensor:
        """Cut what this rank holds out of a gradient of the whole parameter."""
        if not is_sharded(self.param):
            return gradient
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        sharded = cast("DTensor", self.param)
        shape, offset = compute_local_shape_and_global_offset(
            sharded.shape, sharded.device_mesh, sharded.placements
        )
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        return dense[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]

    def brought(self) -> list[Tensor]:
        """Give all that was brought in this step: an overflow on one rank is an overflow on all."""
        return [*self.sums.values(), *(() if self.seen is None else (self.seen,))]

    def parts(self) -> dict[str, Tensor]:
        """Give the contributions as far as this rank holds the parameter."""
        return {name: self.part(gradient) for name, gradient in self.sums.items()}

    def _was_zeroed(self, grad: Tensor) -> bool:
        now = held(grad)
        if self.seen is None:
            return Account._was_zeroed(self, grad)
        return is_zero(now) and not torch.equal(now, self.seen)

    def _total(self, backward: Backward) -> None:
        """Keep what the leaf received: ``.grad`` will hold something else, and the sums may change too."""
        self.survey = None
        received = backward.received()
        if self.total is None:
            self.total = received.detach().clone() if self.keep else received
        else:
            self.total = self.total + received

"""What an optimizer makes of the gradients: θ before, θ after, and the parts of the delta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradflow.capture.ledger import Account
from gradflow.capture.reading import Reading, read
from gradflow.updates.splitter import DeltaSplitter, Split

__all__ = ["Move", "Mover"]

_CLOSURE = "step(closure) computes gradients inside the step, maybe several times: the delta is shown whole"


@dataclass(eq=False, slots=True)
class Move:
    """How one parameter moved in the open step.

    Attributes:
        theta_before: Its value before the first optimizer moved it.
        reading: Its gradient as the first optimizer read it.
        splits: The parts of the delta; one for each optimizer that moved it.
    """

    theta_before: Tensor
    reading: Reading
    splits: list[Split] = field(default_factory=list)


class Mover:
    """Watches one optimizer's steps.

    Args:
        optimizer: The optimizer.
        account: Gives the account of a watched parameter, and None for any other.
        moves: Where moves are kept, by ``id`` of the parameter; several optimizers may share it.
    """

    def __init__(
        self, optimizer: Optimizer, account: Callable[[Tensor], Account | None], moves: dict[int, Move]
    ) -> None:
        self.optimizer = optimizer
        self._account = account
        self._moves = moves
        self._splitter = DeltaSplitter(optimizer)
        self._read: list[tuple[Tensor, Tensor]] = []
        self._has_closure = False

    def before(self, *, has_closure: bool = False) -> None:
        """Read the gradients as the optimizer is about to; with a closure it will compute them itself."""
        self._read = []
        if has_closure:
            self._read = [(p, _copy(p)) for p in self._params() if self._account(p) is not None]
            self._has_closure = True
            return
        peers: list[Tensor] = []
        for param in sorted(self._params(), key=lambda p: p.numel() == 1):
            account = None if param.grad is None else self._account(param)
            if account is not None:
                self._before(param, account, peers)

    def after(self) -> None:
        """Take the deltas that the optimizer made."""
        for param, theta in self._read:
            if self._has_closure:
                self._after_closure(param, theta)
            else:
                self._moves[id(param)].splits.append(self._splitter.after(param, theta))
        self._read, self._has_closure = [], False

    def unwatched(self) -> None:
        """Let an unwatched step go by."""
        self._splitter.unwatched()

    def _params(self) -> list[Tensor]:
        return [param for group in self.optimizer.param_groups for param in group["params"]]

    def _after_closure(self, param: Tensor, theta: Tensor) -> None:
        account = self._account(param)
        if account is None or (account.is_empty and torch.equal(param, theta)):
            return
        move = self._moves.setdefault(id(param), Move(theta, read(account)))
        move.splits.append(Split(note=_CLOSURE))

    def _before(self, param: Tensor, account: Account, peers: list[Tensor]) -> None:
        reading = read(account, peers)
        if reading.scale is not None:
            peers.append(reading.scale)
        theta = _copy(param)
        self._moves.setdefault(id(param), Move(theta, reading))
        self._splitter.before(param, reading.contributions(account.sums))
        self._read.append((param, theta))


def _copy(param: Tensor) -> Tensor:
    return param.detach().clone(memory_format=torch.preserve_format)

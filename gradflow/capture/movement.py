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

    def before(self) -> None:
        """Read the gradients as the optimizer is about to."""
        self._read = []
        peers: list[Tensor] = []
        params = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        for param in sorted(params, key=lambda p: p.numel() == 1):
            account = self._account(param)
            if account is not None:
                self._before(param, account, peers)

    def after(self) -> None:
        """Take the deltas that the optimizer made."""
        for param, theta in self._read:
            self._moves[id(param)].splits.append(self._splitter.after(param, theta))
        self._read = []

    def unwatched(self) -> None:
        """Let an unwatched step go by."""
        self._splitter.unwatched()

    def _before(self, param: Tensor, account: Account, peers: list[Tensor]) -> None:
        reading = read(account, peers)
        if reading.scale is not None:
            peers.append(reading.scale)
        theta = param.detach().clone(memory_format=torch.preserve_format)
        self._moves.setdefault(id(param), Move(theta, reading))
        self._splitter.before(param, reading.contributions(account.sums))
        self._read.append((param, theta))

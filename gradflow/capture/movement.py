"""What an optimizer makes of the gradients: θ before, θ after, and the parts of the delta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradflow.capture.deltas import DeltaDraft
from gradflow.capture.ledger import Account
from gradflow.capture.reading import Reading, read
from gradflow.capture.reduce import Harvest, Slot
from gradflow.updates.splitter import DeltaSplitter, Terms
from gradflow.updates.working import held

__all__ = ["Move", "Mover"]

_CLOSURE = "step(closure) computed the gradients {} inside the step: the delta is shown whole"


@dataclass(eq=False, slots=True)
class Move:
    """How one parameter moved in the open step.

    Attributes:
        theta_before: Its value before the first optimizer moved it; of a sharded one, what this rank holds.
        reading: Its gradient as the first optimizer read it.
        total_norm: Norm of what the leaf had received; None if nothing.
        terms: The parts of the delta, not multiplied out; one for each optimizer that moved it.
        done: The delta, reduced already.
    """

    theta_before: Tensor | None
    reading: Reading
    total_norm: Slot | None = None
    terms: list[Terms] = field(default_factory=list)
    done: DeltaDraft | None = None

    def draft(self, param: Tensor, harvest: Harvest, *, keep: bool) -> DeltaDraft:
        """Reduce the delta on the device, once; then θ before and the parts are let go of."""
        if self.done is None:
            assert self.theta_before is not None, "it is let go of with the draft"
            self.done = DeltaDraft(param, self.theta_before, self.terms, harvest, keep=keep)
            self.theta_before, self.terms = None, []
        return self.done


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
        self._thetas: list[tuple[Tensor, Tensor]] = []
        self._readings: dict[int, tuple[Reading, Slot | None]] = {}
        self._closures: int | None = None  # how often the closure has run; None without one

    def before(self, harvest: Harvest, *, has_closure: bool = False) -> None:
        """Read the gradients as the optimizer is about to; with a closure it will compute them itself."""
        self._readings, self._closures = {}, 0 if has_closure else None
        params = self._params() if has_closure else [p for p in self._params() if p.grad is not None]
        self._thetas = [(p, _copy(p)) for p in params if self._account(p) is not None]
        if not has_closure:
            self._read_gradients(harvest)

    def closure_ends(self, harvest: Harvest) -> None:
        """Read the gradients that a closure has just computed: the optimizer is about to read them."""
        self._closures = (self._closures or 0) + 1
        if self._closures == 1:
            self._read_gradients(harvest)

    def after(self, harvest: Harvest, *, is_alone: bool) -> None:
        """Take the deltas that the optimizer made.

        Args:
            harvest: Collects the numbers of the step.
            is_alone: Whether no other optimizer is watched, so that each delta is reduced at once.
        """
        thetas, self._thetas = self._thetas[::-1], []
        while thetas:
            param, theta = thetas.pop()
            if self._closures in (None, 1):
                self._after(param, theta)
            else:
                self._after_closures(param, theta, harvest)
            move, account = self._moves.get(id(param)), self._account(param)
            if is_alone and move is not None and account is not None:
                move.draft(param, harvest, keep=account.keep)
            del move, theta  # so that one parameter's at a time is held
        self._readings, self._closures = {}, None

    def unwatched(self) -> None:
        """Let an unwatched step go by."""
        self._splitter.unwatched()

    def _params(self) -> list[Tensor]:
        return [param for group in self.optimizer.param_groups for param in group["params"]]

    def _read_gradients(self, harvest: Harvest) -> None:
        peers: list[Tensor] = []
        for param, _ in sorted(self._thetas, key=lambda read: read[0].numel() == 1):
            account = None if param.grad is None else self._account(param)
            if account is None:
                continue
            reading = read(account, peers)
            self._readings[id(param)] = reading, reading.norm_slot(harvest)
            if reading.scale is not None:
                peers.append(reading.scale)
            self._splitter.before(param, reading.contributions(account.parts()))

    def _after(self, param: Tensor, theta: Tensor) -> None:
        found = self._readings.get(id(param))
        if found is not None:
            move = self._moves.setdefault(id(param), Move(theta, *found))
            move.terms.append(self._splitter.terms(param, theta))

    def _after_closures(self, param: Tensor, theta: Tensor, harvest: Harvest) -> None:
        account = self._account(param)
        if account is None or (account.is_empty and torch.equal(held(param), theta)):
            return
        move = self._moves.get(id(param))
        if move is None:
            reading = read(account)
            move = self._moves[id(param)] = Move(theta, reading, reading.norm_slot(harvest))
        times = f"{self._closures} times" if self._closures else "not once"
        move.terms.append(Terms(note=_CLOSURE.format(times)))


def _copy(param: Tensor) -> Tensor:
    return held(param.detach()).clone(memory_format=torch.preserve_format)

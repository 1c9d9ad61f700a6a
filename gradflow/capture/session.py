"""When a step begins and ends, and where it goes.

A step reaches from one ``optimizer.step()`` to the next. With one optimizer it ends when that has
stepped; with several, when all have, or when the next backward begins: what they do without a
backward in between is one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from gradflow.capture.closing import Entry, close
from gradflow.capture.ledger import Account
from gradflow.capture.movement import Move, Mover
from gradflow.capture.observer import Observer
from gradflow.capture.reduce import Harvest, Slot
from gradflow.record import Finding
from gradflow.recording import Step

__all__ = ["Memory", "Session", "Shelf"]

_TORN = Finding(
    "warning",
    "incomplete",
    "Watching was paused or resumed within this step, which lacks what happened meanwhile.",
    "Call flow.pause() and flow.resume() between steps.",
)
_UNSEEN = Finding(
    "warning",
    "unseen",
    "Gradients arrived, but no call of a watched module was seen.",
    "A model compiled after watch() hides its calls: watch what torch.compile returned. The paths of a whole "
    "step compiled into one graph cannot be told apart: compile the model and not the step.",
)
_USE_BRANCH = 'Name each path where it runs: with gradflow.branch("..."):'


class Shelf(Protocol):
    """Where closed steps are put: a sequence of them, in memory or in a file that grows with the training."""

    def append(self, step: Step) -> None:
        """Put a step at the end."""

    def amend(self, step: Step) -> None:
        """Put a step in place of the newest."""

    def close(self) -> None:
        """Nothing more will come."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Step: ...


class Memory(list[Step]):
    """Closed steps in memory: all, or the last few.

    Args:
        last: How many are kept; None for all.
    """

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self._last = last

    def append(self, step: Step) -> None:
        """Put a step at the end, and let go of the oldest where only a few are kept."""
        super().append(step)
        if self._last is not None and len(self) > self._last:
            del self[0]

    def amend(self, step: Step) -> None:
        """Put a step in place of the newest."""
        self[-1] = step

    def close(self) -> None:
        """Nothing more will come."""


class Session:
    """The open step of a recorder.

    Args:
        observer: What watches forward and backward.
        optimizers: The watched optimizers.
        shelf: Where closed steps go.
        every: Watch each so-many-th step.
        inspect: Gives what there is to tell of the model itself as a step is closed.
    """

    def __init__(
        self,
        observer: Observer,
        optimizers: Sequence[Optimizer],
        shelf: Shelf,
        every: int,
        inspect: Callable[[], tuple[Finding, ...]] = tuple,
    ) -> None:
        self.shelf = shelf
        self.is_paused = False
        self._is_torn = self._is_resumed = False
        self._observer = observer
        self._every = every
        self._inspect = inspect
        self._moves: dict[int, Move] = {}
        self._harvest = Harvest()
        self._movers = [Mover(o, self._account, self._moves) for o in optimizers]
        self._stepped: set[int] = set()
        self._stepped_in = -1
        self._index = 0
        self._has_met = False
        self._scalars: dict[str, float | Tensor] = {}
        self._closed_at = _operations()
        observer.on_backward = self.backward_begins
        observer.on_drop = self.gradients_dropped
        self.arm()

    def pause(self) -> None:
        """Watch no more; what the open step saw so far is not all of it."""
        self._is_torn = self._is_torn or not self._observer.is_waiting
        self.is_paused = True
        self.arm()

    def resume(self) -> None:
        """Watch again."""
        self._is_resumed = self._is_resumed or self.is_paused
        self.is_paused = False
        self.arm()

    def arm(self) -> None:
        """Put hooks on for a step that is to be watched, and take them off for one that is not."""
        if self._index % self._every == 0 and not self.is_paused:
            self._observer.arm()
        else:
            self._observer.disarm()

    def optimizer_begins(self, position: int, *, has_closure: bool) -> None:
        """An optimizer is about to step."""
        if position in self._stepped and self._stepped_in == -1:
            self.finish()
        if self._observer.is_armed:
            if not has_closure:
                self._meet()
            self._observer.guarded(
                partial(self._movers[position].before, self._harvest, has_closure=has_closure)
            )

    def closure_ends(self, position: int) -> None:
        """The closure given to an optimizer's step has computed its gradients."""
        if self._observer.is_armed:
            self._meet()
            self._observer.guarded(self._movers[position].closure_ends, self._harvest)

    def optimizer_ends(self, position: int) -> None:
        """An optimizer has stepped."""
        mover = self._movers[position]
        if self._observer.is_armed:
            self._observer.guarded(partial(mover.after, self._harvest, is_alone=len(self._movers) == 1))
        else:
            self._observer.guarded(mover.unwatched)
        self._stepped.add(position)
        self._stepped_in = torch._C._current_graph_task_id()
        if len(self._stepped) == len(self._movers) and self._stepped_in == -1:
            self.finish()

    def backward_begins(self, task: int) -> None:
        """The first gradient of a backward arrives; what was stepped before it is over."""
        if self._stepped and task != self._stepped_in:
            self.finish()

    def gradients_dropped(self) -> None:
        """Gradients were cleared without a step; a step that overflowed counts as skipped."""
        sums = [g for account in self._observer.accounts.values() for g in account.brought()]
        if any(not bool(torch.isfinite(g.coalesce().values() if g.is_sparse else g).all()) for g in sums):
            self.finish(is_skipped=True)

    def settle(self) -> None:
        """Close a step whose optimizers have stepped, though not all of them."""
        if self._stepped:
            self.finish()

    def log(self, scalars: dict[str, float | Tensor]) -> None:
        """Keep scalars with the open step, or with the last one if the open one has not begun."""
        if self._has_begun() or not self._index:
            self._scalars.update(scalars)
        elif len(self.shelf) and self.shelf[-1].index == self._index - 1:  # else the last one was not watched
            last = self.shelf[-1]
            self.shelf.amend(replace(last, scalars={**last.scalars, **_numbers(scalars)}))

    def _has_begun(self) -> bool:
        """Tell whether anything of the open step has happened, though one not watched has no hooks to ask."""
        if self._observer.is_armed:
            return bool(self._stepped) or not self._observer.is_waiting
        return bool(self._stepped) or self._closed_at != _operations()

    def finish(self, *, is_skipped: bool = False) -> None:
        """Close the open step and begin the next."""
        if self._observer.is_armed:
            self._meet()
            self._observer.guarded(self._record, is_skipped)
        self._observer.begin_step()
        self._moves.clear()
        self._harvest = Harvest()
        self._scalars = {}
        self._stepped, self._stepped_in, self._has_met = set(), -1, False
        self._is_torn = self._is_resumed = False
        self._closed_at = _operations()
        self._index += 1
        self.arm()

    def _meet(self) -> None:
        """Bring contributions together with those of the other ranks, where asked for, once a step."""
        if not self._has_met and self._observer.ranks is not None:
            self._has_met = True
            self._observer.guarded(self._observer.ranks.bring_together)

    def _record(self, is_skipped: bool) -> None:
        observer = self._observer
        branches = observer.branches
        entries = [
            Entry(observer.targets.names[key], observer.accounts[key], self._moves.get(key))
            for key in observer.targets.params
            if key in observer.accounts and self._counts(key, observer.accounts[key])
        ]
        logged = {name: self._slot(value) for name, value in self._scalars.items()}
        parameters = close(entries, branches, observer.terms, self._harvest)
        is_torn = self._is_torn or (self._is_resumed and not observer.saw_calls)
        if observer.misfit:
            observer.warn_once(f"{observer.misfit}. {_USE_BRANCH}", about="misfit")
        self.shelf.append(
            Step(
                index=self._index,
                parameters=parameters,
                branches=branches,
                scalars={name: slot.number for name, slot in logged.items()},
                complete=observer.is_complete and not is_torn,
                skipped=is_skipped,
                reports=(
                    *observer.reports,
                    *((_TORN,) if is_torn else ()),
                    *(() if observer.ranks is None else observer.ranks.reports()),
                    *self._inspect(),
                    *_misfit(observer.misfit),
                    *_passes(observer.passes.count, observer.passes.nodes),
                    *_by_reader(len(observer.by_reader), len(parameters)),
                    *_missing(len(observer.missing), len(parameters)),
                    *(() if observer.saw_calls or not parameters else (_UNSEEN,)),
                ),
            )
        )

    def _slot(self, value: float | Tensor) -> Slot:
        """Let a logged tensor travel with all else: asked by itself it would make the host wait."""
        if isinstance(value, Tensor):
            return self._harvest.add(value)
        return Slot.of(np.array([value], np.float64))

    def _counts(self, key: int, account: Account) -> bool:
        """Tell whether something of a parameter belongs to the step: what was cleared unread does not."""
        return key in self._moves or not (account.is_empty or (self._movers and account.is_cleared))

    def _account(self, param: Tensor) -> Account | None:
        self._observer.settle(param)
        return self._observer.account(id(param))


def _operations() -> int:
    """Count the differentiable operations of this thread so far."""
    return int(torch._C._autograd._get_sequence_nr())


def _numbers(scalars: dict[str, float | Tensor]) -> dict[str, float]:
    return {name: v.item() if isinstance(v, Tensor) else float(v) for name, v in scalars.items()}


def _misfit(text: str) -> tuple[Finding, ...]:
    if not text:
        return ()
    return (Finding("warning", "branches-misfit", f"{text}.", _USE_BRANCH),)


def _passes(passes: int, nodes: int) -> tuple[Finding, ...]:
    if not passes:
        return ()
    text = (
        f"Telling apart what was asked for took {passes} more backward passes, through {nodes} nodes in all."
    )
    return (Finding("note", "passes", text),)


def _missing(count: int, watched: int) -> tuple[Finding, ...]:
    if not count:
        return ()
    text = (
        f"A second backward added to .grad of {count} of {watched} parameters, where no step before had one. "
        "What the first had brought was let go of when it had been read: it is unclaimed in this step."
    )
    do = "Nothing: from now on contributions are kept until the step is over."
    return (Finding("warning", "incomplete", text, do),)


def _by_reader(count: int, watched: int) -> tuple[Finding, ...]:
    if not count:
        return ()
    text = (
        f"{count} of {watched} parameters are used outside any branch; what arrives there counts as that of "
        "the one branch that reads the result, whoever else reads a part of it in between."
    )
    return (Finding("note", "by-reader", text, _USE_BRANCH),)

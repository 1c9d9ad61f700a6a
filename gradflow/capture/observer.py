"""Hooks on the model and its parameters, and the books they write into.

An :class:`Observer` puts hooks on when armed and takes all of them off when disarmed. Nothing of it
may stop a training run: a failure of ours is caught, told once, and leaves the step incomplete.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.capture.arrivals import Part
from gradflow.capture.calls import Mark, Window
from gradflow.capture.hooks import AccumulatedHook, HooksOnModules, LeafHook, NodeHook
from gradflow.capture.labels import Labeller
from gradflow.capture.ledger import Account
from gradflow.capture.marking import Edge
from gradflow.capture.passes import Passes, Split
from gradflow.capture.planting import Planter
from gradflow.capture.ranks import Ranks, are_there
from gradflow.capture.stems import Crossing, Stem
from gradflow.capture.targets import Targets
from gradflow.record import RESERVED, Finding
from gradflow.updates.working import is_sharded

__all__ = ["Observer"]

_numbers = itertools.count()


class Observer:
    """Watches forward and backward passes and keeps an account for every parameter.

    Args:
        targets: The watched parameters.
        names: Names of the paths found by counting.
        named: Names of modules that are branches, by ``id``.
        keeps: Tells whether the tensors of a parameter of these names are kept.
        splits_trunks: Whether trunks under several branches are split.
        needs_sums: Whether somebody asks for contributions when a step is over, and not only for what can be
            read of them as they arrive.
    """

    def __init__(
        self,
        targets: Targets,
        names: tuple[str, ...],
        named: dict[int, str],
        keeps: Callable[[tuple[str, ...]], bool],
        *,
        splits_trunks: bool = False,
        needs_sums: bool = True,
    ) -> None:
        self.targets = targets
        self.accounts: dict[int, Account] = {}
        self.labeller = Labeller()
        self.reports: list[Finding] = []
        self.is_armed = False  # whether hooks are on the model
        self.is_complete = True
        self.by_reader: set[int] = set()  # parameters used outside any branch, for one that reads the result
        self.missing: set[int] = set()  # parameters whose contributions were let go of when more came
        self.ranks = Ranks(targets, self.account, self.guarded) if are_there() else None
        self.planter = Planter(f"gradflow:{next(_numbers)}", self, named, splits_trunks=splits_trunks)
        self.passes = Passes(self.planter.marker, self.labeller)
        self._names = names
        self._keeps = keeps
        self._needs_sums, self._lets_go = needs_sums, False
        self._windows: list[Window] = []
        self._window_is_over = True
        self._hooks = HooksOnModules(self, named)
        self._leaf_handles: dict[int, list[RemovableHandle]] = {}
        self._resting: dict[int, Account] = {}  # accounts of earlier steps: a new one for each costs more
        self._lock = threading.RLock()
        self._warned: set[str] = set()
        self._task = -1
        self._has_notes = False  # whether there may be anything to forget when the next step begins
        self.on_backward: Callable[[int], None] = lambda _task: None
        self.on_drop: Callable[[], None] = lambda: None

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of the open step has happened yet."""
        return not self.accounts and not self._windows

    def arm(self) -> None:
        """Put hooks on every module and every watched parameter."""
        if self.is_armed:
            return
        self._has_notes = True
        if self._hooks.are_known and self.ranks is None and not self.targets.may_have_changed():
            self._hook_leaves()
        else:
            self._look()
            self._hooks.look(self.targets.modules())
        self.is_armed = True
        self._hooks.put_on()

    def disarm(self) -> None:
        """Take every hook off again; what nodes of living graphs still call does nothing any more."""
        if not self.is_armed:
            return
        self.is_armed = False
        self._hooks.take_off()
        for handle in itertools.chain(*self._leaf_handles.values()):
            handle.remove()
        self._leaf_handles = {}
        self.planter.forget_calls()
        self._window_is_over = True

    def close(self) -> None:
        """Take every hook off for good, and let go of what was kept for the next step."""
        self.disarm()
        self.begin_step()
        self._hooks.forget()
        self._resting = {}
        self.targets.forget()

    def begin_step(self) -> None:
        """Forget the step before; what is under way in a backward stays.

        Once a whole step was seen, in which no second backward added to the first, contributions are let go
        of as soon as they are read.
        """
        if not self._has_notes:
            return
        self._has_notes = self.is_armed
        has_seen_one = self._lets_go or any(not account.is_empty for account in self.accounts.values())
        self._lets_go = has_seen_one and not self._needs_sums and self.ranks is None
        before, self.accounts = self.accounts, {}
        for key, account in before.items():
            account.clear()
            if key not in self.targets.params:
                continue
            if account.pending:
                self._open(key, account)
            elif self.ranks is None and self.is_armed:
                self._resting[key] = account
        self.labeller.forget()
        self.targets.next_step()
        self.reports, self.is_complete = [], True
        self.passes.forget()
        self.by_reader, self.missing = set(), set()
        self._windows = [] if self._window_is_over else self._windows[-1:]

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of the open step, in the order of their lanes, also those that no gradient reached."""
        labels = [self.labeller.labels(window) for window in self._windows]
        given = () if any(one.misfit for one in labels) else self._names
        used = dict.fromkeys(account.contributors for account in self.accounts.values())
        names = itertools.chain(given, *(one.branches for one in labels), *used)
        return tuple(name for name in dict.fromkeys(names) if name not in RESERVED)

    @property
    def terms(self) -> tuple[str, ...]:
        """Named terms of the loss in the open step, in the order they were named."""
        return tuple(dict.fromkeys(name for window in self._windows for name in window.terms))

    @property
    def saw_calls(self) -> bool:
        """Whether any call of a watched module, or a claim, was seen in the open step."""
        return any(window.calls or window.contexts for window in self._windows)

    @property
    def misfit(self) -> str:
        """What to tell the user when the given names fit no set of paths; else empty."""
        told = (self.labeller.labels(window).misfit for window in self._windows)
        return next(filter(None, told), "")

    def key(self, leaf: Tensor) -> int | None:
        """Give the key of the watched parameter that a leaf is, or stands in for; None for any other.

        New parameters of the model are taken in when first used.
        """
        key = id(leaf) if self.ranks is None else self.ranks.key(leaf)
        if key in self.targets.params:
            return key
        if self.targets.is_stranger(leaf, may_compare=self.ranks is None):
            return None
        self._look()
        return id(leaf) if id(leaf) in self.targets.params else None

    def begins(self, path: str, module: nn.Module) -> None:
        """The forward of a module is about to begin: see what the other processes have to do with it."""
        if torch.is_grad_enabled():
            self.guarded(self._meet_leaves, path, module)

    def window(self) -> Window:
        """Give the window of calls that begins after each accumulating backward."""
        with self._lock:
            if self._window_is_over:
                self._windows.append(Window(self._names, self.targets.title))
                self._window_is_over = False
            return self._windows[-1]

    def latest_window(self) -> Window:
        """Give the window whose backward is running."""
        return self._windows[-1] if self._windows else self.window()

    def hook(self, edges: Sequence[Edge], crossings: Sequence[Crossing]) -> NodeHook:
        """Give the hook for a node with these uses, which reads these stems."""
        return NodeHook(self, edges, crossings)

    def arrived(
        self, edges: Sequence[Edge], crossings: Sequence[Crossing], inputs: tuple[Tensor | None, ...]
    ) -> None:
        """The hook on a node: it has run in a backward, and this is what it sends to its inputs."""
        if torch.is_grad_enabled() and self.passes.split is None:  # under create_graph
            self.guarded(self.planter.follow, inputs, edges[0].mark if edges else crossings[0].reader)
        self.guarded(self._arrive, edges, crossings, inputs)

    def guard(self, stem: Stem) -> Callable[..., None]:
        """Give the pre-hook for a node that branches meet at."""

        def about_to_run(arriving: tuple[Tensor | None, ...]) -> None:
            if self.is_armed and self.passes.split is None:
                self.guarded(self._divide, stem, arriving)

        return about_to_run

    def fence(self, mark: Mark) -> Callable[..., tuple[None, ...] | None]:
        """Give the pre-hook for a node that stretches outside any branch border on."""

        def about_to_run(arriving: tuple[Tensor | None, ...]) -> tuple[None, ...] | None:
            return self.passes.fence(mark, arriving)

        return about_to_run

    def fail(self, error: Exception) -> None:
        """Take note of a failure of ours: the training goes on, the step is incomplete."""
        self.is_complete, self._has_notes = False, True
        text = f"gradflow failed inside a hook: {type(error).__name__}: {error}"
        self.reports.append(Finding("warning", "incomplete", text, "Please report it; training is unharmed."))
        self.warn_once(f"{text}. Training goes on; this step is incomplete.", about="failure")

    def warn_once(self, text: str, *, about: str) -> None:
        """Warn the user, once for each thing to warn about."""
        if about in self._warned:
            return
        self._warned.add(about)
        try:
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        except Warning:  # the user turned warnings into errors: none of ours may stop the training
            return

    def received(self, key: int, total: Tensor) -> None:
        """The hook on a leaf: the engine has summed everything that arrives in this backward."""
        self.guarded(self._receive, key, total)

    def accumulated(self, key: int) -> None:
        """The post-accumulate hook: ``.grad`` has taken it in."""
        self.guarded(self._commit, key)

    def account(self, key: int) -> Account | None:
        """Give the account of a watched parameter in the open step; None for any other."""
        account = self.accounts.get(key)
        if account is None and key in self.targets.params:
            account = self._resting.pop(key, None) or self._new_account(key)
            self._open(key, account)
        return account

    def _new_account(self, key: int) -> Account:
        keep = self._keeps(self.targets.names[key])
        averaged = None if self.ranks is None else self.ranks.account(key, keep=keep)
        return averaged or Account(self.targets.params[key], keep)

    def _open(self, key: int, account: Account) -> None:
        account.lets_go = self._lets_go and not account.keep
        self.accounts[key] = account

    def settle(self, param: Tensor) -> None:
        """Commit what is under way for a parameter whose optimizer steps inside the backward."""
        account = self.accounts.get(id(param))
        if account is not None and torch._C._current_graph_task_id() in account.pending:
            self.accumulated(id(param))

    def guarded(self, act: Callable[..., None], *args: Any) -> None:  # the arguments of any act
        """Do something of ours inside the user's training, which it must not stop."""
        try:
            with self._lock:
                if torch.is_grad_enabled():
                    with torch.no_grad():
                        act(*args)
                else:  # as in any backward without create_graph
                    act(*args)
        except Exception as error:
            self.fail(error)

    def _arrive(
        self, edges: Sequence[Edge], crossings: Sequence[Crossing], inputs: tuple[Tensor | None, ...]
    ) -> None:
        split = self.passes.split
        task = self._in_backward() if split is None else split.task
        for edge in edges:
            gradient = inputs[edge.slot]
            if gradient is None:
                continue
            account = self.account(edge.param)
            if account is None:
                continue
            if split is None:
                account.arrive(task, edge, gradient)
                stem = edge.mark.stem
                for name, part in () if stem is None else stem.take_casts(gradient):
                    account.divide(task, edge, Part(name, part))
            else:
                _take_part(account, split, edge, gradient)
        if split is None:
            for crossing in crossings:
                if crossing.read.stem is not None:
                    self.passes.enter(task, crossing, inputs[crossing.slot])

    def _divide(self, stem: Stem, arriving: tuple[Tensor | None, ...]) -> None:
        self.passes.divide(self._in_backward(), stem, arriving)

    def _receive(self, key: int, total: Tensor) -> None:
        if self.passes.split is not None:
            return
        task, account = self._in_backward(), self.account(key)
        if account is None:
            return
        if account.is_cleared:
            self.on_drop()
            account = self.account(key) or account
        is_missing = account.receive(task, total, self.passes.contributor)
        if not account.is_empty:  # a second backward: from now on, what the first brought is needed
            self._needs_sums = True
        if is_missing:
            self.is_complete = False
            self.missing.add(key)

    def _commit(self, key: int) -> None:
        account = self.account(key)
        if account is not None:
            task = torch._C._current_graph_task_id()
            for edge in account.commit(task):
                if edge.mark.readers and self.labeller.is_by_reader(edge.mark):
                    self.by_reader.add(edge.param)
            self._window_is_over = True
            if self.ranks is not None:
                self.ranks.expect(task)

    def _in_backward(self) -> int:
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            self.on_backward(task)
            if self.ranks is not None:
                self.ranks.backward_begins()
        return task

    def _look(self) -> None:
        """Take in the parameters as the model has them now; hooks made before may not fit any more."""
        self.targets.look()
        self._hooks.forget()
        self._resting = {}  # what they are called, and so whether they are kept, may have changed
        if self.ranks is not None:
            self.ranks.look()
        self._hook_leaves()

    def _hook_leaves(self) -> None:
        """Hook the watched parameters that have no hook yet."""
        for key, param in self.targets.params.items():
            if key not in self._leaf_handles and not is_sharded(param):
                self._leaf_handles[key] = self._hook_leaf(key, param)

    def _meet_leaves(self, path: str, module: nn.Module) -> None:
        """Hook the unsharded parameters that show when a module's forward begins."""
        for key, leaf in () if self.ranks is None else self.ranks.enter(path, module):
            if id(leaf) not in self._leaf_handles:
                self._leaf_handles[id(leaf)] = self._hook_leaf(key, leaf)

    def _hook_leaf(self, key: int, leaf: Tensor) -> list[RemovableHandle]:
        return [
            leaf.register_hook(LeafHook(self, key)),
            leaf.register_post_accumulate_grad_hook(AccumulatedHook(self, key)),
        ]


def _take_part(account: Account, split: Split, edge: Edge, gradient: Tensor) -> None:
    """Count what a pass brings to a use towards whom the pass is for."""
    if split.is_term:
        account.divide_by_term(split.task, edge, split.name, gradient)
    elif split.region is None or edge.mark in split.region:
        account.divide(split.task, edge, Part(split.name, gradient))

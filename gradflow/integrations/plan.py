"""What a callback was asked for, kept until there is a model to watch.

A callback is made before its library has built, moved or wrapped anything; so it keeps a :class:`Plan`, and
carries it out when training begins.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradflow.capture.recorder import Recorder, watch
from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.recording import Recording, Step

__all__ = ["OPTIONS", "Branches", "Plan", "find_module", "for_rank", "refuse_unknown"]

Branches = Sequence[str] | Mapping[str, str | nn.Module] | None
"""As ``watch`` takes them; a module may also be named by its path, for there may be no model yet."""

OPTIONS = tuple(inspect.signature(watch).parameters)[3:]
"""Names of the options of ``watch`` beside the model, its optimizer and the branches."""


class Plan:
    """Which part of a model to watch and how, the recorder once it is watched, and what of it is news.

    Args:
        where: The call that made it, for messages.
        module: Path of the module to watch; ``""`` for the whole model.
        branches: As for ``gradflow.watch``; modules may be named by their paths.
        options: Further options of ``gradflow.watch``.

    Raises:
        InvalidArgumentError: an option is none of ``gradflow.watch``.
    """

    def __init__(
        self,
        where: str,
        module: str = "",
        branches: Branches = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._where, self._module, self._branches = where, module, branches
        self._options = dict(options or {})  # of any type, as watch takes them
        refuse_unknown(self._options, ("module", "branches", *OPTIONS), where=where)
        self.flow: Recorder | None = None
        self._told = -1

    @property
    def recording(self) -> Recording:
        """What was recorded so far; empty before training has begun."""
        return Recording() if self.flow is None else self.flow.recording

    def begin(
        self, model: nn.Module, optimizers: Sequence[Optimizer], rank: tuple[int, int] = (0, 1)
    ) -> None:
        """Watch the model; what an earlier training left open is closed first.

        Args:
            model: The model.
            optimizers: Its optimizers.
            rank: Rank of this process, and how many there are: each writes a file of its own.
        """
        self.end()
        root = find_module(model, self._module, where=self._where)
        options = dict(self._options)
        if options.get("to") is not None:
            options["to"] = for_rank(options["to"], *rank)
        self.flow = watch(root, _of(root, optimizers), branches=self._paths(root), **options)
        self._told = -1

    def end(self) -> None:
        """Close the recorder; the recording stays."""
        if self.flow is not None:
            self.flow.close()

    def news(self, every: int = 1) -> Step | None:
        """Give the newest step, if it or one before it is due since the last that was given.

        Args:
            every: Each so-many-th step is due, counted from 1.
        """
        recording = self.recording
        if not len(recording):
            return None
        step = recording.last
        is_due = (step.index + 1) // every > (self._told + 1) // every
        if not is_due:
            return None
        self._told = step.index
        return step

    def _paths(self, root: nn.Module) -> Sequence[str] | Mapping[str, nn.Module] | None:
        if not isinstance(self._branches, Mapping):
            return self._branches
        return {
            name: find_module(root, module, where=self._where) if isinstance(module, str) else module
            for name, module in self._branches.items()
        }


def _of(root: nn.Module, optimizers: Sequence[Optimizer]) -> list[Optimizer]:
    """Give the optimizers that hold a parameter of the module; all if none does, for ``watch`` to refuse."""
    own = {id(p) for p in root.parameters()}
    return [
        optimizer
        for optimizer in optimizers
        if any(id(p) in own for group in optimizer.param_groups for p in group["params"])
    ] or list(optimizers)


def refuse_unknown(options: Iterable[str], known: Sequence[str], *, where: str) -> None:
    """Refuse an option that ``gradflow.watch`` does not have, before anything has begun.

    Raises:
        InvalidArgumentError: there is one; the message lists the near names.
    """
    for name in options:
        if name not in OPTIONS:
            raise InvalidArgumentError(
                f"{name!r} is no option of gradflow.watch", where=where, do=did_you_mean(name, known)
            )


def find_module(root: nn.Module, path: str, *, where: str) -> nn.Module:
    """Give the module at a path.

    Raises:
        InvalidArgumentError: there is none; the message lists the near ones.
    """
    modules: dict[str, nn.Module] = dict(root.named_modules())
    if path not in modules:
        known = [name for name in modules if name]
        raise InvalidArgumentError(
            f"{type(root).__name__} has no module {path!r}", where=where, do=did_you_mean(path, known)
        )
    return modules[path]


def for_rank(path: str | Path, rank: int, world: int) -> Path:
    """Give the file that one of several processes records to.

    Example:
        >>> for_rank("runs/a.gradflow", 1, 2).name, for_rank("runs/a.gradflow", 0, 1).name
        ('a.rank1.gradflow', 'a.gradflow')
    """
    path = Path(path)
    return path if world == 1 else path.with_suffix(f".rank{rank}{path.suffix}")

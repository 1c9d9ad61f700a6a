"""Which parameters are watched, under which names, and which modules their calls are told by."""

from __future__ import annotations

import fnmatch
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from gradflow.capture.branches import check_name
from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NothingToWatchError, did_you_mean

__all__ = ["Targets", "match", "read_branches"]

Held = TypeVar("Held", nn.Module, torch.Tensor)

_WALKS = frozenset({"modules", "named_modules", "named_parameters", "parameters", "_named_members"})
"""The methods by which a model is looked through."""


@dataclass(slots=True)
class Targets:
    """The watched parameters of one or several modules.

    Attributes:
        roots: The watched modules by prefix: ``{"": model}``, or ``{"0": a, "1": b}`` for a list.
        patterns: FQN patterns that choose parameters; None for all.
        names: Every name of each watched parameter, by ``id`` of the parameter.
        params: The watched parameters, by ``id``; held so that an id is never used again.
        holdings: What each module held when the model was last looked through; None where its own methods
            tell what that is, which may change without a trace.
        strangers: Leaves that were met and are none of ``params``, by ``id``; held weakly.
        has_compared: Whether the model was compared with ``holdings`` in this step.
    """

    roots: Mapping[str, nn.Module]
    patterns: tuple[str, ...] | None = None
    names: dict[int, tuple[str, ...]] = field(default_factory=dict)
    params: dict[int, torch.Tensor] = field(default_factory=dict)
    holdings: list[_Holding] | None = None
    strangers: dict[int, weakref.ref[torch.Tensor]] = field(default_factory=dict)
    has_compared: bool = False

    @property
    def title(self) -> str:
        """Class name of the model, for messages and for a path that is the model itself."""
        return " and ".join(dict.fromkeys(type(root).__name__ for root in self.roots.values()))

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Give every module once, with its first path."""
        seen: set[int] = set()
        for prefix, root in self.roots.items():
            for path, module in root.named_modules(prefix=prefix):
                if id(module) not in seen:
                    seen.add(id(module))
                    yield path, module

    def look(self) -> list[torch.Tensor]:
        """Look through the model and take in what it has now: new, replaced or unfrozen parameters.

        Returns:
            The parameters that were not known before.
        """
        names: dict[int, list[str]] = {}
        found: dict[int, torch.Tensor] = {}
        for fqn, param in self._trainable():
            names.setdefault(id(param), []).append(fqn)
            found[id(param)] = param
        chosen = {k: n for k, n in names.items() if self._chosen(n)}
        fresh = [found[key] for key in chosen if key not in self.params]
        self.names = {key: tuple(n) for key, n in chosen.items()}
        self.params = {key: found[key] for key in chosen}
        modules = [module for _, module in self.modules()]
        self.holdings = None if any(map(_walks_its_own_way, modules)) else [_Holding(m) for m in modules]
        return fresh

    def may_have_changed(self) -> bool:
        """Tell whether modules, parameters or what is trained may be others than :meth:`look` found.

        Costs a fraction of looking anew, so that it can be asked before every watched step.
        """
        return self.holdings is None or not all(holding.is_as_it_was() for holding in self.holdings)

    def is_stranger(self, leaf: torch.Tensor, *, may_compare: bool) -> bool:
        """Tell whether a leaf that is none of ``params`` cannot have become one since :meth:`look`.

        A model is compared with what it was for each leaf that was not met before, and once a step for all
        others: it may have many parameters that are not to be watched.

        Args:
            leaf: The leaf.
            may_compare: False where leaves stand in for parameters that are not to be found in the model.
        """
        met = self.strangers.get(id(leaf))
        is_known = met is not None and met() is leaf and self.has_compared
        if not is_known:
            self.strangers[id(leaf)], self.has_compared = weakref.ref(leaf), True
        return is_known or (may_compare and not self.may_have_changed())

    def next_step(self) -> None:
        """Another step begins: the model may be another by then."""
        self.has_compared = False
        self.strangers = {key: met for key, met in self.strangers.items() if met() is not None}

    def forget(self) -> None:
        """Drop what modules held: the model will not be looked through again."""
        self.holdings, self.strangers = None, {}

    def require(self) -> None:
        """Refuse a model without anything to watch, and patterns that match nothing.

        Raises:
            NothingToWatchError: no parameter is trainable.
            NoSuchParameterError: a pattern matches no parameter.
        """
        known = [fqn for fqn, _ in self._trainable()]
        if not known:
            raise NothingToWatchError(
                f"{self.title} has no trainable parameter",
                where=f"gradflow.watch({self.title})",
                do="check requires_grad, or watch the module that owns the parameters",
            )
        for pattern in self.patterns or ():
            match(pattern, known, where=f"gradflow.watch({self.title}, params=...)")

    def _trainable(self) -> Iterator[tuple[str, torch.Tensor]]:
        for prefix, root in self.roots.items():
            for fqn, param in root.named_parameters(prefix=prefix, remove_duplicate=False):
                if _is_trained(param):
                    yield fqn, param

    def _chosen(self, names: Iterable[str]) -> bool:
        if self.patterns is None:
            return True
        return any(fnmatch.fnmatchcase(n, pattern) for n in names for pattern in self.patterns)


class _Holding:
    """The modules and parameters that a module held, and which of these were trained; holds none of them."""

    __slots__ = ("_children", "_kind", "_module", "_params", "_trained")

    def __init__(self, module: nn.Module) -> None:
        self._module, self._kind = weakref.ref(module), type(module)
        self._params, self._children = _refs(module._parameters), _refs(module._modules)
        self._trained = list(map(_is_trained, module._parameters.values()))

    def is_as_it_was(self) -> bool:
        """Tell whether they still are the same ones under the same names."""
        module = self._module()
        return (
            module is not None
            and type(module) is self._kind
            and _WALKS.isdisjoint(module.__dict__)
            and _are_the_same(module._modules, self._children)
            and _are_the_same(module._parameters, self._params)
            and list(map(_is_trained, module._parameters.values())) == self._trained
        )


def _refs(held: Mapping[str, Held | None]) -> list[tuple[str, weakref.ref[Held]]]:
    return [(name, weakref.ref(value)) for name, value in held.items() if value is not None]


def _are_the_same(held: Mapping[str, Held | None], refs: list[tuple[str, weakref.ref[Held]]]) -> bool:
    now = [(name, value) for name, value in held.items() if value is not None]
    return len(now) == len(refs) and all(
        name == before and value is ref() for (name, value), (before, ref) in zip(now, refs, strict=True)
    )


def _is_trained(param: torch.Tensor | None) -> bool:
    return param is not None and param.requires_grad and not isinstance(param, UninitializedParameter)


def _walks_its_own_way(module: nn.Module) -> bool:
    """Tell whether a module has its own idea of what it holds, as wrappers and traced modules have."""
    return (
        not isinstance(module._parameters, dict)
        or not isinstance(module._modules, dict)
        or any(getattr(type(module), name) is not getattr(nn.Module, name) for name in _WALKS)
        or not _WALKS.isdisjoint(module.__dict__)
    )


def match(pattern: str, known: Sequence[str], *, where: str) -> list[str]:
    """Give the names that a pattern such as ``"conv*.weight"`` matches.

    Raises:
        NoSuchParameterError: it matches none.
    """
    found = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise NoSuchParameterError(
            f"{pattern!r} matches none of the {len(known)} parameters",
            where=where,
            do=did_you_mean(pattern, known),
        )
    return found


def read_branches(branches: object, targets: Targets) -> tuple[tuple[str, ...], dict[int, str]]:
    """Read the ``branches`` argument of ``watch``.

    Returns:
        Names of the paths by call index, and names of modules by ``id``; one of them is empty.

    Raises:
        InvalidArgumentError: it is neither None, a sequence of names, nor ``{name: Module}``, or names a
            module that is no part of the model.
    """
    where = f"gradflow.watch({targets.title}, branches=...)"
    if branches is None:
        return (), {}
    if isinstance(branches, Mapping):
        return (), _read_modules(branches, targets, where)
    if isinstance(branches, str) or not isinstance(branches, Sequence):
        raise InvalidArgumentError(
            f"branches={branches!r} is neither a sequence of names nor a dict of modules",
            where=where,
            do='branches=("anchor", "positive", "negative"), or {"task_a": model.head_a}',
        )
    for name in branches:
        check_name(name, where=where)
    if len(set(branches)) != len(branches):
        raise InvalidArgumentError(
            f"branches={tuple(branches)!r} names a path twice",
            where=where,
            do="give every path a name of its own; one path called several times needs gradflow.branch()",
        )
    return tuple(branches), {}


def _read_modules(branches: Mapping[object, object], targets: Targets, where: str) -> dict[int, str]:
    paths = {id(module): path for path, module in targets.modules()}
    named: dict[int, str] = {}
    for name, module in branches.items():
        check_name(name, where=where)
        if not isinstance(module, nn.Module) or id(module) not in paths:
            known = [path for path in paths.values() if path]
            raise InvalidArgumentError(
                f"branches[{name!r}] is {_describe(module)}, no module of {targets.title}",
                where=where,
                do=did_you_mean(module if isinstance(module, str) else str(name), known),
            )
        named[id(module)] = str(name)
    return named


def _describe(value: object) -> str:
    return f"a {type(value).__name__}" if isinstance(value, nn.Module) else repr(value)

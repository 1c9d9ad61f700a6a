"""The hooks on modules, nodes and parameters: small callables that pass on what they see.

Those on modules do not follow their model into copies and pickles; those on parameters hold their
observer weakly, for a parameter may outlive it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.capture.branches import is_plain
from gradflow.capture.marking import Edge
from gradflow.capture.planting import Planter
from gradflow.capture.ranks import Ranks
from gradflow.capture.stems import Crossing

__all__ = ["AccumulatedHook", "HooksOnModules", "LeafHook", "NodeHook"]


class Watching(Protocol):
    """What the hooks report to."""

    planter: Planter
    ranks: Ranks | None

    @property
    def is_armed(self) -> bool:
        """Whether it watches now."""

    def arrived(
        self, edges: Sequence[Edge], crossings: Sequence[Crossing], inputs: tuple[Tensor | None, ...]
    ) -> None:
        """A node has run in a backward, and this is what it sends to its inputs."""

    def begins(self, path: str, module: nn.Module) -> None:
        """The forward of a module is about to begin."""

    def received(self, key: int, total: Tensor) -> None:
        """The engine has summed everything that arrives at a leaf in this backward."""

    def accumulated(self, key: int) -> None:
        """``.grad`` has taken it in."""


def _nothing(*_: object) -> None:
    """What a hook of ours becomes in a copy or a pickle of the model: a copy is not watched."""


def _no_hook() -> Callable[..., None]:
    return _nothing


class _Hook:
    """A hook that does not follow its model into copies and pickles."""

    __slots__ = ("_observer",)

    def __init__(self, observer: Watching) -> None:
        self._observer = observer

    def __deepcopy__(self, memo: object) -> Callable[..., None]:
        return _nothing

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _no_hook, ()


class EnterHook(_Hook):
    """Tells that a module call begins.

    Args:
        observer: Whom to tell.
        path: Path of the module.
        is_function: Whether the module is like a function, which is told of only where branches are named.
    """

    __slots__ = ("_is_function", "_path")

    def __init__(self, observer: Watching, path: str, *, is_function: bool) -> None:
        super().__init__(observer)
        self._path, self._is_function = path, is_function

    def __call__(self, module: nn.Module, args: object, kwargs: object = None) -> None:
        """Called by torch before the module's forward; without ``kwargs`` once it was taken off."""
        if kwargs is None or torch.compiler.is_compiling() or (self._is_function and is_plain()):
            return
        observer = self._observer
        if observer.ranks is not None:
            observer.begins(self._path, module)
        observer.planter.enter(self._path, module, (args, kwargs), is_function=self._is_function)


class LeaveHook(_Hook):
    """Tells that a module call is over, also when an exception ended it; as :class:`EnterHook` otherwise."""

    __slots__ = ("_is_function",)

    def __init__(self, observer: Watching, *, is_function: bool) -> None:
        super().__init__(observer)
        self._is_function = is_function

    def __call__(self, module: nn.Module, _args: object, output: object) -> None:
        """Called by torch after the module's forward."""
        if not torch.compiler.is_compiling() and not (self._is_function and is_plain()):
            self._observer.planter.leave(module, output)


class ModuleHooks:
    """The two hooks of one module, to be put on as often as they were taken off; holds the module weakly.

    Args:
        observer: Whom they tell.
        path: Path of the module.
        module: The module.
        is_function: As in :class:`EnterHook`.
    """

    __slots__ = ("_after", "_before", "_module")

    def __init__(self, observer: Watching, path: str, module: nn.Module, *, is_function: bool) -> None:
        self._module = weakref.ref(module)
        self._before = EnterHook(observer, path, is_function=is_function)
        self._after = LeaveHook(observer, is_function=is_function)

    def put_on(self) -> Iterator[RemovableHandle]:
        """Register both, if the module is still there."""
        module = self._module()
        if module is not None:
            yield module.register_forward_pre_hook(self._before, with_kwargs=True)
            yield module.register_forward_hook(self._after, always_call=True)


class HooksOnModules:
    """The hooks on all modules of a model, put on and taken off together.

    They are on modules without parameters as well, where they do nothing before a branch is named: put on
    later, they would stand behind those of the user.

    Args:
        observer: Whom they tell.
        named: Names of modules that are branches, by ``id``: none of them is like a function.
    """

    def __init__(self, observer: Watching, named: Collection[int]) -> None:
        self._observer, self._named = observer, named
        self._hooks: list[ModuleHooks] = []
        self._handles: list[RemovableHandle] = []

    @property
    def are_known(self) -> bool:
        """Whether there are hooks for the modules as they were last looked at."""
        return bool(self._hooks)

    def look(self, modules: Iterable[tuple[str, nn.Module]]) -> None:
        """Make hooks for these modules, by path."""
        self._hooks = [self._of(path, module) for path, module in modules]

    def forget(self) -> None:
        """Those that were made may not fit any more; what is on stays on."""
        self._hooks = []

    def put_on(self) -> None:
        """Register them."""
        for hooks in self._hooks:
            self._handles.extend(hooks.put_on())

    def take_off(self) -> None:
        """Take off what is on."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _of(self, path: str, module: nn.Module) -> ModuleHooks:
        is_function = id(module) not in self._named and next(module.parameters(), None) is None
        return ModuleHooks(self._observer, path, module, is_function=is_function)


class NodeHook:
    """The hook on a node that reads a watched parameter, or a stem; there are many, and each is small.

    Args:
        observer: Whom to tell.
        edges: The uses that the node is.
        crossings: The stems that it reads.
    """

    __slots__ = ("_crossings", "_edges", "_observer")

    def __init__(self, observer: Watching, edges: Sequence[Edge], crossings: Sequence[Crossing]) -> None:
        self._observer, self._edges, self._crossings = observer, edges, crossings

    def __call__(self, inputs: tuple[Tensor | None, ...], _outputs: tuple[Tensor | None, ...]) -> None:
        """Called by the engine when the node has run; the graph may outlive the watching."""
        if self._observer.is_armed:
            self._observer.arrived(self._edges, self._crossings, inputs)


class LeafHook:
    """The hook on a parameter; holds its observer weakly, for the parameter may outlive it."""

    def __init__(self, observer: Watching, key: int) -> None:
        self._observer = weakref.ref(observer)
        self._key = key

    @property
    def planter(self) -> Planter | None:
        """The planter of the recorder that watches this parameter."""
        observer = self._observer()
        return None if observer is None else observer.planter

    def __call__(self, total: Tensor) -> None:
        """Called by the engine with the sum of this backward, before ``.grad`` changes."""
        observer = self._observer()
        if observer is not None:
            observer.received(self._key, total)


class AccumulatedHook(LeafHook):
    """The hook after ``.grad`` has changed."""

    def __call__(self, param: Tensor) -> None:
        """Called by the engine; not under ``autograd.grad``."""
        observer = self._observer()
        if observer is not None:
            observer.accumulated(self._key)

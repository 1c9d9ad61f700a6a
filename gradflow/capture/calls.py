"""What is remembered of a forward pass: plain data that holds neither tensors nor graph nodes.

A :class:`Call` is one grad-enabled call of a module. A :class:`Mark` is put on each node of the
autograd graph (in ``node.metadata``, which lives and dies with the node) and tells which call made
it. A :class:`Window` collects the calls since the last accumulating backward; which branch each of
them belongs to is worked out in :mod:`gradflow.capture.labels`.

A mark holds its window, a window its calls, a call what it derives from, and none of them the other way
round. So all of it goes with the graph, at once, and no garbage collector has to look for it; save where a
forward that runs in a backward reads the very node that it repeats.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch.multiprocessing.reductions import StorageWeakRef

    from gradflow.capture.stems import Stem

__all__ = ["Call", "Mark", "Origin", "Window", "joined", "origins_in"]


class Call:
    """One grad-enabled call of a module.

    There are many of them, and making one must cost little: what is seldom set is a default of the class.

    Attributes:
        path: Module path, ``""`` for the watched module itself.
        index: Which call of that module in its window, from 0.
        module: ``id`` of the module, so that a shared module counts once.
        window: The window it belongs to, held weakly: who holds a call holds its window as well.
        parent: The call it was made in.
        context: The ``branch()`` that was open at its start (compared by identity only).
        branch: The branch that the context or a named module decides; None leaves it to the paths.
        origins: Nodes that its inputs derive from, as far as they are of its window.
        maker: Stands for the nearest call, itself or one around it, without a tensor among its arguments, for
            it may make weights, as a parametrization does. None where all have one.
        recomputes: For a forward run again inside a backward, as checkpointing does: a mark of its first run.
        is_recomputed: Whether it ran inside a backward at all.
        is_function: Whether its module has no parameters, so that calling it again makes no path.
        is_torchs: Whether its module is one of torch's own, which shows its views of weights to nobody.
    """

    context: object = None
    origins: frozenset[Origin] = frozenset()
    maker: object = None
    recomputes: Mark | None = None
    is_recomputed: bool = False
    is_function: bool = False
    is_torchs: bool = False

    def __init__(
        self,
        path: str,
        index: int,
        module: int,
        window: Window,
        parent: Call | None = None,
        *,
        branch: str | None = None,
    ) -> None:
        self.path, self.index, self.module, self._window = path, index, module, weakref.ref(window)
        self.parent, self.branch = parent, branch

    @property
    def window(self) -> Window:
        """The window it belongs to."""
        window = self._window()
        assert window is not None, "who holds a call holds its window"
        return window

    def chain(self) -> Iterator[Call]:
        """Give this call and the calls around it, innermost first."""
        call: Call | None = self
        while call is not None:
            yield call
            call = call.parent

    def is_inside(self, other: Call) -> bool:
        """Tell whether this is a call or one made in it."""
        call: Call | None = self
        while call is not None:
            if call is other:
                return True
            call = call.parent
        return False

    @property
    def label(self) -> str:
        """Module path and index, as ``"encoder.conv1#2"``."""
        return f"{self.path}#{self.index}"


class Origin:
    """What is left of a mark in what derives from its node: in which call that was made, and its own origins.

    Unlike a mark it holds no window, nor those who read the node.
    """

    __slots__ = ("call", "origins")

    def __init__(self, call: Call | None, origins: frozenset[Origin]) -> None:
        self.call, self.origins = call, origins


class Mark:
    """What is known of one node of the graph.

    There is one for every node, and making it must cost little: what is seldom set is a default of the class.

    Attributes:
        window: The window it was made in.
        call: The innermost call it was made in; None for a stretch of forward outside any call.
        branch: The branch it belongs to by context.
        origins: Nodes of other stretches that it derives from, should its own call not place it.
        depth: Nodes in a row behind it, to where their chain is broken for the sake of its release; 0 where
            that is here.
        readers: Calls that took it as an input; they decide where nothing else does.
        reach: Calls of other stretches that read it around their inputs, as a cached weight is read.
        is_stem_candidate: A view or cast of a parameter, or made by a call that may make weights.
        is_weight: A view or cast of a parameter, or of what a call has made that may make weights.
        is_unplaced: Made in a named stretch that was over before anybody saw the node.
        is_gated: Whether it lies outside any branch, behind a node that one reads.
        has_known_edges: Whether hooks tell what it sends to nodes that lie outside any branch like itself.
        is_fenced: Whether a pre-hook keeps it from passes through a stretch that borders on it.
        is_noted: Whether every node that reads it was taken note of, should branches meet at it.
        stem: What is kept of the node where branches may meet at it; None where they cannot.
    """

    depth = 0
    readers: Set[Call] = frozenset()
    reach: Set[Call] = frozenset()
    is_stem_candidate = False
    is_weight = False
    is_unplaced = False
    is_gated = False
    has_known_edges = False
    is_fenced = False
    is_noted = False
    stem: Stem | None = None
    _origin: frozenset[Origin] | None = None
    _visitors: tuple[Window, ...] = ()

    def __init__(
        self,
        window: Window,
        call: Call | None = None,
        branch: str | None = None,
        origins: frozenset[Origin] = frozenset(),
    ) -> None:
        self.window, self.call, self.branch, self.origins = window, call, branch, origins

    @property
    def as_origin(self) -> frozenset[Origin]:
        """The node as the one origin of what derives from it; asked for once its own origins are known."""
        if self._origin is None:
            self._origin = frozenset((Origin(self.call, self.origins),))
        return self._origin

    def add_reader(self, call: Call) -> bool:
        """Add a call that took the node as an input; tell whether it was news."""
        if not _is_news(call, self.readers):
            return False
        self.readers = _with(call, self.readers)
        self._hold(call.window)
        return True

    def add_reach(self, call: Call) -> bool:
        """Add a call that reads the node around its inputs; tell whether it was news."""
        if not _is_news(call, self.reach):
            return False
        self.reach = _with(call, self.reach)
        self._hold(call.window)
        return True

    def _hold(self, window: Window) -> None:
        """Hold the window of a call that is held here, for it may be a later one."""
        if window is not self.window and window not in self._visitors:
            self._visitors = (*self._visitors, window)


FirstPass: TypeAlias = "tuple[Call, list[StorageWeakRef]]"
"""A call in the first pass of a checkpoint, and the memory of its inputs."""


def origins_in(window: Window, call: Call | None, below: Mark) -> frozenset[Origin]:
    """Give what a node derives from that was made in a call and reads ``below``: its origins, or itself.

    A node of the same stretch, or of one around the call, is looked through. What was made in an earlier
    window places nothing in this one; to hold it would hold all windows before.
    """
    if below.window is not window:
        return frozenset()
    made_in = below.call
    is_same_stretch = made_in is call or made_in is None or (call is not None and call.is_inside(made_in))
    return below.origins if is_same_stretch else below.as_origin


def joined(some: frozenset[Origin], more: frozenset[Origin]) -> frozenset[Origin]:
    """Put origins together; mostly one of the two is empty, or both are the same, and no set is made."""
    if not some or some is more:
        return more
    return some | more if more else some


def _is_news(call: Call, known: Set[Call]) -> bool:
    """Tell whether a call, or one of the same named branch, is not there yet."""
    if not known:
        return True
    return call not in known and not (call.branch is not None and any(c.branch == call.branch for c in known))


def _with(call: Call, known: Set[Call]) -> Set[Call]:
    if not isinstance(known, set):
        return {call}
    known.add(call)
    return known


@dataclass(eq=False, slots=True, weakref_slot=True, repr=False)
class Window:
    """The grad-enabled calls since the last accumulating backward, in the order they began.

    Attributes:
        names: Names the user gave to paths found by counting, in the order of the calls; may be empty.
        home: What to call a path that is the watched module itself: its class name.
        calls: All calls; a parent stands before its children, an origin before what derives from it.
        counts: Calls so far of each module, by ``id``.
        contexts: Names of branches opened around any call, with or without gradients.
        terms: Names of terms of the loss, in the order they were named.
        first_passes: First passes of checkpoints, by module and where its inputs lay, with what tells whether
            they live: memory that was freed may hold another one's inputs.
        outside: Stands for whatever reads something beside the known branches.
        glue: Stands for the stretches outside any call, where they read a weight that a call made.
    """

    names: tuple[str, ...] = ()
    home: str = "model"
    calls: list[Call] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    contexts: dict[str, None] = field(default_factory=dict)
    terms: dict[str, None] = field(default_factory=dict)
    first_passes: dict[tuple[int, ...], list[FirstPass]] = field(default_factory=dict)
    outside: Call = field(init=False)
    glue: Call = field(init=False)

    def __post_init__(self) -> None:
        self.outside, self.glue = Call("", 0, 0, self), Call("", 0, 0, self)

    def begin(self, path: str, module: int, parent: Call | None = None) -> Call:
        """Add a call of a module."""
        index = self.counts.get(module, 0)
        self.counts[module] = index + 1
        call = Call(path, index, module, self, parent)
        self.calls.append(call)
        return call

    def cancel(self, call: Call) -> None:
        """Take out a call that an exception ended, and the calls inside it."""
        if call not in self.calls:  # a recomputed one was never counted
            return
        start = len(self.calls) - 1 - self.calls[::-1].index(call)
        inside = [c for c in self.calls[start:] if call in c.chain()]
        for one in inside:
            self.calls.remove(one)
            self.counts[one.module] -= 1

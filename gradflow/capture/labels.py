"""Which contributor each node of a graph belongs to.

Two ways. Where any branch was named around the calls of a window (``with gradflow.branch(...)``, or
``branches={name: module}``), the names decide, and what lies outside them goes to the one branch that
reads it. Where none was, paths are found by counting: the calls of a module that is called several
times are several paths, and a call whose inputs derive from exactly one path joins it.

No torch here: labels are worked out from the calls alone, when the first gradient arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from gradflow.capture.calls import Call, Mark, Origin, Window

__all__ = ["Labeller", "Labels"]

PathKey = tuple[int | str, int]
"""A path found by counting: (id of the repeated module, number), or (name, -1) of what runs once."""


class Labeller:
    """Gives the contributor of any mark, working out each window once (and anew when it has grown)."""

    def __init__(self) -> None:
        self._known: dict[Window, Labels] = {}

    def labels(self, window: Window) -> Labels:
        """Give the labels of a window."""
        found = self._known.get(window)
        if found is None or found.counted != len(window.calls):
            found = self._known[window] = Labels(window)
        return found

    def of_call(self, call: Call) -> str | None:
        """Give the branch of a call; None if it holds several or belongs to none."""
        return self.labels(call.window).of_call(call)

    def of_mark(self, mark: Mark) -> str:
        """Give the contributor of a node: a branch, ``"shared"`` or ``"unclaimed"``."""
        if mark.is_unplaced:
            return "unclaimed"
        labels = self.labels(mark.window)
        own = labels.own(mark)
        if own is not None and not mark.reach:
            return own
        owners = self._branches(mark.readers) if own is None else {own}
        if mark.reach:
            is_open = labels.is_explicit and mark.branch is None  # then glue is known by its edges
            owners |= self._branches(c for c in mark.reach if not (is_open and c is c.window.glue))
        if len(owners) > 1:
            return "shared"
        return next(iter(owners), None) or labels.home_of(mark)

    def is_by_reader(self, mark: Mark) -> bool:
        """Tell whether a node is a branch's only because no other branch was seen to read it."""
        labels = self.labels(mark.window)
        if not labels.is_explicit or mark.reach or labels.own(mark) is not None:
            return False
        return len(self._branches(mark.readers)) == 1

    def _branches(self, calls: Iterable[Call]) -> set[str]:
        return {name for call in calls if (name := self.of_call(call)) is not None}

    def forget(self) -> None:
        """Drop what was worked out; windows still alive are worked out again when asked for."""
        self._known.clear()


class Labels:
    """The branch of every call of one window.

    Attributes:
        counted: How many calls it was worked out from.
        is_explicit: Whether any branch was named around a call, so that names decide and not counts.
        branches: Every branch of the window, in the order of their lanes, also one that no gradient reaches.
        misfit: What to tell the user when the given names fit no set of paths; else empty.
    """

    def __init__(self, window: Window) -> None:
        self.counted = len(window.calls)
        self.misfit = ""
        self.is_explicit = bool(window.contexts) or any(c.branch is not None for c in window.calls)
        self._home = window.home
        self._names: dict[PathKey, str] = {}
        self._paths = _Paths()
        if self.is_explicit:
            named = (c.branch for c in window.calls if c.branch is not None)
            self.branches = tuple(dict.fromkeys([*window.contexts, *named]))
        else:
            self._paths = _paths(window, joins_itself=True)
            self._names, self.misfit = _name_paths(window, self._paths)
            if self.misfit:
                self._try_every_call(window)
            self.branches = tuple(dict.fromkeys(self._names.values()))

    def _try_every_call(self, window: Window) -> None:
        """See if the names fit the single calls of a chain, as the time steps of a recurrent cell."""
        paths = _paths(window, joins_itself=False)
        names, misfit = _name_paths(window, paths)
        if not misfit:
            self._paths, self._names, self.misfit = paths, names, misfit

    def of_call(self, call: Call) -> str | None:
        """Give the branch of a call; None if it holds several or belongs to none."""
        if call is call.window.outside or call is call.window.glue:
            return "unclaimed"
        if call.recomputes is not None:
            return self.own(call.recomputes)
        if self.is_explicit:
            return call.branch
        path = self._paths.get(call)
        return None if path is None else self._names[path]

    def own(self, mark: Mark) -> str | None:
        """Give the branch that a node's own place decides, whoever else reads it."""
        if mark.call is not None and mark.call.recomputes is not None:
            return self.own(mark.call.recomputes)
        if self.is_explicit or mark.branch is not None:
            return mark.branch
        path = None if mark.call is None else self._paths.get(mark.call)
        if path is not None:
            return self._names[path]
        keys = self._paths.behind(mark.origins)
        return self._names[next(iter(keys))] if len(keys) == 1 else None

    def home_of(self, mark: Mark) -> str:
        """Give the contributor of a node that no branch owns or reads."""
        if self.is_explicit or mark.call is None or mark.call.is_recomputed:
            return "unclaimed"
        return mark.call.path or self._home


class _Paths(dict[Call, PathKey]):
    """The path of each call that has one, and the paths behind what derives from calls that have none."""

    def __init__(self) -> None:
        super().__init__()
        self._behind: dict[Origin, set[PathKey]] = {}

    def behind(self, origins: Set[Origin]) -> set[PathKey]:
        """Give the paths that nodes stand on: their calls', else the nearest of those that they derive from.

        To be asked when all calls before them have their path, for it is remembered: what each of many blocks
        adds to derives from all blocks before, in as many ways as these have subsets.
        """
        waiting = [origin for origin in origins if self._is_unknown(origin)]
        while waiting:
            before = [origin for origin in waiting[-1].origins if self._is_unknown(origin)]
            if before:
                waiting += before
            else:
                origin = waiting.pop()
                self._behind[origin] = self._joined(origin.origins)
        return self._joined(origins)

    def _is_unknown(self, origin: Origin) -> bool:
        return origin.call not in self and origin not in self._behind

    def _joined(self, origins: Set[Origin]) -> set[PathKey]:
        found: set[PathKey] = set()
        for origin in origins:
            if origin.call is not None and origin.call in self:
                found.add(self[origin.call])
            else:
                found |= self._behind[origin]
        return found


def _paths(window: Window, *, joins_itself: bool) -> _Paths:
    """Find the path of every call; a call that only holds several paths has none.

    ``joins_itself``: whether a call that reads an earlier call of the same module joins its path, so that a
    recurrent cell over one sequence is one path. A module without parameters is like a function: it makes
    no path, however often it is called.
    """
    repeated = {c.module for c in window.calls if window.counts[c.module] > 1 and not c.is_function}
    holders: set[Call] = set()
    for call in window.calls:
        if call.module in repeated and call.parent is not None:
            holders.update(call.parent.chain())
    paths = _Paths()
    roots: dict[int, int] = {}
    for call in window.calls:
        if call.parent is not None and call.parent in paths:
            paths[call] = paths[call.parent]
        elif call.is_function:
            continue
        elif call.module in repeated:
            keys = {key for key in paths.behind(call.origins) if key[1] >= 0}
            if not joins_itself:
                keys = {key for key in keys if key[0] != call.module}
            paths[call] = keys.pop() if len(keys) == 1 else _new_path(call.module, roots)
        elif call not in holders:
            paths[call] = _path_of_single(call, paths, window.home)
    return paths


def _new_path(module: int, roots: dict[int, int]) -> PathKey:
    number = roots.get(module, 0)
    roots[module] = number + 1
    return module, number


def _path_of_single(call: Call, paths: _Paths, home: str) -> PathKey:
    keys = paths.behind(call.origins)
    return keys.pop() if len(keys) == 1 else (call.path or home, -1)


def _name_paths(window: Window, paths: dict[Call, PathKey]) -> tuple[dict[PathKey, str], str]:
    """Give each path its name, and say if the user's names fit no repeated module."""
    counts: dict[int | str, int] = {}
    for module, number in dict.fromkeys(paths.values()):
        if number >= 0:
            counts[module] = counts.get(module, 0) + 1
    modules = {call.module: call.path or window.home for call in reversed(window.calls)}
    names: dict[PathKey, str] = {}
    for key in dict.fromkeys(paths.values()):
        module, number = key
        if number < 0:
            names[key] = str(module)
        elif counts[module] == len(window.names):
            names[key] = window.names[number]
        else:
            names[key] = f"{modules[int(module)]}#{number}"
    fits = not window.names or len(window.names) in counts.values()
    return names, "" if fits else _misfit(window.names, {modules[int(m)]: n for m, n in counts.items()})


def _misfit(names: Iterable[str], found: dict[str, int]) -> str:
    seen = (
        ", ".join(f"{n} of {path!r}" for path, n in found.items()) or "no module that is called several times"
    )
    return f"branches={tuple(names)!r} fit no set of paths: found {seen}"

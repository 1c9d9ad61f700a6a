"""``gradflow.watch``: record each path's own contribution to every shared parameter while training runs.

flow = gradflow.watch(encoder, optimizer, branches=("anchor", "positive", "negative"))
for a, p, n in loader:                 # the loop as it was
    loss = triplet(encoder(a), encoder(p), encoder(n))
    optimizer.zero_grad(); loss.backward(); optimizer.step()
flow.recording.last
"""

from __future__ import annotations

import fnmatch
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gradflow.capture.hooks import LeafHook
from gradflow.capture.observer import Observer
from gradflow.capture.options import Options, read_options
from gradflow.capture.session import Memory, Session
from gradflow.capture.targets import Targets, match, read_branches
from gradflow.checks.watching import Inspector
from gradflow.errors import (
    AlreadyWatchedError,
    ClosedRecorderError,
    InvalidArgumentError,
    NothingToWatchError,
)
from gradflow.recording import Recording

if TYPE_CHECKING:
    from gradflow.storage.stream import Stream

__all__ = ["Recorder", "watch"]

_STEP = Optimizer.profile_hook_step(lambda: None).__code__  # of every step that calls hooks


def watch(
    model: nn.Module | Sequence[nn.Module],
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    *,
    branches: Sequence[str] | Mapping[str, nn.Module] | None = None,
    params: str | Sequence[str] | None = None,
    keep: str | Sequence[str] = "gram",
    every: int = 1,
    last: int | None = None,
    to: str | Path | None = None,
    stems: str = "report",
) -> Recorder:
    """Watch a model: from now on every step's contributions, their sum and the delta are recorded.

    The training loop stays as it is, and so does everything it computes, to the last bit.

    Args:
        model: A module, or a list of modules (two models that share a layer; names then begin with ``"0."``).
        optimizer: The optimizer, or a list of them. Without one, ``flow.step()`` ends a step, no delta is
            split, and from the second step on contributions are let go of once read, which saves memory.
        branches: None finds the paths by counting calls. A sequence of names gives them names in the order
            of the calls. ``{name: module}`` makes every call of a module a branch. ``gradflow.branch``
            overrules all.
        params: FQN patterns of the parameters to watch, such as ``"conv*.weight"``; None for all trainable.
        keep: ``"gram"`` keeps inner products only, ``"tensors"`` every contribution in full; patterns keep
            the tensors of some parameters.
        every: Watch each so-many-th step, and plant nothing in between.
        last: Keep only so many steps in memory.
        to: File to stream the recording to while training goes on; steps are then read from there.
        stems: ``"report"`` shows what several branches share as ``shared``; ``"split"`` splits it exactly,
            for one extra backward of the shared part per branch.

    Returns:
        A recorder; usable as a context manager. ``close()`` undoes everything.

    Raises:
        NothingToWatchError: no trainable parameter, or the optimizer holds none of the watched ones.
        NoSuchParameterError: a pattern in ``params`` or ``keep`` matches nothing.
        InvalidArgumentError: an argument means nothing here.
        AlreadyWatchedError: a parameter is being watched by another recorder.

    Example:
        >>> import torch
        >>> encoder = torch.nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
        >>> with watch(encoder, optimizer, branches=("left", "right")) as flow:
        ...     loss = (encoder(torch.ones(1, 2)) - encoder(torch.zeros(1, 2))).square().sum()
        ...     loss.backward()
        ...     optimizer.step()
        >>> flow.recording.last["weight"].contributors
        ('left', 'right')
    """
    options = read_options(keep=keep, every=every, last=last, to=to, stems=stems)
    return Recorder(model, optimizer, branches=branches, params=params, options=options)


class Recorder:
    """Records what happens in a training loop; made by :func:`watch`, which documents its arguments."""

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        branches: Sequence[str] | Mapping[str, nn.Module] | None = None,
        params: str | Sequence[str] | None = None,
        options: Options | None = None,
    ) -> None:
        options = options or Options()
        patterns = (params,) if isinstance(params, str) else params
        self._targets = Targets(_roots(model), None if patterns is None else tuple(patterns))
        self._targets.require()
        self._targets.look()
        _refuse_watched(self._targets)
        names, named = read_branches(branches, self._targets)
        keeps = _keeps(options.keep, self._targets)
        optimizers = _optimizers(optimizer, self._targets)
        observer = Observer(
            self._targets,
            names,
            named,
            keeps,
            splits_trunks=options.splits_trunks,
            needs_sums=bool(optimizers),
        )
        self._observer, self._is_closed = observer, False
        self._steps = _shelf(options)
        inspector = Inspector(self._targets.roots, optimizers)
        observer.guarded(inspector.begin)
        self._session = Session(observer, optimizers, self._steps, options.every, inspector.look)
        self._handles = [handle for i, o in enumerate(optimizers) for handle in self._hook(o, i)]

    @property
    def recording(self) -> Recording:
        """What was recorded so far; grows as training goes on."""
        self._session.settle()
        return Recording(self._steps)

    def log(self, **scalars: float | Tensor) -> None:
        """Keep scalars with the step: the one that is open, or the last if none has begun since.

        What is logged in a step that is not watched is not kept.

        Args:
            scalars: Numbers, or tensors of one element such as ``loss=loss``.
        """
        kept = {name: v.detach() if isinstance(v, Tensor) else v for name, v in scalars.items()}
        self._session.log(kept)

    def step(self) -> None:
        """End a step where no optimizer does.

        Raises:
            ClosedRecorderError: the recorder was closed.
        """
        self._refuse_closed("flow.step()")
        self._session.finish()

    def pause(self) -> None:
        """Take every hook off the model until ``resume()``; steps in between are not recorded."""
        self._session.pause()

    def resume(self) -> None:
        """Watch again after ``pause()``.

        Raises:
            ClosedRecorderError: the recorder was closed.
        """
        self._refuse_closed("flow.resume()")
        self._session.resume()

    def close(self) -> None:
        """Undo everything: no hook, attribute or reference remains on the model or the optimizer."""
        if self._is_closed:
            return
        self._session.settle()
        self._is_closed = True
        self._observer.close()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._steps.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        from gradflow.render import text

        return f"{self._describe()}\n{text.recording(Recording(self._steps))}"

    def _repr_html_(self) -> str:
        from html import escape

        from gradflow.render import html

        return f"<p>{escape(self._describe())}</p>{html.recording(Recording(self._steps))}"

    def _describe(self) -> str:
        state = "closed" if self._is_closed else "paused" if self._session.is_paused else "watching"
        count = len(self._targets.params)
        return f"Recorder {state} {count} parameters of {self._targets.title}, {len(self._steps)} steps"

    def _hook(self, optimizer: Optimizer, position: int) -> Iterator[RemovableHandle]:
        def before(_optimizer: Optimizer, args: Any, kwargs: Any) -> Any:  # whatever step() is given
            if _is_nested(optimizer):
                return None
            closure = next((a for a in (*args[1:], *kwargs.values()) if callable(a)), None)  # args[0]: itself
            self._session.optimizer_begins(position, has_closure=closure is not None)
            return None if closure is None else self._listen(closure, position, args, kwargs)

        def after(_optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
            if not _is_nested(optimizer):
                self._session.optimizer_ends(position)

        yield optimizer.register_step_pre_hook(before)
        yield optimizer.register_step_post_hook(after)

    def _listen(self, closure: Callable[..., Any], position: int, args: Any, kwargs: Any) -> Any:
        """Give the arguments of a step with a closure that tells when it has run."""

        @functools.wraps(closure)
        def told(*given: Any, **named: Any) -> Any:  # whatever the optimizer gives its closure
            loss = closure(*given, **named)
            self._session.closure_ends(position)
            return loss

        swapped = [told if a is closure else a for a in args]
        return tuple(swapped), {name: told if a is closure else a for name, a in kwargs.items()}

    def _refuse_closed(self, where: str) -> None:
        if self._is_closed:
            raise ClosedRecorderError(
                "this recorder is closed",
                where=where,
                do="call gradflow.watch again; what was recorded is still in flow.recording",
            )


def _roots(model: nn.Module | Sequence[nn.Module]) -> dict[str, nn.Module]:
    if isinstance(model, nn.Module):
        return {"": model}
    roots = list(model) if isinstance(model, Sequence) else []
    if not roots or not all(isinstance(root, nn.Module) for root in roots):
        raise InvalidArgumentError(
            f"{model!r:.80} is neither a module nor a list of modules",
            where="gradflow.watch",
            do="pass the module that owns the parameters, or [model_a, model_b]",
        )
    return {str(i): root for i, root in enumerate(roots)}


def _refuse_watched(targets: Targets) -> None:
    for key, param in targets.params.items():
        if any(isinstance(hook, LeafHook) for hook in (param._backward_hooks or {}).values()):
            raise AlreadyWatchedError(
                f"{targets.names[key][0]!r} is being watched by another recorder",
                where=f"gradflow.watch({targets.title})",
                do="close the other recorder first, or watch both models at once: gradflow.watch([a, b])",
            )


def _optimizers(optimizer: Optimizer | Sequence[Optimizer] | None, targets: Targets) -> list[Optimizer]:
    optimizers = (
        [] if optimizer is None else [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    )
    for one in optimizers:
        if not isinstance(one, Optimizer):
            raise InvalidArgumentError(
                f"{one!r:.80} is no torch.optim.Optimizer",
                where=f"gradflow.watch({targets.title}, optimizer=...)",
                do="pass the optimizer, a list of optimizers, or None and end steps with flow.step()",
            )
        if not any(id(p) in targets.params for group in one.param_groups for p in group["params"]):
            raise NothingToWatchError(
                f"{type(one).__name__} holds none of the {len(targets.params)} watched parameters",
                where=f"gradflow.watch({targets.title}, optimizer=...)",
                do="pass the optimizer of this model; after model.to(...) or a copy, make the optimizer anew",
            )
    return optimizers


def _is_nested(optimizer: Optimizer) -> bool:
    """Tell whether this step runs inside another of its own: a subclass calls the step of its base."""
    frame, depth = sys._getframe(1), 0
    while frame is not None and depth < 2:
        depth += frame.f_code is _STEP and frame.f_locals.get("self") is optimizer
        frame = frame.f_back  # type: ignore[assignment]  # None at the bottom of the stack
    return depth == 2


def _keeps(patterns: tuple[str, ...], targets: Targets) -> Callable[[tuple[str, ...]], bool]:
    """Tell by its names whether the tensors of a parameter are kept."""
    known = [name for names in targets.names.values() for name in names]
    for pattern in patterns:
        match(pattern, known, where=f"gradflow.watch({targets.title}, keep=...)")
    if not patterns:
        return lambda _names: False
    return lambda names: any(fnmatch.fnmatchcase(n, pattern) for n in names for pattern in patterns)


def _shelf(options: Options) -> Memory | Stream:
    """Give where closed steps are put; what writes files is loaded only for one."""
    if options.to is None:
        return Memory(options.last)
    from gradflow.storage.stream import Stream

    return Stream(options.to)

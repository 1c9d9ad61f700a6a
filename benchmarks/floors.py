"""Floors: the least that does what gradflow does, by the same means and in straight lines.

Where a floor misses a target, no recorder that uses hooks can meet it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeGuard

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

import gradflow
from benchmarks.nets import Job
from benchmarks.timing import Variant, Work, then
from gradflow.capture import kernels
from gradflow.record import ParamStep, Use
from gradflow.recording import Step

__all__ = ["bare", "least", "least_split"]

_SEEN = "bench"
_TAKE = 0.1  # of a new gradient, in Adam's momentum
_PATHS = 3  # of the net that it is measured on
_EPS = 1e-8  # in Adam's denominator


class _Call(NamedTuple):
    """A call of a module: its label, and the path that it is on."""

    label: str
    path: str


class _Edge(NamedTuple):
    """A use of a parameter: by which input of which node, made in which call."""

    param: int
    slot: int
    node: str
    call: _Call


_NO_CALL = _Call("", "")
Arrived = Callable[[_Edge, Tensor], object]


def bare(job: Job, step: Work | None = None) -> Variant:
    """Give a step whose nodes have hooks that keep references until the step is over, and do nothing else."""
    kept: list[Tensor] = []

    def hooks() -> Iterator[RemovableHandle]:
        return _plant(job.model, lambda _edge, gradient: kept.append(gradient))

    return _hooked(then(step or job.step, kept.clear), hooks)


def least(job: Job) -> tuple[Variant, Callable[[], Step]]:
    """Give a step of the least recorder there can be, and what writes its record of the last step.

    Each contribution is read once with what the leaf receives, let go of and named.
    """
    book = _Book(job)

    def hooks() -> Iterator[RemovableHandle]:
        yield from _plant(job.model, book.arrive, book.running)
        for path, module in job.model.named_modules():
            yield module.register_forward_pre_hook(partial(book.enter, path))
        for param in job.model.parameters():
            yield param.register_hook(partial(book.receive, id(param)))
            yield param.register_post_accumulate_grad_hook(book.commit)

    return _hooked(then(job.step, book.close), hooks), book.record


def _hooked(step: Work, hooks: Callable[[], Iterator[RemovableHandle]]) -> Variant:
    """Give a step with hooks that are on for its turn only."""
    handles: list[RemovableHandle] = []

    def off() -> None:
        for handle in handles:
            handle.remove()
        handles.clear()

    return Variant(step, lambda: handles.extend(hooks()), off)


class _Book:
    """What the least recorder remembers, in straight lines: calls and their paths, what arrived and was read.

    It trusts its user: nobody clips, accumulates, shares a trunk, checkpoints or raises. Without names of
    modules the paths are the calls of what is called again.

    Attributes:
        running: The calls under way, innermost last: label and path of each.
    """

    def __init__(self, job: Job) -> None:
        self.running: list[_Call] = []
        self._named = {id(m): name for name, m in job.branches.items()} if _is_mapping(job.branches) else {}
        self._names = None if _is_mapping(job.branches) else job.branches
        self._first = self._names[0] if self._names else "shared"
        self._params = {id(p): (fqn, tuple(p.shape)) for fqn, p in job.model.named_parameters()}
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._arrived: defaultdict[int, list[tuple[_Edge, Tensor]]] = defaultdict(list)
        self._read: dict[int, tuple[Sequence[_Edge], kernels.Survey]] = {}
        self._committed: set[int] = set()
        self._last: list[tuple[int, Sequence[_Edge], kernels.Survey]] = []

    def enter(self, path: str, module: nn.Module, _inputs: object) -> None:
        """A call begins: give it a number and a path."""
        number = self._counts[id(module)]
        self._counts[id(module)] = number + 1
        around = self.running[-1].path if self.running else self._first
        if self._named:
            around = self._named.get(id(module), around)
        elif number and self._names is not None:
            around = self._names[number]
        self.running.append(_Call(f"{path}#{number}", around))

    def arrive(self, edge: _Edge, gradient: Tensor) -> None:
        """A use brings something."""
        self._arrived[edge.param].append((edge, gradient))

    def receive(self, param: int, total: Tensor) -> None:
        """The leaf receives the sum: read it all, and let go of it."""
        edges, rows = zip(*self._arrived.pop(param), strict=True)
        paths = [edge.call.path for edge in edges]
        numbers = {path: number for number, path in enumerate(dict.fromkeys(paths))}
        owners = None if len(numbers) == len(paths) else [numbers[path] for path in paths]
        if kernels.are_readable((total, *rows)):
            self._read[param] = edges, kernels.survey(rows, total, owners)

    def commit(self, param: Tensor) -> None:
        """``.grad`` has taken it in."""
        self._committed.add(id(param))

    def close(self) -> None:
        """Keep what the record of the step is made of."""
        self._last = [(param, *self._read[param]) for param in self._params if param in self._committed]
        self._counts.clear()
        self._read.clear()
        self._committed.clear()

    def record(self) -> Step:
        """Write the record of the last step: like gradflow, only when somebody looks."""
        parameters = {}
        for param, edges, survey in self._last:
            fqn, shape = self._params[param]
            lengths = np.sqrt(survey.squares).tolist()
            parameters[fqn] = ParamStep(
                contributors=tuple(dict.fromkeys(edge.call.path for edge in edges)),
                gram=survey.gram,
                total_norm=math.sqrt(survey.square[0]),
                fqn=fqn,
                names=(fqn,),
                shape=shape,
                residual=0.0 if survey.is_sum else math.nan,
                uses=tuple(
                    Use(edge.call.path, edge.call.label, edge.node, edge.slot, length)
                    for edge, length in zip(edges, lengths, strict=True)
                ),
            )
        return Step(0, parameters, tuple(self._names or self._named.values()))


def least_split(job: Job) -> tuple[Work, list[gradflow.Recorder]]:
    """Give a watched step of Adam beside which the parts of a delta are read once; and the recorder.

    Contributions are kept until the optimizer steps, for until then they may be clipped, or added to. Before
    the step the parameters are copied. After it one compiled pass over each advances the momenta of three
    paths, divides them by Adam's denominator, and takes the inner products of what comes out and how far its
    sum is from the delta.
    """
    flow = gradflow.watch(job.model, branches=job.branches, last=1)
    observer = flow._observer
    observer._needs_sums = True
    params = list(job.model.parameters())
    momenta = [torch.zeros(_PATHS, param.numel()) for param in params]
    seconds = [torch.zeros(param.numel()) for param in params]
    before: list[Tensor] = []

    def copy(*_: object) -> None:
        before.extend(param.detach().clone() for param in params)

    def advance(*_: object) -> None:
        for param, own, second, theta in zip(params, momenta, seconds, before, strict=True):
            rows = tuple(map(_flat, observer.accounts[id(param)].sums.values()))
            flat = map(_flat, (second, theta, param))
            _read_parts(own.numpy(), rows, *flat, np.zeros((_PATHS, _PATHS)))
        before.clear()

    job.optimizer.register_step_pre_hook(copy)
    job.optimizer.register_step_post_hook(advance)
    return then(job.step, flow.step), [flow]


def _flat(tensor: Tensor) -> NDArray:
    flat: NDArray = tensor.detach().view(-1).numpy()
    return flat


@numba.njit(fastmath=True, error_model="numpy", nogil=True)
def _read_parts(
    momenta: NDArray,
    rows: tuple[NDArray, ...],
    second: NDArray,
    theta: NDArray,
    moved: NDArray,
    matrix: NDArray,
) -> float:
    """Advance three momenta by a contribution each, and read what they make of a step against the delta."""
    take, eps = np.float32(_TAKE), np.float32(_EPS)
    first, other, last = momenta[0], momenta[1], momenta[2]
    here, there, beyond = rows
    aa = ab = ac = bb = bc = cc = 0.0
    off = 0.0
    for i in range(here.size):
        first[i] += take * (here[i] - first[i])
        other[i] += take * (there[i] - other[i])
        last[i] += take * (beyond[i] - last[i])
        factor = np.float32(1) / (np.sqrt(second[i]) + eps)
        x, y, z = first[i] * factor, other[i] * factor, last[i] * factor
        off += np.float64(moved[i] - theta[i] - x - y - z) ** 2
        a, b, c = np.float64(x), np.float64(y), np.float64(z)
        aa, ab, ac, bb, bc, cc = aa + a * a, ab + a * b, ac + a * c, bb + b * b, bc + b * c, cc + c * c
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = aa, ab, ac
    matrix[1, 1], matrix[1, 2], matrix[2, 2] = bb, bc, cc
    return off


def _plant(
    model: nn.Module, arrived: Arrived, running: list[_Call] | None = None
) -> Iterator[RemovableHandle]:
    """Hook every node that reads a parameter, found from the outputs of each module call.

    Args:
        model: The model.
        arrived: Called with each use that brings something, and what it brings.
        running: The calls under way, the innermost of which is over when its module returns.
    """

    def plant(_module: nn.Module, _inputs: object, output: object) -> None:
        call = running.pop() if running else _NO_CALL
        outputs = output if isinstance(output, tuple) else (output,)
        stack = [t.grad_fn for t in outputs if isinstance(t, Tensor) and t.grad_fn is not None]
        while stack:
            node: Node = stack.pop()
            if _SEEN in node.metadata:
                continue
            node.metadata[_SEEN] = True
            edges = []
            for slot, (child, _) in enumerate(node.next_functions):
                if type(child).__name__ == "AccumulateGrad":
                    edges.append(_Edge(id(child.variable), slot, node.name(), call))
                elif child is not None:
                    stack.append(child)
            if edges:
                node.register_hook(partial(_told, arrived, edges))

    for module in model.modules():
        yield module.register_forward_hook(plant, always_call=True)


def _told(arrived: Arrived, edges: list[_Edge], gradients: tuple[Tensor | None, ...], _: object) -> None:
    for edge in edges:
        gradient = gradients[edge.slot]
        if gradient is not None:
            arrived(edge, gradient)


def _is_mapping(branches: object) -> TypeGuard[Mapping[str, nn.Module]]:
    return isinstance(branches, Mapping)

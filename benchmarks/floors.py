"""Floors: the least that does what gradflow does, by the same means, with nothing recorded.

Where a floor misses a target, no recorder that uses hooks can meet it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import Node

import gradflow
from benchmarks.nets import Job
from benchmarks.timing import Work, then
from gradflow.capture import kernels

__all__ = ["bare", "least", "least_split"]

_SEEN = "bench"
_TAKE = 0.1  # of a new gradient, in Adam's momentum
_PATHS = 3  # of the net that it is measured on
_EPS = 1e-8  # in Adam's denominator

Arrived = Callable[[int, Tensor], object]


def bare(job: Job, step: Work | None = None) -> Work:
    """Give a step whose nodes have hooks that keep references until the step is over, and do nothing else."""
    kept: list[Tensor] = []
    _plant(job.model, lambda _param, gradient: kept.append(gradient))
    return then(step or job.step, kept.clear)


def least(job: Job) -> Work:
    """Give a step in which each contribution is read once, with what the leaf receives, and let go of.

    Hooks on the modules do nothing, but stand where a call would get its name.
    """
    arrived: defaultdict[int, list[Tensor]] = defaultdict(list)
    is_one_path = job.branches is None
    _plant(job.model, lambda param, gradient: arrived[param].append(gradient))

    def read(param: int, total: Tensor) -> None:
        rows = arrived.pop(param)
        if kernels.are_readable((total, *rows)):
            kernels.survey(rows, total, [0] * len(rows) if is_one_path else None)

    for param in job.model.parameters():
        param.register_hook(partial(read, id(param)))
        param.register_post_accumulate_grad_hook(_nothing)
    for module in job.model.modules():
        module.register_forward_pre_hook(_nothing, with_kwargs=True)
    return job.step


def least_split(job: Job) -> tuple[Work, list[gradflow.Recorder]]:
    """Give a watched step of Adam beside which the parts of a delta are read once; and the recorder.

    Before the step the parameters are copied. After it one compiled pass over each advances the momentum of
    three paths, divides it by Adam's denominator, and takes the inner products of what comes out and how far
    its sum is from the delta. Every path gets the whole gradient: no contribution is kept for it.
    """
    flow = gradflow.watch(job.model, branches=job.branches, last=1)
    params = list(job.model.parameters())
    momenta = [torch.zeros(_PATHS, param.numel()) for param in params]
    seconds = [torch.zeros(param.numel()) for param in params]
    before: list[Tensor] = []

    def copy(*_: object) -> None:
        before.extend(param.detach().clone() for param in params)

    def advance(*_: object) -> None:
        for param, own, second, theta in zip(params, momenta, seconds, before, strict=True):
            if param.grad is not None:
                flat = [t.detach().view(-1).numpy() for t in (param.grad, second, theta, param)]
                _read_parts(own.numpy(), *flat, np.zeros((_PATHS, _PATHS)))
        before.clear()

    job.optimizer.register_step_pre_hook(copy)
    job.optimizer.register_step_post_hook(advance)
    return then(job.step, flow.step), [flow]


@numba.njit(fastmath=True, error_model="numpy", nogil=True)
def _read_parts(
    momenta: NDArray, gradient: NDArray, second: NDArray, theta: NDArray, moved: NDArray, matrix: NDArray
) -> float:
    """Advance three momenta, and read what they make of a step against the delta."""
    take, eps = np.float32(_TAKE), np.float32(_EPS)
    first, other, last = momenta[0], momenta[1], momenta[2]
    aa = ab = ac = bb = bc = cc = 0.0
    off = 0.0
    for i in range(gradient.size):
        first[i] += take * (gradient[i] - first[i])
        other[i] += take * (gradient[i] - other[i])
        last[i] += take * (gradient[i] - last[i])
        factor = np.float32(1) / (np.sqrt(second[i]) + eps)
        x, y, z = first[i] * factor, other[i] * factor, last[i] * factor
        off += np.float64(moved[i] - theta[i] - x - y - z) ** 2
        a, b, c = np.float64(x), np.float64(y), np.float64(z)
        aa, ab, ac, bb, bc, cc = aa + a * a, ab + a * b, ac + a * c, bb + b * b, bc + b * c, cc + c * c
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = aa, ab, ac
    matrix[1, 1], matrix[1, 2], matrix[2, 2] = bb, bc, cc
    return off


def _plant(model: nn.Module, arrived: Arrived) -> None:
    """Hook every node that reads a parameter, found from the outputs of each module call."""

    def plant(_module: nn.Module, _inputs: object, output: object) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        stack = [t.grad_fn for t in outputs if isinstance(t, Tensor) and t.grad_fn is not None]
        while stack:
            node: Node = stack.pop()
            if _SEEN in node.metadata:
                continue
            node.metadata[_SEEN] = True
            uses = []
            for slot, (child, _) in enumerate(node.next_functions):
                if type(child).__name__ == "AccumulateGrad":
                    uses.append((slot, id(child.variable)))
                elif child is not None:
                    stack.append(child)
            if uses:
                node.register_hook(partial(_told, arrived, uses))

    for module in model.modules():
        module.register_forward_hook(plant, always_call=True)


def _told(
    arrived: Arrived, uses: list[tuple[int, int]], gradients: tuple[Tensor | None, ...], _: object
) -> None:
    for slot, param in uses:
        gradient = gradients[slot]
        if gradient is not None:
            arrived(param, gradient)


def _nothing(*_: object) -> None:
    """What a hook does that only stands there."""

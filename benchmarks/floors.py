"""Floors: the least that does what gradflow does, by the same means, with nothing recorded.

Where a floor misses a target, no recorder that uses hooks can meet it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

import gradflow
from benchmarks.nets import Job
from benchmarks.timing import Work, then
from gradflow.capture import kernels

__all__ = ["bare", "least", "least_split"]

_SEEN = "bench"
_TAKE = 0.1  # of a new gradient, in Adam's momentum

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
    """Give a watched step of Adam beside which only the memory of a split is written; and the recorder."""
    flow = gradflow.watch(job.model, branches=job.branches, last=1)
    params = list(job.model.parameters())
    paths = range(len(job.branches or ("model",)))
    momenta = [[torch.zeros_like(param) for _ in paths] for param in params]
    before: list[Tensor] = []

    def copy(*_: object) -> None:
        before.extend(param.detach().clone() for param in params)

    def advance(*_: object) -> None:
        for param, own in zip(params, momenta, strict=True):
            for momentum in own:
                if param.grad is not None:
                    momentum.lerp_(param.grad, _TAKE)
        before.clear()

    job.optimizer.register_step_pre_hook(copy)
    job.optimizer.register_step_post_hook(advance)
    return then(job.step, flow.step), [flow]


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

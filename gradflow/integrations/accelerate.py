"""Accelerate: watch what ``accelerator.prepare`` gave back.

    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    with gradflow.integrations.accelerate.watch(accelerator, model, optimizer, branches=("a", "b")) as flow:
        ...                                # the loop, with accelerator.accumulate and accelerator.backward

What was prepared is a wrapper: the hooks belong on the module and the optimizer inside. Steps that accelerate
holds back while it accumulates are micro-batches of one step; its mixed precision and clipping are seen as
they are. Every process records its own gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from gradflow.errors import InvalidArgumentError, need
from gradflow.integrations.plan import Branches, Plan

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gradflow.capture.recorder import Recorder

__all__ = ["bare", "watch"]


def watch(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    branches: Branches = None,
    **options: Any,  # as gradflow.watch takes them
) -> Recorder:
    """Watch a prepared model and its prepared optimizer.

    Args:
        accelerator: What prepared them.
        model: The prepared model.
        optimizer: The prepared optimizer, or several.
        branches: As for :func:`gradflow.watch`; modules may be named by their paths.
        options: Further options of :func:`gradflow.watch`. With several processes, each adds its rank to the
            name of the file in ``to``.

    Returns:
        A recorder; usable as a context manager. ``close()`` undoes everything.

    Raises:
        MissingPackageError: accelerate is not installed.
        InvalidArgumentError: the first argument is no accelerator, or an option none of ``gradflow.watch``.
    """
    where = "gradflow.integrations.accelerate.watch"
    if not isinstance(accelerator, need("accelerate", extra="transformers", for_=where).Accelerator):
        raise InvalidArgumentError(
            f"{accelerator!r:.80} is no accelerate.Accelerator",
            where=where,
            do="watch(accelerator, model, optimizer), with what accelerator.prepare gave back",
        )
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    plan = Plan(where, "", branches, options)
    plan.begin(
        accelerator.unwrap_model(model, keep_fp32_wrapper=True),
        [bare(one) for one in optimizers],
        (accelerator.process_index, accelerator.num_processes),
    )
    assert plan.flow is not None, "begin() leaves a recorder"
    return plan.flow


def bare(optimizer: Optimizer) -> Optimizer:
    """Give the optimizer inside what ``accelerator.prepare`` gave back; any other optimizer as it is."""
    while type(optimizer).__module__.startswith("accelerate."):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]  # AcceleratedOptimizer's attribute
    return optimizer

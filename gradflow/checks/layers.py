"""Layers that change what a path's gradient means: batch-norms, biases before them, fused, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradflow.checks.subject import Subject
from gradflow.findings.words import some
from gradflow.record import Finding

__all__ = ["findings", "modes"]

_HAS_BIAS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPARENT = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Identity)  # the maximum moves with the bias


def findings(subject: Subject) -> Iterator[Finding]:
    """Tell of layers that one should know of before reading a path's gradient."""
    yield from modes(subject)
    yield from _moving_norms(subject)
    yield from _useless_biases(subject)
    yield from _fused(subject)
    yield from _compiled(subject)


def modes(subject: Subject) -> Iterator[Finding]:
    """Tell of a model, or of batch-norms in it, in eval mode."""
    yield from _evaluating(subject)
    yield from _frozen_norms(subject)


def _norms(subject: Subject) -> Iterator[tuple[str, _BatchNorm]]:
    """Batch-norms that keep running statistics, with their paths."""
    for path, module in subject.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            yield path, module


def _evaluating(subject: Subject) -> Iterator[Finding]:
    if not any(module.training for _, module in subject.modules()):
        yield Finding(
            "note",
            "evaluating",
            "The whole model is in eval mode: no dropout, and batch-norms use their stored statistics.",
            "model.train() before training.",
        )


def _frozen_norms(subject: Subject) -> Iterator[Finding]:
    """Batch-norms in eval mode inside a model that trains."""
    if not any(root.training for root in subject.roots.values()):
        return
    still = [(path, m) for path, m in _norms(subject) if not m.training]
    if still:
        unseen = [
            path for path, m in still if m.num_batches_tracked is not None and not m.num_batches_tracked
        ]
        names, whole = some([path for path, _ in still]), sum(1 for _ in _norms(subject))
        yield Finding(
            "warning" if unseen else "note",
            "frozen-norm",
            f"{len(still)} of {whole} batch-norms are in eval mode while the model trains: {names}."
            + (f" {len(unseen)} of them have seen no batch: mean 0, variance 1." if unseen else ""),
            "They use stored statistics instead of the batch's. Where that is not meant: model.train().",
        )


def _moving_norms(subject: Subject) -> Iterator[Finding]:
    """Batch-norms whose weights are frozen while their statistics still follow the data."""
    found = [path for path, m in _norms(subject) if m.training and m.affine and not _trains(m)]
    if found:
        yield Finding(
            "note",
            "moving-norm",
            f"{len(found)} batch-norms have frozen weights, and statistics that still follow the data: "
            f"{some(found)}.",
            "requires_grad_(False) does not hold them: put them into eval mode too, after model.train().",
        )


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters(recurse=False))


def _useless_biases(subject: Subject) -> Iterator[Finding]:
    """Biases of layers before a batch-norm of as many channels, by the order in which they are kept."""
    found = [
        f"{path}.{name}.bias".lstrip(".")
        for path, module in subject.modules()
        for (name, layer), (_, norm) in pairwise(_in_order(module))
        if isinstance(layer, _HAS_BIAS) and layer.bias is not None and layer.bias.requires_grad
        if isinstance(norm, _BatchNorm) and norm.num_features == len(layer.bias)
        if norm.training or norm.running_mean is None
    ]
    if found:
        yield Finding(
            "note",
            "bias-before-norm",
            f"{len(found)} biases stand before a batch-norm, which takes the mean away again: {some(found)}. "
            "Their true gradient is 0, and what arrives is rounding.",
            "bias=False saves them; their angles and conflicts mean nothing.",
        )


def _in_order(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children in order, without those through which a bias passes unchanged."""
    return ((name, child) for name, child in module.named_children() if not isinstance(child, _TRANSPARENT))


def _fused(subject: Subject) -> Iterator[Finding]:
    found = [
        f"{path or 'the model'} ({type(module).__name__})"
        for path, module in subject.modules()
        if isinstance(module, nn.RNNBase) and _runs_fused(module)
    ]
    if found:
        yield Finding(
            "note",
            "fused",
            f"{some(found)}: may run as one fused kernel over all time steps; calls are told apart, the "
            "time steps are not.",
            "Run it unfused (with torch.backends.mkldnn.flags(enabled=False):) or by cells (nn.LSTMCell).",
        )


def _runs_fused(module: nn.RNNBase) -> bool:
    """As seen: on the CPU only an LSTM without projection has a fused kernel; on an accelerator all have."""
    if any(p.device.type != "cpu" for p in module.parameters()):
        return True
    has_kernel = bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
    return isinstance(module, nn.LSTM) and not module.proj_size and has_kernel


def _compiled(subject: Subject) -> Iterator[Finding]:
    found = [path or "the model" for path, m in subject.modules() if _is_compiled(m)]
    if found:
        yield Finding(
            "note",
            "compiled",
            f"{some(found)}: compiled. Each call is told apart, what happens inside one is not.",
            "Watch what torch.compile returned, and compile the model, not the whole training step.",
        )


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None

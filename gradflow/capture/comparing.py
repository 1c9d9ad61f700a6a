"""Comparing gradients: to the last bit, or by what tells them apart without reading them."""

from __future__ import annotations

import torch
from torch import Tensor

from gradflow.capture import kernels
from gradflow.updates.working import held, is_sharded

__all__ = ["dense_values", "difference", "fold", "is_zero", "probe", "spacing", "stamp", "sums_to"]

_PROBED = 256  # elements of a probe, or up to twice as many where all are few


def probe(tensor: Tensor) -> Tensor:
    """Copy a few elements, spread over the tensor: the same ones however it lies in memory."""
    values = tensor.coalesce().values() if tensor.is_sparse else tensor.detach()
    size = values.numel()
    step = spacing(size)
    if values.is_contiguous():
        return values.as_strided((-(-size // step),), (step,)).clone()
    flat = torch.arange(0, size, step, device=values.device)
    return values[torch.unravel_index(flat, values.shape)]


def spacing(size: int) -> int:
    """Tell how far apart the elements of a probe are: an odd number, so that columns take turns."""
    return max(1, size // _PROBED) | 1


def stamp(tensor: Tensor) -> tuple[int, int]:
    """Identify the contents of a dense tensor without reading them: its storage and its version."""
    if type(tensor) is Tensor and not tensor.is_sparse:
        return tensor.data_ptr(), tensor._version
    if tensor.is_sparse:
        return id(tensor), tensor._version
    if is_sharded(tensor):  # what changes a shard is counted by itself, or by what holds it
        shard = held(tensor)
        return shard.data_ptr(), shard._version + tensor._version
    return tensor.data_ptr(), tensor._version


def fold(gradients: list[Tensor]) -> Tensor | None:
    """Sum in the given order, as the engine does; a single one is given back itself."""
    if not gradients:
        return None
    total = gradients[0]
    for i, gradient in enumerate(gradients[1:]):
        if i == 0 or total.is_sparse or total.dtype != gradient.dtype:
            total = total + gradient
        else:
            total += gradient
    return total


def sums_to(gradients: list[Tensor], total: Tensor) -> bool:
    """Tell whether gradients, added in the given order, are a total to the last bit.

    On a device that cannot be asked only a single one can be, which is the total itself.
    """
    if not gradients:
        return False
    first = gradients[0]
    if len(gradients) == 1 and (first is total or stamp(first)[0] == stamp(total)[0]):
        return True
    if total.device.type != "cpu" or any(g.is_sparse for g in (total, *gradients)):
        return False
    if kernels.are_readable((total, *gradients)):
        return kernels.is_sum(gradients, total)
    folded = fold(gradients)
    return folded is not None and _equal(folded, total)


def _equal(here: Tensor, there: Tensor) -> bool:
    """Tell whether two tensors are equal, and have their NaNs in the same places."""
    if torch.equal(here, there):
        return True
    nans = here.isnan(), there.isnan()
    return torch.equal(*nans) and torch.equal(here[~nans[0]], there[~nans[1]])


def difference(folded: Tensor | None, total: Tensor) -> tuple[Tensor, Tensor]:
    """Give (max |folded − total| / max |total|, total − folded)."""
    total = total.detach()
    remainder = total.clone() if folded is None else total - folded
    magnitudes = [dense_values(t).abs().amax().double() for t in (remainder, total)]
    residual = torch.where(magnitudes[0] == 0, 0.0, magnitudes[0] / magnitudes[1])
    return residual.reshape(1), remainder


def dense_values(tensor: Tensor) -> Tensor:
    """Give the values that a tensor holds: those of a sparse one, and a zero of an empty one."""
    values = tensor.coalesce().values() if tensor.is_sparse else tensor
    return values if values.numel() else values.new_zeros(1)


def is_zero(grad: Tensor) -> bool:
    """Tell whether a gradient was zeroed in place; asks only the host's own memory."""
    if grad.device.type != "cpu":
        return False
    return not bool(dense_values(grad).any())

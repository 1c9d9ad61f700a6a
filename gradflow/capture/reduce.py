"""Reductions that stay on the device: inner products in float64, and one transfer for all of a step.

What lies on the host is read where it lies (:mod:`gradflow.capture.kernels`); anything else is widened to
float64 block by block.

Shapes: ``C`` rows, each a tensor of the parameter's shape; ``n`` is its number of elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture import kernels

__all__ = ["Harvest", "Slot", "gram", "norm", "norms"]

_CHUNK = 1 << 16  # elements a row that are widened to float64 at a time


def gram(rows: Sequence[Tensor]) -> Tensor:
    """Give the inner products of the rows, as a ``[C * C]`` float64 tensor on their device.

    Real parts for complex rows; half precision is widened before anything is multiplied.
    """
    if not rows:
        return torch.zeros(0, dtype=torch.float64)
    if kernels.are_readable(rows):
        return torch.from_numpy(kernels.gram(rows).reshape(-1))
    flat = [_flat(row) for row in _alike(rows)]
    count, device = len(flat), flat[0].device
    whole = torch.zeros(count, count, dtype=torch.float64, device=device)
    for start in range(0, flat[0].numel(), _CHUNK):
        block = torch.stack([row[start : start + _CHUNK].double() for row in flat])
        whole.addmm_(block, block.T)
    return whole.reshape(-1)


def norm(tensor: Tensor) -> Tensor:
    """Give the 2-norm, as a ``[1]`` float64 tensor on the device."""
    return gram([tensor.coalesce().values() if tensor.is_sparse else tensor]).sqrt_()


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Give the 2-norm of each of several tensors of one shape, as ``[1]`` float64 tensors on their device."""
    if len(tensors) < 2 or not kernels.are_readable(tensors):
        return [norm(tensor) for tensor in tensors]
    return list(torch.from_numpy(np.sqrt(kernels.squares(tensors))).split(1))


def _alike(rows: Sequence[Tensor]) -> Sequence[Tensor]:
    """Bring sparse rows to the indices that any of them has; dense ones stay as they are."""
    if not any(row.is_sparse for row in rows):
        return rows
    if not all(row.is_sparse for row in rows):
        return [row.to_dense() if row.is_sparse else row for row in rows]
    parts = [row.coalesce() for row in rows]
    indices, where = torch.unique(torch.cat([p.indices() for p in parts], dim=1), dim=1, return_inverse=True)
    alike, start = [], 0
    for part in parts:
        count = part.indices().shape[1]
        values = part.values().new_zeros((indices.shape[1], *part.values().shape[1:]))
        values[where[start : start + count]] = part.values()
        alike.append(values)
        start += count
    return alike


def _flat(tensor: Tensor) -> Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)


class Slot:
    """A place for numbers that are still on a device."""

    __slots__ = ("_shape", "_tensor", "_values")

    def __init__(self, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
        self._tensor = tensor
        self._shape = shape
        self._values: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Slot:
        """Give a slot for numbers that are on the host already."""
        slot = cls(None, values.shape)
        slot.fill(values)
        return slot

    @property
    def array(self) -> NDArray[np.float64]:
        """The numbers, once the harvest was fetched."""
        assert self._values is not None, "read before Harvest.fetch()"
        return self._values.reshape(self._shape)

    @property
    def number(self) -> float:
        """The single number, once the harvest was fetched."""
        assert self._values is not None, "read before Harvest.fetch()"
        return float(self._values.item())

    def fill(self, values: NDArray[np.float64]) -> None:
        """Put in the numbers."""
        self._values, self._tensor = values, None


class Harvest:
    """Collects reductions and small tensors, and brings them to the host in one transfer per device."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []

    def add(self, tensor: Tensor, shape: tuple[int, ...] = (1,)) -> Slot:
        """Reserve a slot for the numbers of ``tensor``."""
        slot = Slot(tensor.detach().reshape(-1), shape)
        self._slots.append(slot)
        return slot

    def gram(self, rows: Sequence[Tensor]) -> Slot:
        """Reserve a slot for the inner products of some rows, ``[C, C]``."""
        if rows and kernels.are_readable(rows):
            return Slot.of(kernels.gram(rows))
        return self.add(gram(rows), (len(rows), len(rows)))

    def norm(self, tensor: Tensor) -> Slot:
        """Reserve a slot for the 2-norm of a tensor."""
        if kernels.are_readable((tensor,)):
            return Slot.of(np.sqrt(kernels.squares((tensor,))))
        return self.add(norm(tensor))

    def fetch(self) -> None:
        """Bring everything collected to the host and fill the slots."""
        by_device: dict[torch.device, list[Slot]] = {}
        for slot in self._slots:
            assert slot._tensor is not None
            by_device.setdefault(slot._tensor.device, []).append(slot)
        for slots in by_device.values():
            tensors = [slot._tensor for slot in slots if slot._tensor is not None]
            values = torch.cat([t if t.dtype == torch.float64 else t.double() for t in tensors]).cpu().numpy()
            start = 0
            for slot, tensor in zip(slots, tensors, strict=True):
                stop = start + tensor.numel()
                slot.fill(values[start:stop])
                start = stop
        self._slots.clear()

"""Reductions that stay on the device: inner products in float64, and one transfer for all of a step.

Shapes: ``C`` rows, each a tensor of the parameter's shape; ``n`` is its number of elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Harvest", "Slot", "gram", "norm"]

_CHUNK = 1 << 17  # elements a row that are widened to float64 at a time: they stay in the cache


def gram(rows: Sequence[Tensor]) -> Tensor:
    """Give the inner products of the rows, as a ``[C * C]`` float64 tensor on their device.

    Real parts for complex rows; half precision is widened before anything is multiplied.
    """
    if not rows:
        return torch.zeros(0, dtype=torch.float64)
    flat = [_flat(row) for row in _alike(rows)]
    size = flat[0].numel()
    whole = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=flat[0].device)
    for start in range(0, size, _CHUNK):
        block = torch.stack([row[start : start + _CHUNK] for row in flat]).double()
        whole += block @ block.T
    return whole.reshape(-1)


def norm(tensor: Tensor) -> Tensor:
    """Give the 2-norm, as a ``[1]`` float64 tensor on the device."""
    flat = _flat(tensor.coalesce().values() if tensor.is_sparse else tensor)
    if flat.numel() == 0:
        return torch.zeros(1, dtype=torch.float64, device=flat.device)
    found: Tensor = torch.linalg.vector_norm(flat, dtype=torch.float64)
    return found.reshape(1)


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

    def __init__(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        self._tensor: Tensor | None = tensor
        self._shape = shape
        self._values: NDArray[np.float64] | None = None

    @property
    def array(self) -> NDArray[np.float64]:
        """The numbers, once the harvest was fetched."""
        assert self._values is not None, "read before Harvest.fetch()"
        return self._values.reshape(self._shape)

    @property
    def number(self) -> float:
        """The single number, once the harvest was fetched."""
        return float(self.array.reshape(-1)[0])


class Harvest:
    """Collects small tensors and brings them to the host in one transfer per device."""

    def __init__(self) -> None:
        self._slots: list[Slot] = []

    def add(self, tensor: Tensor, shape: tuple[int, ...] = (1,)) -> Slot:
        """Reserve a slot for the numbers of ``tensor``."""
        slot = Slot(tensor.detach().reshape(-1), shape)
        self._slots.append(slot)
        return slot

    def fetch(self) -> None:
        """Bring everything collected to the host and fill the slots."""
        by_device: dict[torch.device, list[Slot]] = {}
        for slot in self._slots:
            assert slot._tensor is not None
            by_device.setdefault(slot._tensor.device, []).append(slot)
        for slots in by_device.values():
            tensors = [slot._tensor for slot in slots if slot._tensor is not None]
            values = torch.cat([t.double() for t in tensors]).cpu().numpy()
            ends = np.cumsum([t.numel() for t in tensors])
            for slot, part in zip(slots, np.split(values, ends[:-1]), strict=True):
                slot._values, slot._tensor = part, None
        self._slots.clear()

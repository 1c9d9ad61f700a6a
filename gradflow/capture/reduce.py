"""Reductions that stay on the device: inner products in float64, and one transfer for all of a step.

Reading a gradient costs more than multiplying it. So what lies on the host is widened to float64 block by
block, in one buffer that stays in the cache, and small parameters are reduced together.

Shapes: ``C`` rows, each a tensor of the parameter's shape; ``n`` is its number of elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

__all__ = ["Harvest", "Slot", "gram", "norm", "norms"]

_CHUNK = 1 << 16  # elements a row that are widened to float64 at a time: they stay in the cache
_SMALL = 1 << 12  # elements; smaller rows are reduced together
_FEW = 6  # rows; for more of them one matrix product is faster than a dot product for each pair
_HOST = (torch.float32, torch.float64)


def gram(rows: Sequence[Tensor], buffer: Tensor | None = None) -> Tensor:
    """Give the inner products of the rows, as a ``[C * C]`` float64 tensor on their device.

    Real parts for complex rows; half precision is widened before anything is multiplied.

    Args:
        rows: The rows.
        buffer: A float64 tensor to widen in; too small a one, or one on another device, is not used.
    """
    if not rows:
        return torch.zeros(0, dtype=torch.float64)
    flat = [_flat(row) for row in _alike(rows)]
    count, width, device = len(flat), min(flat[0].numel(), _CHUNK), flat[0].device
    if buffer is None or buffer.device != device or buffer.numel() < count * width:
        buffer = torch.empty(count * width, dtype=torch.float64, device=device)
    wide = buffer[: count * width].view(count, width)
    if count <= _FEW and device.type == "cpu":
        return _by_pairs(flat, wide)
    whole = torch.zeros(count, count, dtype=torch.float64, device=device)
    for block in _blocks(flat, wide):
        whole.addmm_(block, block.T)
    return whole.reshape(-1)


def norm(tensor: Tensor) -> Tensor:
    """Give the 2-norm, as a ``[1]`` float64 tensor on the device."""
    if _is_small(tensor):
        wide = tensor.detach().numpy().ravel().astype(np.float64)
        return torch.tensor([math.sqrt(wide.dot(wide))], dtype=torch.float64)
    return gram([tensor.coalesce().values() if tensor.is_sparse else tensor]).sqrt_()


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Give the 2-norm of each of several tensors of one shape, as ``[1]`` float64 tensors on their device."""
    if len(tensors) < 2 or not all(_is_on_host(tensor) for tensor in tensors):
        return [norm(tensor) for tensor in tensors]
    size = tensors[0].numel()
    if size <= _SMALL:
        wide = np.empty((len(tensors), size))
        np.concatenate([t.detach().numpy().ravel() for t in tensors], out=wide.reshape(-1))
        squares = torch.from_numpy(np.einsum("ij,ij->i", wide, wide))
    else:
        buffer = torch.empty(min(size, _CHUNK), dtype=torch.float64)
        squares = torch.cat([gram([tensor], buffer) for tensor in tensors])
    return list(squares.sqrt_().split(1))


def _blocks(flat: Sequence[Tensor], wide: Tensor) -> Iterator[Tensor]:
    """Widen the rows, so many elements at a time; each block overwrites the one before."""
    size = flat[0].numel()
    for start in range(0, size, _CHUNK):
        block = wide[:, : size - start]
        for target, row in zip(block.unbind(), flat, strict=True):
            target.copy_(row[start : start + _CHUNK])
        yield block


def _by_pairs(flat: Sequence[Tensor], wide: Tensor) -> Tensor:
    """Give the inner products of few rows as dot products, each pair once."""
    count, blocks = len(flat), -(-flat[0].numel() // _CHUNK)
    found = torch.empty(blocks, count * (count + 1) // 2, dtype=torch.float64)
    spots = iter(found.view(-1).unbind())
    for block in _blocks(flat, wide):
        rows = block.unbind()
        for i, row in enumerate(rows):
            for other in rows[: i + 1]:
                torch.dot(row, other, out=next(spots))
    sums = found.sum(0) if blocks != 1 else found[0]
    if count == 1:
        return sums
    return sums[torch.tensor([_pair(i, j) for i in range(count) for j in range(count)])]


def _pair(i: int, j: int) -> int:
    """Give the position of a pair among those of the lower triangle, row by row."""
    return i * (i + 1) // 2 + j if i >= j else j * (j + 1) // 2 + i


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
        self._small: dict[int, list[tuple[Slot, list[NDArray], bool]]] = {}
        self._buffer: Tensor | None = None

    def add(self, tensor: Tensor, shape: tuple[int, ...] = (1,)) -> Slot:
        """Reserve a slot for the numbers of ``tensor``."""
        slot = Slot(tensor.detach().reshape(-1), shape)
        self._slots.append(slot)
        return slot

    def gram(self, rows: Sequence[Tensor]) -> Slot:
        """Reserve a slot for the inner products of some rows, ``[C, C]``."""
        size = len(rows)
        return self._later(rows, is_norm=False) or self.add(gram(rows, self._room(rows)), (size, size))

    def norm(self, tensor: Tensor) -> Slot:
        """Reserve a slot for the 2-norm of a tensor."""
        slot = self._later((tensor,), is_norm=True)
        if slot is not None:
            return slot
        rows = [tensor.coalesce().values() if tensor.is_sparse else tensor]
        return self.add(gram(rows, self._room(rows)).sqrt_())

    def reduce(self) -> None:
        """Reduce now what was to be reduced together, before the tensors change; waits for no device."""
        for jobs in self._small.values():
            _reduce_together(jobs)
        self._small.clear()

    def fetch(self) -> None:
        """Bring everything collected to the host and fill the slots."""
        self.reduce()
        self._buffer = None
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

    def _room(self, rows: Sequence[Tensor]) -> Tensor | None:
        """Give the buffer that large rows on the host are widened in, one after the other."""
        if not rows or rows[0].device.type != "cpu":
            return None
        size = len(rows) * min(2 * rows[0].numel(), _CHUNK)  # a complex element takes two places
        if self._buffer is None or self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=torch.float64)
        return self._buffer

    def _later(self, rows: Sequence[Tensor], *, is_norm: bool) -> Slot | None:
        """Reserve a slot for small rows on the host, to be reduced together with others."""
        if not rows or not all(_is_small(row) for row in rows):
            return None
        slot = Slot(None, (1,) if is_norm else (len(rows), len(rows)))
        flat = [row.detach().numpy().reshape(-1) for row in rows]
        self._small.setdefault(len(rows), []).append((slot, flat, is_norm))
        return slot


def _is_small(row: Tensor) -> bool:
    return 0 < row.numel() <= _SMALL and _is_on_host(row)


def _is_on_host(row: Tensor) -> bool:
    """Tell whether numpy can read a tensor where it lies."""
    return (
        row.device.type == "cpu"
        and type(row) in (Tensor, Parameter)  # no subclass
        and row.layout == torch.strided
        and not row.is_neg()
        and row.dtype in _HOST
    )


def _reduce_together(jobs: list[tuple[Slot, list[NDArray], bool]]) -> None:
    """Reduce many small parameters of as many rows each, in batches that stay in the cache."""
    start, size = 0, 0
    for stop, (_, rows, _) in enumerate(jobs):
        if size + rows[0].size > _CHUNK:
            _reduce_batch(jobs[start:stop])
            start, size = stop, 0
        size += rows[0].size
    _reduce_batch(jobs[start:])


def _reduce_batch(jobs: list[tuple[Slot, list[NDArray], bool]]) -> None:
    sizes = [rows[0].size for _, rows, _ in jobs]
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    count = len(jobs[0][1])
    flat = np.empty((count, sum(sizes)))
    for i, wide in enumerate(flat):
        np.concatenate([rows[i] for _, rows, _ in jobs], out=wide)
    grams = np.empty((len(jobs), count, count))
    for i in range(count):
        for j in range(i + 1):
            grams[:, i, j] = grams[:, j, i] = np.add.reduceat(flat[i] * flat[j], starts)
    for (slot, _, is_norm), matrix in zip(jobs, grams, strict=True):
        slot.fill(np.sqrt(matrix) if is_norm else matrix)

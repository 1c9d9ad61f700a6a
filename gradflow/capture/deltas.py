"""What the optimizer made of one parameter, while its numbers are still on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture.reduce import Harvest
from gradflow.record import RESERVED, Delta
from gradflow.updates.splitter import Split
from gradflow.updates.working import held, is_sharded

__all__ = ["DeltaDraft", "copied", "in_order"]


class DeltaDraft:
    """One parameter's delta and its parts, reduced on the device.

    Args:
        param: The parameter, moved.
        theta: Its value before.
        splits: The parts of the delta; one for each optimizer that moved it.
        harvest: Collects the numbers.
        keep: Whether the parts are kept in full; else they are let go of as soon as they are reduced.
    """

    def __init__(
        self, param: Tensor, theta: Tensor, splits: Sequence[Split], harvest: Harvest, *, keep: bool
    ) -> None:
        moved = held(param.detach()) - theta
        self._notes = [split.note for split in splits if split.note]
        if is_sharded(param):
            self._notes.append(f"of this rank's shard, {moved.numel()} of {param.numel()} elements")
        self._rules = [split.rule for split in splits if split.rule]
        parts = _add_up(splits, moved)
        self._names = tuple(parts)
        self._gram = harvest.gram(list(parts.values()))
        self._norm = harvest.norm(moved)
        self._theta = harvest.norm(theta)
        self._residual = harvest.add(_excess(list(parts.values()), moved, theta))
        self._kept = (parts, moved) if keep else None

    def record(self, branches: Sequence[str]) -> Delta:
        """Give the record, once the harvest was fetched."""
        order = in_order(self._names, branches)
        matrix = self._gram.array
        if order != self._names:
            rows = [self._names.index(name) for name in order]
            matrix = matrix[np.ix_(rows, rows)]
        kept = self._kept
        return Delta(
            contributors=order,
            gram=matrix,
            norm=self._norm.number,
            parameter_norm=self._theta.number,
            residual=self._residual.number,
            rule=" and ".join(dict.fromkeys(self._rules)),
            note="; ".join(dict.fromkeys(self._notes)),
            parts=None if kept is None else {name: copied(kept[0][name]) for name in order},
            tensor=None if kept is None else copied(kept[1]),
        )


def _add_up(splits: Sequence[Split], moved: Tensor) -> dict[str, Tensor]:
    """Add the parts that several optimizers made; a delta that cannot be split is shown whole."""
    if not splits or any(not split.parts for split in splits):
        return {"unattributed": moved}
    parts = dict(splits[0].parts)
    for split in splits[1:]:
        for name, part in split.parts.items():
            parts[name] = parts[name] + part if name in parts else part
    return parts


def _excess(parts: Sequence[Tensor], moved: Tensor, theta: Tensor) -> Tensor:
    """Give how far the parts are from the delta beyond the rounding of θ, relative to the largest effort."""
    if moved.numel() == 0:
        return moved.new_zeros(1, dtype=torch.float64)
    off = moved.to(parts[0].dtype, copy=True) if parts else moved.clone()
    for part in parts:
        off -= part
    slack = theta.abs().mul_(2 * torch.finfo(moved.dtype).eps)
    off = off.abs_() if not off.is_complex() else off.abs()
    beyond = off.sub_(slack).amax().clamp_min_(0).double()
    if beyond.device.type == "cpu" and not bool(beyond):
        return torch.zeros(1, dtype=torch.float64)
    effort = torch.zeros_like(slack)
    for part in parts:
        effort += part.abs()
    return torch.where(beyond == 0, 0.0, beyond / effort.amax().double()).reshape(1)


def in_order(names: Iterable[str], branches: Sequence[str]) -> tuple[str, ...]:
    """Branches in the order of their lanes, then the reserved contributors."""
    known = dict.fromkeys(names)
    return tuple(dict.fromkeys(name for name in (*branches, *RESERVED, *known) if name in known))


def copied(tensor: Tensor) -> NDArray:
    """Copy a tensor to the host; half precision is widened, for numpy has no bfloat16."""
    dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    if dense.dtype in (torch.bfloat16, torch.float16):
        dense = dense.float()
    array = dense.cpu().numpy().copy()
    array.setflags(write=False)
    return array

"""What the optimizer made of one parameter, while its numbers are still on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture import kernels
from gradflow.capture.lanes import Lanes
from gradflow.capture.reduce import Harvest, Slot
from gradflow.record import Delta
from gradflow.updates.frozen import Factor, OverRoot, Scalar
from gradflow.updates.splitter import Products, Terms
from gradflow.updates.working import held, is_sharded

__all__ = ["DeltaDraft", "copied"]


class DeltaDraft:
    """One parameter's delta and its parts, reduced on the device.

    Args:
        param: The parameter, moved.
        theta: Its value before.
        terms: The parts of the delta, not multiplied out; one for each optimizer that moved it.
        harvest: Collects the numbers.
        keep: Whether the parts are kept in full; else they are let go of as soon as they are reduced.
    """

    def __init__(
        self, param: Tensor, theta: Tensor, terms: Sequence[Terms], harvest: Harvest, *, keep: bool
    ) -> None:
        self._notes = [one.note for one in terms if one.note]
        if is_sharded(param):
            self._notes.append(f"of this rank's shard, {theta.numel()} of {param.numel()} elements")
        self._rules = [one.rule for one in terms if one.rule]
        self._kept: tuple[dict[str, Tensor], Tensor] | None = None
        after = held(param.detach())
        parts = None if keep or len(terms) != 1 else _readable(terms[0].products, after, theta)
        if parts is None:
            moved = after - theta
            self._reduce(_add_up(terms, moved), moved, theta, harvest, keep=keep)
            return
        found = kernels.weigh(list(parts.values()), after, theta)
        self._names, self._gram, self._residual = tuple(parts), Slot.of(found.gram), Slot.of(found.residual)
        self._norm, self._theta = Slot.of(found.norms[:1]), Slot.of(found.norms[1:])

    def _reduce(
        self, parts: dict[str, Tensor], moved: Tensor, theta: Tensor, harvest: Harvest, *, keep: bool
    ) -> None:
        """Reduce parts that are tensors."""
        self._names = tuple(parts)
        self._gram = harvest.gram(list(parts.values()))
        self._norm = harvest.norm(moved)
        self._theta = harvest.norm(theta)
        self._residual = harvest.add(_excess(list(parts.values()), moved, theta))
        self._kept = (parts, moved) if keep else None

    def record(self, lanes: Lanes) -> Delta:
        """Give the record, once the harvest was fetched."""
        order, kept = lanes.order(self._names), self._kept
        return Delta(
            contributors=order,
            gram=lanes.ordered(self._gram.array, self._names),
            norm=self._norm.number,
            parameter_norm=self._theta.number,
            residual=self._residual.number,
            rule=" and ".join(dict.fromkeys(self._rules)),
            note="; ".join(dict.fromkeys(self._notes)),
            parts=None if kept is None else {name: copied(kept[0][name]) for name in order},
            tensor=None if kept is None else copied(kept[1]),
        )


def _add_up(terms: Sequence[Terms], moved: Tensor) -> dict[str, Tensor]:
    """Add the parts that several optimizers made; a delta that cannot be split is shown whole."""
    if not terms or any(not one.products for one in terms):
        return {"unattributed": moved}
    parts: dict[str, Tensor] = {}
    for one in terms:
        for name, part in one.split(_made).parts.items():
            parts[name] = parts[name] + part if name in parts else part
    return parts


def _readable(products: Products, after: Tensor, theta: Tensor) -> dict[str, kernels.Products] | None:
    """Give products that the compiled code can work out by itself; None where it cannot, or has none."""
    if not products or theta.is_complex() or not theta.numel():
        return None
    found: dict[str, list[tuple[kernels.Factor, Tensor]]] = {}
    tensors, roots = [after, theta], set[int]()
    for name, pairs in products.items():
        for factor, tensor in pairs:
            known = _known(factor)
            if known is None:
                return None
            if isinstance(known, kernels.OverRoot):
                roots.add(id(factor))
                tensors.append(known.second)
            elif isinstance(known, Tensor):
                tensors.append(known)
            tensors.append(tensor)
            found.setdefault(name, []).append((known, tensor))
    return dict(found) if len(roots) < 2 and kernels.are_readable(tensors) else None


def _made(factor: OverRoot) -> Tensor:
    """Let the compiled code work a number over a root out, as it does where parts are not kept."""
    known = _known(factor)
    if isinstance(known, kernels.OverRoot) and kernels.are_readable((factor.second,)):
        return kernels.make(known)
    return factor.tensor()


def _known(factor: Factor) -> kernels.Factor | None:
    """Give a factor with its numbers known, where that waits for no device; None elsewhere."""
    if isinstance(factor, OverRoot):
        numbers = [_number(one) for one in (factor.number, factor.root, factor.eps)]
        known = [number for number in numbers if number is not None]
        return kernels.OverRoot(factor.second, *known) if len(known) == len(numbers) else None
    if isinstance(factor, Tensor) and factor.dim():
        return factor
    return None if callable(factor) and not isinstance(factor, Tensor) else _number(factor)


def _number(scalar: Scalar) -> float | None:
    if isinstance(scalar, Tensor):
        return float(scalar.numpy()) if scalar.device.type == "cpu" else None
    return float(scalar)


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


def copied(tensor: Tensor) -> NDArray:
    """Copy a tensor to the host; half precision is widened, for numpy has no bfloat16."""
    dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    if dense.dtype in (torch.bfloat16, torch.float16):
        dense = dense.float()
    array = dense.cpu().numpy().copy()
    array.setflags(write=False)
    return array

"""The tensors that the split works on: dense, real, and in at least single precision."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "HALF",
    "apart",
    "as_read",
    "held",
    "is_sharded",
    "named_entries",
    "precise",
    "scalar",
    "working",
]

HALF = (torch.float16, torch.bfloat16)


def working(tensor: Tensor) -> Tensor:
    """Give a tensor dense, real (a last dimension of 2 for complex) and not in half precision.

    Of a sharded one, what this process holds.
    """
    tensor = held(tensor)
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.float() if tensor.dtype in HALF else tensor


def as_read(gradient: Tensor, *, maximize: bool, scale: Tensor | None) -> Tensor:
    """Give a gradient as the step reads it: without the loss scale, its sign turned to maximize."""
    if scale is not None:
        gradient = gradient / scale.to(gradient.device)
    return -gradient if maximize else gradient


def named_entries(sparse: Tensor) -> Tensor:
    """Tell which rows a sparse tensor names, zero or not: booleans of its shape, or broadcasting to it."""
    rows = torch.zeros(sparse.shape[: sparse.sparse_dim()], dtype=torch.bool, device=sparse.device)
    yes = torch.ones((), dtype=torch.bool, device=sparse.device)
    rows.index_put_(tuple(sparse._indices()), yes)
    return rows.reshape(*rows.shape, *[1] * sparse.dense_dim())


def apart(tensor: Tensor, gradient: Tensor) -> Tensor:
    """Give a tensor that does not change with ``param.grad``, which some steps use as scratch space.

    ``SGD(nesterov=True, foreach=True)`` does, and so does a fused step that unscales.
    """
    return tensor.clone() if _storage(tensor) == _storage(gradient) else tensor


def precise(number: Tensor) -> Tensor:
    """Give a tensor in double precision, where its device has one."""
    return number if number.device.type == "mps" else number.double()


def scalar(value: object) -> Tensor | None:
    """Give a tensor of one element without dimensions, and None for anything else."""
    return value.reshape(()) if isinstance(value, Tensor) else None


def is_sharded(tensor: Tensor) -> bool:
    """Tell a DTensor, of which this process holds a part."""
    return hasattr(tensor, "to_local")


def held(tensor: Tensor) -> Tensor:
    """Give what this process holds of a tensor: all of it, or its shard of a DTensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def _storage(tensor: Tensor) -> int:
    tensor = held(tensor)
    values = tensor._values() if tensor.is_sparse else tensor
    return values.untyped_storage().data_ptr()

"""The tensors that the split works on: dense, real, and in at least single precision."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HALF", "apart", "as_read", "restored", "scalar", "working"]

HALF = (torch.float16, torch.bfloat16)


def working(tensor: Tensor) -> Tensor:
    """Give a tensor dense, real (a last dimension of 2 for complex) and not in half precision."""
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.float() if tensor.dtype in HALF else tensor


def restored(part: Tensor, param: Tensor) -> Tensor:
    """Give a part of the delta the form of its parameter again; half precision stays float32."""
    return torch.view_as_complex(part) if param.is_complex() else part


def as_read(gradient: Tensor, *, maximize: bool, scale: Tensor | None) -> Tensor:
    """Give a gradient as the step reads it: without the loss scale, its sign turned to maximize."""
    if scale is not None:
        gradient = gradient / scale.to(gradient.device)
    return -gradient if maximize else gradient


def apart(tensor: Tensor, gradient: Tensor) -> Tensor:
    """Give a tensor that does not change with ``param.grad``, which some steps use as scratch space.

    ``SGD(nesterov=True, foreach=True)`` does, and so does a fused step that unscales.
    """
    return tensor.clone() if _storage(tensor) == _storage(gradient) else tensor


def scalar(value: object) -> Tensor | None:
    """Give a tensor of one element without dimensions, and None for anything else."""
    return value.reshape(()) if isinstance(value, Tensor) else None


def _storage(tensor: Tensor) -> int:
    values = tensor._values() if tensor.is_sparse else tensor
    return values.untyped_storage().data_ptr()

"""What the optimizer reads, against what the leaf received: the same, scaled, or edited.

Between backward and step, ``.grad`` may be clipped or unscaled (a factor, which scales every
contribution alike) or changed in any other way (the contributor ``edited``: what it holds beyond
what the leaf received). Where it is averaged over several processes, the factor and ``other ranks``
make it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture.averaged import AveragedAccount
from gradflow.capture.comparing import fold, probe, stamp
from gradflow.capture.kernels import Survey
from gradflow.capture.ledger import Account
from gradflow.capture.reduce import Harvest, Slot, norm
from gradflow.record import OTHER_RANKS

__all__ = ["Reading", "is_as_received", "read"]

_ROUNDING = 1e-5  # a rescaled float32 gradient differs from a multiple of the sum by less, seen 3e-7


@dataclass(frozen=True, slots=True)
class Reading:
    """One gradient as an optimizer is about to read it.

    Attributes:
        total_norm: Norm of what the leaf received in this step, on the device; None if it received nothing,
            or where the norm is that of ``received``.
        received: What the leaf received, where that is what the optimizer reads; None elsewhere.
        known: Norm of it, where that is known already.
        scale: What the optimizer reads as a multiple of it, on the device; None for 1.
        edited: What ``.grad`` holds beyond it; None if nothing.
        others: What the other ranks brought, to be scaled like a contribution; None without any.
    """

    total_norm: Tensor | None
    scale: Tensor | None = None
    edited: Tensor | None = None
    others: Tensor | None = None
    received: Tensor | None = None
    known: Slot | None = None

    def norm_slot(self, harvest: Harvest) -> Slot | None:
        """Reserve a slot for the norm of what the leaf received; None if nothing."""
        if self.known is not None:
            return self.known
        if self.received is not None:
            return harvest.norm(self.received)
        return None if self.total_norm is None else harvest.add(self.total_norm)

    def contributions(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give each contribution as it is read; they sum to ``.grad``."""
        scale = self.scale
        sums = sums if self.others is None else {**sums, OTHER_RANKS: self.others}
        parts = dict(sums) if scale is None else {name: g * scale.to(g.dtype) for name, g in sums.items()}
        if self.edited is not None:
            parts["edited"] = self.edited
        return parts


def read(account: Account, peers: Sequence[Tensor] = ()) -> Reading:
    """Compare ``.grad`` as it is now with what the leaf received in this step.

    Args:
        account: The parameter's account.
        peers: Factors found for other parameters of the step. A single number is always a multiple of
            another one, so that a scalar parameter counts as scaled only if others are by the same factor.
    """
    if isinstance(account, AveragedAccount) and account.is_averaged:
        return _read_averaged(account)
    return _read_own(account, peers) if account.gone is None else _read_let_go(account, peers)


def is_as_received(account: Account) -> bool:
    """Tell whether ``.grad`` still is what the leaf received, or was cleared and will not be read."""
    grad = account.param.grad
    return grad is None or stamp(grad) == account.grad_stamp


def _read_own(account: Account, peers: Sequence[Tensor]) -> Reading:
    grad = account.param.grad
    total = _received(account)
    if total is None:
        return Reading(None, None, None if grad is None else grad.detach().clone())
    if grad is None:
        return _unchanged(account, total)
    if account.total is None and stamp(grad) == account.grad_stamp:
        return _unchanged(account, total)
    if grad.is_sparse or total.is_sparse:
        return _read_sparse(grad, total)
    if grad.device.type == "cpu" and torch.equal(grad, total):
        return _unchanged(account, total)
    return _read_changed(account, grad.detach(), total, peers)


def _read_let_go(account: Account, peers: Sequence[Tensor]) -> Reading:
    """Compare ``.grad`` with what is left of what the leaf received: its norm, and a few of its elements."""
    grad, survey = account.param.grad, account.survey
    assert survey is not None, "it is kept of what is let go of"
    known = Slot.of(np.sqrt(survey.square))
    if grad is None or is_as_received(account):
        return Reading(None, known=known)
    ratio, is_multiple = _ratio_on_host(_real(probe(grad)).numpy(), _received_sample(account.probe, survey))
    length = abs(ratio) * known.number
    is_scaled = torch.tensor([is_multiple and abs(norm(grad).item() - length) <= _ROUNDING * length])
    scale = torch.tensor([ratio], dtype=torch.float64)
    return Reading(None, scale if bool(_is_shared(is_scaled, scale, grad, peers)) else None, known=known)


def _received_sample(sample: Tensor | None, survey: Survey) -> NDArray[np.float64]:
    """Give a few elements of what the leaf received: kept by themselves, or as it was read."""
    if sample is not None:
        return _real(sample).numpy()
    assert survey.has_sample, "one of the two is kept of what is let go of"
    return survey.sample


def _unchanged(account: Account, total: Tensor) -> Reading:
    survey = account.survey
    return Reading(None, received=total, known=None if survey is None else Slot.of(np.sqrt(survey.square)))


def _read_averaged(account: AveragedAccount) -> Reading:
    """Compare ``.grad`` with the mean that it was when the backward was over: the same, scaled or edited."""
    grad, own = account.grad, account.total
    received = None if own is None else norm(own)
    if grad is None:
        return Reading(received)
    grad = grad.detach()
    share = torch.full((1,), 1.0 / account.divisor, dtype=torch.float64, device=grad.device)
    mean = account.seen
    assert mean is not None, "asked before the ranks have met"
    if grad.device.type == "cpu" and torch.equal(grad, mean):
        return Reading(received, share, account.stale, account.others)
    factor, is_multiple = _ratio(_real(probe(grad)), _real(probe(mean)))
    is_scaled = is_multiple & (norm(grad - mean * factor.to(mean.dtype)) <= _ROUNDING * norm(grad))
    factor = torch.where(is_scaled, factor, 1.0)
    rest = grad - mean * factor.to(mean.dtype)
    edited = torch.where(is_scaled, 0.0, rest).to(grad.dtype)
    if account.stale is not None:
        edited = edited + account.stale * factor.to(mean.dtype)
    return Reading(received, share * factor, edited, account.others)


def _received(account: Account) -> Tensor | None:
    if account.is_empty:
        return None
    if account.total is not None:
        return account.total
    grad = account.param.grad
    if grad is not None and stamp(grad) == account.grad_stamp:
        return grad.detach()
    return fold(list(account.sums.values()))


def _read_changed(account: Account, grad: Tensor, total: Tensor, peers: Sequence[Tensor]) -> Reading:
    received = account.probe if account.total is None and account.probe is not None else probe(total)
    scale, is_multiple = _ratio(_real(probe(grad)), _real(received))
    effort = torch.cat([norm(part) for part in account.sums.values()]).sum()
    allowed = max(_ROUNDING, 8 * torch.finfo(grad.dtype).eps) * scale.abs() * effort
    is_scaled = is_multiple & (norm(grad - total * scale.to(total.dtype)) <= allowed)
    is_scaled = _is_shared(is_scaled, scale, grad, peers)
    if grad.device.type == "cpu":
        if bool(is_scaled):
            return Reading(_unscaled_norm(grad, total, scale), scale)
        return Reading(norm(total), None, grad - total)
    factor = torch.where(is_scaled, scale, 1.0)
    edited = torch.where(is_scaled, 0.0, grad - total).to(grad.dtype)
    return Reading(torch.where(is_scaled, _unscaled_norm(grad, total, scale), norm(total)), factor, edited)


def _is_shared(is_scaled: Tensor, scale: Tensor, grad: Tensor, peers: Sequence[Tensor]) -> Tensor:
    """Tell whether a gradient is scaled: that of a single number, only if others are by the same factor."""
    if grad.numel() != 1:
        return is_scaled
    others = torch.cat([*peers, torch.ones_like(scale)])
    return is_scaled & ((others - scale).abs() <= _ROUNDING * scale.abs()).any()


def _unscaled_norm(grad: Tensor, total: Tensor, scale: Tensor) -> Tensor:
    """Give the norm before scaling; from what is left of it, for a sum made again may cancel badly."""
    return torch.where(scale != 0, norm(grad) / scale.abs(), norm(total))


def _ratio(read_now: Tensor, received: Tensor) -> tuple[Tensor, Tensor]:
    """Give the factor between two samples (``[1]``, float64), and whether one is a multiple of the other."""
    square = received @ received
    ratio = torch.where(square > 0, (read_now @ received) / square, 1.0).reshape(1)
    off = torch.linalg.vector_norm(read_now - ratio * received)
    return ratio, off <= 10 * _ROUNDING * torch.linalg.vector_norm(read_now)


def _ratio_on_host(read_now: NDArray[np.float64], received: NDArray[np.float64]) -> tuple[float, bool]:
    """Give the same of what lies on the host, where a dozen small tensors cost more than reading it."""
    with np.errstate(all="ignore"):  # what was read may be anything by now
        now, both, square = float(read_now @ read_now), float(read_now @ received), float(received @ received)
    ratio = both / square if square > 0 else 1.0
    off = now - 2 * ratio * both + ratio * ratio * square
    return ratio, off <= (10 * _ROUNDING) ** 2 * now


def _real(sample: Tensor) -> Tensor:
    return (torch.view_as_real(sample) if sample.is_complex() else sample).reshape(-1).double()


def _read_sparse(grad: Tensor, total: Tensor) -> Reading:
    difference = (grad.detach() - total).coalesce()
    if grad.device.type == "cpu" and not bool(difference.values().any()):
        return Reading(None, received=total)
    return Reading(norm(total), None, difference)

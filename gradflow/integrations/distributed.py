"""Several processes, under DDP or FSDP2 (``fully_shard``): each records its own gradients; here they meet.

    path = distributed.for_rank("runs/a.gradflow")        # runs/a.rank0.gradflow, a.rank1.gradflow ...
    flow = gradflow.watch(model, optimizer, branches=("anchor", "positive", "negative"), to=path)
    distributed.all_reduce(flow)                          # only if contributions of all ranks are wanted

Without ``all_reduce`` nothing is sent anywhere: a rank's recording holds its own contributions, exactly, and
``other ranks``, the sum of what the others brought. ``gradflow merge`` puts the recordings together, and
``averaging`` shows what the mean over the ranks does to each branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, distributed

from gradflow.averaging import averaging
from gradflow.capture.averaged import AveragedAccount
from gradflow.capture.ranks import are_there
from gradflow.capture.recorder import Recorder
from gradflow.errors import InvalidArgumentError
from gradflow.integrations import plan
from gradflow.merging import merge

__all__ = ["all_reduce", "averaging", "for_rank", "merge"]

Key = tuple[str, ...]  # ("sum", contributor), ("term", contributor, term) or ("total",)


def for_rank(path: str | Path) -> Path:
    """Give the file that this process records to.

    Example:
        >>> for_rank("runs/a.gradflow").name  # alone; with several processes, a.rank0.gradflow and so on
        'a.gradflow'
    """
    if not are_there():
        return Path(path)
    return plan.for_rank(path, distributed.get_rank(), distributed.get_world_size())


def all_reduce(flow: Recorder) -> Recorder:
    """Record contributions of all ranks together, from the next step on.

    Before an optimizer reads the gradients, each branch's contributions are summed over the ranks: one
    message of all of them, and one that agrees on their names. ``total`` becomes the sum of what all the
    leaves received, ``scale`` stays 1 / W, and nothing is left for ``other ranks``. ``uses`` and ``residual``
    stay those of this rank, and so does the delta of a sharded parameter, until recordings are merged.

    Args:
        flow: The recorder. Every rank must ask for this, and then step as often as the others: they wait for
            one another.

    Returns:
        The recorder.

    Raises:
        InvalidArgumentError: there was no process group when the recorder was made.
    """
    ranks = flow._observer.ranks
    if ranks is None:
        raise InvalidArgumentError(
            "this recorder knows of no other processes",
            where="gradflow.integrations.distributed.all_reduce",
            do="call torch.distributed.init_process_group before gradflow.watch",
        )
    ranks.meet = _meet
    return flow


def _meet(accounts: Sequence[AveragedAccount]) -> None:
    """Sum the contributions of all ranks to each of these parameters: every rank calls it with the same."""
    rows = [_rows(account) for account in accounts]
    every: list[list[list[Key]]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(every, [list(own) for own in rows])
    for account, own, names in zip(accounts, rows, zip(*every, strict=True), strict=True):
        known = dict.fromkeys(key for of_rank in names for key in of_rank)
        for key in known:
            own.setdefault(key, _nothing_like(account))
        order = {key: own[key] for key in known}
        own.clear()
        own.update(order)
    _sum_over_ranks(rows)
    for account, own in zip(accounts, rows, strict=True):
        _put_back(account, own)


def _rows(account: AveragedAccount) -> dict[Key, Tensor]:
    rows: dict[Key, Tensor] = {("sum", name): t for name, t in account.sums.items()}
    rows.update({("term", *cell): t for cell, t in account.cells.items()})
    if account.total is not None:
        rows["total",] = account.total
    return {key: _wide(t) for key, t in rows.items()}


def _wide(tensor: Tensor) -> Tensor:
    """Give a copy to add to: dense, and not in half precision."""
    dense = tensor.to_dense() if tensor.is_sparse else tensor
    is_half = dense.dtype in (torch.float16, torch.bfloat16)
    return dense.detach().to(torch.float32 if is_half else dense.dtype, copy=True).contiguous()


def _nothing_like(account: AveragedAccount) -> Tensor:
    """Give what a rank adds to a contribution that it did not see."""
    param = account.param
    is_half = param.dtype in (torch.float16, torch.bfloat16)
    dtype = torch.float32 if is_half else param.dtype
    return torch.zeros(param.shape, dtype=dtype, device=param.device)


def _sum_over_ranks(rows: Sequence[dict[Key, Tensor]]) -> None:
    """Add up in place, in one message for each dtype and device."""
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for own in rows:
        for tensor in own.values():
            alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for tensors in alike.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _put_back(account: AveragedAccount, rows: dict[Key, Tensor]) -> None:
    account.sums = {key[1]: t for key, t in rows.items() if key[0] == "sum"}
    account.cells = {(key[1], key[2]): t for key, t in rows.items() if key[0] == "term"}
    account.total = rows.get(("total",))
    account.owned = set(account.sums)
    account.is_local = False

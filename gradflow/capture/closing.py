"""Closing a step: reduce on the device, bring everything to the host at once, write the record.

Here torch stops: what comes out are frozen records of numpy arrays, strings and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture.ledger import Account
from gradflow.capture.movement import Move
from gradflow.capture.reading import read
from gradflow.capture.reduce import Harvest, gram, norm
from gradflow.record import OTHER_RANKS, RESERVED, Delta, ParamStep, TermTable, Use
from gradflow.updates.splitter import Split
from gradflow.updates.working import held, is_sharded

__all__ = ["Entry", "close"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One parameter whose step is to be closed."""

    names: tuple[str, ...]
    account: Account
    move: Move | None


def close(
    entries: Iterable[Entry], branches: Sequence[str], terms: Sequence[str] = ()
) -> dict[str, ParamStep]:
    """Turn accounts and moves into records, by FQN, with one transfer per device."""
    harvest = Harvest()
    drafts = [_Draft(entry, branches, terms, harvest) for entry in entries]
    harvest.fetch()
    return {draft.fqn: draft.record() for draft in drafts}


class _Draft:
    """One parameter's record while its numbers are still on the device."""

    def __init__(self, entry: Entry, branches: Sequence[str], terms: Sequence[str], harvest: Harvest) -> None:
        account, move = entry.account, entry.move
        reading = move.reading if move is not None else read(account)
        self.fqn = entry.names[0]
        self._entry, self._branches = entry, branches
        self._rows = dict(account.sums)
        if reading.edited is not None and move is not None:
            self._rows["edited"] = reading.edited
        if reading.others is not None:
            self._rows[OTHER_RANKS] = reading.others
        self._rows = {name: row for name, row in self._rows.items() if row.shape == account.param.shape}
        self._order = _in_order(self._rows, branches)
        size = len(self._order)
        self._gram = harvest.add(gram([self._rows[n] for n in self._order]), (size, size))
        self._total_norm = None if reading.total_norm is None else harvest.add(reading.total_norm)
        self._scale = None if reading.scale is None else harvest.add(reading.scale)
        self._residuals = [harvest.add(r) for r in account.residuals]
        self._uses = [None if use.norm is None else harvest.add(use.norm) for use in account.uses]
        self._terms = _TermDraft(account, self._order, terms, harvest) if account.cells else None
        self._delta = None if move is None else _DeltaDraft(account.param, move, branches, harvest)

    def record(self) -> ParamStep:
        account = self._entry.account
        matrix = self._gram.array
        keep = [i for i, name in enumerate(self._order) if name in self._branches or matrix[i, i] != 0.0]
        order = tuple(self._order[i] for i in keep)
        norms = dict(zip(self._order, np.sqrt(np.diagonal(matrix)), strict=True))
        return ParamStep(
            contributors=order,
            gram=matrix[np.ix_(keep, keep)],
            total_norm=0.0 if self._total_norm is None else self._total_norm.number,
            absent=tuple(b for b in self._branches if b not in order),
            delta=None if self._delta is None else self._delta.record(account.keep),
            fqn=self.fqn,
            names=self._entry.names,
            shape=tuple(account.param.shape),
            residual=max((slot.number for slot in self._residuals), default=0.0),
            scale=1.0 if self._scale is None else self._scale.number,
            uses=tuple(self._use(i, norms) for i in range(len(account.uses))),
            terms=None if self._terms is None else self._terms.record(),
            tensors={name: _array(self._rows[name]) for name in order} if account.keep else None,
            total_tensor=self._total_array() if account.keep else None,
        )

    def _use(self, position: int, norms: dict[str, float]) -> Use:
        arrival, slot = self._entry.account.uses[position], self._uses[position]
        size = float(norms[arrival.contributor]) if slot is None else slot.number
        call = arrival.edge.mark.call
        label = "" if call is None else call.label
        return Use(arrival.contributor, label, arrival.edge.node, arrival.edge.slot, size)

    def _total_array(self) -> NDArray:
        total = self._entry.account.total
        return np.zeros(tuple(self._entry.account.param.shape)) if total is None else _array(total)


class _TermDraft:
    """The branch × term table of one parameter while its numbers are still on the device."""

    def __init__(
        self, account: Account, contributors: Sequence[str], terms: Sequence[str], harvest: Harvest
    ) -> None:
        rest = {name: _rest(whole, account, name) for name, whole in account.sums.items()}
        self._rows = tuple(name for name in contributors if name in account.sums)
        self._terms = (*terms, "unclaimed")
        blank = torch.zeros_like(next(iter(account.cells.values())))
        cells = [
            account.cells.get((row, term), blank) if term in terms else rest[row]
            for row in self._rows
            for term in self._terms
        ]
        self._gram = harvest.add(gram(cells), (len(cells), len(cells)))

    def record(self) -> TermTable:
        return TermTable(self._rows, self._terms, self._gram.array)


def _rest(whole: Tensor, account: Account, name: str) -> Tensor:
    """Give what a contributor brought through no named term."""
    for (contributor, _), cell in account.cells.items():
        if contributor == name:
            whole = whole - cell
    return whole


class _DeltaDraft:
    """One parameter's delta while its numbers are still on the device."""

    def __init__(self, param: Tensor, move: Move, branches: Sequence[str], harvest: Harvest) -> None:
        self._moved = held(param.detach()) - move.theta_before
        self._notes = [split.note for split in move.splits if split.note]
        if is_sharded(param):
            self._notes.append(f"of this rank's shard, {self._moved.numel()} of {param.numel()} elements")
        self._rules = [split.rule for split in move.splits if split.rule]
        self._parts = _add_up(move.splits, self._moved)
        self._order = _in_order(self._parts, branches)
        size = len(self._order)
        self._gram = harvest.add(gram([self._parts[n] for n in self._order]), (size, size))
        self._norm = harvest.add(norm(self._moved))
        self._theta = harvest.add(norm(move.theta_before))
        self._residual = harvest.add(_excess(list(self._parts.values()), self._moved, move.theta_before))

    def record(self, keep: bool) -> Delta:
        return Delta(
            contributors=self._order,
            gram=self._gram.array,
            norm=self._norm.number,
            parameter_norm=self._theta.number,
            residual=self._residual.number,
            rule=" and ".join(dict.fromkeys(self._rules)),
            note="; ".join(dict.fromkeys(self._notes)),
            parts={name: _array(part) for name, part in self._parts.items()} if keep else None,
            tensor=_array(self._moved) if keep else None,
        )


def _add_up(splits: Sequence[Split], moved: Tensor) -> dict[str, Tensor]:
    """Add the parts that several optimizers made; a delta that cannot be split is shown whole."""
    if not splits or any(not split.parts for split in splits):
        return {"unattributed": moved}
    parts: dict[str, Tensor] = {}
    for split in splits:
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
    beyond = off.abs().sub_(slack).clamp_min_(0).amax().double()
    if beyond.device.type == "cpu" and not bool(beyond):
        return torch.zeros(1, dtype=torch.float64)
    effort = torch.zeros_like(slack)
    for part in parts:
        effort += part.abs()
    return torch.where(beyond == 0, 0.0, beyond / effort.amax().double()).reshape(1)


def _in_order(names: Iterable[str], branches: Sequence[str]) -> tuple[str, ...]:
    """Branches in the order of their lanes, then the reserved contributors."""
    known = list(names)
    order = [*branches, *RESERVED, *known]
    return tuple(name for name in dict.fromkeys(order) if name in known)


def _array(tensor: Tensor) -> NDArray:
    """Copy a tensor to the host; half precision is widened, for numpy has no bfloat16."""
    dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    if dense.dtype in (torch.bfloat16, torch.float16):
        dense = dense.float()
    array = dense.cpu().numpy().copy()
    array.setflags(write=False)
    return array

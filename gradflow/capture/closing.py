"""Closing a step: reduce on the device, bring everything to the host at once, write the record.

Here torch stops: what comes out are frozen records of numpy arrays, strings and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture.deltas import copied
from gradflow.capture.known import Known, Layout, Place, Records, shown
from gradflow.capture.lanes import Lanes
from gradflow.capture.ledger import Account
from gradflow.capture.marking import Edge
from gradflow.capture.movement import Move
from gradflow.capture.reading import is_as_received, read
from gradflow.capture.reduce import Harvest, Slot
from gradflow.record import OTHER_RANKS, ParamStep, TermTable, Use

__all__ = ["Entry", "close"]


class Entry(NamedTuple):
    """One parameter whose step is to be closed."""

    names: tuple[str, ...]
    account: Account
    move: Move | None


def close(
    entries: Iterable[Entry], branches: Sequence[str], terms: Sequence[str], harvest: Harvest
) -> Mapping[str, ParamStep]:
    """Turn accounts and moves into records, by FQN, with one transfer per device.

    What was read as it arrived is put together only when somebody asks for it.
    """
    lanes = Lanes(branches)
    drafts = [_known(entry, lanes) or _Draft(entry, lanes, terms, harvest) for entry in entries]
    harvest.fetch()
    return Records([draft if isinstance(draft, Known) else draft.record() for draft in drafts])


def _known(entry: Entry, lanes: Lanes) -> Known | None:
    """Give what a record is made of, where all was read as it arrived, and is not wanted for a delta."""
    account = entry.account
    gone, survey = account.gone, account.survey
    if entry.move is not None or gone is None or survey is None:
        return None
    shape, places = tuple(account.param.shape), tuple([_place(edge) for edge in gone.edges])
    layout = Layout(entry.names, shape, gone.contributors(), gone.names, places)
    if account.layout == layout:  # as mostly: then all steps share one
        layout = account.layout
    account.layout = layout
    scale = None if is_as_received(account) else read(account).scale
    return Known(layout, lanes, survey.measures(), 1.0 if scale is None else float(scale))


def _place(edge: Edge) -> Place:
    call = edge.mark.call
    if call is None:
        return Place("", None, edge.node, edge.slot)
    return Place(call.path, call.index, edge.node, edge.slot)


class _Draft:
    """One parameter's record while its numbers are still on the device."""

    def __init__(self, entry: Entry, lanes: Lanes, terms: Sequence[str], harvest: Harvest) -> None:
        account, move = entry.account, entry.move
        reading = move.reading if move is not None else read(account)
        self.fqn = entry.names[0]
        self._entry, self._lanes = entry, lanes
        self._rows = account.sums
        if reading.edited is not None and move is not None:
            self._rows = {**self._rows, "edited": reading.edited}
        if reading.others is not None:
            self._rows = {**self._rows, OTHER_RANKS: reading.others}
        if self._rows:
            shape = account.param.shape
            self._rows = {name: row for name, row in self._rows.items() if row.shape == shape}
        self._order = lanes.order(tuple(self._rows) if account.gone is None else account.contributors)
        self._gram = self._surveyed() or harvest.gram([self._rows[n] for n in self._order])
        self._total_norm = reading.norm_slot(harvest) if move is None else move.total_norm
        self._scale = None if reading.scale is None else harvest.add(reading.scale)
        self._residuals = [harvest.add(r) for r in account.residuals]
        self._uses = list(_lengths(account, harvest))
        self._terms = _TermDraft(account, self._order, terms, harvest) if account.cells else None
        self._delta = None if move is None else move.draft(account.param, harvest, keep=account.keep)

    def _surveyed(self) -> Slot | None:
        """Give the inner products of the rows where they were worked out as the rows arrived."""
        account = self._entry.account
        if account.survey is None or self._rows.keys() != account.sums.keys():
            return None
        return Slot.of(self._lanes.ordered(account.survey.gram, account.contributors))

    def record(self) -> ParamStep:
        account = self._entry.account
        order, matrix = shown(self._order, self._gram.array, self._lanes)
        return ParamStep(
            contributors=order,
            gram=matrix,
            total_norm=0.0 if self._total_norm is None else self._total_norm.number,
            absent=self._lanes.absent(order),
            delta=None if self._delta is None else self._delta.record(self._lanes),
            fqn=self.fqn,
            names=self._entry.names,
            shape=tuple(account.param.shape),
            residual=max((slot.number for slot in self._residuals), default=0.0),
            scale=1.0 if self._scale is None else self._scale.number,
            uses=tuple(self._measured()),
            terms=None if self._terms is None else self._terms.record(),
            tensors={name: copied(self._rows[name]) for name in order} if account.keep else None,
            total_tensor=self._total_array() if account.keep else None,
        )

    def _measured(self) -> Iterator[Use]:
        squares = self._gram.array.diagonal()
        for edge, name, length in self._uses:
            if length is None:
                norm = math.sqrt(squares[self._order.index(name)])
            else:
                norm = length.number if isinstance(length, Slot) else length
            yield _place(edge).use(name, norm)

    def _total_array(self) -> NDArray:
        total = self._entry.account.total
        return np.zeros(tuple(self._entry.account.param.shape)) if total is None else copied(total)


def _lengths(account: Account, harvest: Harvest) -> Iterator[tuple[Edge, str, float | Slot | None]]:
    """Give each use, whom it counts towards, and its norm; None where that is the contributor's."""
    if account.gone is not None:
        yield from account.gone.uses()
    for use in account.uses:
        yield use.edge, use.contributor, harvest.add(use.norm) if isinstance(use.norm, Tensor) else use.norm


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
        self._gram = harvest.gram(cells)

    def record(self) -> TermTable:
        return TermTable(self._rows, self._terms, self._gram.array)


def _rest(whole: Tensor, account: Account, name: str) -> Tensor:
    """Give what a contributor brought through no named term."""
    for (contributor, _), cell in account.cells.items():
        if contributor == name:
            whole = whole - cell
    return whole

"""One recording out of those of several ranks, each of which holds what its own process saw.

What merging means is decided parameter by parameter, and the step says which it was:

- *summed*: every rank kept the tensors. A branch's contribution is the sum of its contributions on all ranks,
  the total the sum of what their leaves received, and so are the parts of the delta. All inner products are
  computed anew. ``other ranks`` is gone: nobody is missing any more.
- *together already*: the ranks summed while they trained (``all_reduce``). One of them is taken; of sharded
  parameters, the Gram matrices of the deltas are added, for shards do not overlap.
- *side by side*: only inner products were kept, and those between ranks are in no recording. Each rank's
  numbers stay as they are, under ``rank0.conv1.weight``, ``rank1.conv1.weight`` ...

Steps that a rank lacks, for it was killed, are left out. Knows no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from gradflow.errors import InvalidArgumentError
from gradflow.record import OTHER_RANKS, RESERVED, Delta, Finding, ParamStep, Use
from gradflow.recording import Recording, Step

__all__ = ["check_alike", "in_order_of_ranks", "merge", "rank_of"]

_PLACE = re.compile(r"rank (\d+) of (\d+)")
_SHARD = re.compile(r"of this rank's shard, \d+ of \d+ elements")
_OFF = 1e-4  # parts that miss the delta by more, as a fraction of the effort, are not shown as its parts

Tensors = dict[str, NDArray]


def merge(recordings: Sequence[Recording]) -> Recording:
    """Put the recordings of several ranks together; each step is merged when it is asked for.

    Args:
        recordings: One of each rank, in any order.

    Returns:
        The steps that all of them have.

    Raises:
        InvalidArgumentError: a recording is not that of one of several ranks, or a rank is missing or there
            twice.

    Example:
        >>> merge([])
        Traceback (most recent call last):
        gradflow.errors.InvalidArgumentError: there is nothing to merge
          where: gradflow merge
          do:    pass the recording of every rank
    """
    return Recording(_Merged(in_order_of_ranks(recordings)))


class _Merged(Sequence[Step]):
    """The steps that all ranks have, merged on demand."""

    def __init__(self, ranks: Sequence[Recording]) -> None:
        at = [{step.index: i for i, step in enumerate(one)} for one in ranks]
        self._ranks = ranks
        self._places = [[of[i] for of in at] for i in sorted(set.intersection(*map(set, at)))]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, position: int) -> Step: ...
    @overload
    def __getitem__(self, position: slice) -> list[Step]: ...
    def __getitem__(self, position: int | slice) -> Step | list[Step]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        steps = [one[i] for one, i in zip(self._ranks, self._places[position], strict=True)]
        with np.errstate(invalid="ignore", over="ignore"):  # inf of a run that diverged stays inf
            return _merge(steps)


def in_order_of_ranks(recordings: Sequence[Recording]) -> list[Recording]:
    """Give the recordings of rank 0, 1, 2 and so on.

    Raises:
        InvalidArgumentError: as for :func:`merge`.
    """
    if not recordings:
        raise InvalidArgumentError(
            "there is nothing to merge", where="gradflow merge", do="pass the recording of every rank"
        )
    places = [rank_of(one[0]) if len(one) else None for one in recordings]
    known = [place for place in places if place is not None]
    if len(known) < len(places):
        raise InvalidArgumentError(
            f"recording {places.index(None) + 1} of {len(places)} is not that of one of several ranks",
            where="gradflow merge",
            do="pass what gradflow.watch recorded under DDP or FSDP2, one file of each rank",
        )
    size, numbers = known[0][1], sorted(rank for rank, _ in known)
    if numbers != list(range(size)):
        raise InvalidArgumentError(
            f"these are the ranks {numbers} of {size}",
            where="gradflow merge",
            do="pass the recording of every rank once; of fewer ranks no sum can be made",
        )
    return [one for _, one in sorted(zip(known, recordings, strict=True), key=lambda pair: pair[0])]


def rank_of(step: Step) -> tuple[int, int] | None:
    """Give which rank recorded a step, of how many; None where there was but one process.

    Example:
        >>> rank_of(Step(0, {}, reports=(Finding("note", "rank", "...", where="rank 1 of 2"),)))
        (1, 2)
    """
    for finding in step.reports:
        found = _PLACE.fullmatch(finding.where) if finding.code in ("rank", "ranks") else None
        if found is not None:
            return int(found[1]), int(found[2])
    return None


def _merge(steps: Sequence[Step]) -> Step:
    are_together = all(any(f.code == "ranks" for f in step.reports) for step in steps)
    branches = _union(step.branches for step in steps)
    parameters: dict[str, ParamStep] = {}
    apart = 0
    for fqn in _union(step.params for step in steps):
        each = [step.parameters.get(fqn) for step in steps]
        here = [p for p in each if p is not None]
        if are_together:
            parameters[fqn] = _one_of(here)
        elif len(here) == len(each) and all(p.tensors is not None for p in here):
            parameters[fqn] = _summed(here, branches)
        else:
            apart += 1
            for rank, p in enumerate(each):
                if p is not None:
                    name = f"rank{rank}.{fqn}"
                    parameters[name] = replace(p, fqn=name, names=tuple(f"rank{rank}.{n}" for n in p.names))
    first = steps[0]
    reports = [f for step in steps for f in step.reports if f.code not in ("rank", "ranks")]
    return Step(
        index=first.index,
        parameters=parameters,
        branches=branches,
        scalars={f"{name} (rank {r})": v for r, step in enumerate(steps) for name, v in step.scalars.items()},
        complete=all(step.complete for step in steps),
        skipped=first.skipped,
        reports=(*dict.fromkeys(reports), _told(len(steps), len(parameters), apart), *_apart_for(steps)),
    )


def _told(ranks: int, count: int, apart: int) -> Finding:
    text = f"The contributions are those of {ranks} ranks together."
    if apart:
        text = (
            f"{apart} parameters are shown rank by rank: only inner products were kept, and none of one rank "
            f"with another. {count - apart * ranks} are summed over the {ranks} ranks."
        )
    do = 'keep="tensors", or gradflow.integrations.distributed.all_reduce(flow), sums them.' if apart else ""
    return Finding("note", "merged", text, do)


def _apart_for(steps: Sequence[Step]) -> Iterator[Finding]:
    """Tell of weights that did not move alike on all ranks: they are replicas no more."""
    for fqn in steps[0].params:
        deltas = [p.delta for step in steps if (p := step.parameters.get(fqn)) is not None and p.delta]
        whole = [d.norm for d in deltas if not _SHARD.search(d.note)]
        if whole and max(whole) - min(whole) > 1e-6 * max(whole):
            text = f"The weights of the ranks moved apart: by {min(whole):.6g} here, {max(whole):.6g} there."
            yield Finding("warning", "ranks-differ", text, "All ranks must begin alike and step alike.", fqn)
            return


def _one_of(here: Sequence[ParamStep]) -> ParamStep:
    """Take what the ranks hold together already; add up the deltas of their shards."""
    first, deltas = here[0], [p.delta for p in here if p.delta is not None]
    is_sharded = any(_SHARD.search(d.note) for d in deltas)
    delta = _add_shards(deltas) if is_sharded else first.delta
    return replace(first, delta=delta, uses=_uses(here), residual=max(p.residual for p in here))


def check_alike(here: Sequence[ParamStep]) -> None:
    """See that tensors of several ranks can be summed: numpy would stretch a bias to fit a weight.

    Raises:
        InvalidArgumentError: they are not of one shape.
    """
    for what in ([p.total for p in here], [_moved(p) for p in here]):
        shapes = list(dict.fromkeys(tensor.shape for tensor in what if tensor is not None))
        if len(shapes) > 1:
            raise InvalidArgumentError(
                f"{here[0].fqn!r} is of shape {shapes[0]} on one rank, {shapes[1]} on another",
                where="gradflow merge",
                do="pass the recordings of the ranks of one run",
            )


def _moved(p: ParamStep) -> NDArray | None:
    """Give the delta where all ranks have the same; that of a shard is summed nowhere."""
    return None if p.delta is None or _SHARD.search(p.delta.note) else p.delta.tensor


def _summed(here: Sequence[ParamStep], branches: Sequence[str]) -> ParamStep:
    check_alike(here)
    first = here[0]
    parts = _add_up([_without(p.tensors or {}, (OTHER_RANKS, "edited")) for p in here])
    total = sum((p.total.astype(np.float64) for p in here[1:]), start=first.total.astype(np.float64))
    if "edited" in (first.tensors or {}):
        parts["edited"] = np.asarray(first.contribution("edited"), np.float64)
    order = _in_order(parts, branches)
    return ParamStep(
        contributors=order,
        gram=_gram([parts[name] for name in order]),
        total_norm=float(np.linalg.norm(total)),
        absent=tuple(b for b in branches if b not in order),
        delta=_delta([p.delta for p in here if p.delta is not None], branches),
        fqn=first.fqn,
        names=first.names,
        shape=first.shape,
        residual=max(p.residual for p in here),
        scale=first.scale,
        uses=_uses(here),
        tensors={name: parts[name] for name in order},
        total_tensor=total,
    )


def _delta(deltas: Sequence[Delta], branches: Sequence[str]) -> Delta | None:
    """Add up what each rank's branches moved; what no rank brought is the same on all of them."""
    if not deltas:
        return None
    first = deltas[0]
    if any(_SHARD.search(d.note) for d in deltas):
        return _whole(
            _add_shards(deltas), "a rank knows the parts of its own shard alone; all_reduce knows all"
        )
    if first.tensor is None or any(d.parts is None or "unattributed" in d.parts for d in deltas):
        return _whole(first, first.note)
    common = {
        n: np.asarray(t, np.float64)
        for n, t in (first.parts or {}).items()
        if n in ("decay", "history", "edited")
    }
    own = [_without(d.parts or {}, (OTHER_RANKS, "rounding", *common)) for d in deltas]
    parts = {**_add_up(own), **common}
    moved = np.asarray(first.tensor, np.float64)
    off = moved - sum(parts.values(), start=np.zeros_like(moved))
    effort = max(float(np.abs(sum(map(np.abs, parts.values()))).max(initial=0.0)), np.finfo(float).tiny)
    if any("rounding" in (d.parts or {}) for d in deltas):
        parts["rounding"], off = off, np.zeros_like(off)
    residual = float(np.abs(off).max(initial=0.0)) / effort
    if residual > _OFF:
        return _whole(first, f"the parts of the ranks miss it by {residual:.2g} of their effort")
    order = _in_order(parts, branches)
    gram = _gram([parts[name] for name in order])
    return replace(
        first, contributors=order, gram=gram, residual=residual, parts={n: parts[n] for n in order}
    )


def _whole(delta: Delta, why: str) -> Delta:
    return replace(
        delta,
        contributors=("unattributed",),
        gram=np.array([[delta.norm**2]]),
        rule="",
        note=f"shown whole: {why}",
        parts=None,
        tensor=None,
    )


def _add_shards(deltas: Sequence[Delta]) -> Delta:
    """Give the delta of a parameter of which each rank moved a shard: Gram matrices of shards add up."""
    order = _union(d.contributors for d in deltas)
    gram = np.zeros((len(order), len(order)))
    for delta in deltas:
        rows = [order.index(name) for name in delta.contributors]
        gram[np.ix_(rows, rows)] += delta.gram
    notes = dict.fromkeys(_SHARD.sub("", d.note).strip("; ") for d in deltas)
    return replace(
        deltas[0],
        contributors=order,
        gram=gram,
        norm=math.hypot(*(d.norm for d in deltas)),
        parameter_norm=math.hypot(*(d.parameter_norm for d in deltas)),
        residual=max(d.residual for d in deltas),
        note="; ".join(filter(None, notes)),
        parts=None,
        tensor=None,
    )


def _uses(here: Sequence[ParamStep]) -> tuple[Use, ...]:
    return tuple(replace(use, call=f"rank{r}:{use.call}") for r, p in enumerate(here) for use in p.uses)


def _without(tensors: Mapping[str, NDArray], names: Sequence[str]) -> Mapping[str, NDArray]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def _add_up(ranks: Sequence[Mapping[str, NDArray]]) -> Tensors:
    summed: Tensors = {}
    for tensors in ranks:
        for name, tensor in tensors.items():
            wide = tensor.astype(np.complex128 if np.iscomplexobj(tensor) else np.float64)
            summed[name] = summed[name] + wide if name in summed else wide
    return summed


def _gram(rows: Sequence[NDArray]) -> NDArray[np.float64]:
    flat = np.stack([row.ravel() for row in rows]) if rows else np.zeros((0, 0))
    return np.ascontiguousarray((flat @ flat.conj().T).real)


def _in_order(names: Mapping[str, NDArray], branches: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys([*branches, *RESERVED, *names]) if name in names)


def _union(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))

"""Who moves which parameter: what no optimizer holds, what two hold, and what is frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from gradflow.checks.subject import Subject
from gradflow.findings.words import count, some
from gradflow.record import Finding

__all__ = ["findings", "left_over"]


def findings(subject: Subject) -> Iterator[Finding]:
    """Tell of parameters that are moved by no optimizer, by two, or by one that does not know the model."""
    params = subject.parameters()
    yield from _frozen(params)
    if subject.optimizers:
        yield from _not_held(params, subject)
        yield from _held_twice(params, subject)
        yield from _strangers(params, subject)


def _held(subject: Subject) -> Iterator[Tensor]:
    """Give what the optimizers hold, as often as they hold it."""
    for optimizer in subject.optimizers:
        for group in optimizer.param_groups:
            yield from group["params"]


def _frozen(params: dict[str, nn.Parameter]) -> Iterator[Finding]:
    frozen = [fqn for fqn, p in params.items() if not p.requires_grad]
    if frozen:
        all_of_them = len(frozen) == len(params)
        yield Finding(
            "warning" if all_of_them else "note",
            "frozen",
            f"{len(frozen)} of {len(params)} parameters are frozen (requires_grad is False): {some(frozen)}.",
            "No path sends them a gradient. Where that is not meant: p.requires_grad_(True).",
        )


def left_over(subject: Subject) -> Iterator[Finding]:
    """Tell of gradients that are there already; this reads every one of them."""
    params = subject.parameters()
    full = [fqn for fqn, p in params.items() if p.grad is not None and _is_nonzero(p.grad)]
    if full:
        yield Finding(
            "note",
            "gradient-left",
            f"{len(full)} of {len(params)} parameters hold a gradient already: {some(full)}.",
            "The next backward adds to it: optimizer.zero_grad() first, unless it is meant to accumulate.",
        )


def _is_nonzero(grad: Tensor) -> bool:
    return bool((grad.coalesce().values() if grad.is_sparse else grad).any())


def _not_held(params: dict[str, nn.Parameter], subject: Subject) -> Iterator[Finding]:
    held = {id(p) for p in _held(subject)}
    missing = [fqn for fqn, p in params.items() if p.requires_grad and id(p) not in held]
    if missing:
        size = sum(params[fqn].numel() for fqn in missing)
        yield Finding(
            "warning",
            "not-optimized",
            f"{len(missing)} of {len(params)} parameters ({size:,} numbers) are in no optimizer and never "
            f"move: {some(missing)}.",
            "Give check every optimizer, or add them: optimizer.add_param_group({'params': ...}).",
        )


def _held_twice(params: dict[str, nn.Parameter], subject: Subject) -> Iterator[Finding]:
    times: dict[int, int] = {}
    for p in _held(subject):
        times[id(p)] = times.get(id(p), 0) + 1
    twice = [fqn for fqn, p in params.items() if times.get(id(p), 0) > 1]
    if twice:
        most = max(times[id(params[fqn])] for fqn in twice)
        yield Finding(
            "warning",
            "optimized-twice",
            f"{len(twice)} of {len(params)} parameters are held {most} times by {_kinds(subject)}: "
            f"{some(twice)}. Each time moves them, with a momentum of its own.",
            "Give a shared parameter to one optimizer only.",
        )


def _strangers(params: dict[str, nn.Parameter], subject: Subject) -> Iterator[Finding]:
    """Parameters of an optimizer that the model does not have; instead of the model's, where shapes agree."""
    known = {id(p) for p in params.values()}
    strange = [p for p in _held(subject) if id(p) not in known]
    held = {id(p) for p in _held(subject)}
    missing = [p.shape for p in params.values() if p.requires_grad and id(p) not in held]
    if strange:
        instead = sum(p.shape in missing for p in strange)
        yield Finding(
            "warning" if instead else "note",
            "stranger",
            f"{_kinds(subject)} also holds {count(len(strange), 'parameter')} that the model does not have"
            + (f"; {instead} of them have the shape of one that no optimizer holds." if instead else "."),
            "After a copy or a rebuilt layer, make the optimizer anew from model.parameters()."
            if instead
            else "Another model's, or a loss's own: then give check a list of all models.",
        )


def _kinds(subject: Subject) -> str:
    kinds: Sequence[str] = [type(o).__name__ for o in subject.optimizers]
    return " and ".join(kinds)

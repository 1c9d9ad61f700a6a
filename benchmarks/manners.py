"""Other manners of watching, and of training: what each costs beside a plain step of the same manner."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradflow
from benchmarks.nets import dense, encoder_a
from benchmarks.page import Row, Table, timed
from benchmarks.timing import Spread, Variant, interleave, then, warmed

__all__ = ["MANNERS", "Manner", "table"]

_NAMES = ("left", "right", "third")
_CLIPPED_TO = 1e-3  # less than any gradient here
Call = Callable[[nn.Module, Tensor, str], Tensor]


def _called(model: nn.Module, x: Tensor, _name: str) -> Tensor:
    result: Tensor = model(x)
    return result


def _in_branch(model: nn.Module, x: Tensor, name: str) -> Tensor:
    with gradflow.branch(name):
        return _called(model, x, name)


def _checkpointed(model: nn.Module, x: Tensor, _name: str) -> Tensor:
    result: Tensor = checkpoint(model, x, use_reentrant=False)
    return result


@dataclass(frozen=True)
class Manner:
    """How a model is trained and watched.

    Attributes:
        what: In words.
        options: For ``gradflow.watch``, beside the names of the branches; ``to=`` gets a file of its own.
        call: Calls the model on one batch.
        plain: Does so in the plain step; None for the same.
        around: What the forward runs in.
        backwards: Backwards before the optimizer steps.
        clip: Whether the norm of the gradient is clipped.
        adam: Whether the optimizer is Adam, and watched.
    """

    what: str
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    call: Call = _called
    plain: Call | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    backwards: int = 1
    clip: bool = False
    adam: bool = False


MANNERS = (
    Manner("names given, as in the first table"),
    Manner("paths found by counting", {"branches": None}),
    Manner("each call in a `gradflow.branch`", {"branches": None}, call=_in_branch, plain=_called),
    Manner("one layer, `params=`", {"params": ["0.*"]}),
    Manner('`keep="tensors"`', {"keep": "tensors"}),
    Manner("streamed to a file, `to=`", {"to": "steps.gradflow"}),
    Manner("autocast to bfloat16", around=partial(torch.autocast, "cpu", torch.bfloat16)),
    Manner("checkpointed", call=_checkpointed),
    Manner("two backwards a step", backwards=2),
    Manner("clipped", clip=True),
    Manner("clipped, with Adam, its deltas split", clip=True, adam=True),
)


NETS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "encoder of net A, three calls, batch 4": (encoder_a, (4, 3, 32, 32), 3),
    "MLP of 20 layers of 256, two calls, batch 32": (partial(dense, 20, 256), (32, 256), 2),
}


def table(scale: float = 1.0, manners: Sequence[Manner] = MANNERS) -> Table:
    """Compare a watched step with a plain one of the same manner."""
    rounds = max(2, round(15 * scale))
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            _row(f"{net}: {manner.what}", manner, net, rounds, Path(folder, f"{at}-{number}.gradflow"))
            for number, net in enumerate(NETS)
            for at, manner in enumerate(manners)
        ]
    return Table(
        "Other manners",
        "A whole step, watched in other ways than in the first table, or of a training that does more, as a "
        "multiple of a plain step of the same manner. Only the last step is kept, save in the file.",
        rows,
        "× plain",
        ("plain, ms",),
    )


def _row(what: str, manner: Manner, net: str, rounds: int, file: Path) -> Row:
    variants, flow = _ways(manner, net, file)
    times = interleave(variants, rounds=rounds, steps=5, warm=3)
    flow.close()
    plain, watched = times["plain"], times["watched"]
    return timed(what, watched.over(plain), more=(f"{1e3 * Spread.of(plain.cpu).median:.1f}",))


def _ways(manner: Manner, net: str, file: Path) -> tuple[dict[str, Variant], gradflow.Recorder]:
    """Give a plain step and a watched one, of one model; where deltas are split, of two that are alike."""
    model, batch, optimizer = _built(manner, net)
    plain = partial(_step, manner, manner.plain or manner.call, model, batch, optimizer)
    if manner.adam:  # a step that is not watched would cost it its momenta
        model, batch, optimizer = _built(manner, net)
    options = {"branches": _NAMES[: len(batch)], "last": 1} | dict(manner.options)
    if "to" in options:
        options |= {"to": file, "last": None}
    flow = gradflow.watch(model, optimizer if manner.adam else None, **options)
    step = partial(_step, manner, manner.call, model, batch, optimizer)
    if manner.adam:
        return {"plain": Variant(plain), "watched": Variant(step)}, flow
    flow.pause()
    watched = Variant(then(step, flow.step), flow.resume, flow.pause)
    return {"plain": warmed(Variant(plain)), "watched": warmed(watched)}, flow


def _built(manner: Manner, net: str) -> tuple[nn.Module, list[Tensor], torch.optim.Optimizer]:
    make, shape, calls = NETS[net]
    torch.manual_seed(0)
    model = make()
    batch = [torch.randn(shape) for _ in range(calls)]
    kind = torch.optim.Adam if manner.adam else torch.optim.SGD
    return model, batch, kind(model.parameters(), lr=1e-4)


def _step(
    manner: Manner, call: Call, model: nn.Module, batch: Sequence[Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Take one step of a loss that wants all outputs alike."""
    optimizer.zero_grad()
    for _ in range(manner.backwards):
        with manner.around():
            outputs = [call(model, x, name) for x, name in zip(batch, _NAMES, strict=False)]
            loss = torch.stack([(one - other).square().mean() for one, other in pairwise(outputs)]).sum()
        loss.backward()
    if manner.clip:
        nn.utils.clip_grad_norm_(model.parameters(), _CLIPPED_TO)
    optimizer.step()

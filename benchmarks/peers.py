"""The peers, each really called, beside gradflow on the same nets and in the same rounds."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradflow
from benchmarks.dot_program import provided
from benchmarks.memory import live_bytes
from benchmarks.nets import NETS, Job, Net, encoder_a, sgd, triplet
from benchmarks.page import Row, Table, timed
from benchmarks.timing import Spread, Times, Work, interleave, then
from gradflow.zoo.resnet50 import ResNet50

__all__ = ["Trial", "beside", "by_hand", "load", "per_sample", "tried"]

Ways = dict[str, Callable[[Job], Work]]
_PLAIN = "a plain step"


@dataclass(frozen=True)
class Trial:
    """What became of some ways to look at a training step.

    Attributes:
        times: Of those that work, and of the plain step.
        extra: Bytes of live tensors at the peak of a step beyond those of a plain one, as a multiple of the
            parameters.
        failed: Errors of the others.
    """

    times: dict[str, Times]
    extra: dict[str, float]
    failed: dict[str, str]


def beside(scale: float = 1.0, nets: Iterable[Net] = (NETS["A4"], NETS["B4"])) -> Table:
    """Compare a training step beside which each peer does what it does, with a plain one."""
    rows = []
    with provided() as graphviz:
        for net in nets:
            rounds = max(1, round((6 if net.name == "A4" else 3) * scale))
            rows += _rows(
                net.title, tried(_WAYS, net.build, rounds=rounds, steps=3 if net.name == "A4" else 1)
            )
    return Table(
        "A training step with each peer beside it",
        "Every step looked at, as a multiple of a plain step. Only `gradflow.watch` and the way by hand (no "
        "check, no inner products) tell apart what each path contributes to a parameter; the others answer "
        "other questions. torchview, torchlens and torchvista run a forward of their own. torchlens and "
        f"torchexplorer keep values, the others structure. Layout, where there is one, by {graphviz}. *Extra "
        "peak*: bytes of live tensors in a step beyond those of a plain one.",
        rows,
        "× plain",
        ("net", "ms", "extra peak, × parameters"),
    )


def per_sample(scale: float = 1.0, encoders: Iterable[tuple[str, Callable[[], nn.Module]]] = ()) -> Table:
    """Compare Opacus' gradients of each sample with gradflow's of each path."""
    chosen = tuple(encoders) or (("net A", encoder_a), ("net B", ResNet50))
    rows = []
    for title, make in chosen:
        rounds = max(1, round((8 if title == "net A" else 3) * scale))
        rows += _rows(f"{title}, as it is", tried(_OPACUS, triplet(make, 4), rounds=rounds, steps=2))
        mended = triplet(lambda make=make: _mended(make()), 4)
        rows += _rows(f"{title}, group norm", tried(_WATCH | _OPACUS, mended, rounds=rounds, steps=2))
    return Table(
        "Gradients of each sample, by Opacus",
        "Opacus keeps the gradient of every sample: the nearest to a gradient of every path, which is "
        "a sum of them. It takes no batch norm, so the nets are also measured with group norm in its "
        "place. Batch 4.",
        rows,
        "× plain",
        ("net", "ms", "extra peak, × parameters"),
    )


def tried(ways: Ways, build: Callable[..., Job], *, rounds: int, steps: int) -> Trial:
    """Time each way that works beside a plain step; give the errors that the others end with."""
    variants: dict[str, Work] = {_PLAIN: build(sgd).step}
    variants[_PLAIN]()
    failed: dict[str, str] = {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name, way in ways.items():
            try:
                work = way(build(sgd))
                work()  # warms up, too
            except Exception as error:  # a peer's failure is a result
                told = " ".join(str(error).split())[:160]
                failed[name] = f"{type(error).__name__}: {told}"
            else:
                variants[name] = work
        times = interleave(variants, rounds=rounds, steps=steps, warm=0)
        peaks = {name: live_bytes(work)[0] for name, work in variants.items()}
    size = sum(p.numel() * p.element_size() for p in build(sgd).model.parameters())
    return Trial(times, {name: (peak - peaks[_PLAIN]) / size for name, peak in peaks.items()}, failed)


def _rows(net: str, trial: Trial) -> list[Row]:
    rows = []
    for name, one in trial.times.items():
        milliseconds = f"{1e3 * Spread.of(one.cpu).median:.1f}"
        rows.append(
            timed(name, one.over(trial.times[_PLAIN]), more=(net, milliseconds, f"{trial.extra[name]:.2f}"))
        )
    return [*rows, *(Row(name, error, more=(net, "–", "–")) for name, error in trial.failed.items())]


def load(name: str) -> Any:  # a module that need not be there
    """Import a peer."""
    return import_module(name)


def _watched(job: Job) -> Work:
    flow = gradflow.watch(job.model, branches=job.branches, last=1)
    return then(job.step, flow.step)


def _traced(job: Job) -> Work:
    return _looking(job, lambda loss: gradflow.trace(loss, job.model))


def _torchviz(job: Job) -> Work:
    torchviz = load("torchviz")
    return _looking(job, lambda loss: torchviz.make_dot(loss, params=dict(job.model.named_parameters())))


def _looking(job: Job, look: Callable[[torch.Tensor], object]) -> Work:
    def step() -> None:
        job.optimizer.zero_grad()
        loss = job.forward()
        look(loss)
        loss.backward()
        job.optimizer.step()

    return step


def _torchview(job: Job) -> Work:
    torchview = load("torchview")
    return then(lambda: torchview.draw_graph(job.whole, input_data=job.batch, depth=10), job.step)


def _torchvista(job: Job) -> Work:
    torchvista = load("torchvista")

    def look() -> None:
        with tempfile.TemporaryDirectory() as folder:
            torchvista.trace_model(job.whole, job.batch, export_path=str(Path(folder) / "page.html"))

    return then(look, job.step)


def _torchlens(job: Job) -> Work:
    torchlens = load("torchlens")
    options = torchlens.options.CaptureOptions(backward_ready=True, save_grads="all", unwrap_when_done=True)

    def step() -> None:
        job.optimizer.zero_grad()
        trace = torchlens.trace(job.whole, job.batch, capture=options)
        trace.log_backward(trace[trace.output_layers[0]].out)
        job.optimizer.step()

    return step


def _torchexplorer(job: Job) -> Work:
    load("torchexplorer").watch(job.whole, log_freq=1, backend="none")
    return job.step


def by_hand(job: Job) -> Work:
    """Give the step of someone who backpropagates through each path on its own, and adds up."""
    params = list(job.model.parameters())

    def step() -> None:
        outputs: list[torch.Tensor] = []
        handle = job.model.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        loss = job.forward()
        handle.remove()
        arriving = torch.autograd.grad(loss, outputs, retain_graph=True)
        found = [torch.autograd.grad(o, params, g) for o, g in zip(outputs, arriving, strict=True)]
        for param, *parts in zip(params, *found, strict=True):
            param.grad = sum(parts)
        job.optimizer.step()

    return step


def _opacus(job: Job) -> Work:
    load("opacus").GradSampleModule(job.model)
    params = list(job.model.parameters())

    def forget() -> None:
        for param in params:
            param.grad_sample = None

    return then(job.step, forget)


def _mended(module: nn.Module) -> nn.Module:
    """Put group norm in the place of batch norm, all through a module."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(min(32, child.num_features), child.num_features))
        else:
            _mended(child)
    return module


_WAYS: Ways = {
    "gradflow.watch": _watched,
    "by hand: `autograd.grad` for each path, summed": by_hand,
    "gradflow.trace": _traced,
    "torchviz `make_dot`": _torchviz,
    "torchview `draw_graph`, depth 10": _torchview,
    "torchvista `trace_model`, HTML": _torchvista,
    "torchexplorer `watch`, each step": _torchexplorer,
    "torchlens `trace` and `log_backward`": _torchlens,
}
_WATCH: Ways = {"gradflow.watch": _watched}
_OPACUS: Ways = {"Opacus `GradSampleModule`": _opacus}

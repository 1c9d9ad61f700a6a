"""From a loss to a picture of its graph: trace, collapse, layout, beside the peers that draw graphs."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import gradflow
from benchmarks.dot_program import provided
from benchmarks.nets import NETS, Job, sgd
from benchmarks.page import Row, Table, timed
from benchmarks.peers import load
from benchmarks.timing import Times, interleave

__all__ = ["drawing"]

_LIMIT_S = 60
Draw = Callable[[Path], object]


def drawing(scale: float = 1.0, net: str = "B4", uses: int = 1000) -> Table:
    """Time everyone from a finished forward pass, or the forward of their own that they need, to a file."""
    job, rounds = NETS[net].build(sgd), max(1, round(3 * scale))
    with provided() as graphviz, tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [_row(name, draw, Path(folder), rounds, wanted) for name, draw, wanted in _ours(job, uses)]
        rows += [_row(name, draw, Path(folder), rounds, None) for name, draw in _theirs(job)]
    return Table(
        "Pictures",
        f"Trace, fold, lay out and write, of {NETS[net].title}, and of a weight used {uses} times in a "
        "chain. gradflow and torchviz read the graph of a forward pass that is there already; the others "
        f"run one. Layout by {graphviz}, at most {_LIMIT_S} s; seconds include those of its processes.",
        rows,
        "seconds",
        ("written, kB",),
    )


def _row(name: str, draw: Draw, folder: Path, rounds: int, target: float | None) -> Row:
    path = folder / "picture.svg"
    path.unlink(missing_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            times: Times = interleave({"draw": lambda: draw(path)}, rounds=rounds, warm=0)["draw"]
    except subprocess.TimeoutExpired:
        return Row(name, f"no picture after {_LIMIT_S} s", target=target, more=("–",))
    except Exception as error:  # a peer's failure is a result
        told = " ".join(str(error).split())[:160]
        return Row(name, f"{type(error).__name__}: {told}", target=target, more=("–",))
    return timed(name, times, target=target, more=(f"{path.stat().st_size / 1e3:.0f}",))


def _ours(job: Job, uses: int) -> list[tuple[str, Draw, float]]:
    loss, names = job.forward(), job.branches
    layer = torch.nn.Linear(4, 4)
    x = torch.ones(1, 4)
    for _ in range(uses):
        x = torch.tanh(layer(x))
    chained = x.sum()

    def of(value: torch.Tensor, model: torch.nn.Module, *, expanded: bool) -> Draw:
        branches = names if model is job.model else None

        def draw(path: Path) -> None:
            graph = gradflow.trace(value, model, branches=branches)
            (graph.expand() if expanded else graph).save(path, time_limit_s=_LIMIT_S)

        return draw

    return [
        ("gradflow: the net, folded", of(loss, job.model, expanded=False), 1.5),
        ("gradflow: the net, every node", of(loss, job.model, expanded=True), 10.0),
        (f"gradflow: {uses} uses, folded", of(chained, layer, expanded=False), 2.0),
        (f"gradflow: {uses} uses, every node", of(chained, layer, expanded=True), 10.0),
    ]


def _theirs(job: Job) -> list[tuple[str, Draw]]:
    loss = job.forward()

    def torchviz(path: Path) -> None:
        _laid_out(load("torchviz").make_dot(loss, params=dict(job.model.named_parameters())).source, path)

    def torchview(depth: int) -> Draw:
        def draw(path: Path) -> None:
            seen = load("torchview").draw_graph(job.whole, input_data=job.batch, depth=depth)
            _laid_out(seen.visual_graph.source, path)

        return draw

    def torchlens(path: Path) -> None:
        package = load("torchlens")
        options = package.options.CaptureOptions(unwrap_when_done=True)
        trace = package.trace(job.whole, job.batch, capture=options)
        stem = str(path.with_suffix(""))
        trace.draw(collapse="auto", vis_outpath=stem, vis_fileformat="svg", vis_save_only=True)

    def torchvista(path: Path) -> None:
        load("torchvista").trace_model(job.whole, job.batch, export_path=str(path.with_suffix(".html")))
        path.with_suffix(".html").rename(path)

    return [
        ("torchviz, every node", torchviz),
        ("torchview, depth 3", torchview(3)),
        ("torchview, depth 10", torchview(10)),
        ('torchlens, `collapse="auto"`', torchlens),
        ("torchvista, HTML that the browser lays out", torchvista),
    ]


def _laid_out(dot: str, path: Path) -> None:
    done = subprocess.run(
        ["dot", "-Tsvg"], input=dot.encode(), capture_output=True, timeout=_LIMIT_S, check=True
    )
    path.write_bytes(done.stdout)

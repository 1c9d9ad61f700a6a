"""What is measured: time and memory of a watched step, size on disk, start-up, and the peers."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd.graph import Node

import gradflow
from benchmarks.nets import NETS, Job, Net, adam, sgd
from benchmarks.timing import Times, interleave

__all__ = ["bare", "disk", "memory", "peers", "startup", "watched_times"]

_SEEN = "bench"


def watched_times(net: Net, *, rounds: int, steps: int) -> dict[str, Times]:
    """Time a plain step, one that bare hooks watch, and what gradflow makes of it, interleaved."""
    flows, variants = [], {}
    for name, optimize in (("plain", sgd), ("bare", sgd), ("watched", sgd), ("every 10th", sgd)):
        job = net.build(optimize)
        variants[name] = job.step
        if name == "bare":
            variants[name] = bare(job)
        elif name != "plain":
            every = 10 if name == "every 10th" else 1
            flow = gradflow.watch(job.model, branches=job.branches, last=1, every=every)
            variants[name] = _then(job.step, flow.step)
            flows.append(flow)
    for name in ("plain Adam", "deltas"):
        job = net.build(adam)
        variants[name] = job.step
        if name == "deltas":
            flows.append(gradflow.watch(job.model, job.optimizer, branches=job.branches, last=1))
    times = interleave(variants, rounds=rounds, steps=steps, warm=2)
    for flow in flows:
        flow.close()
    return times


def _then(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both


def bare(job: Job) -> Callable[[], None]:
    """Give a step whose nodes have hooks that keep references until the step is over, and do nothing else.

    No names, no check, no inner product: what any recorder must pay that plants hooks while forward runs.
    """
    kept: list[torch.Tensor | None] = []

    def plant(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        stack = [t.grad_fn for t in outputs if isinstance(t, torch.Tensor) and t.grad_fn is not None]
        while stack:
            node: Node = stack.pop()
            if _SEEN in node.metadata:
                continue
            node.metadata[_SEEN] = True
            children = node.next_functions
            slots = [i for i, (c, _) in enumerate(children) if type(c).__name__ == "AccumulateGrad"]
            if slots:
                node.register_hook(lambda grads, _, slots=slots: kept.extend(grads[i] for i in slots))
            stack += [c for c, _ in children if c is not None and type(c).__name__ != "AccumulateGrad"]

    for module in job.model.modules():
        module.register_forward_hook(plant)
    return _then(job.step, kept.clear)


def memory() -> dict[str, float]:
    """Give the peak of live tensor bytes in a step of net B, in multiples of its parameters.

    Counts every allocation and release that torch reports, and so is the same on every machine.
    """
    found: dict[str, float] = {}
    for name in ("plain", "watched", "with deltas"):
        job = NETS["B4"].build(sgd)
        optimizer = job.optimizer if name == "with deltas" else None
        flow = (
            gradflow.watch(job.model, optimizer, branches=job.branches, last=1) if name != "plain" else None
        )
        work = job.step if flow is None or optimizer is not None else _then(job.step, flow.step)
        size = sum(p.numel() * p.element_size() for p in job.model.parameters())
        work()
        job.optimizer.zero_grad()
        found[name] = peak_bytes(work) / size
        if flow is not None:
            flow.close()
    return found


def peak_bytes(work: Callable[[], object]) -> int:
    """Give by how many bytes the live tensors grow at most while ``work`` runs."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def disk(steps: int = 20) -> float:
    """Give the bytes per parameter and step of a recording of net A with Gram matrices, deltas included."""
    job = NETS["A4"].build(sgd)
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for count in (steps, 2 * steps):
            path = Path(folder) / f"{count}.gradflow"
            with gradflow.watch(job.model, job.optimizer, branches=job.branches, to=path) as flow:
                for _ in range(count):
                    job.step()
            sizes.append(path.stat().st_size)
            params = len(flow.recording.last.params)
    return (sizes[1] - sizes[0]) / (steps * params)


def startup(rounds: int = 5) -> dict[str, float]:
    """Give the median seconds that importing takes in a fresh process, by what is imported."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for text in ("pass", "import torch", "import gradflow", "import gradflow; gradflow.watch"):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], check=True)
            found.setdefault(text, []).append(time.perf_counter() - began)
    return {text: statistics.median(seconds) for text, seconds in found.items()}


def peers(rounds: int = 3) -> dict[str, str]:
    """Give what one use of each peer costs on net A, in milliseconds, or the error it ends with."""
    job = NETS["A4"].build(sgd)
    batch = torch.randn(4, 3, 32, 32)
    works: dict[str, Callable[[], object]] = {
        "a plain step": job.step,
        "gradflow.trace": lambda: gradflow.trace(job.forward(), job.model),
        "gradflow.trace + collapse + DOT": lambda: gradflow.trace(job.forward(), job.model).to_dot(),
        "torchviz make_dot": lambda: _load("torchviz").make_dot(
            job.forward(), params=dict(job.model.named_parameters())
        ),
        "torchview draw_graph": lambda: _load("torchview").draw_graph(job.model, input_data=batch, depth=10),
        "torchlens log_forward_pass": lambda: _load("torchlens").log_forward_pass(job.model, batch),
    }
    found: dict[str, str] = {}
    for name, work in works.items():
        try:
            work()
            taken = []
            for _ in range(rounds):
                began = time.process_time()
                work()
                taken.append(time.process_time() - began)
            found[name] = f"{1e3 * statistics.median(taken):.1f} ms"
        except Exception as error:  # a peer's failure is a result
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]
    return found


def _load(name: str) -> object:
    import importlib

    return importlib.import_module(name)

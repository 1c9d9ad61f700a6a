"""What importing costs, in fresh processes."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.page import Table, timed
from benchmarks.timing import interleave

__all__ = ["imports"]

_STATEMENTS = ("pass", "import torch", "import gradflow", "import gradflow; gradflow.watch")
_PLAIN = """
import torch
layer = torch.nn.Linear(64, 64)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
{}
(layer(torch.ones(8, 64)) - layer(torch.zeros(8, 64))).square().mean().backward()
optimizer.step()
{}
"""
_FIRST = {
    "a first plain step": _PLAIN.format("", ""),
    "a first watched step": _PLAIN.format(
        "import gradflow; flow = gradflow.watch(layer, optimizer, branches=('one', 'other'))",
        "flow.recording.last",
    ),
}


def imports(scale: float = 1.0) -> Table:
    """Compare importing gradflow with importing torch."""
    programs = {f"`{text}`": text for text in _STATEMENTS} | _FIRST
    variants = {name: (lambda text=text: _run(text)) for name, text in programs.items()}
    times = interleave(variants, rounds=max(2, round(5 * scale)), warm=1)
    torch_alone, first = times["`import torch`"], times["a first plain step"]
    rows = [
        timed(f"`{text}`, less `import torch`", times[f"`{text}`"].minus(torch_alone), target=0.1)
        for text in _STATEMENTS[2:]
    ]
    rows.append(
        timed("a first watched step, less a first plain one", times["a first watched step"].minus(first))
    )
    rows += [timed(name, one) for name, one in times.items()]
    return Table(
        "Start-up",
        "A fresh Python that runs one statement, or imports torch and takes one step of one layer. `import "
        "gradflow` loads no torch; `gradflow.watch` does.",
        rows,
        "seconds",
    )


def _run(text: str) -> None:
    subprocess.run([sys.executable, "-c", text], check=True)

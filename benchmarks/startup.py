"""What importing costs, in fresh processes."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.page import Table, timed
from benchmarks.timing import interleave

__all__ = ["imports"]

_STATEMENTS = ("pass", "import torch", "import gradflow", "import gradflow; gradflow.watch")


def imports(scale: float = 1.0) -> Table:
    """Compare importing gradflow with importing torch."""
    variants = {text: (lambda text=text: _run(text)) for text in _STATEMENTS}
    times = interleave(variants, rounds=max(2, round(7 * scale)), warm=1)
    torch_alone = times["import torch"]
    rows = [
        timed(f"`{text}`, less `import torch`", times[text].minus(torch_alone), target=0.1)
        for text in _STATEMENTS[2:]
    ]
    rows += [timed(f"`{text}`", one) for text, one in times.items()]
    return Table(
        "Start-up",
        "A fresh Python that runs one statement. `import gradflow` loads no torch; `gradflow.watch` does.",
        rows,
        "seconds",
    )


def _run(text: str) -> None:
    subprocess.run([sys.executable, "-c", text], check=True)

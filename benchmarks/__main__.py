"""``python -m benchmarks``: measure everything, or some of it, and write ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import faults, growth, manners, memory, peers, pictures, startup, steps, trunk
from benchmarks.nets import NETS
from benchmarks.page import Table, written

__all__ = ["MEASURES", "main"]

OUT = Path(__file__).parent / "RESULTS.md"

MEASURES: dict[str, Callable[..., Table]] = {
    "steps": steps.whole,
    "every": steps.every_tenth,
    "manners": manners.table,
    "faults": faults.table,
    "deltas": steps.deltas,
    "trunk": trunk.split,
    "peers": peers.beside,
    "samples": peers.per_sample,
    "memory": memory.sizes,
    "disk": memory.disk,
    "growth": growth.table,
    "startup": startup.imports,
    "pictures": pictures.drawing,
}
_BY_NET = ("steps", "every", "deltas")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print as it goes, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(MEASURES), help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--nets", default=",".join(NETS), help=f"some of {','.join(NETS)}, for {_BY_NET}")
    parser.add_argument("--scale", type=float, default=1.0, help="how many of the rounds to run")
    parser.add_argument("--out", type=Path, default=OUT, help="the page to write")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    nets = [NETS[name] for name in asked.nets.split(",")]
    chosen = {}
    for name in asked.only.split(","):
        more = {"nets": nets} if name in _BY_NET else {}
        if name == "growth":
            more["picture"] = asked.out.parent / growth.PICTURE.name
        chosen[name] = partial(MEASURES[name], asked.scale, **more)
    written(asked.out, chosen, tuple(MEASURES))


if __name__ == "__main__":
    main()

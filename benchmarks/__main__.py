"""``python -m benchmarks``: measure everything, and write ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from benchmarks import measures
from benchmarks.nets import NETS, Net
from benchmarks.timing import Spread, Times

OUT = Path(__file__).parent / "RESULTS.md"
_PEERS = ("torchviz", "torchview", "torchlens", "torchvista", "torchexplorer", "opacus", "torchjd")


def main() -> None:
    """Measure, print as it goes, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", default=",".join(NETS), help="names of nets, with commas between")
    parser.add_argument("--scale", type=float, default=1.0, help="how many of the rounds to run")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines = [*_head(), *_table_head()]
    for name in asked.nets.split(","):
        net = NETS[name]
        rounds = max(3, round(net.rounds * asked.scale))
        row = _row(net, measures.watched_times(net, rounds=rounds, steps=net.steps))
        print(row, flush=True)
        lines.append(row)
    lines += _rest()
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _head() -> list[str]:
    versions = ", ".join(f"{n} {_version(n)}" for n in ("torch", "numpy", *_PEERS))
    return [
        "# What gradflow costs",
        "",
        "Written by `make bench`; nothing here is typed in.",
        "",
        f"Machine: {os.cpu_count()} cores, {_processor()}, {platform.system()}; Python "
        f"{platform.python_version()}; {versions}. One thread.",
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _table_head() -> list[str]:
    return [
        "",
        "## A whole training step",
        "",
        "Ratios of CPU time, interleaved: median of the rounds (quartiles). *bare*: hooks that keep "
        "references and do nothing else, the floor. *watched*: contributions, inner products, the check. "
        "*deltas*: the same and the split of Adam's delta, against a plain step with Adam.",
        "",
        "| net | plain, ms | bare | watched | target | watched, by the clock | every 10th | deltas |",
        "|---|---|---|---|---|---|---|---|",
    ]


def _row(net: Net, times: dict[str, Times]) -> str:
    plain = times["plain"]
    watched = times["watched"].over(plain)
    verdict = "met" if watched.median <= net.target else "missed"
    cells = [
        net.title,
        f"{1e3 * Spread.of(plain.cpu).median:.1f}",
        times["bare"].over(plain),
        watched,
        f"≤ {net.target:.2f}: {verdict}",
        times["watched"].over_wall(plain),
        times["every 10th"].over(plain),
        times["deltas"].over(times["plain Adam"]),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _rest() -> list[str]:
    peak = measures.memory()
    started = measures.startup()
    lines = ["", "## Memory, disk, start-up", ""]
    lines += [
        f"- Peak of live tensors in a step of net B, {n}: {x:.2f} × its parameters" for n, x in peak.items()
    ]
    lines.append(
        f"- Extra, watched: {peak['watched'] - peak['plain']:.2f} × (target ≤ 2.2 × for three branches)"
    )
    lines.append(f"- A recording on disk: {measures.disk():.0f} bytes a parameter and step (target ≤ 600)")
    lines += [f"- `{text}` in a fresh process: {seconds:.3f} s" for text, seconds in started.items()]
    lines += ["", "## Once, on net A", "", "| what | CPU time |", "|---|---|"]
    lines += [f"| {name} | {cost} |" for name, cost in measures.peers().items()]
    return lines


if __name__ == "__main__":
    main()

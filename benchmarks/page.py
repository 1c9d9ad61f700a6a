"""Tables of what was measured against what was wanted, and the page they are written on.

A page holds one section a table. Measuring some of them again replaces these and leaves the others, as long
as machine and versions are the same.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks.timing import Spread, Times, cpu_seconds

__all__ = ["Row", "Table", "head", "timed", "verdicts", "written"]

PEERS = ("torchviz", "torchview", "torchlens", "torchvista", "torchexplorer", "opacus", "torchjd")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        what: What was measured.
        cpu: What was measured, of CPU time where it is a time; in words, why it could not be.
        wall: The same by the clock; None where no time was measured.
        target: The most it should be; None where it only informs.
        more: Further cells, after ``what``.
        floor: The least that anybody could reach who does the same by the same means; None if not measured.
    """

    what: str
    cpu: Spread | str
    wall: Spread | None = None
    target: float | None = None
    more: tuple[str, ...] = ()
    floor: Spread | None = None

    @property
    def verdict(self) -> str:
        """Whether the target is met, or lies below the floor, by the medians of the CPU time."""
        if self.target is None:
            return "–"
        if isinstance(self.cpu, Spread) and self.cpu.median <= self.target:
            return "met"
        return "missed" if self.floor is None or self.floor.median <= self.target else "below the floor"

    def cells(self, *, has_wall: bool) -> list[str]:
        """Give the cells in the order of :meth:`Table.lines`."""
        target = "–" if self.target is None else f"≤ {self.target:g}"
        walls = ["–" if self.wall is None else str(self.wall)] if has_wall else []
        return [self.what, *self.more, target, str(self.cpu), *walls, self.verdict]


def timed(
    what: str,
    times: Times,
    *,
    target: float | None = None,
    more: tuple[str, ...] = (),
    floor: Spread | None = None,
) -> Row:
    """Give a row of times, ratios of times, or differences."""
    return Row(what, Spread.of(times.cpu), Spread.of(times.wall), target, more, floor)


@dataclass(frozen=True)
class Table:
    """A section of the page.

    Attributes:
        title: Its heading.
        text: What is measured and how.
        rows: Its lines.
        unit: Of the numbers.
        more: Headings of the further cells.
        notes: What stands below it.
    """

    title: str
    text: str
    rows: Sequence[Row]
    unit: str
    more: tuple[str, ...] = ()
    notes: Sequence[str] = field(default=())

    def lines(self) -> list[str]:
        """Write it in Markdown, without its heading."""
        has_wall = any(row.wall is not None for row in self.rows)
        measured = [f"{self.unit}, CPU", f"{self.unit}, by the clock"] if has_wall else [self.unit]
        headings = ["what", *self.more, "target", *measured, "verdict"]
        body = [_line(row.cells(has_wall=has_wall)) for row in self.rows]
        below = [line for note in self.notes for line in ("", note)]
        return [self.text, "", _line(headings), "|" + "---|" * len(headings), *body, *below]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def head() -> list[str]:
    """Tell what was measured on which machine."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", *PEERS))
    return [
        "# What gradflow costs",
        "",
        "Written by `make bench`; nothing here is typed in. A cell is the median of the rounds (quartiles),",
        "in which all variants take turns; a verdict goes by the median of CPU time. *Below the floor*: the",
        "target is missed, and the least that does the same, measured beside it, misses it too.",
        "`benchmarks/NOTES.md` tells what the floors are, and why a target is missed.",
        "",
        f"Machine: {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}; {versions}. One thread.",
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


def written(path: Path, measures: dict[str, Callable[[], Table]], order: Sequence[str]) -> None:
    """Measure, and write the page anew after every table, so that none is lost.

    Args:
        path: Of the page.
        measures: What gives each table, by the name to ask for it by.
        order: Of all names there are.
    """
    found = _sections(path)
    for name, measure in measures.items():
        began, spent = time.perf_counter(), cpu_seconds()
        table = measure()
        took = f"`--only {name}`, {time.perf_counter() - began:.0f} s, of CPU {cpu_seconds() - spent:.0f} s."
        found[name] = [f"## {table.title}", "", *table.lines(), "", took]
        print("\n".join(found[name]), flush=True)
        lines = [*head(), "", verdicts(found.values())]
        for key in order:
            lines += ["", *found[key]] if key in found else []
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def verdicts(sections: object) -> str:
    """Count the targets of some sections."""
    text = str(sections)
    words = ("met", "below the floor", "missed")
    met, below, missed = (len(re.findall(rf"\| {word} \|", text)) for word in words)
    return (
        f"Of {met + below + missed} targets {met} are met, {below} lie below the floor, {missed} are missed."
    )


def _sections(path: Path) -> dict[str, list[str]]:
    """Read the sections of a page of the same machine and versions, by name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    if lines[: len(head())] != head():
        print("Another machine, or other versions: what is not measured now is dropped from the page.")
        return {}
    found = {}
    for part in "\n".join(lines).split("\n## ")[1:]:
        name = re.search(r"`--only (\w+)`", part)
        if name:
            found[name[1]] = f"## {part}".rstrip().splitlines()
    return found

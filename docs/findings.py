"""The tables of ``docs/findings.md``: ``python docs/findings.py`` writes them anew, and a test compares them.

The rows come from the catalogue that the package itself reads, the example from a model of the zoo.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

import gradflow
from gradflow import zoo
from gradflow.findings.catalogue import CATALOGUE, Entry
from gradflow.render import text

PAGE = Path(__file__).with_suffix(".md")
CASES = "tests/findings/test_table.py"
ELSEWHERE = {
    "comm-hook": "tests/distributed/cases_ddp.py",
    "gradient-left": "tests/checks/test_checking.py",
    "merged": "tests/test_merging.py",
    "rank": "tests/distributed/cases_ddp.py",
    "ranks": "tests/distributed/cases_meet.py",
    "ranks-differ": "tests/test_merging.py",
    "residual": "tests/findings/test_step.py",
    "rounding": "tests/findings/test_step.py",
}
_BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(seen: str) -> str:
    """Give the table of what one kind of observer sees."""
    head = "| code | severity | what it means | what to do | tested in |\n|---|---|---|---|---|"
    return "\n".join([head, *(_row(entry) for entry in CATALOGUE if entry.seen == seen)])


def _row(entry: Entry) -> str:
    severity = "warning or note" if entry.severity == "either" else entry.severity
    where = Path(ELSEWHERE.get(entry.code, CASES)).name
    return f"| `{entry.code}` | {severity} | {entry.means} | {entry.do} | `{where}` |"


def example() -> str:
    """Show what ``gradflow.check`` says of two copies of an encoder."""
    torch.manual_seed(0)
    scene = zoo.scene("twins")
    model = scene.build()
    found = gradflow.check(model, scene.optimizers(model))
    return f"```text\n{text.findings(found, width=100)}\n```"


def page(words: str) -> str:
    """Put the blocks of a page in place."""
    blocks = {name: table(name) for name in ("check", "capture", "step", "run")}
    blocks["example"] = example()
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]]}\n{found[3]}", words)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

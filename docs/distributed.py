"""The table of ``docs/distributed.md``: ``python docs/distributed.py`` trains on two ranks, and writes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import gradflow
from gradflow.averaging import averaging

PAGE = Path(__file__).with_suffix(".md")
EXAMPLE = PAGE.parents[1] / "examples" / "ddp.py"
BLOCK = re.compile(r"(<!-- averaging -->\n```text\n).*?(\n```\n<!-- end -->)", re.DOTALL)


def table(folder: str | Path) -> str:
    """Give the table of what the mean does, from the recordings that the example left in a folder."""
    recordings = [gradflow.load(path) for path in sorted(Path(folder).glob("ddp.rank?.gradflow"))]
    return "\n\n".join(str(averaging(recordings, fqn)) for fqn in ("", "fc.weight"))


def main() -> None:
    """Run the example and put its table in place."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += ["--master-addr", "127.0.0.1", str(EXAMPLE), folder]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        told = table(folder)
    words = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda found: f"{found[1]}{told}{found[2]}", words), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Starts ``torchrun`` for real, on this machine alone.

A file of cases is a module whose functions ``case_...(rank, ranks)`` run on every rank, one after another
in the same processes, for a start takes seconds. The first that raises on any rank ends them all.
"""

import datetime
import importlib
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 150
BEGUN = "begun: "


def torchrun(program, ranks, *arguments):
    """Run a module of this folder, or a file, on so many ranks; give the finished process."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    module = [program] if isinstance(program, Path) else ["-m", f"tests.distributed.{program}"]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    how = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": PATIENCE_S}
    with tempfile.TemporaryDirectory() as logs:  # torchrun would make a folder for them, and leave it
        command = [*start, "--log-dir", logs, *module, *map(str, arguments)]
        return subprocess.run(command, **how, check=False)


def assert_all_pass(cases, ranks, only=""):
    """Run a file of cases, or one of them."""
    run = torchrun("torchrun", ranks, cases, only)
    known = vars(importlib.import_module(f"tests.distributed.{cases}"))
    wanted = [name for name in known if name.startswith("case_") and only in name]
    told = "\n".join(line for line in run.stderr.splitlines() if line.startswith("|"))
    assert run.returncode == 0, told or run.stderr
    begun = [line.removeprefix(BEGUN) for line in run.stdout.splitlines() if line.startswith(BEGUN)]
    assert begun == wanted


def main(cases, only=""):
    """What a rank does: each case in turn."""
    import torch
    from torch import distributed

    warnings.filterwarnings("error", message="gradflow")
    distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    for name, case in vars(importlib.import_module(f"tests.distributed.{cases}")).items():
        if name.startswith("case_") and only in name:
            if rank == 0:
                print(f"{BEGUN}{name}", flush=True)
            torch.manual_seed(0)
            try:
                case(rank, ranks)
            except Exception:
                print(f"| {name}, rank {rank} of {ranks}", file=sys.stderr)
                print("\n".join(f"| {line}" for line in traceback.format_exc().splitlines()), file=sys.stderr)
                os._exit(1)  # the others wait for this rank: torchrun ends them
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

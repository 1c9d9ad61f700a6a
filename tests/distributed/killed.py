"""A run under DDP in which one rank is killed after some steps, as by a machine that fails.

python -m torch.distributed.run ... -m tests.distributed.killed FOLDER VICTIM STEPS
"""

import os
import signal
import sys
from pathlib import Path

from torch import distributed as ranks_of_torch

import gradflow
from gradflow.integrations import distributed
from tests.distributed.cases_ddp import Run
from tests.distributed.training import NAMES


def main(folder, victim, steps):
    ranks_of_torch.init_process_group("gloo")
    rank, ranks = ranks_of_torch.get_rank(), ranks_of_torch.get_world_size()
    one = Run()
    to = distributed.for_rank(Path(folder, "run.gradflow"))
    gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors", to=to)
    for number in range(10**6):
        one.step(rank, ranks, number)
        Path(folder, f"rank{rank}.steps").write_text(str(number + 1))
        if (rank, number + 1) == (victim, steps):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Trains with ``to=path`` and is killed, many times; run as a program, whose children are the runs.

python -m tests.storage.killing FOLDER ENOUGH MOST

Prints one JSON object a run: its file, how many steps it had announced, and where it was when it died. First
come runs that kill themselves at a certain point of a write, then ones that are killed at a random moment,
till ENOUGH of these died inside a write, or MOST runs were killed.
"""

import contextlib
import itertools
import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.storage import database, writer

NAMES = ("anchor", "positive", "negative")
VICTIM = 2  # the step in whose write a run kills itself
WITHIN = ("phrase", "array", "param", "step", "before the commit", "after the commit")


def train(steps, finished=lambda number: None, **options):
    """Train a small net with momentum; give its recording."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    flow = gradflow.watch(net, optimizer, branches=NAMES, keep="tensors", **options)
    for number in range(steps):
        batch = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        loss = F.triplet_margin_loss(*(net(x) for x in batch), margin=5.0)
        flow.log(loss=loss)
        loss.backward()
        optimizer.step()
        finished(number)
    return flow


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_within(place):
    """See to it that this process dies at a point of the write of its step ``VICTIM``."""
    put, transaction, turn = database.put, database.transaction, itertools.count(-1)  # the tables come first
    step = -1

    def dying_put(db, table, rows):
        put(db, table, rows)
        if step == VICTIM and table == place:
            die()

    @contextlib.contextmanager
    def dying_transaction(db):
        nonlocal step
        step = next(turn)
        with transaction(db):
            yield
            if step == VICTIM and place == "before the commit":
                die()
        if step == VICTIM and place == "after the commit":
            die()

    database.put, database.transaction = dying_put, dying_transaction


def raise_flag_while_writing(flag):
    """Let the parent see whether this process is inside a write."""
    write = writer.Writer._write

    def seen(self, batch):
        flag[0] = 1
        write(self, batch)
        flag[0] = 0

    writer.Writer._write = seen


def start(path, prepare):
    """Fork a run that trains till it is killed; give its number and where it announces its steps."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        prepare()
        train(10**6, lambda number: os.write(write, b"."), to=path)
        os._exit(0)
    os.close(write)
    return child, read


def announced(read):
    """Count the steps that a run has announced before it died."""
    with os.fdopen(read, "rb") as pipe:
        return len(pipe.read())


def kill_itself(path, place):
    child, read = start(path, lambda: die_within(place))
    steps = announced(read)
    _, status = os.waitpid(child, 0)
    return {"file": path.name, "place": place, "announced": steps, "signal": os.WTERMSIG(status)}


def kill_at_random(path, often):
    """Kill a run some moments after its third step; checkpoint at every step, or every second."""
    flag = mmap.mmap(-1, 1)

    def prepare():
        writer.CHECKPOINT_EVERY_S = 0.0 if often else 1.0
        raise_flag_while_writing(flag)

    child, read = start(path, prepare)
    first = len(os.read(read, 1) + os.read(read, 1) + os.read(read, 1))
    time.sleep(random.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    steps = first + announced(read)
    place = "a write" if flag[0] else "elsewhere"
    return {"file": path.name, "place": place, "announced": steps, "signal": os.WTERMSIG(status)}


def main(folder, enough, most):
    torch.set_num_threads(1)
    train(3)  # the first time imports, for all runs
    for i, place in enumerate(WITHIN):
        print(json.dumps(kill_itself(folder / f"within{i}.gradflow", place)), flush=True)
    inside = 0
    for i in range(most):
        found = kill_at_random(folder / f"random{i}.gradflow", often=i % 2 == 0)
        inside += found["place"] == "a write"
        print(json.dumps(found), flush=True)
        if inside >= enough:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""A long training run that measures itself; run as a program, so that nothing else is in its memory.

Prints one JSON object: by how many bytes it grew between an early and a late step, which types have more
objects than after the first few steps, and whether hooks are left.
"""

import argparse
import collections
import gc
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from tests import laws

PAGE = 4096
COLLECTS_EVERY = 500  # marks and calls refer to one another, and wait for the collector
WARM = 20  # steps before anything is measured
NAMES = ("anchor", "positive", "negative")


def resident():
    """Give the bytes of this process that are in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def objects():
    """Count what the garbage collector tracks, by type."""
    gc.collect()
    return collections.Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.get_objects())


def train(model, optimizer, steps):
    for i in range(steps):
        batch = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=i % 4 == 0):  # a stem now and then
            outputs = [model(x).float() for x in batch]
        F.triplet_margin_loss(*outputs, margin=5.0).backward()
        optimizer.step()
        if i % COLLECTS_EVERY == 0:
            gc.collect()


def measure(early, late, last):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.Adam(model.parameters())
    before = laws.hook_counts(model, [optimizer])
    flow = gradflow.watch(model, optimizer, branches=NAMES, last=last)
    train(model, optimizer, WARM)
    first = objects(), resident()  # the first measuring imports and allocates
    counts = objects()
    train(model, optimizer, early - WARM)
    gc.collect()
    size = resident()
    train(model, optimizer, late - early)
    gc.collect()
    grown_by = resident() - size
    del first  # as many countings are alive as at the first time
    later = objects()
    grown = {name: n - counts[name] for name, n in later.items() if n > counts[name]}
    steps = flow.recording.last.index + 1
    flow.close()
    left = laws.hook_counts(model, [optimizer]) != before
    return {"steps": steps, "bytes": grown_by, "objects": grown, "hooks_left": left}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("early", type=int)
    parser.add_argument("late", type=int)
    parser.add_argument("--keep-all", action="store_true")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.early, asked.late, None if asked.keep_all else 1)))

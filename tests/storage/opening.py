"""Opens a long recording and measures what that costs; run as a program, to have a memory of its own.

python -m tests.storage.opening SHORT LONG

Prints one JSON object: for each thing done to the long file, how many bytes were read from the disk, how
many rows of each table, and by how many bytes the peak of the memory grew. All of it is done to the short
file first, for the first time imports and allocates.
"""

import collections
import json
import resource
import sys
from pathlib import Path

import gradflow
from gradflow.render.explain import explain
from gradflow.storage import StoredSteps

ROWS = collections.Counter()


def bytes_read():
    """Give the bytes that this process has read (Linux)."""
    [line] = [x for x in Path("/proc/self/io").read_text(encoding="ascii").splitlines() if "rchar" in x]
    return int(line.split()[1])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Counting(StoredSteps):
    """Steps of a file that count the rows they read."""

    def _rows(self, kind, first, count):
        ROWS[kind.__name__] += count
        return super()._rows(kind, first, count)


def walk(recording):
    for step in recording:
        assert step.index >= 0


DONE = {
    "len": len,
    "the middle": lambda recording: recording[len(recording) // 2]["fc.weight"],
    "last": lambda recording: recording.last["fc.weight"],
    "repr": repr,
    "findings": lambda recording: recording.findings(),
    "explain": explain,
    "params": lambda recording: recording.params,
    "walk": walk,
}


def measured(work):
    ROWS.clear()
    was_read, was_peak = bytes_read(), peak()
    result = work()
    return result, {"bytes": bytes_read() - was_read, "memory": peak() - was_peak, "rows": dict(ROWS)}


def measure(path):
    recording, opened = measured(lambda: gradflow.Recording(Counting(path)))
    return {"open": opened} | {name: measured(lambda w=work: w(recording))[1] for name, work in DONE.items()}


if __name__ == "__main__":
    measure(sys.argv[1])
    print(json.dumps(measure(sys.argv[2])))

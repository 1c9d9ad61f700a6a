"""Does with a recording whatever one may, in little memory; run as a program, so that a crash is seen.

python -m tests.storage.handling SUSPECT OTHER

Prints one JSON object: how each thing ended, and by how many bytes the peak of the memory grew. A thing ends
"well", or with the three lines of an error of ours. Any other error, a crash, a minute of work, or half a
gigabyte beyond what the program takes by itself ends the program.
"""

import contextlib
import io
import json
import os
import resource
import sys
import warnings
from pathlib import Path

from gradflow import cli, storage
from gradflow.errors import GradflowError

ROOM = 512 << 20
HURRY_S = 60


def read_all(path):
    """Read every number and every tensor of a recording."""
    recording = storage.load(path)
    _ = recording.params, recording.branches
    for step in recording:
        for p in step:
            _ = p.norms, p.cancellation, p.uses, p.delta and (p.delta.shares, p.delta.relative)


def show(path):
    recording = storage.load(path)
    repr(recording)
    recording._repr_html_()
    for step in recording:
        repr(step)
        step._repr_html_()


def tell(path):
    repr(storage.load(path).findings())


def run(*command):
    code = cli.main([str(part) for part in command])
    assert code in (0, 2)
    return code


def things(suspect, other, out):
    """What is done, by name; each gives None, 0 if it went well, or 2 after an error that was told."""
    return {
        "read": lambda: read_all(suspect),
        "show": lambda: show(suspect),
        "findings": lambda: tell(suspect),
        "save": lambda: storage.save(storage.load(suspect), out) and None,
        "pandas": lambda: storage.load(suspect).to_pandas() is None,
        "explain": lambda: run("explain", suspect),
        "compare": lambda: run("compare", suspect, other),
        "compare with": lambda: run("compare", other, suspect),
        "merge": lambda: run("merge", suspect, other, "-o", out),
    }


def handle(suspect, other, out):
    """Do all of it; give how each thing ended."""
    ended = {}
    for name, thing in things(suspect, other, out).items():
        told = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
                code = thing()
            ended[name] = told.getvalue().rstrip("\n") if code == 2 else "well"
        except GradflowError as error:
            ended[name] = str(error)
    return ended


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def limit():
    """Let the program take no more than it has, and some room."""
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (HURRY_S, HURRY_S))


def main(suspect, other):
    warnings.simplefilter("error")
    out = suspect.with_name("out.gradflow")
    handle(other, other, out)  # the first time imports and allocates
    limit()
    before = peak()
    ended = handle(suspect, other, out)
    print(json.dumps({"ended": ended, "memory": peak() - before}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

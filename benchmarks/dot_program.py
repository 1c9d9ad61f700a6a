"""Graphviz' ``dot`` for peers that start it, where a machine has none: the Graphviz inside of pygraphviz.

Run as a program it stands in for ``dot``; :func:`provided` puts it on the path.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["draw", "provided"]


@contextmanager
def provided() -> Iterator[str]:
    """Put a ``dot`` on the path for a while, if there is none; tells which it is."""
    found = shutil.which("dot")
    if found:
        yield "`dot` of this machine"
        return
    before = os.environ["PATH"]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "dot"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n', "utf-8")
        program.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield "Graphviz as pygraphviz brings it"
        finally:
            os.environ["PATH"] = before


def draw(arguments: list[str]) -> None:
    """Lay out what is in a file or on standard input: ``-T``, ``-o``, ``-O`` and ``-K`` as of ``dot``."""
    import pygraphviz

    picture, engine, source, target, rest = "svg", "dot", "", "-", []
    waiting = iter(arguments)
    for argument in waiting:
        if argument.startswith("-T"):
            picture = argument[2:]
        elif argument.startswith("-K"):
            engine = argument[2:]
        elif argument == "-O":
            target = ""
        elif argument.startswith("-o"):
            target = argument[2:] or next(waiting)
        elif argument.startswith("-"):
            rest.append(argument)
        else:
            source = argument
    text = Path(source).read_text("utf-8") if source else sys.stdin.read()
    drawn = pygraphviz.AGraph(string=text).draw(format=picture, prog=engine, args=" ".join(rest))
    content = drawn if isinstance(drawn, bytes) else drawn.encode()
    if target == "-":
        sys.stdout.buffer.write(content)
    else:
        Path(target or f"{source}.{picture}").write_bytes(content)


if __name__ == "__main__":
    if "-V" in sys.argv:
        sys.stderr.write("dot - graphviz version 0 (pygraphviz)\n")
        sys.exit()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # some take a warning about fonts for a failure
    draw(sys.argv[1:])

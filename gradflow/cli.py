"""The command line: ``gradflow demo`` trains a small network and shows what each path contributed,
``gradflow explain`` tells in words what a recording holds, ``gradflow compare`` puts two side by side;
``gradflow diagram`` draws a classic one, ``gradflow lessons`` copies the lessons and opens them.

torch and matplotlib are imported inside the commands, so that ``gradflow --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradflow.errors import GradflowError, InvalidArgumentError, NotKeptError, need

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from gradflow.recording import Recording, Step
    from gradflow.zoo import Scene

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]

MODELS = ("triplet", "contrastive")
RATES = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3}
DRAWN = (".svg", ".pdf", ".png")
_SIGNS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(
    (0x7F, *range(0x80, 0xA0)), "\N{SYMBOL FOR DELETE}"
)
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows ``gradflow`` on the command line; None for that of this process.

    Returns:
        The exit code: 0, 2 after an error of ours (told on stderr), 130 after Ctrl-C.
    """
    given = _parser().parse_args(arguments)
    try:
        return int(given.command(given))
    except GradflowError as error:
        print(str(error).translate(_SIGNS), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    about = "See how the gradients of several paths meet in one shared weight."
    parser = argparse.ArgumentParser(prog="gradflow", description=about)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_explain(commands)
    _add_compare(commands)
    _add_diagram(commands)
    _add_lessons(commands)
    _add_merge(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    told = "train a small network and write what each path contributed: pictures, a report, a recording"
    demo = commands.add_parser("demo", help=told, description=told.capitalize() + ".")
    demo.set_defaults(command=_demo)
    demo.add_argument("--model", choices=MODELS, default=MODELS[0], help="scene of the zoo (%(default)s)")
    demo.add_argument("--steps", type=_positive, default=30, metavar="N", help="steps to train (%(default)s)")
    demo.add_argument(
        "--optimizer", choices=RATES, default="adam", help="what moves the weights (%(default)s)"
    )
    demo.add_argument(
        "--seed", type=int, default=0, metavar="N", help="for weights and batches (%(default)s)"
    )
    out = "folder for the files, made if need be (%(default)s)"
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help=out)


def _add_explain(commands: Commands) -> None:
    told = "tell in words, with numbers, what happened in one step of a recording"
    explain = commands.add_parser("explain", help=told, description=told.capitalize() + ".")
    explain.set_defaults(command=_explain)
    explain.add_argument("recording", type=Path, help="file, as recording.save or `gradflow demo` writes it")
    step = "number of the step, or -1 for the last (by default the last with a gradient)"
    explain.add_argument("--step", type=int, metavar="N", help=step)
    place = "a parameter or a module (by default the whole model)"
    explain.add_argument("--param", default="", metavar="NAME", help=place)


def _add_compare(commands: Commands) -> None:
    told = "put two recordings side by side: a table of what differs, and a picture if wanted"
    compare = commands.add_parser("compare", help=told, description=told.capitalize() + ".")
    compare.set_defaults(command=_compare)
    compare.add_argument("first", type=Path, help="file, as recording.save or `gradflow demo` writes it")
    compare.add_argument("second", type=Path, help="the file to compare it with")
    place = "a parameter or a module (by default the whole model)"
    compare.add_argument("--param", default="", metavar="NAME", help=place)
    scalar = "a logged scalar that the picture shows too (by default loss, where there is one)"
    compare.add_argument("--scalar", metavar="NAME", help=scalar)
    compare.add_argument("--theme", choices=("light", "dark"), default="light", help="(%(default)s)")
    compare.add_argument("--out", type=Path, metavar="FILE", help="where to draw: .svg, .pdf, .png")


def _add_diagram(commands: Commands) -> None:
    told = "draw a classic diagram for a slide or a paper, from a real training step"
    diagram = commands.add_parser("diagram", help=told, description=told.capitalize() + ".")
    diagram.set_defaults(command=_diagram)
    diagram.add_argument("name", help="triplet, siamese, lstm, tied, multitask, two-models, simsiam ...")
    diagram.add_argument(
        "--format", default="svg", metavar="KIND", help="svg, pdf, png, html ... (%(default)s)"
    )
    diagram.add_argument("--theme", choices=("light", "dark"), default="light", help="(%(default)s)")
    diagram.add_argument("--plain", action="store_true", help="names alone, without operations and sizes")
    diagram.add_argument("--structure", action="store_true", help="without the numbers of a step")
    diagram.add_argument("--out", type=Path, metavar="FILE", help="the file (NAME.KIND here)")


def _add_lessons(commands: Commands) -> None:
    told = "copy the lessons (notebooks, without the solutions) to a folder, and open them in JupyterLab"
    lessons = commands.add_parser("lessons", help=told, description=told.capitalize() + ".")
    lessons.set_defaults(command=_lessons)
    folder = "folder to work in, made if need be; what is there already stays (%(default)s)"
    lessons.add_argument("folder", type=Path, nargs="?", default=Path("lessons"), metavar="DIR", help=folder)
    lessons.add_argument("--no-open", action="store_true", help="copy only")
    options = "after --: options for JupyterLab, such as --no-browser"
    lessons.add_argument("options", nargs="*", metavar="OPTION", help=options)


def _add_merge(commands: Commands) -> None:
    told = "put the recordings of several ranks (DDP, FSDP2) together"
    merge = commands.add_parser("merge", help=told, description=told.capitalize() + ".")
    merge.set_defaults(command=_merge)
    merge.add_argument("recordings", type=Path, nargs="+", metavar="FILE", help="one file of each rank")
    merge.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the merged file")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _demo(given: argparse.Namespace) -> int:
    path = _folder(given.out) / "recording.gradflow"
    from gradflow import storage, zoo

    scene = zoo.scene(given.model)
    print(f"{scene.title}\n", flush=True)
    fqn = _train(scene, given, to=path)
    recording = storage.load(path)
    _tell(recording.last)
    files = [*_draw(recording.last, fqn, given.out), _report(recording, given.out), path]
    print("\nWritten:", *files, sep="\n  ")
    return 0


def _explain(given: argparse.Namespace) -> int:
    from gradflow import storage
    from gradflow.render.explain import explain

    _say(explain(storage.load(given.recording), step=given.step, param=given.param))
    return 0


def _compare(given: argparse.Namespace) -> int:
    from gradflow import storage

    first, second = storage.load(given.first), storage.load(given.second)
    names = _run_names(given.first, given.second)
    _say(first.compare(second, given.param, names=names))
    if given.out is not None:
        from gradflow.render import figures

        logged = any("loss" in run.last.scalars for run in (first, second))
        scalar = given.scalar or ("loss" if logged else None)
        drawn = figures.compare(first, second, given.param, names=names, scalar=scalar, theme=given.theme)
        _saved(drawn, given.out)
        print(f"\nWritten: {given.out}")
    return 0


def _run_names(first: Path, second: Path) -> tuple[str, str]:
    """Call runs by their files, with the folder if need be."""
    if first.stem != second.stem:
        return first.stem, second.stem
    named = str(first.with_suffix("")), str(second.with_suffix(""))
    return named if named[0] != named[1] else (named[0], f"{named[1]} (again)")


def _diagram(given: argparse.Namespace) -> int:
    from gradflow.diagrams import diagram

    path = given.out or Path(f"{given.name}.{given.format}")
    print(diagram(given.name, path, theme=given.theme, details=not given.plain, values=not given.structure))
    return 0


def _lessons(given: argparse.Namespace) -> int:
    from gradflow.lessons.copies import copy_lessons

    copied = copy_lessons(given.folder)
    print(f"{len(copied)} lessons in {given.folder}; begin with {copied[0].name}", flush=True)
    if given.no_open:
        return 0
    need("jupyterlab", extra="lab", for_="gradflow lessons")
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", *root, *given.options, str(given.folder)]
    return subprocess.run(command, check=False).returncode


def _merge(given: argparse.Namespace) -> int:
    from gradflow import storage
    from gradflow.averaging import averaging
    from gradflow.merging import merge

    ranks = [storage.load(path) for path in given.recordings]
    recording = storage.load(storage.save(merge(ranks), given.out))
    left_out = max(map(len, ranks)) - len(recording)
    print(f"{len(recording)} steps of {len(ranks)} ranks in {given.out}")
    if left_out:
        print(f"{left_out} steps were left out: not every rank has them")
    for finding in recording.last.findings if len(recording) else ():
        _say(f"  {finding}")
    with suppress(NotKeptError):
        _say(f"\n{averaging(ranks, position=len(recording) - 1)}" if len(recording) else "")
    return 0


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgumentError(
            f"the folder {str(path)!r} cannot be made ({error.strerror})",
            where="gradflow demo --out",
            do="give another folder",
        ) from error
    return path


def _optimizer(name: str, model: nn.Module) -> Optimizer:
    import torch

    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=RATES[name], momentum=0.9)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(model.parameters(), lr=RATES[name])


def _train(scene: Scene, given: argparse.Namespace, *, to: Path) -> str:
    """Train as ever, watched; give the FQN of the parameter whose tensors were kept."""
    import torch
    from tqdm import tqdm

    from gradflow.capture.recorder import watch

    torch.manual_seed(given.seed)
    model: nn.Module = scene.build()
    optimizer = _optimizer(given.optimizer, model)
    fqn = next(name for name, p in model.named_parameters() if p.ndim >= 2)  # one with rows and columns
    flow = watch(model, optimizer, branches=scene.watch_branches(model), keep=[fqn], to=to)
    try:
        with flow, tqdm(islice(scene.batches(seed=given.seed), given.steps), total=given.steps) as bar:
            for batch in bar:
                loss, scalars = scene.loss(model, batch)
                flow.log(loss=loss, **scalars)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.set_postfix(loss=f"{loss.item():.4f}")
    except KeyboardInterrupt:
        print(f"Stopped after {len(flow.recording)} steps; they are in {to}", file=sys.stderr)
        raise
    return fqn


def _tell(step: Step) -> None:
    from gradflow.render import text

    print(f"Step {step.index}: what each path contributed to each parameter")
    print(text.table(step))
    if step.findings:
        print("\nFindings")
    for finding in step.findings:
        print(f"  {finding}")


def _draw(step: Step, fqn: str, folder: Path) -> list[Path]:
    from gradflow.render import figures

    equation, flow = figures.equation(step, fqn), figures.flow(step)
    return [
        _saved(equation, folder / "equation.svg"),
        _saved(equation, folder / "equation.png"),
        _saved(flow, folder / "flow.svg"),
    ]


def _saved(figure: Any, file: Path) -> Path:  # Any: what a matplotlib figure is, only render knows
    if file.suffix.lower() not in DRAWN:
        raise InvalidArgumentError(
            f"{str(file)!r} names no picture",
            where="gradflow --out",
            do=f"end it in {', '.join(DRAWN)}",
        )
    undated = {"Date": None} if file.suffix == ".svg" else {}
    try:
        figure.savefig(file, dpi=200, metadata=undated)
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(
            f"the picture {file.name!r} cannot be written ({error})",
            where="gradflow --out",
            do="see that its folder exists and may be written",
        ) from error
    return file


def _say(told: object) -> None:
    """Print what a file says, with a sign for each character that would steer a terminal."""
    print(str(told).translate(_SIGNS))


def _report(recording: Recording, folder: Path) -> Path:
    from gradflow.reports import report

    report(recording, folder / "report.html")
    return folder / "report.html"

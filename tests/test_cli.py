"""The command line, run for real."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import gradflow
from gradflow import cli, zoo
from gradflow.cli import main
from gradflow.recording import Recording, Step
from gradflow.render.explain import explain
from tests import records

HEAVY = {"torch", "numpy", "matplotlib", "sqlite3", "rich", "tqdm", "pandas"}
ROOT = Path(__file__).parent.parent
FILES = {"equation.png", "equation.svg", "flow.svg", "recording.gradflow", "report.html"}


def fresh(*command):
    """Run a fresh interpreter on ``command``, from the root of the checkout."""
    run = [sys.executable, *map(str, command)]
    return subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments):
    code = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from gradflow.cli import main
main({arguments})
"""
    run = fresh("-c", code)
    assert run.returncode == 0
    assert run.stdout.startswith(f"usage: gradflow {'demo ' if 'demo' in arguments else ''}")
    assert not {name.partition(".")[0] for name in json.loads(run.stderr)} & HEAVY


def test_python_m_gradflow_is_the_command_line():
    run = fresh("-m", "gradflow", "demo", "--help")
    assert run.returncode == 0
    assert "--steps" in run.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["demo", "--steps", "0"], ["demo", "--steps", "x"], ["demo", "--model", "x"]],
)
def test_wrong_arguments_exit_with_2_and_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: gradflow")


def test_an_error_of_ours_is_three_lines_on_stderr_and_exits_with_2(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert lines[0].startswith(f"the folder '{tmp_path / 'file'}' cannot be made")
    assert lines[1:] == ["  where: gradflow demo --out", "  do:    give another folder"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One demo as a user runs it: (its folder, the finished process)."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    arguments = ["--model", "contrastive", "--steps", "3", "--optimizer", "sgd", "--seed", "1", "--out", out]
    return out, fresh("-m", "gradflow", "demo", *arguments)


def test_the_demo_writes_its_files_and_says_which(demo):
    folder, run = demo
    assert run.returncode == 0, run.stderr
    assert {path.name for path in folder.iterdir()} == FILES
    written = run.stdout.partition("Written:")[2].split()
    assert {Path(name).name for name in written} == FILES


def test_the_demo_tells_what_each_path_contributed(demo):
    folder, run = demo
    step = gradflow.load(folder / "recording.gradflow").last
    assert step.branches == ("left", "right")
    for fqn in step.params:
        assert fqn in run.stdout
    for finding in step.findings:
        assert finding.text in run.stdout


def test_the_demo_trains_with_a_bar(demo):
    _, run = demo
    assert "3/3" in run.stderr
    assert "loss=" in run.stderr
    assert "Warning" not in run.stderr


def test_the_recording_of_the_demo_is_whole_and_exact(demo):
    recording = gradflow.load(demo[0] / "recording.gradflow")
    assert len(recording) == 3
    for step in recording:
        assert step.complete
        assert "loss" in step.scalars
        assert all(p.residual == 0.0 for p in step)
        assert all(p.delta.rule == "SGD" for p in step)


def test_the_pictures_of_the_demo_are_pictures(demo):
    folder, _ = demo
    for name in ("equation.svg", "flow.svg"):
        assert ET.parse(folder / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert (folder / "equation.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")


def trained(path, *arguments):
    """The recording of a demo's training alone, without its pictures."""
    given = cli._parser().parse_args(["demo", "--steps", "2", *arguments])
    assert cli._train(zoo.scene(given.model), given, to=path) == "blocks.0.conv.weight"
    return gradflow.load(path)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_optimizer_can_be_chosen(optimizer, tmp_path):
    step = trained(tmp_path / "run.gradflow", "--optimizer", optimizer).last
    assert step.branches == ("anchor", "positive", "negative")
    assert {p.delta.rule.lower() for p in step} == {optimizer}


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path):
    losses = [trained(tmp_path / "run.gradflow", "--seed", seed).last.scalars["loss"] for seed in "334"]
    assert losses[0] == losses[1] != losses[2]


def test_only_the_tensors_of_the_parameter_that_is_drawn_are_kept(tmp_path):
    step = trained(tmp_path / "run.gradflow").last
    assert [p.fqn for p in step if p.total_tensor is not None] == ["blocks.0.conv.weight"]


def test_ctrl_c_keeps_what_was_recorded_and_exits_with_130(tmp_path):
    """A real Ctrl-C, once the bar shows that training goes on; heard in the background too."""
    heard = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = heard + "runpy.run_module('gradflow', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", program, "demo", "--steps", "100000", "--out", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        shown = ""
        while "loss=" not in shown:
            read = run.stderr.read(1)
            assert read, shown
            shown += read
        os.kill(run.pid, signal.SIGINT)
        rest = run.stderr.read()
    assert run.returncode == 130
    steps = len(gradflow.load(tmp_path / "recording.gradflow"))
    assert steps >= 1
    assert f"Stopped after {steps} steps; they are in {tmp_path / 'recording.gradflow'}" in rest
    assert "Traceback" not in rest


@pytest.fixture
def recorded(tmp_path):
    """A file of three steps, made by hand."""
    return records.recording(3).save(tmp_path / "run.gradflow")


def test_explain_tells_what_the_recording_holds(recorded, capsys):
    assert main(["explain", str(recorded)]) == 0
    assert capsys.readouterr().out == explain(gradflow.load(recorded)) + "\n"
    assert main(["explain", str(recorded), "--step", "1", "--param", "conv1.weight"]) == 0
    assert capsys.readouterr().out.startswith("Step 1, conv1.weight [4×3]: 3 branches send it a gradient.")
    assert main(["explain", str(recorded), "--step", "-1"]) == 0
    assert capsys.readouterr().out.startswith("Step 2, the whole model")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--step", "7"], "no step 7 was recorded"),
        (["--param", "conv1.wieght"], "no parameter or module 'conv1.wieght' among"),
    ],
)
def test_explain_says_what_is_wrong_in_three_lines(arguments, what, recorded, capsys):
    assert main(["explain", str(recorded), *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(what)


def test_explain_of_no_file_says_so(tmp_path, capsys):
    assert main(["explain", str(tmp_path / "none.gradflow")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_explain_needs_neither_torch_nor_a_plotting_package(recorded):
    code = """
import json, sys
from gradflow.cli import main
main(["explain", sys.argv[1]])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    run = fresh("-c", code, recorded)
    assert run.stdout.startswith("Step 2")
    assert not {name.partition(".")[0] for name in json.loads(run.stderr)} & {"torch", "matplotlib", "rich"}


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_diagram_writes_what_was_asked_for(kind, start, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["diagram", "siamese", "--format", kind, "--theme", "dark"]) == 0
    assert capsys.readouterr().out.strip() == f"siamese.{kind}"
    assert (tmp_path / f"siamese.{kind}").read_bytes().startswith(start)


def test_plain_diagram_without_numbers_goes_where_it_is_told(tmp_path):
    out = tmp_path / "slide.svg"
    assert main(["diagram", "tied", "--plain", "--structure", "--out", str(out)]) == 0
    assert "Σ" not in out.read_text(encoding="utf-8")


def test_unknown_diagram_is_told_with_near_names(capsys):
    assert main(["diagram", "triplett"]) == 2
    assert "did you mean 'triplet'" in capsys.readouterr().err


@pytest.fixture
def two_runs(tmp_path):
    """Two files of one name in folders of their own."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder, steps in zip(folders, (3, 4), strict=True):
        folder.mkdir()
        records.recording(steps).save(folder / "run.gradflow")
    return [folder / "run.gradflow" for folder in folders]


def test_compare_tells_two_recordings_side_by_side(two_runs, capsys):
    assert main(["compare", *map(str, two_runs), "--param", "fc.weight"]) == 0
    names = tuple(str(path.with_suffix("")) for path in two_runs)
    first, second = map(gradflow.load, two_runs)
    assert capsys.readouterr().out == f"{first.compare(second, 'fc.weight', names=names)}\n"


def test_compare_draws_where_it_is_told(two_runs, tmp_path, capsys):
    out = tmp_path / "both.svg"
    assert main(["compare", *map(str, two_runs), "--out", str(out), "--theme", "dark"]) == 0
    assert capsys.readouterr().out.endswith(f"Written: {out}\n")
    assert "loss" in out.read_text(encoding="utf-8")
    assert ET.parse(out).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_compare_of_no_file_says_so(two_runs, tmp_path, capsys):
    assert main(["compare", str(two_runs[0]), str(tmp_path / "none.gradflow")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_runs_are_called_by_their_files():
    assert cli._run_names(Path("a/x.gradflow"), Path("a/y.gradflow")) == ("x", "y")
    assert cli._run_names(Path("a/x.gradflow"), Path("b/x.gradflow")) == ("a/x", "b/x")
    assert cli._run_names(Path("x.gradflow"), Path("x.gradflow")) == ("x", "x (again)")


def test_lessons_are_copied_without_solutions(tmp_path, capsys):
    assert main(["lessons", str(tmp_path / "mine"), "--no-open"]) == 0
    copies = sorted((tmp_path / "mine").glob("*.ipynb"))
    assert [path.name for path in copies] == [path.name for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    assert f"{len(copies)} lessons in {tmp_path / 'mine'}; begin with 01_" in capsys.readouterr().out
    for path in copies:
        assert '"solution"' not in path.read_text(encoding="utf-8")


def test_lessons_open_jupyterlab_with_the_options_given(tmp_path, monkeypatch):
    commands = []

    def run(command, check):
        commands.append(command)
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(cli.subprocess, "run", run)
    assert main(["lessons", str(tmp_path), "--", "--no-browser", "--port=9000"]) == 7
    (command,) = commands
    assert command[1:3] == ["-m", "jupyterlab"]
    assert command[-3:] == ["--no-browser", "--port=9000", str(tmp_path)]


def test_copying_lessons_needs_no_torch(tmp_path):
    code = (
        "import sys; from gradflow.cli import main\n"
        f"main(['lessons', {str(tmp_path)!r}, '--no-open'])\n"
        "print({'torch', 'matplotlib', 'ipywidgets'} & set(sys.modules))"
    )
    assert fresh("-c", code).stdout.endswith("set()\n")


@pytest.mark.parametrize("name", ["picture", "picture.xyz", "nowhere/picture.svg", "x" * 5000 + ".svg"])
def test_a_picture_that_cannot_be_written_is_told(name, recorded, tmp_path, capsys):
    assert main(["compare", str(recorded), str(recorded), "--out", str(tmp_path / name)]) == 2
    what, where, do = capsys.readouterr().err.rstrip("\n").split("\n")
    assert what.endswith("names no picture") or "cannot be written" in what
    assert where == "  where: gradflow --out"
    assert do.startswith("  do:    ")


def test_what_a_file_says_does_not_steer_the_terminal(tmp_path, capsys):
    evil = "\x1b]0;title\x07\x1b[31m\x9b2J\x7f"
    p = records.param_step(f"fc{evil}.weight", contributors=(evil, "b"))
    path = Recording([Step(0, {p.fqn: p}, (evil, "b"), {evil: 1.0})]).save(tmp_path / "run.gradflow")
    assert main(["explain", str(path)]) == main(["compare", str(path), str(path)]) == 0
    assert main(["explain", str(path), "--param", evil]) == 2
    told = capsys.readouterr()
    assert "␛]0;title␇␛[31m" in told.out
    assert {c for c in told.out + told.err if not c.isprintable()} <= {"\n", " "}

"""What the README shows is so: its code runs, its commands, files and pictures are there."""

import doctest
import re
import subprocess
from pathlib import Path

import pytest
import torch

import gradflow
from gradflow import zoo
from gradflow.zoo.triplet import triplet_loss
from tests.test_cli import FILES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def blocks(language):
    found = [text for kind, text in BLOCKS if kind == language]
    assert found
    return found


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for text in blocks("python"):
        if text.startswith(">>>"):
            session = doctest.DocTestParser().get_doctest(text, names, "README.md", "README.md", 0)
            told = []
            result = doctest.DocTestRunner().run(session, out=told.append, clear_globs=False)
            assert (result.attempted > 0, result.failed) == (True, 0), "".join(told)
            names = session.globs
        else:
            exec(compile(text, "README.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.gradflow",
        "report.html",
        "graph.svg",
        "triplet.svg",
    }


def loop(with_gradflow):
    """The loop of the README with, or without, the lines that it adds."""
    [diff] = blocks("diff")
    lines = [line for line in diff.splitlines() if with_gradflow or not line.startswith("+")]
    assert all(line.startswith(("+ ", "  ")) for line in lines)
    return "\n".join(line[2:] for line in lines)


def train(code):
    """Run the loop on three batches of digits: (what it names, the weights it ends with)."""
    torch.manual_seed(0)
    encoder = zoo.scene("triplet").build()
    batches = zoo.scene("triplet").batches(seed=0, size=4)
    names = {
        "gradflow": gradflow,
        "encoder": encoder,
        "optimizer": torch.optim.Adam(encoder.parameters()),
        "triplet_loss": lambda *embeddings: triplet_loss(*embeddings)[0],
        "loader": [next(batches) for _ in range(3)],
    }
    exec(compile(code, "README.md", "exec"), names)
    return names, encoder.state_dict()


def test_the_diff_of_the_readme_records_and_changes_no_bit():
    _, plain = train(loop(with_gradflow=False))
    names, watched = train(loop(with_gradflow=True))
    assert all(torch.equal(plain[key], watched[key]) for key in plain)
    recording = names["flow"].recording
    assert len(recording) == 3
    assert recording.branches == ("anchor", "positive", "negative")
    assert all(p.residual == 0.0 for step in recording for p in step)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for alt, target in re.findall(r"(!?\[[^\]]*\])\(([^)]+)\)", text):
        assert (ROOT / target).is_file(), target
        assert len(alt.strip("![]")) > (20 if alt.startswith("!") else 0), "a picture is told in words too"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_that_is_named_exists(document):
    targets = set(re.findall(r"make ([a-z]+)\b(?= |`|\n)", document.read_text(encoding="utf-8")))
    assert {"demo", "test"} <= targets
    for target in targets:
        run = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr


def test_the_files_of_the_demo_are_those_the_readme_lists():
    listed = re.findall(r"`([\w]+\.(?:svg|png|html|gradflow))`", README.partition("## In ten lines")[0])
    assert set(listed) == FILES


def test_the_folders_of_contributing_are_those_of_the_package():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for cell in table for name in re.findall(r"`([^`]+)`", cell)}
    package = ROOT / "gradflow"
    there = {p.name for p in package.iterdir() if not p.name.startswith("__") and p.suffix in ("", ".py")}
    assert named == there


def test_what_watching_costs_is_quoted_from_the_benchmarks():
    told = README.split("Watching is not free", 1)[1].split("\n- ", 1)[0]
    quoted = re.findall(r"\d\.\d{3}", told)
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    assert quoted
    assert set(quoted) <= set(re.findall(r"\d+\.\d{3}", results))

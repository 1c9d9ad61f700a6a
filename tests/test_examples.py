"""The examples run, are short, and warn of nothing; the pages about them say what is so."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import gradflow
from gradflow import cli, data, integrations
from gradflow.storage import load
from gradflow.zoo import triplet
from tests.distributed.torchrun import torchrun
from tests.integrations import noise
from tests.integrations.conftest import forget_accelerate

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples"
SHORT = sorted(FOLDER.glob("*.py"))
QUESTIONS = sorted((FOLDER / "keras_questions").glob("*.py"))
PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
SAYS = {
    "accelerate_triplet": "Recording of 5 steps",
    "ddp": "other ranks",
    "huggingface_gpt2": "tied: also lm_head.weight",
    "keras_siamese": "encoder.conv.kernel [5×5×1×8]",
    "lightning_triplet": "Recording of 10 steps",
    "metric_learning_roles": "anchor + negative",
    "plain_pytorch": "the arrivals add up to Σ bitwise",
    "sentence_transformers_triplet": "branches anchor (A), positive (P), negative (N)",
    "tensorboard_triplet": "wrote events.out.tfevents",
    "three_resnets": "three_networks: 636 weights, each with the gradients of [1] of the three paths",
    "triplet_cnn": "Conv1.kernel [3×3×1×16]",
    "two_models": "B: 20 steps moved the shared kernel",
}

pytestmark = [*noise.LIGHTNING, *noise.KERAS]


def run(path, *arguments):
    if path.stem == "ddp":
        run_on_two_ranks(path, *arguments)
        return
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(*arguments)


def run_on_two_ranks(path, folder):
    done = torchrun(path, 2, folder)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    files = [str(Path(folder, f"ddp.rank{rank}.gradflow")) for rank in range(2)]
    assert cli.main(["merge", *files, "-o", str(Path(folder, "merged.gradflow"))]) == 0


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path_factory):
    """The current folder, of the test's own; what a library keeps for itself is forgotten."""
    folder = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(folder)
    forget_accelerate()
    yield folder
    forget_accelerate()


@pytest.mark.parametrize("path", SHORT, ids=lambda path: path.stem)
def test_an_example_runs_tells_its_story_and_leaves_no_file_where_it_was_started(
    path, capsys, tmp_path, here
):
    run(path, *([str(tmp_path)] if path.stem in ("ddp", "tensorboard_triplet") else []))
    assert SAYS[path.stem] in capsys.readouterr().out
    assert list(here.rglob("*")) == []


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem == "three_resnets")) for p in QUESTIONS],
)
def test_a_question_runs_is_answered_and_leaves_no_file_where_it_was_started(path, capsys, here):
    run(path)
    assert SAYS[path.stem] in capsys.readouterr().out
    assert list(here.rglob("*")) == []


@pytest.mark.parametrize("path", SHORT, ids=lambda path: path.stem)
def test_an_example_has_fewer_than_forty_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40


def test_the_table_names_every_example_and_every_extra():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\[[^\]]+\]\(([^)#]+)\)", text)
    for target in linked:
        assert (FOLDER / target).is_file(), target
    assert {p.relative_to(FOLDER).as_posix() for p in (*SHORT, *QUESTIONS)} <= set(linked)
    assert set(SAYS) == {p.stem for p in (*SHORT, *QUESTIONS)}
    extras = set(re.findall(r"\| `([\w-]+)` \|$", text, flags=re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert extras
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), extra


def test_links_of_the_page_lead_somewhere_and_every_module_has_its_part():
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-")
        for h in re.findall(r"^## (.+)$", PAGE, re.M)
    }
    for target in re.findall(r"\[[^\]]+\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        assert anchor in headings if not path else (ROOT / "docs" / path).is_file(), target
    listed = set(re.findall(r"\| `(\w+)` \| `", PAGE))
    assert listed == set(integrations.__all__) - {"distributed"}


def names_for(kind, tmp_path):
    """What a snippet of the page takes for granted."""
    torch.manual_seed(0)
    encoder = triplet.Encoder((1, 2, 2, 2, 2, 2), embedding=4)
    batches = [b for _, b in zip(range(4), triplet.batches(size=4), strict=False)]
    names = {"torch": torch, "gradflow": gradflow, "encoder": encoder, "batches": batches}
    if kind == "Lightning":
        from tests.integrations.test_lightning import Triplets

        names["module"] = Triplets()
        names["module"].encoder = encoder
        names["batches"] = torch.utils.data.DataLoader(batches, batch_size=None)
    if kind == "Hugging Face Trainer":
        from transformers import TrainingArguments

        from tests.integrations import test_transformers as of_gpt2

        how = {"max_steps": 2, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
        names |= {
            "gpt2": of_gpt2.gpt2(),
            "pieces": of_gpt2.pieces(),
            "arguments": TrainingArguments(str(tmp_path), **how),
        }
    if kind == "accelerate":
        names["triplet_loss"] = lambda *embeddings: triplet.triplet_loss(*embeddings)[0]
    if kind == "Keras 3 on torch":
        images = data.digits()[0][::500].transpose(0, 2, 3, 1)
        names |= {"pairs": [images, images[::-1]], "targets": np.zeros((10, 4))}
    if kind == "pytorch-metric-learning":
        images, labels = data.digits()
        rows = torch.arange(0, 5000, 200)
        names["images"] = torch.nn.functional.pad(torch.tensor(images)[rows], (2, 2, 2, 2))
        names["labels"] = torch.tensor(labels)[rows]
    if kind == "TensorBoard":
        optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
        with gradflow.watch(encoder, optimizer, keep="fc.*", to=tmp_path / "run.gradflow"):
            triplet.triplet_loss(*map(encoder, batches[0]))[0].backward()
            optimizer.step()
        names |= {"recording": load(tmp_path / "run.gradflow"), "folder": str(tmp_path / "board")}
    return names


PARTS = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("kind", PARTS)
def test_the_snippets_of_the_page_run(kind, tmp_path, capsys):
    names = names_for(kind, tmp_path)
    exec(compile(PARTS[kind], "docs/integrations.md", "exec"), names)
    if "flow" in names:
        assert len(names["flow"].recording)
    capsys.readouterr()

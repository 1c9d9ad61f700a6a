"""Each finding has a broken run that triggers it and a healthy one that does not, and is in the catalogue."""

import ast
import re
from itertools import islice
from pathlib import Path

import pytest
import torch

import gradflow
from gradflow import zoo
from gradflow.findings.catalogue import CATALOGUE
from tests.findings.broken import CASES

PACKAGE = Path(gradflow.__file__).parent
ENTRIES = {entry.code: entry for entry in CATALOGUE}
ELSEWHERE = {
    "residual",  # test_step.py makes it by hand: no small model has it
    "rounding",  # likewise
    "gradient-left",  # tests/checks: a run that is watched has a gradient anyway
    "rank",  # tests/distributed: needs several processes
    "ranks",  # likewise
    "comm-hook",  # likewise
    "merged",  # test_merging.py: of recordings, when training is over
    "ranks-differ",  # likewise
}
BROKEN_ON_PURPOSE = {
    "twins": {"copies"},  # two copies that drift apart are what it shows
    "simsiam_one_sided": {"branch-absent"},  # a stop-gradient looks like a forgotten branch
}


@pytest.mark.parametrize("code", sorted(CASES))
def test_the_broken_run_is_told_of_and_the_healthy_one_is_not(code):
    case = CASES[code]
    broken, healthy = case.broken().findings(), case.healthy().findings()
    assert {f.severity for f in broken if f.code == code} == {case.severity}
    assert code not in healthy.codes
    assert not healthy.warnings


@pytest.mark.parametrize("code", sorted({*CASES, *ENTRIES}))
def test_each_code_has_an_entry_and_a_case(code):
    assert code in ENTRIES
    assert code in {*CASES, *ELSEWHERE}
    if code in CASES:
        assert ENTRIES[code].severity in (CASES[code].severity, "either")


def codes_in_the_source():
    """(code, severities) of every ``Finding(...)`` that the package makes from literals."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "Finding"
                and len(node.args) > 1
            ):
                severity, code = node.args[:2]
                if isinstance(code, ast.Constant):
                    told = {n.value for n in ast.walk(severity) if isinstance(n, ast.Constant)}
                    yield path.name, code.value, told & {"warning", "note"}


def test_the_catalogue_has_exactly_the_codes_and_severities_of_the_source():
    made = {}
    for _, code, severities in codes_in_the_source():
        made.setdefault(code, set()).update(severities)
    what_to_do = "add it to gradflow/findings/catalogue.py and to CASES, then run python docs/findings.py"
    assert set(made) == set(ENTRIES), what_to_do
    for code, severities in made.items():
        allowed = {"warning", "note"} if ENTRIES[code].severity == "either" else {ENTRIES[code].severity}
        assert severities == allowed, code


@pytest.mark.parametrize("name", zoo.names(heavy=True))
def test_no_scene_of_the_zoo_gets_a_warning_in_training(name):
    scene = zoo.scene(name)
    torch.manual_seed(0)
    model = scene.build()
    optimizers = scene.optimizers(model)
    steps, size = (1, 2) if scene.heavy else (6, 8)
    with gradflow.watch(model, optimizers, branches=scene.watch_branches(model), stems=scene.stems) as flow:
        for batch in islice(scene.batches(seed=0, size=size), steps):
            loss, scalars = scene.loss(model, batch)
            flow.log(loss=loss, **scalars)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    recording = flow.recording
    expected = BROKEN_ON_PURPOSE.get(name, set())
    assert set(recording.findings().warnings.codes) == expected
    assert {f.code for step in recording for f in step.findings.warnings} == expected


def test_texts_end_as_sentences_do():
    for case in CASES.values():
        for finding in case.broken().findings():
            assert re.search(r"[.:]$", finding.text), finding.text
            assert "{" not in finding.text

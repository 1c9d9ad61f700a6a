"""``docs/deltas.md`` says what its code prints, and what the rules are."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import gradflow.updates
from gradflow.updates import rules

DOCS = Path(gradflow.updates.__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("deltas_page", DOCS / "deltas.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def page():
    return (DOCS / "deltas.md").read_text(encoding="utf-8")


def test_every_block_of_numbers_is_printed_by_the_script(script, page):
    shown = [block.strip("\n") for block in re.findall(r"```text\n(.*?)```", page, flags=re.S)]
    printed = [block() for block in script.BLOCKS]
    assert sorted(shown) == sorted(printed)


def test_the_parts_of_the_example_sum_to_its_deltas(script):
    for make in (script.sgd, script.adam, script.adamw):
        for seen in script.train(make):
            assert torch.allclose(script.total(seen.parts.values()), seen.delta, rtol=0, atol=1e-15)


def test_the_page_names_every_optimizer(page):
    named = set(re.findall(r"^\| `(\w+)`", page, flags=re.M))
    ruled = {kind.__name__ for kind in rules._RULES if kind.__module__.startswith("torch.optim")}
    assert ruled | set(rules._WHOLE) <= named


def test_the_page_says_what_a_share_is_not(page):
    assert "A share is an accounting, not what the branch alone would have done." in page


def test_the_rule_of_the_page_is_the_one_that_is_tested(page):
    from tests.updates import test_rules

    lines = [
        line.split("  #")[0].strip() for line in re.search(r"```python\n(.*?)```", page, re.S)[1].splitlines()
    ]
    source = Path(test_rules.__file__).read_text(encoding="utf-8")
    body = [line for line in lines if line.startswith(("def ", "memory", "return"))]
    assert body
    assert all(line in source for line in body)

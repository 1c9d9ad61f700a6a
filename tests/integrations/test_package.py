"""The package of integrations: what loading it costs, and what a missing library is told as."""

import importlib
import sys

import pytest

from gradflow import integrations
from gradflow.errors import MissingPackageError
from gradflow.integrations.plan import Plan, for_rank
from tests.test_imports import loaded_by

LIBRARIES = {
    "accelerate",
    "keras",
    "lightning",
    "pytorch_metric_learning",
    "sentence_transformers",
    "tensorboard",
    "transformers",
}
EXTRAS = {
    "keras": "keras",
    "lightning": "lightning",
    "sentence_transformers": "sentence-transformers",
    "transformers": "transformers",
}


def test_importing_the_package_loads_no_library_and_no_torch():
    assert not loaded_by("import gradflow.integrations") & (LIBRARIES | {"torch", "numpy"})


@pytest.mark.parametrize("name", ["accelerate", "metric_learning", "tensorboard"])
def test_what_is_no_callback_loads_its_library_when_used(name):
    assert not loaded_by(f"import gradflow.integrations.{name}") & LIBRARIES


def test_every_name_opens_and_no_other():
    for name in integrations.__all__:
        assert getattr(integrations, name).__name__ == f"gradflow.integrations.{name}"
    assert set(integrations.__all__) <= set(dir(integrations))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = integrations.nonsense


@pytest.mark.parametrize("name", sorted(EXTRAS))
def test_a_missing_library_is_told_with_its_extra(name, monkeypatch):
    module = f"gradflow.integrations.{name}"
    for loaded in [m for m in sys.modules if m == module or m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [_Refusing(name), *sys.meta_path])
    with pytest.raises(MissingPackageError) as error:
        importlib.import_module(module)
    assert f"'.[{EXTRAS[name]}]'" in error.value.do
    assert error.value.where == module


class _Refusing:
    """Finds nothing of one library."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, wanted, *_args):
        if wanted.partition(".")[0] == self.name:
            raise ModuleNotFoundError(wanted, name=wanted)


def test_each_of_several_processes_writes_a_file_of_its_own(tmp_path):
    assert for_rank(tmp_path / "a.gradflow", 0, 1) == tmp_path / "a.gradflow"
    assert for_rank(tmp_path / "a.gradflow", 2, 4) == tmp_path / "a.rank2.gradflow"


def test_a_plan_gives_a_step_once_and_only_when_one_is_due():
    import torch

    from tests.integrations.triplets import NAMES, batches, encoder, loss_of

    net = encoder()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    plan = Plan("here", "", NAMES, {})
    assert plan.news() is None
    plan.begin(net, [optimizer])
    told = []
    for batch in batches(6):
        optimizer.zero_grad()
        loss_of(net, batch).backward()
        optimizer.step()
        told.append((plan.news(every=3) or plan.news(every=10**9)) and plan.recording.last.index)
    assert told == [None, None, 2, None, None, 5]
    plan.end()
    assert len(plan.recording) == 6

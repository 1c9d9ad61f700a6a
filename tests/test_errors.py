"""An error says in three lines what happened, where, and what to do."""

import copy
import pickle

import pytest

from gradflow import errors
from gradflow.errors import GradflowError, MissingPackageError, did_you_mean, need

ALL = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("kind", ALL)
def test_an_error_has_three_lines(kind):
    error = kind("no parameter 'a'", where="step['a']", do="did you mean 'b'?")
    assert str(error).split("\n") == [
        "no parameter 'a'",
        "  where: step['a']",
        "  do:    did you mean 'b'?",
    ]
    assert (error.what, error.where, error.do) == ("no parameter 'a'", "step['a']", "did you mean 'b'?")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_an_error_survives_a_pickle_and_a_copy(kind, again):
    error = kind("what", where="here", do="that")
    assert type(again(error)) is kind
    assert str(again(error)) == str(error)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_ours_and_what_a_caller_would_catch(kind):
    assert issubclass(kind, GradflowError)
    builtins = {"Invalid": ValueError, "Shape": ValueError, "NoSuchStep": IndexError, "NotKept": KeyError}
    builtins |= {"NoSuchParameter": KeyError, "NoSuchBranch": KeyError, "Missing": ImportError}
    builtins |= {"RecordingFile": ValueError, "Closed": RuntimeError, "Already": RuntimeError}
    for start, builtin in builtins.items():
        if kind.__name__.startswith(start):
            assert issubclass(kind, builtin)


def test_near_names_come_first_and_far_ones_are_listed():
    known = [f"layer{i}.weight" for i in range(12)]
    assert did_you_mean("layer3.wieght", known).startswith("did you mean 'layer3.weight'")
    assert did_you_mean("zzz", known[:2]) == "known: 'layer0.weight', 'layer1.weight'"
    assert did_you_mean("zzz", known).endswith(" and 4 more")
    assert did_you_mean("zzz", []) == "known: none"
    assert did_you_mean("zzz", ["a", "a"]) == "known: 'a'"


def test_at_most_three_near_names():
    assert did_you_mean("conv", ["conv1", "conv2", "conv3", "conv4"]).count("'") == 6


def test_a_package_that_is_there_is_imported():
    assert need("json", extra="lab", for_="this test").dumps([]) == "[]"


def test_a_missing_package_names_the_extra():
    with pytest.raises(MissingPackageError) as caught:
        need("no_such_package_anywhere", extra="lab", for_="recording.to_pandas()")
    assert str(caught.value).split("\n") == [
        "the package 'no_such_package_anywhere' is not installed",
        "  where: recording.to_pandas()",
        "  do:    pip install -e '.[lab]' in the checkout of gradflow",
    ]

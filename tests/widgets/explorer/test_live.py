"""The widget without a browser: what it accepts, answers, tells of growth, and leaves in a saved notebook."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gradflow
from gradflow.capture.session import Memory
from gradflow.errors import InvalidArgumentError, NoSuchStepError
from gradflow.recording import Recording
from gradflow.widgets.explorer import live
from gradflow.widgets.explorer.still import still
from tests import records


@pytest.fixture
def explorer():
    widget = gradflow.explore(records.recording(4))
    widget.sent = []
    widget.send = lambda content, buffers=None: widget.sent.append((content, buffers))
    yield widget
    widget.close()


def test_it_accepts_a_recording_or_what_has_one():
    class Recorder:
        recording = records.recording(2)

    for given in (Recorder.recording, Recorder()):
        widget = gradflow.explore(given)
        assert widget.book.indices == [0, 1]
        widget.close()


@pytest.mark.parametrize("given", [None, "run.gradflow", [1], object()])
def test_anything_else_is_refused_with_what_to_do(given):
    with pytest.raises(InvalidArgumentError, match="neither a recording nor a recorder"):
        gradflow.explore(given)


def test_the_state_is_small_and_begins_where_it_is_told(explorer):
    assert len(json.dumps(explorer.state)) < 300
    saved = json.loads(json.dumps(explorer.state)) | {"place": "fc.weight", "step": 2}
    again = gradflow.explore(records.recording(4), state=saved)
    assert again.state == saved
    again.close()
    with pytest.raises(InvalidArgumentError, match="no entry 'steps'"):
        gradflow.explore(records.recording(1), state={"steps": 3})


def test_questions_are_answered_with_numbers(explorer):
    explorer._answer({"id": "x:1", "ask": "step", "index": 3})
    [(content, [buffer])] = explorer.sent
    assert content["id"] == "x:1"
    np.testing.assert_array_equal(np.frombuffer(buffer), explorer.book.step(3).numbers)


@pytest.mark.parametrize(
    "question",
    [{}, {"ask": "step"}, {"ask": "step", "index": "3"}, {"ask": "__class__"}, {"ask": "maps", "index": 1}],
)
def test_what_is_no_question_is_told_to_the_page_and_raises_nothing(explorer, question):
    explorer._answer({"id": 7, **question})
    [(content, buffers)] = explorer.sent
    assert content["id"] == 7
    assert "no question" in content["error"]
    assert buffers is None


def test_a_step_that_is_gone_is_told_to_the_page(explorer):
    explorer._answer({"id": 1, "ask": "step", "index": 99})
    assert "no step of index 99" in explorer.sent[0][0]["error"]
    with pytest.raises(NoSuchStepError):
        live.ask(explorer.book, {"ask": "step", "index": 99})


def test_new_steps_are_told_by_themselves():
    shelf = Memory()
    widget = gradflow.explore(Recording(shelf))
    sent = []
    widget.send = lambda content, buffers=None: sent.append(content)
    shelf.append(records.step(0))
    for _ in range(100):
        if sent:
            break
        time.sleep(0.1)
    widget.close()
    assert sent[0]["grown"] is True
    assert sent[0]["head"]["steps"] == 1


def test_a_closed_explorer_is_followed_no_more():
    widget = gradflow.explore(records.recording(1))
    assert widget._follower.is_alive()
    widget.close()
    widget._follower.join(timeout=20)
    assert not widget._follower.is_alive()


def test_the_twin_tells_every_row(explorer):
    twin = explorer.twin()
    step = explorer.book.recording.last
    for p in step:
        assert f"{p.fqn}: anchor " in twin.words
    assert len(twin.picture) < 40_000
    assert twin.picture.count("<path") >= 3 * len(step)


def test_absent_and_zero_are_told_apart_in_the_twin():
    p = records.param_step("w", contributors=("anchor", "positive"), absent=("negative",))
    step = records.step(fqns=("v",))
    zeros = records.param_step("z", gram=np.zeros((3, 3)), total_norm=0.0)
    step = type(step)(0, {"w": p, "z": zeros}, records.PATHS)
    twin = still(step)
    assert "negative absent" in twin.words
    assert "z: anchor 0, positive 0, negative 0, sum 0" in twin.words
    assert (twin.picture.count("absent ×"), twin.picture.count("0 zeros")) == (1, 3)


def test_nothing_recorded_yet_has_no_twin_and_raises_nothing():
    widget = gradflow.explore(Recording())
    assert widget.twin() is None
    assert "text/plain" in widget._repr_mimebundle_()[0]
    widget.close()


def test_names_are_escaped_in_the_twin():
    twin = still(records.step(fqns=("<script>.weight",)))
    assert "<script>" not in twin.picture + twin.bundle()["text/html"]


def test_the_explorer_needs_no_torch_and_no_plotting_package():
    code = (
        "import sys, gradflow; from tests import records\n"
        "explorer = gradflow.explore(records.recording(2)); explorer._repr_mimebundle_(); explorer.close()\n"
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "set()"

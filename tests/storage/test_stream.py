"""What a recorder streams to: append, amend the newest, and read back all the while."""

import dataclasses
import os
import pickle
import subprocess
import sys

import pytest

from gradflow.errors import ClosedRecorderError, InvalidArgumentError, NoSuchStepError
from gradflow.record import Finding
from gradflow.recording import Recording
from gradflow.storage import Stream, Writer, load
from tests import records
from tests.storage.same import assert_same


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.gradflow"


def amended(step):
    finding = Finding("warning", "late", "found later")
    return dataclasses.replace(
        step, scalars={**step.scalars, "late": 0.5}, reports=(finding,), complete=False
    )


def test_a_stream_is_what_was_put_into_it(path):
    stream = Stream(path)
    recording = Recording(stream)
    for i in range(5):
        stream.append(records.step(i))
        assert len(recording) == i + 1
        for j, step in enumerate(recording):
            assert_same(step, records.step(j))
    assert [step.index for step in recording[1:4]] == [1, 2, 3]
    assert recording.params == records.step().params
    assert recording.branches == records.PATHS


def test_a_stream_keeps_only_the_newest_step_in_memory(path):
    stream = Stream(path)
    steps = [records.step(i) for i in range(3)]
    for step in steps:
        stream.append(step)
    assert stream[-1] is stream[2] is steps[2]
    assert stream[0] is not steps[0]


def test_a_stream_can_be_read_after_its_end_and_is_one_file(path, tmp_path):
    stream = Stream(path)
    for i in range(3):
        stream.append(records.step(i))
    assert stream[0].index == 0
    stream.close()
    assert os.listdir(tmp_path) == ["run.gradflow"]
    assert [step.index for step in Recording(stream)] == [0, 1, 2]
    stream.close()
    with pytest.raises(ClosedRecorderError):
        stream.append(records.step(3))


def test_an_empty_stream_has_no_step(path):
    stream = Stream(path)
    assert not stream
    with pytest.raises(NoSuchStepError):
        _ = Recording(stream).last
    assert (Recording(stream).params, Recording(stream).branches) == ((), ())


def test_the_newest_step_can_be_amended(path):
    stream = Stream(path)
    stream.append(records.step(0))
    stream.append(records.step(1))
    live = load(path)
    assert_same(live.last, records.step(1))
    for _ in range(2):
        stream.amend(amended(records.step(1)))
        assert_same(stream[1], amended(records.step(1)))
        assert_same(live.last, amended(records.step(1)))
    stream.append(records.step(2))
    stream.close()
    whole = [records.step(0), amended(records.step(1)), records.step(2)]
    for a, b in zip(whole, load(path), strict=True):
        assert_same(a, b)


def test_amending_writes_no_tensor_again(path):
    with Writer(path) as writer:
        writer.append(records.step(0))
        before = writer._ends
        writer.amend(amended(records.step(0)))
        assert (writer._ends.array, writer._ends.param, writer._ends.step) == (before.array, before.param, 1)


def test_only_the_newest_step_with_its_parameters_can_be_amended(path):
    with Writer(path) as writer:
        with pytest.raises(InvalidArgumentError, match="not the newest"):
            writer.amend(records.step(0))
        writer.append(records.step(0))
        with pytest.raises(InvalidArgumentError, match="other parameters"):
            writer.amend(records.step(0, fqns=("fc.weight",)))


def test_a_stream_travels_to_another_process_by_its_path(path, tmp_path):
    stream = Stream(path)
    stream.append(records.step(0))
    (tmp_path / "pickle").write_bytes(pickle.dumps(Recording(stream)))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).last.index)"
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "pickle"], capture_output=True, text=True, check=True
    )
    assert run.stdout == "0\n"

"""A recording of a hundred thousand steps is opened without reading it, and read in little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradflow.record import Finding
from gradflow.recording import Step
from gradflow.storage import Writer
from tests import records

ROOT = Path(__file__).parents[2]
KILOBYTE, MEGABYTE = 1 << 10, 1 << 20
SOME = [records.step(i, fqns=("conv1.weight", "fc.weight"), keep=False).parameters for i in range(3)]
TOLD = (Finding("note", "rank", "The contributions are those of this rank alone.", where="rank 0 of 2"),)

pytestmark = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc to see what is read")


def write(path, steps):
    with Writer(path) as writer:
        for i in range(steps):
            writer.append(Step(i, SOME[i % 3], records.PATHS, {"loss": 1.0 / (1 + i)}, reports=TOLD))
    return path


@pytest.fixture(
    scope="module", params=[5_000, pytest.param(100_000, marks=pytest.mark.slow)], ids=lambda n: f"{n} steps"
)
def opened(request, tmp_path_factory):
    """How many steps there are, how large the file is, and what each thing done to it took."""
    folder = tmp_path_factory.mktemp("long")
    short, long = write(folder / "short.gradflow", 200), write(folder / "long.gradflow", request.param)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.storage.opening", str(short), str(long)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return request.param, long.stat().st_size, json.loads(done.stdout)


def test_opening_reads_no_row_and_a_few_pages_however_many_steps_there_are(opened):
    steps, size, taken = opened
    assert size > 500 * steps
    assert taken["open"]["rows"] == taken["len"]["rows"] == {}
    assert taken["open"]["bytes"] < 64 * KILOBYTE
    assert taken["len"]["bytes"] < 4 * KILOBYTE


@pytest.mark.parametrize("which", ["last", "the middle"])
def test_a_step_is_read_without_the_others(opened, which):
    _, _, taken = opened
    assert taken[which]["rows"]["ParamRow"] == taken[which]["rows"]["StepRow"] == 1
    assert taken[which]["bytes"] < 64 * KILOBYTE


@pytest.mark.parametrize("asked", ["repr", "findings", "explain"])
def test_what_is_told_of_a_recording_reads_no_more_than_its_newest_steps(opened, asked):
    _, _, taken = opened
    assert taken[asked]["rows"].get("StepRow", 0) <= 101
    assert taken[asked]["rows"].get("ParamRow", 0) <= 2 * 101
    assert taken[asked]["bytes"] < MEGABYTE


def test_names_come_from_the_table_of_the_steps_alone(opened):
    _, size, taken = opened
    assert taken["params"]["rows"].get("ParamRow", 0) == taken["params"]["rows"].get("StepRow", 0) == 0
    assert taken["params"]["bytes"] < size / 2


def test_memory_does_not_grow_with_the_number_of_steps(opened):
    steps, size, taken = opened
    assert taken["walk"]["rows"]["StepRow"] >= steps - 101  # some were at hand
    assert sum(of["memory"] for of in taken.values()) < 12 * MEGABYTE
    assert steps < 100_000 or size > 60 * MEGABYTE  # so that the bound above is seen to be one

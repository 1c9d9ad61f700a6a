"""``kill -9`` in the middle of training, and of a write: every finished step loads, bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gradflow
from gradflow.errors import RecordingFileError
from tests.storage import killing
from tests.storage.same import assert_same

ROOT = Path(__file__).parents[2]
ENOUGH, MOST = 4, 80  # runs that die inside a write, runs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of the runs, and what is known of each."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.storage.killing", str(folder), str(ENOUGH), str(MOST)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def expected(killed):
    """The same training, kept in memory and never killed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return killing.train(max(run["announced"] for run in killed[1]) + 1).recording
    finally:
        torch.set_num_threads(threads)


def test_the_runs_were_killed_and_some_of_them_inside_a_write(killed):
    _, runs = killed
    assert {run["signal"] for run in runs} == {9}
    assert [run["place"] for run in runs[: len(killing.WITHIN)]] == list(killing.WITHIN)
    assert sum(run["place"] == "a write" for run in runs) == ENOUGH
    assert len({run["announced"] for run in runs}) > 3


def test_every_finished_step_loads_bit_for_bit(killed, expected):
    folder, runs = killed
    for run in runs:
        read = gradflow.load(folder / run["file"])
        assert len(read) in (run["announced"], run["announced"] + 1), (
            run
        )  # one may be finished, not announced
        for was, step in zip(expected, read, strict=False):
            assert_same(was, step)


def test_a_step_is_there_from_its_commit_on_and_nothing_of_it_before(killed):
    folder, runs = killed
    for run in runs[: len(killing.WITHIN)]:
        there = killing.VICTIM + (run["place"] == "after the commit")
        assert len(gradflow.load(folder / run["file"])) == there, run


def test_a_log_that_broke_off_anywhere_loses_steps_from_its_end_only(killed, expected, tmp_path):
    """What a machine that fails may leave: the log without its end. Each step is whole, or not there."""
    folder, runs = killed
    run = max(runs, key=lambda run: (folder / f"{run['file']}-wal").stat().st_size)
    log = (folder / f"{run['file']}-wal").read_bytes()
    lengths = []
    for size in range(0, len(log), max(len(log) // 60, 1)):
        path = tmp_path / f"{size}.gradflow"
        shutil.copy(folder / run["file"], path)
        path.with_name(f"{path.name}-wal").write_bytes(log[:size])
        read = gradflow.load(path)
        for was, step in zip(expected, read, strict=False):
            assert_same(was, step)
        lengths.append(len(read))
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 3


def test_a_log_with_a_flipped_bit_never_gives_another_number(killed, expected, tmp_path):
    folder, runs = killed
    run = max(runs, key=lambda run: (folder / f"{run['file']}-wal").stat().st_size)
    log = bytearray((folder / f"{run['file']}-wal").read_bytes())
    for at in range(0, len(log), max(len(log) // 60, 1)):
        path = tmp_path / f"{at}.gradflow"
        shutil.copy(folder / run["file"], path)
        log[at] ^= 1 << at % 8
        path.with_name(f"{path.name}-wal").write_bytes(log)
        log[at] ^= 1 << at % 8
        try:
            for was, step in zip(expected, gradflow.load(path), strict=False):
                assert_same(was, step)
        except RecordingFileError:
            continue

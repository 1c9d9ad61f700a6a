"""A recording survives what happens to files: kills, copies, full disks, second writers, wrong paths."""

import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from gradflow.errors import ClosedRecorderError, RecordingFileError
from gradflow.recording import Recording
from gradflow.storage import Writer, load, save, writer
from tests import records
from tests.storage.same import assert_same

TRAIN_FOREVER = """
import sys
from gradflow.storage import Writer
from tests import records
writer = Writer(sys.argv[1])
for i in range(10**6):
    writer.append(records.step(i))
    print(i, flush=True)
"""


def files(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.gradflow"


@pytest.mark.parametrize("steps", [1, 40])
def test_a_killed_run_keeps_every_finished_step(path, steps, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN_FOREVER, path], stdout=subprocess.PIPE, text=True
    ) as run:
        for _ in range(steps):
            announced = int(run.stdout.readline())
        os.kill(run.pid, signal.SIGKILL)
        announced = max([announced, *map(int, run.stdout.read().split())])
    recording = load(path)
    assert len(recording) in (announced + 1, announced + 2)  # one more may be finished, not announced
    for i, step in enumerate(recording):
        assert_same(step, records.step(i))
    (tmp_path / "moved").mkdir()
    for name in ("run.gradflow", "run.gradflow-wal"):
        shutil.copy(tmp_path / name, tmp_path / "moved" / name)
    assert len(load(tmp_path / "moved" / "run.gradflow")) == len(recording)


def test_a_run_can_be_read_and_copied_while_it_is_written(path, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHECKPOINT_EVERY_S", 0.0)
    with Writer(path) as out:
        live = load(path)
        assert len(live) == 0
        for i in range(20):
            out.append(records.step(i))
            assert len(live) == i + 1
            assert_same(live.last, records.step(i))
            copy = load(shutil.copy(path, tmp_path / f"copy{i}.gradflow"))
            assert [step.index for step in copy] == list(range(i + 1))
    assert len(live) == 20


def test_the_file_alone_is_a_recording_from_the_first_moment_on(path, tmp_path):
    with Writer(path) as out:
        assert len(load(shutil.copy(path, tmp_path / "copy.gradflow"))) == 0
        out.append(records.step(0))


def test_copies_of_a_growing_file_are_right_or_told(path, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHECKPOINT_EVERY_S", 0.0)

    def train():
        with Writer(path) as out:
            for i in range(300):
                out.append(records.step(i))

    thread = threading.Thread(target=train)
    thread.start()
    outcomes = []
    while thread.is_alive():
        if path.exists():
            outcomes.append(_reads_well(shutil.copy(path, tmp_path / "copy.gradflow")))
    thread.join()
    assert any(outcomes)
    assert _reads_well(path)
    assert len(load(path)) == 300


def _reads_well(path):
    try:
        for i, step in enumerate(load(path)):
            assert_same(step, records.step(i))
    except RecordingFileError:
        return False
    return True


def test_close_leaves_one_file_which_nothing_changes_any_more(path, tmp_path):
    with Writer(path) as out:
        out.append(records.step(0))
        assert files(tmp_path) == ["run.gradflow", "run.gradflow-shm", "run.gradflow-wal"]
    out.close()
    assert files(tmp_path) == ["run.gradflow"]
    before = path.read_bytes()
    path.chmod(0o444)
    assert len(load(path)) == 1
    assert files(tmp_path) == ["run.gradflow"]
    assert path.read_bytes() == before


def test_a_reader_that_outlives_the_writer_leaves_one_file_too(path, tmp_path):
    out = Writer(path)
    out.append(records.step(0))
    live = load(path)
    assert len(live) == 1
    out.close()
    assert_same(live.last, records.step(0))
    del live
    gc.collect()
    assert files(tmp_path) == ["run.gradflow"]
    assert len(load(path)) == 1


def test_a_writer_that_is_forgotten_closes_itself(path, tmp_path):
    out = Writer(path)
    out.append(records.step(0))
    del out
    gc.collect()
    assert files(tmp_path) == ["run.gradflow"]
    assert len(load(path)) == 1


def test_a_closed_writer_says_so(path):
    out = Writer(path)
    out.close()
    with pytest.raises(ClosedRecorderError, match=r"run\.gradflow"):
        out.append(records.step(0))


def test_a_second_writer_is_refused_while_the_first_one_writes(path):
    with Writer(path) as out:
        out.append(records.step(0))
        for start in (lambda: Writer(path), lambda: save(records.recording(), path)):
            with pytest.raises(RecordingFileError, match="still being written"):
                start()
        out.append(records.step(1))
    assert len(load(path)) == 2


def test_a_new_run_takes_the_place_of_a_closed_one_that_is_being_read(path):
    old = load(save(records.recording(3), path))
    with Writer(path) as out:
        out.append(records.step(7))
    assert load(path).last.index == 7
    assert old.last.index == 2


def test_a_new_run_takes_the_place_of_a_killed_one(path, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN_FOREVER, path], stdout=subprocess.PIPE, text=True
    ) as run:
        run.stdout.readline()
        os.kill(run.pid, signal.SIGKILL)
    with Writer(path) as out:
        out.append(records.step(7))
    assert [step.index for step in load(path)] == [7]
    assert files(tmp_path) == ["run.gradflow"]


@pytest.mark.parametrize(
    "write", [Writer, lambda path: save(records.recording(), path)], ids=["Writer", "save"]
)
@pytest.mark.parametrize("content", [b"precious", b"SQLite format 3\0" + b"\0" * 84], ids=["text", "sqlite"])
def test_what_is_not_a_recording_is_never_replaced(path, write, content):
    path.write_bytes(content)
    with pytest.raises(RecordingFileError, match="not a recording"):
        write(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "write", [Writer, lambda path: save(records.recording(), path)], ids=["Writer", "save"]
)
def test_paths_that_cannot_be_written_are_told(tmp_path, write):
    with pytest.raises(RecordingFileError, match="is a directory"):
        write(tmp_path)
    with pytest.raises(RecordingFileError, match="cannot be written"):
        write(tmp_path / "nowhere" / "run.gradflow")
    assert files(tmp_path) == []


def test_save_writes_all_or_nothing(path, tmp_path):
    class Breaks(Recording):
        def __getitem__(self, position):
            if position == 3:
                raise RuntimeError("gone")
            return super().__getitem__(position)

    save(records.recording(2), path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="gone"):
        save(Breaks([records.step(i) for i in range(5)]), path)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["run.gradflow"]


def test_a_recording_can_be_saved_over_the_file_it_was_loaded_from(path):
    save(records.recording(3), path)
    save(load(path), path)
    assert [step.index for step in load(path)] == [0, 1, 2]


def test_a_full_disk_is_told_and_loses_no_finished_step(path):
    out = Writer(path)
    out.append(records.step(0, keep=False))
    out._db.execute("PRAGMA max_page_count = 12")
    written = 1
    with pytest.raises(RecordingFileError, match="full"):  # noqa: PT012 - it takes some steps to fill
        while written < 1000:
            out.append(records.step(written, keep=False))
            written += 1
    out._db.execute("PRAGMA max_page_count = 100000")
    out.append(records.step(written, keep=False))
    out.close()
    assert [step.index for step in load(path)] == list(range(written + 1))


def test_steps_may_come_from_several_threads(path):
    with Writer(path) as out:

        def work(first):
            for i in range(20):
                out.append(records.step(first + i, keep=False))

        threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    recording = load(path)
    assert sorted(step.index for step in recording) == [100 * k + i for k in range(3) for i in range(20)]
    for step in recording:
        assert_same(step, records.step(step.index, keep=False))


def test_nothing_can_be_written_through_a_reader(path):
    steps = load(save(records.recording(1), path))._steps
    with pytest.raises(sqlite3.OperationalError):
        steps._db.execute("DELETE FROM step")

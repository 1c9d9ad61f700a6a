"""Whatever is wrong with a file is told in three lines: never another error, never other numbers."""

import json
import random
import resource
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.errors import RecordingFileError
from gradflow.recording import Recording
from gradflow.storage import database, load, save
from gradflow.storage.rows import sealed
from tests import records
from tests.storage.same import assert_same


def refusal(path):
    """The message of the error that loading ``path`` ends in, after a look at its three lines."""
    with pytest.raises(RecordingFileError) as caught:
        load(path)
    what, where, do = str(caught.value).split("\n")
    assert where == f"  where: gradflow.load({str(path)!r})"
    assert do.startswith("  do:    ")
    return what, do


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small file with all that there is: tensors, deltas, findings, scalars."""
    return save(records.recording(2), tmp_path_factory.mktemp("whole") / "run.gradflow").read_bytes()


@pytest.fixture
def path(tmp_path, whole):
    path = tmp_path / "run.gradflow"
    path.write_bytes(whole)
    return path


def test_a_missing_file_names_the_ones_that_are_there(path):
    what, do = refusal(path.with_name("rnu.gradflow"))
    assert what == "there is no file 'rnu.gradflow'"
    assert do == "  do:    did you mean 'run.gradflow'?"


def test_a_missing_file_in_an_empty_folder_says_what_writes_one(tmp_path):
    assert "recording.save(path)" in refusal(tmp_path / "run.gradflow")[1]
    assert "recording.save(path)" in refusal(tmp_path / "nowhere" / "run.gradflow")[1]


def test_a_name_that_no_disk_takes_is_told(tmp_path):
    assert "cannot be read" in refusal(tmp_path / ("x" * 5000))[0]
    with pytest.raises(RecordingFileError, match="cannot be written"):
        save(records.recording(1), tmp_path / ("x" * 5000))


def test_a_directory_is_told(path):
    assert refusal(path.parent)[0] == f"{path.parent.name!r} is a directory"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG" * 1000, b"SQLite format 3\0" + b"\0" * 4096])
def test_another_file_is_told(path, content):
    path.write_bytes(content)
    what, _ = refusal(path)
    assert what == f"'run.gradflow' is not a recording of gradflow ({len(content)} bytes of something else)"


def test_another_sqlite_file_is_told(tmp_path):
    path = tmp_path / "notes.gradflow"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE notes (text)")
    db.close()
    assert "is not a recording" in refusal(path)[0]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_is_not_read():
    assert "there is no file 'zero'" in refusal(Path("/dev/zero"))[0]


def test_a_newer_version_is_told(path):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {database.VERSION + 1}")
    db.close()
    what, do = refusal(path)
    assert what == "'run.gradflow' has format 2, this gradflow reads formats up to 1"
    assert "newer gradflow" in do


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW more AS SELECT * FROM step",
        "CREATE TRIGGER boom AFTER INSERT ON step BEGIN SELECT 1; END",
        "CREATE TABLE more (x)",
        "DROP TABLE array",
        "ALTER TABLE step ADD COLUMN more INTEGER",
    ],
)
def test_a_file_with_other_tables_is_refused(path, statement):
    db = sqlite3.connect(path)
    db.execute(statement)
    db.close()
    assert "its tables are not those of a recording" in refusal(path)[0]


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM step WHERE id = 1", "DELETE FROM step WHERE id = 2", "UPDATE ending SET steps = 1"],
)
def test_missing_steps_are_told(path, statement):
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    assert "steps are missing" in refusal(path)[0]


def test_a_step_missing_between_others_is_told_when_it_or_a_name_is_asked_for(tmp_path):
    path = save(records.recording(3), tmp_path / "run.gradflow")
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM step WHERE id = 2")
    db.close()
    read = load(path)
    assert_same(read[2], records.step(2))
    with pytest.raises(RecordingFileError, match="step 1 cannot be read"):
        _ = read[1]
    with pytest.raises(RecordingFileError, match="steps are missing"):
        _ = read.params


def test_more_steps_than_a_file_can_hold_are_told(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE step SET id = ? WHERE id = 2", (2**40,))
        db.execute("UPDATE ending SET steps = ?", (2**40,))
    db.close()
    assert "steps are missing" in refusal(path)[0]


def read_whole(path):
    """All of the recording; None if it is refused in three lines. Any other error is a failure."""
    told = None
    try:
        read = load(path)
        _ = read.params, read.branches, [p.cancellation for step in read for p in step]
    except RecordingFileError as error:
        told = str(error).split("\n")
    assert told is None or len(told) == 3
    return read if told is None else None


def reads_as(path, recording):
    """Whether the file gives just that recording; False if it is refused; anything else is a failure."""
    read = read_whole(path)
    if read is None:
        return False
    assert (read.params, read.branches) == (recording.params, recording.branches)
    for a, b in zip(recording, read, strict=True):
        assert_same(a, b)
    return True


def test_a_truncated_file_is_told(path, whole):
    assert reads_as(path, records.recording(2))
    for length in {*range(0, len(whole), 509), 99, 100, 101, 4095, 4096, 4097, len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert not reads_as(path, records.recording(2)), length


def flip(path, whole, bits):
    damaged = bytearray(whole)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)


def test_a_flipped_bit_is_harmless_or_told(path, whole):
    """Harmless: in room that holds nothing, or in what SQLite keeps for itself. Never another number."""
    recording, told = records.recording(2), 0
    bits = [*range(800), *random.sample(range(8 * len(whole)), 400)]  # the header, and anywhere
    for bit in bits:
        flip(path, whole, [bit])
        told += not reads_as(path, recording)
    assert told > 100


@pytest.mark.slow
def test_every_flipped_byte_is_harmless_or_told(path, whole):
    recording = records.recording(2)
    for byte in range(len(whole)):
        flip(path, whole, [8 * byte + byte % 8])
        reads_as(path, recording)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_bytes_written_over_a_file_are_harmless_or_told(data, whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("over") / "run.gradflow"
    at = data.draw(st.integers(0, len(whole) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=200))
    path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    reads_as(path, records.recording(2))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)
texts = json_like.map(json.dumps) | st.text(max_size=9) | st.sampled_from(["[" * 5000, "1" * 5000])
columns = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 40) | texts | st.binary(max_size=80)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_rows_that_are_well_sealed_but_mean_nothing_are_told(data, whole, tmp_path_factory):
    """What a hostile writer would make: the checksum is right, what it seals is not."""
    path = tmp_path_factory.mktemp("sealed") / "run.gradflow"
    path.write_bytes(whole)
    with sqlite3.connect(path) as db:
        table = data.draw(st.sampled_from(["phrase", "array", "param", "step"]))
        [count] = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        number = data.draw(st.integers(1, count))
        row = list(db.execute(f"SELECT * FROM {table} WHERE id = ?", (number,)).fetchone()[:-1])
        row[data.draw(st.integers(1, len(row) - 1))] = data.draw(columns)
        marks = ", ".join("?" * (len(row) + 1))
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", sealed(tuple(row)))
    db.close()
    read_whole(path)


@pytest.mark.parametrize("shape", ["[1000000000, 1000000000]", "[-1]", "[1.5]", '["3"]', "[true]"])
def test_an_absurd_shape_is_told_and_allocates_nothing(path, shape):
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT DISTINCT shape FROM array").fetchall()
        for (number,) in rows:
            db.execute("REPLACE INTO phrase VALUES (?, ?, ?)", sealed((number, shape)))
    db.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not reads_as(path, records.recording(2))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_steps_before_the_damage_can_be_read(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE param SET crc = crc + 1 WHERE id = (SELECT max(id) FROM param)")
    db.close()
    read = load(path)
    assert_same(read[0], records.step(0))
    with pytest.raises(RecordingFileError, match="its checksum is wrong"):
        list(read[1])


def test_a_recording_stays_usable_by_name_after_its_file_was_removed(path):
    read = load(path)
    path.unlink()
    assert_same(read.last, records.step(1))


def test_a_closed_reader_says_that_the_file_cannot_be_read(path):
    read = Recording(steps := load(path)._steps)
    steps.close()
    with pytest.raises(RecordingFileError, match="closed"):
        _ = read.last

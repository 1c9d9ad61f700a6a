"""Whatever well-sealed rows hold, all that can be done with a recording goes well or is told in three lines.

Warnings are errors here as everywhere: so numbers of a run that diverged do not make numpy complain either.
"""

import json
import math
import sqlite3
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.storage import save
from gradflow.storage.rows import sealed
from tests.storage import handling
from tests.test_merging import two_ranks

COUNTS = [0, 1, 2, 3, -1, 40, 2**31, 2**62, -(2**63), 2**63 - 1]
REALS = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, -1e308, 5e-324]
LEAVES = [
    None,
    True,
    0,
    -1,
    2,
    10**18,
    1.5,
    math.nan,
    "",
    "x",
    "\x1b[31m",
    "\0",
    "rank 0 of 2",
    "rank 1 of 0",
]
LEAVES += ["rank 9999999999999999999999 of 3", "anchor", "other ranks", "edited", "decay", "unattributed"]
LEAVES += [
    "fc.weight",
    "conv1.weight",
    "../../x",
    "<script>",
    "a" * 3000,
    [],
    [[]],
    ["a"],
    [3, 4],
    [0],
    [-1],
    {},
]
CODES = ["<f4", "<f2", "|b1", "<c16", "<i8", "|O", "<U9", "", "\0"]


@st.composite
def other_json(draw, value):
    """A value with one thing in it changed, left out or doubled."""
    if not isinstance(value, list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(LEAVES))
    at, how = draw(st.integers(0, len(value) - 1)), draw(st.integers(0, 9))
    if how == 0:
        return value[:at] + value[at + 1 :]
    if how == 1:
        return [*value[:at], value[at], *value[at:]]
    return [*value[:at], draw(other_json(value[at])), *value[at + 1 :]]


@st.composite
def other_bytes(draw, value):
    """Bytes with one number in them, or all, made odd; or cut; or too many."""
    number = struct.pack("<d", draw(st.sampled_from(REALS)))
    at, how = 8 * draw(st.integers(0, max(len(value) // 8 - 1, 0))), draw(st.integers(0, 9))
    if how == 0:
        return value[:at]
    if how == 1:
        return value + number
    return number * (len(value) // 8) if how == 2 else value[:at] + number + value[at + 8 :]


@st.composite
def other(draw, value):
    if isinstance(value, int):
        return draw(st.sampled_from(COUNTS) | st.integers(0, 60))
    if isinstance(value, bytes):
        return draw(other_bytes(value))
    try:
        return json.dumps(draw(other_json(json.loads(value))))
    except ValueError:
        return draw(st.sampled_from(CODES))


def tamper(path, draw):
    """Change a column or two, and seal the rows well."""
    with sqlite3.connect(path) as db:
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            table = draw(st.sampled_from(["phrase", "phrase", "array", "param", "param", "step"]))
            numbers = [number for (number,) in db.execute(f"SELECT id FROM {table} ORDER BY id")]
            chosen = draw(st.sampled_from(numbers))
            row = list(db.execute(f"SELECT * FROM {table} WHERE id = ?", (chosen,)).fetchone()[:-1])
            at = draw(st.integers(1, len(row) - 1))
            row[at] = draw(other(row[at]))
            marks = ", ".join("?" * (len(row) + 1))
            db.execute(f"REPLACE INTO {table} VALUES ({marks})", sealed(tuple(row)))
    db.close()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The recordings of two ranks, with tensors, deltas and findings, as files."""
    folder = tmp_path_factory.mktemp("ranks")
    return [save(run, folder / f"run.rank{rank}.gradflow") for rank, run in enumerate(two_ranks(2))]


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_well_sealed_file_that_means_nothing_is_told_by_whatever_reads_it(data, ranks, tmp_path_factory):
    suspect = tmp_path_factory.mktemp("sealed") / "suspect.gradflow"
    suspect.write_bytes(ranks[0].read_bytes())
    tamper(suspect, data.draw)
    for name, ended in handling.handle(suspect, ranks[1], suspect.with_name("out.gradflow")).items():
        assert ended == "well" or len(ended.split("\n")) == 3, (name, ended)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(data=st.data())
def test_many_more_such_files_are_told(data, ranks, tmp_path_factory):
    test_a_well_sealed_file_that_means_nothing_is_told_by_whatever_reads_it.hypothesis.inner_test(
        data, ranks, tmp_path_factory
    )

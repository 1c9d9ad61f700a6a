"""Files made to exhaust whoever reads them: told in three lines, in little memory, before long."""

import json
import os
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from gradflow.recording import Recording, Step
from gradflow.storage import save
from gradflow.storage.rows import sealed
from tests import records
from tests.storage import pages
from tests.test_merging import told, two_ranks

ROOT = Path(__file__).parents[2]
MEGABYTE = 1 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see its memory")


@pytest.fixture
def suspect(tmp_path):
    return tmp_path / "suspect.gradflow"


@pytest.fixture
def handled(suspect, tmp_path):
    """What becomes of everything that can be done with the suspect, in a program of its own."""

    def handle():
        other = save(two_ranks(2)[1], tmp_path / "other.gradflow")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.storage.handling", str(suspect), str(other)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        for ended in found["ended"].values():
            assert ended == "well" or len(ended.split("\n")) == 3, ended
        assert found["memory"] < 16 * MEGABYTE + 8 * suspect.stat().st_size
        return found["ended"]

    return handle


def refused(ended, *names):
    return [ended[name].split("\n")[0] for name in names or ended]


def change(path, *statements):
    with sqlite3.connect(path) as db:
        for statement, *arguments in statements:
            db.execute(statement, *arguments)
    db.close()


def replace_phrase(path, like, make):
    """Put another text in place of the phrases that look like this."""
    with sqlite3.connect(path) as db:
        for number, text in db.execute("SELECT id, json FROM phrase WHERE json LIKE ?", (like,)).fetchall():
            db.execute("REPLACE INTO phrase VALUES (?, ?, ?)", sealed((number, make(text))))
    db.close()


def test_a_sound_file_goes_well(suspect, handled):
    """Or else the tests below would say nothing."""
    save(two_ranks(2)[0], suspect)
    assert set(handled().values()) == {"well"}


@pytest.mark.parametrize("table", ["step", "param", "array", "phrase", "ending"])
def test_pages_that_lead_in_circles_are_told_or_harmless(suspect, handled, table):
    save(Recording(list(two_ranks(1)[0])), suspect)
    pages.Pages(suspect).go_in_circles(table)
    ended = handled()
    if table == "step":
        assert "its pages lead in circles" in ended["read"]
    if table == "ending":
        assert all("steps are missing" in told for told in ended.values())


SIDE, TIMES = 181, 600  # a size of which 489 bytes alone stand in the cell of a row


def test_many_rows_that_share_their_bytes_are_told_before_they_are_read(suspect, handled):
    """130 kB of numbers, 600 times, in a file of half a megabyte; every checksum is right."""
    tensor = np.full((SIDE, SIDE), 1.5, "f4")
    tensor[0, 0] = 0.0  # the four bytes that make each checksum right
    one = records.param_step(
        shape=tensor.shape, contributors=("a",), tensors={"a": tensor}, total_tensor=None, delta=None
    )
    save(Recording([Step(0, {one.fqn: one}, ("a",), reports=told(0, 2))]), suspect)
    many = json.dumps([f"t{i}" for i in range(TIMES)], separators=(",", ":"))
    replace_phrase(suspect, '[["a"],[],["a"],0,%', lambda text: text.replace('["a"],0', f"{many},0", 1))
    [(number, dtype, shape, data, crc)] = sqlite3.connect(suspect).execute("SELECT * FROM array").fetchall()

    def checksum(row, four):
        begin = zlib.crc32(repr([row, dtype, shape, len(data)]).encode())
        return zlib.crc32(four.to_bytes(4, "big") + data[4:], begin)

    assert crc == checksum(number, 0) - (1 << 31)
    changes = pages.flips(lambda four: checksum(number, four))

    def forge(local, row):
        at = local.index(data[:16])
        four = pages.forged(checksum(number, 0), checksum(row, 0), changes)
        return local[:at] + four.to_bytes(4, "big") + local[at + 4 :]

    pages.Pages(suspect).repeat("array", TIMES, forge)
    with sqlite3.connect(suspect) as db:
        rows = db.execute("SELECT id, dtype, shape, data, crc FROM array ORDER BY id")
        assert sum(sealed(row[:-1]) == row for row in rows) == TIMES
    db.close()
    assert suspect.stat().st_size < MEGABYTE
    [found] = refused(handled(), "read")
    assert "its rows hold" in found


def test_a_text_nested_without_end_is_told(suspect, handled):
    save(two_ranks(1)[0], suspect)
    replace_phrase(suspect, '["conv1.weight",%', lambda _: "[" * 200_000 + "]" * 200_000)
    assert "well" not in handled().values()


def test_a_million_parameters_are_told_when_they_are_asked_for(suspect, handled):
    save(two_ranks(1)[0], suspect)
    replace_phrase(
        suspect, '["conv1.weight","conv1.b%', lambda _: json.dumps([f"w{i}" for i in range(10**5)])
    )
    assert "well" not in refused(handled(), "read", "show", "save", "explain", "merge")


@pytest.mark.parametrize(
    "shape", ["[1000000000,1000000000]", "[-1,3]", "[0,1000000000000]", "[1e999]", "[NaN]", "[]"]
)
def test_an_absurd_shape_costs_nothing(suspect, handled, shape):
    save(two_ranks(1)[0], suspect)
    replace_phrase(suspect, "[4,3]", lambda _: shape)
    assert "cannot be read" in handled()["read"]


def test_a_file_that_claims_tensors_are_small_keeps_few_steps_in_memory(suspect, handled):
    """Each step takes 1.6 MB, and the file says none."""
    tensor = np.ones((450, 450))
    one = records.param_step(
        shape=tensor.shape, contributors=("a",), tensors={"a": tensor}, total_tensor=None, delta=None
    )
    save(Recording([Step(i, {one.fqn: one}, ("a",)) for i in range(20)]), suspect)
    with sqlite3.connect(suspect) as db:
        for row in db.execute("SELECT * FROM step").fetchall():
            db.execute("REPLACE INTO step VALUES (?,?,?,?,?,?,?,?,?,?,?)", sealed((*row[:-2], 0)))
    db.close()
    assert handled()["read"] == "well"

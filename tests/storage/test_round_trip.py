"""What goes into a file comes out of it, bit for bit, in little room, and only when asked for."""

import pickle
import sqlite3
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradflow.errors import InvalidArgumentError, NoSuchStepError, NotKeptError, ShapeError
from gradflow.record import RESERVED, Delta, Finding, ParamStep, Use
from gradflow.recording import Recording, Step
from gradflow.storage import StoredSteps, Writer, load, reader, save
from tests import records
from tests.storage.same import assert_same

words = st.text(max_size=6)  # any text: accents, NUL, control characters
floats = st.floats(width=64)  # nan, infinities, -0.0 and subnormals among them
dtypes = st.sampled_from(["?", "i1", "u2", "i8", "f2", "f4", "f8", "c8", "c16"])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@st.composite
def kept(draw):
    """Tensors by name and their total, of one shape and any dtypes; or none of either."""
    shape = draw(shapes)
    arrays = dtypes.flatmap(lambda d: hnp.arrays(d, shape))
    return draw(st.none() | st.dictionaries(words, arrays, max_size=3)), draw(st.none() | arrays)


def names(most=4):
    return st.lists(words, max_size=most, unique=True).map(tuple)


def grams(contributors):
    return hnp.arrays("f8", (len(contributors),) * 2, elements=floats)


@st.composite
def deltas(draw):
    contributors = draw(names())
    reals = [draw(floats) for _ in range(3)]
    return Delta(contributors, draw(grams(contributors)), *reals, draw(words), draw(words), *draw(kept()))


@st.composite
def param_steps(draw, fqn):
    contributors = draw(names())
    tensors, total = draw(kept())
    return ParamStep(
        contributors=contributors,
        gram=draw(grams(contributors)),
        total_norm=draw(floats),
        absent=draw(names()),
        delta=draw(st.none() | deltas()),
        fqn=fqn,
        names=draw(names()),
        shape=tuple(draw(st.lists(st.integers(0, 9), max_size=3))),
        residual=draw(floats),
        scale=draw(floats),
        uses=tuple(
            draw(st.lists(st.builds(Use, words, words, words, st.integers(0, 99), floats), max_size=3))
        ),
        tensors=tensors,
        total_tensor=total,
    )


@st.composite
def steps(draw):
    fqns = draw(names(3))
    return Step(
        index=draw(st.integers(0, 2**40)),
        parameters={fqn: draw(param_steps(fqn)) for fqn in fqns},
        branches=draw(names()),
        scalars=draw(st.dictionaries(words, floats, max_size=3)),
        complete=draw(st.booleans()),
        skipped=draw(st.booleans()),
        reports=tuple(draw(st.lists(st.builds(Finding, words, words, words, words, words), max_size=2))),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(steps(), max_size=4))
def test_every_field_comes_back_bit_for_bit(tmp_path_factory, written):
    path = save(Recording(written), tmp_path_factory.mktemp("any") / "run.gradflow")
    read = load(path)
    assert len(read) == len(written)
    for a, b in zip(written, read, strict=True):
        assert_same(a, b)
    assert read.params == Recording(written).params
    assert read.branches == Recording(written).branches


@pytest.mark.parametrize("keep", [True, False], ids=["tensors", "gram"])
def test_a_recording_comes_back_and_is_saved_again_to_the_same_bytes(tmp_path, keep):
    recording = records.recording(4, keep=keep)
    first = save(recording, tmp_path / "first.gradflow")
    again = save(load(first), tmp_path / "again.gradflow")
    for a, b in zip(recording, load(again), strict=True):
        assert_same(a, b)
    assert first.read_bytes() == again.read_bytes()


def test_the_payload_of_a_nan_survives(tmp_path):
    [odd] = struct.unpack("d", struct.pack("Q", 0x7FF8_0000_DEAD_BEEF))
    step = records.step(keep=False, scalars={"loss": odd})
    [scalar] = load(save(Recording([step]), tmp_path / "run.gradflow")).last.scalars.values()
    assert struct.pack("d", scalar) == struct.pack("d", odd)


def test_lone_surrogates_in_names_survive(tmp_path):
    step = records.step(branches=("caf\udce9",))
    assert load(save(Recording([step]), tmp_path / "run.gradflow")).branches == ("caf\udce9",)


def test_arrays_of_another_byte_order_or_stride_come_back_by_value(tmp_path):
    odd = np.arange(12, dtype=">f4").reshape(3, 4).T[::2]
    p = records.param_step(shape=odd.shape, total_tensor=odd)
    total = load(save(Recording([Step(0, {p.fqn: p})]), tmp_path / "run.gradflow")).last[p.fqn].total
    np.testing.assert_array_equal(total, odd)
    assert total.dtype == np.dtype("f4")
    assert total.dtype.isnative


def test_what_is_read_cannot_be_changed_by_accident(tmp_path):
    p = load(save(records.recording(1), tmp_path / "run.gradflow")).last["fc.weight"]
    for array in (p.gram, p.total, p.delta.gram, p.contribution("anchor")):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_tensors_that_were_not_kept_are_told_as_before(tmp_path):
    p = load(save(records.recording(1, keep=False), tmp_path / "run.gradflow")).last["fc.weight"]
    with pytest.raises(NotKeptError):
        p.contribution("anchor")
    with pytest.raises(NotKeptError):
        p.delta.part("anchor")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"gram": np.eye(2)}, ShapeError),
        ({"total_tensor": np.zeros(3)}, ShapeError),
        ({"total_tensor": np.full((4, 3), None)}, InvalidArgumentError),
    ],
    ids=["gram-of-another-size", "total-of-another-shape", "array-of-objects"],
)
def test_a_malformed_step_is_refused_whole_and_the_writer_goes_on(tmp_path, change, error):
    bad = records.step(1)
    bad.parameters["fc.weight"] = records.param_step("fc.weight", **change)
    with Writer(tmp_path / "run.gradflow") as writer:
        writer.append(records.step(0))
        with pytest.raises(error, match="where:"):
            writer.append(bad)
        writer.append(records.step(2))
    read = load(writer.path)
    assert [step.index for step in read] == [0, 2]
    assert_same(read.last, records.step(2))


def adam_step(index, fqns):
    """Three branches, a delta of five contributors and three uses per parameter; no tensors."""
    movers = (*records.PATHS, "history", "decay")
    rng = np.random.default_rng(index)

    def one(fqn):
        vectors = rng.normal(size=(5, 8))
        delta = Delta(movers, vectors @ vectors.T, 0.1, 2.0, 1e-7, "Adam", "frozen preconditioner")
        return records.param_step(fqn, (16, 8), keep=False, delta=delta)

    return Step(index, {fqn: one(fqn) for fqn in fqns}, records.PATHS, {"loss": 1.0})


FQNS = tuple(f"encoder.layer{i // 2}.{('weight', 'bias')[i % 2]}" for i in range(20))


def test_a_parameter_takes_little_room_per_step(tmp_path):
    path = save(Recording([adam_step(i, FQNS) for i in range(100)]), tmp_path / "run.gradflow")
    per_row = path.stat().st_size / (100 * len(FQNS))
    numbers = 8 * (3 + 3 + 9 + 3 + 25)  # what changes every step, as float64
    assert numbers < per_row < 450


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    some = [adam_step(i, FQNS).parameters for i in range(3)]
    with Writer(tmp_path_factory.mktemp("long") / "run.gradflow") as writer:
        for i in range(2000):
            writer.append(Step(i, some[i % 3], records.PATHS, {"loss": 1.0 / (1 + i)}))
    return writer.path


@pytest.fixture
def decoded(monkeypatch):
    """FQNs of the parameters that were decoded since the test began."""
    seen = []

    def watched(row, look, fetch):
        p = original(row, look, fetch)
        seen.append(p.fqn)
        return p

    original = reader.decode_param
    monkeypatch.setattr(reader, "decode_param", watched)
    return seen


def test_a_long_recording_is_opened_without_reading_its_steps(long_file, decoded):
    recording = load(long_file)
    assert len(recording) == 2000
    assert recording.params == FQNS
    assert recording.branches == records.PATHS
    assert recording[1234].index == 1234
    assert recording.last.params == FQNS
    assert decoded == []


def test_only_the_parameter_asked_for_is_read(long_file, decoded):
    recording = load(long_file)
    assert recording[7][FQNS[3]] is recording[7][FQNS[3]]
    assert decoded == [FQNS[3]]
    assert len([step[FQNS[0]].total_norm for step in recording]) == 2000
    assert decoded[1:] == [FQNS[0]] * 2000


def test_only_the_last_few_steps_stay_in_memory(long_file):
    steps = StoredSteps(long_file)
    for i in range(100):
        steps[i]
    assert len(steps._cache) == reader.CACHED_STEPS
    assert steps[99] is steps[99]


def test_steps_with_large_tensors_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "CACHED_BYTES", 1000)
    steps = StoredSteps(save(records.recording(4), tmp_path / "run.gradflow"))
    for i in range(4):
        steps[i]
    assert len(steps._cache) == 1


def test_stored_steps_are_a_sequence(tmp_path):
    steps = StoredSteps(save(records.recording(4), tmp_path / "run.gradflow"))
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert [step.index for step in steps[1:3]] == [1, 2]
    assert steps[-1].index == 3
    for beyond in (4, -5):
        with pytest.raises(NoSuchStepError, match="of 4"):
            steps[beyond]


def test_an_empty_recording_is_a_recording(tmp_path):
    read = load(save(Recording(), tmp_path / "run.gradflow"))
    assert (len(read), read.params, read.branches) == (0, (), ())
    with pytest.raises(NoSuchStepError):
        _ = read.last


def test_a_loaded_recording_can_be_pickled_by_its_path_and_its_steps_by_value(tmp_path):
    read = load(save(records.recording(2), tmp_path / "run.gradflow"))
    again = pickle.loads(pickle.dumps(read))
    assert_same(again.last, read.last)
    step = pickle.loads(pickle.dumps(read.last))
    assert type(step.parameters) is dict
    assert_same(step, read.last)


def test_the_tables_of_format_1(tmp_path):
    """Whoever changes these raises VERSION, and sees to it that older files still load."""
    path = save(Recording(), tmp_path / "run.gradflow")
    db = sqlite3.connect(path)
    assert sorted(sql for (sql,) in db.execute("SELECT sql FROM sqlite_master")) == [
        "CREATE TABLE array (id INTEGER PRIMARY KEY, dtype TEXT NOT NULL, shape INTEGER NOT NULL, "
        "data BLOB NOT NULL, crc INTEGER NOT NULL)",
        "CREATE TABLE ending (steps INTEGER NOT NULL)",
        "CREATE TABLE param (id INTEGER PRIMARY KEY, identity INTEGER NOT NULL, layout INTEGER NOT NULL, "
        "account INTEGER NOT NULL, uses BLOB NOT NULL, reals BLOB NOT NULL, first INTEGER NOT NULL, "
        "crc INTEGER NOT NULL)",
        "CREATE TABLE phrase (id INTEGER PRIMARY KEY, json TEXT NOT NULL, crc INTEGER NOT NULL)",
        "CREATE TABLE step (id INTEGER PRIMARY KEY, number INTEGER NOT NULL, params INTEGER NOT NULL, "
        "first INTEGER NOT NULL, branches INTEGER NOT NULL, scalars INTEGER NOT NULL, reals BLOB NOT NULL, "
        "flags INTEGER NOT NULL, reports TEXT NOT NULL, kept_bytes INTEGER NOT NULL, crc INTEGER NOT NULL)",
    ]
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert db.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"gflw", "big"),)
    db.close()


def test_reserved_contributors_come_back_like_any_other(tmp_path):
    p = records.param_step(contributors=("anchor", *RESERVED))
    read = load(save(Recording([Step(0, {p.fqn: p})]), tmp_path / "run.gradflow"))
    assert read.last[p.fqn].contributors == ("anchor", *RESERVED)

"""What the page asks for, of recordings that stand still, grow or forget."""

from dataclasses import replace

import numpy as np
import pytest

from gradflow.capture.session import Memory
from gradflow.errors import NoSuchStepError
from gradflow.recording import Recording
from gradflow.storage import load, save
from gradflow.widgets.explorer import book as books
from gradflow.widgets.explorer.book import Book
from tests import records


def overview(book):
    reply = book.overview()
    columns = reply.numbers.reshape(2 + len(reply.head["scalars"]), reply.head["steps"])
    return reply.head, columns


def blocks(reply):
    return reply.numbers.reshape(len(reply.head["steps"]), -1)


def test_the_overview_has_every_step_and_scalar():
    head, columns = overview(Book(records.recording(5)))
    assert (head["steps"], head["scalars"]) == (5, ["loss"])
    assert columns[0].tolist() == [0, 1, 2, 3, 4]
    assert columns[2].tolist() == [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert head["rows"][0] == ["", -1, False, 3]


def test_the_overview_tells_which_steps_are_out_of_order():
    steps = [
        records.step(0),
        records.step(1, complete=False),
        records.step(2, skipped=True),
        records.step(3, fqns=()),
    ]
    assert overview(Book(Recording(steps)))[1][1].tolist() == [0, 1, 2, 4]


def test_a_scalar_that_some_steps_lack_is_nan_there():
    steps = [records.step(0, scalars={}), records.step(1, scalars={"lr": 0.5})]
    assert np.isnan(overview(Book(Recording(steps)))[1][2][0])


def test_an_empty_recording_has_an_overview():
    head, columns = overview(Book(Recording()))
    assert head["steps"] == 0
    assert columns.shape == (2, 0)


def test_a_file_gives_the_same_answers(tmp_path):
    recording = records.recording(4)
    there, here = Book(load(save(recording, tmp_path / "run.gradflow"))), Book(recording)
    for ask in (
        lambda b: b.overview(),
        lambda b: b.step(2),
        lambda b: b.history(""),
        lambda b: b.maps(1, "fc.weight"),
    ):
        found, wanted = ask(there), ask(here)
        assert found.head == wanted.head
        np.testing.assert_array_equal(found.numbers, wanted.numbers)


@pytest.mark.parametrize("place", ["", "conv1", "fc.weight"])
def test_a_history_is_the_row_of_every_step(place):
    book = Book(records.recording(6))
    history = blocks(book.history(place))
    for position, index in enumerate(book.indices):
        step = book.step(index)
        rows = step.numbers.reshape(step.head["rows"], -1)
        np.testing.assert_allclose(history[position], rows[book.tree.at[place]], rtol=1e-12)


def test_a_long_history_of_many_parameters_is_thinned_and_ends_with_the_newest(monkeypatch):
    monkeypatch.setattr(books, "_MOST_READ", 9)
    head = Book(records.recording(10)).history("").head
    assert head["every"] == 4
    assert head["steps"] == [1, 5, 9]
    assert Book(records.recording(3)).history("").head["every"] == 1


def test_a_history_longer_than_one_chunk(monkeypatch):
    whole = Book(records.recording(7)).history("conv1").numbers
    monkeypatch.setattr(books, "_CHUNK", 2)
    np.testing.assert_allclose(Book(records.recording(7)).history("conv1").numbers, whole, rtol=1e-12)


def test_a_step_without_gradients_is_left_out_of_the_history():
    steps = [records.step(0), records.step(1, fqns=()), records.step(2)]
    assert Book(Recording(steps)).history("").head["steps"] == [0, 2]


def test_new_steps_are_found_and_an_amended_one_is_read_again():
    shelf = Memory()
    book = Book(Recording(shelf))
    assert not book.refresh()
    shelf.append(records.step(0))
    shelf.append(records.step(1))
    assert book.refresh()
    assert book.indices == [0, 1]
    shelf.amend(replace(shelf[-1], scalars={"loss": 9.0}))
    assert book.refresh()
    assert overview(book)[1][2].tolist() == [1.0, 9.0]
    assert not book.refresh()


def test_new_parameters_join_the_tree():
    shelf = Memory()
    book = Book(Recording(shelf))
    shelf.append(records.step(0))
    book.refresh()
    shelf.append(records.step(1, fqns=("conv1.weight", "late.weight")))
    book.refresh()
    assert [row.place for row in book.tree.rows if row.is_parameter][-1] == "late.weight"
    step = book.step(0)
    assert np.isnan(step.numbers.reshape(step.head["rows"], -1)[book.tree.at["late.weight"]]).all()


def test_steps_that_were_forgotten_are_gone_and_the_others_are_still_found():
    shelf = Memory(last=3)
    book = Book(Recording(shelf))
    for i in range(7):
        shelf.append(records.step(2 * i))
        book.refresh()
    assert book.indices == [8, 10, 12]
    assert book.find(10).index == 10
    shelf.append(records.step(14))  # before anyone looked again
    assert book.find(12).index == 12
    with pytest.raises(NoSuchStepError, match="no step of index 8"):
        book.step(8)
    with pytest.raises(NoSuchStepError, match="no step of index 11"):
        book.step(11)


def test_maps_are_the_kept_tensors_in_the_order_of_the_equation():
    recording = records.recording(2)
    reply, p = Book(recording).maps(1, "conv1.weight"), recording[1]["conv1.weight"]
    assert [panel["sign"] for panel in reply.head["panels"]] == ["", "+", "+", "=", "→"]
    cells = reply.numbers.reshape(5, reply.head["rows"], reply.head["columns"])
    wanted = [*(p.contribution(name) for name in p.contributors), p.total, p.delta.tensor]
    np.testing.assert_array_equal(cells, wanted)
    np.testing.assert_allclose(cells[:3].sum(axis=0), cells[3])


@pytest.mark.parametrize("place", ["conv1.weight", "conv1", "", "nonsense"])
def test_there_are_no_maps_where_no_tensors_were_kept(place):
    reply = Book(records.recording(2, keep=False)).maps(0, place)
    assert reply.head["panels"] == []
    assert reply.numbers.size == 0


def test_a_thousand_steps_of_161_parameters_begin_with_little():
    """The first answers, before anyone touches anything: overview, newest step, history of the model."""
    fqns = [f"layer{i // 40}.{i % 40 // 4}.part{i % 4}.weight" for i in range(161)]
    one = records.step(0, fqns=fqns, keep=False)
    steps = [replace(one, index=i) for i in range(1000)]
    book = Book(Recording(steps))
    replies = [book.overview(), book.step(999), book.history("")]
    assert sum(len(repr(reply.head)) + reply.numbers.nbytes for reply in replies) < 200_000

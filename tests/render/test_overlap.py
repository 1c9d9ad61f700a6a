import pytest
from matplotlib.figure import Figure

from tests.render.overlap import assert_no_overlap, drawn_texts


def test_overlapping_texts_are_found():
    fig = Figure()
    fig.text(0.5, 0.5, "one")
    fig.text(0.51, 0.5, "two")
    with pytest.raises(AssertionError, match="overlap"):
        assert_no_overlap(fig)


def test_a_text_that_leaves_the_figure_is_found():
    fig = Figure()
    fig.text(0.99, 0.5, "too far to the right")
    with pytest.raises(AssertionError, match="leaves the figure"):
        assert_no_overlap(fig)


def test_tick_labels_that_run_into_each_other_are_found():
    ax = Figure().add_subplot()
    ax.set_xticks(range(30), [f"label{i}" for i in range(30)])
    with pytest.raises(AssertionError, match="overlap"):
        assert_no_overlap(ax.figure)


def test_texts_that_are_not_drawn_do_not_count():
    ax = Figure().add_subplot()
    ax.text(0.5, 0.5, "seen")
    ax.text(0.5, 0.5, "hidden", visible=False)
    assert "hidden" not in [text.get_text() for text, _ in drawn_texts(ax.figure)]
    assert_no_overlap(ax.figure)

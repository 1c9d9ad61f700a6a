"""The picture of two runs: its lines are the numbers of the recordings, on the same axes."""

import numpy as np
import pytest

from gradflow import plot
from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NoSuchStepError
from gradflow.recording import Recording
from gradflow.render.theme import style
from tests.render import scenes
from tests.render.overlap import assert_no_overlap

A = scenes.recording(9)
B = scenes.recording(6, ("positive", "anchor"))


def line_called(ax, label):
    (line,) = [one for one in ax.lines if one.get_label() == label]
    return line


@pytest.mark.parametrize("where", ["", "conv1", "fc.weight"])
def test_norms_of_each_run_are_in_its_column(where):
    fig = plot.compare(A, B, where)
    for ax, run in zip(fig.axes[:2], (A, B), strict=True):
        for name in run.branches:
            expected = [(s[where] if where in s.params else s.layer(where)).norms[name] for s in run]
            np.testing.assert_allclose(line_called(ax, name).get_ydata(), expected)
        assert list(line_called(ax, "Σ, their sum").get_xdata()) == [s.index for s in run]


def test_the_lower_row_has_the_smallest_cosine_of_each_step():
    fig = plot.compare(A, B)
    for ax, run in zip(fig.axes[2:4], (A, B), strict=True):
        model = [s.layer("") for s in run]
        pairs = [(x, y) for i, x in enumerate(run.branches) for y in run.branches[:i]]
        np.testing.assert_allclose(
            ax.lines[-1].get_ydata(), [min(m.cosine(*p) for p in pairs) for m in model]
        )


def test_both_columns_have_the_same_axes_and_a_branch_looks_the_same_in_both():
    fig = plot.compare(A, B, scalar="loss")
    for left, right in zip(fig.axes[::2], fig.axes[1::2], strict=True):
        assert left.get_ylim() == right.get_ylim()
        assert left.get_xlim() == right.get_xlim()
    for name in B.branches:
        colours = {line_called(ax, name).get_color() for ax in fig.axes[:2]}
        assert colours == {style(name, A.branches).colour}


def test_columns_are_titled_and_every_branch_of_either_has_a_key():
    fig = plot.compare(A, B, names=("long", "short"), scalar="loss")
    assert [ax.get_title(loc="left") for ax in fig.axes[:2]] == ["long", "short"]
    (legend,) = fig.legends
    assert [t.get_text() for t in legend.get_texts()] == ["anchor", "positive", "negative", "Σ, their sum"]
    np.testing.assert_allclose(fig.axes[4].lines[0].get_ydata(), [s.scalars["loss"] for s in A])


def test_its_description_tells_both_runs():
    told = plot.describe(plot.compare(A, B, names=("long", "short")))
    assert told.startswith("Two runs side by side, the whole model. long, steps 0 to 8: anchor from ")
    assert "short, steps 0 to 5: anchor from " in told
    assert told.count("two branches pull against each other") == 2


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda: plot.compare(A, Recording([])), NoSuchStepError),
        (lambda: plot.compare(A, B, "nowhere"), NoSuchParameterError),
        (lambda: plot.compare(A, B, scalar="lost"), InvalidArgumentError),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, error):
    with pytest.raises(error):
        given()


def test_an_unknown_scalar_names_the_near_ones():
    with pytest.raises(InvalidArgumentError, match="did you mean 'loss'"):
        plot.compare(A, B, scalar="los")


@pytest.mark.parametrize("branches", [scenes.FIVE, scenes.TWO], ids=["five long names", "two"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_keep_clear_of_each_other(branches, theme):
    one, other = scenes.recording(12, branches), scenes.recording(3, branches)
    names = ("a_run_with_a_rather_long_name_of_its_own", "b")
    assert_no_overlap(plot.compare(one, other, "conv1", names=names, scalar="loss", theme=theme))

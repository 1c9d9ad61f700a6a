"""The maps and profiles over layers, steps and terms, and the plane of embeddings, by their artists."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Circle

import gradflow
from gradflow import plot
from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NoSuchStepError, ShapeError
from gradflow.record import TermTable
from gradflow.recording import Recording
from gradflow.render import theme
from tests import records
from tests.render import scenes
from tests.render.overlap import assert_no_overlap

LOOKS = ["light", "dark"]
TERMS = ("pull", "push", "unclaimed")
TRIPLET = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 5.5]])  # d_ap = 5, d_an = 5.5


def tabled(branches=records.PATHS, terms=TERMS):
    """A step whose every parameter has the same table; no push along the second branch."""
    cells = np.random.default_rng(0).normal(size=(len(branches), len(terms), 12))
    cells[1, 1] = 0
    flat = cells.reshape(-1, 12)
    table, whole = TermTable(branches, terms, flat @ flat.T), scenes.step(branches=branches)
    total = float(np.linalg.norm(flat.sum(axis=0)))
    named = {f: replace(p, terms=table, total_norm=total) for f, p in whole.parameters.items()}
    return replace(whole, parameters=named), cells


def silent(whole):
    for branch in records.PATHS:
        whole = scenes.dead(whole, branch)
    return whole


# cancellation


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("steps", [1, 12, 60, 500])
def test_the_map_of_cancellation_fits(steps, look):
    assert_no_overlap(plot.cancellation(scenes.recording(steps), theme=look).figure)


def test_the_map_of_a_deep_model_fits():
    ax = plot.cancellation(Recording([scenes.deep(i) for i in range(3)]))
    assert "modules to depth 2" in ax.get_title(loc="left")
    assert_no_overlap(ax.figure)


def test_the_map_holds_the_cancellation_of_every_layer_and_step():
    run = scenes.recording(5)
    ax = plot.cancellation(run)
    shown = np.asarray(ax.get_images()[0].get_array())
    wanted = [[step[fqn].cancellation for step in run] for fqn in run.params]
    np.testing.assert_array_equal(shown, wanted)
    assert ax.get_images()[0].get_clim() == (0, 1)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(run.params)


def test_cells_with_nothing_to_cancel_are_hatched_and_said_so():
    run = scenes.recording(5)
    ax = plot.cancellation(Recording([*run[:2], silent(run[2]), *run[3:]]))
    hatched = [(p.get_x(), p.get_y()) for p in ax.patches if p.get_hatch()]
    assert hatched == [(1.5, -0.5), (1.5, 0.5), (1.5, 1.5)]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["nothing to cancel, or mere rounding"]
    assert plot.cancellation(run).get_legend() is None


def test_the_map_of_a_module_shows_what_lies_under_it():
    ax = plot.cancellation(scenes.recording(2), "conv1")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["conv1.weight", "conv1.bias"]


# profile


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("branches", [("only",), records.PATHS, scenes.FIVE], ids=len)
def test_the_profile_fits(branches, look):
    names = (scenes.LONG, scenes.LONG.replace("11", "10"), "head.bias")
    assert_no_overlap(plot.profile(scenes.step(branches=branches, fqns=names), theme=look).figure)


@pytest.mark.parametrize("by", ["auto", "module"])
def test_the_profile_of_a_deep_model_fits(by):
    assert_no_overlap(plot.profile(scenes.deep(), by=by).figure)


@pytest.mark.parametrize("measure", ["norm", "rms"])
def test_the_profile_draws_every_branch_at_every_depth(measure):
    whole = scenes.step()
    lines = {line.get_label(): list(line.get_ydata()) for line in plot.profile(whole, measure=measure).lines}
    sizes = [math.sqrt(math.prod(p.shape)) if measure == "rms" else 1.0 for p in whole]
    for name in records.PATHS:
        assert lines[name] == [p.norms[name] / size for p, size in zip(whole, sizes, strict=True)]
    assert lines["Σ, their sum"] == [p.total_norm / size for p, size in zip(whole, sizes, strict=True)]


def test_zeros_and_absences_are_gaps_that_the_legend_counts():
    odd = scenes.dead(scenes.without(scenes.step(), "negative", "conv1.weight"), "positive")
    lines = {line.get_label(): line.get_ydata() for line in plot.profile(odd).lines}
    assert np.isnan(lines["positive (3 zero)"]).all()
    assert np.isnan(lines["negative (1 absent)"]).tolist() == [True, False, False]


def test_mere_rounding_is_hollow():
    whole = scenes.step()
    p = whole["conv1.bias"]
    faint = {**whole.parameters, "conv1.bias": replace(p, gram=p.gram * 1e-14, total_norm=1e-7)}
    ax = plot.profile(replace(whole, parameters=faint))
    hollow = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[1], [1], [1]]
    assert {line.get_markerfacecolor() for line in hollow} == {theme.LIGHT.paper}
    assert "hollow" in ax.get_legend().get_texts()[-1].get_text()


# terms


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("branches", [records.PATHS, scenes.FIVE], ids=len)
@pytest.mark.parametrize(
    "terms", [TERMS, ("attraction_of_views", "unclaimed"), ("a", "b", "c", "d", "unclaimed")]
)
def test_the_table_of_terms_fits(branches, terms, look):
    assert_no_overlap(plot.terms(tabled(branches, terms)[0], "conv1.weight", theme=look).figure)


def test_the_table_of_terms_holds_norms_and_the_norms_of_sums():
    whole, cells = tabled()
    shown = np.asarray(plot.terms(whole, "fc.weight").get_images()[0].get_array())
    np.testing.assert_allclose(shown[:-1, :-1], np.linalg.norm(cells, axis=-1), atol=1e-12)
    np.testing.assert_allclose(shown[:-1, -1], np.linalg.norm(cells.sum(axis=1), axis=-1))
    np.testing.assert_allclose(shown[-1, :-1], np.linalg.norm(cells.sum(axis=0), axis=-1))
    assert shown[-1, -1] == whole["fc.weight"].total_norm


def test_the_table_of_terms_tells_what_cancels_in_each_sum():
    whole, cells = tabled()
    written = {t.get_position(): t.get_text() for t in plot.terms(whole, "fc.weight").texts}
    lost = 1 - np.linalg.norm(cells[0].sum(axis=0)) / np.linalg.norm(cells[0], axis=-1).sum()
    assert written[3, 0].splitlines()[1] == f"{100 * lost:.0f} % cancels"
    assert written[1, 1] == "0"


def test_a_real_loss_with_two_terms_has_a_table():
    """The anchor is pulled and pushed; no push came along the positive, no pull along the negative."""
    encoder = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    with gradflow.watch(encoder, optimizer, branches=records.PATHS) as flow:
        a, p, n = (encoder(torch.randn(8, 4)) for _ in range(3))
        pull = gradflow.branch.term("pull", (a - p).norm(dim=1).mean())
        push = gradflow.branch.term("push", -(a - n).norm(dim=1).mean())
        (pull + push).backward()
        optimizer.step()
    ax = plot.terms(flow.recording.last, "weight")
    shown = np.asarray(ax.get_images()[0].get_array())
    assert (shown[1, 1], shown[2, 0]) == (0, 0)
    assert (shown[0, :2] > 0).all()
    assert sum(bool(patch.get_hatch()) for patch in ax.patches) == (shown == 0).sum()


# plane


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("margin", [None, 0.3])
@pytest.mark.parametrize("count", [1, 12, 200])
def test_the_plane_fits(count, margin, look):
    rng = np.random.default_rng(1)
    points, gradients = rng.normal(size=(2, 3, count, 2))
    assert_no_overlap(plot.plane(points, gradients, margin=margin, theme=look).figure)


def test_the_plane_keeps_its_aspect_and_says_nothing(caplog):
    ax = plot.plane(TRIPLET * [1, 0.1], margin=0.2)
    ax.figure.draw_without_rendering()
    box = ax.get_window_extent()
    wide, high = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
    assert wide / high == pytest.approx(box.width / box.height, rel=1e-3)
    assert wide < 12
    assert not caplog.records


def test_arrows_point_along_the_negative_gradient_at_the_scale_that_is_told():
    gradients = np.array([[1.0, 0.0], [0.0, -0.5], [0.0, 0.0]])
    ax = plot.plane(TRIPLET, gradients)
    scale = float(ax.get_xlabel().rpartition(" ")[2])
    arrows = [c for c in ax.collections if hasattr(c, "U") and len(c.U)]
    np.testing.assert_allclose([(c.U[0], c.V[0]) for c in arrows], [(-scale, 0), (0, 0.5 * scale)])
    assert [to_hex(c.get_facecolor()[0]).upper() for c in arrows] == list(theme.PALETTE[:2])


def test_a_point_without_gradient_is_hollow():
    ax = plot.plane(TRIPLET, [[1, 0], [0, 1], [0, 0]])
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    assert [to_hex(line.get_markeredgecolor()).upper() for line in hollow] == [theme.PALETTE[2]]
    assert ax.get_legend().get_texts()[-1].get_text() == "hollow: no gradient"


@pytest.mark.parametrize(
    ("margin", "squared", "radius", "dead"),
    [(0.25, False, 5.25, 1), (1.0, False, 6.0, 0), (11.0, True, 6.0, 0), (5.0, True, math.sqrt(30), 1)],
)
def test_the_dead_zone_begins_where_the_hinge_ends(margin, squared, radius, dead):
    """At its edge torch's own hinge turns 0: d_ap - d_an + margin with d_an the radius."""
    ax = plot.plane(TRIPLET, margin=margin, squared=squared)
    (circle,) = [p for p in ax.patches if isinstance(p, Circle)]
    assert circle.get_radius() == pytest.approx(radius)
    assert tuple(circle.center) == (0, 0)
    assert f"({dead} of 1)" in plot.describe(ax.figure)
    anchor, positive, negative = map(torch.tensor, TRIPLET)
    power = 2 if squared else 1
    hinge = (anchor - positive).norm() ** power - (anchor - negative).norm() ** power + margin
    assert dead == (hinge.item() <= 0)


def test_each_branch_has_a_marker_and_a_letter_of_its_own():
    ax = plot.plane(TRIPLET)
    assert {t.get_text() for t in ax.texts} == set("APN")
    assert {line.get_marker() for line in ax.lines if len(line.get_xdata())} >= set("os^")


# errors, and what all have in common


def test_it_says_what_is_wrong():
    whole = scenes.step()
    with pytest.raises(InvalidArgumentError, match="no term of the loss was named"):
        plot.terms(whole, "fc.weight")
    with pytest.raises(NoSuchParameterError, match="wieght"):
        plot.terms(whole, "fc.wieght")
    with pytest.raises(InvalidArgumentError, match="measure='max'"):
        plot.profile(whole, measure="max")
    with pytest.raises(NoSuchStepError, match="empty"):
        plot.cancellation(Recording())
    with pytest.raises(NoSuchParameterError, match="conv9"):
        plot.cancellation(scenes.recording(2), "conv9")
    with pytest.raises(NoSuchParameterError, match="no gradient"):
        plot.cancellation(Recording([replace(whole, parameters={})]))
    with pytest.raises(ShapeError, match=r"shape \(3, 5\) are not points in the plane"):
        plot.plane(np.zeros((3, 5)))
    with pytest.raises(ShapeError, match="2 labels for 3 branches"):
        plot.plane(TRIPLET, labels=("a", "b"))
    with pytest.raises(ShapeError, match="gradients of shape"):
        plot.plane(TRIPLET, TRIPLET[:2])
    with pytest.raises(InvalidArgumentError, match="with 2 branches"):
        plot.plane(TRIPLET[:2], labels=("left", "right"), margin=1.0)
    with pytest.raises(InvalidArgumentError, match="not finite"):
        plot.plane(TRIPLET * np.nan)


def test_given_axes_are_drawn_in_and_returned():
    _, (one, two, three, four, five) = plt.subplots(5, figsize=(7, 25))
    run = scenes.recording(3)
    assert plot.cancellation(run, ax=one) is one
    assert plot.profile(run.last, ax=two) is two
    assert plot.terms(tabled()[0], "fc.weight", ax=three) is three
    assert plot.plane(TRIPLET, ax=four) is four
    assert plot.race(run, ax=five) is five


def test_every_figure_is_described():
    run = scenes.recording(3)
    for ax in (
        plot.profile(run.last),
        plot.terms(tabled()[0], "fc.weight"),
        plot.plane(TRIPLET),
        plot.race(run),
    ):
        assert all(branch in plot.describe(ax.figure) for branch in records.PATHS)
    assert "conv1.weight" in plot.describe(plot.cancellation(run).figure)

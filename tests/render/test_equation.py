from dataclasses import replace

import numpy as np
import pytest

from gradflow import plot
from gradflow.errors import NoSuchParameterError, NotKeptError
from gradflow.render import theme
from tests import records
from tests.render import scenes
from tests.render.overlap import assert_no_overlap, drawn_texts

SHAPES = [
    (),
    (1,),
    (8,),
    (128,),
    (2, 2),
    (8, 8),
    (5, 3),
    (128, 256),
    (16, 1, 3, 3),
    (64, 3, 7, 7),
    (4, 3, 5),
    (0,),
]
BRANCHES = [("only",), scenes.TWO, records.PATHS, scenes.FIVE]


def one(shape, branches=records.PATHS, fqn="w", **how):
    return scenes.step(branches=branches, fqns=(fqn,), shapes={fqn: shape}, **how)


def heat_maps(fig):
    return [image.get_array() for ax in fig.axes for image in ax.get_images()]


def words(fig):
    return [text.get_text() for text, _ in drawn_texts(fig)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_fits(shape):
    assert_no_overlap(plot.equation(one(shape), "w"))


@pytest.mark.parametrize("branches", BRANCHES, ids=len)
@pytest.mark.parametrize("fqn", ["w", scenes.LONG])
def test_any_number_of_branches_and_any_name_fits(branches, fqn):
    whole = one((4, 4), branches, fqn, extra=("unclaimed", "rounding"))
    assert_no_overlap(plot.equation(whole, fqn, theme="dark"))


def test_the_panels_add_up():
    *terms, total, delta = heat_maps(plot.equation(one((5, 3)), "w"))
    assert len(terms) == 3
    np.testing.assert_allclose(sum(terms), total)
    np.testing.assert_allclose(delta, -0.1 * total)


def test_contributions_and_sum_share_a_symmetric_scale_and_the_delta_has_its_own():
    fig = plot.equation(one((5, 3)), "w")
    limits = [image.get_clim() for ax in fig.axes for image in ax.get_images()]
    assert len(set(limits[:-1])) == 1
    assert limits[0][0] == -limits[0][1]
    assert limits[-1] != limits[0]


def test_frames_have_the_colours_of_the_branches():
    fig = plot.equation(one((2, 2)), "w")
    frames = [ax.patches[0].get_edgecolor() for ax in fig.axes if ax.get_images()]
    from matplotlib.colors import to_rgba

    assert frames[:3] == [to_rgba(c) for c in theme.PALETTE[:3]]
    assert frames[3] == frames[4] == to_rgba(theme.LIGHT.ink)


def test_small_tensors_carry_their_numbers_and_large_ones_do_not():
    assert len(drawn_texts(plot.equation(one((8, 8)), "w"))) > 5 * 64
    assert len(drawn_texts(plot.equation(one((9, 9)), "w"))) < 64


@pytest.mark.parametrize("largest", [9.96, 0.0997, 3e7])
def test_numbers_stay_legible_in_eight_columns(largest):
    p = one((8, 8), scenes.TWO)["w"]
    by = largest / max(np.abs(t).max() for t in (*p.tensors.values(), p.total))
    tensors = {n: t * by for n, t in p.tensors.items()}
    p = replace(p, tensors=tensors, total_tensor=sum(tensors.values()))
    assert_no_overlap(plot.equation(records.Step(0, {"w": p}, scenes.TWO), "w"))


def test_numbers_that_are_multiples_of_a_power_say_so():
    p = one((2, 2))["w"]
    tiny = {n: t * 1e-7 for n, t in p.tensors.items()}
    p = replace(p, tensors=tiny, total_tensor=sum(tiny.values()))
    assert "numbers in contributions and Σ are multiples of 1e-7" in " ".join(
        words(plot.equation(records.Step(0, {"w": p}, records.PATHS), "w"))
    ).lower().replace("σ", "Σ")


def test_an_absent_branch_is_an_empty_panel_that_says_so():
    whole = scenes.without(one((5, 3)), "positive")
    fig = plot.equation(whole, "w")
    assert len(heat_maps(fig)) == 4
    assert {"absent", "no gradient arrived"} <= set(words(fig))
    assert "positive (absent)" in plot.describe(fig)
    assert_no_overlap(fig)


def test_zeros_are_not_absent():
    fig = plot.equation(scenes.dead(one((5, 3)), "positive"), "w")
    assert len(heat_maps(fig)) == 5
    assert "‖·‖ = 0 (zeros arrived)" in words(fig)
    assert "absent" not in words(fig)


def test_edited_stands_after_the_sum():
    fig = plot.equation(one((2, 2), extra=("edited",)), "w")
    names = [w for w in words(fig) if w in ("anchor", "Σ  sum", "edited", "Δ  delta")]
    assert names == ["anchor", "Σ  sum", "edited", "Δ  delta"]
    assert_no_overlap(fig)


def test_without_an_optimizer_there_is_no_delta():
    whole = one((5, 3))
    fig = plot.equation(replace(whole, parameters={"w": replace(whole["w"], delta=None)}), "w")
    assert len(heat_maps(fig)) == 4
    assert "→" not in words(fig)


def test_the_caption_tells_of_clipping_and_of_a_residual():
    whole = one((5, 3))
    odd = replace(whole["w"], scale=0.5, residual=2e-7)
    text = " ".join(words(plot.equation(replace(whole, parameters={"w": odd}), "w")))
    assert "0.5 × Σ" in text
    assert "2e-7" in text
    assert "bitwise" not in text


def test_values_that_are_not_finite_do_not_break_it():
    whole = one((2, 2))
    tensors = {n: t.copy() for n, t in whole["w"].tensors.items()}
    tensors["anchor"][0, 0] = np.nan
    tensors["negative"][1, 1] = np.inf
    broken = replace(whole["w"], tensors=tensors, total_tensor=sum(tensors.values()))
    fig = plot.equation(replace(whole, parameters={"w": broken}), "w")
    assert "nan" in words(fig)
    assert_no_overlap(fig)


def test_it_draws_in_a_given_figure():
    from matplotlib.figure import Figure

    outer = Figure(figsize=(12, 8)).subfigures(2, 1)
    assert plot.equation(one((5, 3)), "w", fig=outer[0]) is outer[0]
    assert not outer[1].get_axes()


def test_it_says_what_is_missing():
    with pytest.raises(NotKeptError, match="only inner products were kept"):
        plot.equation(scenes.step(keep=False), "conv1.weight")
    with pytest.raises(NoSuchParameterError, match=r"conv1\.wieght"):
        plot.equation(scenes.step(), "conv1.wieght")


def test_a_notebook_shows_it_with_its_description():
    shown = plot.equation(one((2, 2), ('a"b<script>&c', "d")), "w")._repr_html_()
    assert 'alt="' in shown or "alt='" in shown
    assert "<script>" not in shown
    assert "data:image/png;base64," in shown

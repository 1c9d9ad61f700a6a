from dataclasses import replace

import pytest
from matplotlib.patches import FancyArrow, FancyBboxPatch

from gradflow import plot
from gradflow.render import theme
from tests import records
from tests.render import scenes
from tests.render.overlap import assert_no_overlap, drawn_texts

LONG_NAMES = (scenes.LONG, "encoder.embeddings.word_embeddings.weight", "head.bias", "scale")
SCENES = {
    "plain": scenes.step(),
    "one branch": scenes.step(branches=("only",)),
    "two": scenes.step(branches=scenes.TWO),
    "five, long": scenes.step(branches=scenes.FIVE, fqns=LONG_NAMES, extra=("unclaimed", "shared")),
    "161": scenes.deep(),
    "dead and absent": scenes.dead(scenes.without(scenes.step(), "negative"), "positive"),
    "edited": scenes.step(extra=("edited",)),
}


def words(fig):
    return [text.get_text() for text, _ in drawn_texts(fig)]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("look", ["light", "dark"])
def test_it_fits(scene, look):
    assert_no_overlap(plot.flow(SCENES[scene], theme=look))


def test_each_shared_weight_stands_once_with_one_arrow_per_branch():
    whole = scenes.step()
    fig = plot.flow(whole, by="parameter")
    written = words(fig)
    assert [written.count(f"{p}") for p in ("conv1.weight", "fc.weight")] == [4, 4]  # three lanes, one weight
    arrows = [p for p in fig.axes[0].patches if isinstance(p, FancyArrow)]
    coloured = [a for a in arrows if a.get_facecolor()[:3] != _rgb(theme.LIGHT.ink)]
    assert len(coloured) == 3 * len(whole)
    assert {a.get_facecolor()[:3] for a in coloured} == {_rgb(c) for c in theme.PALETTE[:3]}


def test_a_name_that_ends_with_its_mark_is_not_given_it_twice():
    written = words(plot.flow(scenes.step(branches=("view 1", "view 2"))))
    assert {"view 1", "view 2"} <= set(written)
    assert any(w.startswith("1: ") for w in written)  # beneath the bars, as in "1: 60, 2: 40"
    assert "task 7  1" in words(plot.flow(scenes.step(branches=("task 7", "task 8"))))


def test_the_labels_are_the_norms():
    whole = scenes.step()
    written = words(plot.flow(whole, by="parameter"))
    for p in whole:
        assert {theme.number(v) for v in p.norms.values()} <= set(written)
        assert f"‖Σ‖ {theme.number(p.total_norm)}" in written
        assert f"‖Δ‖ {theme.number(p.delta.norm)}" in written


def test_a_deep_model_is_collapsed_and_says_so():
    fig = plot.flow(scenes.deep())
    assert any("modules to depth 1" in w for w in words(fig))
    assert "30 parameters" in words(fig)


def test_a_wrapping_module_is_looked_into():
    fqns = tuple(f"net.block{i}.weight" for i in range(14))
    assert any("the 9 largest of 14 modules" in w for w in words(plot.flow(scenes.step(fqns=fqns))))


def test_zero_and_absent_are_told_apart():
    written = words(plot.flow(SCENES["dead and absent"]))
    assert written.count("0 zeros") == 2
    assert written.count("× absent") == 2


def test_a_conflict_is_named():
    import numpy as np

    gram = np.array([[1.0, -0.9, 0.0], [-0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    p = replace(scenes.step()["fc.weight"], gram=gram)
    fighting = replace(scenes.step(), parameters={"fc.weight": p})
    assert "A↔P cos −0.90" in words(plot.flow(fighting))
    assert "anchor against positive (cosine −0.90)" in plot.describe(plot.flow(fighting))
    calm = replace(fighting, parameters={"fc.weight": replace(p, gram=np.eye(3))})
    assert not any("cos" in w for w in words(plot.flow(calm)))


def test_unclaimed_gradient_has_a_lane_only_where_there_is_some():
    assert "unclaimed" in words(plot.flow(scenes.step(extra=("unclaimed",))))
    silent = scenes.dead(scenes.step(extra=("unclaimed",)), "unclaimed")
    assert "unclaimed" not in words(plot.flow(silent))


def test_without_an_optimizer_it_ends_at_the_sum():
    whole = scenes.step()
    bare = replace(whole, parameters={f: replace(p, delta=None) for f, p in whole.parameters.items()})
    fig = plot.flow(bare)
    assert "delta Δ" not in words(fig)
    assert fig.get_figwidth() < plot.flow(whole).get_figwidth()
    boxes = [p for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch)]
    assert len(boxes) == 1 + 2 * (1 + len(records.PATHS))


def _rgb(colour):
    from matplotlib.colors import to_rgb

    return to_rgb(colour)

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from gradflow import plot
from gradflow.displacement import displacement
from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NoSuchStepError, NotKeptError
from gradflow.recording import Recording
from gradflow.render import theme
from gradflow.render.rows import rows
from gradflow.render.story import ACCOUNTING
from tests import records
from tests.render import scenes
from tests.render.overlap import assert_no_overlap, drawn_texts

BRANCHES = [("only",), scenes.TWO, records.PATHS, scenes.FIVE]
LONG_NAMES = (
    scenes.LONG,
    scenes.LONG.replace("11", "10"),
    "encoder.embeddings.word_embeddings.weight",
    "head.bias",
)
MANY = tuple(f"block{i}.{kind}" for i in range(11) for kind in ("weight", "bias"))


def sized(whole, factor):
    """The same step, each parameter's gradient ``factor`` times as large as the one before."""
    parameters = {}
    for i, (fqn, p) in enumerate(whole.parameters.items()):
        by = factor**i
        parameters[fqn] = replace(p, gram=p.gram * by**2, total_norm=p.total_norm * by)
    return replace(whole, parameters=parameters)


SCENES = {
    "plain": scenes.step(),
    "22": sized(scenes.step(fqns=MANY), 0.4),
    "161": scenes.deep(),
    "long": scenes.step(branches=scenes.FIVE, fqns=LONG_NAMES, extra=("unclaimed", "shared")),
    "two": scenes.step(branches=scenes.TWO),
    "odd": scenes.dead(scenes.without(scenes.step(), "negative", "conv1.weight"), "positive"),
    "absent": scenes.without(scenes.step(), "negative"),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("look", ["light", "dark"])
def test_contributions_fit(scene, look):
    assert_no_overlap(plot.contributions(SCENES[scene], theme=look).figure)


@pytest.mark.parametrize("scene", SCENES)
def test_deltas_of_a_step_fit(scene):
    assert_no_overlap(plot.deltas(SCENES[scene]).figure)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("where", [0, ""], ids=["parameter", "model"])
def test_cosines_fit(scene, where):
    whole = SCENES[scene]
    assert_no_overlap(plot.cosines(whole, whole.params[0] if where == 0 else "").figure)


@pytest.mark.parametrize("branches", BRANCHES, ids=len)
@pytest.mark.parametrize("shade", ["conflict", "cosine", None], ids=str)
def test_history_fits(branches, shade):
    run = scenes.recording(30, branches, fqns=LONG_NAMES)
    assert_no_overlap(plot.history(run, scenes.LONG, shade=shade, scalar="loss").figure)


@pytest.mark.parametrize("branches", BRANCHES, ids=len)
@pytest.mark.parametrize("steps", [1, 6, 120])
def test_deltas_of_a_recording_fit(branches, steps):
    assert_no_overlap(plot.deltas(scenes.recording(steps, branches, fqns=("w",))).figure)


def test_contributions_mark_every_norm_and_every_sum():
    whole = scenes.step()
    ax = plot.contributions(whole)
    drawn = [
        (line.get_xdata()[0], line.get_markeredgecolor()) for line in ax.lines if line.get_marker() in "os^"
    ]
    wanted = [(p.norms[b], c) for p in whole for b, c in zip(records.PATHS, theme.PALETTE, strict=False)]
    assert sorted(drawn) == sorted(wanted)
    sums = [line.get_xdata()[0] for line in ax.lines if line.get_color() == theme.LIGHT.ink]
    assert sums == [p.total_norm for p in whole]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(whole.params)


def test_a_deep_model_is_shown_by_module_and_the_title_says_so():
    ax = plot.contributions(scenes.deep())
    assert "modules to depth 2" in ax.get_title(loc="left")
    assert len(ax.get_yticks()) == 19
    assert "5 largest of 161" in plot.contributions(scenes.deep(), by="parameter", top=5).get_title(
        loc="left"
    )


def test_rows_conserve_the_whole():
    whole = scenes.deep()
    shown, _ = rows(whole, most=30)
    np.testing.assert_allclose(sum(r.data.gram for r in shown), whole.layer("").gram)
    assert sum(len(r.members) for r in shown) == 161


def test_zero_and_absent_have_places_of_their_own():
    ax = plot.contributions(SCENES["odd"])
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels[:2] == ["absent", "zero"]
    assert sum(line.get_marker() == "x" for line in ax.lines) == 1
    assert "zero" not in [t.get_text() for t in plot.contributions(scenes.step()).get_xticklabels()]


def test_a_branch_keeps_its_colour_where_others_are_missing():
    ax = plot.history(Recording([scenes.without(scenes.step(i), "anchor") for i in range(3)]))
    by_name = {line.get_label(): to_hex(line.get_color()).upper() for line in ax.lines}
    assert by_name["positive"] == "#009E73"
    assert by_name["anchor (absent)"] == "#0072B2"
    assert by_name["negative"] == "#D55E00"


def test_cosines_are_those_of_the_record():
    whole = scenes.step()
    ax = plot.cosines(whole, "fc.weight")
    matrix = np.asarray(ax.get_images()[0].get_array())
    assert matrix[0, 2] == whole["fc.weight"].cosine("anchor", "negative")
    assert ax.get_images()[0].get_clim() == (-1, 1)
    assert not [p for p in ax.patches if p.get_hatch()]


def test_a_cosine_that_does_not_exist_is_hatched():
    ax = plot.cosines(SCENES["odd"], "conv1.weight")
    assert sum(bool(p.get_hatch()) for p in ax.patches) == 8
    assert "undefined" in plot.describe(ax.figure)


def test_history_shows_the_numbers_of_the_recording():
    run = scenes.recording(4)
    ax = plot.history(run, "conv1")
    line = next(line for line in ax.lines if line.get_label() == "positive")
    assert line.get_ydata().tolist() == [s.layer("conv1").norms["positive"] for s in run]


def test_conflict_is_shaded_where_there_is_conflict():
    calm = {"gram": np.eye(3), "total_norm": 3**0.5}
    steps = [records.Step(i, {"w": records.param_step("w", **calm)}, records.PATHS) for i in range(3)]
    fight = {"gram": np.array([[1.0, 0.0, -0.5], [0.0, 1.0, 0.0], [-0.5, 0.0, 1.0]]), "total_norm": 2**0.5}
    steps.append(records.Step(3, {"w": records.param_step("w", **fight)}, records.PATHS))
    (shade,) = plot.history(Recording(steps)).patches
    assert shade.get_x() <= 3 <= shade.get_x() + shade.get_width()
    assert shade.get_alpha() > 0
    assert not plot.history(Recording(steps), shade=None).patches
    assert not plot.history(Recording(steps[:3])).patches


def test_a_parameter_that_takes_no_part_in_a_step_leaves_a_gap():
    run = Recording([scenes.step(0, fqns=("a.weight",)), scenes.step(1, fqns=("a.weight", "b.weight"))])
    line = plot.history(run, "b.weight").lines[0]
    assert np.isnan(line.get_ydata()[0])
    assert np.isfinite(line.get_ydata()[1])


def test_a_long_recording_is_thinned_and_says_so():
    whole = scenes.step()
    run = Recording([replace(whole, index=i) for i in range(1000)])
    ax = plot.history(run, "conv1.bias")
    assert "one step in 3" in ax.get_title(loc="left")
    assert ax.lines[0].get_xdata()[-1] == 999


def test_deltas_stack_to_one():
    whole = scenes.step()
    ax = plot.deltas(whole)
    for row, p in enumerate(whole):
        bars = [b for b in ax.patches if abs(b.get_y() + b.get_height() / 2 - row) < 1e-9]
        assert sum(b.get_width() for b in bars) == pytest.approx(1.0)
        assert [b.get_width() for b in bars] == pytest.approx(list(p.delta.shares.values()))


def test_pieces_of_a_delta_carry_letters():
    whole = scenes.step()
    written = [t.get_text() for t in plot.deltas(whole).texts]
    wide = sum(abs(v) >= 0.09 for p in whole for v in p.delta.shares.values())
    assert len(written) == wide
    assert set(written) == {"A", "P", "N"}


def test_it_says_what_is_wrong():
    with pytest.raises(NoSuchStepError, match="empty"):
        plot.history(Recording())
    with pytest.raises(NoSuchStepError, match="empty"):
        plot.deltas(Recording())
    with pytest.raises(NoSuchParameterError, match="conv9"):
        plot.cosines(scenes.step(), "conv9")
    with pytest.raises(InvalidArgumentError, match="acc"):
        plot.history(scenes.recording(), scalar="acc")
    with pytest.raises(InvalidArgumentError, match="no theme 'sepia'"):
        plot.contributions(scenes.step(), theme="sepia")
    bare = scenes.step()
    bare = replace(bare, parameters={f: replace(p, delta=None) for f, p in bare.parameters.items()})
    with pytest.raises(InvalidArgumentError, match="optimizer"):
        plot.deltas(bare)


def test_given_axes_are_drawn_in_and_returned():
    _, axes = plt.subplots(4, figsize=(7, 14))
    for draw, ax in zip((plot.contributions, plot.cosines, plot.deltas), axes, strict=False):
        assert draw(scenes.step(), ax=ax) is ax
    assert plot.history(scenes.recording(), ax=axes[3]) is axes[3]


@pytest.mark.parametrize("draw", [plot.contributions, plot.cosines, plot.deltas], ids=lambda f: f.__name__)
def test_every_figure_is_described(draw):
    text = plot.describe(draw(scenes.step()).figure)
    assert all(branch in text for branch in records.PATHS)
    assert plot.describe(plot.history(scenes.recording()).figure).count("positive")


@pytest.mark.parametrize("branches", BRANCHES, ids=len)
@pytest.mark.parametrize("steps", [1, 30])
def test_the_race_fits(branches, steps):
    run = scenes.recording(steps, branches, fqns=LONG_NAMES, extra=("unclaimed",))
    assert_no_overlap(plot.race(run, scenes.LONG).figure)


def test_the_race_is_that_of_the_recording_and_starts_at_nothing():
    run = scenes.recording(6)
    ax, found = plot.race(run, "conv1"), displacement(run, "conv1")
    drawn = {line.get_label().partition(":")[0]: list(line.get_ydata()) for line in ax.lines}
    for name, values in found.race.items():
        assert drawn[name] == [0.0, *values]
    assert drawn["Σ, the weights"][-1] == pytest.approx(found.distance)
    assert ax.lines[0].get_xdata()[0] == -1


def test_the_race_needs_tensors():
    with pytest.raises(NotKeptError, match="inner products"):
        plot.race(scenes.recording(3, keep=False))


def test_where_shares_of_a_delta_are_drawn_it_says_what_they_are():
    whole, run = scenes.step(), scenes.recording(3)
    for ax in (plot.deltas(whole), plot.deltas(run), plot.race(run)):
        assert ACCOUNTING in plot.describe(ax.figure)
        assert ACCOUNTING in ax.get_legend().get_title().get_text().replace("\n", " ")
    for fig in (plot.equation(whole, "conv1.weight"), plot.flow(whole)):
        written = " ".join(text.get_text() for text, _ in drawn_texts(fig))
        assert ACCOUNTING in written

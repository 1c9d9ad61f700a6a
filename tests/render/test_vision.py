"""No figure needs colour to be read: seen with red-green blindness, and in black and white."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from gradflow import plot
from gradflow.render import theme
from tests.render import vision
from tests.render.overlap import drawn_texts

BLIND = {"deuteranopia": vision.deuteranopia, "black and white": vision.grey}
NAMES = sorted([*(set(plot.__all__) - {"describe"}), "many deltas"])


@pytest.fixture(scope="module", params=["light", "dark"])
def drawn(request):
    return vision.figures(request.param)


def test_the_simulation_keeps_greys_and_confuses_red_with_green():
    greys = np.repeat(np.linspace(0, 1, 9)[:, None], 3, axis=1)
    for see in BLIND.values():
        np.testing.assert_allclose(see(greys), greys, atol=1e-3)
    red, green = np.array([0.75, 0.2, 0.1]), np.array([0.42, 0.45, 0.1])
    before = vision.difference(red, green)
    after = vision.difference(vision.deuteranopia(red), vision.deuteranopia(green))
    assert after < before / 3


def test_lab_is_that_of_the_standard():
    np.testing.assert_allclose(vision.lab([1, 1, 1]), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(vision.lab([1, 0, 0]), [53.24, 80.09, 67.20], atol=0.05)


@pytest.mark.parametrize(("one", "other"), list(combinations(theme.PALETTE, 2)))
def test_branches_differ_in_colour_with_red_green_blindness(one, other):
    seen = [vision.deuteranopia(to_rgb(colour)) for colour in (one, other)]
    assert vision.difference(*seen) > 10


@pytest.mark.parametrize("see", BLIND.values(), ids=BLIND)
def test_the_map_of_sizes_grows_lighter_all_the_way(see):
    lightness = vision.lab(see(mpl.colormaps[theme.SEQUENTIAL](np.linspace(0, 1, 64))[:, :3]))[:, 0]
    assert (np.diff(lightness) > 0).all()


def test_the_two_ends_of_the_map_of_signs_differ_with_red_green_blindness():
    below, above = mpl.colormaps[theme.DIVERGING]([0.1, 0.9])[:, :3]
    assert vision.difference(vision.deuteranopia(below), vision.deuteranopia(above)) > 30


def look(key):
    """What tells a key of a legend from another besides its colour."""
    if isinstance(key, Line2D):
        return (
            "line",
            key.get_marker(),
            str(key._unscaled_dash_pattern),
            key.get_linewidth() > 2,
            key.get_markerfacecolor() == "none",
        )
    return "patch", key.get_hatch(), key.get_label().rpartition(" (")[2]


@pytest.mark.parametrize("name", NAMES)
def test_keys_differ_by_more_than_colour(name, drawn):
    legends = [*drawn[name].legends, *(ax.get_legend() for ax in drawn[name].axes if ax.get_legend())]
    for legend in legends:
        looks = [look(key) for key in legend.legend_handles]
        assert len(set(looks)) == len(looks), looks


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("see", BLIND.values(), ids=BLIND)
def test_every_text_stands_out(name, see, drawn):
    """Against the colour that is most frequent behind it."""
    fig = drawn[name]
    seen = vision.pixels(fig)
    high = len(seen)
    for text, box in drawn_texts(fig):
        x0, x1 = (int(np.clip(v, 0, seen.shape[1] - 1)) for v in (box.x0 - 1, box.x1 + 1))
        y0, y1 = (int(np.clip(high - v, 0, high - 1)) for v in (box.y1 + 1, box.y0 - 1))
        behind = seen[y0 : y1 + 1, x0 : x1 + 1].reshape(-1, 3)
        colours, counts = np.unique(np.round(behind, 2), axis=0, return_counts=True)
        paper = colours[counts.argmax()]
        ink = np.array(to_rgb(text.get_color()))
        assert vision.contrast(see(ink), see(paper)) >= 3, (text.get_text(), ink, paper)


def test_signs_are_written_where_black_and_white_hides_them(drawn):
    """The two ends of a diverging map are equally dark: small tables carry their numbers."""
    written = [text.get_text() for text in drawn["cosines"].axes[0].texts]
    assert all(words.startswith(("+", "−", "0")) for words in written)
    assert len([t for t, _ in drawn_texts(drawn["equation"]) if t.get_text().startswith("−")]) > 10

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradflow.errors import InvalidArgumentError
from gradflow.record import RESERVED
from gradflow.render import theme


def contrast(a, b):
    bright, dark = sorted((theme.luminance(a), theme.luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("look", [theme.LIGHT, theme.DARK], ids=lambda t: t.name)
def test_texts_and_lanes_stand_out(look):
    for name in ("ink", "muted", "alarm"):
        assert contrast(getattr(look, name), look.paper) >= 4.5
        assert contrast(getattr(look, name), look.panel) >= 4.5
    for colour in theme.PALETTE[:3]:
        assert contrast(colour, look.paper) >= 3


def test_luminance_is_that_of_the_standard():
    assert theme.luminance("#ffffff") == pytest.approx(1.0)
    assert theme.luminance("#000000") == 0.0
    assert contrast("#777777", "#ffffff") == pytest.approx(
        4.48, abs=0.01
    )  # the well-known grey just short of 4.5


@pytest.mark.parametrize("colour", theme.PALETTE)
def test_letters_can_be_read_on_every_branch(colour):
    assert contrast(theme.ink_on(colour), colour) >= 4.5


def test_the_first_three_branches_have_the_colours_of_the_project():
    looks = [theme.style(b, ("anchor", "positive", "negative")) for b in ("anchor", "positive", "negative")]
    assert [s.colour for s in looks] == ["#0072B2", "#009E73", "#D55E00"]
    assert [s.letter for s in looks] == ["A", "P", "N"]


@given(st.integers(1, 40))
def test_branches_differ_by_more_than_colour(count):
    branches = [f"b{i}" for i in range(count)]
    looks = [theme.style(b, branches) for b in branches]
    assert len({(s.colour, s.hatch) for s in looks}) == count
    assert len({(s.dash, s.colour) for s in looks[:35]}) == min(count, 35)
    assert len({s.letter for s in looks}) == count
    assert len({s.marker for s in looks[:7]}) == min(count, 7)


def test_reserved_contributors_are_grey_and_patterned():
    looks = [theme.style(name, ()) for name in RESERVED]
    assert all(len({s.colour[1:3], s.colour[3:5], s.colour[5:7]}) == 1 for s in looks)
    assert len({s.hatch for s in looks}) == len(RESERVED)


def test_an_unknown_contributor_is_refused():
    with pytest.raises(InvalidArgumentError, match="'negativ' is neither"):
        theme.style("negativ", ("anchor", "negative"))


def test_settings_are_found_as_they_were_even_after_an_error():
    import matplotlib

    before = matplotlib.rcParams["axes.facecolor"]
    with pytest.raises(InvalidArgumentError), theme.applied("dark"):
        theme.style(matplotlib.rcParams["axes.facecolor"], ())
    assert matplotlib.rcParams["axes.facecolor"] == before


def test_what_pyplot_sets_for_itself_stays_set(monkeypatch):
    """A notebook's backend switches ``interactive`` on with the first figure; without it, it shows none."""
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "interactive", False)
    with theme.applied("light"):
        matplotlib.rcParams["interactive"] = True
    assert matplotlib.rcParams["interactive"] is True


@given(st.text(min_size=1, max_size=80), st.integers(4, 60))
def test_a_shortened_name_keeps_its_end(name, most):
    said = theme.short(name, most)
    assert len(said) <= most or len(name) <= most
    assert said[-1] == name[-1]


def test_text_and_html_load_no_plotting_package():
    code = (
        "import sys; from gradflow.render import html, text, story; from gradflow import findings\n"
        "print([m for m in ('matplotlib', 'torch', 'rich', 'pandas', 'IPython') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

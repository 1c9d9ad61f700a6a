"""The skins over the playgrounds, without a browser: what the page asks for, what goes back, the twin."""

import json
import xml.etree.ElementTree as ET

import pytest
from bs4 import BeautifulSoup  # nbconvert brings it

import gradflow
from gradflow.errors import InvalidArgumentError
from gradflow.render.theme import number

OPEN = {
    "plane": gradflow.playground.plane,
    "sharing": gradflow.playground.sharing,
    "time": gradflow.playground.time,
}


@pytest.fixture
def make():
    made = []

    def make(name, **entries):
        made.append(OPEN[name](**entries))
        return made[-1]

    yield make
    for widget in made:
        widget.close()


@pytest.fixture(params=OPEN)
def widget(request, make):
    return make(request.param)


def ask(widget, todo, asked="1", **given):
    """What arrives when the page asks for something."""
    widget._handle_custom_msg({"todo": todo, "given": given, "asked": asked}, [])


def test_what_the_page_asks_for_is_done_and_comes_back(make):
    widget = make("plane")
    ask(widget, "move", branch="negative", to=[0.5, -0.25])
    assert widget.state["points"]["negative"] == [0.5, -0.25]
    assert widget.view["inputs"]["negative"] == [0.5, -0.25]
    assert widget.view["asked"] == "1"


def test_state_and_view_go_back_in_one_message(make, monkeypatch):
    widget, sent = make("plane"), []
    monkeypatch.setattr(widget, "_send", lambda msg, buffers=None: sent.append(msg))
    ask(widget, "move", branch="anchor", to=[1.0, 1.0])
    assert [set(m["state"]) for m in sent if m["method"] == "update"] == [{"state", "view"}]


def test_what_cannot_be_is_refused_in_words_and_nothing_changes(make, monkeypatch):
    widget, told = make("time"), []
    monkeypatch.setattr(widget, "send", told.append)
    before = widget.view
    ask(widget, "change", asked="7", length=99)
    assert widget.view == before
    assert told[0]["asked"] == "7"
    assert "give a number from 2 to 40" in told[0]["refused"]


@pytest.mark.parametrize("todo", ["close", "__init__", "_put", "trailer", None])
def test_the_page_can_ask_for_nothing_else(make, todo):
    widget = make("plane")
    before = widget.view
    ask(widget, todo)
    assert widget.view is before


def test_a_state_is_json_and_replays(widget):
    saved = json.loads(json.dumps(widget.state))
    first = {**widget.view, "asked": ""}
    ask(
        widget,
        "change",
        **{"plane": {"margin": 0.3}, "sharing": {"steps": 3}, "time": {"radius": 1.5}}[name(widget)],
    )
    assert widget.view != first
    widget.state = saved
    assert widget.view == first
    assert type(widget)(saved).view == {k: v for k, v in first.items() if k != "asked"}
    json.dumps(widget.view, allow_nan=False)


def name(widget):
    return type(widget).__name__.removesuffix("Playground").lower()


def test_a_state_that_cannot_be_leaves_everything_as_it_was(widget):
    state, view = widget.state, widget.view
    with pytest.raises(InvalidArgumentError, match="is no part of this state"):
        widget.choose(nonsense=1)
    assert widget.state == state
    assert widget.view == view


def test_choosing_in_python_shows_in_the_view(make):
    widget = make("sharing", steps=2)
    widget.choose(mode="shared", steps=4)
    assert (widget.view["mode"], widget.view["steps"], widget.view["drift"]) == ("shared", 4, 0.0)
    widget.reset()
    assert widget.state["steps"] == 2


def test_the_recorded_step_is_at_hand(make):
    assert make("plane").step["weight"].contributors == ("anchor", "positive", "negative")
    assert make("sharing", mode="shared", steps=1).step["weight"].residual == 0.0
    assert len(make("time", length=5).step["input.weight"].uses) == 5


def test_the_twin_is_a_picture_that_stands_alone_with_words(widget):
    bundle = widget.twin().bundle()
    picture = ET.fromstring(bundle["image/svg+xml"])
    assert picture.find("{http://www.w3.org/2000/svg}title").text == widget.twin().words
    page = BeautifulSoup(bundle["text/html"], "html.parser")
    assert page.img["alt"] == widget.twin().words
    assert widget.view["headline"] in page.img["alt"]
    assert all(heading.get("scope") for heading in page.find_all("th"))


def test_the_twins_table_has_the_numbers_of_the_recorded_step(make):
    widget = make("plane", stopped=["positive"])
    seen = widget.step["weight"]
    rows = {row[0]: row[1:] for row in widget.twin().table.rows}
    assert [row[1] for row in rows.values()] == ["absent"] * 4
    expected = [seen.contribution("anchor"), seen.contribution("negative"), seen.total, seen.delta.tensor]
    for k, row in enumerate(rows.values()):
        told = [cell.replace("−", "-") for i, cell in enumerate(row) if i != 1]
        assert told == [number(float(array.flat[k])) for array in expected]


def test_a_twin_tells_zero_from_absent(make):
    dead = make("plane", points={"negative": [3.0, 3.0]}).twin().bundle()
    stopped = make("plane", stopped=["anchor", "positive", "negative"]).twin().bundle()
    assert dead["image/svg+xml"].count(">zero<") == stopped["image/svg+xml"].count(">absent<") - 12 == 3
    assert ">absent<" not in dead["image/svg+xml"]


@pytest.mark.parametrize("mode", ["shared", "copied", "averaged"])
@pytest.mark.parametrize("steps", [0, 3])
def test_every_way_of_sharing_has_a_twin(make, mode, steps):
    twin = make("sharing", mode=mode, steps=steps).twin()
    assert len(twin.table.rows) == (1 if mode == "shared" else 3)
    assert f"step {steps}" in twin.table.title


def test_a_twin_of_time_marks_zeros_beside_the_scale(make):
    picture = make("time", radius=0.0, length=6).twin().picture
    assert picture.count("<circle") == 5
    assert picture.count("<rect") == 1

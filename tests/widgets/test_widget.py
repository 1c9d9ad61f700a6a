"""The base of the widgets: state as a dict, files put together, and a twin for saved notebooks."""

import json
import re
from pathlib import Path
from types import MappingProxyType

import nbformat
import pytest
from bs4 import BeautifulSoup  # nbconvert brings it
from nbconvert import HTMLExporter

from gradflow.errors import InvalidArgumentError
from gradflow.render.story import Table
from gradflow.widgets import assets
from gradflow.widgets.twin import Twin, standing_alone
from gradflow.widgets.widget import Widget

TWIN = Twin(
    standing_alone('<svg viewBox="0 0 9 9"><title>&amp;</title></svg>'),
    'three <points> and "more"',
    Table(("point", "x"), (("<a>", "1"), ("b", "22")), "Where they are"),
)


class Plane(Widget):
    defaults = MappingProxyType({"margin": 1.0, "points": [0, 1]})
    _esm = "export default { render() {} }"

    def twin(self):
        return TWIN


@pytest.fixture
def plane():
    widget = Plane()
    yield widget
    widget.close()


def test_the_state_begins_with_the_defaults_and_is_json(plane):
    assert json.loads(json.dumps(plane.state)) == Plane.defaults


def test_a_saved_state_is_replayed_and_what_it_leaves_out_is_as_at_the_start(plane):
    plane.choose(margin=2.0)
    saved = json.dumps(plane.state)
    plane.state = {}
    assert plane.state == Plane.defaults
    plane.state = json.loads(saved)
    assert plane.state == {"margin": 2.0, "points": [0, 1]}
    assert Plane(json.loads(saved)).state == plane.state


def test_an_unknown_entry_is_refused_and_the_state_stays(plane):
    with pytest.raises(InvalidArgumentError, match="did you mean 'margin'") as told:
        plane.choose(margni=2.0)
    assert "no entry 'margni'" in str(told.value)
    assert plane.state == Plane.defaults


def test_two_widgets_do_not_share_their_state(plane):
    plane.choose(margin=5.0)
    assert Plane().state["margin"] == 1.0
    assert Plane.defaults["margin"] == 1.0


def test_the_script_and_the_style_stand_after_the_prelude(tmp_path):
    (tmp_path / "plane.js").write_text("export default { render };")
    (tmp_path / "plane.css").write_text(".gf-plane { color: red }")
    script, sheet = assets.script(tmp_path / "plane"), assets.style_sheet(tmp_path / "plane")
    assert script.index("function openPage") < script.rindex("export default { render };")
    assert sheet.index("--gf-ink: #f4f4f4;") < sheet.index(".gf-widget button") < sheet.index(".gf-plane")


def test_nothing_is_fetched_from_elsewhere():
    files = [f for kind in ("js", "css") for f in Path(assets.__file__).parent.rglob(f"*.{kind}")]
    assert len(files) >= 2
    for file in files:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?://|\bfetch\(|\bimport\b|XMLHttpRequest|@import|\beval\(|innerHTML", text
        ), file


def test_a_saved_notebook_shows_the_twin_where_there_is_no_widget(plane):
    data, metadata = plane._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("plane", outputs=[output])])
    page, _ = HTMLExporter().from_notebook_node(notebook)
    shown = BeautifulSoup(page, "html.parser").find("body")
    assert shown.find("img")["alt"] == 'three <points> and "more"'
    assert [cell.text for cell in shown.find_all("td")] == ["1", "22"]
    assert "widget-view" not in str(shown)


def test_the_twin_is_also_plain_text_and_a_picture(plane):
    data, _ = plane._repr_mimebundle_()
    assert data["text/plain"].splitlines()[-2:] == ["  <a>   1", "    b  22"]
    assert data["image/svg+xml"].startswith("<svg")
    assert 'xmlns="http://www.w3.org/2000/svg"' in data["image/svg+xml"]

"""The base of the widgets, and the harness itself: a widget of two lines in a real notebook."""

import pytest

COUNTER = '''
import traitlets
from gradflow.widgets import assets
from gradflow.widgets.twin import Twin, standing_alone
from gradflow.widgets.widget import Widget
from gradflow.render.story import Table
from pathlib import Path
SCRIPT = """
function render({ model, el }) {
  const page = openPage(model, el, { label: "Counter" });
  const box = make("div", { tabindex: 0, role: "spinbutton", "aria-label": "count",
    onkeydown: (event) => { if (event.key === "ArrowUp") page.choose({ count: page.state.count + 1 }); } });
  const show = () => { box.textContent = page.state.count;
    page.say(`twice is ${model.get("answer").twice}`); };
  page.root.append(box, page.live);
  page.on("change:state", show);
  page.on("change:answer", show);
  show();
  return page.close;
}
export default { render };
"""
import gradflow.widgets
folder = Path(gradflow.widgets.__file__).parent
class Counter(Widget):
    _esm = (folder / "prelude.js").read_text() + SCRIPT
    _css = assets.style_sheet(folder / "prelude")
    defaults = {"count": 1}
    answer = traitlets.Dict({"twice": 2}).tag(sync=True)
    @traitlets.observe("state")
    def _answer(self, _change):
        self.answer = {"twice": 2 * self.state["count"]}
    def twin(self):
        table = Table(("count", "twice"), (("1", "2"),), "Counting")
        return Twin(standing_alone('<svg viewBox="0 0 9 9"></svg>'), "a counter", table)
counter = Counter()
counter
'''
KEYS = ("a", "b", "d", "d", "x", "m", "y", "z", "0", "Shift+M", "Enter")


def test_a_key_in_the_page_is_known_in_the_kernel_and_back(lab):
    notebook = lab.open([COUNTER])
    box = notebook.page.get_by_role("spinbutton", name="count")
    box.press("ArrowUp")
    box.press("ArrowUp")
    notebook.page.get_by_text("twice is 6").wait_for()
    assert notebook.value("counter.state") == {"count": 3}
    notebook.ask("counter.choose(count=10)")
    notebook.page.get_by_text("twice is 20").wait_for()


def test_no_key_pressed_in_a_widget_edits_the_notebook(lab):
    notebook = lab.open([COUNTER, "1 + 1"])
    box = notebook.page.get_by_role("spinbutton", name="count")
    for key in KEYS:
        box.focus()
        box.press(key)
    notebook.page.wait_for_timeout(300)
    assert notebook.count() == 2
    assert notebook.page.evaluate("document.activeElement.getAttribute('role')") == "spinbutton"


def test_nor_in_notebook_7(notebook7):
    notebook = notebook7.open([COUNTER, "1 + 1"])
    box = notebook.page.get_by_role("spinbutton", name="count")
    box.wait_for(timeout=60_000)
    box.press("ArrowUp")
    notebook.page.get_by_text("twice is 4").wait_for()
    for key in KEYS:
        box.focus()
        box.press(key)
    notebook.page.wait_for_timeout(300)
    assert notebook.count() == 2


def test_a_widget_follows_the_theme_of_jupyterlab(lab):
    notebook = lab.open([COUNTER])
    root = notebook.page.locator(".gf-widget")
    papers = []
    for theme in ("Light", "Dark"):
        notebook.use_theme(theme)
        papers.append(root.evaluate("(e) => getComputedStyle(e).backgroundColor"))
    assert papers == ["rgb(254, 254, 254)", "rgb(20, 22, 26)"]


def test_what_goes_wrong_in_the_kernel_is_told(lab):
    notebook = lab.open(["1"])
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        notebook.ask("1 / 0")

"""The explorer in a real JupyterLab, by mouse and by keyboard alone: in the page and in the kernel."""

import re
import statistics

import pytest

from gradflow.capture.session import Memory
from gradflow.recording import Recording
from gradflow.reports import report
from gradflow.storage import save
from tests import records
from tests.browser.lab import expect
from tests.browser.test_harness import KEYS

FQNS = ("body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight", "head.bias")
STEPS = 12
SMALL = """
import gradflow
from tests import records
run = records.recording({steps}, fqns={fqns})
explorer = gradflow.explore(run)
explorer
"""
LIVE = """
import threading, gradflow
from gradflow.capture.session import Memory
from gradflow.recording import Recording
from tests import records
shelf = Memory()
explorer = gradflow.explore(Recording(shelf))
explorer
"""
MOST_BYTES = 2_000_000


@pytest.fixture
def notebook(lab):
    opened = lab.open([SMALL.format(steps=STEPS, fqns=FQNS)])
    opened.page.locator(".gf-chart").wait_for()
    return opened


def row(page, name):
    return page.get_by_role("treeitem").filter(has=page.locator(f".gf-name:text-is('{name}')"))


def line(page, fqn):
    return page.locator(f".gf-list tr[data-place='{fqn}']")


def state(notebook):
    """The state in the kernel, at rest: a page holds an update back while another is under way."""
    found, before = notebook.value("explorer.state"), None
    for _ in range(20):
        if found == before:
            break
        notebook.page.wait_for_timeout(50)
        found, before = notebook.value("explorer.state"), found
    return found


def test_the_newest_step_is_shown_with_the_numbers_of_the_record(notebook):
    page = notebook.page
    expect(page.locator(".gf-step")).to_contain_text("step 11 of 0 to 11")
    wanted = notebook.value("run[-1].layer('').norms")
    numbers = notebook.ask(
        f"from gradflow.render.theme import number\nprint(*[number(v) for v in {list(wanted.values())}])"
    )
    expect(row(page, "model").locator(".gf-on-arrow")).to_have_text(numbers.split())


def test_moving_the_scrubber_changes_every_view_and_the_kernel_knows(notebook):
    page = notebook.page
    model = row(page, "model")
    arrows, before = model.locator(".gf-on-arrow"), model.get_attribute("aria-label")
    cursor, listed = page.locator(".gf-cursor"), line(page, "head.weight").text_content()
    at = cursor.get_attribute("x1")
    page.get_by_role("slider", name="training step").fill("3")
    page.get_by_text("Step 3.").wait_for()
    expect(page.locator(".gf-step")).to_contain_text("step 3 of 0 to 11")
    expect(model).not_to_have_attribute("aria-label", before)
    expect(line(page, "head.weight")).not_to_have_text(listed)
    expect(cursor).not_to_have_attribute("x1", at)
    assert float(cursor.get_attribute("x1")) < float(at)
    assert state(notebook)["step"] == 3
    wanted = notebook.ask(
        "from gradflow.render.theme import number; print(number(run[3].layer('').norms['anchor']))"
    )
    expect(arrows.first).to_have_text(wanted)


def test_a_parameter_chosen_in_the_list_is_chosen_in_all_views(notebook):
    page = notebook.page
    line(page, "body.1.bias").click()
    page.locator(".gf-title", has_text="body.1.bias").wait_for()
    expect(row(page, "bias").and_(page.locator("[aria-selected=true]"))).to_have_count(1)
    expect(line(page, "body.1.bias")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".gf-chart")).to_have_attribute(
        "aria-label", re.compile(r"^History of body\.1\.bias")
    )
    page.locator(".gf-term canvas").nth(4).wait_for()
    assert page.locator("figcaption").all_inner_texts()[:4] == ["anchor", "positive", "negative", "Σ sum"]
    assert state(notebook)["place"] == "body.1.bias"


def test_a_row_chosen_in_the_flow_is_chosen_in_the_list(notebook):
    page = notebook.page
    page.get_by_role("button", name="unfold all").click()
    page.locator(".gf-flow-row", has_text="weight").first.locator(".gf-box").click()
    page.locator(".gf-title", has_text="body.0.weight").wait_for()
    expect(line(page, "body.0.weight")).to_have_attribute("aria-selected", "true")
    assert state(notebook)["place"] == "body.0.weight"


def test_a_group_folds_and_unfolds(notebook):
    page = notebook.page
    page.get_by_role("button", name="unfold all").click()
    rows = page.locator(".gf-flow-row")
    expect(rows).to_have_count(11)
    row(page, "body").locator(".gf-fold").click()
    expect(rows).to_have_count(5)
    expect(row(page, "body")).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".gf-live")).to_contain_text("body is folded")
    assert "body" not in state(notebook)["opened"]
    notebook.ask("explorer.choose(opened=['', 'body', 'body.1'])")
    expect(rows).to_have_count(7)


def test_the_search_narrows_the_list_and_leads_to_what_it_finds(notebook):
    page = notebook.page
    page.get_by_role("button", name="fold all modules", exact=True).click()
    page.get_by_role("searchbox").fill("1.bias")
    page.get_by_text("1 of 6 parameters found").wait_for()
    expect(page.locator(".gf-list tbody tr")).to_have_count(1)
    expect(row(page, "body")).to_have_attribute("class", re.compile("gf-found$"))
    page.get_by_role("searchbox").press("Enter")
    page.locator(".gf-title", has_text="body.1.bias").wait_for()
    assert state(notebook)["search"] == "1.bias"
    assert "body.1" in state(notebook)["opened"]


def test_the_list_is_sorted_by_each_measure_both_ways(notebook):
    page = notebook.page
    for label, key in (
        ("conflict", "conflict"),
        ("cancels", "cancellation"),
        ("‖Δ‖", "delta"),
        ("‖Σ‖", "total"),
    ):
        page.locator(".gf-list").get_by_role("button", name=label).click()
        assert state(notebook)["sort"] == key
        most, lines = notebook.ask(MOST.format(key=key)), page.locator(".gf-list tbody tr")
        expect(lines.first).to_have_attribute("data-place", most)
        page.locator(".gf-list").get_by_role("button", name=label).click()
        expect(lines.last).to_have_attribute("data-place", most)


MOST = """
from itertools import combinations
measure = {{
    "conflict": lambda p: max(0.0, -min(p.cosine(a, b) for a, b in combinations(p.contributors, 2))),
    "cancellation": lambda p: p.cancellation,
    "delta": lambda p: p.delta.norm,
    "total": lambda p: p.total_norm,
}}["{key}"]
print(max(run[-1], key=measure).fqn)
"""


def test_the_flow_is_panned_and_zoomed(notebook):
    page = notebook.page
    flow = page.locator(".gf-flow")
    page.get_by_role("button", name="zoom in").click()
    assert state(notebook)["view"][2] == 1.25
    box = flow.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 240, box["y"] + 260, steps=4)
    page.mouse.up()
    x, y, _ = state(notebook)["view"]
    assert x < 0
    assert y < 0
    assert state(notebook)["place"] == ""  # a drag is no click
    page.get_by_role("button", name="fit the width").click()
    assert state(notebook)["view"] == [0, 0, 1]


def test_a_click_in_the_history_goes_to_the_step(notebook):
    page = notebook.page
    box = page.locator(".gf-chart").bounding_box()
    page.locator(".gf-chart").click(position={"x": box["width"] * 0.55, "y": 60})
    page.wait_for_function("!document.querySelector('.gf-step').textContent.startsWith('step 11')")
    assert 4 <= state(notebook)["step"] <= 7


def test_a_branch_is_brought_out_in_all_views(notebook):
    page = notebook.page
    page.get_by_role("button", name="positive (P)").click()
    page.wait_for_function("document.querySelectorAll('.gf-flow .gf-dim').length > 0")
    expect(page.locator(".gf-flow .gf-dim[data-branch=positive]")).to_have_count(0)
    expect(page.locator(".gf-angles tr.gf-dim")).to_have_count(2)
    assert state(notebook)["branch"] == "positive"


def test_playing_goes_through_the_steps_and_stops_at_the_end(notebook):
    page = notebook.page
    page.get_by_role("slider", name="training step").fill("8")
    page.get_by_role("button", name="play").click()
    page.get_by_text("step 11 of 0 to 11").wait_for()
    page.get_by_role("button", name="play").wait_for()
    assert (state(notebook)["playing"], state(notebook)["step"]) == (False, 11)


def test_all_of_it_by_keyboard_alone(notebook):
    page, press = notebook.page, notebook.page.keyboard.press
    cells = notebook.count()
    page.get_by_role("slider", name="training step").focus()
    press("Home")
    press("ArrowRight")
    page.get_by_text("Step 1.").wait_for()
    press("Tab"), press("Tab"), press("Tab")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("head.b")
    press("Enter")
    page.locator(".gf-title", has_text="head.bias").wait_for()
    press("Escape")
    for _ in range(20):
        press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "treeitem":
            break
    press("Home")
    press("ArrowDown")
    press("ArrowLeft")
    expect(row(page, "body")).to_have_attribute("aria-expanded", "false")
    press("ArrowRight")
    expect(row(page, "body")).to_have_attribute("aria-expanded", "true")
    press("Enter")
    page.locator(".gf-title", has_text="body, 4 parameters").wait_for()
    for _ in range(9):
        press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "row":
            break
    press("End")
    press("ArrowUp")
    chosen = page.evaluate("document.activeElement.dataset.place")
    page.locator(".gf-title", has_text=chosen).wait_for()
    assert state(notebook) | {"view": 0, "opened": 0} == {
        "step": 1, "place": chosen, "branch": "", "opened": 0, "sort": "total", "ascending": False,
        "search": "", "view": 0, "playing": False,
    }  # fmt: skip
    for key in KEYS:
        press(key)
    assert notebook.count() == cells


def test_what_has_the_focus_is_seen_and_keeps_the_notebooks_keys_away(notebook):
    unmarked = notebook.page.evaluate(
        """() => [...document.querySelectorAll(".gf-explorer :is(button, input, a, [tabindex])")]
          .filter((one) => one.dataset.lmSuppressShortcuts !== "true").map((one) => one.outerHTML)"""
    )
    assert unmarked == []
    nameless = notebook.page.evaluate(
        """() => [...document.querySelectorAll(
            ".gf-explorer :is(button, input, canvas, [role=treeitem], svg[role])")]
          .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim()))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    notebook.page.get_by_role("treeitem").first.focus()
    notebook.page.keyboard.press("ArrowDown")
    seen = "getComputedStyle(document.activeElement.querySelector('.gf-box')).strokeWidth"
    assert notebook.page.evaluate(seen) == "3.4px"


def test_a_saved_state_is_replayed(notebook):
    saved = {"step": 4, "place": "head.bias", "search": "head", "sort": "name", "ascending": True}
    notebook.ask(f"explorer.state = {saved!r}")
    page = notebook.page
    page.get_by_text("step 4 of 0 to 11").wait_for()
    page.locator(".gf-title", has_text="head.bias").wait_for()
    expect(page.get_by_role("searchbox")).to_have_value("head")
    lines = page.locator(".gf-list tbody tr")
    expect(lines).to_have_count(2)
    for one, place in zip(lines.all(), ("head.weight", "head.bias"), strict=True):
        expect(one).to_have_attribute("data-place", place)


def test_new_steps_appear_while_the_kernel_is_busy_training(lab):
    notebook = lab.open([LIVE])
    page = notebook.page
    page.get_by_text("No step was recorded yet.").wait_for()
    notebook.start("import time\nfor i in range(30):\n    shelf.append(records.step(i))\n    time.sleep(0.2)")
    page.wait_for_function("/step [1-9]\\d? of 0/.test(document.querySelector('.gf-step').textContent)")
    seen = page.locator(".gf-step").inner_text()
    assert "to 29" not in seen  # it is still training
    page.wait_for_function("document.querySelector('.gf-step').textContent.includes('step 29 of 0 to 29')")
    page.get_by_text("Step 29.").wait_for()


def test_at_700_pixels_nothing_is_wider_than_the_explorer(lab):
    notebook = lab.open([SMALL.format(steps=STEPS, fqns=FQNS)], viewport={"width": 700, "height": 1000})
    page = notebook.page
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.locator(".gf-chart").wait_for()
    page.wait_for_timeout(300)
    wide = page.evaluate(
        """() => { const root = document.querySelector(".gf-explorer");
          const right = (one) => one.getBoundingClientRect().right, frames = ".gf-scroll, .gf-flow";
          return [...root.querySelectorAll("*")].filter((one) => right(one) > right(root) + 1
            && !one.closest(frames)).map((one) => one.outerHTML.slice(0, 99)); }"""
    )
    assert wide == []


def test_it_works_in_notebook_7(notebook7):
    notebook = notebook7.open([SMALL.format(steps=STEPS, fqns=FQNS)])
    page = notebook.page
    page.locator(".gf-chart").wait_for(timeout=60_000)
    cells = notebook.count()
    slider = page.get_by_role("slider", name="training step")
    slider.focus()
    slider.press("Home")
    page.get_by_text("Step 0.").wait_for()
    slider.press("ArrowRight")
    page.get_by_text("Step 1.").wait_for()
    line(page, "head.weight").click()
    page.locator(".gf-title", has_text="head.weight").wait_for()
    for key in KEYS:
        line(page, "head.weight").press(key)
    assert notebook.count() == cells


def test_the_report_explores_from_disk(tab, tmp_path):
    run = records.recording(5, fqns=FQNS)
    page = tab()
    page.goto(report(run, tmp_path / "report.html").as_uri())
    page.get_by_role("slider", name="training step").fill("1")
    page.get_by_text("Step 1.").wait_for()
    line(page, "head.bias").click()
    page.locator(".gf-title", has_text="head.bias").wait_for()
    page.get_by_text("This page has no room for this equation").wait_for()  # only of the newest step
    page.get_by_role("button", name="fold all modules", exact=True).click()
    expect(page.locator(".gf-flow-row")).to_have_count(3)
    page.get_by_role("searchbox").fill("body")
    expect(page.locator(".gf-list tbody tr")).to_have_count(4)
    page.get_by_role("slider", name="training step").press("End")
    page.locator(".gf-live", has_text="Step 4.").wait_for()
    page.locator(".gf-term canvas").nth(4).wait_for()
    shown = float(line(page, "body.0.weight").locator("td").first.inner_text())
    assert shown == pytest.approx(run[4]["body.0.weight"].total_norm, rel=5e-3)


def test_names_are_text_in_the_page_and_run_nowhere(tab, tmp_path):
    nasty = "<img src=x onerror=alert(1)>\"'&.weight"
    page = tab()
    page.goto(report(records.recording(2, fqns=(nasty, "b.weight")), tmp_path / "r.html").as_uri())
    page.get_by_role("button", name="unfold all").click()
    assert page.locator(".gf-explorer img").count() == 0
    assert page.locator(".gf-list tbody tr").first.locator("th").get_attribute("title") in (nasty, "b.weight")


OPEN = """async () => {
  const start = performance.now(), shell = window.jupyterapp.shell.currentWidget.content;
  shell.activeCellIndex = 1;
  window.jupyterapp.commands.execute("notebook:run-cell");
  const wait = async (what) => {
    while (!document.querySelector(what)) await new Promise((go) => setTimeout(go, 5));
  };
  await wait(".gf-explorer [role=treeitem]");
  const flow = performance.now() - start;
  await wait(".gf-explorer .gf-chart");
  return [flow, performance.now() - start]; }"""
SCRUB = """async ([first, by]) => {
  const range = document.querySelector(".gf-scrubber"), live = document.querySelector(".gf-live"), times = [];
  for (let k = 0; k < 40; k++) {
    const step = (first + k * by) % 1000, start = performance.now();
    range.value = step;
    range.dispatchEvent(new Event("input"));
    while (!live.textContent.startsWith(`Step ${step}.`)) await new Promise((go) => setTimeout(go, 1));
    times.push(performance.now() - start);
  }
  return times; }"""


def test_a_thousand_steps_of_161_parameters_open_at_once_and_scrub(lab, tmp_path):
    """Times are printed, not held to; how much is sent is both."""
    path = save(thousand_steps(), tmp_path / "run.gradflow")
    notebook = lab.open(["0", "1"])
    notebook.ask(f"import gradflow; run = gradflow.load({str(path)!r})")
    notebook.set_cell(1, "explorer = gradflow.explore(run)\nexplorer")
    before = sum(notebook.page.received)
    flow, whole = notebook.page.evaluate(OPEN)
    notebook.page.wait_for_timeout(500)
    sent = sum(notebook.page.received) - before
    jumps, steps = (notebook.page.evaluate(SCRUB, given) for given in ([3, 37], [500, 1]))
    again = notebook.page.evaluate(SCRUB, [3, 37])
    print(
        f"\n1,000 steps x 161 parameters: flow after {flow:.0f} ms, all after {whole:.0f} ms, {sent} bytes; "
        f"scrubbing, median {statistics.median(jumps):.0f} ms far apart, "
        f"{statistics.median(steps):.0f} ms step by step, "
        f"{statistics.median(again):.0f} ms for steps seen before (worst {max(jumps + steps):.0f} ms)"
    )
    assert 0 < sent < MOST_BYTES
    assert notebook.value("len(explorer.book.tree.rows)") == 240


def thousand_steps():
    """A ResNet-50's parameters with one step's numbers, times a factor that falls."""
    shelf = Memory()
    for i in range(1000):
        shelf.append(deep_step(i))
    return Recording(shelf)


def deep_step(index):
    fqns = ["conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias"]
    for layer, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for b in range(blocks):
            parts = [(f"conv{c}", f"bn{c}") for c in (1, 2, 3)] + (
                [("downsample.0", "downsample.1")] if not b else []
            )
            fqns += [
                f"layer{layer}.{b}.{one}"
                for conv, bn in parts
                for one in (f"{conv}.weight", f"{bn}.weight", f"{bn}.bias")
            ]
    assert len(fqns) == 161
    parameters = {
        fqn: records.param_step(fqn, (3,), seed=1000 * index + k, keep=False) for k, fqn in enumerate(fqns)
    }
    return records.step(index, fqns=(), parameters=parameters)

"""The page of a graph in a real browser: open, close, search, zoom, and names that execute nowhere."""

import pytest

from gradflow.capture.trace import trace
from gradflow.graph import Edge, Graph, Node
from gradflow.render import page
from tests.browser.lab import expect
from tests.graph import models
from tests.render.test_dot import NASTY

# Boxes that open set off from where their parent was, two frames later: a mouse there would be left behind.
AT_REST = """async () => {
  for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);
  await Promise.all(document.getAnimations().map((one) => one.finished)); }"""


@pytest.fixture
def shown(tab, tmp_path):
    """Open the page of a graph."""

    def show(graph):
        path = tmp_path / "graph.html"
        path.write_text(page.page(graph), encoding="utf-8")
        opened = tab(viewport={"width": 1280, "height": 720}, reduced_motion="no-preference")
        opened.goto(path.as_uri())
        return opened

    return show


def test_a_click_opens_a_box_in_every_branch_and_its_sign_closes_it(shown):
    tab = shown(trace(*models.resnet()))
    boxes = tab.locator(".box")
    expect(boxes).to_have_count(29)
    tab.locator(".box.module", has_text="layer4").first.click()
    expect(boxes).to_have_count(29 + 2 * 4)
    opened = tab.locator(".box.module", has_text="layer4.0").first
    tab.evaluate(AT_REST)
    opened.hover()
    opened.locator(".fold").click()
    expect(boxes).to_have_count(29)


def test_the_keyboard_opens_and_closes(shown):
    tab = shown(trace(*models.resnet()))
    tab.locator(".box.module", has_text="layer4").first.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator(".box")).to_have_count(37)
    tab.keyboard.press("Backspace")
    expect(tab.locator(".box")).to_have_count(29)
    expect(tab.locator("#status")).to_contain_text("29 boxes")


def test_the_search_finds_what_is_hidden_and_goes_there(shown):
    tab = shown(trace(*models.resnet()))
    tab.keyboard.press("/")
    tab.keyboard.type("layer2.1.conv2")
    expect(tab.locator(".box.hit").first).to_be_attached()
    tab.keyboard.press("Enter")
    expect(tab.locator(".box", has_text="layer2.1.conv2").nth(2)).to_be_attached()
    assert "layer2.1.conv2" in tab.evaluate("document.activeElement.getAttribute('aria-label')")


def test_zoom_and_fit_move_the_picture(shown):
    tab = shown(trace(*models.triplet()))
    start = tab.evaluate("state.k")
    tab.locator("[data-do=in]").click()
    assert tab.evaluate("state.k") > start
    tab.locator("[data-do=fit]").click()
    assert tab.evaluate("state.k") == pytest.approx(start)


def test_hovering_brings_out_the_neighbours(shown):
    tab = shown(trace(*models.triplet()))
    tab.locator(".box.parameter").first.hover()
    expect(tab.locator(".edge.near")).to_have_count(3)
    expect(tab.locator("#tip")).to_be_visible()


def test_the_theme_can_be_turned(shown):
    tab = shown(trace(*models.siamese()))
    before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.locator("[data-do=theme]").click()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_a_view_is_kept_in_the_address(shown):
    tab = shown(trace(*models.resnet()))
    tab.locator(".box.module", has_text="layer4").first.click()
    opened = tab.evaluate("encodeURIComponent(JSON.stringify([...state.open]))")
    tab.wait_for_url(lambda address: opened in address)
    tab.reload()
    expect(tab.locator(".box")).to_have_count(37)


def test_nasty_names_are_shown_and_execute_nowhere(shown):
    nodes = (Node("0", "module", NASTY, branch=NASTY), Node("1", "parameter", NASTY, names=(NASTY,)))
    tab = shown(Graph(nodes, (Edge("0", "1", branch=NASTY),), (), (NASTY, "other")))
    expect(tab.locator(".box").first.locator(".title")).to_have_text(NASTY)
    expect(tab.locator("#legend li").first).to_have_text(NASTY)

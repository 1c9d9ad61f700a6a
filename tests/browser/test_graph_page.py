"""The page of a graph in a real browser: open, close, search, zoom, and names that execute nowhere."""

import pytest

from gradflow.capture.trace import trace
from gradflow.graph import Edge, Graph, Node
from gradflow.render import page
from tests.graph import models
from tests.render.test_dot import NASTY


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
    assert boxes.count() == 29
    tab.locator(".box.module", has_text="layer4").first.click()
    assert boxes.count() == 29 + 2 * 4
    opened = tab.locator(".box.module", has_text="layer4.0").first
    opened.hover()
    opened.locator(".fold").click()
    assert boxes.count() == 29


def test_the_keyboard_opens_and_closes(shown):
    tab = shown(trace(*models.resnet()))
    tab.locator(".box.module", has_text="layer4").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".box").count() == 37
    tab.keyboard.press("Backspace")
    assert tab.locator(".box").count() == 29
    assert "29 boxes" in tab.locator("#status").text_content()


def test_the_search_finds_what_is_hidden_and_goes_there(shown):
    tab = shown(trace(*models.resnet()))
    tab.keyboard.press("/")
    tab.keyboard.type("layer2.1.conv2")
    assert tab.locator(".box.hit").count() > 0
    tab.keyboard.press("Enter")
    assert tab.locator(".box", has_text="layer2.1.conv2").count() >= 3
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
    assert tab.locator(".edge.near").count() == 3
    assert tab.locator("#tip").is_visible()


def test_the_theme_can_be_turned(shown):
    tab = shown(trace(*models.siamese()))
    before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.locator("[data-do=theme]").click()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_a_view_is_kept_in_the_address(shown):
    tab = shown(trace(*models.resnet()))
    tab.locator(".box.module", has_text="layer4").first.click()
    tab.wait_for_timeout(500)
    tab.reload()
    assert tab.locator(".box").count() == 37


def test_nasty_names_are_shown_and_execute_nowhere(shown):
    nodes = (Node("0", "module", NASTY, branch=NASTY), Node("1", "parameter", NASTY, names=(NASTY,)))
    tab = shown(Graph(nodes, (Edge("0", "1", branch=NASTY),), (), (NASTY, "other")))
    assert tab.locator(".box").first.locator(".title").text_content() == NASTY
    assert tab.locator("#legend li").first.text_content() == NASTY

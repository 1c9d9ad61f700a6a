"""DOT text: golden files, one proxy per use of a hub, and names that hold any character."""

import re

import pytest

from gradflow.capture.trace import trace
from gradflow.graph import Edge, Graph, Node
from gradflow.render import theme as themes
from gradflow.render.dot import to_dot
from gradflow.render.paint import Paint, contrast
from tests.graph import models
from tests.graph.golden import assert_golden

NASTY = 'a"b<script>alert(1)</script>&c\\'


@pytest.mark.parametrize("name", ["triplet", "siamese", "verifier", "lstm_cell", "tied", "multitask"])
def test_dot_text_is_the_one_looked_at(name):
    assert_golden(f"{name}.dot", trace(*getattr(models, name)()).to_dot())


def test_dot_text_is_the_same_every_time():
    assert trace(*models.resnet()).to_dot() == trace(*models.resnet()).to_dot()


def test_a_shared_parameter_is_drawn_once_with_an_arrow_from_each_branch():
    text = trace(*models.triplet()).to_dot()
    assert text.count("shape=cylinder") == 4
    into = re.findall(r'-> (n\d+) \[color="(#\w+)", penwidth', text)
    assert {target: [c for t, c in into if t == target] for target, _ in into} == {
        target: ["#009E73", "#0072B2", "#D55E00"] for target, _ in into
    }


def test_a_parameter_used_far_and_wide_gets_a_proxy_for_each_use():
    text = trace(*models.chain(30)).expand().to_dot()
    assert len(re.findall(r"^ *p\d+ \[", text, re.MULTILINE)) == 30
    hub = re.search(r'(n\d+) \[[^\n]*class="parameter"', text)[1]
    assert not re.search(rf"-> {hub}\b", text)


def test_widths_are_proportional_to_norms():
    nodes = [Node("a", "module", "fc", branch="x"), Node("b", "module", "fc", branch="y")]
    nodes.append(Node("w", "parameter", "fc.weight", names=("fc.weight",)))
    edges = (Edge("a", "w", branch="x", norm=4.0), Edge("b", "w", branch="y", norm=2.0))
    text = to_dot(Graph(tuple(nodes), edges, (), ("x", "y")))
    assert re.findall(r"penwidth=(\d\.\d\d)", text) == ["5.00", "2.50"]
    assert re.findall(r'label="(\d)"', text) == ["4", "2"]


def test_names_may_hold_any_character():
    nodes = (
        Node("0", "module", NASTY, branch=NASTY),
        Node("1", "parameter", NASTY, names=(NASTY, "\x00\x1b]")),
    )
    text = to_dot(Graph(nodes, (Edge("0", "1", branch=NASTY),), (), (NASTY, "other")))
    assert "&lt;script&gt;" in text
    assert "\x00" not in text
    assert "\x1b" not in text


def test_the_dark_theme_changes_paper_and_ink_but_no_branch_colour():
    graph = trace(*models.triplet())
    light, dark = graph.to_dot(), graph.to_dot(theme="dark")
    assert set(re.findall(r"#(?:0072B2|009E73|D55E00)", light)) == {"#0072B2", "#009E73", "#D55E00"}
    assert re.sub(r"#[0-9a-f]{6}", "#", light) == re.sub(r"#[0-9a-f]{6}", "#", dark)
    assert light != dark


def test_text_in_the_colour_of_a_branch_can_be_read():
    names = tuple(f"branch {i}" for i in range(7))
    nodes = [Node(name, "module", "fc", branch=name) for name in names]
    graph = Graph((*nodes, Node("w", "parameter", "w", names=("w",))), (), (), names)
    for theme in ("light", "dark"):
        paint = Paint(graph, themes.find(theme))
        assert all(contrast(paint.legible(name), paint.look.paper) >= 4.5 for name in names)
    assert Paint(graph, themes.LIGHT).legible("branch 0") == "#0072b2"

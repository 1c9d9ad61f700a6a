"""The page of a graph: its structure, its data, and that names are data there, never markup."""

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import gradflow
from gradflow.capture.trace import trace
from gradflow.diagrams import diagram_graph
from gradflow.graph import Edge, Graph, Node
from gradflow.render import layout, page
from gradflow.render.layout import Look
from tests.graph import models
from tests.graph.golden import assert_golden
from tests.render.test_dot import NASTY

LAYOUT = Path(gradflow.__file__).parent / "render" / "page_layout.js"


@pytest.fixture(autouse=True)
def _without_graphviz(monkeypatch):
    """The page lays itself out; the still picture for readers without scripts is tested apart."""
    monkeypatch.setattr(layout, "engines", lambda format_: iter(()))


class Outline(HTMLParser):
    """Tags with their ids, classes and roles, indented."""

    def __init__(self):
        super().__init__()
        self.lines, self.depth = [], 0

    def handle_starttag(self, tag, attrs):
        known = {
            key: value
            for key, value in attrs
            if key in ("id", "class", "role", "type", "data-do", "data-theme")
        }
        told = "".join(f" {key}={value}" for key, value in known.items())
        self.lines.append("  " * self.depth + tag + told)
        if tag not in ("meta", "input", "img", "link"):
            self.depth += 1

    def handle_endtag(self, tag):
        self.depth -= 1


def outlined(text):
    outline = Outline()
    outline.feed(text)
    return outline


def content_of(text):
    return json.loads(
        re.search(r'<script id="graph" type="application/json">(.*?)</script>', text, re.DOTALL)[1]
    )


def test_the_structure_is_the_one_looked_at():
    outline = outlined(page.page(trace(*models.triplet())))
    assert_golden("page.outline", "\n".join(outline.lines) + "\n")


def test_nothing_is_loaded_from_anywhere():
    text = page.page(trace(*models.triplet()))
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert outside == set()
    assert not re.search(r"<(link|iframe|object|embed)\b|\bimport\s*\(|@import|src=\"(?!data:)", text)


def test_only_our_script_may_run():
    text = page.page(trace(*models.triplet()))
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"\bon\w+=\"", text)


def test_the_script_sets_names_as_text_only():
    script = (LAYOUT.parent / "page.js").read_text(encoding="utf-8") + LAYOUT.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script
    )


def test_nasty_names_end_no_element():
    nodes = (
        Node("0", "module", NASTY, branch=NASTY),
        Node("1", "parameter", NASTY, names=(NASTY, "</script>")),
    )
    text = page.page(Graph(nodes, (Edge("0", "1", branch=NASTY),), (), (NASTY, "</script><b>")))
    assert text.count("<script") == text.count("</script>") == 2
    assert "alert(1)</" not in text.replace("alert(1)&lt;/", "").replace("alert(1)\\u003c/", "")
    assert content_of(text)["branches"][0]["name"] == NASTY


def test_the_boxes_are_those_of_the_graph():
    graph = trace(*models.resnet())
    content = content_of(page.page(graph))
    leaves = set(range(len(content["boxes"]))) - set(content["parents"])
    into = [edge for edge in content["edges"] if content["boxes"][edge["t"]]["kind"] == "parameter"]
    assert sum(edge["n"] for edge in into) == 483
    assert all(edge["s"] in leaves and edge["t"] in leaves for edge in content["edges"])
    assert content["lanes"] == [0, 1, 2]


def test_numbers_of_a_step_are_in_the_page():
    content = content_of(page.page(diagram_graph("siamese")))
    sums = list(content["sums"].values())
    assert len(sums) == 4
    assert all(set(one["c"]) == {"0", "1"} and one["S"] > 0 and one["D"] > 0 for one in sums)


def test_a_number_that_json_lacks_is_left_out():
    nodes = (Node("0", "module", "a"), Node("1", "parameter", "a.w", names=("a.w",)))
    content = content_of(page.page(Graph(nodes, (Edge("0", "1", norm=math.nan),), ())))
    assert content["edges"][0]["norm"] is None


def test_both_themes_are_in_the_page():
    text = page.page(trace(*models.siamese()), Look(theme="dark"))
    assert 'data-theme="dark"' in text
    assert "color-scheme: dark" in text


def test_the_same_is_told_in_words():
    graph = trace(*models.siamese())
    text = page.page(graph)
    words = re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)[1]
    assert "backward graph: 26 nodes, 6 parameters used 12 times" in words
    for box in graph.overview().nodes:
        assert box.name in words


def node(code):
    """Run the layout in Node.js."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs Node.js")
    done = subprocess.run(
        [program, "-"], input=f"const layout = require({json.dumps(str(LAYOUT))}); {code}",
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def laid_out(graph, *, opened=None):
    content = content_of(page.page(graph))
    if opened is not None:
        content["open"] = opened
    code = f"""
        const data = {json.dumps(content)};
        data.kids = data.parents.map(() => []);
        data.parents.forEach((p, i) => {{ if (p >= 0) data.kids[p].push(i); }});
        const found = layout.layOut(data, new Set(data.open), () => ({{ w: 100, h: 40 }}));
        const edges = found.edges.map(({{ s, t, norm, b }}) => ({{ s, t, norm, b }}));
        console.log(JSON.stringify({{ ...found, edges, at: [...found.at] }}));
    """
    return content, node(code)


@pytest.mark.parametrize(
    "name", ["triplet", "siamese", "verifier", "unrolled", "lstm_cell", "tied", "multitask"]
)
def test_the_page_shows_the_overview_and_no_box_on_another(name):
    graph = trace(*getattr(models, name)())
    content, found = laid_out(graph)
    titles = sorted(content["boxes"][i]["lines"][0] for i in found["nodes"])
    assert len(titles) == len(graph.overview().nodes)
    places = [(at["x"], at["y"]) for _, at in found["at"]]
    assert len(places) == len(titles)
    for i, (x, y) in enumerate(places):
        for u, v in places[:i]:
            assert abs(x - u) >= 100 or abs(y - v) >= 40, titles


def test_arrows_of_outer_lanes_pass_between_the_boxes_of_inner_ones():
    content, found = laid_out(trace(*models.triplet()))
    boxes = dict(found["at"])
    for edge, route in zip(found["edges"], found["routes"], strict=True):
        if content["boxes"][edge["t"]]["kind"] != "parameter":
            continue
        points = route["points"][3:-2]
        for x, y in points:
            assert not any(
                abs(x - at["x"]) < 49 and abs(y - at["y"]) < 19
                for i, at in boxes.items()
                if i not in (edge["s"], edge["t"])
            )


def test_norms_of_what_is_folded_are_those_of_all_gradients_together():
    graph = diagram_graph("siamese")
    step = graph.step
    content, found = laid_out(graph, opened=[])
    told = {
        content["branches"][edge["b"]]["name"]: edge["norm"]
        for edge in found["edges"]
        if edge["norm"] is not None
    }
    assert told == pytest.approx(step.layer("").norms)


def test_every_box_can_be_opened():
    graph = trace(*models.resnet())
    content = content_of(page.page(graph))
    every = sorted(set(content["parents"]) - {-1})
    _, found = laid_out(graph, opened=every)
    assert len(found["nodes"]) == len(content["boxes"]) - len(every)

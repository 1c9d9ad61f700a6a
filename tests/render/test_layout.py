"""Layout: every engine, a time limit that holds, and a picture in the end."""

import re
import shutil
import sys
import time
import warnings

import pytest

from gradflow.capture.trace import trace
from gradflow.errors import InvalidArgumentError, MissingPackageError
from gradflow.graph import Edge, Graph, Node
from gradflow.render import layout
from gradflow.render.dot import to_dot
from tests.graph import models
from tests.render.test_dot import NASTY

HEADS = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}

pytest.importorskip("pygraphviz")


@pytest.mark.parametrize("format_", layout.FORMATS)
def test_every_format_is_drawn_without_a_sound(format_, capfd):
    picture = layout.draw(trace(*models.triplet()).overview(), format_)
    assert picture.startswith(HEADS[format_])
    assert capfd.readouterr() == ("", "")


def test_an_unknown_format_is_refused():
    with pytest.raises(InvalidArgumentError, match="no format 'bmp'"):
        layout.lay_out("digraph {}", "bmp")


def test_without_any_graphviz_the_one_pip_line_is_named(monkeypatch):
    monkeypatch.setattr(layout, "engines", lambda format_: iter(()))
    with pytest.raises(MissingPackageError) as error:
        layout.lay_out("digraph {}", "svg")
    assert error.value.do == "pip install 'pygraphviz>=2.0'"


def test_engines_are_tried_in_order(monkeypatch):
    bad = [sys.executable, "-c", "import sys; sys.exit('no such plugin')"]
    good = [sys.executable, "-c", "print('drawn')"]
    monkeypatch.setattr(layout, "engines", lambda format_: iter([bad, good]))
    assert layout.lay_out("digraph {}", "svg").strip() == b"drawn"
    monkeypatch.setattr(layout, "engines", lambda format_: iter([bad]))
    with pytest.raises(layout.LayoutFailedError, match="no such plugin"):
        layout.lay_out("digraph {}", "svg")


def test_the_time_limit_holds_and_a_more_collapsed_picture_comes(monkeypatch):
    slow = [
        sys.executable,
        "-c",
        "import sys, time; len(sys.stdin.read()) > 12000 and time.sleep(60); print('ok')",
    ]
    monkeypatch.setattr(layout, "engines", lambda format_: iter([slow]))
    graph = trace(*models.triplet())
    start = time.perf_counter()
    with pytest.warns(UserWarning, match=r"no layout of 57 nodes in 2 s: drawn with 17"):
        assert layout.draw(graph.expand(), "svg", layout.Look(time_limit_s=2)).strip() == b"ok"
    assert time.perf_counter() - start < 30


def test_when_nothing_is_laid_out_in_time_it_says_so(monkeypatch):
    monkeypatch.setattr(
        layout, "engines", lambda format_: iter([[sys.executable, "-c", "import time; time.sleep(60)"]])
    )
    with pytest.raises(layout.LayoutTooSlowError, match=r"within 0.2 s"):
        layout.draw(trace(*models.chain(2)).expand(), "svg", layout.Look(time_limit_s=0.2))


def test_nasty_names_survive_and_execute_nowhere():
    nodes = (Node("0", "module", NASTY, branch=NASTY), Node("1", "parameter", NASTY, names=(NASTY,)))
    graph = Graph(nodes, (Edge("0", "1", branch=NASTY),), (), (NASTY, "other"))
    picture = layout.draw(graph.expand(), "svg").decode()
    assert "<script" not in picture
    assert "javascript:" not in picture
    assert "a&quot;b&lt;script&gt;alert(1)&lt;/script&gt;&amp;c\\" in picture
    for format_ in ("pdf", "png"):
        assert layout.draw(graph.expand(), format_).startswith(HEADS[format_])


def test_a_graphviz_without_html_labels_gets_plain_ones(monkeypatch):
    echo = [sys.executable, "-c", "import sys; print(sys.stdin.read())", layout._WASI]
    monkeypatch.setattr(layout, "engines", lambda format_: iter([echo]))
    nodes = (Node("0", "module", NASTY, shape=(2, 3)), Node("1", "parameter", NASTY, names=(NASTY,)))
    text = layout.draw(Graph(nodes, (Edge("0", "1"),), ()).expand(), "svg").decode()
    assert "label=<" not in text
    assert 'label="a\\"b<script>alert(1)</script>&c\\\\' in text


@pytest.mark.dot
@pytest.mark.skipif(shutil.which("dot") is None, reason="needs the dot program")
@pytest.mark.parametrize("format_", layout.FORMATS)
def test_the_dot_program_draws_too(format_, monkeypatch):
    monkeypatch.setattr(layout.importlib.util, "find_spec", lambda name: None)
    assert layout.draw(trace(*models.triplet()).overview(), format_).startswith(HEADS[format_])


def test_a_resnet_triplet_is_drawn_quickly():
    loss, model = models.resnet()
    start = time.process_time()
    graph = trace(loss, model).overview()
    to_dot(graph)
    assert time.process_time() - start < 1.5
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layout.draw(trace(loss, model).expand(), "svg", layout.Look(time_limit_s=30))
        layout.draw(trace(*models.chain(1000)).expand(), "svg", layout.Look(time_limit_s=30))


def test_a_resnet_triplet_is_readable_on_one_a4_page():
    picture = layout.draw(trace(*models.resnet()).overview(), "svg").decode()
    width, height = (float(side) for side in re.search(r'width="(\d+)pt" height="(\d+)pt"', picture).groups())
    scale = max(min(595 / width, 842 / height), min(842 / width, 595 / height), 0.0)
    smallest = min(map(float, re.findall(r'font-size="([\d.]+)"', picture)))
    assert min(scale, 1) * smallest >= 6


def test_text_in_a_pdf_is_text():
    picture = layout.draw(trace(*models.siamese()).overview(), "pdf")
    assert b"/FontFile" in picture
    assert b"/Image" not in picture.replace(b"/ImageB", b"").replace(b"/ImageC", b"").replace(b"/ImageI", b"")


def test_a_picture_goes_to_a_file_by_its_ending(tmp_path):
    graph = trace(*models.siamese())
    heads = {**HEADS, "dot": b"digraph", "json": b"{", "txt": b"backward", "html": b"<!doctype html>"}
    for ending, head in heads.items():
        path = graph.save(tmp_path / f"flow.{ending}")
        assert path.read_bytes().startswith(head)
    with pytest.raises(InvalidArgumentError, match=r"as '\.bmp'") as error:
        graph.save(tmp_path / "flow.bmp")
    assert ".svg .pdf .png" in error.value.do


def test_a_notebook_shows_a_figure_with_words_for_it():
    shown = trace(*models.siamese())._repr_html_()
    assert 'alt="backward graph: 26 nodes, 6 parameters used 12 times, 2 branches' in shown
    assert "data:image/svg+xml;base64," in shown

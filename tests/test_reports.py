import base64
import hashlib
import re
from dataclasses import replace
from html import escape
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from gradflow.errors import NoSuchParameterError, NoSuchStepError
from gradflow.recording import Recording
from gradflow.render.story import ACCOUNTING
from gradflow.reports import report
from tests import records
from tests.render import scenes
from tests.render.test_story import EVIL, Page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return report(scenes.recording(), tmp_path_factory.mktemp("page") / "report.html").read_text(
        encoding="utf-8"
    )


@pytest.fixture
def written(tmp_path):
    return lambda run, **how: report(run, tmp_path / "report.html", **how).read_text(encoding="utf-8")


def pictures(page):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg xmlns.*?</svg>", page, re.DOTALL)]


SVG = "{http://www.w3.org/2000/svg}"


def test_it_gives_back_where_it_wrote(tmp_path):
    assert report(Recording([scenes.step(keep=False)]), str(tmp_path / "r.html")) == tmp_path / "r.html"


def test_it_holds_every_part(page):
    drawn = pictures(page)
    titles = [svg.find(f"{SVG}title").text for svg in drawn]
    assert len(drawn) == 6
    assert titles[0] == "The equation of conv1.weight"
    for svg in drawn:
        assert len(svg.find(f"{SVG}desc").text) > 40
        assert svg.get("role") == "img"
    assert escape(ACCOUNTING) in page
    assert "Findings" in page
    assert all(b in page for b in records.PATHS)


def test_it_loads_nothing(page):
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\((?!#)|@import|<link", page)


def test_no_script_runs_but_the_explorer(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    data, script = re.findall(r"<script ([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert data[0] == 'type="application/json" id="gf-explorer-data"'
    assert script[0] == 'type="module"'
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = re.findall(r'\sid="([^"]*)"', page)
    repeated = {i for i in ids if ids.count(i) > 1}
    assert not repeated
    wanted = set(re.findall(r'(?:href="|url\()#([^")]*)', page))
    assert wanted <= set(ids)


def test_headings_are_in_order(page):
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2, 3}
    assert all(level <= before + 1 for before, level in pairwise(levels))


def test_neutral_colours_follow_the_theme(page):
    for svg in re.findall(r"<svg xmlns.*?</svg>", page, re.DOTALL):
        assert "var(--gf-ink" in svg
        assert not re.search(r"(?<!, )#0b0b0b", svg)
    assert "prefers-color-scheme: dark" in page


def test_without_tensors_it_says_how_to_keep_them(written):
    page = written(scenes.recording(keep=False))
    assert "keep=&quot;tensors&quot;" in page
    assert len(pictures(page)) == 5


def test_a_single_step_without_an_optimizer_has_no_history_and_no_delta(written):
    whole = scenes.step()
    bare = replace(whole, parameters={f: replace(p, delta=None) for f, p in whole.parameters.items()})
    assert len(pictures(written(Recording([bare])))) == 4


def test_a_last_step_without_gradients_is_passed_over(written):
    page = written(Recording([scenes.step(0), records.Step(1, {}, records.PATHS)]))
    assert "contributed in step 0" in page


def test_a_recording_without_any_gradient_says_so(written):
    assert "No step of this recording has a gradient" in written(Recording([records.Step(0, {}, ())]))


def test_a_deep_model_fits(written):
    page = written(Recording([scenes.deep(0), scenes.deep(1)]))
    assert "All 161 parameters" in page
    assert len(page) < 1_000_000


def test_names_survive_escaped(written):
    page = written(scenes.recording(2, (EVIL, "other"), fqns=(f"{EVIL}.weight",)))
    assert page.count("<script") == 2
    assert f"{EVIL}.weight" in Page(page).texts
    assert len(pictures(page)) == 6


def test_findings_are_told_over_the_run_and_for_the_step_that_is_shown(written):
    recording = scenes.recording(9)
    page = Page(written(recording))
    told = page.texts[
        page.texts.index("What is wrong or worth seeing over steps 0 to 8, and in step 8 by itself.") :
    ]
    over, alone = told.index("Over steps 0 to 8"), told.index("In step 8")
    assert [str(f) for f in recording.findings()] == told[over + 1 : alone]
    assert [str(f) for f in recording[8].findings] == told[alone + 1 : alone + 1 + len(recording[8].findings)]
    assert len(recording.findings()) > 0
    assert len(recording[8].findings) > 0


def test_a_single_step_has_one_list_of_findings(written):
    page = written(scenes.recording(1))
    assert "What is wrong or worth seeing in step 0." in page
    assert "<h3>" not in page


def test_it_says_what_is_wrong(written):
    with pytest.raises(NoSuchStepError):
        written(Recording())
    with pytest.raises(NoSuchParameterError, match="nope"):
        written(scenes.recording(), fqn="nope")

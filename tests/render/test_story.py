import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from gradflow.record import TermTable
from gradflow.recording import Recording
from gradflow.render import html, story, text
from gradflow.render.theme import short
from tests import records
from tests.render import scenes

EVIL = 'a"b<script>&c'
SCENES = {
    "plain": scenes.step(),
    "161": scenes.deep(),
    "five": scenes.step(branches=scenes.FIVE, fqns=(scenes.LONG, "head.bias"), extra=("unclaimed",)),
    "odd": scenes.dead(scenes.without(scenes.step(), "negative", "conv1.weight"), "positive"),
    "evil": scenes.step(branches=(EVIL, "other"), fqns=(f"{EVIL}.weight", "w")),
    "empty": records.Step(0, {}, records.PATHS),
    "skipped": replace(scenes.step(), skipped=True, complete=False),
}


class Page(HTMLParser):
    """The texts of a page, cell by cell; fails on tags that are left open."""

    VOID = ("br", "meta", "rect", "img")

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags, self.open = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append(data.strip())


def squeezed(words):
    return re.sub(r"\s+", "", words)


def assert_told(told, in_text, in_html):
    """Every fact, cell and finding is in both, but for what the text says it has no room for."""
    page = Page(in_html)
    flat = squeezed(in_text)
    for line in (told.heading, *told.facts, *(str(f) for f in told.findings)):
        assert squeezed(line) in flat, line
        assert line in page.texts, line
    for table in told.tables:
        for row in (table.columns, *table.rows):
            for cell in filter(None, row):
                assert cell in page.texts, cell
                shortened = row is table.columns and squeezed(short(cell, 12)) in flat
                assert squeezed(cell) in flat or shortened, cell


@pytest.mark.parametrize("scene", SCENES)
def test_text_and_html_tell_the_same_of_a_step(scene):
    whole = SCENES[scene]
    assert_told(story.of_step(whole), text.step(whole, width=300), html.step(whole))


@pytest.mark.parametrize("scene", [s for s in SCENES if s != "empty"])
def test_text_and_html_tell_the_same_of_a_parameter(scene):
    p = next(iter(SCENES[scene]))
    assert_told(story.of_param_step(p), text.param_step(p, width=300), html.param_step(p))


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_text_and_html_tell_the_same_of_a_recording(steps):
    run = scenes.recording(steps)
    assert_told(story.of_recording(run), text.recording(run, width=300), html.recording(run))


def test_reprs_are_these():
    whole = scenes.step()
    run = Recording([whole])
    assert repr(whole) == text.step(whole)
    assert repr(whole["fc.weight"]) == text.param_step(whole["fc.weight"])
    assert repr(run) == text.recording(run)
    assert whole._repr_html_() == html.step(whole)
    assert run._repr_html_() == html.recording(run)
    assert whole["fc.weight"]._repr_html_() == html.param_step(whole["fc.weight"])


@pytest.mark.parametrize("width", [40, 72, 100, 200])
@pytest.mark.parametrize("scene", SCENES)
def test_text_keeps_within_its_width(scene, width):
    whole = SCENES[scene]
    for told in (
        text.step(whole, width=width),
        text.table(whole, width=width),
        text.recording(Recording([whole]), width=width),
    ):
        for line in told.splitlines():
            assert len(line) <= width, line
        assert "\x1b" not in told


def test_what_has_no_room_is_named():
    told = text.step(scenes.step(), width=64)
    assert "no room for: cancels, residual" in told
    assert "no room" not in text.step(scenes.step(), width=200)


def test_a_deep_model_is_told_in_a_screenful():
    told = text.step(scenes.deep(), width=110)
    assert len(told.splitlines()) < 30
    assert "… 149 more" in told
    assert len(text.table(scenes.deep(), width=150).splitlines()) == 161 + 3


def test_where_shares_of_a_delta_are_told_it_says_what_they_are():
    whole, run = scenes.step(), scenes.recording(2)
    p = whole["conv1.weight"]
    told = [text.step(whole, width=150), text.table(whole, width=150)]
    told += [text.param_step(p, width=150), text.recording(run, width=150)]
    told += [html.step(whole), html.param_step(p), html.recording(run)]
    assert all(squeezed(story.ACCOUNTING) in squeezed(words) for words in told)
    bare = replace(whole, parameters={f: replace(q, delta=None) for f, q in whole.parameters.items()})
    assert "shares of Δ" in (narrow := text.table(whole, width=60)).partition("no room for:")[2]
    assert "accounting" not in narrow
    assert story.ACCOUNTING not in text.step(bare) + text.param_step(bare["conv1.weight"])


def test_the_interesting_rows_are_chosen():
    whole = scenes.deep()
    odd = scenes.without(whole, "negative", "layer3.5.bn2.bias")
    odd = replace(
        odd,
        parameters={**odd.parameters, "layer4.1.bn1.bias": replace(odd["layer4.1.bn1.bias"], residual=1e-7)},
    )
    shown = [row[0] for row in story.step_table(odd, most=12).rows]
    assert {"layer3.5.bn2.bias", "layer4.1.bn1.bias"} <= set(shown)
    assert max(whole, key=lambda p: p.total_norm).fqn in shown
    assert len(shown) == 12
    assert shown == [f for f in odd.params if f in shown]


def test_names_survive_escaped():
    for page in (
        html.step(SCENES["evil"]),
        html.recording(Recording([SCENES["evil"]])),
        html.param_step(next(iter(SCENES["evil"]))),
    ):
        assert "<script>" not in page
        assert EVIL in Page(page).texts or f"{EVIL} (A)" in Page(page).texts


def test_tables_have_headers():
    page = Page(html.step(scenes.step()))
    scopes = [attrs.get("scope") for tag, attrs in page.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    assert scopes.count("row") == 3
    assert ("caption", {}) in page.tags


def test_a_bar_is_as_long_as_its_norms():
    p = scenes.step()["fc.weight"]
    whole = replace(scenes.step(), parameters={"fc.weight": p})
    widths = [float(attrs["width"]) for tag, attrs in Page(html.step(whole)).tags if tag == "rect"]
    assert widths == pytest.approx([96 * v / sum(p.norms.values()) for v in p.norms.values()], abs=0.06)


def test_how_well_sums_hold_is_told():
    p = scenes.step(extra=("unclaimed",))["fc.weight"]
    q = scenes.step()["conv1.weight"]
    assert story.sum_words(replace(p, residual=0.3)).endswith("but for the unclaimed gradient")
    assert story.sum_words(replace(q, residual=3e-7)).endswith("but for 3e-7 of its largest entry")
    three = {"a": replace(p, residual=0.3), "b": replace(q, residual=3e-7), "c": q}
    facts = story.of_step(records.Step(0, three, records.PATHS)).facts
    assert (
        "1 of 3 sums are conserved bitwise, 1 but for unclaimed gradient, 1 with a residual of at most 3e-7"
        in facts
    )


def test_terms_of_a_loss_are_told():
    table = TermTable(("anchor", "positive"), ("pull", "push"), np.diag([1.0, 4.0, 9.0, 0.0]))
    p = replace(scenes.step()["fc.weight"], terms=table)
    (told,) = [t for t in story.of_param_step(p).tables if t.title.startswith("Norm of each term")]
    assert told.columns == ("contributor", "pull", "push")
    assert told.rows == (("anchor", "1", "2"), ("positive", "3", "0"))
    assert_told(story.of_param_step(p), text.param_step(p, width=300), html.param_step(p))


def test_absent_zero_and_nan_are_told_apart():
    rows = {row[0]: row for row in story.step_table(SCENES["odd"]).rows}
    assert rows["conv1.weight"][1:4][1:] == ("0", "absent")
    everything_dead = scenes.step(branches=("only",))
    everything_dead = scenes.dead(everything_dead, "only")
    row = story.step_table(everything_dead).rows[0]
    assert row[story.step_table(everything_dead).columns.index("cancels")] == "–"

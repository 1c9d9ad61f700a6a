"""What is told in words, on records made by hand: the sentence for each case, and no other."""

from dataclasses import replace

import numpy as np
import pytest

from gradflow.errors import NoSuchParameterError, NoSuchStepError
from gradflow.record import Finding, TermTable
from gradflow.recording import Recording
from gradflow.render.explain import explain
from gradflow.render.story import ACCOUNTING
from tests import records
from tests.render import scenes


def one(vectors, *, index=0, **changes):
    """A recording of one step with one parameter ``w``, whose contributions are these vectors."""
    rows = np.array(list(vectors.values()), dtype=float)
    total = float(np.linalg.norm(rows.sum(axis=0)))
    fields = {"gram": rows @ rows.T, "total_norm": total, "delta": None, **changes}
    p = records.param_step("w", (rows.shape[1],), tuple(vectors), **fields)
    return Recording([records.Step(index, {"w": p}, (*vectors, *p.absent))])


def told(recording, **how):
    return " ".join(explain(recording, **how).split())


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([1, 0], "pull the same way: cosine +1.00."),
        ([1, 1], "pull mostly the same way: cosine +0.71."),
        ([0, 3], "pull about at right angles: cosine 0.00."),
        ([-0.4, 0.9165], "pull partly against each other: cosine −0.40."),
        ([-1, 1], "pull against each other: cosine −0.71."),
        ([-2, 0], "pull straight against each other: cosine −1.00."),
    ],
)
def test_an_angle_is_put_in_words(second, words):
    assert f"left and right {words}" in told(one({"left": [1, 0], "right": second}))


def test_what_cancels_is_told_with_its_numbers():
    text = told(one({"left": [3, 0], "right": [-1, 0]}))
    assert "50 % of the effort cancels: norms that add up to 4 leave a sum of norm 2." in text
    assert "left is largest (norm 3), then right 1." in text


def test_silent_absent_and_faint_branches_are_told_apart():
    text = told(one({"left": [1, 0], "right": [0, 0], "hum": [0, 1e-9]}, absent=("gone",)))
    assert "right brings exact zeros, as a hinge does whose margin is met." in text
    assert "gone never reached it" in text
    assert "What hum brings here may be mere rounding" in text
    assert "cosine" not in text


def test_many_pairs_of_a_kind_are_told_together():
    names = "abcde"
    text = told(one({n: np.eye(5)[i] for i, n in enumerate(names)}))
    assert "10 pairs of branches pull about at right angles: cosines from 0.00 to 0.00." in text


def test_the_delta_comes_with_its_shares_and_what_they_are():
    p = scenes.step()["fc.weight"]
    text = told(Recording([scenes.step()]), param="fc.weight")
    assert "SGD moved it by" in text
    for name, share in p.delta.shares.items():
        assert f"{100 * share:.0f} % is credited to {name}" in text
    assert ACCOUNTING in text
    assert ACCOUNTING not in told(one({"left": [1, 0]}))


def test_terms_are_told_along_each_branch():
    cells = np.array([[3.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    table = TermTable(("left", "right"), ("pull", "push"), cells @ cells.T)
    text = told(one({"left": [2, 0], "right": [0, 2]}, terms=table), param="w")
    assert "Along left came pull 3 and push 1, of which 50 % cancels." in text
    assert "Along right came pull 2." in text


def test_the_model_is_told_with_the_parameters_that_stand_out():
    whole = scenes.step()
    pairs = [
        (p.cosine(a, b), f"{a} and {b} on {p.fqn}")
        for p in whole
        for a, b in (("anchor", "positive"), ("anchor", "negative"), ("positive", "negative"))
    ]
    text = told(Recording([whole]))
    assert f"The sharpest conflict: {min(pairs)[1]}" in text
    assert f"The best agreement: {max(pairs)[1]}" in text


def test_the_change_since_the_first_step_is_told():
    run = scenes.recording(3)
    assert "Since step 0 the norm of the sum went from" in told(run)
    assert "Since" not in told(run, step=0)


def test_findings_are_told_where_they_concern():
    here = Finding("warning", "some-code", "Look here.", where="conv1.weight")
    run = Recording([replace(scenes.step(), reports=(here,))])
    assert "- warning: Look here." in told(run)
    assert "Look here." in told(run, param="conv1")
    assert "Look here." not in told(run, param="fc.weight")


def test_a_step_is_asked_for_by_its_number_or_from_the_end():
    run = Recording([replace(scenes.step(i), index=10 * i) for i in range(4)])
    assert told(run, step=20).startswith("Step 20,")
    assert told(run, step=-2).startswith("Step 20,")
    empty = replace(run[3], index=40, parameters={})
    assert told(Recording([*run, empty])).startswith("Step 30,")


@pytest.mark.parametrize("width", [40, 88])
def test_lines_are_folded_and_a_percentage_stays_whole(width):
    lines = explain(scenes.recording(3), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line.startswith("%")]


def test_it_says_what_is_wrong():
    run = Recording([replace(scenes.step(i), index=10 * i) for i in range(4)])
    for wanted in (5, 40, -5):
        with pytest.raises(NoSuchStepError, match=f"no step {wanted} was recorded") as error:
            explain(run, step=wanted)
        assert "steps are 0 to 30; only 4 of them were watched; -1 is the last" in str(error.value)
    with pytest.raises(NoSuchParameterError) as error:
        explain(run, param="conv1.wieght")
    assert str(error.value).splitlines() == [
        "no parameter or module 'conv1.wieght' among the 3 parameters of step 30",
        "  where: gradflow.render.explain.explain",
        "  do:    did you mean 'conv1.weight' or 'fc.weight' or 'conv1.bias'?",
    ]
    with pytest.raises(NoSuchStepError, match="empty"):
        explain(Recording())
    with pytest.raises(NoSuchParameterError, match="no gradient"):
        explain(Recording([records.Step(0, {})]))


@pytest.mark.parametrize(
    "scene", [scenes.deep(), scenes.step(branches=scenes.FIVE), scenes.step(branches=("a",))]
)
def test_any_step_can_be_told(scene):
    whole = explain(Recording([scene]))
    assert whole.startswith(f"Step {scene.index}, the whole model")
    for p in list(scene)[:3]:
        assert p.fqn in explain(Recording([scene]), param=p.fqn)


def test_findings_over_the_run_are_told_where_no_step_is_asked_for():
    steps = [replace(scenes.dead(step, "positive"), scalars={"dead": 1.0}) for step in scenes.recording(4)]
    said = explain(Recording(steps))
    assert "\n\nFindings over steps 0 to 3:\n- warning: " in said
    assert "On average 100 % of a batch is dead" in " ".join(said.split())
    alone = explain(Recording(steps), step=3)
    assert "Findings over" not in alone
    assert "dead-hinge" not in alone
    assert "'positive' arrived with exact zeros everywhere" in " ".join(alone.split())

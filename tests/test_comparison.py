"""Two runs side by side: every number against pandas, which sums up another table of the same recording."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gradflow.comparison import MOST_STEPS, compare
from gradflow.errors import NoSuchParameterError, NoSuchStepError
from gradflow.recording import Recording
from tests import records
from tests.render import scenes

A = scenes.recording(7)
B = scenes.recording(5, ("anchor", "positive"), size=2.0)


def measures(*given, **how):
    return {m.name: m for m in compare(*given, **how).measures}


def model_norms(recording, name):
    """Median over the steps of a contribution's norm over the whole model, from the long table."""
    table = recording.to_pandas()
    squares = table[table.contributor == name].groupby("step")["norm"].apply(lambda n: (n**2).sum())
    return float(np.sqrt(squares).median())


@pytest.mark.parametrize("name", ["anchor", "positive"])
def test_norms_are_medians_over_the_steps_of_the_whole_model(name):
    found = measures(A, B)[f"norm of {name}"]
    assert found.a == pytest.approx(model_norms(A, name))
    assert found.b == pytest.approx(model_norms(B, name))
    assert found.change == pytest.approx(found.b / found.a)


def test_what_only_one_run_has_is_a_gap_in_the_other():
    found = measures(A, B)
    assert math.isnan(found["norm of negative"].b)
    assert math.isnan(found["norm of negative"].change)
    assert math.isnan(found["cosine anchor, negative"].b)
    assert not math.isnan(found["cosine anchor, positive"].b)


def test_one_parameter_is_compared_by_its_own_numbers():
    found = measures(A, B, "fc.weight")
    for run, value in ((A, found["cosine anchor, positive"].a), (B, found["cosine anchor, positive"].b)):
        rows = [[s["fc.weight"].contribution(n).ravel() for n in ("anchor", "positive")] for s in run]
        cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in rows]
        assert value == pytest.approx(float(np.median(cosines)))
    cancelled = [1 - s["fc.weight"].total_norm / sum(s["fc.weight"].norms.values()) for s in A]
    assert found["cancels"].a == pytest.approx(float(np.median(cancelled)))
    assert found["‖Δ‖ / ‖θ‖"].a == pytest.approx(float(np.median([s["fc.weight"].delta.norm / 2 for s in A])))


def test_the_smallest_cosine_stands_for_very_many_pairs():
    many = scenes.recording(4, scenes.FIVE)
    found = measures(many, A)
    assert [name for name in found if name.startswith("cosine")] == [
        "cosine anchor, positive",
        "cosine anchor, negative",
        "cosine positive, negative",
    ]
    model = [s.layer("") for s in many]
    least = [min(m.cosine(x, y) for x in scenes.FIVE for y in scenes.FIVE if x != y) for m in model]
    assert found["smallest cosine"].a == pytest.approx(float(np.median(least)))


def test_scalars_are_compared_at_their_first_and_last_step():
    found = measures(A, B)
    assert found["loss, first"].change == 0.0
    assert found["loss, last"].change == pytest.approx(0.25 / 5 - 0.25 / 7)


def test_a_run_compared_with_itself_does_not_change():
    for measure in compare(A, A).measures:
        assert measure.a == measure.b
        assert measure.change == (1.0 if measure.kind == "size" else 0.0)


def test_steps_with_nan_are_left_out_and_told_of():
    sick = A[2]
    broken = replace(sick["fc.weight"], gram=np.full((3, 3), np.nan), total_norm=math.nan)
    steps = [replace(s, parameters={**s.parameters, "fc.weight": broken}) if s is sick else s for s in A]
    found = compare(Recording(steps), B)
    rest = Recording([s for s in A if s is not sick])
    assert found.a.total == compare(rest, B).a.total
    assert "nonfinite" in found.a.findings.warnings.codes


def test_very_long_runs_are_thinned_and_the_story_says_so():
    long = records.recording(2 * MOST_STEPS + 1, fqns=("w.weight",), keep=False)
    found = compare(long, B, names=("long", "short"))
    assert found.a.every == 3
    assert "long: 801 steps, one in 3 read, 1 parameter" in repr(found)
    assert "0 parameters in both, 1 only in long, 3 only in short" in repr(found)


def test_text_and_html_tell_the_same():
    found = A.compare(B, names=("first", "<b>"))
    text, page = repr(found), found._repr_html_()
    assert text.startswith("first beside <b>: the whole model\n  first: 7 steps, 3 parameters\n")
    assert "first beside &lt;b&gt;: the whole model" in page
    assert "<b>" not in page
    row = next(line.split() for line in text.splitlines() if "norm of anchor" in line)
    assert row[-2:] == ["×", row[-1]]
    for cell in row[3:5]:
        assert f"<td>{cell}</td>" in page
    assert "the same parameters in both" in text


def test_warnings_of_either_run_are_named():
    dead = Recording([scenes.dead(s, "positive") for s in B])
    told = repr(compare(A, dead, names=("one", "two")))
    assert "one: no warning" in told
    assert "two: warned of branch-zero" in told


def test_a_place_that_neither_run_has_is_told_with_near_names():
    with pytest.raises(NoSuchParameterError, match=r"fc\.wieght"):
        compare(A, B, "fc.wieght")


def test_a_place_that_one_run_has_is_a_gap_in_the_other():
    other = Recording([scenes.step(i, fqns=("head.weight",)) for i in range(3)])
    found = measures(A, other, "fc")
    assert not math.isnan(found["norm of Σ"].a)
    assert math.isnan(found["norm of Σ"].b)


def test_an_empty_recording_is_refused_by_name():
    with pytest.raises(NoSuchStepError, match="'b' is empty"):
        compare(A, Recording([]))

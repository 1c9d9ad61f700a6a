from dataclasses import replace

import numpy as np
import pytest

from gradflow import findings
from gradflow.record import Finding, TermTable
from tests import records
from tests.render import scenes

CALM = np.eye(3)  # three contributions at right angles: no conflict, cancellation 1 - 1/sqrt(3)


def step(gram=CALM, total_norm=3**0.5, contributors=records.PATHS, **changes):
    fields = {"gram": np.asarray(gram, float), "total_norm": total_norm} | changes
    p = replace(records.param_step("w", contributors=contributors), **fields)
    return records.Step(0, {"w": p}, records.PATHS)


def codes(whole):
    return [f.code for f in findings.of_step(whole)]


def only(whole, code):
    (found,) = [f for f in findings.of_step(whole) if f.code == code]
    return found


def test_a_healthy_step_has_none():
    assert findings.of_step(step()) == ()


def test_reports_come_first_and_are_not_repeated():
    mine = Finding("warning", "incomplete", "a hook failed")
    whole = replace(step(), reports=(mine, Finding("note", "stem", "a stem")), complete=False)
    assert [f.text for f in findings.of_step(whole)] == ["a hook failed", "a stem"]


def test_incomplete_and_skipped():
    whole = replace(step(), complete=False, skipped=True)
    assert codes(whole) == ["incomplete", "skipped"]
    assert [f.severity for f in findings.of_step(whole)] == ["warning", "note"]


def test_a_branch_absent_everywhere_is_a_warning():
    found = only(scenes.without(scenes.step(), "negative"), "branch-absent")
    assert found.severity == "warning"
    assert "'negative' reached none" in found.text
    assert "detach" in found.do


def test_a_branch_absent_somewhere_is_a_note_that_says_where():
    found = only(scenes.without(scenes.step(), "negative", "fc.weight"), "branch-absent")
    assert found.severity == "note"
    assert "1 of 3 parameters: fc.weight" in found.text
    assert found.where == "fc.weight"


def test_branches_that_missed_the_same_parameters_are_told_of_together():
    whole = scenes.step(branches=scenes.FIVE)
    head = whole["fc.weight"]
    kept = [head.contributors.index("negative")]
    head = replace(
        head,
        contributors=("negative",),
        gram=head.gram[np.ix_(kept, kept)],
        absent=tuple(b for b in scenes.FIVE if b != "negative"),
    )
    whole = replace(whole, parameters={**whole.parameters, "fc.weight": head})
    found = only(whole, "branch-absent")
    assert found.text.startswith(
        f"Branches {scenes.FIVE[0]}, positive, semi_hard_negative and 1 more did not reach 1 of 3"
    )


def test_a_dead_branch():
    whole = scenes.dead(scenes.step(), "positive")
    found = only(whole, "branch-zero")
    assert "'positive' arrived with exact zeros" in found.text
    assert "branch-absent" not in codes(whole)
    silent = scenes.dead(scenes.dead(scenes.dead(scenes.step(), "positive"), "anchor"), "negative")
    assert "anchor, positive, negative" in only(silent, "branch-zero").text


def test_zeros_in_one_parameter_only_are_not_a_dead_branch():
    whole = scenes.step()
    quiet = scenes.dead(whole, "positive")["fc.weight"]
    assert "branch-zero" not in codes(replace(whole, parameters={**whole.parameters, "fc.weight": quiet}))


@pytest.mark.parametrize(("size", "severity"), [(0.3, "warning"), (1e-4, "note")])
def test_unclaimed_gradient_is_told_with_its_fraction(size, severity):
    gram = np.diag([1.0, 1.0, 1.0, size**2])
    whole = step(gram, total_norm=float(np.sqrt(gram.sum())), contributors=(*records.PATHS, "unclaimed"))
    found = only(whole, "unclaimed")
    assert found.severity == severity
    assert f"{100 * size / np.sqrt(gram.sum()):.3g} %" in found.text


def test_unclaimed_zeros_are_not_told():
    gram = np.diag([1.0, 1.0, 1.0, 0.0])
    assert "unclaimed" not in codes(step(gram, contributors=(*records.PATHS, "unclaimed")))


@pytest.mark.parametrize(
    ("residual", "severity"), [(1e-7, "note"), (1e-3, "warning"), (float("nan"), "warning")]
)
def test_a_residual_is_told_with_its_size(residual, severity):
    found = only(step(residual=residual), "residual")
    assert found.severity == severity
    assert f"{residual:.2g}" in found.text
    assert found.where == "w"


def test_a_residual_that_is_unclaimed_gradient_is_told_of_once():
    gram = np.diag([1.0, 1.0, 1.0, 1e-4])
    whole = step(gram, contributors=(*records.PATHS, "unclaimed"), residual=0.3)
    assert codes(whole) == ["unclaimed"]


def test_the_strongest_conflict_is_told():
    gram = np.array([[1.0, 0.0, -0.8], [0.0, 1.0, 0.0], [-0.8, 0.0, 1.0]])
    found = only(step(gram, total_norm=1.4**0.5), "conflict")
    assert found.severity == "note"
    assert found.text == "'anchor' and 'negative' pull against each other: cosine -0.80."
    mild = np.array([[1.0, 0.0, -0.4], [0.0, 1.0, 0.0], [-0.4, 0.0, 1.0]])
    assert "conflict" not in codes(step(mild))


def test_strong_cancellation_is_told():
    assert "70 % of what the branches bring" in only(step(total_norm=0.9), "cancellation").text
    assert "cancellation" not in codes(step(total_norm=2.0))


def test_noise_is_not_called_a_conflict():
    """The bias before a batch-norm: its gradients are rounding errors, and point anywhere."""
    fight = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    loud, bias = step()["w"], step(fight * 1e-14, total_norm=1e-9)["w"]
    whole = records.Step(0, {"w": loud, "bias": replace(bias, fqn="bias", names=("bias",))}, records.PATHS)
    assert codes(whole) == ["noise"]
    assert {"conflict", "cancellation"} <= set(codes(records.Step(0, {"bias": bias}, records.PATHS)))


def test_an_empty_step_has_none():
    assert findings.of_step(records.Step(0, {}, records.PATHS)) == ()


@pytest.mark.parametrize(
    ("name", "severity", "said"), [("shared", "note", "lie behind"), ("edited", "warning", "most at w")]
)
def test_shared_and_edited_gradient_is_told_and_zeros_are_not(name, severity, said):
    there = step(np.diag([1.0, 1.0, 1.0, 0.25]), contributors=(*records.PATHS, name))
    found = only(there, name)
    assert found.severity == severity
    assert said in found.text
    assert name not in codes(step(np.diag([1.0, 1.0, 1.0, 0.0]), contributors=(*records.PATHS, name)))


@pytest.mark.parametrize(("size", "told"), [(0.5, True), (1e-3, False)])
def test_more_left_over_than_rounding_is_told(size, told):
    gram = np.diag([1.0, 1.0, 1.0, size**2])
    whole = step(gram, total_norm=float(np.sqrt(gram.sum())), contributors=(*records.PATHS, "rounding"))
    assert ("rounding" in codes(whole)) == told


def test_nan_is_told_with_its_branch_and_the_place_nearest_to_the_loss():
    sick = np.eye(3)
    sick[1, :] = sick[:, 1] = np.nan
    whole = scenes.step()
    fqns = list(whole.parameters)[:2]
    changed = {f: replace(whole[f], gram=sick, total_norm=float("nan"), residual=float("nan")) for f in fqns}
    whole = replace(whole, parameters={**whole.parameters, **changed})
    found = only(whole, "nonfinite")
    assert found.severity == "warning"
    assert "along 'positive' (1 of 3 branches), at 2 of 3 parameters" in found.text
    assert found.where == fqns[1]
    assert "residual" not in codes(whole)
    assert only(replace(whole, skipped=True), "nonfinite").severity == "note"


def test_a_dead_branch_is_counted_among_those_that_arrived():
    whole = scenes.dead(scenes.step(), "positive")
    assert "(1 of 3 that arrived)" in only(whole, "branch-zero").text
    assert (
        "Logged with the step: dead 75 %." in only(replace(whole, scalars={"dead": 0.75}), "branch-zero").text
    )


def test_a_term_that_sends_zeros_is_named():
    gram = np.diag([1.0, 0.0, 0.0] * 3)  # three branches; terms pull, push, and what has no name
    table = TermTable(records.PATHS, ("pull", "push", "unclaimed"), gram)
    assert only(step(terms=table), "term-zero").text.endswith("along every branch: push.")

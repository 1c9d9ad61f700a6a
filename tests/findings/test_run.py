"""Findings over several steps: their numbers, where they begin, and what they leave alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow import findings
from gradflow.errors import InvalidArgumentError
from gradflow.findings import thresholds
from gradflow.record import Finding
from gradflow.recording import Recording
from tests import records
from tests.findings import broken
from tests.render import scenes


def of(steps, **how):
    return findings.of_recording(Recording(steps), **how)


def only(found, code):
    (one,) = [f for f in found if f.code == code]
    return one


def logged(count=20, **scalars):
    """Steps with logged scalars: numbers, or functions of the step."""
    values = [{k: v(i) if callable(v) else v for k, v in scalars.items()} for i in range(count)]
    return [replace(scenes.step(i), scalars=v) for i, v in enumerate(values)]


def two(sizes, steps=4, cosine=0.0):
    """Steps with one weight that branches a and b reach with contributions of these norms."""
    a, b = sizes
    gram = np.array([[a * a, cosine * a * b], [cosine * a * b, b * b]])
    p = replace(
        records.param_step("w", contributors=("a", "b")),
        gram=gram,
        total_norm=math.sqrt(max(gram.sum(), 0.0)),
    )
    return [records.Step(i, {"w": p}, ("a", "b")) for i in range(steps)]


def test_an_empty_recording_has_none():
    assert of([]) == ()
    assert repr(of([])) == "No step: nothing out of the ordinary"


def test_the_method_of_a_recording_is_this():
    recording = Recording(two((1.0, 100.0)))
    assert recording.findings() == findings.of_recording(recording)
    assert repr(recording.findings()).startswith("Steps 0 to 3: no warning, 1 note")


def test_only_the_newest_steps_count_and_the_checks_of_the_first():
    check = Finding("warning", "copies", "left and right are copies")
    steps = logged(30, dead=lambda i: 1.0 if i < 20 else 0.0)
    steps[0] = replace(steps[0], reports=(check, Finding("note", "passes", "three passes")))
    assert "dead-hinge" in of(steps).codes
    newest = of(steps, last=10)
    assert newest.about == "Steps 20 to 29"
    assert "dead-hinge" not in newest.codes
    assert newest[0] == check
    assert "passes" not in newest.codes
    assert len([f for f in of(steps, last=None) if f.code == "copies"]) == 1


def test_what_single_steps_tell_is_told_once_with_how_often():
    steps = scenes.recording(5)
    found = [replace(s, complete=s.index not in (1, 3)) for s in steps]
    text = only(of(found), "incomplete").text
    assert text.startswith("In 2 of 5 steps, last so in step 3: Recording this step failed")


def test_a_dominating_branch_is_told_with_its_part():
    found = only(of(two((19.0, 1.0))), "dominating")
    assert found.text.startswith("Branch 'a' brings 95 % of the effort")
    assert "over 4 steps; b bring the rest" in found.text
    assert "dominating" not in of(two((8.0, 1.0))).codes
    assert "dominating" not in of(two((1.0, 0.0))).codes  # zeros are told of as such


def test_lasting_conflict_is_counted_over_the_whole_model():
    mixed = two((1.0, 1.0), 3, -0.9) + two((1.0, 1.0), 1, 0.2)
    text = only(of(mixed), "conflict-lasting").text
    assert "in 3 of 4 steps: median cosine -0.90" in text
    assert "conflict-lasting" not in of(two((1.0, 1.0), 1, -0.9) + two((1.0, 1.0), 3, 0.2)).codes


def test_lasting_cancellation_is_told_with_its_median():
    lossy = two((1.0, 1.0), 4, -0.9)
    kept = math.sqrt(2 - 2 * 0.9) / 2
    assert f"the median is {100 * (1 - kept):.0f} %" in only(of(lossy), "cancellation-lasting").text


@pytest.mark.parametrize(
    ("dead", "severity"), [(lambda i: 1.0, "warning"), (lambda i: 0.6, "note"), (lambda i: 0.4, None)]
)
def test_the_fraction_of_dead_examples_is_read_from_what_was_logged(dead, severity):
    for scalars in ({"dead": dead}, {"active": lambda i: 1.0 - dead(i)}):
        found = [f for f in of(logged(8, **scalars)) if f.code == "dead-hinge"]
        assert [f.severity for f in found] == ([severity] if severity else [])
        if severity:
            assert f"On average {100 * dead(0):.3g} % of a batch is dead" in found[0].text


def test_one_batch_of_zeros_is_a_note_and_half_of_them_a_warning():
    def run(zeros):
        return [scenes.dead(s, "positive") if s.index < zeros else s for s in scenes.recording(6)]

    assert only(of(run(1)), "branch-zero").severity == "note"
    assert only(of(run(3)), "branch-zero").severity == "warning"
    assert "in at least 3 of 6 steps" in only(of(run(3)), "branch-zero").text


@pytest.mark.parametrize(
    ("loss", "count", "told"),
    [(0.2, 20, True), (0.2, 19, False), (0.2 * 1.009, 20, True), (0.2 * 1.02, 20, False)],
)
def test_a_loss_at_its_margin_is_told_after_twenty_steps(loss, count, told):
    assert ("collapse" in of(logged(count, loss=loss, margin=0.2)).codes) == told


def test_a_loss_that_left_its_margin_once_is_not_stuck_there():
    steps = logged(20, loss=lambda i: 0.15 if i == 10 else 0.2, margin=0.2)
    assert "collapse" not in of(steps).codes


def test_a_stuck_loss_is_told_unless_the_weights_stand_still_too():
    assert "loss-stuck" in of(logged(20, loss=0.2)).codes
    assert "loss-stuck" not in of(logged(20, loss=lambda i: 0.2 + 1e-3 * i)).codes
    assert "loss-stuck" not in of(logged(20, loss=0.0)).codes
    still = [
        replace(s, parameters={f: replace(p, delta=None) for f, p in s.parameters.items()})
        for s in logged(20, loss=0.2)
    ]
    assert "loss-stuck" not in of(still).codes


def test_a_branch_that_is_missing_now_and_then_is_a_note():
    steps = [scenes.without(s, "negative") if s.index == 2 else s for s in scenes.recording(4)]
    found = only(of(steps), "branch-absent")
    assert found.severity == "note"
    assert "in 1 of 4 steps" in found.text


def test_accumulated_gradient_has_the_norm_of_what_was_read_before():
    """Against ``.grad`` itself."""
    net, before = broken.encoder(), []

    def grad_norm():
        return math.sqrt(sum(float(p.grad.double().square().sum()) for p in net.parameters()))

    recording = broken.triplet(model=net, clear=False, between=lambda: before.append(grad_norm()))
    text = only(recording.findings(), "accumulated").text
    assert "in 3 of 3 steps" in text
    assert f"in step 3 the optimizer read a rest of norm {before[2]:.4g} beside" in text


def test_one_value_that_was_clipped_is_not_called_accumulated():
    assert "accumulated" not in broken.clipped(by_value=True).findings().codes


def test_micro_batches_are_not_called_accumulated():
    net = broken.encoder()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with gradflow.watch(net, optimizer, branches=broken.NAMES) as flow:
        for step in range(4):
            optimizer.zero_grad()
            for micro in range(3):
                a, p, n = (net(x) for x in broken.data(10 * step + micro))
                broken.hinge(a, p, n, 1.0).mean().backward()
            optimizer.step()
    assert not flow.recording.findings().warnings


def test_nan_is_told_where_it_began_and_along_which_branch():
    net = broken.encoder()

    def change(z):
        steps.append(None)
        return (z.relu() * 0).sqrt() + z if len(steps) == 3 else z

    steps = []
    found = only(broken.triplet(model=net, change=change, steps=5).findings(), "nonfinite")
    assert found.text.startswith(
        "It began in step 2, and 3 of 5 steps have it. NaN or Inf arrived along 'positive'"
    )


def test_an_overflow_that_the_scaler_skips_is_a_note():
    found = broken.scaled(overflow=0).findings()
    assert only(found, "skipped").text.startswith("The optimizer skipped 1 of 4 steps")
    assert not found.warnings


def test_two_optimizers_that_take_turns_leave_nothing_unmoved():
    maker, judge = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (maker, judge)]
    with gradflow.watch([maker, judge], optimizers) as flow:
        for step in range(6):
            for optimizer in optimizers:
                optimizer.zero_grad()
            judge(maker(torch.ones(3, 2))).square().mean().backward()
            optimizers[step % 2].step()
    assert "not-moved" not in flow.recording.findings().codes


def test_with_rows_the_zero_branches_are_exactly_the_dead_triplets():
    net, size = broken.encoder(), 8
    batch = broken.data(3, size)

    def each():
        z = gradflow.branch.rows(
            net(batch.flatten(0, 1)), {f"triplet {i}": [i, size + i, 2 * size + i] for i in range(size)}
        )
        return broken.hinge(*z.view(3, size, -1), 0.0)

    dead = int((each() == 0).sum())
    assert 0 < dead < size
    step = broken.train(net, lambda _: each().sum(), steps=1).last
    assert f"({dead} of {size} that arrived)" in only(step.findings, "branch-zero").text


def test_what_is_seen_of_the_model_goes_with_the_first_step_only():
    recording = broken.pair(shared=False)
    assert [len([f for f in s.reports if f.code == "copies"]) for s in recording] == [1, 0, 0, 0]
    assert "copies" in recording[0].findings.codes


def test_a_model_that_cannot_be_looked_at_is_recorded_all_the_same():
    seen, plain = broken.unreadable(fails=True), broken.unreadable(fails=False)
    assert [len(s) for s in seen] == [len(s) for s in plain]
    assert all(s.complete for s in seen)
    assert [s.layer("").total_norm for s in seen] == [s.layer("").total_norm for s in plain]


def test_modes_that_change_in_training_are_told_with_the_step():
    net = broken.encoder(norm=True)

    def loss(step):
        net[1].train(step < 2)
        return net(broken.data(step)[0]).square().mean()

    recording = broken.train(net, loss)
    assert [[f.code for f in s.reports] for s in recording] == [[], [], ["frozen-norm"], []]
    assert only(recording.findings(), "frozen-norm").severity == "note"


def test_what_watching_looks_at_leaves_the_random_state_alone():
    net = nn.ModuleDict({"a": broken.encoder(), "b": broken.encoder()})
    state = torch.get_rng_state()
    with gradflow.watch(net):
        assert torch.equal(torch.get_rng_state(), state)


def test_a_recording_from_a_file_tells_the_same(tmp_path):
    recording = broken.pair(shared=False)
    loaded = gradflow.load(recording.save(tmp_path / "run.gradflow"))
    assert loaded.findings() == recording.findings()


@pytest.mark.parametrize("count", [1, 50, 120])  # a file keeps the last 32 it read at hand
def test_a_longer_recording_from_a_file_tells_the_same(tmp_path, count):
    recording = records.recording(count)
    read = gradflow.load(recording.save(tmp_path / "run.gradflow"))
    assert list(read.findings()) == list(recording.findings())


@pytest.mark.parametrize("last", [0, -3])
def test_no_steps_at_all_are_refused(last):
    with pytest.raises(InvalidArgumentError, match=f"last={last} is no positive number of steps"):
        of([], last=last)


def test_the_default_of_the_method_is_the_named_threshold():
    assert Recording.findings.__defaults__ == (thresholds.WINDOW,)


def test_hinges_of_the_test_are_torchs_own():
    a, p, n = (torch.randn(5, 3) for _ in range(3))
    own = F.triplet_margin_loss(a, p, n, margin=0.7)
    torch.testing.assert_close(broken.hinge(a, p, n, 0.7).mean(), own)

"""Steps and recordings: names, sums over layers, positions, tables."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.errors import NoSuchBranchError, NoSuchParameterError, NoSuchStepError, NotKeptError
from gradflow.record import Delta, Finding
from gradflow.recording import Recording, Step
from tests import records
from tests.records import PATHS


def vector_of(parameters, name):
    """One contributor's gradient of all the parameters as one vector; zeros where it is absent."""
    return np.concatenate([p.tensors.get(name, np.zeros(p.shape)).ravel() for p in parameters])


def assert_sums(layer, parameters):
    """The measures of a layer are those of the concatenated vectors of its parameters."""
    vectors = {name: vector_of(parameters, name) for name in layer.contributors}
    total = sum(vectors.values())
    assert layer.norms == pytest.approx({name: np.linalg.norm(v) for name, v in vectors.items()})
    assert layer.total_norm == pytest.approx(np.linalg.norm(total))
    effort = sum(np.linalg.norm(v) for v in vectors.values())
    assert layer.cancellation == pytest.approx(1 - np.linalg.norm(total) / effort)
    for a, u in vectors.items():
        assert layer.share(a) == pytest.approx(u @ total / (total @ total))
        for b, v in vectors.items():
            cosine = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
            assert layer.cosine(a, b) == pytest.approx(cosine)
            assert layer.conflict(a, b) == pytest.approx(max(0.0, -cosine))


@pytest.mark.parametrize(
    ("path", "fqns"),
    [
        ("", ["conv1.weight", "conv1.bias", "fc.weight"]),
        ("conv1", ["conv1.weight", "conv1.bias"]),
        ("fc.weight", ["fc.weight"]),
    ],
    ids=["model", "layer", "parameter"],
)
def test_a_layer_sums_its_parameters(path, fqns):
    step = records.step()
    assert_sums(step.layer(path), [step[fqn] for fqn in fqns])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_layer_sums_whoever_took_part(data):
    """Each parameter has its own contributors in its own order; who is missing brings zeros."""
    known = st.permutations([*PATHS, "unclaimed", "shared"])
    parts = data.draw(st.lists(st.tuples(known, st.integers(1, 5)), min_size=1, max_size=4))
    parameters = {
        f"net.w{i}": records.param_step(f"net.w{i}", (3, i + 1), tuple(names[:most]), seed=i)
        for i, (names, most) in enumerate(parts)
    }
    layer = Step(0, parameters, PATHS).layer("net")
    seen = {name for p in parameters.values() for name in p.contributors}
    lanes = [*PATHS, "unclaimed", "shared"]
    assert layer.contributors == tuple(name for name in lanes if name in seen)
    assert layer.absent == tuple(name for name in PATHS if name not in seen)
    assert_sums(layer, list(parameters.values()))


def test_the_delta_of_a_layer_sums_the_deltas_of_its_parameters():
    step = records.step()
    delta, parts = step.layer("conv1").delta, [step[fqn].delta for fqn in ("conv1.weight", "conv1.bias")]
    moved = {name: np.concatenate([d.parts[name].ravel() for d in parts]) for name in PATHS}
    whole = sum(moved.values())
    assert delta.norms == pytest.approx({name: np.linalg.norm(v) for name, v in moved.items()})
    assert delta.norm == pytest.approx(np.linalg.norm(whole))
    assert delta.shares == pytest.approx({name: v @ whole / (whole @ whole) for name, v in moved.items()})
    assert delta.parameter_norm == pytest.approx(math.hypot(2.0, 2.0))
    assert (delta.rule, delta.note) == ("SGD", "")
    assert math.isnan(delta.residual)


def test_a_layer_whose_parameters_move_by_different_rules_names_both():
    other = Delta(("history",), np.eye(1), 1.0, 1.0, rule="Adam", note="attached late")
    step = records.step()
    step.parameters["conv1.bias"] = records.param_step("conv1.bias", (4,), delta=other)
    delta = step.layer("conv1").delta
    assert delta.rule == "SGD and Adam"
    assert delta.note == "attached late"
    assert delta.contributors == (*PATHS, "history")


def test_a_layer_without_an_optimizer_has_no_delta():
    parameters = {"fc.weight": records.param_step("fc.weight", delta=None)}
    assert Step(0, parameters, PATHS).layer("").delta is None


def test_what_was_edited_after_the_backward_is_beside_the_sum():
    """``edited`` changes .grad after the leaf received its total: it takes no part in cancellation."""
    tensors = {"anchor": np.array([3.0, 0.0]), "edited": np.array([-3.0, 0.0])}
    rows = np.stack([*tensors.values()])
    p = records.param_step("w", (2,), tuple(tensors), gram=rows @ rows.T, total_norm=3.0, tensors=tensors)
    assert p.cancellation == 0.0
    assert p.share("anchor") == 1.0
    assert p.share("edited") == 0.0
    assert p.cosine("anchor", "edited") == -1.0


def test_a_tied_parameter_answers_to_all_its_names_and_counts_once():
    tied = records.param_step("embed.weight", names=("embed.weight", "head.weight"))
    step = Step(0, {"embed.weight": tied}, PATHS)
    assert step["head.weight"] is tied
    for path in ("embed", "head", ""):
        assert step.layer(path).norms == pytest.approx(tied.norms)


def test_a_layer_is_not_its_namesake_with_a_longer_name():
    step = records.step(fqns=("conv1.weight", "conv10.weight"))
    assert step.layer("conv1").norms == pytest.approx(step["conv1.weight"].norms)


def test_unknown_names_are_told_with_their_neighbours():
    step = records.step()
    with pytest.raises(NoSuchParameterError, match=r"did you mean 'conv1\.weight'") as caught:
        step["conv1.wieght"]
    assert str(caught.value).startswith("no parameter 'conv1.wieght' among the 3 of step 0\n")
    with pytest.raises(NoSuchParameterError, match="did you mean 'conv1'"):
        step.layer("conv2")
    with pytest.raises(NoSuchBranchError, match="did you mean 'anchor'"):
        step["fc.weight"].cosine("anchr", "positive")
    with pytest.raises(NoSuchBranchError, match="no contributor 'x'"):
        step["fc.weight"].contribution("x")
    with pytest.raises(NoSuchBranchError, match="no contributor 'x'"):
        step["fc.weight"].delta.part("x")


def test_absent_is_not_zero():
    p = records.param_step(contributors=("anchor",), absent=("negative",))
    with pytest.raises(NoSuchBranchError, match="'negative' is absent here"):
        p.share("negative")


def test_tensors_that_were_not_kept_are_told_with_the_remedy():
    p = records.param_step(keep=False)
    for ask in (lambda: p.total, lambda: p.contribution("anchor"), lambda: p.delta.part("anchor")):
        with pytest.raises(NotKeptError, match='keep="tensors"'):
            ask()


def test_a_step_is_its_parameters_in_the_order_of_the_model():
    step = records.step()
    assert step.params == ("conv1.weight", "conv1.bias", "fc.weight")
    assert [p.fqn for p in step] == list(step.params)
    assert len(step) == 3


def test_positions_count_from_either_end():
    recording = records.recording(5)
    assert [step.index for step in recording] == [0, 1, 2, 3, 4]
    assert recording[-1] is recording.last is recording[4]
    assert [step.index for step in recording[1:-1:2]] == [1, 3]
    assert isinstance(recording[1:2], Recording)


@pytest.mark.parametrize(
    ("steps", "known"), [(3, "positions are 0 to 2"), (0, "positions are none yet")], ids=["three", "none"]
)
@pytest.mark.parametrize("position", [3, -4])
def test_positions_beyond_the_ends_are_told(steps, known, position):
    with pytest.raises(NoSuchStepError, match=known):
        records.recording(steps)[position]


def test_the_last_of_nothing_is_told():
    with pytest.raises(NoSuchStepError, match="none yet"):
        _ = Recording().last


def test_a_recording_grows_with_its_steps():
    steps = []
    recording = Recording(steps)
    steps.append(records.step(0))
    assert len(recording) == 1
    assert recording.last.index == 0


def test_parameters_and_branches_are_in_the_order_of_their_first_appearance():
    recording = Recording(
        [
            records.step(0, fqns=("b.weight",), branches=("y",)),
            records.step(1, fqns=("a.bias",), branches=("x", "y")),
        ]
    )
    assert recording.params == ("b.weight", "a.bias")
    assert recording.branches == ("y", "x")


def test_a_table_has_a_row_per_step_parameter_and_contributor():
    frame = records.recording(2).to_pandas()
    assert len(frame) == 2 * 3 * 3
    row = frame[(frame.step == 1) & (frame.param == "fc.weight") & (frame.contributor == "negative")].iloc[0]
    p = records.step(1)["fc.weight"]
    assert row["norm"] == p.norms["negative"]
    assert row["share"] == p.share("negative")
    assert row["delta_share"] == p.delta.shares["negative"]
    assert row["loss"] == 0.5


def test_a_table_has_rows_for_who_only_moved_the_parameter():
    delta = Delta((*PATHS, "history"), np.eye(4), 1.0, 1.0, rule="Adam")
    frame = Recording([Step(0, {"w": records.param_step("w", delta=delta)}, PATHS)]).to_pandas()
    row = frame[frame.contributor == "history"].iloc[0]
    assert math.isnan(row["norm"])
    assert row["delta_share"] == 0.25


def test_a_delta_tells_how_far_the_parameter_moved():
    one = {"contributors": ("a",), "gram": np.eye(1)}
    assert Delta(**one, norm=1.0, parameter_norm=4.0).relative == 0.25
    assert Delta(**one, norm=1.0, parameter_norm=0.0).relative == math.inf
    assert math.isnan(Delta(**one, norm=0.0, parameter_norm=0.0).relative)


def test_where_nothing_moved_nobody_has_a_share():
    """Parts that cancel to less than the parameter's rounding leave noise, whose fractions are huge."""
    parts = np.array([[1e-3], [-1e-3 + 1e-9]])
    given = {"contributors": ("a", "b"), "gram": parts @ parts.T, "parameter_norm": 1.0}
    assert abs(Delta(**given, norm=1e-9).shares["a"]) > 1e5
    assert all(math.isnan(share) for share in Delta(**given, norm=0.0).shares.values())


def test_a_finding_is_one_line():
    assert (
        str(Finding("note", "code", "seen 3 times", "look at it", "fc"))
        == "note: seen 3 times (fc) look at it"
    )
    assert str(Finding("warning", "code", "seen")) == "warning: seen"


def test_a_tensor_that_is_not_among_those_kept_is_told():
    p = records.param_step(tensors={"anchor": np.zeros((4, 3))})
    assert p.contribution("anchor").shape == (4, 3)
    with pytest.raises(NotKeptError):
        p.contribution("positive")
    with pytest.raises(NotKeptError):
        replace(p.delta, parts={}).part("anchor")

"""Momentum that no contributor explains: attached late, steps not watched, state replaced, branches gone."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.updates.cases import FAMILIES
from tests.updates.training import Training, assert_conserved, contributions, parameters, summed

WITH_MOMENTUM = {
    "SGD": {"momentum": 0.9},
    "Adam": {},
    "AdamW": {},
    "RMSprop": {"momentum": 0.9},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Muon": {},
}


@pytest.fixture(params=[f for f in FAMILIES if f.name in WITH_MOMENTUM], ids=lambda family: family.name)
def family(request):
    return request.param


def training(family, dtype=torch.float64, **options):
    params = parameters(dtype, family.shapes)
    return Training(family.optimizer(params, lr=family.lr, **WITH_MOMENTUM[family.name], **options))


def named_by_watching(watched):
    """Contributors as in ``contributions``, all called ``history`` by another name where nobody watched."""

    def bring(step, param, *, number=0):
        parts = contributions(step, param, number=number)
        return parts if watched(step) else {"unseen": summed(parts)}

    return bring


def assert_explains(seen, reference):
    """Same parts as a run that watched every step, where ``history`` is what came while nobody watched."""
    for ours, theirs in zip(seen, reference, strict=True):
        parts = dict(ours.split.parts)
        if "history" in parts:
            parts["unseen"] = parts.pop("history")
        scale = max(p.abs().max() for p in theirs.split.parts.values())
        assert set(parts) == set(theirs.split.parts)
        for name, part in theirs.split.parts.items():
            if name != "rounding":
                assert (parts[name] - part).abs().max() <= 1e-12 * scale, name


def test_nothing_is_history_from_the_first_step_on(family):
    steps = training(family).run(20)
    assert all("history" not in seen.split.parts for step in steps for seen in step)
    assert all("history" not in seen.split.note for step in steps for seen in step)


def test_attached_late_the_past_is_history_and_fades(family):
    late, reference = training(family), training(family)
    reference.bring = named_by_watching(lambda step: step >= 10)
    for step in range(40):
        seen, expected = late.advance(watched=step >= 10), reference.advance()
        if step >= 10:
            assert_explains(seen, expected)
            assert "history" in seen[0].split.parts
            assert "not watched" in seen[0].split.note


def test_history_fades_by_the_optimizers_own_factor():
    run = training(next(f for f in FAMILIES if f.name == "SGD"))
    for _ in range(3):
        run.advance(watched=False)
    buffer = run.optimizer.state[run.params[0]]["momentum_buffer"].clone()
    for count in range(1, 6):
        part = run.advance()[0].split.parts["history"]
        assert torch.allclose(part, -0.3 * 0.9**count * buffer, rtol=1e-12)


def test_history_is_dropped_when_it_has_faded_to_nothing():
    run = training(next(f for f in FAMILIES if f.name == "SGD"), dtype=torch.float32)
    run.advance(watched=False)
    needed = math.ceil(math.log(torch.finfo(torch.float32).tiny) / math.log(0.9))
    steps = run.run(needed + 1)
    assert "history" in steps[needed - 2][0].split.parts
    assert "history" not in steps[needed][0].split.parts
    assert steps[needed][0].split.note == ""
    assert_conserved(steps, rule="SGD")


@pytest.mark.parametrize("every", [2, 5])
def test_unwatched_steps_in_between(family, every):
    """A contributor keeps what is left of what it brought; what came meanwhile is history."""
    watched = training(family)
    reference = training(family)
    reference.bring = named_by_watching(lambda step: step % every == 0)
    steps = []
    for step in range(30):
        seen, expected = watched.advance(watched=step % every == 0), reference.advance()
        if step % every == 0:
            assert_explains(seen, expected)
            steps.append(seen)
    if family.name != "Muon":
        assert_conserved(steps, rule=family.name)


def test_a_step_without_a_gradient_is_no_step(family):
    """A parameter that the unwatched step left alone has lost nothing of its momentum."""
    run = training(family)
    run.run(3)
    for param in run.params:
        param.grad = None
    run.optimizer.step()
    run.splitter.unwatched()
    assert all("history" not in seen.split.parts for seen in run.advance())


def test_an_announced_step_counts_even_if_nothing_shows_it():
    """Fused SGD leaves no version on its buffers."""
    run = training(next(f for f in FAMILIES if f.name == "SGD"), fused=True)
    run.run(3)
    run.advance(watched=False)
    seen = run.advance()
    assert "history" in seen[0].split.parts
    assert_conserved([seen], rule="SGD")


def test_a_loaded_state_is_history(family):
    run = training(family)
    run.run(3)
    saved = copy.deepcopy(run.optimizer.state_dict())
    run.run(3)
    run.optimizer.load_state_dict(saved)
    seen = run.advance()
    assert "loaded" in seen[0].split.note
    assert set(seen[0].split.parts) >= {"history", "anchor", "positive", "negative"}
    if family.name != "Muon":
        assert_conserved([seen], rule=family.name)


def test_loading_a_state_keeps_nothing_of_the_momentum_before():
    """SGD, by hand: the loaded buffer is all history, the contributors start anew."""
    run = training(next(f for f in FAMILIES if f.name == "SGD"))
    run.run(2)
    saved = copy.deepcopy(run.optimizer.state_dict())
    run.run(2)
    run.optimizer.load_state_dict(saved)
    loaded = run.optimizer.state[run.params[0]]["momentum_buffer"].clone()
    seen = run.advance()[0]
    assert torch.allclose(seen.split.parts["history"], -0.3 * 0.9 * loaded)
    assert torch.allclose(seen.split.parts["anchor"], -0.3 * seen.contributions["anchor"])


def test_loading_its_own_state_changes_nothing(family):
    run = training(family)
    run.run(3)
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    assert all("history" not in seen.split.parts for seen in run.advance())


def test_momentum_edited_in_place_is_history():
    run = training(next(f for f in FAMILIES if f.name == "Adam"))
    run.run(3)
    for state in run.optimizer.state.values():
        state["exp_avg"].mul_(0.5)
    seen = run.advance()
    assert "changed from outside" in seen[0].split.note
    assert_conserved([seen], rule="Adam")


@pytest.mark.parametrize("way", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_a_step_that_nobody_announced_is_noticed(way):
    run = training(next(f for f in FAMILIES if f.name == "Adam"), **way)
    run.run(3)
    run.brought()
    run.optimizer.step()
    seen = run.advance()
    assert "history" in seen[0].split.parts
    assert_conserved([seen], rule="Adam")


def test_a_state_that_was_cleared_starts_anew(family):
    run = training(family)
    run.run(3)
    run.optimizer.state.clear()
    seen = run.advance()
    assert all("history" not in s.split.parts for s in seen)
    if family.name != "Muon":
        assert_conserved([seen], rule=family.name)


def test_a_step_that_failed_halfway_leaves_no_wrong_momentum():
    run = training(next(f for f in FAMILIES if f.name == "SGD"), fused=True)
    run.run(3)
    for param, parts in run.brought().items():
        run.splitter.before(param, parts)
    run.optimizer.step()  # and no `after`
    assert_conserved([run.advance()], rule="SGD")


@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_momentum_may_be_switched_off_and_on(name):
    """Meanwhile the optimizer leaves its buffer as it is, and so do we."""
    run = training(next(f for f in FAMILIES if f.name == name))
    steps = run.run(3)
    for momentum in (0.0, 0.0, 0.5, 0.9):
        run.optimizer.param_groups[0]["momentum"] = momentum
        steps.append(run.advance())
    assert_conserved(steps, rule=name)
    assert all("history" not in seen.split.parts for step in steps for seen in step)


def test_a_branch_long_gone_ends_in_history():
    """Names that come once would otherwise each keep a buffer for ever."""

    def once(step, param, *, number=0):
        return {f"branch {step}": torch.randn(param.shape, dtype=param.dtype)}

    run = training(next(f for f in FAMILIES if f.name == "SGD"), dtype=torch.float32)
    run.bring = once
    steps = run.run(400)
    buffers = run.splitter.memory_bytes() / sum(p.numel() * p.element_size() for p in run.params)
    assert buffers <= 1 + math.ceil(math.log(torch.finfo(torch.float32).eps) / math.log(0.9)) + 1
    assert "long been absent" in steps[-1][0].split.note
    assert_conserved(steps, rule="SGD")


@settings(max_examples=25, deadline=None)
@given(
    pattern=st.lists(st.sampled_from(["watch", "skip", "load", "clear", "forget"]), min_size=3, max_size=20),
    name=st.sampled_from(sorted(set(WITH_MOMENTUM) - {"Muon"})),
)
def test_whatever_happens_the_parts_sum_to_the_delta(pattern, name):
    family = next(f for f in FAMILIES if f.name == name)
    run = training(family)
    run.bring = lambda step, param, number=0: dict(
        list(contributions(step, param, number=number).items())[: 1 + (step + number) % 3]
    )
    saved, steps = None, []
    for action in pattern:
        if action == "load" and saved is not None:
            run.optimizer.load_state_dict(copy.deepcopy(saved))
        elif action == "clear":
            run.optimizer.state.clear()
        elif action == "forget":
            run.brought()
            run.optimizer.step()
        elif action == "skip":
            run.advance(watched=False)
        saved = copy.deepcopy(run.optimizer.state_dict())
        steps.append(run.advance())
    assert_conserved(steps, rule=name)

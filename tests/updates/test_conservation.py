"""Law 2: the parts of a step sum to the delta, for every rule and its options."""

import sys

import pytest
import torch

from tests.updates.cases import BASE_LR, FAMILIES, cases, make
from tests.updates.training import Training, assert_conserved, clipped, parameters

STEPS = 200


def scheduled(case, optimizer):
    if not case.schedule:
        return None
    if case.schedule == "exponential":
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, case.family.lr, total_steps=STEPS + 1, cycle_momentum=True
        )
    return lambda _training: scheduler.step()


@pytest.mark.parametrize("case", cases(), ids=str)
def test_parts_sum_to_the_delta(case):
    optimizer = make(case.family, case.options, parameters(case.dtype, case.family.shapes))
    training = Training(optimizer, edit=clipped if case.clip else None, after_step=scheduled(case, optimizer))
    assert_conserved(training.run(STEPS), rule=case.family.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_groups_have_options_of_their_own(family, dtype):
    first, second = parameters(dtype, family.shapes[:2])
    options = {name: values[-1] for name, values in family.options.items() if name == "weight_decay"}
    groups = [{"params": [first], "lr": family.lr / 10}, {"params": [second], **options}]
    optimizer = family.optimizer(groups, lr=family.lr)
    training = Training(optimizer)
    steps = training.run(STEPS // 2)
    third = parameters(dtype, family.shapes[:1])[0]
    optimizer.add_param_group({"params": [third], "lr": family.lr / 2})
    steps += training.run(STEPS // 2)
    assert len(steps[-1]) == 3
    assert_conserved(steps, rule=family.name)


CAPTURABLE = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adadelta", "ASGD")
DIFFERENTIABLE = (*CAPTURABLE, "SGD", "Adagrad")


def chosen(names):
    return [family for family in FAMILIES if family.name in names]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("family", chosen(CAPTURABLE), ids=lambda family: family.name)
def test_capturable_steps_count_in_tensors(family, foreach, dtype, monkeypatch):
    """The counters stay on the device, in its precision; torch allows it on accelerators alone."""
    name = "torch.optim.adam" if family.name == "AdamW" else family.optimizer.__module__
    monkeypatch.setattr(sys.modules[name], "_get_capturable_supported_devices", lambda **_: ["cpu"])
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        params = parameters(dtype, family.shapes)
        optimizer = family.optimizer(params, lr=family.lr, capturable=True, foreach=foreach)
        steps = Training(optimizer).run(STEPS)
    finally:
        torch.set_default_dtype(before)
    assert_conserved(steps, rule=family.name)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("family", chosen(CAPTURABLE), ids=lambda family: family.name)
def test_float64_parameters_under_float32_counters(family, foreach, monkeypatch):
    """torch rounds the schedule to float32, and not all its ways in one order: hence float32's law."""
    name = "torch.optim.adam" if family.name == "AdamW" else family.optimizer.__module__
    monkeypatch.setattr(sys.modules[name], "_get_capturable_supported_devices", lambda **_: ["cpu"])
    params = parameters(torch.float64, family.shapes)
    optimizer = family.optimizer(params, lr=family.lr, capturable=True, foreach=foreach)
    assert_conserved(Training(optimizer).run(STEPS), rule=family.name, tolerance=1e-6)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_float64_parameters_under_a_float32_learning_rate(family):
    params = parameters(torch.float64, family.shapes)
    optimizer = family.optimizer(params, lr=torch.tensor(family.lr))
    assert_conserved(Training(optimizer).run(STEPS), rule=family.name, tolerance=1e-6)


@pytest.mark.parametrize("family", chosen(DIFFERENTIABLE), ids=lambda family: family.name)
def test_differentiable_steps(family):
    params = [p.requires_grad_(False) for p in parameters(torch.float32, family.shapes)]
    optimizer = family.optimizer(params, lr=family.lr, differentiable=True)
    assert_conserved(Training(optimizer).run(STEPS), rule=family.name)


@pytest.mark.parametrize("way", [{"foreach": False}, {"fused": True}])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_betas_may_be_tensors(optimizer, way):
    """A tensor beta is raised to the step's power in its own precision: 1 - 0.999 leaves few digits."""
    betas = (torch.tensor(0.9), torch.tensor(0.999))
    training = Training(optimizer(parameters(), lr=BASE_LR, betas=betas, **way))
    assert_conserved(training.run(STEPS), rule=optimizer.__name__)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name != "Muon"], ids=lambda family: family.name)
def test_parameters_without_dimensions(family):
    """A momentum that passes through zero keeps the rounding of its past: so measure against all steps."""
    optimizer = family.optimizer(parameters(shapes=((), (1,))), lr=family.lr)
    steps = Training(optimizer).run(STEPS)
    for number in range(2):
        every = [step[number] for step in steps]
        largest = max(sum(p.abs() for p in seen.split.parts.values()).max() for seen in every)
        for seen in every:
            parts = seen.split.parts
            assert all(p.shape == seen.param.shape and p.dtype == seen.param.dtype for p in parts.values())
            off = (sum(parts.values()) - seen.delta).abs() - 2 * 1.2e-7 * seen.theta.abs()
            assert off.max() <= 1e-6 * largest


COMPLEX = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD")


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("family", chosen(COMPLEX), ids=lambda family: family.name)
def test_complex_parameters(family, foreach):
    params = parameters(torch.complex128, family.shapes)
    training = Training(family.optimizer(params, lr=family.lr, weight_decay=0.1, foreach=foreach))
    for step in training.run(STEPS):
        for seen in step:
            parts = seen.split.parts.values()
            off = (sum(parts) - seen.delta).abs() - 4e-16 * seen.theta.abs()
            assert all(p.dtype == torch.complex128 and p.shape == seen.param.shape for p in parts)
            assert off.max() <= 1e-14 * sum(p.abs() for p in parts).max()

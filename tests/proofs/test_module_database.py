"""The laws over PyTorch's own modules: each called three times, as three branches, in float64.

Every module that has parameters, in training and in evaluation, with every input that PyTorch ships
to test it. The oracle gives every branch leaves of its own and shares no code with capture.
"""

import copy

import numpy as np
import pytest
import torch

import gradflow
from tests import laws
from tests.proofs.module_cases import NAMES, cases_of, database, tensors_in, weighed

MODULES = {
    "BatchNorm1d": 5, "BatchNorm2d": 5, "BatchNorm3d": 5, "Conv1d": 4, "Conv2d": 4, "Conv3d": 4,
    "ConvTranspose1d": 2, "ConvTranspose2d": 2, "ConvTranspose3d": 2, "LazyConv1d": 4, "LazyConv2d": 4,
    "LazyConv3d": 4, "LazyConvTranspose1d": 2, "LazyConvTranspose2d": 2, "LazyConvTranspose3d": 2,
    "Linear": 3, "Bilinear": 3, "LinearCrossEntropyLoss": 857, "GroupNorm": 6, "InstanceNorm1d": 2,
    "InstanceNorm2d": 2, "InstanceNorm3d": 2, "LayerNorm": 5, "RMSNorm": 4, "TransformerEncoder": (39, 35),
    "TransformerEncoderLayer": (39, 35), "TransformerDecoderLayer": 67, "Transformer": 64,
    "MultiheadAttention": 64, "Embedding": 2, "PReLU": 8, "RNNCell": 3, "GRUCell": 2, "LSTMCell": 2,
    "RNN": 32, "GRU": 16, "LSTM": 32,
}  # fmt: skip
"""Cases that PyTorch ships for each module with parameters, in training and again in evaluation."""
if not hasattr(torch.nn, "LinearCrossEntropyLoss"):  # it came with torch 2.13
    del MODULES["LinearCrossEntropyLoss"]
MODES = {"training": True, "evaluation": False}
SKIPS = {}
"""Cases that are not held to the laws, by what their description begins with, and why; none is."""


def run(module, calls, *, call):
    """Three calls and the backward of their weighed outputs, always under the same random state."""
    torch.manual_seed(3)
    outputs = [
        call(name, module, copy.deepcopy(args), copy.deepcopy(kwargs))
        for name, (args, kwargs) in zip(NAMES, calls, strict=True)
    ]
    return outputs, weighed(outputs)


def plainly(_name, module, args, kwargs):
    return module(*args, **kwargs)


def in_branch(name, module, args, kwargs):
    with gradflow.branch(name):
        return module(*args, **kwargs)


def trained(case, *, call, watched):
    """One backward of a copy; gives everything it leaves, and the step that was recorded."""
    module, step = copy.deepcopy(case.module), None
    if not watched:
        outputs, loss = run(module, case.calls, call=call)
        loss.backward()
    else:
        before = laws.hook_counts(module)
        with gradflow.watch(module, branches=NAMES if call is plainly else None, keep="tensors") as flow:
            outputs, loss = run(module, case.calls, call=call)
            loss.backward()
            flow.step()
        step = flow.recording.last
        assert laws.hook_counts(module) == before
    return laws.state_of(module, [], [loss, *tensors_in(outputs)]), step


def alias_oracle(case):
    """Every branch with leaves of its own that alias the parameters."""
    module, leaves = copy.deepcopy(case.module), {}

    def with_leaves(name, module, args, kwargs):
        leaves[name] = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
        return torch.func.functional_call(module, leaves[name], args, kwargs)

    _, loss = run(module, case.calls, call=with_leaves)
    wanted = [leaf for own in leaves.values() for leaf in own.values()]
    found = iter(torch.autograd.grad(loss, wanted, allow_unused=True))
    return {name: {fqn: next(found) for fqn in own} for name, own in leaves.items()}


def assert_laws(case, truth, plain, *, call):
    state, step = trained(case, call=call, watched=True)
    laws.assert_bitwise_equal(state, plain)
    laws.assert_gradient_conserved(step)
    assert step.branches == NAMES
    reached = {fqn for own in truth.values() for fqn, grad in own.items() if grad is not None}
    assert set(step.params) == reached
    for p in step:
        for name in NAMES:
            expected = truth[name][p.fqn]
            assert (name in p.absent) == (expected is None)
            if expected is not None:
                np.testing.assert_array_equal(p.contribution(name), expected.numpy(), err_msg=p.fqn)


def count_of(module, mode):
    count = MODULES[module]
    return count if isinstance(count, int) else count[list(MODES).index(mode)]


def assert_laws_for_every_case(module, mode, call):
    cases = list(cases_of(f"nn.{module}", training=MODES[mode]))
    assert len(cases) == count_of(module, mode)
    for case in cases:
        if any(case.described.startswith(skipped) for skipped in SKIPS):
            continue
        truth = alias_oracle(case)
        plain, _ = trained(case, call=plainly, watched=False)
        try:
            assert_laws(case, truth, plain, call=call)
        except AssertionError as error:
            raise AssertionError(f"{case.described}: {error}") from error


@pytest.mark.filterwarnings("ignore:linear_cross_entropy")
@pytest.mark.parametrize(("mode", "call"), [("training", in_branch), ("evaluation", plainly)])
@pytest.mark.parametrize("module", MODULES)
def test_laws_hold_for_every_case_of_a_module(module, mode, call):
    assert_laws_for_every_case(module, mode, call)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:linear_cross_entropy")
@pytest.mark.parametrize(("mode", "call"), [("training", plainly), ("evaluation", in_branch)])
@pytest.mark.parametrize("module", MODULES)
def test_laws_hold_the_other_way_round(module, mode, call):
    assert_laws_for_every_case(module, mode, call)


def test_every_module_with_parameters_takes_part():
    known = database()
    assert {f"nn.{module}" for module in MODULES} <= set(known)
    for name in known.keys() - {f"nn.{module}" for module in MODULES}:
        assert next(cases_of(name, training=True), None) is None, f"{name} has parameters"
    cases = 2602 if "LinearCrossEntropyLoss" in MODULES else 888
    assert sum(count_of(module, mode) for module in MODULES for mode in MODES) == cases


def test_skipped_cases_exist_and_have_a_reason():
    for skipped, reason in SKIPS.items():
        known = [case.described for case in cases_of(skipped.split()[0], training=True)]
        assert any(described.startswith(skipped) for described in known), skipped
        assert len(reason.split()) > 3, f"{skipped}: {reason}"

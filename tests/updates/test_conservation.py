"""Law 2: the parts of a step sum to the delta, for every rule and its options."""

import pytest
import torch

from tests.updates.training import Training, assert_conserved, parameters

STEPS = 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.SGD, {}),
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (torch.optim.Adam, {"weight_decay": 0.1, "amsgrad": True}),
        (torch.optim.AdamW, {}),
    ],
)
def test_parts_sum_to_the_delta(optimizer, options, dtype):
    steps = Training(optimizer(parameters(dtype), lr=0.01, **options)).run(STEPS)
    assert_conserved(steps, rule=optimizer.__name__)

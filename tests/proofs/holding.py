"""What the tests of single pitfalls share: three calls of one encoder, a loss, and an exact comparison."""

import numpy as np
import torch

import gradflow
from tests import laws
from tests.capture.test_branches import triplet

__all__ = ["NAMES", "assert_exact", "batches", "loss_of", "recorded", "truth_of"]

NAMES = ("anchor", "positive", "negative")


def batches(*shape, dtype=torch.float32, count=3):
    """Inputs of the branches, always the same."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]


def loss_of(*outputs):
    """A triplet loss over whatever shape the outputs have."""
    return triplet(*(out.flatten(1) for out in outputs))


def recorded(net, loss, **options):
    """Watch one backward of ``loss()``; gives the step."""
    with gradflow.watch(net, **{"branches": NAMES, "keep": "tensors", **options}) as flow:
        loss().backward()
        flow.step()
    return flow.recording.last


def truth_of(net, inputs, loss=loss_of):
    """The alias oracle, on a copy: every branch has leaves of its own."""
    twin = laws.clean_copy(net)
    calls = {name: x if isinstance(x, tuple) else (x,) for name, x in zip(NAMES, inputs, strict=False)}
    return laws.leaf_aliases(twin, calls, lambda out: loss(*out.values()))


def assert_exact(step, truth, tolerance=0.0):
    """Law 1, and every contribution is the oracle's: bit for bit, or to a fraction of the largest entry."""
    laws.assert_gradient_conserved(step)
    for p in step:
        found = {name: own[p.fqn] for name, own in truth.items() if own.get(p.fqn) is not None}
        expected = {name: _array(gradient) for name, gradient in found.items()}
        assert set(p.contributors) - {"rounding"} == set(expected)
        scale = max(np.abs(e).max() for e in expected.values())
        for name, e in expected.items():
            allowed = {"atol": tolerance * scale, "rtol": 0.0, "err_msg": f"{name} of {p.fqn}"}
            np.testing.assert_allclose(p.contribution(name), e, **allowed)


def _array(gradient):
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return dense.float().numpy() if dense.dtype in (torch.bfloat16, torch.float16) else dense.numpy()

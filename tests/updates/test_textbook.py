"""Each part against an oracle of its own: the textbook's formulas in numpy, float64."""

import numpy as np
import pytest
import torch

from tests.updates import textbook
from tests.updates.cases import FAMILIES, pairwise
from tests.updates.training import Training, parameters

STEPS = 25
TORCH_OWN = ("way", "lr")  # how torch runs it; the textbook does not know


@pytest.fixture(autouse=True)
def _counters_in_double():
    """Some schedules are kept in tensors of the default dtype; the oracle keeps them in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def bring(step, param, *, number=0):
    """Contributors that stay, come late, leave early, skip steps, and one that brings zeros."""
    generator = torch.Generator().manual_seed(1000 * step + number)
    there = {
        "stays": True,
        "late": step >= 4,
        "early": step < 7,
        "now and then": step % 3 == 0,
        "zeros": True,
    }
    drawn = {name: torch.randn(param.shape, generator=generator, dtype=param.dtype) for name in there}
    drawn["zeros"] = torch.zeros_like(param)
    return {name: drawn[name] for name, present in there.items() if present}


def as_arrays(steps, number):
    return [{n: g.numpy() for n, g in step[number].contributions.items()} for step in steps]


def valid(row):
    return not row.get("nesterov") or (row["momentum"] > 0 and not row.get("dampening", 0.0))


def rows():
    own = [{k: v for k, v in f.options.items() if k not in TORCH_OWN} for f in FAMILIES]
    return [(f, row) for f, axes in zip(FAMILIES, own, strict=True) for row in pairwise(axes, valid)]


def name_of(value):
    return value.name if hasattr(value, "name") else "-".join(f"{k}={v}" for k, v in value.items() if v)


def assert_parts(steps, expected, number, tolerance):
    for step, parts in zip(steps, expected, strict=True):
        split = step[number].split
        ours = {n: p.numpy() for n, p in split.parts.items() if n != "rounding"}
        assert set(ours) <= set(parts)
        assert all(not parts[name].any() for name in set(parts) - set(ours))  # forgotten: beta1 = 0
        scale = max(np.abs(p).max() for p in parts.values())
        for name, part in ours.items():
            assert np.abs(part - parts[name]).max() <= tolerance * scale, name


@pytest.mark.parametrize(("family", "options"), rows(), ids=name_of)
def test_each_part_is_the_textbook_s(family, options):
    params = parameters(torch.float64, family.shapes)
    starts = [p.detach().clone().numpy() for p in params]
    steps = Training(family.optimizer(params, lr=family.lr, **options), bring=bring).run(STEPS)
    oracle = getattr(textbook, family.name.lower())
    for number, start in enumerate(starts):
        expected = oracle(start, as_arrays(steps, number), lr=family.lr, **options)
        tolerance = 0.15 if family.name == "Muon" else 1e-10  # Muon iterates in bfloat16
        assert_parts(steps, list(expected), number, tolerance)


@pytest.mark.parametrize("maximize", [False, True])
def test_sparse_adam_rests_where_the_gradient_names_nothing(maximize):
    options = {"lr": 0.3, "betas": (0.9, 0.99), "eps": 1e-8, "maximize": maximize}
    table = torch.nn.Parameter(torch.zeros(6, 2))
    touched = [[0, 1, 1], [2], [1, 4], [], [0, 0, 5], [1]]

    def sparse(step, param, *, number=0):
        generator = torch.Generator().manual_seed(step)
        rows_of = torch.tensor(touched[step], dtype=torch.int64)
        values = torch.randn(2, len(rows_of), 2, generator=generator)
        return {
            name: torch.sparse_coo_tensor(rows_of[None], values[i], param.shape, check_invariants=False)
            for i, name in enumerate(("text", "image"))
        }

    training = Training(torch.optim.SparseAdam([table], **options), bring=sparse)
    steps = training.run(len(touched))
    brought = [{n: g.to_dense().numpy() for n, g in s[0].contributions.items()} for s in steps]
    expected = list(textbook.sparse_adam(np.zeros((6, 2)), brought, touched, **options))
    assert_parts(steps, expected, 0, 1e-12)
    for step, named in zip(steps, touched, strict=True):
        others = [row for row in range(6) if row not in named]
        assert all((part[others] == 0).all() for part in step[0].split.parts.values())

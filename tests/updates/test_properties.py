"""What must hold of any split, whatever the optimizer: it is linear in what the contributors bring."""

import pytest
import torch

from tests.updates.cases import FAMILIES
from tests.updates.training import Training, contributions, parameters

STEPS = 30


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request):
    return request.param


def run(family, bring, *, dtype=torch.float32, **options):
    params = parameters(dtype, family.shapes)
    weight_decay = {"weight_decay": 0.1} if "weight_decay" in family.options else {}
    return Training(family.optimizer(params, lr=family.lr, **weight_decay, **options), bring=bring).run(STEPS)


def pairs(first, second):
    """Splits of the same parameter in the same step of two runs, which must have moved alike."""
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.delta, b.delta)
            yield a.split.parts, b.split.parts


def same(a, b, *, summands):
    """Equal up to the rounding of what was summed."""
    return (a - b).abs().max() <= 2e-6 * max(part.abs().max() for part in summands)


def two(step, param, *, number=0):
    """Two contributors whose sum is the same, bit for bit, in either order."""
    parts = contributions(step, param, ("a", "b"), number=number)
    return {name: (g * 64).round() / 64 for name, g in parts.items()}


def test_swapping_two_contributors_swaps_their_parts(family):
    def swapped(step, param, *, number=0):
        given = two(step, param, number=number)
        return {"a": given["b"], "b": given["a"]}

    for parts, other in pairs(run(family, two), run(family, swapped)):
        assert torch.equal(parts["a"], other["b"])
        assert torch.equal(parts["b"], other["a"])


def test_renaming_and_reordering_change_nothing_else(family):
    def renamed(step, param, *, number=0):
        given = two(step, param, number=number)
        return {"second": given["b"], "first": given["a"]}

    for parts, other in pairs(run(family, two), run(family, renamed)):
        assert torch.equal(parts["a"], other["first"])
        assert torch.equal(parts["b"], other["second"])


def test_a_contributor_of_zeros_gets_exactly_zero(family):
    def with_zeros(step, param, *, number=0):
        return two(step, param, number=number) | {"dead": torch.zeros_like(param)}

    for parts, other in pairs(run(family, two), run(family, with_zeros)):
        assert not other["dead"].any()
        assert all(torch.equal(parts[name], other[name]) for name in parts if name != "rounding")


def test_halving_a_contributor_halves_its_part(family):
    def halved(step, param, *, number=0):
        given = two(step, param, number=number)
        return {"a1": given["a"] / 2, "a2": given["a"] / 2, "b": given["b"]}

    for parts, other in pairs(run(family, two), run(family, halved)):
        assert torch.equal(other["a1"] * 2, parts["a"])
        assert torch.equal(other["a1"], other["a2"])


def test_splitting_a_contributor_splits_its_part(family):
    def in_two(step, param, *, number=0):
        given = two(step, param, number=number)
        positive = given["a"].clamp(min=0)
        return {"plus": positive, "minus": given["a"] - positive, "b": given["b"]}

    for parts, other in pairs(run(family, two), run(family, in_two)):
        assert same(parts["a"], other["plus"] + other["minus"], summands=other.values())


def test_parts_scale_with_what_was_brought(family):
    """One brings twice the gradient, another takes it away once: their parts are 2 and -1 of the whole."""

    def whole(step, param, *, number=0):
        return {"all": two(step, param, number=number)["a"]}

    def twice_less_once(step, param, *, number=0):
        gradient = whole(step, param, number=number)["all"]
        return {"twice": 2 * gradient, "against": -gradient}

    for parts, other in pairs(run(family, whole), run(family, twice_less_once)):
        assert torch.equal(other["twice"], 2 * parts["all"])
        assert torch.equal(other["against"], -parts["all"])


def test_what_one_gives_to_another_moves_their_parts_alike(family):
    def given_away(step, param, *, number=0):
        given = two(step, param, number=number)
        moved = torch.ones_like(param) / 2
        return {"a": given["a"] + moved, "b": given["b"] - moved}

    for parts, other in pairs(run(family, two), run(family, given_away)):
        assert same(parts["a"] + parts["b"], other["a"] + other["b"], summands=other.values())


def test_minimizing_and_maximizing_mirror_each_other(family):
    if "maximize" not in family.options:
        pytest.skip("it cannot maximize")

    def mirrored(step, param, *, number=0):
        return {name: -g for name, g in two(step, param, number=number).items()}

    for parts, other in pairs(run(family, two), run(family, mirrored, maximize=True)):
        assert all(torch.equal(parts[name], other[name]) for name in parts)


def test_a_branch_that_stops_keeps_its_momentum(family):
    """Absent is as good as zero: the momentum it brought goes on moving the parameter."""

    def stops(step, param, *, number=0):
        given = two(step, param, number=number)
        return given if step < 5 else {"a": given["a"]}

    def zeros(step, param, *, number=0):
        given = two(step, param, number=number)
        return given if step < 5 else given | {"b": torch.zeros_like(param)}

    remembers = False
    for parts, other in pairs(run(family, stops), run(family, zeros)):
        if "b" in parts:
            assert torch.equal(parts["b"], other["b"])
        else:
            assert not other["b"].any()
        remembers = remembers or "b" in parts
    assert remembers


def test_foreach_and_fused_share_out_as_the_plain_step_does(family):
    ways = [way for way in family.options.get("way", ()) if way != "plain"]
    for way in ways:
        for one, other in zip(run(family, two), run(family, two, **{way: True}), strict=True):
            for a, b in zip(one, other, strict=True):
                scale = max(p.abs().max() for p in a.split.parts.values())
                for name, part in a.split.parts.items():
                    assert (part - b.split.parts[name]).abs().max() <= 1e-4 * scale

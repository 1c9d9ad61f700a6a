"""The article "Can two models share weights", its snippets and its claims."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from workbench import count, descend, number, pairs, percent, run

from gradflow.zoo import twins, two_models


def in_turn(fits: int = 30) -> list[Tensor]:
    """Train A on a batch, then B: the shared weight before and after each."""
    torch.manual_seed(0)
    a, b = models = two_models.dense()
    adams = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in models]
    kept = [a.shared.weight.detach().clone()]
    images_a, classes_a, images_b, classes_b = next(two_models.batches(0, 64))
    for model, adam, images, classes in (
        (a, adams[0], images_a, classes_a),
        (b, adams[1], images_b, classes_b),
    ):
        for _ in range(fits):
            loss = F.cross_entropy(model(images), classes)
            descend(loss, adam)
        kept.append(a.shared.weight.detach().clone())
    return kept


@number("E1")
def can_they_share() -> str:
    """Count the parameters that both models hold."""
    a, b = two_models.dense()
    common = {id(p) for p in a.parameters()} & {id(p) for p in b.parameters()}
    return f"A and B hold {len(common)} parameters in common, of {len(list(a.parameters()))} each"


@number("E2")
def linked_directly() -> str:
    """Assign one layer's weight to another, and train the one."""
    torch.manual_seed(0)
    one, other = nn.Linear(8, 8), nn.Linear(8, 8)
    other.weight = one.weight
    one(torch.ones(1, 8)).sum().backward()
    torch.optim.SGD(one.parameters(), lr=0.1).step()
    equal = torch.equal(one.weight, other.weight)
    distinct = len({id(p) for p in (*one.parameters(), *other.parameters())})
    return f"2 layers, {distinct} parameters; after a step of the one, the weights are equal: {equal}"


@number("E3")
def built_twice() -> str:
    """Build a layer twice from one recipe."""
    torch.manual_seed(0)
    one, other = nn.Linear(784, 64), nn.Linear(784, 64)
    equal = int((one.weight == other.weight).sum())
    return f"two layers of one recipe agree in {equal} of {one.weight.numel():,} weights"


@number("E4")
def reflected_in_the_other() -> str:
    """Train A, and see B's output on the same images."""
    torch.manual_seed(0)
    (a, b), (images, classes, others, _) = two_models.dense(), next(two_models.batches(0, 64))
    before = b(others).detach()
    F.cross_entropy(a(images), classes).backward()
    torch.optim.Adam(a.parameters(), lr=1e-3).step()
    moved = (b(others) - before).norm() / before.norm()
    return f"one step of A changes B's outputs by {percent(moved.item())}; B was not trained"


@number("E5")
def whose_delta() -> str:
    """Fit A, then B: what B does to A's loss on images that neither has seen."""
    torch.manual_seed(0)
    a, b = two_models.dense()
    images, classes, _, _ = next(two_models.batches(seed=7, size=400))
    of_a = []
    for model, at in ((a, 0), (b, 2)):
        adam = torch.optim.Adam(model.parameters(), lr=1e-3)
        for batch in islice(two_models.batches(at // 2, 64), 60):
            descend(F.cross_entropy(model(batch[at]), batch[at + 1]), adam)
        of_a.append(F.cross_entropy(a(images), classes).item())
    return f"A's loss: {of_a[0]:.2f} after fitting A, {of_a[1]:.2f} after fitting B"


@number("E6")
def moved_twice() -> str:
    """Tell how far each of the two fits moves the shared weight."""
    kept = in_turn()
    by_a, by_b = kept[1] - kept[0], kept[2] - kept[1]
    cosine = F.cosine_similarity(by_a.flatten(), by_b.flatten(), dim=0).item()
    assert abs(cosine) < 0.1
    return f"A moves it by {by_a.norm():.1f}, then B by {by_b.norm():.1f}, nearly at a right angle"


@number("E7")
def allclose_crashes() -> str:
    """Stack a kernel and a bias, as the article's last line does."""
    a, b = two_models.dense()
    of_a, of_b = ([p.detach().numpy() for p in m.shared.parameters()] for m in (a, b))
    try:
        np.allclose(of_a, of_b)
    except ValueError as error:
        return f"`ValueError: {str(error).split('. ')[0]}`"
    return "no error"


@number("E8")
def compares_with_itself() -> str:
    """Mend the check, ruin the weights, and see whether it notices."""
    a, b = two_models.dense()
    nn.init.constant_(a.shared.weight, float("inf"))
    same = torch.allclose(a.shared.weight, b.shared.weight)
    return f"with every weight set to infinity the mended check says {same}"


@number("E9")
def optimizers_differ() -> str:
    """Train together: one backward of both losses, and whose the shared layer's delta is."""
    shares = run("two_models").last.layer("0.shared").delta.shares
    return (
        f"together, in step 3: A {percent(shares['A'])}, B {percent(shares['B'])} of the shared layer's delta"
    )


@number("E10")
def fewer_weights() -> str:
    """Count weights with and without sharing."""
    a, b = two_models.dense()
    both = nn.ModuleList([a, b])
    return f"{count(both):,} weights instead of {count(a) + count(b):,}"


@number("E11")
def copied_afterwards() -> str:
    """Train two copies, each on its own image of a pair."""
    torch.manual_seed(0)
    network = twins.Twins()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    for batch in islice(pairs(), 20):
        loss, _ = twins.loss(network, batch)
        descend(loss, optimizer)
    return f"two copies are {percent(twins.drift(network).item())} apart after 20 steps, one shared layer 0 %"


@number("E12")
def any_layer() -> str:
    """Hold the sum against `.grad` for a dense, a convolutional and a custom shared layer."""
    names = ("two_models", "two_models_conv", "two_models_custom")
    worst = max(p.residual for name in names for p in run(name).last)
    return f"dense, convolution, custom: largest difference {worst}"

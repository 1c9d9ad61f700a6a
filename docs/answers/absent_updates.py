"""The article "Why are parameter updates absent", its snippets and its claims."""

from __future__ import annotations

import functools
from itertools import islice

import torch
from torch.nn import functional as F
from workbench import descend, number, pairs, percent, run

import gradflow
from gradflow.recording import Step
from gradflow.zoo import contrastive


@functools.cache
def contrastive_runs() -> dict[str, dict[str, float]]:
    """Train the Siamese network by the formula and by the comment; distances before and after."""
    found = {}
    for name in ("formula", "comment"):
        torch.manual_seed(0)
        network = contrastive.SiameseNetwork()
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
        held_out = next(pairs(seed=99, size=200))
        before = contrastive.loss(network, held_out)[1]
        for left, right, dissimilar in islice(pairs(), 30):
            label = dissimilar if name == "formula" else 1 - dissimilar
            loss, _ = contrastive.loss(network, (left, right, label))
            descend(loss, optimizer)
        after = contrastive.loss(network, held_out)[1]
        found[name] = {k: v.item() for k, v in after.items()} | {
            f"{k}_0": v.item() for k, v in before.items()
        }
    return found


@functools.cache
def first_step() -> tuple[Step, float, float]:
    """Make one step as the article does: what it did, and the loss of its pairs before and after."""
    torch.manual_seed(0)
    network = contrastive.SiameseNetwork()
    optimizer, batch = torch.optim.Adam(network.parameters(), lr=1e-3), next(pairs())
    with gradflow.watch(network, optimizer, branches=("left", "right")) as flow:
        before, _ = contrastive.loss(network, batch)
        descend(before, optimizer)
    after, _ = contrastive.loss(network, batch)
    return flow.recording.last, before.item(), after.item()


@number("B1")
def not_absent() -> str:
    """Tell which parameters the first step moved."""
    step, _, _ = first_step()
    moved = [p for p in step if p.delta.norm > 0]
    largest = max(p.delta.relative for p in step)
    return f"{len(moved)} of {len(step)} parameters moved in step 1, by up to {100 * largest:.1f} %"


@number("B2")
def summed_or_averaged() -> str:
    """Compare `.grad` with the sum and with the average of both contributions."""
    p = run("contrastive")[0]["conv1.weight"]
    both = p.contribution("left") + p.contribution("right")
    equal = int((both == p.total).sum())
    ratio = (p.total.ravel() @ both.ravel()) / (both.ravel() @ both.ravel())
    return f"`.grad` is {ratio:.1f} × the sum; {equal} of {p.total.size} entries agree to the last bit"


@number("B3")
def delta_per_branch() -> str:
    """Split the first delta by branch."""
    delta = run("contrastive")[0]["conv1.weight"].delta
    left, right = (percent(delta.shares[name]) for name in ("left", "right"))
    assert delta.residual < 1e-6
    return f"left {left}, right {right}; the parts miss the delta by less than {1e-6:.0e}"


@number("B4")
def during_a_single_step() -> str:
    """See the same pairs before and after one step."""
    _, before, after = first_step()
    return f"one step, the same pairs: loss {before:.3f} to {after:.3f}"


@number("B5")
def reversed_label() -> str:
    """Follow the comment beside the label instead of the formula."""
    found = contrastive_runs()
    ratio = {name: found[name]["d_other"] / found[name]["d_same"] for name in found}
    return (
        f"distance of unlike over like pairs after 30 steps: {ratio['formula']:.1f} by the formula, "
        f"{ratio['comment']:.2f} by the comment"
    )


@number("B6")
def crashing_index() -> str:
    """Index every parameter as the article does."""
    crashed = []
    for name, param in contrastive.SiameseNetwork().named_parameters():
        try:
            param[0][0][0][0].item()
        except IndexError:
            crashed.append(name)
    return f"`IndexError` on {len(crashed)} of 4 parameters: {', '.join(f'`{name}`' for name in crashed)}"


@number("B7")
def clustered_at_first() -> str:
    """Measure an untrained network's distances."""
    found = contrastive_runs()["formula"]
    return (
        f"untrained, unlike pairs are already {found['d_other_0'] / found['d_same_0']:.2f} times as far apart"
    )


@number("B8")
def per_parameter_only() -> str:
    """Compare the norms of both contributions with that of their sum."""
    p = run("contrastive")[0]["conv1.weight"]
    left, right = p.norms["left"], p.norms["right"]
    return f"left {left:.3f} and right {right:.3f} leave {p.total_norm:.3f} in `.grad`"


@number("B9")
def per_pair() -> str:
    """Compute the gradient of every pair of a batch, and compare their mean with the batch's."""
    torch.manual_seed(0)
    network = contrastive.SiameseNetwork()
    left, right, dissimilar = next(pairs())
    weight = network.conv1.weight
    distances = F.pairwise_distance(*network(left, right))
    each = [
        torch.autograd.grad(contrastive.contrastive_loss(d[None], y[None]), weight, retain_graph=True)[0]
        for d, y in zip(distances, dissimilar, strict=True)
    ]
    (whole,) = torch.autograd.grad(contrastive.contrastive_loss(distances, dissimilar), weight)
    apart = (torch.stack(each).mean(dim=0) - whole).norm() / whole.norm()
    assert apart < 1e-5
    pulled = sum(bool(g.any()) for g in each)
    return f"{len(each)} pairs, {pulled} gradients that are not zero; their mean is `.grad` to {1e-5:.0e}"

"""The question about three ResNet-50 under a triplet loss: three networks, or one?"""

from __future__ import annotations

import copy
import itertools
from itertools import islice

import torch
from torch.nn import functional as F
from workbench import PATHS, count, dense, descend, number, percent, run, weights

from gradflow import zoo
from gradflow.zoo import triplet


@number("A1")
def back_along_three_paths() -> str:
    """Count the paths into each weight, and compare their sum with what the weight received."""
    step = run("triplet").last
    (uses,) = {len(p.uses) for p in step}
    return f"{len(step)} parameters, {uses} uses of each; largest difference {max(p.residual for p in step)}"


@number("A2")
def same_weights() -> str:
    """Count the weights of a network that is called three times, and of three networks."""
    with torch.device("meta"):
        one = count(zoo.scene("resnet50").build())
    return f"{one:,} weights for one ResNet-50, {3 * one:,} for three"


@number("A3")
def one_update() -> str:
    """Split the one update by path, to the nearest tenth: the next digit depends on the processor."""
    shares = run("triplet").last["fc.weight"].delta.shares
    parts = " + ".join(percent(round(shares[name], 1)) for name in PATHS)
    return f"about {parts}, and {percent(sum(shares.values()))} of one delta in all"


@number("A4")
def three_networks_drift() -> str:
    """Train three copies of one encoder, and tell how far they are apart."""
    first = dense()
    encoders = [first, copy.deepcopy(first), copy.deepcopy(first)]
    optimizer = torch.optim.Adam([p for e in encoders for p in e.parameters()], lr=1e-3)
    for images in islice(triplet.batches(0), 20):
        loss = F.triplet_margin_loss(*(e(x) for e, x in zip(encoders, images, strict=True)))
        descend(loss, optimizer)
    apart = (weights(encoders[0]) - weights(encoders[2])).norm() / weights(encoders[0]).norm()
    return f"anchor's and negative's copies are 0 % apart at first, {percent(apart.item())} after 20 steps"


@number("A5")
def same_image_thrice() -> str:
    """Give one image to all three calls."""
    encoder, image = dense(), next(triplet.batches(0))[0]
    outputs = [encoder(image) for _ in PATHS]
    return f"largest difference of three calls on one image: {(outputs[0] - outputs[2]).abs().max().item()}"


@number("A6")
def first_update() -> str:
    """Tell how far the first update moves the weights."""
    return (
        f"the first step moves the last layer by {100 * run('triplet')[0]['fc.weight'].delta.relative:.1f} %"
    )


@number("A7")
def parallel_or_sequential() -> str:
    """Add the three contributions in all six orders."""
    p = run("triplet").last["fc.weight"]
    tensors = [torch.from_numpy(p.contribution(name).copy()) for name in PATHS]
    sums = torch.stack([a + b + c for a, b, c in itertools.permutations(tensors)])
    spread = ((sums.max(dim=0).values - sums.min(dim=0).values).max() / sums[0].abs().max()).item()
    assert 0 < spread < 1e-6
    return f"6 orders, one sum: they differ by less than {1e-6:.0e} of the largest entry"


@number("A8")
def compile_line() -> str:
    """Let Python read the line that compiles the model."""
    line = "siamese_model.compile(loss=some_triplet_loss,optimizer=Adam(),metrics['acc'])"
    try:
        compile(line, "question", "exec")
    except SyntaxError as error:
        return f"`SyntaxError: {error.msg}`"
    return "it compiles"

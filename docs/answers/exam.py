"""The computed answers of the exam questions in ``docs/teaching.md``: small cases, run by PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from workbench import dense, descend, number, percent

import gradflow
from gradflow import metrics
from gradflow.record import ParamStep
from gradflow.zoo import triplet


def one_weight(weight: float, *inputs: float, lr: float = 0.1) -> ParamStep:
    """Watch one weight that is called for two numbers, whose products should be equal."""
    encoder = nn.Linear(1, 1, bias=False)
    nn.init.constant_(encoder.weight, weight)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=lr)
    with gradflow.watch(encoder, optimizer, branches=("left", "right"), keep="tensors") as flow:
        left, right = (encoder(torch.tensor([[x]])) for x in inputs)
        descend((left - right).square().sum(), optimizer)
    return flow.recording.last["weight"]


def gram(*rows: tuple[float, float]) -> metrics.Gram:
    """Give the inner products of contributions."""
    stacked = torch.tensor(rows, dtype=torch.float64)
    found: metrics.Gram = (stacked @ stacked.T).numpy()
    return found


@number("X1")
def two_calls() -> str:
    """Give both contributions of (w·1 − w·3)² at w = 2, and their sum."""
    p = one_weight(2.0, 1.0, 3.0)
    left, right = (p.contribution(name).item() for name in ("left", "right"))
    return f"{left:.0f} and {right:+.0f}, in sum {p.total.item():.0f}"


@number("X2")
def whose_step() -> str:
    """Give the move of the weight in X1, and the shares."""
    delta = one_weight(2.0, 1.0, 3.0).delta
    left, right = (percent(delta.shares[name]) for name in ("left", "right"))
    return f"it moves by {-delta.norm:.1f}; left {left}, right {right}"


@number("X3")
def right_angle() -> str:
    """Give length and cancellation of two gradients of 3 and 4 at a right angle."""
    g = gram((3.0, 0.0), (0.0, 4.0))
    return f"{metrics.total_norm(g):.0f}; {percent(metrics.cancellation(g))} is lost"


@number("X4")
def who_loses() -> str:
    """Tell of (1, 0) and (−0.5, 1) what conflicts and whose loss rises."""
    g = gram((1.0, 0.0), (-0.5, 1.0))
    rises = [name for name, row in zip("ab", g, strict=True) if row.sum() < 0]
    return f"conflict {metrics.conflict(g, 0, 1):.2f}; whose loss rises: {', '.join(rises) or 'nobody’s'}"


@number("X5")
def satisfied() -> str:
    """Give gradients of a triplet whose margin is met, and of a detached one."""
    points = [torch.tensor([[x, 0.0]], requires_grad=True) for x in (0.0, 0.3, 0.9)]
    triplet.triplet_loss(*points, margin=0.2)[0].backward()
    met = {bool(p.grad.any()) for p in points if p.grad is not None}
    fixed = [torch.tensor([[x, 0.0]], requires_grad=True) for x in (0.0, 0.3, 0.4)]
    triplet.triplet_loss(fixed[0], fixed[1], fixed[2].detach(), margin=0.2)[0].backward()
    zero = "zeros along all three paths" if met == {False} else "gradients"
    return f"{zero}; after detach the negative's is {fixed[2].grad}"


@number("X6")
def first_step_of_adam() -> str:
    """Give the first move of Adam for two gradients a thousand times apart."""
    moves = []
    for gradient in (0.001, 1.0):
        weight = nn.Parameter(torch.zeros(1))
        weight.grad = torch.tensor([gradient])
        torch.optim.Adam([weight], lr=0.01).step()
        moves.append(f"{weight.item():.4f}")
    return " and ".join(moves)


@number("X7")
def silent_path() -> str:
    """Tell what is left of a path's average after ten steps of silence."""
    average = 0.0
    for gradient in (1.0, *(0.0,) * 10):
        average = 0.9 * average + 0.1 * gradient
    return percent(average / 0.1)


@number("X8")
def back_through_ten_steps() -> str:
    """Watch a linear cell of spectral radius one half over eleven steps."""
    cell = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(cell.weight, 0.5)
    given = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    h: Tensor = torch.zeros(1, 1, dtype=torch.float64)
    with gradflow.watch(given, branches=[f"step {t}" for t in range(1, 12)]) as flow:
        for _ in range(11):
            h = cell(h) + given(torch.ones(1, 1, dtype=torch.float64))
        h.sum().backward()
        flow.step()
    norms = flow.recording.last["weight"].norms
    return f"1/{norms['step 11'] / norms['step 1']:.0f}"


@number("X9")
def both_step() -> str:
    """Let two optimizers hold one weight, and both step after one backward."""
    moves = []
    for holders in (1, 2):
        weight = nn.Parameter(torch.zeros(1))
        optimizers = [torch.optim.SGD([weight], lr=0.1) for _ in range(holders)]
        descend((2 * weight + weight).sum(), *optimizers)
        moves.append(f"{weight.item():.1f}")
    return f"{moves[1]}; one optimizer moves it by {moves[0]}"


@number("X10")
def repeated_batch() -> str:
    """Compare the gradient of a batch with that of the same batch twice over, under a mean."""
    encoder, images = dense(), next(triplet.batches(0))
    once, twice = (
        torch.autograd.grad(
            F.triplet_margin_loss(*(encoder(x.repeat(n, 1, 1, 1)) for x in images)), encoder.fc1.weight
        )[0].norm()
        for n in (1, 2)
    )
    return f"{(twice / once).item():.2f} times as long"

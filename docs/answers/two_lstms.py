"""The question about two LSTMs that share their weights, and its answer."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from workbench import count, number, pairs, percent, run

import gradflow
from gradflow.zoo import contrastive, siamese_lstm


@number("C1")
def two_lstms() -> str:
    """Count weights and uses of a Siamese LSTM."""
    step, network = run("siamese_lstm").last, siamese_lstm.SiameseLSTM()
    (uses,) = {len(p.uses) for p in step}
    return (
        f"{count(network):,} weights in {len(step)} tensors, not {2 * count(network):,}; {uses} uses of each"
    )


@number("C2")
def connected_at_the_end() -> str:
    """Tell how much of the sum came along each of the two paths that only meet in a distance."""
    whole = run("siamese_lstm").last.layer("")
    return f"left {percent(whole.share('left'))}, right {percent(whole.share('right'))} of the gradient"


@number("C3")
def both_print_the_same() -> str:
    """Give one sequence to one LSTM twice, and to two LSTMs of one recipe."""
    torch.manual_seed(0)
    one, other = siamese_lstm.LastState(), siamese_lstm.LastState()
    rows = next(pairs())[0].squeeze(1)
    again = (one(rows) - one(rows)).abs().max().item()
    apart = (one(rows) - other(rows)).norm() / one(rows).norm()
    return (
        f"one LSTM called twice: {again} apart; two LSTMs of the same recipe: {percent(apart.item())} apart"
    )


@number("C4")
def sum_of_the_gradients() -> str:
    """Take the largest difference between left + right and what each weight received."""
    worst = max(p.residual for p in run("siamese_lstm").last)
    return f"left + right against `.grad`, largest difference: {worst}"


@number("C5")
def any_loss() -> str:
    """Hold the sum against `.grad` under three losses."""
    worst = 0.0
    for loss in (
        contrastive.contrastive_loss,
        lambda d, y: d.mean(),
        lambda d, y: F.softplus((1 - 2 * y) * d).sum(),
    ):
        torch.manual_seed(0)
        network = siamese_lstm.SiameseLSTM()
        left, right, dissimilar = next(pairs())
        with gradflow.watch(network, branches=("left", "right")) as flow:
            loss(network(left, right), dissimilar).backward()
            flow.step()
        worst = max(worst, *(p.residual for p in flow.recording.last))
    return f"3 losses, largest difference {worst}"

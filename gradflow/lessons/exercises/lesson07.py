"""Exercise of lesson 7: an LSTM unrolled, so that each time step shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradflow.capture.recorder import watch
from gradflow.lessons.exercise import Exercise, Verdict, right, wrong
from gradflow.recording import Step
from gradflow.zoo import contrastive

__all__ = ["EXERCISES"]

_STEPS, _PIXELS, _HIDDEN = 28, 28, 16
_SAME = 1e-4  # relative; the fused kernel sums in another order


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    if isinstance(answer, nn.Module):
        return wrong(
            "This is a module.", "Hand in what makes it: the class Unrolled, or a function of an LSTM."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        lstm = nn.LSTM(_PIXELS, _HIDDEN, batch_first=True)
        module = answer(lstm)
    if not isinstance(module, nn.Module):
        return wrong(f"unrolled(lstm) gave {type(module).__name__}.", "It should give an nn.Module.")
    rows = next(contrastive.batches(seed=7, size=8))[0].squeeze(1)
    verdict = _same_numbers(module, lstm, rows)
    if verdict is not None:
        return verdict
    step, whole = _watched(module, rows), _gradient(lstm, rows)
    for look in (_one_cell, _every_step, _same_sum):
        verdict = look(step, whole)
        if verdict is not None:
            return verdict
    return right(
        f"The same numbers, and {_STEPS} uses of the recurrent weight instead of one; the sum is the same."
    )


def _last(lstm: nn.LSTM, rows: Tensor) -> Tensor:
    output: Tensor = lstm(rows)[0][:, -1]
    return output


def _same_numbers(module: nn.Module, lstm: nn.LSTM, rows: Tensor) -> Verdict | None:
    with torch.no_grad():
        given, wanted = module(rows), _last(lstm, rows)
    if not isinstance(given, Tensor) or given.shape != wanted.shape:
        shape = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
        return wrong(
            f"forward gave {shape} for {list(rows.shape)}; the last hidden state is {list(wanted.shape)}.",
            "Give h after the last row, for all sequences of the batch.",
        )
    apart = ((given - wanted).norm() / wanted.norm()).item()
    if apart < _SAME:
        return None
    values = {name: p.detach() for name, p in module.named_parameters()}
    copied = [n for n, p in lstm.named_parameters() if any(torch.equal(p, v) for v in values.values())]
    if not copied:
        return wrong(
            f"The outputs are {apart:.0%} apart.",
            "A cell of the same shape is not the same cell: yours has fresh random weights. Load the LSTM's.",
        )
    return wrong(
        f"The outputs are {apart:.0%} apart; of four parameters you took over {', '.join(copied)}.",
        "An LSTM has two weights and two biases, and each has its place in the cell.",
    )


def _watched(module: nn.Module, rows: Tensor) -> Step:
    with watch(module, branches=None) as flow:
        module(rows).sum().backward()
        flow.step()
    module.zero_grad()
    return flow.recording.last


def _gradient(lstm: nn.LSTM, rows: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(_last(lstm, rows).sum(), lstm.get_parameter("weight_hh_l0"))
    return gradient


def _one_cell(step: Step, whole: Tensor) -> Verdict | None:
    alike = [p for p in step if p.shape == tuple(whole.shape)]
    if len(alike) == 1:
        return None
    return wrong(
        f"There are {len(alike)} recurrent weights, each with a gradient of its own.",
        "A copy for each step is not an LSTM: it has one cell, called for every row. "
        "Copies compute the same until the first update, and then drift apart.",
    )


def _every_step(step: Step, whole: Tensor) -> Verdict | None:
    (recurrent,) = [p for p in step if p.shape == tuple(whole.shape)]
    if len(recurrent.uses) == _STEPS:
        return None
    if len(recurrent.uses) == 1 and recurrent.uses[0].node.endswith("RnnLayerBackward0"):
        return wrong(
            "The recurrent weight has one use.",
            "The LSTM is still called as a whole, and its kernel hides the steps. Call a cell for each row.",
        )
    return wrong(
        f"The recurrent weight has {len(recurrent.uses)} uses; {_STEPS} rows were read.",
        "Same numbers, but a path is cut: detach (or no_grad) between the rows lets no gradient "
        "go back in time.",
    )


def _same_sum(step: Step, whole: Tensor) -> Verdict | None:
    (recurrent,) = [p for p in step if p.shape == tuple(whole.shape)]
    apart = abs(recurrent.total_norm - whole.norm().item()) / whole.norm().item()
    if apart < _SAME:
        return None
    return wrong(
        f"All {_STEPS} steps contribute, but their sum is {apart:.0%} off the LSTM's gradient.",
        "Same numbers, another gradient: somewhere between the rows a detach cuts the way back in time.",
    )


EXERCISES = (
    Exercise(
        "07.unrolled",
        "Hand in Unrolled (or a function): given an nn.LSTM it makes a module that does the same by a cell.",
        _examine,
        (
            "Does your module give the numbers of the LSTM? Where would it have got its weights from?",
            "lstm.state_dict() has weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0; a cell "
            "has the names without _l0.",
            "In __init__: self.cell.load_state_dict({name.removesuffix('_l0'): value for name, value in "
            "lstm.state_dict().items()}).",
        ),
    ),
)

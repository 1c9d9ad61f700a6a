"""Exercise of lesson 3: see an update that seems to be absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong

__all__ = ["EXERCISES"]

_RATE = 0.5


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(1, 2, kernel_size=3), nn.Flatten(), nn.Linear(18, 3))
    before = {name: p.detach().numpy().copy() for name, p in network.named_parameters()}
    images = torch.rand(4, 1, 5, 5)

    def step() -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=_RATE)
        optimizer.zero_grad()
        network(images).square().sum().backward()
        optimizer.step()

    found = answer(network, step)
    changes = {name: p.detach().numpy() - before[name] for name, p in network.named_parameters()}
    if not isinstance(found, dict):
        return wrong(
            f"It gave {type(found).__name__}.", "Give a dict: name of the parameter → norm of its change."
        )
    return _missing(found, changes) or _compared(found, changes, network)


def _missing(found: dict[str, Any], changes: dict[str, Any]) -> Verdict | None:  # Any: numbers and arrays
    if not any(change.any() for change in changes.values()):
        return wrong("The network did not move at all.", "Call step() once, between the two looks.")
    absent = [name for name in changes if name not in found]
    if not absent:
        return None
    return wrong(
        f"There is nothing about {', '.join(absent)}.",
        "Biases move too. Compare whole tensors; then it does not matter how many dimensions they have.",
    )


def _compared(found: dict[str, Any], changes: dict[str, Any], network: nn.Module) -> Verdict:
    numbers = {name: float(found[name]) for name in changes}
    norms = {name: float(np.linalg.norm(change)) for name, change in changes.items()}
    if _near(numbers, norms):
        listed = ", ".join(f"{name} {norm:.2g}" for name, norm in norms.items())
        return right(f"All {len(norms)} parameters moved: {listed}.")
    if not any(numbers.values()):
        return wrong(
            "Yours says that nothing moved, but everything did.",
            "You kept the parameter itself, not its values: when it moves, yours moves with it. Copy.",
        )
    if _near(numbers, {name: norm / _RATE for name, norm in norms.items()}):
        return wrong(
            "These are the norms of the gradients.",
            "The optimizer reads the gradient; what it does to the weight is another matter (lesson 8).",
        )
    if _near({k: abs(x) for k, x in numbers.items()}, {n: float(abs(c.flat[0])) for n, c in changes.items()}):
        return wrong(
            "This is the change of the first number of each parameter.",
            "One number can stand still while the others move. Take the norm of the whole difference.",
        )
    name = max(norms, key=lambda n: abs(numbers[n] - norms[n]))
    said = f"{name}: you say {numbers[name]:.3g}, it moved by {norms[name]:.3g}."
    return wrong(said, "The norm of (after − before), for every parameter.")


def _near(one: dict[str, float], other: dict[str, float]) -> bool:
    return all(bool(np.isclose(one[name], other[name], rtol=1e-3, atol=1e-7)) for name in other)


EXERCISES = (
    Exercise(
        "03.moved",
        "Write moved(network, step), which calls step() once and gives the norm of each parameter's change.",
        _examine,
        (
            "Print the difference of what you kept and what is there now. Why is it zero, to the last bit?",
            "An optimizer changes a parameter in place. Whoever keeps p keeps the thing that changes.",
            "Keep p.detach().clone() for each name before step(); detach alone still shares the memory.",
        ),
    ),
)

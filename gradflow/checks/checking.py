"""``gradflow.check``: what can be seen of a model and its optimizers without training a step.

print(gradflow.check(model, optimizer))
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from gradflow.checks import layers, movers, sharing
from gradflow.checks.subject import read_subject
from gradflow.findings import Findings

__all__ = ["check"]


def check(
    model: nn.Module | Sequence[nn.Module], optimizer: Optimizer | Sequence[Optimizer] | None = None
) -> Findings:
    """Look at a model and its optimizers for what would make the paths of a training run not what they seem.

    Nothing is run and nothing is changed: only modules, parameters and parameter groups are read. What shows
    only in training is in ``step.findings`` and ``recording.findings()``.

    Args:
        model: The model that is trained, or a list of models that are trained together.
        optimizer: The optimizer, or a list of *all* optimizers that move the model; without any, nothing is
            said of what they hold.

    Returns:
        The findings, warnings first: each with the numbers and what to do. Empty if nothing was seen.

    Raises:
        InvalidArgumentError: an argument is no module or no optimizer.

    Example:
        >>> import copy, torch
        >>> left = torch.nn.Linear(3, 2)
        >>> pair = torch.nn.ModuleDict({"left": left, "right": copy.deepcopy(left)})
        >>> found = check(pair, torch.optim.SGD(left.parameters(), lr=0.1))
        >>> found.codes
        ('copies', 'not-optimized')
        >>> print(found[0].text)
        left and right are copies: equal weights (8 numbers in each), kept apart.
    """
    subject = read_subject(model, optimizer)
    found = [*sharing.findings(subject), *movers.findings(subject), *layers.findings(subject)]
    found += movers.left_over(subject)
    return Findings(sorted(found, key=lambda f: f.severity != "warning"), about=subject.title)

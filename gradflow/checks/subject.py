"""What is checked: the models, their modules and parameters under their names, and the optimizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from gradflow.errors import InvalidArgumentError

__all__ = ["Subject", "read_subject"]

_WHERE = "gradflow.check"


@dataclass(frozen=True, slots=True)
class Subject:
    """Models and optimizers that are checked together.

    Attributes:
        roots: The models by prefix: ``{"": model}``, or ``{"0": a, "1": b}`` for a list.
        optimizers: The optimizers; empty where none was given.
    """

    roots: Mapping[str, nn.Module]
    optimizers: tuple[Optimizer, ...] = ()

    @property
    def title(self) -> str:
        """Class names of the models and the optimizers, for a headline."""
        models = " and ".join(dict.fromkeys(type(root).__name__ for root in self.roots.values()))
        movers = " and ".join(dict.fromkeys(type(o).__name__ for o in self.optimizers))
        return f"{models} under {movers}" if movers else models

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Give every module once, with its first path; parents come before their children."""
        seen: set[int] = set()
        for prefix, root in self.roots.items():
            for path, module in root.named_modules(prefix=prefix):
                if id(module) not in seen:
                    seen.add(id(module))
                    yield path, module

    def parameters(self) -> dict[str, nn.Parameter]:
        """Give every parameter once, by its first name; what has no shape yet is left out."""
        seen: set[int] = set()
        found: dict[str, nn.Parameter] = {}
        for prefix, root in self.roots.items():
            for fqn, param in root.named_parameters(prefix=prefix):
                if id(param) not in seen and not isinstance(param, UninitializedParameter):
                    seen.add(id(param))
                    found[fqn] = param
        return found


def read_subject(
    model: nn.Module | Sequence[nn.Module], optimizer: Optimizer | Sequence[Optimizer] | None
) -> Subject:
    """Read the arguments of ``check``, which are those of ``watch``.

    Raises:
        InvalidArgumentError: neither a module nor a list of modules, or no optimizer.
    """
    models = [model] if isinstance(model, nn.Module) else list(model) if isinstance(model, Sequence) else []
    if not models or not all(isinstance(m, nn.Module) for m in models):
        raise InvalidArgumentError(
            f"{model!r:.80} is neither a module nor a list of modules",
            where=_WHERE,
            do="pass the model that you train, or [model_a, model_b]",
        )
    optimizers: list[object] = [] if optimizer is None else [optimizer]
    if isinstance(optimizer, Sequence):
        optimizers = list(optimizer)
    given = tuple(o for o in optimizers if isinstance(o, Optimizer))
    if len(given) != len(optimizers):
        stranger = next(o for o in optimizers if not isinstance(o, Optimizer))
        raise InvalidArgumentError(
            f"{stranger!r:.80} is no torch.optim.Optimizer",
            where=_WHERE,
            do="pass the optimizer, or a list of all optimizers that move this model",
        )
    roots = {"": models[0]} if isinstance(model, nn.Module) else {str(i): m for i, m in enumerate(models)}
    return Subject(roots, given)

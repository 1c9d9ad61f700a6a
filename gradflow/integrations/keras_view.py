"""A Keras model as gradflow's capture sees it: layers are modules with paths, variables parameters with FQNs.

On its torch backend every Keras layer is a ``torch.nn.Module`` and calls torch's hooks; but a model registers
none of its layers as children, and all its weights under one, so that walking it finds neither. A view gives
both under the names that a Keras user reads: ``conv1.kernel``, ``encoder.dense.bias``. It holds the models
and changes nothing on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

__all__ = ["KerasView", "trainable", "view_of"]

Layer = Any  # a keras.Layer, which is a torch.nn.Module on the torch backend; keras has no types
Variable = Any  # a keras.Variable


class KerasView(nn.Module):
    """One Keras model, or several that share layers, as one torch module.

    Args:
        models: The models; with several, every name begins with the name of its model.
    """

    def __init__(self, models: Sequence[Layer]) -> None:
        super().__init__()
        self._models = tuple(models)  # a tuple, so that torch takes none of them for a child

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Give every layer that has weights, with its path; one that two models share comes once for each."""
        yield from ((path, layer) for path, layer in self._layers() if layer.weights)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Give every trainable weight with its FQN; one that two models share comes once for each."""
        for path, layer in self._layers():
            for name, variable in _named(_own(layer)):
                yield f"{path}.{name}".lstrip("."), _parameter(variable)

    def _layers(self) -> Iterator[tuple[str, Layer]]:
        for model in self._models:
            yield from _walk(model, model.name if len(self._models) > 1 else "")


def view_of(models: Sequence[Layer]) -> KerasView:
    """Give a view whose class bears the models' names: what messages and paths call it by."""
    title = " and ".join(model.name for model in models)
    kind: type[KerasView] = type(title, (KerasView,), {})
    return kind(models)


def trainable(layer: Layer) -> list[nn.Parameter]:
    """Give the parameters of a layer's trainable variables, its sublayers' among them."""
    return [_parameter(variable) for variable in layer.trainable_variables]


def _walk(layer: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    """Give a layer and all below it, by the names of the layers."""
    yield path, layer
    children = layer._flatten_layers(include_self=False, recursive=False)
    for name, child in _named(children):
        yield from _walk(child, f"{path}.{name}".lstrip("."))


def _own(layer: Layer) -> list[Variable]:
    """Give the trainable variables of a layer that belong to none of its sublayers."""
    below = layer._flatten_layers(include_self=False, recursive=False)
    theirs = {id(variable) for child in below for variable in child.variables}
    return [variable for variable in layer.trainable_variables if id(variable) not in theirs]


def _named(things: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Give layers or variables with their names, counted where a name comes twice."""
    seen: dict[str, int] = {}
    for thing in things:
        count = seen[thing.name] = seen.get(thing.name, 0) + 1
        yield (thing.name if count == 1 else f"{thing.name}_{count}"), thing


def _parameter(variable: Variable) -> nn.Parameter:
    """Give the parameter itself: ``variable.value`` would be a cast of it inside a mixed-precision call."""
    parameter: nn.Parameter = variable._value
    return parameter

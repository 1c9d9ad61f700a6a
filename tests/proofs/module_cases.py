"""PyTorch's own modules with the inputs that PyTorch ships to test them, as three branches each.

The inputs come from ``torch.testing._internal.common_modules.module_db``, which is not public: it is
imported when first asked for, and what its import changes for the whole process is put back.
"""

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

NAMES = ("first", "second", "third")
SEEDS = (11, 12, 13)  # one for the inputs of each branch


@dataclass(frozen=True)
class Case:
    """One module and the inputs of three calls."""

    module: torch.nn.Module
    calls: tuple[tuple[tuple, dict], ...]
    described: str


@functools.cache
def database():
    """Every module of PyTorch's database, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    torch.backends.__allow_nonbracketed_mutation_flag = True
    return {info.name: info for info in module_db}


def cases_of(name, *, training):
    """Give every case of a module that has parameters to train."""
    info = database()[name]
    shipped = [_inputs(info, seed, training) for seed in SEEDS]
    for number, inputs in enumerate(zip(*shipped, strict=True)):
        made = inputs[0].constructor_input
        module = _build(info, made, inputs[0].forward_input).train(training)
        if not any(p.requires_grad for p in module.parameters()):
            continue
        calls = tuple((i.forward_input.args, i.forward_input.kwargs) for i in inputs)
        described = f"{name} {number} {inputs[0].desc} {made.args} {made.kwargs}"
        yield Case(module, calls, described)


def _build(info, made, first):
    """Build a module; a lazy one is given the shapes of its parameters by one call."""
    torch.manual_seed(0)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own advice on what its database builds
        module = info.module_cls(*made.args, **made.kwargs).to(torch.float64)
        if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
            module(*first.args, **first.kwargs)
    return module


def _inputs(info, seed, training):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return info.module_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=False, training=training
        )


def tensors_in(value: Any) -> list[Tensor]:
    """Give the tensors of nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def weighed(outputs):
    """Sum everything that a gradient can reach, each element with a random weight of its own."""
    generator = torch.Generator().manual_seed(7)
    reached = [t for t in tensors_in(outputs) if t.requires_grad and t.is_floating_point()]
    return sum((t * torch.rand(t.shape, generator=generator, dtype=t.dtype)).sum() for t in reached)

"""A device that is far away: real numbers on the host, behind tensors that say they lie elsewhere.

To torch a distant tensor is one on the ``meta`` device, so autograd runs it and no code can read it where it
lies. What would make the host wait for an accelerator passes through here as an operator: a number, a truth
value, a copy to the host, a size that depends on values. Each is noted with the place in gradflow that asked.
"""

import contextlib
import traceback
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
PACKAGE = str(Path(__file__).parents[2] / "gradflow")
AWAY = torch.device("meta")
WAITS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_dim",
    "_unique2",
    "unique_consecutive",
    "allclose",
}


class Distant(torch.Tensor):
    """A tensor whose numbers are on the host, and which says otherwise."""

    @staticmethod
    def __new__(cls, here):
        shape = {"strides": here.stride(), "storage_offset": here.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, here.size(), dtype=here.dtype, device=AWAY, **shape)

    def __init__(self, here):
        self.here = here

    def __repr__(self):
        return f"Distant({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return run(operator, args, kwargs or {})


class Journey(TorchDispatchMode):
    """While this is on, what is made on the distant device is a distant tensor, and waits are noted.

    Attributes:
        waits: Operator and place in gradflow of each wait; what others than gradflow ask for is left out.
    """

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if has_distant((args, kwargs)) and would_wait(operator, args, kwargs):
            where = [f for f in traceback.extract_stack() if f.filename.startswith(PACKAGE)]
            if where:
                self.waits.append((operator.__name__, Path(where[-1].filename).name, where[-1].name))
        return run(operator, args, kwargs)


def has_distant(values):
    found = []
    tree_map_only(Distant, found.append, values)
    return bool(found)


def would_wait(operator, args, kwargs):
    """Tell whether the host would have to wait for the numbers of a device."""
    name = operator.__name__.partition(".")[0]
    if name in ("_to_copy", "copy_"):
        to = kwargs.get("device") if name == "_to_copy" else args[0].device
        return to is not None and torch.device(to) != AWAY
    is_mask = name in ("index", "index_put_", "index_put") and any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    )
    return name in WAITS or is_mask


def run(operator, args, kwargs):
    """Compute on the host; what belongs far away is sent there."""
    goes_away = kwargs.get("device") is not None and torch.device(kwargs["device"]) == AWAY
    comes_here = kwargs.get("device") is not None and not goes_away
    if goes_away:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    is_away = (has_distant((args, kwargs)) or goes_away) and not comes_here
    here_args, here_kwargs = tree_map_only(Distant, lambda t: t.here, (args, kwargs))
    found = operator(*here_args, **here_kwargs)
    if operator.__name__.partition(".")[0].endswith("_") and isinstance(args[0], torch.Tensor):
        return args[0]
    return tree_map_only(torch.Tensor, Distant, found) if is_away else found


def send(module):
    """Send a module away, in place."""
    for owner in module.modules():
        for name, parameter in list(owner._parameters.items()):
            if parameter is not None:
                owner._parameters[name] = torch.nn.Parameter(Distant(parameter.detach().clone()))
        for name, buffer in list(owner._buffers.items()):
            if buffer is not None:
                owner._buffers[name] = Distant(buffer.clone())
    return module


@contextlib.contextmanager
def journey():
    """Give the mode under which distant tensors are used."""
    with Journey() as mode:
        yield mode

"""Training in several processes: which gradients are averaged over the ranks, and what stands for what.

DDP averages ``.grad`` in place when the backward is over. FSDP2 (``fully_shard``) swaps every parameter
for an unsharded one during a call: that one is the leaf of the graph, while ``named_parameters()`` and
the optimizer know only the sharded one. Both show when a module's forward begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradflow.capture.averaged import AveragedAccount
from gradflow.capture.ledger import Account
from gradflow.capture.targets import Targets
from gradflow.record import OTHER_RANKS, Finding
from gradflow.updates.working import is_sharded

__all__ = ["Ranks", "are_there"]

_DEPTH = 4  # DDP queues callbacks from callbacks; in the first step of a static graph, twice

_ALONE = (
    "The contributions are those of rank {} alone. The optimizer reads the mean over {} ranks: "
    f"{OTHER_RANKS!r} is the sum of what the others brought, and the scale divides."
)
_TOGETHER = "gradflow.integrations.distributed.all_reduce(flow) records those of all ranks together."


@dataclass(eq=False, slots=True)
class _Wrapper:
    """A DDP module: whose gradients it averages, and whether it does after the forward that came last."""

    module: DistributedDataParallel
    keys: tuple[int, ...]
    is_syncing: bool = True


def are_there() -> bool:
    """Tell whether this process trains together with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class Ranks:
    """What a recorder knows of the other processes.

    Attributes:
        meet: Sums contributions over the ranks; None leaves them with the rank they are of.

    Args:
        targets: The watched parameters.
        account: Gives the account of a watched parameter in the open step.
        guarded: Does something of ours inside the user's training.
    """

    def __init__(
        self,
        targets: Targets,
        account: Callable[[int], Account | None],
        guarded: Callable[[Callable[[], None]], None],
    ) -> None:
        self._targets, self._account, self._guarded = targets, account, guarded
        self._leaves: dict[int, tuple[Tensor, int]] = {}  # by id of what stands in for a sharded parameter
        self._sharded: dict[str, int] = {}
        self._divisors: dict[int, float] = {}
        self._wrappers: dict[int, _Wrapper] = {}
        self.meet: Callable[[Sequence[AveragedAccount]], None] | None = None
        self._expected = -1  # the last backward whose end is waited for

    def look(self) -> None:
        """Take in the sharded parameters; between calls, the model has these and not what stands in."""
        fresh = {k: p for k, p in self._targets.params.items() if is_sharded(p) and k not in self._divisors}
        for key, param in fresh.items():
            self._divisors[key] = param.device_mesh.size()  # type: ignore[attr-defined]  # a DTensor
            self._sharded.update(dict.fromkeys(self._targets.names[key], key))
        if fresh:
            self._divisors.update(self._chosen_factors())

    def enter(self, path: str, module: nn.Module) -> list[tuple[int, Tensor]]:
        """A forward with gradients begins; give what stands in for the sharded parameters, by key."""
        task = torch._C._current_graph_task_id()
        if task != -1:  # run again by a checkpoint, which will run a backward inside this one
            self.expect(task)
        active = DistributedDataParallel._active_ddp_module
        if active is not None:
            self._take_in(active).is_syncing = active.require_backward_grad_sync
        found: list[tuple[int, Tensor]] = []
        for name, param in module._parameters.items() if self._sharded else ():
            key = self._sharded.get(f"{path}.{name}" if path else name)
            if key is not None and param is not None and not is_sharded(param):
                self._leaves[id(param)] = (param, key)
                found.append((key, param))
        return found

    def key(self, leaf: Tensor) -> int:
        """Give the key of the parameter that a leaf is, or stands in for."""
        found = self._leaves.get(id(leaf))
        return id(leaf) if found is None else found[1]

    def account(self, key: int, *, keep: bool) -> AveragedAccount | None:
        """Give an account for a parameter whose gradient is averaged; None for any other."""
        divisor, param = self._divisors.get(key), self._targets.params[key]
        return None if divisor is None else AveragedAccount(param, keep, divisor=divisor)

    def backward_begins(self) -> None:
        """See what ``.grad`` holds before anything is added to it."""
        for account in self._averaged():
            account.begin()

    def expect(self, task: int) -> None:
        """See to it that the averages are read once a backward is over, and the ranks have met."""
        if self._divisors and self._expected != task:
            self._expected = task
            self._when_over(lambda: self._guarded(self._read))

    def bring_together(self) -> None:
        """Sum contributions over the ranks, where that was asked for; every rank comes here once a step."""
        accounts = list(self._averaged())
        if self.meet is not None and accounts:
            self.meet(accounts)

    def reports(self) -> Iterator[Finding]:
        """Tell that the numbers are those of one rank, and what else stands between it and the mean."""
        if not self._divisors:
            return
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        place = f"rank {rank} of {count}"
        if self.meet is None:
            yield Finding("note", "rank", _ALONE.format(rank, count), _TOGETHER, place)
        else:
            yield Finding("note", "ranks", f"The contributions are summed over {count} ranks.", "", place)
        for wrapper in self._wrappers.values():
            for hook, _ in wrapper.module._comm_hooks:
                yield Finding(
                    "note",
                    "comm-hook",
                    f"DDP sends gradients through {getattr(hook, '__name__', hook)!r}: what that changes is "
                    f"part of {OTHER_RANKS!r}.",
                )

    def _averaged(self) -> Iterator[AveragedAccount]:
        for key in [key for key in self._divisors if key in self._targets.params]:
            account = self._account(key)
            if isinstance(account, AveragedAccount):
                yield account

    def _read(self) -> None:
        """Read the averages; under ``no_sync`` there are none."""
        silent = {key for w in self._wrappers.values() if not w.is_syncing for key in w.keys}
        for account in self._averaged():
            if id(account.param) not in silent:
                account.average()

    def _when_over(self, act: Callable[[], None], depth: int = _DEPTH) -> None:
        """Call after all that was queued for the end of the running backward, and what that queues."""
        queue = torch.autograd.Variable._execution_engine.queue_callback
        queue(act if depth == 0 else lambda: self._when_over(act, depth - 1))

    def _take_in(self, ddp: DistributedDataParallel) -> _Wrapper:
        found = self._wrappers.get(id(ddp))
        if found is None:
            own = dict(ddp.module.named_parameters())
            keys = [id(p) for name, p in own.items() if name not in ddp.parameters_to_ignore]
            found = self._wrappers[id(ddp)] = _Wrapper(ddp, tuple(keys))
            size = ddp.process_group.size()
            self._divisors.update(dict.fromkeys(keys, size) if size > 1 else {})
        return found

    def _chosen_factors(self) -> Iterator[tuple[int, float]]:
        """Give the divisors that were set by hand, by ``set_gradient_divide_factor``."""
        from torch.distributed.fsdp import FSDPModule

        for _, module in self._targets.modules():
            if isinstance(module, FSDPModule):
                for group in module._get_fsdp_state()._fsdp_param_groups:
                    if group.gradient_divide_factor is not None:
                        for param in group.fsdp_params:
                            yield id(param.sharded_param), group.gradient_divide_factor

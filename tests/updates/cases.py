"""Every optimizer of torch.optim that has a rule, and its options crossed pairwise."""

import itertools
from dataclasses import dataclass, field

import torch

BASE_LR = 0.3  # steps of the size of the parameters: the law then has no slack from their rounding


@dataclass(frozen=True)
class Family:
    """An optimizer and the values that each of its options takes."""

    optimizer: type
    options: dict
    shapes: tuple = ((4, 3), (5,))
    lr: float = BASE_LR

    @property
    def name(self):
        return self.optimizer.__name__


@dataclass(frozen=True)
class Case:
    """One row of a pairwise table."""

    family: Family
    options: dict = field(compare=False)
    dtype: torch.dtype
    schedule: str
    clip: bool

    def __str__(self):
        shown = [f"{k}={v}" for k, v in self.options.items() if v not in (False, 0, 0.0, None)]
        extra = [self.schedule, "clip" if self.clip else "", str(self.dtype).removeprefix("torch.")]
        return "-".join([self.family.name, *shown, *filter(None, extra)])


WAYS = ("plain", "foreach")
WITH_FUSED = (*WAYS, "fused")
BOTH = (False, True)

FAMILIES = (
    Family(
        torch.optim.SGD,
        {
            "momentum": (0.0, 0.9),
            "dampening": (0.0, 0.3),
            "nesterov": BOTH,
            "weight_decay": (0.0, 0.1),
            "maximize": BOTH,
            "way": WITH_FUSED,
            "lr": ("float", "tensor"),
        },
    ),
    Family(
        torch.optim.Adam,
        {
            "betas": ((0.9, 0.999), (0.0, 0.9), (0.99, 0.9)),
            "eps": (1e-8, 1e-2),
            "weight_decay": (0.0, 0.1),
            "amsgrad": BOTH,
            "maximize": BOTH,
            "decoupled_weight_decay": BOTH,
            "way": WITH_FUSED,
            "lr": ("float", "tensor"),
        },
    ),
    Family(
        torch.optim.AdamW,
        {
            "betas": ((0.9, 0.999), (0.5, 0.9)),
            "weight_decay": (0.0, 0.1),
            "amsgrad": BOTH,
            "maximize": BOTH,
            "way": WITH_FUSED,
            "lr": ("float", "tensor"),
        },
    ),
    Family(
        torch.optim.RMSprop,
        {
            "alpha": (0.99, 0.5),
            "eps": (1e-8, 1e-2),
            "weight_decay": (0.0, 0.1),
            "momentum": (0.0, 0.9),
            "centered": BOTH,
            "maximize": BOTH,
            "way": WAYS,
            "lr": ("float", "tensor"),
        },
    ),
    Family(
        torch.optim.Adagrad,
        {
            "lr_decay": (0.0, 0.1),
            "weight_decay": (0.0, 0.1),
            "initial_accumulator_value": (0.0, 0.5),
            "eps": (1e-10, 1e-2),
            "maximize": BOTH,
            "way": WITH_FUSED,
        },
    ),
    Family(
        torch.optim.Adadelta,
        {
            "rho": (0.9, 0.5),
            "eps": (1e-6, 1e-1),
            "weight_decay": (0.0, 0.1),
            "maximize": BOTH,
            "way": WAYS,
        },
        lr=10.0,
    ),
    Family(
        torch.optim.Adamax,
        {
            "betas": ((0.9, 0.999), (0.5, 0.5)),
            "eps": (1e-8, 1e-2),
            "weight_decay": (0.0, 0.1),
            "maximize": BOTH,
            "way": WAYS,
        },
    ),
    Family(
        torch.optim.NAdam,
        {
            "betas": ((0.9, 0.999), (0.5, 0.9)),
            "weight_decay": (0.0, 0.1),
            "momentum_decay": (4e-3, 0.3),
            "decoupled_weight_decay": BOTH,
            "maximize": BOTH,
            "way": WAYS,
        },
    ),
    Family(
        torch.optim.RAdam,
        {
            "betas": ((0.9, 0.999), (0.5, 0.9), (0.9, 0.5)),
            "eps": (1e-8, 1e-2),
            "weight_decay": (0.0, 0.1),
            "decoupled_weight_decay": BOTH,
            "maximize": BOTH,
            "way": WAYS,
        },
        lr=0.03,
    ),
    Family(
        torch.optim.ASGD,
        {
            "lambd": (1e-4, 0.0, 0.1),
            "alpha": (0.75, 0.5),
            "t0": (1e6, 5.0),
            "weight_decay": (0.0, 0.1),
            "maximize": BOTH,
            "way": WAYS,
        },
    ),
    Family(
        torch.optim.Adafactor,
        {
            "beta2_decay": (-0.8, -0.3),
            "eps": ((None, 1e-3), (1e-3, 0.5)),
            "d": (1.0, 2.0),
            "weight_decay": (0.0, 0.1),
            "maximize": BOTH,
            "way": WAYS,
        },
        shapes=((4, 3), (5,), (2, 3, 2)),
    ),
    Family(
        torch.optim.Muon,
        {
            "weight_decay": (0.1, 0.0),
            "momentum": (0.95, 0.5),
            "nesterov": (True, False),
            "adjust_lr_fn": (None, "original", "match_rms_adamw"),
            "ns_steps": (5, 3),
        },
        shapes=((4, 3), (3, 6)),
        lr=0.1,
    ),
)

_AROUND = {
    "dtype": (torch.float32, torch.float64),
    "schedule": ("", "exponential", "onecycle"),
    "clip": BOTH,
}


def pairwise(axes, valid):
    """Choose few rows of the full table so that every valid pair of values is in one of them."""
    names = list(axes)
    rows = [dict(zip(names, row, strict=True)) for row in itertools.product(*axes.values())]
    rows = [row for row in rows if valid(row)]
    pairs_of = [
        {(a, repr(row[a]), b, repr(row[b])) for a, b in itertools.combinations(names, 2)} for row in rows
    ]
    missing = set().union(*pairs_of)
    chosen = []
    while missing:
        best = max(range(len(rows)), key=lambda i: len(pairs_of[i] & missing))
        missing -= pairs_of[best]
        chosen.append(rows[best])
    return chosen


def make(family, options, params):
    """Build the optimizer of a row."""
    options = dict(options)
    ways = {"foreach": {"foreach": True}, "fused": {"fused": True}, "plain": {"foreach": False}}
    way = ways[options.pop("way")] if "way" in options else {}
    lr = torch.tensor(family.lr, dtype=params[0].dtype) if options.pop("lr", "") == "tensor" else family.lr
    return family.optimizer(params, lr=lr, **way, **options)


def cases():
    return [
        Case(family, {k: row[k] for k in family.options}, row["dtype"], row["schedule"], row["clip"])
        for family in FAMILIES
        for row in pairwise(family.options | _AROUND, lambda row, family=family: _valid(family, row))
    ]


def _valid(family, row):
    if row.get("nesterov") and "dampening" in row and (not row["momentum"] or row["dampening"]):
        return False
    tensor = row.get("lr") == "tensor"
    if tensor and row["schedule"]:  # the schedulers that we use replace a tensor by a number
        return False
    if tensor and row.get("way") == "foreach":  # most refuse it
        return False
    cycles = any(name in family.options for name in ("momentum", "betas"))
    if row["schedule"] == "onecycle" and row.get("momentum") == 0.0:
        return False
    return cycles or row["schedule"] != "onecycle"

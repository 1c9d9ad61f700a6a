"""A small training run with known contributors, and the law that its splits must keep."""

from dataclasses import dataclass

import torch

from gradflow.updates import DeltaSplitter, Split

NAMES = ("anchor", "positive", "negative")
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}


@dataclass
class Seen:
    """One parameter in one step."""

    param: torch.Tensor
    theta: torch.Tensor  # before
    delta: torch.Tensor
    split: Split
    contributions: dict


def parameters(dtype=torch.float32, shapes=((4, 3), (5,))):
    """Parameters of the size of 1, then zeros: there the rounding of the parameter hides nothing."""
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [torch.nn.Parameter(v if i == 0 else torch.zeros_like(v)) for i, v in enumerate(values)]


def contributions(step, param, names=NAMES, *, number=0):
    """Gradients of different sizes that partly cancel, the same in every run."""
    generator = torch.Generator().manual_seed(1000 * step + number)
    return {
        name: torch.randn(param.shape, generator=generator, dtype=param.dtype) * 10.0 ** (-i)
        for i, name in enumerate(names)
    }


def summed(tensors):
    total = torch.zeros_like(next(iter(tensors.values())))
    for tensor in tensors.values():
        total += tensor
    return total


class Training:
    """Steps an optimizer with given contributions and splits each step."""

    def __init__(self, optimizer, *, splitter=None, bring=contributions, edit=None, after_step=None):
        self.optimizer = optimizer
        self.splitter = splitter or DeltaSplitter(optimizer)
        self.bring, self.edit, self.after_step = bring, edit, after_step
        self.step = 0

    @property
    def params(self):
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def brought(self):
        every = {}
        for number, param in enumerate(self.params):
            parts = self.bring(self.step, param, number=number)
            param.grad = summed(parts) if parts else None
            if parts:
                every[param] = parts
        return self.edit(every) if self.edit else every

    def advance(self, *, watched=True):
        every = self.brought()
        seen = []
        with torch.no_grad():
            for param, parts in every.items():
                if watched:
                    self.splitter.before(param, parts)
            thetas = {param: param.detach().clone() for param in every}
            self.optimizer.step()
            if not watched:
                self.splitter.unwatched()
            for param, parts in every.items() if watched else ():
                split = self.splitter.after(param, thetas[param])
                delta = param.detach() - thetas[param]
                seen.append(Seen(param, thetas[param], delta, split, parts))
        self.step += 1
        if self.after_step:
            self.after_step(self)
        return seen

    def run(self, steps):
        return [self.advance() for _ in range(steps)]


def clipped(every, most=1.0):
    """Clip as a user would, and scale the contributions by the coefficient torch used."""
    before = {param: param.grad.clone() for param in every}
    norm = torch.nn.utils.clip_grad_norm_(list(every), most)
    coefficient = (most / (norm + 1e-6)).clamp(max=1.0)
    assert all(torch.allclose(before[p] * coefficient, p.grad) for p in every)
    return {param: {n: g * coefficient for n, g in parts.items()} for param, parts in every.items()}


def excess(seen, *, tolerance=None):
    """How far a split is from conserving its delta, as a fraction of what the law allows."""
    eps = torch.finfo(seen.delta.dtype).eps
    tolerance = TOLERANCE[seen.delta.dtype] if tolerance is None else tolerance
    parts = seen.split.parts.values()
    off = (summed(seen.split.parts) - seen.delta).abs() - 2 * eps * seen.theta.abs()
    return float(off.max() / (tolerance * sum(p.abs() for p in parts).max()))


def assert_conserved(steps, *, rule, tolerance=None):
    """Law 2: the parts sum to the delta, in every step."""
    worst = 0.0
    for number, step in enumerate(steps):
        for seen in step:
            assert seen.split.rule == rule, (number, seen.split)
            worst = max(worst, excess(seen, tolerance=tolerance))
            assert worst <= 1.0, (number, worst)
    return worst

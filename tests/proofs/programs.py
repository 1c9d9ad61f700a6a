"""Small random programs over shared modules, and an oracle for what each branch brings to a weight.

A program is a list of operations on values. Each operation runs inside nested branches, or outside any.
The oracle gives every branch leaves of its own and evaluates each operation with the leaves of its
branch; what ran outside any branch is evaluated anew for each branch that reads it, with the leaves of
that reader, and for the loss with the leaves of ``unclaimed``. It shares no code with capture.
"""

import contextlib
import copy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.utils import parametrizations

import gradflow

WIDTH = 4
OUTSIDE = "unclaimed"


class Squared(nn.Module):
    """Reads its weight twice in one node."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x):
        return x + self.scale * self.scale


class Maker(nn.Module):
    """Makes a weight out of a weight, as a parametrization does."""

    def __init__(self, free):
        super().__init__()
        self.free = free

    def forward(self):
        top, bottom = torch.tanh(self.free).chunk(2)
        return torch.cat([bottom, top])


class Twofold(nn.Module):
    """Calls one module twice and returns a nest of outputs."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, y):
        return {"sum": (self.inner(x) + torch.tanh(self.inner(y)),)}


class Parts(nn.Module):
    """Modules that share weights with one another, and two weights that no module owns."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.tied = nn.Linear(WIDTH, WIDTH)
        self.tied.weight = self.one.weight
        self.chain = nn.Sequential(self.two, nn.ReLU(inplace=True), self.one)
        self.normed = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.dropped = nn.Sequential(nn.Dropout(0.4), self.two)
        self.parametrized = parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
        self.squared = Squared()
        self.cell = nn.GRUCell(WIDTH, WIDTH)
        self.twofold = Twofold(self.one)
        self.free = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.made = Maker(self.free)
        self.double()
        self.narrow = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.float32))


UNARY = ("one", "two", "tied", "chain", "normed", "dropped", "parametrized", "squared")
BINARY = ("cell", "twofold")
MAKERS = ("made", "transposed", "cast")
"""How a weight is made that several operations may read: by a module without data, by a view, by a cast."""


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        kind: ``call`` of a part, ``weigh`` (make a weight), ``use`` (``x @ weight``, of the free weight where
            it reads one value only), ``mix`` or ``detach``.
        args: Positions of the values that it reads.
        part: Name of the module, the maker or the mixture.
        path: Names of the branches around it, the innermost last; empty outside any.
    """

    kind: str
    args: tuple[int, ...] = ()
    part: str = ""
    path: tuple[str, ...] = ()

    @property
    def branch(self):
        return self.path[-1] if self.path else None


@dataclass(frozen=True)
class Program:
    """Operations on values; the first values are inputs.

    Attributes:
        inputs: How many inputs there are.
        ops: The operations; each makes one value more.
        ends: Positions of the values that the loss reads.
        decay: Whether the loss has a term on a weight itself.
        inside: Whether it runs inside the forward of one module.
        rounds: How many backward calls, each of its own forward, make the step.
    """

    inputs: int
    ops: tuple[Op, ...]
    ends: tuple[int, ...]
    decay: bool = False
    inside: bool = False
    rounds: int = 1

    @property
    def branches(self):
        """Branches that touch a weight: one that only mixes inputs is not known to anybody."""
        return tuple(dict.fromkeys(op.branch for op in self.ops if op.branch and op.kind != "mix"))

    def without_names(self):
        """Give the same operations with no branch opened around any."""
        return replace(self, ops=tuple(replace(op, path=()) for op in self.ops))

    def data(self, round_):
        generator = torch.Generator().manual_seed(100 + round_)
        return [
            torch.randn(3, WIDTH, generator=generator, dtype=torch.float64, requires_grad=i == 1)
            for i in range(self.inputs)
        ]

    def readers(self):
        """Give, for each value, who reads it around all other branches: branches, and the loss."""
        found = [set() for _ in range(self.inputs + len(self.ops))]
        for end in self.ends:
            found[end].add(OUTSIDE)
        for position in reversed(range(len(self.ops))):
            op = self.ops[position]
            if op.kind == "detach":
                continue
            sent = {op.branch} if op.branch else found[self.inputs + position]
            for read in op.args:
                found[read] |= sent
        return found


class Whole(nn.Module):
    """Runs a program, all in one forward."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, program, data):
        return _operate(program, self.parts, data)


def run(program, model, data):
    """Run a program in its branches and give the loss."""
    values = model(program, data) if program.inside else _operate(program, model.parts, data)
    return loss_of(program, [values[i] for i in program.ends], model.parts.free)


def loss_of(program, ends, free):
    """Weigh what the loss reads, by position, and square it."""
    loss = sum((value * value).sum() * (i + 1) for i, value in enumerate(ends))
    return loss + free.square().sum() if program.decay else loss


def _operate(program, parts, data):
    values = list(data)
    for number, op in enumerate(program.ops):
        with contextlib.ExitStack() as stack:
            branch = None
            for name in op.path:
                branch = stack.enter_context(gradflow.branch(name))
            torch.manual_seed(number)
            args = [values[i] for i in op.args]
            if op.kind == "call" or op.part == "made":
                value = _only(getattr(parts, op.part)(*args))
            else:
                value = apply(op, args, parts.free, parts.narrow)
                if branch is not None and op.kind in ("use", "mix"):
                    value = branch.claim(value)
            values.append(value)
    return values


def apply(op, args, free, narrow):
    """Do an operation that calls no module."""
    if op.kind == "weigh":
        return free.t() if op.part == "transposed" else narrow.double()
    if op.kind == "use":
        return torch.tanh(args[0] @ (args[1] if len(args) > 1 else free))
    if op.kind == "detach":
        return args[0].detach()
    return args[0] + args[1] if op.part == "sum" else args[0] * torch.sigmoid(args[1])


def _only(output):
    return output["sum"][0] if isinstance(output, dict) else output


class Oracle:
    """What each contributor brings, with leaves of its own for each.

    Args:
        program: The program.
        model: The model; only its copies run.
        splits: Whether what ran outside any branch is split among its readers, or told as one.
    """

    def __init__(self, program, model, *, splits):
        self.program, self.splits = program, splits
        self.parts = copy.deepcopy(model.parts)
        self.names = dict(self.parts.named_parameters())
        self.leaves = {}
        self.read = program.readers()

    def contributions(self):
        """Give ``{contributor: {FQN: gradient or None}}``, summed over the rounds."""
        loss = sum(self._loss(round_) for round_ in range(self.program.rounds))
        if not loss.requires_grad:
            return {}
        wanted = [(name, fqn) for name, own in self.leaves.items() for fqn in own]
        tensors = [self.leaves[name][fqn] for name, fqn in wanted]
        found = torch.autograd.grad(loss, tensors, allow_unused=True)
        result = {name: {} for name in self.leaves}
        for (name, fqn), gradient in zip(wanted, found, strict=True):
            result[name][fqn] = gradient
        return result

    def _loss(self, round_):
        data, known = self.program.data(round_), {}
        ends = [self._value(i, OUTSIDE, data, known) for i in self.program.ends]
        return loss_of(self.program, ends, self._leaf(OUTSIDE, self.parts.free))

    def _value(self, position, reader, data, known):
        if position < self.program.inputs:
            return data[position]
        op = self.program.ops[position - self.program.inputs]
        who = self._who(op, position, reader)
        if (position, who) not in known:
            args = [self._value(i, who, data, known) for i in op.args]
            torch.manual_seed(position - self.program.inputs)
            known[position, who] = self._apply(op, args, who)
        return known[position, who]

    def _who(self, op, position, reader):
        """Whose leaves an operation reads."""
        if op.kind == "weigh" or (op.branch is None and self.splits):
            return reader
        if op.branch is not None:
            return op.branch
        read = self.read[position]
        return "shared" if len(read) > 1 else next(iter(read), OUTSIDE)

    def _apply(self, op, args, who):
        if op.kind != "call" and op.part != "made":
            return apply(op, args, self._leaf(who, self.parts.free), self._leaf(who, self.parts.narrow))
        part = getattr(self.parts, op.part)
        own = {n: self._leaf(who, p) for n, p in part.named_parameters(remove_duplicate=False)}
        return _only(torch.func.functional_call(part, own, tuple(args)))

    def _leaf(self, who, param):
        own = self.leaves.setdefault(who, {})
        fqn = next(n for n, p in self.names.items() if p is param)
        if fqn not in own:
            own[fqn] = param.detach().clone().requires_grad_()
        return own[fqn]

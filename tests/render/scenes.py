"""Records of realistic shape: short and long names, one to five branches, dead and absent ones."""

from dataclasses import replace

import numpy as np

from gradflow.recording import Recording, Step
from tests import records

LONG = "encoder.layers.11.attention.output.LayerNorm.weight"
FIVE = (
    "anchor_view_of_the_left_camera",
    "positive",
    "semi_hard_negative",
    "negative",
    "distillation_teacher",
)
TWO = ("query", "key")


def step(index=3, branches=records.PATHS, *, fqns=None, shapes=None, extra=(), keep=True, size=1.0):
    """A step with parameters of several shapes; ``extra`` names reserved contributors."""
    fqns = fqns or ("conv1.weight", "conv1.bias", "fc.weight")
    shapes = shapes or {"weight": (4, 3), "bias": (4,)}
    parameters = {
        fqn: records.param_step(
            fqn,
            shapes.get(fqn, shapes.get(fqn.rpartition(".")[2], (4, 3))),
            (*branches, *extra),
            seed=1000 * index + i,
            keep=keep,
        )
        for i, fqn in enumerate(fqns)
    }
    return Step(index, parameters, branches, {"loss": 0.25 / (1 + index)})


def deep(index=0, branches=records.PATHS):
    """161 parameters under the names of a ResNet-50."""
    names = ["conv1.weight", "bn1.weight", "bn1.bias"]
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            parts = ["conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"]
            parts += ["conv3.weight", "bn3.weight", "bn3.bias"]
            parts += ["downsample.0.weight", "downsample.1.weight", "downsample.1.bias"] if block == 0 else []
            names += [f"layer{layer}.{block}.{part}" for part in parts]
    return step(index, branches, fqns=(*names, "fc.weight", "fc.bias"), keep=False)


def without(whole, branch, *fqns):
    """The same step, with a branch absent from some parameters (all by default)."""
    return replace(
        whole,
        parameters={f: _drop(p, branch) if not fqns or f in fqns else p for f, p in whole.parameters.items()},
    )


def _drop(p, branch):
    kept = tuple(n for n in p.contributors if n != branch)
    rows = [p.contributors.index(n) for n in kept]
    total = sum((p.tensors[n] for n in kept), np.zeros(p.shape)) if p.tensors else None
    gram = p.gram[np.ix_(rows, rows)]
    return replace(
        p,
        contributors=kept,
        gram=gram,
        absent=(branch,),
        total_tensor=total,
        total_norm=float(np.sqrt(max(gram.sum(), 0.0))),
        delta=replace(
            p.delta, contributors=kept, gram=0.01 * gram, norm=0.1 * float(np.sqrt(max(gram.sum(), 0)))
        ),
    )


def dead(whole, branch):
    """The same step, with a branch that arrived with exact zeros everywhere."""
    return replace(whole, parameters={f: _silence(p, branch) for f, p in whole.parameters.items()})


def _silence(p, branch):
    row = p.contributors.index(branch)
    gram = p.gram.copy()
    gram[row, :] = gram[:, row] = 0.0
    tensors = {n: t * (n != branch) for n, t in p.tensors.items()} if p.tensors else None
    total = sum(tensors.values()) if tensors else None
    return replace(p, gram=gram, tensors=tensors, total_tensor=total, total_norm=float(np.sqrt(gram.sum())))


def recording(steps=6, branches=records.PATHS, **how):
    return Recording([step(i, branches, **how) for i in range(steps)])

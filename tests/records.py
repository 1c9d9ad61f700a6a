"""Hand-written records, so that everything above the record is tested without torch."""

import numpy as np

from gradflow.record import Delta, ParamStep, Use
from gradflow.recording import Recording, Step

PATHS = ("anchor", "positive", "negative")


def param_step(fqn="conv1.weight", shape=(4, 3), contributors=PATHS, *, seed=0, keep=True, **changes):
    """One parameter with random contributions; the delta is plain SGD with lr 0.1."""
    rng = np.random.default_rng(seed)
    tensors = {name: rng.normal(size=shape) for name in contributors}
    rows = np.stack([t.ravel() for t in tensors.values()])
    total = sum(tensors.values())
    gram = rows @ rows.T
    delta = Delta(
        contributors=tuple(contributors),
        gram=0.01 * gram,
        norm=0.1 * float(np.linalg.norm(total)),
        parameter_norm=2.0,
        residual=0.0,
        rule="SGD",
        parts={name: -0.1 * t for name, t in tensors.items()} if keep else None,
        tensor=-0.1 * total if keep else None,
    )
    fields = {
        "contributors": tuple(contributors),
        "gram": gram,
        "total_norm": float(np.linalg.norm(total)),
        "delta": delta,
        "fqn": fqn,
        "names": (fqn,),
        "shape": shape,
        "uses": tuple(
            Use(name, f"{fqn.rpartition('.')[0]}#{i}", "ConvolutionBackward0", 1, float(np.linalg.norm(t)))
            for i, (name, t) in enumerate(tensors.items())
        ),
        "tensors": tensors if keep else None,
        "total_tensor": total if keep else None,
    }
    return ParamStep(**(fields | changes))


def step(index=0, fqns=("conv1.weight", "conv1.bias", "fc.weight"), *, keep=True, **changes):
    parameters = {
        fqn: param_step(fqn, (4, 3) if fqn.endswith("weight") else (4,), seed=100 * index + i, keep=keep)
        for i, fqn in enumerate(fqns)
    }
    fields = {
        "index": index,
        "parameters": parameters,
        "branches": PATHS,
        "scalars": {"loss": 1.0 / (1 + index)},
    }
    return Step(**(fields | changes))


def recording(steps=5, **changes):
    return Recording([step(i, **changes) for i in range(steps)])

"""The laws for Keras models, and an oracle that knows nothing of how gradflow looks at Keras."""

import numpy as np
import torch

from tests import laws


def copies(view_names):
    """Copies of the weights by FQN; ``view_names`` maps FQNs to variables."""
    return {fqn: variable.value.detach().clone() for fqn, variable in view_names.items()}


def flat_names(model, prefix=""):
    """FQNs of the trainable variables of a model whose layers hold no layers."""
    return {
        f"{prefix}{layer.name}.{variable.name}": variable
        for layer in model.layers
        for variable in layer.trainable_variables
    }


def state_of(model, optimizer=None, losses=()):
    """Everything that a training leaves: weights, statistics, moments, gradients, random state."""
    tensors = [*losses, *(v.value for v in model.variables)]
    tensors += [v.value.grad for v in model.trainable_variables if v.value.grad is not None]
    if optimizer is not None:
        tensors += [v.value for v in optimizer.variables]
    return [t.detach().clone() for t in (*tensors, torch.get_rng_state())]


def two_stage(names, outputs, loss):
    """The two-stage oracle: ``{branch: {fqn: gradient}}`` for outputs by branch and the loss made of them."""
    params = [variable.value for variable in names.values()]
    cotangents = torch.autograd.grad(loss, list(outputs.values()), retain_graph=True)
    found = {}
    for (branch, output), cotangent in zip(outputs.items(), cotangents, strict=True):
        grads = torch.autograd.grad(output, params, cotangent, retain_graph=True, allow_unused=True)
        found[branch] = dict(zip(names, grads, strict=True))
    return found


def assert_contributions(step, truth, rtol=1e-6):
    """Every kept contribution is that of the oracle, to the rounding of the whole parameter's effort."""
    checked = 0
    for p in step:
        if p.tensors is None:
            continue
        effort = sum(truth[name][p.fqn].abs().max().item() for name in truth)
        for name in truth:
            allowed = rtol * effort + 1e-9
            np.testing.assert_allclose(p.contribution(name), truth[name][p.fqn].numpy(), atol=allowed, rtol=0)
            checked += 1
    assert checked


def assert_laws(step, before, after):
    """Laws 1 and 2."""
    laws.assert_gradient_conserved(step)
    kept = [p for p in step if p.tensors is not None]
    laws.assert_delta_conserved(kept, before, after)

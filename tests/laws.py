"""The laws of gradflow as helpers, and oracles that share no code with what they check.

1. Conservation of gradient   the raw arrivals of every backward sum to what the leaf received, bitwise
2. Conservation of delta      the parts sum to θ after − θ before
3. Do no harm                 a watched run and a plain one are the same to the last bit
4. Leave nothing behind       after close() or an exception no hook or attribute remains
5. Right or told              what cannot be separated is reported, never guessed
"""

import copy
from collections import defaultdict

import numpy as np
import torch
from torch import nn

LAW_2 = {torch.float32: 1e-6, torch.float64: 1e-14}


def assert_gradient_conserved(step):
    """Law 1, with the record's own sums checked against the total that the leaf received."""
    assert step.complete
    for p in step:
        assert p.residual == 0.0, f"{p.fqn}: {p.residual}"
        assert "unclaimed" not in p.contributors
        assert not set(p.contributors) & set(p.absent)
        if p.tensors is not None:
            whole = sum(np.asarray(t, dtype=np.float64) for t in p.tensors.values())
            effort = sum(np.abs(t).max() for t in p.tensors.values())
            np.testing.assert_allclose(whole, p.total, atol=4e-7 * effort * len(p.uses), rtol=0)


def assert_delta_conserved(step, before, after, dtype=torch.float32, tol=None):
    """Law 2, against weights that the test itself copied before and after the step."""
    tol = LAW_2[dtype] if tol is None else tol
    eps = torch.finfo(dtype).eps
    for p in step:
        delta = p.delta
        moved = (after[p.fqn] - before[p.fqn]).double().numpy()
        whole = sum(delta.part(name).astype(np.float64) for name in delta.contributors)
        effort = sum(np.abs(delta.part(name)).astype(np.float64) for name in delta.contributors)
        allowed = 2 * eps * before[p.fqn].abs().double().numpy() + tol * effort.max()
        assert (np.abs(whole - moved) <= allowed).all(), f"{p.fqn}: {np.abs(whole - moved).max()}"
        assert delta.residual <= tol
        np.testing.assert_allclose(delta.norm, np.linalg.norm(moved), rtol=1e-6)


def assert_gram_tells_the_tensors(p):
    """The Gram matrix, the norms and the totals of a record, from its kept tensors by plain numpy."""
    rows = np.stack([p.contribution(name).astype(np.float64).ravel() for name in p.contributors])
    np.testing.assert_allclose(p.gram, rows @ rows.T, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(p.total_norm, np.linalg.norm(p.total.astype(np.float64)), rtol=1e-12)


def two_stage(model, run, outputs_of, names):
    """The two-stage oracle: cotangents of the branches' outputs first, then one VJP per branch.

    Right when branches are disjoint. Runs on a copy of the model, under the same random state.

    Args:
        model: The model, unwatched or not: only its copy runs.
        run: ``run(model)`` gives the scalar loss.
        outputs_of: Path of the module whose successive outputs end the branches.
        names: Names of the branches, in the order of those outputs.
    """
    twin = clean_copy(model)
    state = torch.get_rng_state()
    outputs = []
    handle = twin.get_submodule(outputs_of).register_forward_hook(lambda _m, _a, out: outputs.append(out))
    loss = run(twin)
    handle.remove()
    torch.set_rng_state(state)
    params = dict(twin.named_parameters())
    cotangents = torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True)
    found = {}
    for name, output, cotangent in zip(names, outputs, cotangents, strict=True):
        if cotangent is None:
            found[name] = dict.fromkeys(params)
            continue
        grads = torch.autograd.grad(output, params.values(), cotangent, retain_graph=True, allow_unused=True)
        found[name] = dict(zip(params, grads, strict=True))
    return found


def leaf_aliases(model, calls, loss_of):
    """The alias oracle: every branch gets leaves of its own that alias the parameters.

    Right also for chained branches. ``calls`` is ``{branch: function of call}``, where ``call(*inputs)``
    runs the model with that branch's leaves; ``loss_of(outputs)`` gives the loss.
    """
    leaves, outputs = defaultdict(dict), {}
    for name, inputs in calls.items():
        for fqn, p in model.named_parameters():
            leaves[name][fqn] = p.detach().clone().requires_grad_(p.requires_grad)
        args = inputs(outputs) if callable(inputs) else inputs
        outputs[name] = torch.func.functional_call(model, leaves[name], args)
    loss = loss_of(outputs)
    found = {}
    for name, own in leaves.items():
        wanted = {fqn: leaf for fqn, leaf in own.items() if leaf.requires_grad}
        grads = torch.autograd.grad(loss, wanted.values(), retain_graph=True, allow_unused=True)
        found[name] = dict(zip(wanted, grads, strict=True))
    return found


def clean_copy(model):
    """A deep copy without hooks."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin


def hook_counts(model, optimizers=()):
    """How many hooks stand on every module, parameter and optimizer."""
    counts = {}
    for path, module in model.named_modules():
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            counts[path, kind] = len(getattr(module, kind))
        counts[path, "attributes"] = len(vars(module))
        counts[path, "always"] = len(module._forward_hooks_always_called)
        counts[path, "kwargs"] = len(module._forward_pre_hooks_with_kwargs)
    for fqn, p in model.named_parameters():
        counts[fqn, "tensor"] = len(p._backward_hooks or {})
        counts[fqn, "post"] = len(getattr(p, "_post_accumulate_grad_hooks", None) or {})
        counts[fqn, "attributes"] = len(vars(p))
    for i, optimizer in enumerate(optimizers):
        counts[i, "pre"] = len(optimizer._optimizer_step_pre_hooks)
        counts[i, "post"] = len(optimizer._optimizer_step_post_hooks)
        counts[i, "attributes"] = len(vars(optimizer))
    return counts


def state_of(model, optimizers, losses):
    """Everything a training run leaves, as one list of tensors to compare bitwise."""
    state = [*losses, *model.state_dict().values(), torch.get_rng_state()]
    state += [p.grad for p in model.parameters() if p.grad is not None]
    for optimizer in optimizers:
        for p in optimizer.state:
            state += [v for v in optimizer.state[p].values() if isinstance(v, torch.Tensor)]
    return [t.detach().clone() for t in state]


def assert_bitwise_equal(one, other):
    """Law 3: two lists of tensors are the same bits."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def copies(model):
    """The parameters as they are now, by every name."""
    return {n: p.detach().clone() for n, p in model.named_parameters(remove_duplicate=False)}


def as_model(model):
    """One module for a model or a list of models, with gradflow's names."""
    return model if isinstance(model, nn.Module) else nn.ModuleList(model)

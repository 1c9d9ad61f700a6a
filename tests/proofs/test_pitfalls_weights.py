"""Weights that are made, shared, read twice, sparse, complex, of low precision, or not there yet."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import gradflow
from tests import laws
from tests.proofs.holding import NAMES, assert_exact, batches, loss_of, recorded, truth_of


@pytest.mark.parametrize("parametrize", [parametrizations.orthogonal, parametrizations.weight_norm])
def test_parametrizations_are_exact_for_every_call(parametrize):
    net, xs = parametrize(nn.Linear(6, 6)), batches(5, 6)
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert_exact(step, truth_of(net, xs))


@pytest.mark.proves(row=3, situation="old weight_norm, spectral_norm", verdict="exact")
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_old_norms_are_exact_though_they_change_with_every_call(norm):
    def made():
        torch.manual_seed(4)
        return nn.Sequential(norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 4))

    xs, net = batches(5, 6), made()
    calls = {name: (x,) for name, x in zip(NAMES, xs, strict=True)}
    truth = laws.leaf_aliases(made(), calls, lambda out: loss_of(*out.values()))
    assert_exact(recorded(net, lambda: loss_of(*map(net, xs))), truth)


@pytest.mark.proves(row=4, situation="weight tying: one parameter under two names", verdict="exact")
def test_tied_weight_is_one_parameter_with_all_its_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 7)
            self.out.weight = self.embed.weight

        def forward(self, x):
            return self.out(torch.tanh(self.embed(x)))

    net = Tied()
    xs = [torch.randint(0, 7, (5, 3)) for _ in NAMES]
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert step["out.weight"] is step["embed.weight"]
    assert step["embed.weight"].names == ("embed.weight", "out.weight")
    assert [use.branch for use in step["embed.weight"].uses].count("anchor") == 2
    twin, leaves = laws.clean_copy(net), {}
    outputs = []
    for name, x in zip(NAMES, xs, strict=True):
        weight, bias = (p.detach().clone().requires_grad_() for p in (twin.embed.weight, twin.out.bias))
        leaves[name] = (weight, bias)
        outputs.append(F.linear(torch.tanh(F.embedding(x, weight)), weight, bias))
    loss = loss_of(*outputs)
    truth = {
        name: dict(
            zip(("embed.weight", "out.bias"), torch.autograd.grad(loss, own, retain_graph=True), strict=True)
        )
        for name, own in leaves.items()
    }
    assert_exact(step, truth)


@pytest.mark.proves(row=5, situation="a weight used twice in one node, or in slices", verdict="exact")
@pytest.mark.parametrize("read", ["product", "slices"])
def test_weight_read_twice_by_one_node_and_in_slices(read):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 4))

        def forward(self, x):
            if read == "product":
                return x @ (self.w * self.w)
            return x[:, :3] @ self.w[:3] + x[:, 3:] @ self.w[3:]

    net, xs = Twice(), batches(5, 6)
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert_exact(step, truth_of(net, xs))
    slots = [use.index for use in step["w"].uses if use.branch == "anchor"]
    assert len(slots) == 2
    assert sorted(slots) == ([0, 1] if read == "product" else [0, 0])


@pytest.mark.proves(row=25, situation="sparse gradients", verdict="exact")
def test_sparse_embedding_is_exact_and_stays_sparse():
    net = nn.EmbeddingBag(9, 4, sparse=True, mode="sum")
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    xs = [torch.randint(0, 9, (5, 3)) for _ in NAMES]
    truth = truth_of(net, xs)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        before = laws.copies(net)
        loss_of(*map(net, xs)).backward()
        assert net.weight.grad.is_sparse
        opt.step()
    assert_exact(flow.recording.last, truth, 1e-6)
    laws.assert_delta_conserved(flow.recording.last, before, laws.copies(net))


def test_sparse_embedding_tied_with_a_dense_use():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 4, sparse=True)

        def forward(self, x):
            return torch.tanh(self.embed(x)).sum(1) @ self.embed.weight.T

    net = Tied()
    xs = [torch.randint(0, 7, (5, 3)) for _ in NAMES]
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert_exact(step, truth_of(net, xs), 1e-6)
    np.testing.assert_allclose(
        step["embed.weight"].total, net.embed.weight.grad.to_dense().numpy(), atol=1e-6
    )


@pytest.mark.proves(row=26, situation="complex parameters, broadcasting, other dtypes", verdict="exact")
def test_complex_parameters_and_their_angles():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 4, dtype=torch.complex64))

        def forward(self, x):
            return (x.to(torch.complex64) @ self.w).abs()

    net, xs = Turned(), batches(5, 6)
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    truth = truth_of(net, xs)
    assert step["w"].residual == 0.0
    rows = {name: truth[name]["w"].numpy().ravel() for name in NAMES}
    for a in NAMES:
        np.testing.assert_array_equal(step["w"].contribution(a).ravel(), rows[a])
        for b in NAMES:
            angle = np.vdot(rows[a], rows[b]).real / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b])
            assert step["w"].cosine(a, b) == pytest.approx(angle, abs=1e-6)


def test_broadcast_and_promoted_weights_arrive_in_their_own_shape_and_dtype():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.randn(1, 4))
            self.one = nn.Parameter(torch.randn(()))

        def forward(self, x):
            return x.double() * self.gain * self.one

    net, xs = Scaled(), batches(5, 4)
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert_exact(step, truth_of(net, xs))
    assert step["gain"].contribution("anchor").shape == (1, 4)
    assert step["one"].contribution("anchor").dtype == np.float32


class Rough(torch.autograd.Function):
    """Gives back a gradient of another shape and dtype, which the engine then reduces and casts."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad * w, (grad * x).double()


def test_gradient_of_another_shape_and_dtype_is_what_the_engine_makes_of_it():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(1, 4))

        def forward(self, x):
            return Rough.apply(x, self.w)

    net, xs = Custom(), batches(5, 4)
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert_exact(step, truth_of(net, xs))


def test_grad_dtype_of_a_leaf_is_respected():
    net, xs = nn.Linear(6, 4).bfloat16(), batches(5, 6)
    for p in net.parameters():
        p.grad_dtype = torch.float32
    step = recorded(net, lambda: loss_of(*(net(x.bfloat16()).float() for x in xs)))
    assert net.weight.grad.dtype == torch.float32
    laws.assert_gradient_conserved(step)
    assert step["weight"].contributors == NAMES


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_half_precision(dtype):
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
    xs = [x.to(dtype) for x in batches(5, 6)]
    loss = lambda *out: loss_of(*(o.float() for o in out))  # noqa: E731
    step = recorded(net, lambda: loss(*map(net, xs)))
    truth = truth_of(net, xs, loss)
    for p in step:
        assert p.residual == 0.0
        for name in NAMES:
            np.testing.assert_array_equal(p.contribution(name), truth[name][p.fqn].float().numpy())


@pytest.mark.proves(row=41, situation="lazy modules", verdict="exact from their first forward")
def test_lazy_modules_are_watched_from_their_first_forward():
    net, xs = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, 4)), batches(5, 6)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        outputs = [net(x) for x in xs]
        truth = truth_of(net, xs)
        loss_of(*outputs).backward()
        flow.step()
    assert flow.recording.last["0.weight"].contributors == NAMES
    assert_exact(flow.recording.last, truth)

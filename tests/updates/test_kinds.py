"""Sparse gradients, half precision, loss scaling by fused optimizers, closures, sharding."""

import math

import pytest
import torch

from gradflow.updates import DeltaSplitter
from tests.updates.test_harmless import NoWaiting
from tests.updates.training import NAMES, Training, assert_conserved, contributions, parameters, summed

STEPS = 60

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own steps


def sparse(step, param, *, number=0):
    """What two uses of an embedding bring: a few rows each, some of them twice."""
    generator = torch.Generator().manual_seed(1000 * step + number)
    parts = {}
    for name in ("query", "document"):
        rows = torch.randint(param.shape[0], (1, 4), generator=generator)
        values = torch.randn(4, *param.shape[1:], generator=generator, dtype=param.dtype)
        parts[name] = torch.sparse_coo_tensor(rows, values, param.shape, check_invariants=False)
    return parts


class SparseTraining(Training):
    def brought(self):
        every = {}
        for number, param in enumerate(self.params):
            every[param] = sparse(self.step, param, number=number)
            param.grad = every[param]["query"] + every[param]["document"]
        return every


SPARSE = [
    (torch.optim.SGD, {}),
    (torch.optim.SGD, {"momentum": 0.9, "foreach": False}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "foreach": True}),
    (torch.optim.SGD, {"maximize": True}),
    (torch.optim.Adagrad, {"foreach": False}),
    (torch.optim.Adagrad, {"foreach": True, "lr_decay": 0.1, "maximize": True}),
    (torch.optim.SparseAdam, {}),
    (torch.optim.SparseAdam, {"maximize": True, "betas": (0.5, 0.9)}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("optimizer", "options"), SPARSE)
def test_sparse_gradients(optimizer, options, dtype):
    """SGD's sparse momentum repeats its rows and adds them one at a time: each addition rounds."""
    params = parameters(dtype, shapes=((10, 3), (7, 2)))
    steps = SparseTraining(optimizer(params, lr=0.3, **options)).run(STEPS)
    repeats = "momentum" in options and dtype == torch.float32
    assert_conserved(steps, rule=optimizer.__name__, tolerance=1e-5 if repeats else None)
    assert all(set(seen.split.parts) == {"query", "document"} for step in steps for seen in step)
    assert all(p.layout == torch.strided for s in steps for seen in s for p in seen.split.parts.values())


def test_sparse_adam_attached_late():
    training = SparseTraining(torch.optim.SparseAdam(parameters(shapes=((10, 3),)), lr=0.3))
    training.advance(watched=False)
    steps = training.run(5)
    training.advance(watched=False)
    steps += training.run(5)
    assert_conserved(steps, rule="SparseAdam")
    assert all("history" in step[0].split.parts for step in steps)


# Without fused SGD: torch 2.13 leaves most of the parameter where it was (pytorch#191763).
HALF = [
    (torch.optim.SGD, {"momentum": 0.9, "foreach": False}),
    (torch.optim.SGD, {"momentum": 0.9, "foreach": True}),
    (torch.optim.AdamW, {"eps": 1e-3, "foreach": False}),
    (torch.optim.AdamW, {"eps": 1e-3, "foreach": True}),
    (torch.optim.AdamW, {"eps": 1e-3, "fused": True}),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("optimizer", "options"), HALF)
def test_half_precision_shows_what_rounding_did(optimizer, options, dtype):
    """The parts are float32; what the parameter's own precision lost or added is ``rounding``."""
    eps = torch.finfo(dtype).eps
    for (seen,) in Training(optimizer(parameters(dtype, shapes=((20, 10),)), lr=0.01, **options)).run(30):
        parts = seen.split.parts
        assert all(p.dtype == torch.float32 for p in parts.values())
        theta, delta = seen.theta.float(), seen.delta.float()
        assert (summed(parts) - delta).abs().max() <= eps * theta.abs().max()  # delta itself is rounded
        arithmetic = sum(p.abs() for n, p in parts.items() if n != "rounding").max()
        assert parts["rounding"].abs().max() <= 2 * eps * theta.abs().max() + 8 * eps * arithmetic


def scaled_by(scale):
    return lambda step, param, number=0: {
        name: g * scale for name, g in contributions(step, param, number=number).items()
    }


FUSED = [
    (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.AdamW, {}),
    (torch.optim.Adagrad, {"weight_decay": 0.1}),
]


@pytest.mark.parametrize(("optimizer", "options"), FUSED)
def test_a_fused_step_unscales_by_itself(optimizer, options):
    """``GradScaler`` hands it scale and verdict as attributes; a step of infinities moves nothing.

    Not in the first step of SGD: there torch leaves its new momentum buffer as the memory it found.
    """
    scale, skips = 1024.0, (0, 3, 7) if optimizer is not torch.optim.SGD else (3, 7)
    opt = optimizer(parameters(), lr=0.3, fused=True, **options)
    training = Training(opt, bring=scaled_by(scale))
    plain = Training(optimizer(parameters(), lr=0.3, **options))
    opt.grad_scale = torch.tensor(scale)
    for step in range(20):
        skipped = step in skips
        opt.found_inf = torch.tensor(float(skipped))
        usual = training.bring
        if skipped:
            training.bring = lambda step, param, number=0: {
                n: torch.full_like(param, math.inf) for n in NAMES
            }
        seen = training.advance()
        training.bring = usual
        if skipped:
            assert all(not part.any() for s in seen for part in s.split.parts.values())
            continue
        plain.step = step
        assert_conserved([seen], rule=optimizer.__name__)
        for ours, theirs in zip(seen, plain.advance(), strict=True):
            for name, part in theirs.split.parts.items():
                assert torch.allclose(ours.split.parts[name], part, rtol=1e-4, atol=1e-5)


def test_with_a_real_grad_scaler():
    (param,) = parameters(shapes=((4, 3),))
    optimizer = torch.optim.AdamW([param], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=1)
    splitter, splits = DeltaSplitter(optimizer), []
    thetas, brought = [], []

    def before(*_):
        thetas.append(param.detach().clone())
        splitter.before(param, brought[-1])

    def after(*_):
        splits.append((splitter.after(param, thetas[-1]), param.detach() - thetas[-1]))

    optimizer.register_step_pre_hook(torch.no_grad()(before))
    optimizer.register_step_post_hook(torch.no_grad()(after))
    for step in range(6):
        scale = scaler.get_scale() if step else 256.0
        brought.append(scaled_by(scale)(step, param))
        if step == 2:
            brought[-1]["anchor"][0, 0] = math.inf
        scaler.scale(torch.zeros(()))
        param.grad = summed(brought[-1])
        scaler.step(optimizer)
        scaler.update()
    for step, (split, delta) in enumerate(splits):
        assert (summed(split.parts) - delta).abs().max() <= 1e-6
        assert bool(delta.any()) == (step != 2)


def test_a_closure_inside_the_step_is_shown_whole():
    (param,) = parameters(shapes=((4, 3),))
    optimizer = torch.optim.SGD([param], lr=0.1, momentum=0.9)
    splitter = DeltaSplitter(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss

    def step(*how):
        theta, parts = param.detach().clone(), contributions(0, param)
        param.grad = summed(parts)
        with torch.no_grad():
            splitter.before(param, parts)
        optimizer.step(*how)
        with torch.no_grad():
            return splitter.after(param, theta)

    assert step().rule == "SGD"
    whole = step(closure)
    assert whole.parts == {}
    assert whole.rule == ""
    assert "closure" in whole.note
    after = step()
    assert "history" in after.parts  # what the closure brought lives on in the momentum


def test_contributions_of_another_shape_are_not_split():
    (param,) = parameters(shapes=((4, 3),))
    optimizer = torch.optim.SGD([param], lr=0.1)
    splitter = DeltaSplitter(optimizer)
    param.grad = torch.ones_like(param)
    with torch.no_grad():
        splitter.before(param, {"shard": torch.ones(2, 3)})
        optimizer.step()
        split = splitter.after(param, param.detach())
    assert (split.parts, split.rule) == ({}, "")
    assert "shape" in split.note


@pytest.fixture
def mesh(tmp_path):
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def sharded_steps(mesh, optimizer):
    """Splits of two steps of a parameter that is a DTensor, and what was measured of it."""
    from torch.distributed.tensor import distribute_tensor

    param = torch.nn.Parameter(distribute_tensor(torch.ones(4, 3), mesh))
    optimizer = optimizer([param], lr=0.1)
    splitter = DeltaSplitter(optimizer)
    for _ in range(2):
        gradient = torch.arange(12.0).reshape(4, 3)
        param.grad = distribute_tensor(gradient, mesh)
        theta = param.detach().to_local().clone()
        with torch.no_grad():
            splitter.before(param, {"a": gradient * 0.25, "b": gradient * 0.75})
            optimizer.step()
            yield splitter.after(param, theta), param.detach().to_local() - theta


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_a_sharded_parameter_is_split_as_far_as_this_process_holds_it(mesh, optimizer):
    for split, moved in sharded_steps(mesh, optimizer):
        assert split.rule == optimizer.__name__
        torch.testing.assert_close(sum(split.parts.values()), moved, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(split.parts["b"], 3 * split.parts["a"])


def test_a_sharded_parameter_that_moves_as_a_matrix_is_shown_whole(mesh):
    for split, _ in sharded_steps(mesh, torch.optim.Muon):
        assert (split.parts, split.rule) == ({}, "")
        assert "sharded" in split.note


@pytest.mark.parametrize(("optimizer", "options"), SPARSE)
def test_sparse_splits_do_not_wait_either(optimizer, options):
    training = SparseTraining(optimizer(parameters(shapes=((10, 3),)), lr=0.3, **options))
    for _ in range(2):
        every = training.brought()
        with torch.no_grad(), NoWaiting():
            for param, parts in every.items():
                training.splitter.before(param, parts)
        training.optimizer.step()
        with torch.no_grad(), NoWaiting():
            assert all(training.splitter.after(p, p.detach()).parts for p in every)


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_loses_little_to_rounding(nesterov):
    """Measured: half a percent of the delta's norm for matrices of 64 by 32 and 32 by 128."""
    params = parameters(shapes=((64, 32), (32, 128)))
    for step in Training(torch.optim.Muon(params, lr=0.02, nesterov=nesterov)).run(20):
        for seen in step:
            parts = seen.split.parts
            assert parts["rounding"].norm() <= 0.01 * seen.delta.norm()
            assert torch.allclose(summed(parts), seen.delta, atol=1e-6)
            assert "rounding" in seen.split.note


def test_muon_in_bfloat16_without_nesterov_is_shown_whole():
    params = parameters(torch.bfloat16, shapes=((4, 3),))
    (seen,) = Training(torch.optim.Muon(params, lr=0.02, nesterov=False)).advance()
    assert seen.split.parts == {}
    assert "overwrites" in seen.split.note

"""On an accelerator: the laws, nothing that waits for it, and streams of the user's own.

Without one, :mod:`tests.capture.test_no_waiting` proves that nothing waits.
"""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.capture import closing, deltas, reduce
from tests import laws

DEVICE = "cuda"
NAMES = ("anchor", "positive", "negative")
STEPS = 3

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
]


def encoder():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8)]
    return nn.Sequential(*layers).to(DEVICE)


def triplet(net, number):
    batch = torch.randn(3, 5, 1, 8, 8, generator=torch.Generator().manual_seed(number)).to(DEVICE)
    return lambda: F.triplet_margin_loss(*(net(x) for x in batch), margin=5.0)


OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.1),
    "fused AdamW": lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
}


@pytest.fixture(autouse=True)
def _the_same_kernels_every_time():
    was = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = was


def train(optimizer, *, watched=True, quiet=contextlib.nullcontext, **options):
    """Train; give what the run leaves, the recording, and the weights before each step and after the last."""
    torch.manual_seed(0)
    net = encoder()
    mover, losses, weights = OPTIMIZERS[optimizer](net.parameters()), [], []
    flow = gradflow.watch(net, mover, branches=NAMES, **options) if watched else None
    for number in range(STEPS):
        weights.append({name: p.cpu() for name, p in laws.copies(net).items()})
        loss_of = triplet(net, number)
        mover.zero_grad()
        with quiet():
            loss = loss_of()
            if flow is not None:
                flow.log(loss=loss)
            loss.backward()
            mover.step()
        losses.append(loss)
    weights.append({name: p.cpu() for name, p in laws.copies(net).items()})
    if flow is not None:
        flow.close()
    return laws.state_of(net, [mover], losses), flow and flow.recording, weights


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_laws_hold_on_the_device(optimizer):
    plain, _, _ = train(optimizer, watched=False)
    state, recording, weights = train(optimizer, keep="tensors")
    laws.assert_bitwise_equal(state, plain)
    assert len(recording) == STEPS
    for step in recording:
        laws.assert_gradient_conserved(step)
        laws.assert_delta_conserved(step, weights[step.index], weights[step.index + 1])


def test_contributions_on_the_device_are_those_of_two_stages():
    """The oracle: one VJP for each branch, on the same device."""
    torch.manual_seed(0)
    net = encoder().eval()  # a batch-norm that is moved by the oracle would not be the same again
    truth = laws.two_stage(net, lambda model: triplet(model, 0)(), "", NAMES)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        triplet(net, 0)().backward()
        flow.step()
    for p in flow.recording.last:
        for name in NAMES:
            expected = truth[name][p.fqn].cpu().numpy()
            np.testing.assert_allclose(p.contribution(name), expected, rtol=1e-5, atol=1e-7)


@contextlib.contextmanager
def errors():
    """Let whatever waits for the device raise."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def transfers(monkeypatch):
    """Allow the one transfer of a step, and those of kept tensors; count the former."""
    counted = []

    def allowed(work, counts):
        def run(*args):
            torch.cuda.set_sync_debug_mode("default")
            try:
                counted.extend([1] * counts)
                return work(*args)
            finally:
                torch.cuda.set_sync_debug_mode("error")

        return run

    monkeypatch.setattr(reduce.Harvest, "fetch", allowed(reduce.Harvest.fetch, 1))
    for module in (closing, deltas):
        monkeypatch.setattr(module, "copied", allowed(deltas.copied, 0))
    return counted


@pytest.mark.parametrize(
    "options",
    [{}, {"keep": "tensors"}, {"every": 2}, {"params": "*.weight"}, {"stems": "split"}],
    ids=lambda options: "-".join(map(str, options)) or "plain",
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_nothing_waits_for_the_device_but_one_transfer_a_step(optimizer, options, transfers):
    train(optimizer, watched=False)  # what is made the first time may wait
    _, recording, _ = train(optimizer, quiet=errors, **options)
    assert all(step.complete for step in recording)
    assert len(transfers) == len(recording)


def test_nothing_waits_where_steps_go_to_a_file(tmp_path, transfers):
    train("Adam", watched=False)
    train("Adam", quiet=errors, to=tmp_path / "run.gradflow")
    assert len(gradflow.load(tmp_path / "run.gradflow")) == len(transfers) == STEPS


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stream_of_the_users_own_gives_the_same(optimizer):
    state, recording, _ = train(optimizer, keep="tensors")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        state_there, recording_there, _ = train(optimizer, keep="tensors")
    torch.cuda.current_stream().wait_stream(stream)
    laws.assert_bitwise_equal(state_there, state)
    for here, there in zip(recording, recording_there, strict=True):
        laws.assert_gradient_conserved(there)
        for p, q in zip(here, there, strict=True):
            assert q.contributors == p.contributors
            np.testing.assert_array_equal(q.gram, p.gram)
            np.testing.assert_array_equal(q.total, p.total)
            np.testing.assert_array_equal(q.delta.gram, p.delta.gram)

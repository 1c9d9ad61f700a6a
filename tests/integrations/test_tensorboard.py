"""What TensorBoard reads back is what the record holds."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

import gradflow
from gradflow.errors import NotKeptError
from gradflow.integrations.scalars import scalars
from gradflow.integrations.tensorboard import Board
from tests import laws
from tests.integrations.triplets import NAMES, batches, encoder, loss_of


def train(steps=2, board=None, keep="tensors"):
    import torch

    net = encoder()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    with gradflow.watch(net, optimizer, branches=NAMES, keep=keep) as flow:
        for batch in batches(steps):
            optimizer.zero_grad()
            loss = loss_of(net, batch)
            loss.backward()
            optimizer.step()
            flow.log(loss=loss)
            losses.append(loss.detach())
            if board is not None:
                board.add(flow.recording.last)
    return flow.recording, laws.state_of(net, [optimizer], losses)


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "scalars": 0}).Reload()


def test_scalars_are_those_of_the_step(tmp_path):
    with Board(tmp_path, layers=("1",)) as board:
        recording, state = train(board=board)
    events = read(tmp_path)
    for step in recording:
        expected = {**scalars(step, ("1",)), "loss": step.scalars["loss"]}
        assert set(events.Tags()["scalars"]) == set(expected)
        for name, value in expected.items():
            [found] = [e.value for e in events.Scalars(name) if e.step == step.index]
            assert found == pytest.approx(value, rel=1e-6)
    laws.assert_bitwise_equal(state, train()[1])


def test_histograms_hold_the_entries_of_the_contributions_and_the_cosines(tmp_path):
    recording, _ = train()
    with Board(tmp_path) as board:
        board.add_all(recording)
    events = read(tmp_path)
    part = recording.last["1.weight"].contribution("anchor").astype(np.float64)
    found = events.Histograms("gradflow/1.weight/anchor")[-1].histogram_value
    assert found.num == part.size
    assert found.sum == pytest.approx(part.sum(), rel=1e-4, abs=1e-6)
    cosines = [p.cosine("anchor", "negative") for p in recording.last]
    found = events.Histograms("gradflow/cosines/anchor-negative")[-1].histogram_value
    assert (found.num, found.min, found.max) == (4, pytest.approx(min(cosines)), pytest.approx(max(cosines)))


def test_figures_are_drawn_where_asked_for(tmp_path):
    recording, _ = train()
    with Board(tmp_path, histograms=False, figures=("1.weight",), overview=True) as board:
        board.add(recording.last)
    events = read(tmp_path)
    assert set(events.Tags()["images"]) == {"gradflow/equation/1.weight", "gradflow/contributions"}
    [image] = events.Images("gradflow/equation/1.weight")
    assert image.step == 1
    assert image.width > image.height > 50
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert not events.Tags()["histograms"]


def test_without_tensors_the_cosines_remain_and_a_figure_says_what_it_needs(tmp_path):
    recording, _ = train(keep="gram")
    with Board(tmp_path) as board:
        board.add_all(recording)
    assert set(read(tmp_path).Tags()["histograms"]) == {
        "gradflow/cosines/anchor-positive",
        "gradflow/cosines/anchor-negative",
        "gradflow/cosines/positive-negative",
    }
    with pytest.raises(NotKeptError), Board(tmp_path, figures=("1.weight",)) as board:
        board.add(recording.last)


def test_a_writer_of_yours_stays_open(tmp_path):
    recording, _ = train(steps=1)
    writer = SummaryWriter(tmp_path)
    with Board(writer, histograms=False) as board:
        board.add(recording.last)
    writer.add_scalar("yours", 1.0, 0)
    writer.close()
    assert {"yours", "gradflow/total_norm"} <= set(read(tmp_path).Tags()["scalars"])

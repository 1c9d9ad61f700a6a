"""The classic diagrams: every one is drawn, from numbers that were measured."""

import numpy as np
import pytest
import torch

import gradflow
from gradflow import zoo
from gradflow.capture.trace import trace
from gradflow.diagrams import NAMES, diagram, diagram_graph
from gradflow.errors import InvalidArgumentError

pytest.importorskip("pygraphviz")


@pytest.mark.parametrize("name", NAMES)
def test_every_diagram_is_drawn(name, tmp_path):
    path = diagram(name, tmp_path / "out.svg")
    assert path.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", NAMES)
def test_every_diagram_shows_its_branches(name):
    graph = diagram_graph(name)
    assert len(graph.branches) >= 2
    assert {edge.branch for edge in graph.edges} >= set(graph.branches[:2])


def test_the_numbers_are_those_of_a_real_step():
    torch.manual_seed(0)
    scene = zoo.scene("triplet")
    model = scene.build()
    (optimizer,) = scene.optimizers(model)
    before = torch.cat([p.detach().ravel() for p in model.parameters()])
    batch = next(scene.batches(seed=0, size=8))
    loss, _ = scene.loss(model, batch)
    loss.backward()
    total = torch.cat([p.grad.ravel() for p in model.parameters()]).double().norm().item()
    optimizer.step()
    after = torch.cat([p.detach().ravel() for p in model.parameters()])
    told = {label: value for node in diagram_graph("triplet").nodes for label, value in node.values}
    assert told["Σ"] == pytest.approx(total, rel=1e-5)
    assert told["Δ"] == pytest.approx((after - before).double().norm().item(), rel=1e-4)


def test_time_steps_carry_the_contributions_of_their_own_uses():
    graph = diagram_graph("rnn")
    weight = next(node for node in graph.nodes if node.kind == "parameter" and node.name == "cell")
    norms = [edge.norm for edge in graph.edges if edge.target == weight.id]
    assert len(norms) == 4
    assert np.all(np.diff(norms) < 0)  # nearer to the loss, nearer to the top, larger


def test_a_diagram_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    diagram("siamese")
    assert torch.equal(state, torch.get_rng_state())


def test_values_and_details_can_be_left_out():
    plain = diagram_graph("siamese", values=False)
    assert all(edge.norm is None for edge in plain.edges)
    assert "numbers" in plain.to_dot()
    assert "numbers" not in plain.to_dot(details=False)


def test_an_unknown_diagram_is_refused_with_the_near_ones():
    with pytest.raises(InvalidArgumentError, match="no diagram 'tripplet'") as error:
        diagram("tripplet")
    assert "'triplet'" in error.value.do


def test_numbers_of_a_step_go_to_the_arrows_of_its_branches():
    torch.manual_seed(0)
    scene = zoo.scene("contrastive")
    model = scene.build()
    with gradflow.watch(model, scene.optimizers(model), branches=scene.branches) as flow:
        loss, _ = scene.loss(model, next(scene.batches(seed=0, size=4)))
        graph = trace(loss, model)
        loss.backward()
        flow.step()
    step = flow.recording.last
    view = graph.with_values(step).expand()
    ends = {node.id: node for node in view.nodes}
    for edge in view.edges:
        target = ends[edge.target]
        if target.kind == "parameter":
            assert edge.norm == pytest.approx(step[target.name].norms[edge.branch])
    whole = graph.collapse(0).with_values(step)
    joint = {edge.branch: edge.norm for edge in whole.edges if edge.norm is not None}
    assert joint == pytest.approx(step.layer("").norms)
    assert graph.collapse(0).with_values(step).with_values(None) == graph.collapse(0)

"""Collapsing, opening and folding: what every view keeps, and what the views of known models hold."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradflow
from gradflow import zoo
from gradflow.capture.trace import trace
from gradflow.errors import InvalidArgumentError
from gradflow.graph import Edge, Graph, Node
from gradflow.graph.collapse import View, collapsed
from tests.graph import models

MODELS = ("triplet", "siamese", "verifier", "unrolled", "lstm_cell", "tied", "multitask", "resnet")


@pytest.fixture(params=MODELS)
def graph(request):
    return trace(*getattr(models, request.param)())


def is_acyclic(graph):
    below = {node.id: set() for node in graph.nodes}
    for edge in graph.edges:
        if not edge.is_loop:
            below[edge.source].add(edge.target)
    waiting = dict.fromkeys(below, 0)
    for targets in below.values():
        for target in targets:
            waiting[target] += 1
    ready = [node for node, count in waiting.items() if not count]
    done = 0
    while ready:
        done += 1
        for target in below[ready.pop()]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return done == len(below)


def names_of(graph, kind="module"):
    return {node.name for node in graph.nodes if node.kind == kind}


@pytest.mark.parametrize("depth", [0, 1, 2, 3, None])
def test_no_node_and_no_parameter_is_lost(graph, depth):
    view = graph.collapse(depth)
    assert sum(node.members for node in view.nodes) == len(graph.nodes)
    assert {n for node in view.nodes for n in node.names} == {n for p in graph.parameters for n in p.names}


@pytest.mark.parametrize("depth", [0, 1, 2, 3, None])
def test_views_have_no_cycles(graph, depth):
    assert is_acyclic(graph.collapse(depth))


def test_uses_are_counted_in_every_view(graph):
    uses = sum(len(p.uses) for p in graph.parameters)
    for depth in (0, 1, 2, 3, None):
        view = graph.collapse(depth)
        leaves = {node.id for node in view.nodes if node.kind == "parameter"}
        inside = sum(edge.members for edge in view.edges if edge.target in leaves)
        assert inside == uses


def test_collapsing_twice_changes_nothing(graph):
    once = graph.collapse(2)
    assert once.collapse(2) == once
    assert once.collapse(1) == graph.collapse(1)
    assert once.expand().nodes == graph.nodes


def test_boxes_never_span_two_branches(graph):
    branch = {node.id: node.branch for node in graph.nodes}
    nodes, _ = collapsed(graph.nodes, graph.edges, View(1))
    for box in nodes:
        if box.kind == "module":
            assert box.id.endswith(f"@{box.branch or ''}")
            assert box.branch in branch.values()


def test_a_resnet_triplet_fits_on_a_page():
    view = trace(*models.resnet()).overview()
    layers = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}
    assert names_of(view) == layers
    assert len(view.nodes) == 1 + 3 * 7 + 7
    assert len(view.edges) == 3 + 3 * 6 + 3 * 7


def test_repeated_blocks_are_drawn_once():
    view = trace(*models.resnet()).collapse(2)
    repeats = {node.name: node.repeats for node in view.nodes if node.kind == "module"}
    assert repeats["layer3.1"] == 5
    assert repeats["layer2.1"] == 3
    assert repeats["layer1.1"] == 1
    assert "layer3.2" not in repeats
    weights = next(node for node in view.nodes if node.kind == "parameter" and node.name == "layer3.1")
    assert weights.members == 5 * 9
    assert len(trace(*models.resnet()).collapse(2, fold=False).nodes) > len(view.nodes)


def test_folded_blocks_of_several_boxes_become_a_loop():
    view = trace(*models.resnet()).collapse(3)
    assert {node.repeats for node in view.nodes if node.name == "layer3.1.conv1"} == {5}
    loops = [edge for edge in view.edges if edge.is_loop]
    ends = {node.id: node.name for node in view.nodes}
    assert ("layer3.1.conv1", "layer3.1.bn3") not in {(ends[e.source], ends[e.target]) for e in view.edges}
    assert loops


def test_long_runs_of_time_steps_are_drawn_once_and_short_ones_are_not():
    assert len([n for n in trace(*models.lstm_cell(5)).overview().nodes if n.name == "cell"]) == 5 + 1
    view = trace(*models.lstm_cell(30)).overview()
    cells = [node for node in view.nodes if node.kind == "module" and node.name == "cell"]
    assert [node.repeats for node in cells] == [30]
    uses = [edge.members for edge in view.edges if edge.source == cells[0].id and edge.members > 30]
    assert uses == [30 * 4]


def test_what_was_folded_can_be_unfolded():
    view = trace(*models.lstm_cell(30)).overview()
    opened = view.expand("cell")
    assert len([node for node in opened.nodes if node.name == "cell" and node.kind == "module"]) == 30
    blocks = trace(*models.resnet()).collapse(2).expand("layer3.1")
    assert "layer3.5" in names_of(blocks)


def test_a_module_can_be_opened_down_to_single_nodes():
    graph = trace(*models.resnet())
    view = graph.collapse(1).expand("layer1")
    assert {"layer1.0", "layer1.1", "layer1.2", "layer2"} <= names_of(view)
    view = view.expand("layer1.0")
    assert {"layer1.0.conv1", "layer1.0.bn3", "layer1.0.downsample", "layer1.1"} <= names_of(view)
    view = view.expand("layer1.0.conv1")
    assert "layer1.0.conv1" not in names_of(view)
    assert "ConvolutionBackward0" in names_of(view, "op")
    assert "layer1.0.conv1.weight" in names_of(view, "parameter")


def test_a_node_can_be_opened_too():
    view = trace(*models.triplet()).collapse(1)
    box = next(node for node in view.nodes if node.name == "encoder" and node.kind == "module")
    assert view.expand(box) == view.expand("encoder") == view.expand(box.id)
    assert "encoder.conv1" in names_of(view.expand(box))


def test_an_unknown_module_is_refused_with_the_near_ones():
    with pytest.raises(InvalidArgumentError, match="no module 'enkoder'") as error:
        trace(*models.triplet()).collapse(1).expand("enkoder")
    assert "'encoder'" in error.value.do


def test_a_negative_depth_is_refused():
    with pytest.raises(InvalidArgumentError, match="depth=-1"):
        trace(*models.triplet()).collapse(-1)


def test_a_tied_parameter_stays_alone():
    view = trace(*models.tied()).collapse(1)
    tied = next(node for node in view.nodes if len(node.names) == 2 and node.members == 1)
    assert tied.names == ("encoder.weight", "decoder.weight")
    ends = {node.id: node.name for node in view.nodes}
    assert {ends[edge.source] for edge in view.edges if edge.target == tied.id} == {"encoder", "decoder"}


def test_recorded_and_inferred_views_hold_the_same_boxes():
    for name in ("triplet", "contrastive", "rnn", "resnet50_thin", "twins"):
        scene = zoo.scene(name)
        model = scene.build()
        batch = next(scene.batches(seed=0, size=4))
        guessed = trace(scene.loss(model, batch)[0], model).overview()
        with gradflow.watch(model, branches=scene.watch_branches(model)):
            recorded = trace(scene.loss(model, batch)[0], model).overview()
        boxes = [sorted((node.kind, node.name) for node in view.nodes) for view in (guessed, recorded)]
        assert boxes[0] == boxes[1], name


def test_joint_norms_are_those_of_all_gradients_together():
    nodes = (Node("0", "op", "A", calls=(("", 0), ("a", 0))), Node("1", "op", "B", calls=(("", 0), ("a", 0))))
    leaves = (Node("2", "parameter", "a.x", names=("a.x",)), Node("3", "parameter", "a.y", names=("a.y",)))
    edges = (Edge("0", "2", 0, norm=3.0), Edge("1", "3", 0, norm=4.0), Edge("0", "1", 1, norm=1.0))
    view = Graph((*nodes, *leaves), edges, ()).collapse(1)
    assert [edge.norm for edge in view.edges] == [5.0]


def test_norms_that_add_up_in_one_place_are_not_guessed():
    graph = trace(*models.chain(3), norms=True).collapse(0, fold=False)
    weight = next(node.id for node in graph.nodes if node.kind == "parameter")
    assert [edge.norm is None for edge in graph.edges if edge.target == weight] == [False] * 3
    folded = trace(*models.chain(30), norms=True).collapse(0)
    assert [edge.norm for edge in folded.edges if edge.target == "parameter"] == []
    assert folded.edges[-1].norm is None


def test_a_view_can_be_written_as_json(graph):
    content = json.loads(graph.overview().to_json())
    assert set(content) == {"nodes", "edges", "parameters", "branches"}
    assert len(content["nodes"]) == len(graph.overview().nodes)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=12))
def test_any_order_of_any_layers_gives_sound_views(order):
    layers = nn.ModuleDict({f"{chr(97 + i)}": nn.Linear(2, 2) for i in range(6)})
    values = [torch.randn(1, 2) for _ in range(4)]
    for name, slot in order:
        values[slot] = F.relu(layers[chr(97 + name)](values[slot])) + values[(slot + 1) % 4].sum()
    loss = sum(value.sum() for value in values)
    graph = trace(loss, layers)
    for depth in (0, 1, None):
        view = graph.collapse(depth)
        assert is_acyclic(view)
        assert sum(node.members for node in view.nodes) == len(graph.nodes)

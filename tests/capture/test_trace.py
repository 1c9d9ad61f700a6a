"""Tracing: every use found, nothing disturbed, names from the graph alone equal to the recorded ones."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradflow
from gradflow import zoo
from gradflow.capture.trace import trace
from gradflow.errors import InvalidArgumentError
from tests.graph import models


def uses_of(graph):
    return {p.fqn: len(p.uses) for p in graph.parameters}


def branches_of(graph, fqn):
    return next(p.branches for p in graph.parameters if p.fqn == fqn)


def test_every_use_of_every_parameter_is_found():
    loss, model = models.triplet()
    graph = trace(loss, model)
    assert uses_of(graph) == {name: 3 for name, _ in model.named_parameters()}
    assert branches_of(graph, "encoder.conv1.weight") == ("encoder#0", "encoder#1", "encoder#2")


def test_uses_of_a_parameter_stand_in_forward_order():
    loss, model = models.unrolled(4)
    graph = trace(loss, model)
    weight = next(p for p in graph.parameters if p.fqn == "h2h.weight")
    assert [use.branch for use in weight.uses] == [f"i2h#{t}" for t in range(4)]
    assert [use.call for use in weight.uses] == [f"h2h#{t}" for t in range(4)]


def test_edges_are_those_of_next_functions():
    loss, model = models.tied()
    graph = trace(loss, model)
    stack, seen, count = [loss.grad_fn], {loss.grad_fn}, 0
    while stack:
        node = stack.pop()
        for child, _ in node.next_functions:
            count += child is not None
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)
    assert len(graph.nodes) == len(seen)
    assert len(graph.edges) == count


def test_nodes_stand_in_topological_order():
    graph = trace(*models.resnet())
    place = {node.id: i for i, node in enumerate(graph.nodes)}
    assert all(place[edge.source] < place[edge.target] for edge in graph.edges)


def test_a_tied_parameter_keeps_all_its_names_and_each_use_its_module():
    loss, model = models.tied()
    graph = trace(loss, model)
    weight = next(p for p in graph.parameters if len(p.names) == 2)
    assert weight.names == ("encoder.weight", "decoder.weight")
    assert [use.call for use in weight.uses] == ["encoder#0", "decoder#0"]


def test_the_forward_once_idiom_makes_two_lanes():
    graph = trace(*models.siamese())
    assert graph.branches == ("Siamese#0", "Siamese#1")
    assert {node.path for node in graph.nodes if node.branch == "Siamese#1"} == {"", "conv1", "fc1", "fc2"}


def test_a_head_over_two_lanes_is_a_lane_of_its_own():
    graph = trace(*models.verifier())
    assert graph.branches == ("encoder#0", "encoder#1", "hidden")
    assert {node.path for node in graph.nodes if node.branch == "hidden"} == {"", "hidden", "out"}


@pytest.mark.parametrize("every", [False, True], ids=["last", "every"])
def test_an_unrolled_cell_shows_its_time_steps(every):
    graph = trace(*models.unrolled(5, every))
    home = "Unrolled" if every else "i2h"
    assert branches_of(graph, "h2h.weight") == tuple(f"{home}#{t}" for t in range(5))
    steps = {node.step for node in graph.nodes if node.path == "i2h"}
    assert steps == set(range(5))


def test_an_lstm_cell_shows_its_time_steps():
    graph = trace(*models.lstm_cell(5))
    assert branches_of(graph, "cell.weight_ih") == tuple(f"cell#{t}" for t in range(5))
    assert branches_of(graph, "out.weight") == ()


def test_two_sequences_make_two_lanes_of_time_steps():
    model = models.CellNet(4)
    a, b = model(torch.randn(2, 4, 3)), model(torch.randn(2, 4, 3))
    graph = trace((a - b).pow(2).mean(), model)
    assert branches_of(graph, "cell.weight_hh") == ("CellNet#0", "CellNet#1")
    assert {node.step for node in graph.nodes if node.branch == "CellNet#0" and node.path == "cell"} == {
        0,
        1,
        2,
        3,
    }
    assert branches_of(graph, "out.weight") == ("CellNet#0", "CellNet#1")


def test_heads_on_a_trunk_are_branches_and_the_trunk_is_shared():
    graph = trace(*models.multitask())
    assert graph.branches == ("head_a", "head_b", "shared")
    assert {node.path for node in graph.nodes if node.branch == "shared"} == {"trunk", "trunk.0", "trunk.2"}


def test_a_plain_network_is_one_path_without_lanes():
    model = models.ResNet50(4, blocks=(1, 2, 1, 1))
    graph = trace(F.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])), model)
    assert graph.branches == ()


def test_residual_sums_belong_to_their_block():
    graph = trace(*models.resnet())
    sums = [node.path for node in graph.nodes if node.name == "AddBackward0" and node.branch == "ResNet50#0"]
    assert sorted(sums) == sorted(
        f"layer{n}.{i}" for n, count in enumerate((3, 4, 6, 3), start=1) for i in range(count)
    )


def test_a_penalty_on_the_weights_is_unclaimed():
    loss, model = models.siamese()
    loss = loss + 1e-3 * sum(p.pow(2).sum() for p in model.parameters())
    graph = trace(loss, model)
    assert graph.branches == ("Siamese#0", "Siamese#1", "unclaimed")
    assert branches_of(graph, "conv1.weight") == ("Siamese#0", "Siamese#1", "unclaimed")


@pytest.mark.parametrize("name", zoo.names())
def test_branches_worked_out_are_those_recorded(name):
    scene = zoo.scene(name)
    model = scene.build()
    batch = next(scene.batches(seed=0, size=4))
    guessed = trace(scene.loss(model, batch)[0], model)
    with gradflow.watch(model, branches=scene.watch_branches(model), stems=scene.stems):
        recorded = trace(scene.loss(model, batch)[0], model)
    assert all(node.inferred for node in guessed.nodes if node.kind == "op")
    assert not any(node.inferred for node in recorded.nodes)
    pairs = set()
    for mine, theirs in zip(guessed.parameters, recorded.parameters, strict=True):
        pairs |= set(zip([u.branch for u in mine.uses], [u.branch for u in theirs.uses], strict=True))
    told = {pair for pair in pairs if pair[0] is not None}
    assert len({a for a, _ in told}) == len({b for _, b in told}) == len(told), pairs


def test_names_can_be_given_to_what_was_found():
    loss, model = models.triplet()
    graph = trace(loss, model, branches=("anchor", "positive", "negative"))
    assert graph.branches == ("anchor", "positive", "negative")
    assert branches_of(graph, "encoder.fc.bias") == graph.branches


def test_names_that_do_not_fit_are_refused():
    loss, model = models.triplet()
    with pytest.raises(InvalidArgumentError, match="2 names for 3 paths") as error:
        trace(loss, model, branches=("left", "right"))
    assert "encoder#0, encoder#1, encoder#2" in error.value.do


def test_a_loss_without_a_graph_is_refused():
    with pytest.raises(InvalidArgumentError, match="no grad_fn"):
        trace(torch.ones(()))


def test_without_a_model_parameters_are_numbered():
    graph = trace(models.siamese()[0])
    assert {p.fqn for p in graph.parameters} == {f"parameter {i}" for i in range(6)}
    assert graph.branches == ("model#0", "model#1")


def test_several_models_are_told_apart():
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    graph = trace([a(torch.ones(1, 3)).sum(), b(torch.ones(1, 3)).sum()], [a, b])
    assert {p.fqn for p in graph.parameters} == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert graph.branches == ("0", "1")


def test_norms_are_those_of_the_edges():
    loss, model = models.tied()
    graph = trace(loss, model, norms=True)
    weight = next(p for p in graph.parameters if len(p.names) == 2)
    leaf = model.encoder.weight.detach().clone().requires_grad_()
    model.decoder.weight = nn.Parameter(model.encoder.weight.detach().clone())
    tokens = torch.tensor([[1, 2, 3]])
    hidden = torch.tanh(model.body(F.embedding(tokens, leaf)))
    again = F.cross_entropy(model.decoder(hidden).flatten(0, 1), tokens.flatten())
    first, last = torch.autograd.grad(again, [leaf, model.decoder.weight])
    assert [use.norm for use in weight.uses] == pytest.approx([first.norm().item(), last.norm().item()])


def test_norms_leave_gradients_and_the_graph_as_they_were():
    loss, model = models.triplet()
    trace(loss, model, norms=True)
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_norms_of_a_freed_graph_are_refused():
    loss, model = models.triplet()
    loss.backward()
    with pytest.raises(InvalidArgumentError, match="could not be measured"):
        trace(loss, model, norms=True)
    assert len(trace(loss, model).nodes) == 57


def test_saved_tensors_are_listed():
    x = torch.randn(5, requires_grad=True)
    graph = trace((x * x).exp().sum(), saved=True)
    kept = {node.name: [(one.name, one.shape, one.size_bytes) for one in node.saved] for node in graph.nodes}
    assert kept["ExpBackward0"] == [("result", (5,), 20)]
    assert kept["MulBackward0"] == [("other", (5,), 20), ("self", (5,), 20)]


def test_packed_saved_tensors_are_left_alone():
    calls = []
    layer = nn.Linear(3, 3)

    def run(x):
        calls.append(1)
        return torch.tanh(layer(x))

    loss = checkpoint(run, torch.randn(2, 3, requires_grad=True), use_reentrant=False).sum()
    graph = trace(loss, layer, saved=True)
    assert len(calls) == 1
    assert [one.dtype for node in graph.nodes if node.name == "TanhBackward0" for one in node.saved] == [
        "packed"
    ]


def test_what_a_graph_hides_is_told():
    layer = nn.Linear(3, 3)
    x = torch.randn(2, 3, requires_grad=True)
    graph = trace(checkpoint(lambda y: torch.tanh(layer(y)), x, use_reentrant=True).sum(), layer)
    assert graph.parameters == ()
    assert "1 × CheckpointFunctionBackward" in graph.notes[0]
    assert "use_reentrant=False" in str(graph)
    fused = nn.LSTM(3, 4)
    (note,) = trace(fused(torch.randn(2, 1, 3))[0].sum(), fused).notes
    assert "without time steps" in note
    assert trace(*models.triplet()).notes == ()


def test_measuring_norms_leaves_a_recording_as_it_would_be():
    def recorded(*, norms):
        torch.manual_seed(0)
        model = models.Wrapped()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with gradflow.watch(model, optimizer, branches=("a", "p", "n")) as flow:
            for batch in (models.images(3), models.images(3)):
                loss = F.triplet_margin_loss(*model(*batch))
                trace(loss, model, norms=norms)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return [(p.fqn, p.gram.tolist(), p.residual, p.uses) for step in flow.recording for p in step]

    assert recorded(norms=True) == recorded(norms=False)


def test_tracing_disturbs_nothing():
    loss, model = models.triplet()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    trace(loss, model, norms=True, saved=True)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("count", [6_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_deep_graphs_are_walked_without_recursion(count):
    y = torch.randn(2, requires_grad=True)
    for _ in range(count):
        y = y.sin()
    graph = trace(y.sum())
    assert len(graph.nodes) == count + 2
    assert len(graph.overview().nodes) <= 3


def test_a_deep_graph_that_was_traced_can_be_freed():
    """torch frees nodes that Python has seen recursively: without care, this kills the process."""
    code = (
        "import torch; from gradflow.capture.trace import trace\n"
        "y = torch.ones(1, requires_grad=True)\n"
        "for _ in range(120_000): y = y.sin()\n"
        "trace(y); del y; print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "alive", done.stderr[-500:]


def test_a_weight_used_a_thousand_times_is_followed():
    graph = trace(*models.chain(1000))
    assert uses_of(graph) == {"weight": 1000}
    assert [node.step for node in graph.nodes if node.name == "MmBackward0"] == list(range(999, -1, -1))


class Clip(nn.Module):
    """Two towers that meet in a product, scaled by a parameter."""

    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.text = nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, y):
        return self.scale.exp() * (F.normalize(self.image(x)) @ F.normalize(self.text(y)).T)


def test_two_towers_are_lanes_also_below_a_scale():
    model = Clip()
    loss = F.cross_entropy(model(torch.randn(4, 6), torch.randn(4, 5)), torch.arange(4))
    graph = trace(loss, model)
    assert graph.branches == ("image", "text", "Clip")
    assert branches_of(graph, "image.0.weight") == ("image",)
    assert branches_of(graph, "text.bias") == ("text",)


def transformer(layers=6):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def test_a_transformer_called_three_times_is_named_by_what_is_called():
    model = transformer(2)
    outs = [model(torch.randn(2, 3, 8)).mean(1) for _ in range(3)]
    graph = trace(F.triplet_margin_loss(*outs), model)
    assert graph.branches == tuple(f"TransformerEncoder#{i}" for i in range(3))  # not its list "layers"
    assert all(len(p.uses) == 3 for p in graph.parameters)


def test_residual_sums_of_a_transformer_belong_to_their_layer():
    model = transformer(6)
    graph = trace(model(torch.randn(2, 3, 8)).pow(2).mean(), model)
    sums = [node.path for node in graph.nodes if node.name == "AddBackward0"]
    assert {path.split(".")[1] for path in sums} == set("012345")
    view = graph.collapse(2)
    assert sorted(node.repeats for node in view.nodes if node.kind == "module") == [1, 5]


@pytest.mark.parametrize(
    "wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal]
)
def test_a_parametrized_weight_is_used_by_its_module(wrap):
    model = nn.Sequential(wrap(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4))
    graph = trace(F.triplet_margin_loss(*(model(torch.randn(4, 6)) for _ in range(3))), model)
    assert all(p.branches == graph.branches for p in graph.parameters)
    assert {use.call for p in graph.parameters for use in p.uses} == {
        f"{i}#{k}" for i in (0, 2) for k in range(3)
    }


def test_a_sum_without_a_parameter_that_two_calls_read_is_shared():
    net, x = (
        nn.ModuleDict({name: nn.Linear(3, 3) for name in ("one", "two", "left", "right")}),
        torch.ones(2, 3),
    )
    with gradflow.watch(net):
        z = (net["one"](x) + net["two"](x)).relu()
        graph = gradflow.trace((net["left"](z) + net["right"](z)).sum(), net)
    assert [node.branch for node in graph.nodes if node.name == "ReluBackward0"] == ["shared"]


def test_a_cast_that_all_branches_share_is_shared():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.triplet_margin_loss(*(model(torch.randn(4, 6)) for _ in range(3)))
    graph = trace(loss, model)
    assert branches_of(graph, "0.weight") == ("shared",)
    lanes = {node.branch for node in graph.nodes if node.name == "AddmmBackward0"}
    assert lanes == {"Sequential#0", "Sequential#1", "Sequential#2"}


def test_an_unrolled_kernel_of_two_layers_stays_readable():
    model = nn.GRU(3, 4, 2, batch_first=True)
    graph = trace(model(torch.randn(2, 6, 3))[0].sum(), model)
    assert len(graph.overview().nodes) < 20


def test_a_scalar_parameter_holds_one_number():
    scale = nn.Parameter(torch.tensor(2.0))
    graph = trace((scale * torch.ones(3)).sum())
    assert [node.numel for node in graph.nodes if node.kind == "parameter"] == [1]

"""What the users of other tools ask, where gradflow has an answer."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from workbench import PATHS, dense, descend, number, percent, run

import gradflow
from gradflow import data, zoo
from gradflow.zoo import multitask, simsiam


@number("P1")
def averaged() -> str:
    """Tell a sum from an average under three paths."""
    p = run("triplet").last["fc.weight"]
    whole = sum(p.contribution(name) for name in PATHS)
    ratio = (p.total.ravel() @ whole.ravel()) / (whole.ravel() @ whole.ravel())
    return f"`.grad` is {ratio:.2f} × the sum of the three, {3 * ratio:.2f} × their average"


@number("P2")
def run_twice() -> str:
    """Give the largest difference between the sum of both calls and what the module received."""
    step = run("contrastive").last
    return f"2 calls, {len(step)} parameters, largest difference {max(p.residual for p in step)}"


@number("P3")
def at_each_time_step() -> str:
    """Read the gradient of the recurrent weight at each time step."""
    p = run("rnn")[0]["cell.weight_hh"]
    return (
        f"{len(p.contributors)} rows, {len(p.contributors)} gradients, from one backward; {p.residual} lost"
    )


@number("P4")
def vanishing() -> str:
    """Compare the last time step with an early one, while the sum looks healthy."""
    p = run("rnn")[0]["cell.weight_hh"]
    assert p.norms["row 14"] > 1000 * p.norms["row 2"] > 0
    return f"row 14 brings over {1000:,} × what row 2 brings; the sum's norm is {p.total_norm:.2f}"


@number("P5")
def fused() -> str:
    """Count uses of an LSTM's weight, fused and by cells."""
    fused = run("siamese_lstm").last["encoder.lstm.weight_hh_l0"].uses
    cells = run("siamese_lstm_cells").last["encoder.cell.weight_hh"].uses
    return f"2 images of 28 rows: {len(fused)} uses of a fused LSTM, {len(cells)} of a cell"


@number("P6")
def several_calls() -> str:
    """Tell the calls of one module apart."""
    norms = run("triplet").last["blocks.4.conv.weight"].norms
    return ", ".join(f"{name} {norms[name]:.1f}" for name in PATHS)


def hardest(distances: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Give each anchor's farthest positive and nearest negative, from all squared distances ``[B, B]``."""
    same = classes[:, None] == classes[None]
    return (distances - 1e9 * ~same).amax(dim=1), (distances + 1e9 * same).amin(dim=1)


@number("P7")
def stuck_at_the_margin() -> str:
    """Train on the hardest triplets of each batch at a high rate: loss, and how far embeddings spread."""
    images, labels = data.digits()
    encoder, rng = dense(), np.random.default_rng(0)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    for _ in range(60):
        chosen = np.concatenate(
            [rng.choice(500, 8, replace=False) + 500 * c for c in rng.permutation(10)[:4]]
        )
        z = encoder(F.interpolate(torch.tensor(images[chosen]), size=(32, 32)))
        positive, negative = hardest((z[:, None] - z[None]).square().sum(-1), torch.tensor(labels[chosen]))
        loss = F.relu(positive - negative + 0.2).mean()
        descend(loss, optimizer)
    spread = z.std(dim=0).mean().item()
    return f"margin 0.2, hardest triplets, 60 steps: loss {loss.item():.4f}, spread {spread:.4f}"


@number("P8")
def the_other_branch() -> str:
    """Tell how far the embeddings of the view without gradient move in one step."""
    torch.manual_seed(0)
    network = simsiam.SimSiam()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    first, second = next(simsiam.batches(0))
    before = [network.encoder(x).detach() for x in (first, second)]
    with gradflow.watch(network, optimizer, branches=("view 1", "view 2")) as flow:
        descend(simsiam.loss_one_sided(network, (first, second))[0], optimizer)
    absent = flow.recording.last["encoder.0.weight"].absent
    after = [network.encoder(x).detach() for x in (first, second)]
    one, other = (percent(((z - z0).norm() / z0.norm()).item()) for z0, z in zip(before, after, strict=True))
    return f"absent: {', '.join(absent)}; its embeddings move by {other}, the other's by {one}"


@number("P9")
def no_stop_gradient() -> str:
    """Give loss and spread of SimSiam after 20 steps, without and with its stop-gradient."""
    told = []
    for words, name in (("without", "simsiam_without_stop"), ("with", "simsiam")):
        scalars = run(name, 20).last.scalars
        told.append(f"{words}: loss {scalars['loss']:.1f}, spread {scalars['spread']:.1f}")
    return "; ".join(told)


@number("P10")
def a_plus_a() -> str:
    """Use one weight twice in one sum."""
    a = torch.nn.Linear(1, 1, bias=False)
    x = torch.ones(1, 1)
    with gradflow.watch(a, branches=("first", "second")) as flow:
        (a(x) + a(x)).sum().backward()
        flow.step()
    p = flow.recording.last["weight"]
    parts = " + ".join(f"{norm:.0f}" for norm in p.norms.values())
    return f"a + a: {len(p.uses)} uses, gradients {parts} = {p.total_norm:.0f}"


@number("P11")
def deep_graphs() -> str:
    """Trace a graph that is deeper than Python's recursion limit."""
    cell = torch.nn.Linear(2, 2)
    x: Tensor = torch.ones(1, 2)
    for _ in range(2000):
        x = torch.tanh(cell(x))
    graph = gradflow.trace(x.sum(), cell)
    return f"{len(graph.nodes):,} nodes traced, {len(graph.collapse(depth=1).nodes)} after folding"


@number("P12")
def conflict() -> str:
    """Train a trunk for three tasks: cosines and loudness of two, and what became of the quiet one."""
    torch.manual_seed(0)
    network = multitask.MultiTask()
    optimizer, rose = torch.optim.SGD(network.trunk.parameters(), lr=0.01), 0
    with gradflow.watch(network, optimizer, branches=multitask.modules(network), stems="split") as flow:
        for batch in islice(multitask.batches(seed=0), 60):
            loss, before = multitask.loss(network, batch)
            descend(loss, optimizer)
            network.zero_grad()
            rose += int(multitask.loss(network, batch)[1]["drawing"] > before["drawing"])
    trunks = [step.layer("trunk") for step in flow.recording]
    cosines = [trunk.cosine("digit", "drawing") for trunk in trunks]
    loud, quiet = (sum(trunk.norms[task] for trunk in trunks) for task in ("digit", "drawing"))
    return (
        f"digit and drawing: cosine {min(cosines):.1f} to {max(cosines):.1f}, digit {loud / quiet:.0f} × as "
        f"loud; drawing's loss rose in {rose} of {len(trunks)} steps"
    )


@number("P13")
def only_some_parameters() -> str:
    """Watch some parameters only."""
    scene = zoo.scene("triplet")
    model = scene.build()
    with gradflow.watch(model, branches=scene.branches, params=["*.conv.weight"]) as flow:
        scene.loss(model, next(scene.batches(0)))[0].backward()
        flow.step()
    return f"`params=['*.conv.weight']` watches {len(flow.recording.last)} of {len(list(model.parameters()))}"

"""Batches that were concatenated before one forward, and the terms of a loss."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet

ROWS = {"anchor": slice(0, 5), "positive": slice(5, 10), "negative": slice(10, 15)}


def normed():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))


def concatenated(net, x, tell=True):
    z = net(x)
    return triplet(*(gradflow.branch.rows(z, ROWS) if tell else z).split(5))


def by_rows(net, x):
    """Oracle: the cotangent of the whole output, cut into rows, one VJP for each cut."""
    twin = laws.clean_copy(net)
    params = dict(twin.named_parameters())
    z = twin(x)
    (cotangent,) = torch.autograd.grad(triplet(*z.split(5)), [z], retain_graph=True)
    found = {}
    for name, rows in ROWS.items():
        cut = torch.zeros_like(cotangent)
        cut[rows] = cotangent[rows]
        grads = torch.autograd.grad(z, params.values(), cut, retain_graph=True)
        found[name] = dict(zip(params, grads, strict=True))
    return found


@pytest.mark.proves(
    row=10, situation="a batch concatenated first, batch-norm included", verdict="exact with `branch.rows`"
)
@pytest.mark.parametrize("make", [encoder, normed], ids=["plain", "batch-norm"])
def test_concatenated_batch_is_told_apart_by_rows(make):
    net, x = make(), torch.cat(triple())
    truth = by_rows(net, x)
    with gradflow.watch(net, keep="tensors") as flow:
        concatenated(net, x).backward()
        grads = {n: p.grad.clone() for n, p in net.named_parameters()}
        flow.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    assert step.branches == NAMES
    for p in step:
        assert set(p.contributors) <= {*NAMES, "rounding"}
        np.testing.assert_array_equal(p.total, grads[p.fqn].numpy())
        for name in NAMES:
            np.testing.assert_array_equal(p.contribution(name), truth[name][p.fqn].numpy())
    assert any(f.code == "passes" and "3 more backward passes" in f.text for f in step.findings)


def test_telling_rows_apart_changes_no_gradient():
    torch.manual_seed(3)
    net, x = normed(), torch.cat(triple())
    twin = laws.clean_copy(net)
    with gradflow.watch(net) as flow:
        concatenated(net, x).backward()
        flow.step()
    concatenated(twin, x, tell=False).backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_rows_of_no_branch_are_unclaimed():
    net, x = encoder(), torch.cat(triple())
    with gradflow.watch(net, keep="tensors") as flow:
        z = gradflow.branch.rows(net(x), {"anchor": [0, 1, 2, 3, 4]})
        triplet(*z.split(5)).backward()
        flow.step()
    weight = flow.recording.last["0.weight"]
    assert set(weight.contributors) - {"rounding"} == {"anchor", "unclaimed"}
    truth = by_rows(net, x)
    np.testing.assert_array_equal(weight.contribution("anchor"), truth["anchor"]["0.weight"].numpy())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"a": slice(0, 3), "b": slice(2, 4)}, "row 2"),
        ({"a": [99]}, "15 rows"),
        ({"decay": slice(0, 3)}, "decay"),
    ],
    ids=["twice", "beyond", "reserved"],
)
def test_rows_that_make_no_sense_are_refused(rows, words):
    with pytest.raises(gradflow.GradflowError, match=words):
        gradflow.branch.rows(torch.ones(15, 2, requires_grad=True) * 1, rows)


def test_rows_and_terms_do_nothing_when_nobody_watches():
    z = torch.ones(15, 2, requires_grad=True) * 1
    assert gradflow.branch.rows(z, ROWS) is z
    assert gradflow.branch.term("pull", z) is z


def pull_and_push(net, xs, name_them=lambda _name, value: value):
    a, p, n = map(net, xs)
    pull = name_them("pull", F.pairwise_distance(a, p))
    push = name_them("push", F.pairwise_distance(a, n))
    return F.relu(pull - push + 5).mean(), (a, p, n), (pull, push)


def test_terms_of_a_loss_are_told_apart_along_every_branch():
    net, xs = encoder(), triple()
    twin = laws.clean_copy(net)
    loss, outputs, terms = pull_and_push(twin, xs)
    cotangents = torch.autograd.grad(loss, terms, retain_graph=True)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        pull_and_push(net, xs, gradflow.branch.term)[0].backward()
        flow.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    for fqn, param in twin.named_parameters():
        table = step[fqn].terms
        assert (table.contributors, table.terms) == (NAMES, ("pull", "push", "unclaimed"))
        cells = []
        for output in outputs:
            for term, cotangent in zip(terms, cotangents, strict=True):
                (at,) = torch.autograd.grad(term, [output], cotangent, retain_graph=True, allow_unused=True)
                if at is None:
                    cells.append(np.zeros(param.numel()))
                else:
                    (g,) = torch.autograd.grad(output, [param], at, retain_graph=True)
                    cells.append(g.double().numpy().ravel())
            cells.append(np.zeros(param.numel()))
        rows = np.stack(cells)
        scale = np.abs(rows @ rows.T).max()
        np.testing.assert_allclose(table.gram, rows @ rows.T, atol=1e-6 * scale)
        np.testing.assert_allclose(table.norms, np.linalg.norm(rows, axis=1).reshape(3, 3), atol=1e-6)
    weight = step["0.weight"].terms
    assert weight.along("positive").norms["push"] == 0.0
    assert weight.by_term.norms["pull"] > 0
    assert weight.along("anchor").cosine("pull", "push") == pytest.approx(
        weight.along("anchor").cosine("push", "pull")
    )


def test_part_of_a_loss_outside_every_term_is_unclaimed_in_the_table():
    net, xs = encoder(), triple()
    with gradflow.watch(net, branches=NAMES) as flow:
        loss, outputs, _ = pull_and_push(net, xs, gradflow.branch.term)
        (loss + outputs[2].square().mean()).backward()
        flow.step()
    table = flow.recording.last["0.weight"].terms
    assert table.along("negative").norms["unclaimed"] > 0.1
    assert table.along("anchor").norms["unclaimed"] < 1e-6

"""Losses and miners of pytorch-metric-learning, watched."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, regularizers

import gradflow
from gradflow import data
from gradflow.errors import InvalidArgumentError
from gradflow.integrations.metric_learning import by_label, by_role
from tests import laws
from tests.integrations.triplets import encoder

COSINE = distances.CosineSimilarity()


def batch(seed=0, size=12):
    images, labels = data.digits()
    rows = np.random.default_rng(seed).choice(1500, size)  # the digits 0, 1 and 2
    return torch.tensor(images[rows]), torch.tensor(labels[rows])


def train(step_of, watched=True, steps=2, **options):
    """Train with ``step_of(net, x, y)``, which gives the loss: (record, what is left, weights over time)."""
    net = encoder()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    flow = gradflow.watch(net, optimizer, keep="tensors", **options) if watched else None
    values, before = [], []
    for seed in range(steps):
        before.append(laws.copies(net))
        loss = step_of(net, *batch(seed))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.detach())
    before.append(laws.copies(net))
    if flow is not None:
        flow.close()
    return flow and flow.recording, laws.state_of(net, [optimizer], values), before


def by_rows(state, step_of, seed, rows_of):
    """The oracle: the gradient at the embeddings, cut by rows, each sent through the encoder on its own."""
    net = encoder()
    net.load_state_dict(state)
    images, labels = batch(seed)
    embeddings = net(images)
    end = embeddings.detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(step_of(lambda _x: end, images, labels), [end])
    found = {}
    for name, rows in rows_of(embeddings, labels).items():
        mask = torch.zeros(len(images), 1)
        mask[rows] = 1.0
        grads = torch.autograd.grad(embeddings, net.parameters(), cotangent * mask, retain_graph=True)
        found[name] = dict(zip(dict(net.named_parameters()), grads, strict=True))
    return found


def assert_rows_are_those_of_the_oracle(step_of, rows_of):
    recording, state, before = train(step_of)
    laws.assert_bitwise_equal(state, train(step_of, watched=False)[1])
    for i, step in enumerate(recording):
        laws.assert_gradient_conserved(step)
        laws.assert_delta_conserved(step, before[i], before[i + 1])
        truth = by_rows(before[i], step_of, i, rows_of)
        assert step.branches == tuple(truth)
        for p in step:
            effort = sum(truth[name][p.fqn].abs().max().item() for name in truth)
            for name in truth:
                found = p.contribution(name) if name not in p.absent else np.zeros(p.shape)
                np.testing.assert_allclose(found, truth[name][p.fqn], atol=1e-6 * effort, rtol=0)
    return recording


SEMIHARD = miners.TripletMarginMiner(margin=0.3, type_of_triplets="semihard", distance=COSINE)
TRIPLET = losses.TripletMarginLoss(margin=0.3, distance=COSINE)
PAIRS = miners.MultiSimilarityMiner(epsilon=0.1)
CONTRASTIVE = losses.ContrastiveLoss(pos_margin=1, neg_margin=0, distance=COSINE)


@pytest.mark.parametrize(
    ("miner", "loss"), [(SEMIHARD, TRIPLET), (PAIRS, CONTRASTIVE)], ids=["triplets", "pairs"]
)
def test_roles_that_a_miner_gave_are_branches(miner, loss):
    def step_of(net, images, labels):
        embeddings = net(images)
        mined = miner(embeddings, labels)
        return loss(by_role(embeddings, mined), labels, mined)

    def rows_of(embeddings, labels):
        mined = [positions.tolist() for positions in miner(embeddings, labels)]
        if len(mined) == 4:
            mined = [mined[0] + mined[2], mined[1], mined[3]]
        anchors, positives, negatives = map(set, mined)
        names = {}
        for row in range(len(labels)):
            roles = [
                role
                for role, rows in (("anchor", anchors), ("positive", positives), ("negative", negatives))
                if row in rows
            ]
            names.setdefault(" + ".join(roles) or "not mined", []).append(row)
        singles = [n for n in ("anchor", "positive", "negative") if n in names]
        several = sorted(n for n in names if "+" in n)
        return {n: names[n] for n in (*singles, *several, *(n for n in names if n == "not mined"))}

    recording = assert_rows_are_those_of_the_oracle(step_of, rows_of)
    assert any("+" in name for name in recording.branches)


def test_rows_that_were_not_mined_bring_nothing_but_what_a_regularizer_sends():
    plain = losses.TripletMarginLoss(margin=0.3)
    penalty = losses.TripletMarginLoss(margin=0.3, embedding_regularizer=regularizers.LpRegularizer())
    mined = tuple(torch.tensor([row]) for row in (0, 1, 2))
    for loss, is_zero in ((plain, True), (penalty, False)):

        def step_of(net, images, labels, loss=loss):
            return loss(by_role(net(images), mined), labels, mined)

        [step] = train(step_of, steps=1)[0]
        assert (step["1.weight"].norms["not mined"] == 0.0) is is_zero
        assert step["1.weight"].norms["anchor"] > 0


def test_classes_are_branches():
    loss = losses.NTXentLoss(temperature=0.5)

    def step_of(net, images, labels):
        return loss(by_label(net(images), labels, {0: "zeros"}), labels)

    def rows_of(_embeddings, labels):
        names = {0: "zeros", 1: "class 1", 2: "class 2"}
        return {names[c]: (labels == c).nonzero().flatten() for c in labels.unique().tolist()}

    assert_rows_are_those_of_the_oracle(step_of, rows_of)


def test_queries_and_references_are_two_calls_and_need_no_rows():
    loss = losses.TripletMarginLoss(margin=0.3)

    def step_of(net, images, labels):
        query, reference = net(images[:6]), net(images[6:])
        return loss(query, labels[:6], ref_emb=reference, ref_labels=labels[6:])

    names = ("query", "reference")
    recording, state, before = train(step_of, branches=names)
    laws.assert_bitwise_equal(state, train(step_of, watched=False)[1])
    for i, step in enumerate(recording):
        laws.assert_gradient_conserved(step)
        net = encoder()
        net.load_state_dict(before[i])
        truth = laws.two_stage(net, lambda m, i=i: step_of(m, *batch(i)), "", names)
        for p in step:
            for name in names:
                np.testing.assert_allclose(p.contribution(name), truth[name][p.fqn], rtol=1e-5, atol=1e-7)


def test_a_memory_of_past_batches_brings_no_gradient_and_takes_none():
    """Cross-batch memory: the loss grows by past embeddings, the paths do not."""
    first = {}

    def run(watched):
        memory = losses.CrossBatchMemory(losses.ContrastiveLoss(), embedding_size=3, memory_size=24)

        def step_of(net, images, labels):
            embeddings = net(images)
            return memory(by_label(embeddings, labels) if watched else embeddings, labels)

        recording, state, _ = train(step_of, watched=watched, steps=3)
        first[watched] = memory.embedding_memory.clone()
        return recording, state

    recording, state = run(True)
    laws.assert_bitwise_equal(state, run(False)[1])
    assert torch.equal(first[True], first[False])
    for step in recording:
        laws.assert_gradient_conserved(step)
        assert set(step.branches) == {"class 0", "class 1", "class 2"}
        assert [f for f in step.findings if f.code == "unclaimed"] == []


def test_what_is_no_batch_is_refused():
    embeddings = encoder()(batch()[0])
    with pytest.raises(InvalidArgumentError, match="do not go with 12 embeddings"):
        by_label(embeddings, torch.zeros(3))
    with pytest.raises(InvalidArgumentError, match="neither triplets nor pairs"):
        by_role(embeddings, (torch.tensor([0]),))

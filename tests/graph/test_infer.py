"""Modules, branches and steps from hand-written graphs, without torch."""

import dataclasses

import pytest

from gradflow.graph.infer import infer
from gradflow.graph.skeleton import Owner, Skeleton


def graph(*nodes, owners=(), **facts):
    """Make a skeleton of ``(name, numel, children)``, or of parameter numbers; the last was made first."""
    leaves = {i: node for i, node in enumerate(nodes) if isinstance(node, int)}
    full = [("AccumulateGrad", 4, []) if i in leaves else node for i, node in enumerate(nodes)]
    return Skeleton(
        names=[name for name, _, _ in full],
        numels=[numel for _, numel, _ in full],
        order=list(range(len(full), 0, -1)),
        children=[children for _, _, children in full],
        leaves=leaves,
        owners=[tuple(Owner(path, "Linear") for path in paths) for paths in owners],
        home="Net",
        **facts,
    )


NONE = -1  # an input that needs no gradient
THREE_CALLS = (
    ("SumBackward0", 1, [1, 2, 3]),
    ("MmBackward0", 6, [NONE, 4]),
    ("MmBackward0", 6, [NONE, 4]),
    ("MmBackward0", 6, [NONE, 4]),
    0,
)


def test_three_uses_of_one_weight_are_three_branches_in_forward_order():
    labels = infer(graph(*THREE_CALLS, owners=[["encoder"]]))
    assert labels.branches == labels.paths == ("encoder#0", "encoder#1", "encoder#2")
    assert labels.branch == [None, "encoder#2", "encoder#1", "encoder#0", None]
    assert labels.calls[3] == (("", 0), ("encoder", 0))


def test_what_is_at_the_root_is_named_after_the_model():
    assert infer(graph(*THREE_CALLS, owners=[[""]])).branches == ("Net#0", "Net#1", "Net#2")


def test_a_list_of_modules_is_no_name_for_a_branch():
    skeleton = graph(*THREE_CALLS, owners=[["layers.0"]], lists=frozenset({"layers"}))
    assert infer(skeleton).branches[0] == "layers.0#0"
    deeper = graph(
        ("SumBackward0", 1, [1, 3]), ("MmBackward0", 6, [2, 5]), ("MmBackward0", 6, [NONE, 6]),
        ("MmBackward0", 6, [4, 5]), ("MmBackward0", 6, [NONE, 6]), 0, 1,
        owners=[["layers.1"], ["layers.0"]], lists=frozenset({"layers"}),
    )  # fmt: skip
    assert infer(deeper).branches == ("Net#0", "Net#1")


def test_a_weight_that_feeds_itself_makes_steps():
    chain = graph(
        ("SumBackward0", 1, [1]), ("TanhBackward0", 6, [2]), ("MmBackward0", 6, [3, 6]),
        ("TanhBackward0", 6, [4]), ("MmBackward0", 6, [NONE, 6]), ("Unused", 1, [NONE]), 0,
        owners=[["cell"]],
    )  # fmt: skip
    labels = infer(chain)
    assert labels.step[:5] == [None, 1, 1, 0, 0]
    assert labels.branch[:5] == [None, "cell#1", "cell#1", "cell#0", "cell#0"]


def test_a_plain_chain_has_no_branches():
    plain = graph(
        ("MseLossBackward0", 1, [1]), ("MmBackward0", 6, [2, 3]), ("MmBackward0", 6, [NONE, 4]), 0, 1,
        owners=[["fc2"], ["fc1"]],
    )  # fmt: skip
    labels = infer(plain)
    assert labels.branches == ()
    assert [calls[-1:] for calls in labels.calls[:3]] == [(), (("fc2", 0),), (("fc1", 0),)]


def test_a_penalty_is_unclaimed():
    penalty = graph(
        ("AddBackward0", 1, [1, 3]), ("SumBackward0", 1, [2]), ("MmBackward0", 6, [NONE, 5]),
        ("SumBackward0", 1, [4]), ("PowBackward0", 4, [5]), 0,
        owners=[["fc"]],
    )  # fmt: skip
    assert infer(penalty).branch == [None, None, None, "unclaimed", "unclaimed", None]


@pytest.mark.parametrize("shift", [1, 2])
def test_branches_are_numbered_by_when_they_were_made_not_by_where_they_stand(shift):
    skeleton = graph(*THREE_CALLS, owners=[["encoder"]])
    made = [9, *[3 + (i + shift) % 3 for i in range(3)], 1]
    labels = infer(dataclasses.replace(skeleton, order=made))
    by_time = sorted(range(1, 4), key=made.__getitem__)
    assert [labels.branch[at] for at in by_time] == ["encoder#0", "encoder#1", "encoder#2"]

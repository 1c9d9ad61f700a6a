"""Nested boxes: a tree in which nothing is lost, open where the view is."""

import pytest

from gradflow.capture.trace import trace
from gradflow.graph.nest import nest
from tests.graph import models

MODELS = ("triplet", "siamese", "verifier", "unrolled", "lstm_cell", "tied", "multitask", "resnet")


def children_of(found):
    kids = [[] for _ in found.boxes]
    for place, parent in enumerate(found.parents):
        if parent >= 0:
            kids[parent].append(place)
    return kids


@pytest.fixture(params=MODELS)
def graph(request):
    return trace(*getattr(models, request.param)())


def test_parents_stand_before_their_children_and_hold_at_least_two(graph):
    found = nest(graph)
    assert all(parent < place for place, parent in enumerate(found.parents))
    assert all(len(kids) != 1 for kids in children_of(found))


def test_every_use_is_an_edge_into_a_leaf(graph):
    found = nest(graph)
    kids = children_of(found)
    assert all(not kids[source] and not kids[target] for source, target, _ in found.edges)
    into = sum(edge.members for _, target, edge in found.edges if found.boxes[target].kind == "parameter")
    assert into == sum(len(p.uses) for p in graph.parameters)


def test_what_is_open_shows_the_overview(graph):
    view = graph.overview()
    found = nest(view)
    is_open = set(found.opened)
    shown = [
        box
        for place, box in enumerate(found.boxes)
        if place not in is_open and (found.parents[place] < 0 or found.parents[place] in is_open)
    ]
    assert len(shown) == len(view.nodes)
    assert sorted(box.name for box in shown) == sorted(node.name for node in view.nodes)


def test_equal_blocks_stand_in_one_box():
    found = nest(trace(*models.resnet()))
    blocks = [place for place, box in enumerate(found.boxes) if box.repeats == 5 and box.kind == "module"]
    assert len(blocks) == 3
    assert [len(children_of(found)[place]) for place in blocks] == [5, 5, 5]


def test_a_graph_that_is_too_large_stops_at_smaller_boxes():
    graph = trace(*models.resnet())
    found = nest(graph, most=300)
    assert len(found.boxes) < 400
    assert (
        sum(edge.members for _, target, edge in found.edges if found.boxes[target].kind == "parameter") == 483
    )

"""A record is put together when somebody asks for it: when that is makes no difference."""

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import gradflow
from gradflow.capture.known import Known, Records
from gradflow.record import ParamStep
from tests.capture.test_branches import NAMES, encoder, triple, triplet

STEPS = 4


def recorded(look=lambda _step: None):
    """Give the steps of a short training without a watched optimizer, each looked at as soon as it ends."""
    torch.manual_seed(0)
    net = encoder()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradflow.watch(net, branches=NAMES) as flow:
        for seed in range(STEPS):
            opt.zero_grad()
            triplet(*map(net, triple(seed))).backward()
            opt.step()
            flow.step()
            look(flow.recording.last)
    return list(flow.recording)


def plain(record):
    """Give all of a record, arrays as lists."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in fields.items()}


def test_a_step_that_nobody_looked_at_is_what_it_was_when_it_was_closed():
    for here, there in zip(recorded(), recorded(look=list), strict=True):
        assert here.params == there.params
        assert [plain(p) for p in here] == [plain(p) for p in there]


def test_a_step_that_nobody_looked_at_holds_numbers_and_names():
    last = recorded()[-1].parameters
    assert isinstance(last, Records)
    for part in last._held:
        assert isinstance(part, Known)
        assert part.numbers.base is None  # a view would hold what the next step is read into
    assert len(last) == len(list(last.values())) > 0
    assert all(isinstance(part, ParamStep) for part in last.values())


def test_steps_that_are_alike_share_all_but_their_numbers():
    first, *others = recorded()[1:]  # the first step of all keeps its contributions
    for step in others:
        for here, there in zip(first.parameters._held, step.parameters._held, strict=True):
            assert here.layout is there.layout
            assert here.numbers is not there.numbers


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, lambda step: pickle.loads(pickle.dumps(step))])
def test_a_copy_or_a_pickle_is_of_plain_records(carry):
    step = recorded()[-1]
    twin = carry(step)
    assert twin.params == step.params
    assert [plain(p) for p in twin] == [plain(p) for p in step]
    assert carry is copy.copy or type(twin.parameters) is dict


def test_records_are_equal_to_a_dict_of_the_same():
    records = recorded()[-1].parameters
    twin = dict(records)
    assert records == twin
    assert twin == records
    assert records != {}


def test_several_threads_may_ask_at_once():
    for step in recorded():
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda one: tuple(one.params), [step] * 32))
        assert set(found) == {step.params}
        assert len(step.params) == len(step) > 0

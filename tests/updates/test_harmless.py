"""Law 3: a run with the splitter and one without are bitwise the same, and nothing waits for a device."""

import ast
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gradflow.updates
from gradflow.updates import DeltaSplitter
from tests.updates.cases import FAMILIES, cases, make
from tests.updates.training import Training, contributions, parameters, summed

CASES = [case for case in cases() if not case.schedule]


class Plain(Training):
    """The same run, with nobody looking."""

    def advance(self, *, watched=True):
        self.brought()
        self.optimizer.step()
        self.step += 1


def image(training):
    """Everything a user could notice: parameters, gradients, state of the optimizer and of the generator."""
    state = training.optimizer.state_dict()
    flat = [p.detach().clone() for p in training.params] + [p.grad.clone() for p in training.params]
    for entries in state["state"].values():
        flat += [torch.as_tensor(value).clone() for value in entries.values()]
    return flat, [sorted(e) for e in state["state"].values()], torch.get_rng_state()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_run_is_bitwise_the_same(case):
    images = []
    for kind in (Training, Plain):
        torch.manual_seed(0)
        training = kind(make(case.family, case.options, parameters(case.dtype, case.family.shapes)))
        training.run(10)
        images.append(image(training))
    (flat, keys, rng), (plain_flat, plain_keys, plain_rng) = images
    assert all(torch.equal(a, b) for a, b in zip(flat, plain_flat, strict=True))
    assert keys == plain_keys
    assert torch.equal(rng, plain_rng)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_contributions_are_left_alone(family):
    run = Training(family.optimizer(parameters(shapes=family.shapes), lr=family.lr))
    for seen in (seen for step in run.run(5) for seen in step):
        again = contributions(0, seen.param)
        assert all(g._version == again[name]._version for name, g in seen.contributions.items())
    first = Training(family.optimizer(parameters(shapes=family.shapes), lr=family.lr)).advance()
    for number, seen in enumerate(first):
        again = contributions(0, seen.param, number=number)
        assert all(torch.equal(g, again[name]) for name, g in seen.contributions.items())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_optimizer_that_never_stepped_gets_no_state(family):
    params = parameters(shapes=family.shapes)
    optimizer = family.optimizer(params, lr=family.lr)
    before = {id(p) for p in optimizer.state}
    splitter = DeltaSplitter(optimizer)
    for param in params:
        parts = contributions(0, param)
        param.grad = summed(parts)
        splitter.before(param, parts)
    assert {id(p) for p in optimizer.state} == before  # a lookup by [] would have made an entry


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the processor wait for a device: values and shapes that depend on data."""

    waits = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique2",
        "unique_dim",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._schema.name.removeprefix("aten::") not in self.waits, func
        return func(*args, **kwargs or {})


def watched_quietly(training):
    """One step; the splitter's own work runs where nothing may wait."""
    splitter = training.splitter
    every = training.brought()
    with torch.no_grad():
        thetas = {param: param.detach().clone() for param in every}
        with NoWaiting():
            for param, parts in every.items():
                splitter.before(param, parts)
        training.optimizer.step()
        with NoWaiting():
            splits = [splitter.after(param, thetas[param]) for param in every]
            splitter.unwatched()
    training.step += 1
    return splits


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_waits_for_a_device(case):
    training = Training(make(case.family, case.options, parameters(case.dtype, case.family.shapes)))
    for _ in range(3):
        splits = watched_quietly(training)
    assert all(split.parts for split in splits)


def test_the_test_for_waiting_can_fail():
    with pytest.raises(AssertionError), NoWaiting():
        float(torch.ones(()))


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_contribution_may_be_the_gradient_itself(nesterov):
    """Nesterov with foreach uses ``param.grad`` as scratch space."""
    (param,) = parameters(shapes=((4, 3),))
    optimizer = torch.optim.SGD([param], lr=0.1, momentum=0.9, nesterov=nesterov, foreach=True)
    splitter = DeltaSplitter(optimizer)
    for step in range(3):
        param.grad = contributions(step, param)["anchor"]
        theta = param.detach().clone()
        with torch.no_grad():
            splitter.before(param, {"only": param.grad})
            optimizer.step()
            part = splitter.after(param, theta).parts["only"]
        assert torch.allclose(part, param.detach() - theta, atol=1e-6)


def test_gradients_through_the_step_are_the_same():
    """With ``differentiable`` the user may differentiate the step itself, by the learning rate here."""

    def hypergradient(watch):
        lr = torch.tensor(0.1, requires_grad=True)
        param = torch.ones(3).requires_grad_().clone()
        param.retain_grad()
        optimizer = torch.optim.Adam([param], lr=lr, differentiable=True)
        splitter = DeltaSplitter(optimizer)
        for step in range(2):
            param.grad = contributions(step, param)["anchor"]
            theta = param.detach().clone()
            with torch.no_grad():
                if watch:
                    splitter.before(param, {"only": param.grad})
            optimizer.step()
            with torch.no_grad():
                if watch:
                    assert not splitter.after(param, theta).parts["only"].requires_grad
        param.sum().backward()
        return lr.grad

    assert torch.equal(hypergradient(True), hypergradient(False))


def test_only_watched_parameters_take_memory():
    params = parameters(shapes=((40, 3), (50,)))
    optimizer = torch.optim.Adam(params)
    splitter = DeltaSplitter(optimizer)
    assert splitter.memory_bytes() == 0
    parts = contributions(0, params[0])
    for param in params:
        param.grad = summed(contributions(0, param))
    with torch.no_grad():
        splitter.before(params[0], parts)
        optimizer.step()
        splitter.after(params[0], params[0].detach().clone())
    assert splitter.memory_bytes() == 3 * 40 * 3 * 4  # three contributors, float32


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adadelta", "ASGD", "RMSprop", "Adafactor"])
def test_without_momentum_nothing_is_kept(name):
    family = next(f for f in FAMILIES if f.name == name)
    training = Training(family.optimizer(parameters(shapes=family.shapes), lr=family.lr))
    training.run(3)
    assert training.splitter.memory_bytes() == 0


def test_the_rules_know_nothing_of_capture():
    for source in Path(gradflow.updates.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert all(
                n.startswith("gradflow.updates") or n == "gradflow.errors" for n in names if "gradflow" in n
            )

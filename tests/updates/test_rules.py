"""Which rule an optimizer gets, how a user adds one, and what is said where there is none."""

import inspect

import pytest
import torch
from torch.optim import Optimizer

from gradflow.errors import InvalidArgumentError
from gradflow.updates import Accumulate, DeltaSplitter, Frozen, adam, register, rules
from tests.updates.training import Training, assert_conserved, contributions, parameters


@pytest.fixture(autouse=True)
def _forget_what_the_test_registers():
    known = dict(rules._RULES)
    yield
    rules._RULES.clear()
    rules._RULES.update(known)


class HeavyBall(Optimizer):
    """``v = mu v - lr g``, ``theta = theta + v``: the learning rate goes into the momentum."""

    def __init__(self, params, lr, mu):
        super().__init__(params, {"lr": lr, "mu": mu})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    v = self.state[p].setdefault("velocity", torch.zeros_like(p))
                    v.mul_(group["mu"]).sub_(p.grad, alpha=group["lr"])
                    p.add_(v)


def heavy_ball(step):
    memory = Accumulate(keep=step.option("mu"), take=-step.option("lr"))
    return Frozen(memory=memory, momentum=1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_user_registers_a_rule_of_their_own(dtype):
    register(HeavyBall, momentum="velocity")(heavy_ball)
    training = Training(HeavyBall(parameters(dtype), lr=0.1, mu=0.9))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(training.optimizer, 0.95)
    training.after_step = lambda _: scheduler.step()
    steps = training.run(200)
    assert_conserved(steps, rule="HeavyBall")
    first, second = steps[0][0], steps[1][0]
    anchors = [seen.contributions["anchor"] for seen in (first, second)]
    assert torch.allclose(second.split.parts["anchor"], -0.09 * anchors[0] - 0.095 * anchors[1])


def test_a_rule_may_say_why_a_step_is_shown_whole():
    register(HeavyBall, momentum="velocity")(lambda step: "it is Sunday")
    split = Training(HeavyBall(parameters(), lr=0.1, mu=0.9)).advance()[0].split
    assert (split.parts, split.rule, split.note) == ({}, "", "shown whole: it is Sunday")


def test_an_optimizer_without_a_rule_is_shown_whole():
    split = Training(HeavyBall(parameters(), lr=0.1, mu=0.9)).advance()[0].split
    assert (split.parts, split.rule) == ({}, "")
    assert split.note == (
        "shown whole: HeavyBall has its own step, there is no rule for it; gradflow.updates.register adds one"
    )


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [(torch.optim.Rprop, "sign of the whole gradient"), (torch.optim.LBFGS, "several times")],
)
def test_why_some_of_torch_s_are_shown_whole(optimizer, why):
    (param,) = parameters(shapes=((4,),))
    opt = optimizer([param], lr=0.1)
    splitter = DeltaSplitter(opt)
    parts = contributions(0, param)
    param.grad = sum(parts.values())
    splitter.before(param, parts)
    opt.step((param**2).sum)
    split = splitter.after(param, param.detach())
    assert (split.parts, split.rule) == ({}, "")
    assert split.note.startswith("shown whole: ")
    assert why in split.note
    splitter.unwatched()
    assert splitter.memory_bytes() == 0


def test_every_optimizer_of_torch_is_accounted_for():
    classes = {c for c in vars(torch.optim).values() if inspect.isclass(c) and issubclass(c, Optimizer)}
    ruled = {c for c in classes if c in rules._RULES}
    assert {c.__name__ for c in classes - ruled - {Optimizer}} == set(rules._WHOLE)
    assert not any(c.__name__ in rules._WHOLE for c in ruled)


class Quiet(torch.optim.Adam):
    """A subclass that only changes how it is made."""

    def __init__(self, params):
        super().__init__(params, lr=0.01)


class SignAdam(torch.optim.Adam):
    """A subclass with a step of its own."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=group["lr"])


class Grouping(torch.optim.Adam):
    """A subclass that hands other gradients to the same step."""

    def _init_group(self, group, *lists):
        return super()._init_group(group, *lists)


def test_a_subclass_with_the_same_step_has_the_same_rule():
    steps = Training(Quiet(parameters())).run(20)
    assert_conserved(steps, rule="Adam")


@pytest.mark.parametrize("kind", [SignAdam, Grouping])
def test_a_subclass_with_another_step_never_borrows_a_rule(kind):
    split = Training(kind(parameters(), lr=0.01)).advance()[0].split
    assert (split.parts, split.rule) == ({}, "")
    assert "it overrides the step of Adam" in split.note


def test_a_subclass_may_be_given_the_rule_of_its_base():
    register(Grouping, momentum="exp_avg")(adam.adam)
    assert_conserved(Training(Grouping(parameters(), lr=0.01)).run(20), rule="Grouping")


def test_a_scheduler_s_wrapper_is_no_other_step():
    training = Training(torch.optim.AdamW(parameters(), lr=0.01))
    torch.optim.lr_scheduler.StepLR(training.optimizer, 1)
    assert training.advance()[0].split.rule == "AdamW"


@pytest.mark.parametrize("name", ["decay", "history"])
def test_our_own_names_are_refused(name):
    (param,) = parameters(shapes=((4,),))
    splitter = DeltaSplitter(torch.optim.SGD([param], lr=0.1))
    param.grad = torch.ones(4)
    with pytest.raises(InvalidArgumentError) as error:
        splitter.before(param, {name: torch.ones(4)})
    assert str(error.value) == (
        f"a contributor is called {name!r}\n"
        "  where: DeltaSplitter.before\n"
        "  do:    that name is for what the optimizer itself adds; give the branch another one"
    )


def test_a_parameter_without_a_gradient_is_not_split():
    (param,) = parameters(shapes=((4,),))
    splitter = DeltaSplitter(torch.optim.SGD([param], lr=0.1))
    splitter.before(param, {})
    split = splitter.after(param, param.detach())
    assert (split.parts, split.rule) == ({}, "")
    assert "no gradient" in split.note

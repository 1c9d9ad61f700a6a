"""Laws 3 and 4: the training is the same to the last bit, and nothing is left behind."""

import contextlib
import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import gradflow
from gradflow.capture import calls
from gradflow.capture.stems import Stem
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet
from tests.capture.test_steps import loss_of, sgd, train


def test_nothing_is_left_after_close():
    net = encoder()
    opt = sgd(net)
    plain = laws.hook_counts(net, [opt])
    flow = gradflow.watch(net, opt, branches=NAMES)
    assert laws.hook_counts(net, [opt]) != plain
    train(net, opt)
    flow.close()
    flow.close()
    assert laws.hook_counts(net, [opt]) == plain
    recorder = weakref.ref(flow)
    recording = flow.recording
    del flow
    gc.collect()
    assert recorder() is None
    assert len(recording) == 3


@pytest.mark.parametrize("where", ["forward", "backward", "loop"])
def test_nothing_is_left_after_an_exception(where):
    class Failing(torch.nn.Module):
        def forward(self, x):
            if where == "forward":
                raise KeyboardInterrupt
            return x

    net = torch.nn.Sequential(encoder(), Failing())
    opt = sgd(net)
    plain = laws.hook_counts(net, [opt])

    def refuse(_grad):
        raise KeyboardInterrupt

    def interrupted():
        with gradflow.watch(net, opt, branches=NAMES):
            out = net(triple()[0])
            if where == "backward":
                out.register_hook(refuse)
            out.sum().backward()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert laws.hook_counts(net, [opt]) == plain
    train(net[0], opt, steps=1)


def test_exceptions_of_the_user_pass_and_the_recorder_goes_on():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        with pytest.raises(RuntimeError):
            net(torch.zeros(2, 99))
        train(net, opt, steps=2)
    assert [step.branches for step in flow.recording] == [NAMES, NAMES]


@pytest.mark.proves(row=30, situation="an exception in a hook of ours", verdict="told; training untouched")
def test_failure_of_ours_leaves_the_training_as_it_is(monkeypatch):
    from gradflow.capture.ledger import Account

    def run(watched):
        torch.manual_seed(0)
        net = encoder()
        opt = sgd(net, momentum=0.9)
        if watched:
            with gradflow.watch(net, opt, branches=NAMES) as flow:
                train(net, opt, steps=1)
                receive = Account.receive
                monkeypatch.setattr(Account, "receive", lambda *_: 1 / 0)
                with pytest.warns(RuntimeWarning) as told:
                    train(net, opt, steps=2)
                monkeypatch.setattr(Account, "receive", receive)
                train(net, opt, steps=1)
            assert len(told) == 1
            assert [step.complete for step in flow.recording] == [True, False, False, True]
            assert "ZeroDivisionError" in flow.recording[1].reports[0].text
        else:
            for steps in (1, 2, 1):
                train(net, opt, steps=steps)
        return laws.state_of(net, [opt], [])

    laws.assert_bitwise_equal(run(True), run(False))


def test_failure_of_ours_stays_ours_where_warnings_are_errors(monkeypatch):
    from gradflow.capture.planting import Planter

    net = encoder()
    opt = sgd(net)
    monkeypatch.setattr(Planter, "_begin", lambda *_: 1 / 0)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        train(net, opt, steps=1)
    assert not flow.recording.last.complete


def test_copies_and_pickles_of_a_watched_model_are_not_watched():
    net = encoder()
    with gradflow.watch(net, branches=NAMES) as flow:
        twin = copy.deepcopy(net)
        stored = pickle.loads(pickle.dumps(net))
        for other in (twin, stored):
            triplet(*map(other, triple())).backward()
        loss_of(net).backward()
        flow.step()
    assert len(flow.recording.last["0.weight"].uses) == 3


def test_nothing_grows_with_the_steps():
    net = encoder()
    opt = sgd(net, momentum=0.9)
    with gradflow.watch(net, opt, branches=NAMES, last=1):
        train(net, opt, steps=20)
        gc.collect()
        before = len(gc.get_objects())
        train(net, opt, steps=200)
        gc.collect()
        assert len(gc.get_objects()) - before < 50


@pytest.mark.parametrize("by", ["glue", "module"])
def test_nothing_grows_where_each_step_reads_what_the_one_before_made(by):
    torch.manual_seed(0)
    first, net = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
    make = first if by == "module" else (lambda x: x @ first.weight)
    with gradflow.watch([first, net], last=1) as flow:
        before, alive = make(torch.randn(3, 4)), []
        for step in range(30):
            now = make(torch.randn(3, 4))
            (net(before) - net(now)).square().mean().backward(retain_graph=True)  # it is read once more
            flow.step()
            before = now
            if step in (5, 29):
                gc.collect()
                known = {calls.Call, calls.Mark, calls.Window}
                alive.append(sum(type(one) in known for one in gc.get_objects()))
        assert alive[0] == alive[1] > 0


def _glued(net, x):
    return net(torch.tanh(x * net[0].weight.mean()))


def _in_branches(net, x):
    for name in ("left", "right"):
        with gradflow.branch(name):
            net(x.relu()).sum().backward()


def _recomputed(net, x):
    return checkpoint(net, x.requires_grad_(), use_reentrant=False)


def _trunk(net, x):
    z = net[0](x).tanh() * 2
    for name in ("left", "right"):
        with gradflow.branch(name):
            gradflow.branch.term(name, net[1](z).square().mean()).backward(retain_graph=True)
    return net[1](z)


def _cached_weight(net, x):
    with parametrize.cached():
        return net(x).square() + net(2 * x)


@pytest.mark.parametrize("stems", ["report", "split"])
@pytest.mark.parametrize("use", [_glued, _in_branches, _recomputed, _trunk, _cached_weight])
def test_nothing_is_left_to_the_garbage_collector(use, stems):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    if use is _cached_weight:
        parametrizations.weight_norm(net[1])
    remembered = {calls.Call, calls.Mark, calls.Origin, calls.Window, Stem}
    with gradflow.watch(net, last=1, stems=stems) as flow:
        gc.collect()
        others = {id(one): one for one in gc.get_objects() if type(one) in remembered}  # of other tests
        gc.disable()  # as many do, so that it does not stop the training now and then
        try:
            for _ in range(3):
                out = use(net, torch.randn(3, 4))
                if out is not None:
                    (out + use(net, torch.randn(3, 4))).square().mean().backward()
                seen = sum(type(one) in remembered for one in gc.get_objects()) - len(others)
                flow.step()
                del out
        finally:
            made = (one for one in gc.get_objects() if type(one) in remembered)
            left = [one for one in made if id(one) not in others]
            gc.enable()
    assert seen > 0
    assert not left


def test_no_class_of_a_function_is_kept():
    def scaled(x, by):
        class Scale(torch.autograd.Function):
            @staticmethod
            def forward(_ctx, x):
                return x * by[0]

            @staticmethod
            def backward(_ctx, gradient):
                return gradient * by[0]

        return Scale.apply(x)

    net, alive = torch.nn.Linear(3, 3), []
    with gradflow.watch(net, last=1) as flow:
        for _ in range(3):
            by = torch.randn(3)
            alive.append(weakref.ref(by))
            net(scaled(net(torch.randn(2, 3)), by)).sum().backward()
            flow.step()
    del by, flow
    gc.collect()
    assert [ref() for ref in alive] == [None] * 3


@pytest.mark.parametrize("stems", ["report", "split"])
def test_what_was_sent_into_a_trunk_is_let_go_of_with_its_graph_after_a_backward_that_failed(stems):
    class Failing(torch.autograd.Function):
        is_on = False

        @staticmethod
        def forward(_ctx, x):
            return x.clone()

        @staticmethod
        def backward(_ctx, gradient):
            if Failing.is_on:
                raise MemoryError
            return gradient

    trunk, left, right = torch.nn.Linear(5, 8), torch.nn.Linear(8, 2), torch.nn.Linear(8, 3)
    scale, size = torch.nn.Parameter(torch.tensor(1.5)), 1009
    whole = torch.nn.ModuleList([trunk, left, right])
    with gradflow.watch(whole, branches={"left": left, "right": right}, stems=stems) as flow:
        for is_on in (False, True, True):
            Failing.is_on = is_on
            z = trunk(torch.ones(size, 5)) * scale * 2
            loss = Failing.apply(left(z)).square().mean() + right(z).mean()
            with pytest.raises(MemoryError) if is_on else contextlib.nullcontext():
                loss.backward()
            del z, loss
            gc.collect()
            if not is_on:
                flow.step()
            tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
            assert not [tuple(one.shape) for one in tensors if one.ndim and len(one) == size]


@pytest.mark.proves(row=28, situation="hooks that keep a graph alive", verdict="nothing kept")
def test_graph_is_freed_without_the_garbage_collector():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES):
        gc.disable()
        try:
            out = net(triple()[0])
            alive = weakref.ref(out)
            loss = out.sum()
            loss.backward()
            opt.step()
            del out, loss
            assert alive() is None
        finally:
            gc.enable()

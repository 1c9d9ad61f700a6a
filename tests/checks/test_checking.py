"""What check sees: for each finding a model that has it, and the same one mended."""

import copy
import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

import gradflow
from gradflow import zoo
from gradflow.errors import InvalidArgumentError
from gradflow.findings import Findings


def net(*, bias=False):
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 4, 3, bias=bias),
            norm=nn.BatchNorm2d(4),
            relu=nn.ReLU(),
            flatten=nn.Flatten(),
            fc=nn.Linear(4 * 36, 3),
        )
    )


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def pair(left, right):
    both = nn.Module()
    both.left, both.right = left, right
    return both


def with_copy(*, shared):
    encoder = net()
    both = pair(encoder, encoder if shared else copy.deepcopy(encoder))
    return both, sgd(both)


def built_twice(*, shared):
    encoder = net()
    both = pair(encoder, encoder if shared else net())
    return both, sgd(both)


def partly_held(*, whole):
    model = net()
    return model, sgd(model if whole else model.fc)


def held_by_two(*, twice):
    model = net()
    return model, [sgd(model), sgd(model.fc)] if twice else [sgd(model)]


def made_before_a_layer_was_replaced(*, anew):
    model = net()
    before = sgd(model)
    model.fc = nn.Linear(4 * 36, 3)
    return model, sgd(model) if anew else before


def frozen(*, names=()):
    model = net()
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model, sgd(model)


def still_norm(*, training):
    model = net()
    model.norm.train(training)
    return model, sgd(model)


def evaluating(*, training):
    model = net().train(training)
    return model, sgd(model)


def biased(*, bias):
    model = net(bias=bias)
    return model, sgd(model)


def recurrent(*, cells):
    model = nn.Sequential(nn.LSTMCell(3, 4) if cells else nn.LSTM(3, 4))
    return model, sgd(model)


def compiled(*, compiled):
    model = net()
    return torch.compile(model, backend="eager") if compiled else model, sgd(model)


def with_gradient(*, cleared):
    model = net()
    model(torch.ones(2, 1, 8, 8)).sum().backward()
    if cleared:
        model.zero_grad()
    return model, sgd(model)


def moving_norm(*, still):
    model, optimizer = frozen(names=("norm",))
    if still:
        model.norm.num_batches_tracked += 1  # it has seen data
        model.norm.eval()
    return model, optimizer


CASES = [  # code, severity, the broken one, the healthy one
    ("copies", "warning", lambda: with_copy(shared=False), lambda: with_copy(shared=True)),
    ("built-alike", "note", lambda: built_twice(shared=False), lambda: built_twice(shared=True)),
    ("not-optimized", "warning", lambda: partly_held(whole=False), lambda: partly_held(whole=True)),
    ("optimized-twice", "warning", lambda: held_by_two(twice=True), lambda: held_by_two(twice=False)),
    (
        "stranger",
        "warning",
        lambda: made_before_a_layer_was_replaced(anew=False),
        lambda: made_before_a_layer_was_replaced(anew=True),
    ),
    ("frozen", "note", lambda: frozen(names=("conv",)), frozen),
    ("frozen-norm", "warning", lambda: still_norm(training=False), lambda: still_norm(training=True)),
    ("moving-norm", "note", lambda: moving_norm(still=False), lambda: moving_norm(still=True)),
    ("evaluating", "note", lambda: evaluating(training=False), lambda: evaluating(training=True)),
    ("bias-before-norm", "note", lambda: biased(bias=True), lambda: biased(bias=False)),
    ("fused", "note", lambda: recurrent(cells=False), lambda: recurrent(cells=True)),
    ("compiled", "note", lambda: compiled(compiled=True), lambda: compiled(compiled=False)),
    ("gradient-left", "note", lambda: with_gradient(cleared=False), lambda: with_gradient(cleared=True)),
]
IDS = [case[0] for case in CASES]


def only(found, code):
    (one,) = [f for f in found if f.code == code]
    return one


@pytest.mark.parametrize(("code", "severity", "broken", "healthy"), CASES, ids=IDS)
def test_the_broken_one_is_told_of_and_the_healthy_one_is_not(code, severity, broken, healthy):
    found = gradflow.check(*broken())
    assert only(found, code).severity == severity
    assert only(found, code).do
    assert code not in gradflow.check(*healthy()).codes
    assert not gradflow.check(*healthy()).warnings


@pytest.mark.parametrize("name", zoo.names(heavy=True))
def test_no_scene_of_the_zoo_gets_a_warning_but_the_copies(name):
    scene = zoo.scene(name)
    model = scene.build()
    found = gradflow.check(model, scene.optimizers(model))
    assert found.warnings.codes == (("copies",) if name == "twins" else ())


def test_nothing_is_said_of_optimizers_where_none_was_given():
    model, _ = partly_held(whole=False)
    assert gradflow.check(model) == ()
    assert repr(gradflow.check(model)) == "Sequential: nothing out of the ordinary"


def test_nothing_is_changed_and_nothing_is_run():
    model, optimizer = biased(bias=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    model.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    gradflow.check(model, optimizer)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_copies_are_told_at_the_top_once_with_their_size():
    model, optimizer = with_copy(shared=False)
    found = gradflow.check(model, optimizer)
    size = sum(p.numel() for p in model.left.parameters())
    assert found.codes == ("copies",)
    assert (
        found[0].text == f"left and right are copies: equal weights ({size:,} numbers in each), kept apart."
    )


def test_copies_that_have_drifted_are_built_alike_and_their_distance_is_told():
    model, optimizer = with_copy(shared=False)
    with torch.no_grad():
        for p in model.right.parameters():
            p.add_(0.5)
    norm = sum(p.double().square().sum().item() for p in model.left.parameters()) ** 0.5
    apart = 0.5 * sum(p.numel() for p in model.left.parameters()) ** 0.5 / norm
    told = only(gradflow.check(model, optimizer), "built-alike").text
    assert float(re.search(r"are (\S+) % of their norm", told)[1]) == pytest.approx(100 * apart, rel=5e-3)


def test_copies_inside_different_towers_are_found():
    encoder = net()
    both = pair(
        nn.Sequential(encoder, nn.Linear(3, 2)), nn.Sequential(copy.deepcopy(encoder), nn.Linear(3, 5))
    )
    found = gradflow.check(both, sgd(both))
    assert only(found, "copies").text.startswith("left.0 and right.0 are copies")
    assert only(found, "copies").severity == "warning"


def test_two_models_given_as_a_list_are_compared():
    encoder = net()
    models = [encoder, copy.deepcopy(encoder)]
    found = gradflow.check(models, [sgd(m) for m in models])
    assert only(found, "copies").text.startswith("0 and 1 are copies")


def test_a_copy_that_does_not_train_is_a_note():
    model, optimizer = with_copy(shared=False)
    model.right.requires_grad_(False)
    assert only(gradflow.check(model, optimizer), "copies").severity == "note"


def test_a_stack_of_layers_that_start_alike_is_a_note():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
    found = gradflow.check(model, sgd(model))
    assert found.codes == ("copies",)
    assert found[0].severity == "note"
    assert "layers.0, layers.1, layers.2 are copies" in found[0].text


def test_many_layers_of_one_kind_are_told_of_once():
    model = nn.Transformer(8, 2, 1, 3, 16, batch_first=True)
    found = only(gradflow.check(model), "built-alike")
    assert found.text.startswith(
        "decoder.layers.0.self_attn and decoder.layers.0.multihead_attn are built alike"
    )
    assert found.text.endswith(" So are 2 more, in other layers.")


def test_odd_parameters_are_compared_too():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.spectrum = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
            self.nothing = nn.Parameter(torch.empty(0))
            self.linear = nn.Linear(3, 3, dtype=torch.bfloat16)

    left = Odd()
    assert gradflow.check(pair(left, copy.deepcopy(left))).codes == ("copies",)
    assert gradflow.check(pair(left, Odd())).codes == ("built-alike",)


def test_fresh_batch_norms_are_no_copies():
    model = pair(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    assert gradflow.check(model, sgd(model)) == ()


def test_one_number_of_difference_is_no_copy():
    model, optimizer = with_copy(shared=False)
    with torch.no_grad():
        model.right.fc.weight[1, 50] += 1e-6
    assert "copies" not in gradflow.check(model, optimizer).codes


def test_two_models_that_share_a_layer_are_not_called_alike():
    shared = nn.Linear(4, 4)
    models = [nn.Sequential(nn.Linear(2, 4), shared) for _ in range(2)]
    held = [p for p in models[1].parameters() if all(p is not q for q in shared.parameters())]
    assert gradflow.check(models, [sgd(models[0]), torch.optim.SGD(held, lr=0.1)]) == ()


def test_parameters_without_an_optimizer_are_counted():
    model, optimizer = partly_held(whole=False)
    text = only(gradflow.check(model, optimizer), "not-optimized").text
    assert text.startswith("3 of 5 parameters (44 numbers) are in no optimizer")
    assert "conv.weight, norm.weight, norm.bias" in text


def test_frozen_parameters_need_no_optimizer():
    model, _ = frozen(names=("conv", "norm"))
    assert "not-optimized" not in gradflow.check(model, sgd(model.fc)).codes


def test_a_wholly_frozen_model_is_a_warning():
    model, optimizer = frozen(names=("conv", "norm", "fc"))
    assert only(gradflow.check(model, optimizer), "frozen").severity == "warning"


def test_a_frozen_norm_that_has_seen_data_is_a_note():
    model, optimizer = still_norm(training=True)
    model(torch.ones(2, 1, 8, 8))
    model.norm.eval()
    found = only(gradflow.check(model, optimizer), "frozen-norm")
    assert found.severity == "note"
    assert "1 of 1 batch-norms are in eval mode while the model trains: norm" in found.text


def test_a_parameter_of_another_model_is_a_note():
    model, loss = net(), nn.Linear(2, 7)
    found = gradflow.check(model, torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1))
    assert found.codes == ("stranger",)
    assert found[0].severity == "note"


def test_a_bias_is_useless_only_if_a_norm_of_its_size_follows():
    other = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.BatchNorm1d(3))
    narrow = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(4))
    for model in (other, narrow):
        assert gradflow.check(model, sgd(model)) == ()


def test_models_without_numbers_are_no_trouble():
    with torch.device("meta"):
        model = pair(net(), net())
    model.lazy = nn.LazyLinear(3)
    assert gradflow.check(model) == ()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((3,), "3 is neither a module nor a list of modules"),
        (([],), "[] is neither a module"),
        ((nn.Linear(1, 1), [None]), "None is no torch.optim.Optimizer"),
        ((nn.Linear(1, 1), "adam"), "'a' is no torch.optim.Optimizer"),
    ],
)
def test_wrong_arguments_are_told_in_three_lines(arguments, what):
    with pytest.raises(InvalidArgumentError, match=re.escape(what)) as error:
        gradflow.check(*arguments)
    assert "where: gradflow.check" in str(error.value)


def test_findings_tell_their_story_in_words_and_in_html():
    found = gradflow.check(*with_copy(shared=False))
    assert isinstance(found, Findings)
    assert repr(found).startswith(
        "Module under SGD: 1 warning\nFindings\n  warning: left and right are copies"
    )
    page = found._repr_html_()
    assert "Module under SGD: 1 warning" in page
    assert '<li class="gf-warning">warning: left and right are copies' in page
    assert '<ul class="gf-facts">' not in page

"""What every scene promises, checked for all of them."""

import importlib
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from gradflow import zoo
from gradflow.errors import GradflowError

ZOO = Path(zoo.__file__).parent
SCENES = [pytest.param(zoo.scene(name), id=name) for name in zoo.names()]


def modules_of(model):
    return [model] if isinstance(model, nn.Module) else list(model)


def tensors_of(model):
    return [t for module in modules_of(model) for t in (*module.parameters(), *module.buffers())]


def built(scene, seed=0):
    torch.manual_seed(seed)
    return scene.build()


@torch.enable_grad()
def run(scene, steps, size=16):
    model = built(scene)
    optimizers = scene.optimizers(model)
    losses = []
    for batch in islice(scene.batches(0, size), steps):
        loss, _ = scene.loss(model, batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    return model, losses


def test_names_are_distinct_and_lead_to_their_scenes():
    assert len(set(zoo.names())) == len(zoo.names())
    assert [zoo.scene(name).name for name in zoo.names()] == list(zoo.names())


def test_unknown_scene_lists_near_names():
    with pytest.raises(GradflowError) as error:
        zoo.scene("tripplet")
    assert str(error.value).splitlines() == [
        "the zoo has no scene 'tripplet'",
        "  where: gradflow.zoo.scene('tripplet')",
        "  do:    did you mean 'triplet'?",
    ]


@pytest.mark.parametrize("scene", SCENES)
def test_title_is_a_sentence_and_branches_are_names(scene):
    assert scene.title.endswith(".")
    assert len(scene.title) <= 110
    assert len(scene.branches) >= 2
    assert len(set(scene.branches)) == len(scene.branches)


@pytest.mark.parametrize("scene", SCENES)
def test_loss_is_a_scalar_with_graph_and_scalars_are_detached(scene):
    loss, scalars = scene.loss(built(scene), next(scene.batches(0, 8)))
    assert loss.shape == ()
    assert loss.requires_grad
    for value in scalars.values():
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)


@pytest.mark.parametrize("scene", SCENES)
def test_every_parameter_gets_a_gradient(scene):
    model = built(scene)
    scene.loss(model, next(scene.batches(0, 8)))[0].backward()
    for module in modules_of(model):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("scene", SCENES)
def test_batches_follow_the_seed_and_leave_torch_alone(scene):
    before = torch.get_rng_state()
    first, again = (list(islice(scene.batches(7, 4), 3)) for _ in range(2))
    other = next(scene.batches(8, 4))
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(first[0], first[1], strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(first[0], other, strict=True))


@pytest.mark.parametrize("scene", SCENES)
def test_batches_can_be_named_by_keyword_and_are_of_the_asked_size(scene):
    assert all(len(x) == 5 for x in next(scene.batches(seed=0, size=5)))
    assert all(len(x) == 16 for x in next(scene.batches()))


@pytest.mark.parametrize("scene", SCENES)
def test_build_follows_torch_random_state(scene):
    first, again, other = (tensors_of(built(scene, seed)) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(first, other, strict=True))


@pytest.mark.parametrize("scene", SCENES)
def test_optimizers_hold_each_parameter_once(scene):
    model = built(scene)
    held = [p for o in scene.optimizers(model) for group in o.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held})
    assert {id(p) for p in held} == {id(p) for m in modules_of(model) for p in m.parameters()}


@pytest.mark.parametrize("scene", SCENES)
def test_watch_branches_are_the_names_or_modules_of_the_model(scene):
    model = built(scene)
    branches = scene.watch_branches(model)
    assert tuple(branches) == scene.branches
    if isinstance(branches, dict):
        inside = [m for module in modules_of(model) for m in module.modules()]
        assert all(any(m is part for part in inside) for m in branches.values())


@pytest.mark.parametrize("scene", [p for p in SCENES if p.id != "twins"])  # copies learn badly: test_twins.py
def test_forty_steps_on_real_data_reduce_the_loss_on_other_data(scene):
    held_out = next(scene.batches(99, 128))
    with torch.no_grad():
        before = scene.loss(built(scene), held_out)[0].item()
        model, _ = run(scene, 40)
        after = scene.loss(model, held_out)[0].item()
    assert after < before - 0.05 * abs(before)
    assert all(torch.isfinite(t).all() for t in tensors_of(model))


@pytest.mark.parametrize("scene", SCENES)
def test_training_is_reproducible(scene):
    (one, first), (two, second) = run(scene, 3, size=4), run(scene, 3, size=4)
    assert first == second
    assert all(torch.equal(x, y) for x, y in zip(tensors_of(one), tensors_of(two), strict=True))


@pytest.mark.parametrize(
    "name",
    # the scene that bears the file's name; two_models.train() takes turns, on purpose
    [name for name in zoo.names() if (ZOO / f"{name}.py").exists() and name != "two_models"],
)
def test_the_file_alone_trains_as_its_scene_does(name):
    train = importlib.import_module(f"gradflow.zoo.{name}").train
    assert train(steps=3) == run(zoo.scene(name), 3)[1]


@pytest.mark.parametrize("name", sorted({p.values[0].loss.__module__ for p in SCENES}))
def test_each_file_trains_by_itself_without_gradflow(name):
    module = importlib.import_module(name)
    losses = module.train(steps=3)
    assert len(losses) == 3
    assert losses == module.train(steps=3)
    assert losses != module.train(steps=3, seed=1)
    source = Path(module.__file__).read_text(encoding="utf-8")
    imported = re.findall(r"^from (gradflow\S*) import (.+)$", source, flags=re.MULTILINE)
    homes = {home if what != "data" else "gradflow.data" for home, what in imported}
    assert all(home.startswith(("gradflow.zoo", "gradflow.data", "gradflow.errors")) for home in homes)
    assert "gradflow.zoo.contract" not in homes

"""Keras models on the torch backend, watched in ``fit`` and in loops of one's own."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from keras import layers, ops

from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NothingToWatchError
from gradflow.integrations import keras as watching
from gradflow.integrations import keras_steps
from gradflow.storage import load
from tests import laws
from tests.integrations import keras_laws, noise
from tests.integrations.triplets import NAMES, batches
from tests.test_imports import loaded_by

pytestmark = noise.KERAS
optimizers = keras.optimizers


def encoder(name="encoder", dtype=None):
    image = layers.Input((28, 28, 1))
    x = layers.Conv2D(3, 5, strides=3, name="conv", dtype=dtype)(image)
    x = layers.BatchNormalization(name="norm", dtype=dtype)(x)
    x = layers.GlobalAveragePooling2D(name="pool", dtype=dtype)(layers.ReLU(name="relu", dtype=dtype)(x))
    return keras.Model(image, layers.Dense(4, name="dense", dtype=dtype)(x), name=name)


def siamese(shared):
    inputs = [layers.Input((28, 28, 1)) for _ in NAMES]
    return keras.Model(inputs, layers.Concatenate(name="all")([shared(x) for x in inputs]), name="siamese")


def triplet_loss(_targets, together):
    a, p, n = together[:, :4], together[:, 4:8], together[:, 8:]
    return ops.mean(ops.relu(ops.norm(a - p, axis=1) - ops.norm(a - n, axis=1) + 1.0))


def images(count=8, seed=0):
    [batch] = batches(1, size=count, seed=seed)
    return [x.permute(0, 2, 3, 1).contiguous().numpy() for x in batch]


class Keep(keras.callbacks.Callback):
    """Keeps the losses, and copies of the weights before each batch and at the end."""

    def __init__(self, names):
        super().__init__()
        self.names, self.before, self.losses = names, [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.before.append(keras_laws.copies(self.names))

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(torch.tensor(logs["loss"]))

    def on_train_end(self, logs=None):
        self.before.append(keras_laws.copies(self.names))


def fit(optimizer, watched=True, epochs=2, **options):
    keras.utils.set_random_seed(0)
    shared = encoder()
    model = siamese(shared)
    model.compile(optimizer=optimizer, loss=triplet_loss)
    keep = Keep(keras_laws.flat_names(shared, "encoder."))
    callback = watching.GradflowCallback(branches=NAMES, keep="tensors", **options)
    callbacks = [callback, keep] if watched else [keep]
    given = {"batch_size": 4, "epochs": epochs, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    model.fit(images(), np.zeros(8), **given)
    return callback.recording, keras_laws.state_of(model, model.optimizer, keep.losses), keep


RULED = {
    "SGD": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "Nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda: optimizers.Adam(0.01),
    "AMSGrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "RMSprop": lambda: optimizers.RMSprop(0.01),
    "centered": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.01, 1, 0.5)),
}


@pytest.mark.parametrize("make", RULED.values(), ids=RULED)
def test_laws_hold_in_fit(make):
    recording, state, keep = fit(make())
    laws.assert_bitwise_equal(state, fit(make(), watched=False)[1])
    assert len(recording) == 4
    for i, step in enumerate(recording):
        keras_laws.assert_laws(step, keep.before[i], keep.before[i + 1])
        assert step.branches == NAMES
        for p in step:
            assert set(p.delta.contributors) - {"decay"} == set(NAMES)


def test_contributions_in_fit_are_those_of_the_oracle():
    recording, _, keep = fit(optimizers.SGD(0.1))
    for i, step in enumerate(recording):
        keras.utils.set_random_seed(0)
        twin = encoder()
        names = keras_laws.flat_names(twin, "encoder.")
        for fqn, variable in names.items():
            variable.assign(keep.before[i][fqn])
        rows = slice(4 * (i % 2), 4 * (i % 2) + 4)
        outputs = {name: twin(x[rows], training=True) for name, x in zip(NAMES, images(), strict=True)}
        loss = triplet_loss(None, torch.cat(list(outputs.values()), dim=1))
        keras_laws.assert_contributions(step, keras_laws.two_stage(names, outputs, loss))


def test_names_are_those_a_keras_user_reads_and_layers_can_be_summed():
    recording, _, _ = fit(optimizers.SGD(0.1), epochs=1)
    assert recording.params == (
        "encoder.conv.kernel",
        "encoder.conv.bias",
        "encoder.norm.gamma",
        "encoder.norm.beta",
        "encoder.dense.kernel",
        "encoder.dense.bias",
    )
    assert recording.last.layer("encoder.norm").contributors == NAMES
    assert [use.call for use in recording.last["encoder.conv.kernel"].uses] == [
        f"encoder.conv#{i}" for i in (2, 1, 0)
    ]


WHOLE = {
    "no rule": (lambda: optimizers.Lion(0.01), "there is no rule for it"),
    "clipnorm": (lambda: optimizers.Adam(0.01, clipnorm=0.1), "clipnorm"),
    "clipvalue": (lambda: optimizers.SGD(0.01, clipvalue=0.1), "clipvalue"),
    "accumulated": (
        lambda: optimizers.SGD(0.01, gradient_accumulation_steps=2),
        "gradient_accumulation_steps",
    ),
    "averaged": (lambda: optimizers.SGD(0.01, use_ema=True, ema_overwrite_frequency=2), "use_ema"),
    "a function": (lambda: optimizers.SGD(lambda: 0.01), "is a function"),
    "own class": (lambda: type("Mine", (optimizers.Adam,), {})(0.01), "there is no rule for it"),
}


@pytest.mark.parametrize(("make", "why"), WHOLE.values(), ids=WHOLE)
def test_what_keras_does_around_a_step_leaves_the_delta_whole_and_is_told(make, why):
    recording, state, keep = fit(make())
    laws.assert_bitwise_equal(state, fit(make(), watched=False)[1])
    for i, step in enumerate(recording):
        laws.assert_gradient_conserved(step)
        for p in step:
            moved = (keep.before[i + 1][p.fqn] - keep.before[i][p.fqn]).numpy()
            np.testing.assert_array_equal(p.delta.tensor, moved)
            assert p.delta.contributors == ("unattributed",)
            assert why in p.delta.note


def own_loop(kind, watched, steps=3):
    """A training loop of one's own, with an optimizer of Keras or of torch."""
    keras.utils.set_random_seed(0)
    model = encoder()
    of_torch = kind == "torch"
    optimizer = (
        torch.optim.Adam([v.value for v in model.trainable_variables], lr=0.01)
        if of_torch
        else optimizers.Adam(0.01)
    )
    flow = watching.watch(model, optimizer, branches=NAMES, keep="tensors") if watched else None
    names, losses, before = keras_laws.flat_names(model), [], []
    for seed in range(steps):
        before.append(keras_laws.copies(names))
        model.zero_grad()
        together = ops.concatenate([model(x, training=True) for x in images(4, seed)], axis=1)
        loss = triplet_loss(None, together)
        loss.backward()
        grads = [v.value.grad for v in model.trainable_variables]
        if of_torch:
            optimizer.step()
        elif kind == "apply_gradients":
            optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        else:
            optimizer.apply(grads, model.trainable_variables)
        losses.append(loss.detach())
    before.append(keras_laws.copies(names))
    if flow is not None:
        flow.close()
    state = keras_laws.state_of(model, None if of_torch else optimizer, losses)
    return flow and flow.recording, state, before


@pytest.mark.parametrize("kind", ["apply", "apply_gradients", "torch"])
def test_laws_hold_in_a_loop_of_ones_own(kind):
    recording, state, before = own_loop(kind, True)
    laws.assert_bitwise_equal(state, own_loop(kind, False)[1])
    assert len(recording) == 3
    for i, step in enumerate(recording):
        keras_laws.assert_laws(step, before[i], before[i + 1])
        assert step["conv.kernel"].delta.contributors == NAMES


def test_other_gradients_than_those_of_the_backward_are_not_split():
    keras.utils.set_random_seed(0)
    model, optimizer = encoder(), optimizers.SGD(0.1)
    with watching.watch(model, optimizer, branches=NAMES) as flow:
        triplet_loss(None, ops.concatenate([model(x) for x in images(4)], axis=1)).backward()
        optimizer.apply([v.value.grad * 0.5 for v in model.trainable_variables], model.trainable_variables)
    assert "another gradient than .grad" in flow.recording.last["dense.bias"].delta.note


def test_attached_in_the_middle_momentum_of_before_is_history():
    keras.utils.set_random_seed(0)
    model = siamese(encoder())
    model.compile(optimizer=optimizers.SGD(0.1, momentum=0.9), loss=triplet_loss)
    model.fit(images(), np.zeros(8), batch_size=4, verbose=0, shuffle=False)
    with watching.watch(model, branches=NAMES, keep="tensors") as flow:
        model.fit(images(), np.zeros(8), batch_size=4, verbose=0, shuffle=False)
    for step in flow.recording:
        delta = step["encoder.dense.kernel"].delta
        assert set(delta.contributors) == {*NAMES, "history"}
        assert delta.residual <= 1e-6


def test_half_precision_is_cast_anew_in_each_call_and_told_apart():
    policy = keras.mixed_precision.DTypePolicy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    model = encoder(dtype=policy)
    optimizer = optimizers.SGD(0.1)
    with watching.watch(model, optimizer, branches=NAMES) as flow:
        triplet_loss(None, ops.concatenate([model(x) for x in images(4)], axis=1)).backward()
        optimizer.apply([v.value.grad for v in model.trainable_variables], model.trainable_variables)
    kernel = flow.recording.last["dense.kernel"]
    assert kernel.contributors == NAMES
    assert len(kernel.uses) == 3
    assert kernel.residual == 0.0


def test_a_layer_can_be_a_branch_and_sublayers_have_paths():
    keras.utils.set_random_seed(0)
    text = layers.Input((6, 4))
    attended = layers.MultiHeadAttention(2, 2, name="attention")(text, text)
    read = layers.LSTM(3, name="lstm")(attended)
    model = keras.Model(text, [layers.Dense(1, name="head_a")(read), layers.Dense(1, name="head_b")(read)])
    heads = {"a": model.get_layer("head_a"), "b": model.get_layer("head_b")}
    with watching.watch(model, branches=heads, stems="split") as flow:
        a, b = model(np.random.rand(2, 6, 4).astype("float32"))
        (a.sum() + b.square().sum()).backward()
        flow.step()
    step = flow.recording.last
    assert {"attention.query.kernel", "lstm.lstm_cell.recurrent_kernel"} <= set(step.params)
    assert {"a", "b"} <= set(step["attention.value.kernel"].contributors) <= {"a", "b", "rounding"}
    assert step["head_a.kernel"].contributors == ("a",)


def in_order(order, listed):
    """A model that calls one layer for three inputs: what is written first is not run first."""
    shared = layers.Dense(2, name="shared")
    inputs = [layers.Input((3,)) for _ in NAMES]
    outputs = [shared(x) for x in inputs]
    outputs = [outputs[i] for i in order]
    return keras.Model(inputs, outputs if listed else layers.Concatenate()(outputs)), shared


@pytest.mark.proves(row=44, situation="a Keras model that runs its calls out of order", verdict="exact names")
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "joined"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_names_follow_the_order_of_writing_however_keras_runs_the_calls(order, listed):
    keras.utils.set_random_seed(0)
    model, shared = in_order(order, listed)
    plain = hooks_on([model], [])
    x = [np.full((1, 3), value, "float32") for value in (1.0, 10.0, 100.0)]
    with watching.watch(model, branches=NAMES, keep="tensors") as flow:
        for _ in range(2):
            together = model(x)
            sum(z.sum() for z in together).backward() if listed else together.sum().backward()
            flow.step()
        sum(shared(ops.convert_to_tensor(one)).sum() for one in x).backward()  # around the model
        flow.step()
    for step in flow.recording:
        assert step.branches == NAMES
        kernel = step["shared.kernel"]
        assert [kernel.contribution(name).max() for name in NAMES] == [1.0, 10.0, 100.0]
        assert kernel.residual == 0.0
    assert hooks_on([model], []) == plain


def test_a_run_that_fails_leaves_the_names_of_the_next_in_order():
    keras.utils.set_random_seed(0)
    model, _ = in_order((0, 1, 2), True)
    x = [np.full((1, 3), value, "float32") for value in (1.0, 10.0, 100.0)]
    with watching.watch(model, branches=NAMES, keep="tensors") as flow:
        with pytest.raises(ValueError, match=r"incompatible|expected"):
            model([x[0], x[1], np.zeros((1, 5), "float32")])
        sum(z.sum() for z in model(x)).backward()
        flow.step()
    kernel = flow.recording.last["shared.kernel"]
    assert [kernel.contribution(name).max() for name in NAMES] == [1.0, 10.0, 100.0]


def hooks_on(models, of_keras):
    counts = [
        (len(layer._forward_hooks), len(layer._forward_pre_hooks), sorted(vars(layer)))
        for model in models
        for layer in model._flatten_layers()
    ]
    counts += [
        len(getattr(v.value, "_post_accumulate_grad_hooks", None) or {}) + len(v.value._backward_hooks or {})
        for model in models
        for v in model.trainable_variables
    ]
    return counts, [sorted(vars(one)) for one in of_keras]


def test_nothing_is_left_behind():
    keras.utils.set_random_seed(0)
    model = siamese(encoder())
    model.compile(optimizer="adam", loss=triplet_loss)
    model.fit(images(4), np.zeros(4), verbose=0)  # it leaves attributes of its own
    plain = hooks_on([model], [model.optimizer])

    def interrupted():
        with watching.watch(model, branches=NAMES):
            assert hooks_on([model], [model.optimizer]) != plain
            model.train_on_batch(images(4), np.zeros(4))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        interrupted()
    assert hooks_on([model], [model.optimizer]) == plain
    model.fit(images(4), np.zeros(4), verbose=0, callbacks=[watching.GradflowCallback()])
    assert hooks_on([model], [model.optimizer]) == plain


def test_a_watched_model_is_saved_and_loaded_as_any(tmp_path):
    keras.utils.set_random_seed(0)
    model = encoder()
    model.compile(optimizer="adam", loss="mse")
    with watching.watch(model):
        model.train_on_batch(images(4)[0], np.zeros((4, 4)))
        model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for mine, loaded in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, loaded)


def test_weights_of_one_path_keep_the_gradients_of_all_steps_and_that_is_told():
    """Keras 3.15 on torch clears gradients by the path of the variable; equal paths are cleared once."""
    keras.utils.set_random_seed(0)
    inputs = [layers.Input((28, 28, 1)) for _ in range(2)]
    twins = [encoder("left"), encoder("right")]
    model = keras.Model(inputs, [twin(x) for twin, x in zip(twins, inputs, strict=True)], name="both")
    model.compile(optimizer=optimizers.SGD(0.0), loss="mse")
    with watching.watch(model, branches={"left": twins[0], "right": twins[1]}, keep="tensors") as flow:
        for seed in range(2):
            model.train_on_batch(images(4, seed)[:2], [np.zeros((4, 4))] * 2)
    first, second = flow.recording
    left = {p.fqn for p in second if p.fqn.startswith("left.")}
    assert {p.fqn for p in second if "edited" in p.contributors} == left
    assert "edited" in [finding.code for finding in second.findings]
    kernel = second["left.dense.kernel"]
    left_over = first["left.dense.kernel"].total
    np.testing.assert_allclose(kernel.contribution("edited"), left_over, atol=1e-6, rtol=0)


def test_a_failure_of_ours_leaves_the_training_as_it_is(monkeypatch):
    plain = fit(optimizers.Adam(0.01), watched=False)[1]
    monkeypatch.setattr(keras_steps, "_rate", lambda _optimizer: 1 / 0)
    recording, state, _ = fit(optimizers.Adam(0.01))
    laws.assert_bitwise_equal(state, plain)
    for step in recording:
        laws.assert_gradient_conserved(step)
        assert "ZeroDivisionError" in step["encoder.dense.kernel"].delta.note


def test_options_go_to_watch_and_mistakes_are_told(tmp_path):
    keras.utils.set_random_seed(0)
    model = encoder()
    model.compile(optimizer="sgd", loss="mse")
    callback = watching.GradflowCallback(every=2, params="*kernel", to=tmp_path / "run.gradflow")
    model.fit(images(8)[0], np.zeros((8, 4)), batch_size=2, verbose=0, callbacks=[callback])
    recording = load(tmp_path / "run.gradflow")
    assert [step.index for step in recording] == [0, 2]
    assert recording.params == ("conv.kernel", "dense.kernel")
    assert "loss" in recording.last.scalars
    wrong = {
        NothingToWatchError: lambda: watching.watch(keras.Sequential([layers.Dense(1)])),
        NoSuchParameterError: lambda: watching.watch(model, params="nothing"),
    }
    for kind, act in wrong.items():
        with pytest.raises(kind):
            act()
    for act, told in (
        (lambda: watching.watch(torch.nn.Linear(1, 1)), "is no Keras model"),
        (lambda: watching.watch(model, "adam"), "is no optimizer of Keras or torch"),
        (lambda: watching.watch([model, encoder()]), "the models are named"),
        (lambda: watching.watch(model, brances=NAMES), "no option of gradflow"),
        (lambda: watching.GradflowCallback(evry=2), "no option of gradflow"),
    ):
        with pytest.raises(InvalidArgumentError, match=told):
            act()


@pytest.mark.parametrize("first", ["gradflow.integrations.keras", "torch"])
def test_where_no_backend_was_chosen_it_is_torch(first, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert "tensorflow" not in loaded_by(f"import {first}, gradflow.integrations.keras, keras")


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    code = "import gradflow.integrations.keras"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InvalidArgumentError: Keras runs on the backend 'tensorflow'" in run.stderr
    assert 'os.environ["KERAS_BACKEND"] = "torch"' in run.stderr

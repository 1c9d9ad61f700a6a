"""The Keras code of three questions, mended, under gradflow; and what was wrong with it, shown."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import ops

from gradflow.integrations import keras as watching
from gradflow.integrations.keras_view import view_of
from tests import laws
from tests.integrations import keras_laws, noise

pytestmark = noise.KERAS
FOLDER = Path(__file__).parents[2] / "examples" / "keras_questions"
NAMES = ("anchor", "positive", "negative")


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


three_resnets, triplet_cnn, two_models = map(load, ("three_resnets", "triplet_cnn", "two_models"))


@pytest.fixture(scope="module")
def three():
    keras.utils.set_random_seed(0)
    return three_resnets.three_networks()


@pytest.fixture
def double():
    """Fifty layers of batch normalization over few images blow a rounding up to a million times its size."""
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


class TestThreeResNets:
    """Must it be three networks? ResNet50 of full width, at 32×32, two triplets."""

    KEPT = "*conv1_conv*", "*conv3_block1_2_bn*", "*conv5_block3_3_conv.bias"

    def trained(self, network, branches, watched=True, steps=1, rate=1e-3):
        model = three_resnets.Triplet(network)
        model.compile(optimizer=keras.optimizers.SGD(rate))
        images = three_resnets.triplets(2 * steps)
        model.build([x.shape for x in images])
        flow = watching.watch(model, branches=branches, keep=self.KEPT) if watched else None
        history = model.fit(images, np.zeros(2 * steps), batch_size=2, shuffle=False, verbose=0)
        if flow is not None:
            flow.close()
        losses = [torch.tensor(history.history["loss"])]
        return flow and flow.recording, keras_laws.state_of(model, model.optimizer, losses)

    def test_torch_finds_two_modules_where_gradflow_finds_every_layer_with_weights(self, three):
        network = three.get_layer("encoder_anchor")
        assert len(list(network.named_modules())) == 2
        assert len(list(network.named_parameters())) == 318  # 320 with the head that the question leaves out
        found = dict(view_of([network]).named_modules())
        assert set(found) == {"", *(layer.name for layer in network.layers if layer.weights)}
        assert len(dict(view_of([network]).named_parameters())) == 212  # those that train

    def test_three_networks_of_the_same_names_are_no_model(self, three):
        networks = [three.get_layer(f"encoder_{name}") for name in NAMES]
        with pytest.raises(ValueError, match="All operation names should be unique"):
            keras.Model([n.input for n in networks], [n.output for n in networks])

    def test_a_model_of_three_inputs_cannot_list_two(self, three):
        with pytest.raises(ValueError, match="not connected to"):
            keras.Model(three.inputs[:2], three.outputs)

    def test_three_networks_share_nothing_start_alike_and_drift_apart(self, three):
        networks = [three.get_layer(f"encoder_{name}") for name in NAMES]
        held = [{id(v) for v in network.variables} for network in networks]
        assert not held[0] & held[1] | held[1] & held[2] | held[0] & held[2]
        image = three_resnets.triplets(1)[0]
        before = [ops.convert_to_numpy(network(image)) for network in networks]
        np.testing.assert_array_equal(before[0], before[1])
        np.testing.assert_array_equal(before[0], before[2])
        branches = dict(zip(NAMES, networks, strict=True))
        # Over two images gradients reach 4e8 at first, and a larger step may end in what is not a number.
        recording, _ = self.trained(three, branches, steps=2, rate=1e-10)
        for step in recording:
            assert len(step) == 3 * 212
            for p in step:  # each weight has one path, and hears nothing of the others
                [name] = p.contributors
                assert f"encoder_{name}." in p.fqn
                assert p.residual == 0.0
        weights = [network.get_layer("conv1_conv").kernel.value for network in networks]
        assert not torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[1], weights[2])

    def test_one_network_called_three_times_has_three_paths_into_each_weight(self, double):
        keras.utils.set_random_seed(0)
        network = three_resnets.one_network()
        shared = network.get_layer("encoder")
        start = [v.value.detach().clone() for v in shared.variables]
        layers = [
            shared.get_layer(name) for name in ("conv1_conv", "conv3_block1_2_bn", "conv5_block3_3_conv")
        ]
        names = {
            f"{network.name}.encoder.{layer.name}.{v.name}": v
            for layer in layers
            for v in layer.trainable_variables
        }
        recording, state = self.trained(network, NAMES)
        after = keras_laws.copies(names)
        self.restore(shared, start)
        before = keras_laws.copies(names)
        torch.manual_seed(0)
        keras.utils.set_random_seed(0)
        _, plain = self.trained(network, NAMES, watched=False)
        laws.assert_bitwise_equal(state[:-1], plain[:-1])  # all but torch's random state, set anew above
        self.restore(shared, start)
        images = three_resnets.triplets(2)
        outputs = {n: shared(x, training=True) for n, x in zip(NAMES, images, strict=True)}
        model = three_resnets.Triplet(network)
        loss = model.compute_loss(None, None, [three_resnets.unit(z) for z in outputs.values()])
        truth = keras_laws.two_stage(names, outputs, loss)
        [step] = recording
        assert len(step) == 212
        assert all(set(p.contributors) == set(NAMES) for p in step)
        keras_laws.assert_laws(step, before, after)
        keras_laws.assert_contributions(step, truth)

    @staticmethod
    def restore(shared, start):
        for variable, value in zip(shared.variables, start, strict=True):
            variable.assign(value)


class TestTripletCnn:
    """Three forwards and one backward? The encoder of the question, thinner, at 32×32."""

    def trained(self, watched, steps=3):
        keras.utils.set_random_seed(0)
        model = triplet_cnn.cnn(side=32, channels=1, filters=(4, 4, 8, 8, 8))
        optimizer = keras.optimizers.Adam(1e-2)
        flow = watching.watch(model, optimizer, branches=NAMES, keep="tensors") if watched else None
        names, before, losses, statistics = keras_laws.flat_names(model), [], [], []
        for seed in range(steps):
            before.append(keras_laws.copies(names))
            statistics.append([v.value.clone() for v in model.non_trainable_variables])
            losses.append(triplet_cnn.train_step(model, optimizer, triplet_cnn.triplets(6, 32, seed)))
        before.append(keras_laws.copies(names))
        if flow is not None:
            flow.close()
        return flow and flow.recording, keras_laws.state_of(model, optimizer, losses), before

    def test_the_architecture_is_that_of_the_question(self):
        model = triplet_cnn.cnn()
        assert model.input_shape == (None, 112, 112, 3)
        filters = [model.get_layer(f"Conv{i}").kernel.shape for i in range(1, 6)]
        assert [tuple(s) for s in filters] == [
            (3, 3, 3, 16), (3, 3, 16, 32), (3, 3, 32, 64), (3, 3, 64, 128), (3, 3, 128, 256),
        ]  # fmt: skip
        assert model.output_shape == (None, 128)

    def test_all_three_paths_move_the_one_model_and_the_laws_hold(self):
        recording, state, before = self.trained(True)
        laws.assert_bitwise_equal(state, self.trained(False)[1])
        for i, step in enumerate(recording):
            keras_laws.assert_laws(step, before[i], before[i + 1])
            twin = triplet_cnn.cnn(side=32, channels=1, filters=(4, 4, 8, 8, 8))
            names = keras_laws.flat_names(twin)
            for fqn, variable in names.items():
                variable.assign(before[i][fqn])
            images = triplet_cnn.triplets(6, 32, seed=i)
            outputs = {name: twin(x, training=True) for name, x in zip(NAMES, images, strict=True)}
            truth = keras_laws.two_stage(names, outputs, triplet_cnn.triplet_loss(*outputs.values()))
            keras_laws.assert_contributions(step, truth)
            for name in NAMES:  # "only the model of the negative is updated" is refuted
                assert step.layer("").norms[name] > 0
                assert step["Conv1.kernel"].delta.norms[name] > 0

    def test_each_vector_has_length_one_and_the_norm_of_the_question_gave_that_to_the_batch(self):
        model = triplet_cnn.cnn(side=32, channels=1, filters=(4,))
        images = triplet_cnn.triplets(5, 32)[0]
        lengths = ops.norm(model(images), axis=-1)
        torch.testing.assert_close(lengths.detach(), torch.ones(5))
        raw = keras.Model(model.input, model.get_layer("Dense1").output)(images)
        as_asked = raw / ops.sqrt(ops.sum(ops.square(raw)))
        assert ops.norm(as_asked).item() == pytest.approx(1.0)
        assert ops.norm(as_asked, axis=-1).max().item() < 0.6  # no vector is of length 1

    def test_a_floor_above_zero_costs_but_pulls_nothing(self):
        anchor = torch.zeros(1, 2, requires_grad=True)
        far = torch.full((1, 2), 5.0)
        distance = ops.norm(anchor - anchor.detach(), axis=-1) - ops.norm(anchor - far, axis=-1) + 0.2
        loss = ops.maximum(distance, 0.000001).sum()
        loss.backward()
        assert loss.item() > 0
        assert torch.equal(anchor.grad, torch.zeros(1, 2))

    def test_without_training_batch_normalization_learns_no_statistics(self):
        model = triplet_cnn.cnn(side=32, channels=1, filters=(4,))
        images = triplet_cnn.triplets(5, 32)[0]
        mean = model.get_layer("Norm1").moving_mean
        start = mean.value.clone()
        model(images)
        assert torch.equal(mean.value, start)
        model(images, training=True)
        assert not torch.equal(mean.value, start)

    def test_nan_is_told(self):
        model = triplet_cnn.cnn(side=32, channels=1, filters=(4,))
        images = [np.full((2, 32, 32, 1), np.nan, "float32")] * 3
        with pytest.raises(FloatingPointError):
            triplet_cnn.train_step(model, keras.optimizers.SGD(), images)


class TestTwoModels:
    """Can two Keras models share weights?"""

    KERNEL = "model_a.shared.kernel"

    def test_the_check_of_the_answer_raises_and_mended_cannot_fail(self):
        a, b = two_models.dense()
        of_a, of_b = (model.get_layer("shared").get_weights() for model in (a, b))
        with pytest.raises(ValueError, match="inhomogeneous"):
            np.allclose(of_a, of_b)
        for _ in range(2):  # whatever the weights are, an object is equal to itself
            mine, theirs = (model.get_layer("shared").get_weights() for model in (a, b))
            assert all(np.allclose(x, y) for x, y in zip(mine, theirs, strict=True))
            a.get_layer("shared").kernel.assign(np.random.rand(784, 64))
        assert a.get_layer("shared") is b.get_layer("shared")
        assert a.get_layer("head_model_a") is not b.get_layer("head_model_b")

    def fitted(self, watched=True, keep="tensors", epochs=1):
        keras.utils.set_random_seed(0)
        a, b = two_models.dense()
        shared, before, losses = a.get_layer("shared").kernel, [], []

        class Keep(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                before.append({TestTwoModels.KERNEL: shared.value.detach().clone()})

        flow = watching.watch([a, b], branches={"A": a, "B": b}, keep=keep) if watched else None
        for model in (a, b):
            data = two_models.digits(model, 96)
            model.fit(*data, epochs=epochs, verbose=0, shuffle=False, callbacks=[Keep()])
            losses.append(a.evaluate(*two_models.digits(a, 96), verbose=0))
        before.append({self.KERNEL: shared.value.detach().clone()})
        if flow is not None:
            flow.close()
        state = [s for m in (a, b) for s in keras_laws.state_of(m, m.optimizer)]
        return flow and flow.recording, [*state, torch.tensor(losses)], before, losses

    def test_fitting_a_then_b_moves_the_shared_layer_twice_each_by_its_own_delta(self):
        recording, state, before, _ = self.fitted()
        laws.assert_bitwise_equal(state, self.fitted(watched=False)[1])
        movers = [step[self.KERNEL].contributors for step in recording]
        assert movers == [("A",)] * 3 + [("B",)] * 3
        for i, step in enumerate(recording):
            p = step[self.KERNEL]
            assert p.names == (self.KERNEL, "model_b.shared.kernel")
            assert p.residual == 0.0
            assert p.delta.shares == {p.contributors[0]: pytest.approx(1.0)}
            moved = (before[i + 1][self.KERNEL] - before[i][self.KERNEL]).numpy()
            np.testing.assert_array_equal(p.delta.tensor, moved)
            assert np.abs(moved).max() > 0
            assert p.delta.residual <= 1e-6

    def test_the_gradient_of_each_step_is_that_of_its_own_model(self):
        recording, _, _, _ = self.fitted()
        keras.utils.set_random_seed(0)
        a, _ = two_models.dense()
        images, classes = two_models.digits(a, 96)
        loss = ops.mean(ops.square(a(images[:32]) - torch.tensor(classes[:32])))
        [gradient] = torch.autograd.grad(loss, [a.get_layer("shared").kernel.value])
        found = recording[0][self.KERNEL].contribution("A")
        np.testing.assert_allclose(found, gradient.numpy(), atol=1e-6 * gradient.abs().max().item(), rtol=0)

    def test_after_fitting_b_model_a_is_worse_and_the_delta_is_bs(self):
        recording, _, _, (after_a, after_b) = self.fitted(keep="gram", epochs=6)
        assert after_b > after_a
        way = {"A": 0.0, "B": 0.0}
        for step in recording:
            [name] = step[self.KERNEL].contributors
            way[name] += step[self.KERNEL].delta.norm
        assert min(way.values()) > 0.1

    @pytest.mark.parametrize("build", [two_models.dense, two_models.conv, two_models.custom])
    def test_together_both_models_contribute_to_the_shared_layer(self, build):
        keras.utils.set_random_seed(0)
        a, b = build()
        shared = a.get_layer("shared")
        names = {f"model_a.shared.{v.name}": v for v in shared.trainable_variables}

        def loss_of(model):
            images, classes = two_models.digits(model, 8)
            return ops.mean(ops.square(model(images) - torch.tensor(classes)))

        with watching.watch([a, b], branches={"A": a, "B": b}, keep="*shared*") as flow:
            (loss_of(a) + loss_of(b)).backward()
            flow.step()
        for fqn, variable in names.items():
            p = flow.recording.last[fqn]
            assert p.contributors == ("A", "B")
            assert p.residual == 0.0
            for name, model in (("A", a), ("B", b)):
                [truth] = torch.autograd.grad(loss_of(model), [variable.value])
                np.testing.assert_allclose(p.contribution(name), truth.numpy(), rtol=1e-5, atol=1e-8)

import pytest
import torch
from torch.nn import functional as F

from gradflow import zoo
from gradflow.errors import InvalidArgumentError
from gradflow.zoo import resnet50, triplet


def torchvision_shapes():
    """Names and shapes of a ResNet-50's state dict as torchvision publishes it, from the paper's table."""
    shapes = {}

    def bn(name, n):
        shapes.update({f"{name}.{k}": (n,) for k in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 3, 7, 7)
    bn("bn1", 64)
    before = 64
    for layer, (blocks, n) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            shapes[f"{at}.conv1.weight"] = (n, before, 1, 1)
            shapes[f"{at}.conv2.weight"] = (n, n, 3, 3)
            shapes[f"{at}.conv3.weight"] = (4 * n, n, 1, 1)
            for i, m in ((1, n), (2, n), (3, 4 * n)):
                bn(f"{at}.bn{i}", m)
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * n, before, 1, 1)
                bn(f"{at}.downsample.1", 4 * n)
            before = 4 * n
    shapes["fc.weight"], shapes["fc.bias"] = (1000, 2048), (1000,)
    return shapes


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(0)
    return resnet50.ResNet50(1000)


def test_names_and_shapes_are_those_of_torchvision(full):
    assert {name: tuple(t.shape) for name, t in full.state_dict().items()} == torchvision_shapes()
    assert len(full.state_dict()) == 320
    assert sum(p.numel() for p in full.parameters()) == 25_557_032  # as torchvision documents it


def test_layers_halve_the_image_where_torchvision_does(full):
    sides = {}
    stages = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    inside = ("layer2.0.conv1", "layer2.0.conv2")
    for name in stages + inside:
        full.get_submodule(name).register_forward_hook(lambda *a, n=name: sides.update({n: a[2].shape[-1]}))
    full.eval()(torch.rand(1, 3, 224, 224))
    assert " ".join(str(sides[name]) for name in stages) == "112 56 56 28 14 7"
    assert [sides[name] for name in inside] == [56, 28]  # v1.5: the 3×3 halves, not the 1×1


def test_bottleneck_agrees_with_a_calculation_step_by_step():
    block = resnet50.Bottleneck(6, 2, stride=2).double().eval()
    for p in block.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(3, 6, 5, 5, dtype=torch.float64)
    w = block.state_dict()

    def conv_bn(x, conv, bn, **how):
        y = F.conv2d(x, w[f"{conv}.weight"], **how)
        return y / (1 + 1e-5) ** 0.5 * w[f"{bn}.weight"][:, None, None] + w[f"{bn}.bias"][:, None, None]

    y = conv_bn(x, "conv1", "bn1").clamp(min=0)
    y = conv_bn(y, "conv2", "bn2", stride=2, padding=1).clamp(min=0)
    y = conv_bn(y, "conv3", "bn3") + conv_bn(x, "downsample.0", "downsample.1", stride=2)
    torch.testing.assert_close(block(x), y.clamp(min=0))


def test_a_block_that_keeps_its_shape_has_a_bare_shortcut():
    block = resnet50.Bottleneck(8, 2).eval()
    torch.nn.init.zeros_(block.bn3.weight)
    x = torch.rand(2, 8, 4, 4)
    assert torch.equal(block(x), x)


def test_three_inputs_go_through_one_encoder():
    network = resnet50.thin().eval()
    images = torch.rand(2, 3, 32, 32)
    a, p, n = network(images, images, images)
    assert torch.equal(a, p)
    assert torch.equal(a, n)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(2))


def test_loss_is_the_triplet_loss_of_the_three_outputs():
    network = resnet50.thin()
    batch = next(resnet50.batches(0, 4))
    value, _ = resnet50.loss(network, batch)
    expected, _ = triplet.triplet_loss(*network(*batch))
    torch.testing.assert_close(value, expected)


def test_batches_are_grey_in_three_channels():
    for images, grey in zip(next(resnet50.batches(1, 3)), next(triplet.batches(1, 3)), strict=True):
        assert images.shape == (3, 3, 32, 32)
        assert all(torch.equal(images[:, c], grey[:, 0]) for c in range(3))


def test_a_step_of_full_width_runs():
    scene = zoo.scene("resnet50")
    assert scene.heavy
    assert "resnet50" not in zoo.names()
    assert "resnet50" in zoo.names(heavy=True)
    model = scene.build()
    value, _ = scene.loss(model, next(scene.batches(0, 2)))
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.encoder.conv1.weight.grad.norm() > 0


class TestLoadWeights:
    @pytest.fixture
    def source(self):
        torch.manual_seed(1)
        network = resnet50.ResNet50(10, width=4)
        network(torch.rand(4, 3, 32, 32))  # moves the running statistics
        return network

    def test_same_shapes_give_the_same_network(self, source, tmp_path):
        torch.save(source.state_dict(), tmp_path / "weights.pth")
        network = resnet50.ResNet50(10, width=4)
        resnet50.load_weights(network, tmp_path / "weights.pth")
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(network.eval()(images), source.eval()(images))

    def test_a_dense_layer_of_another_size_is_left_as_it_is(self, source, tmp_path):
        torch.save(source.state_dict(), tmp_path / "weights.pth")
        network = resnet50.ResNet50(3, width=4)
        own = network.fc.weight.clone()
        resnet50.load_weights(network, tmp_path / "weights.pth")
        assert torch.equal(network.fc.weight, own)
        assert torch.equal(network.layer4[2].conv3.weight, source.layer4[2].conv3.weight)
        assert torch.equal(network.bn1.running_mean, source.bn1.running_mean)

    def test_old_files_do_not_count_batches(self, source, tmp_path):
        old = {n: t for n, t in source.state_dict().items() if not n.endswith("num_batches_tracked")}
        torch.save(old, tmp_path / "old.pth")
        network = resnet50.ResNet50(10, width=4)
        resnet50.load_weights(network, tmp_path / "old.pth")
        assert torch.equal(network.conv1.weight, source.conv1.weight)

    @pytest.mark.parametrize("damage", ["width", "missing", "foreign"])
    def test_what_does_not_fit_is_refused_and_changes_nothing(self, source, tmp_path, damage):
        state = source.state_dict()
        if damage == "missing":
            del state["layer3.5.conv2.weight"]
        if damage == "foreign":
            state["layer5.0.conv1.weight"] = torch.ones(1)
        torch.save(state, tmp_path / "weights.pth")
        network = resnet50.ResNet50(10, width=8 if damage == "width" else 4)
        before = {n: t.clone() for n, t in network.state_dict().items()}
        with pytest.raises(InvalidArgumentError) as error:
            resnet50.load_weights(network, tmp_path / "weights.pth")
        assert {"width": "conv1.weight", "missing": "layer3.5.conv2", "foreign": "layer5.0"}[
            damage
        ] in error.value.what
        assert "torchvision's resnet50" in error.value.do
        assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())

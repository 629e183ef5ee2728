"""The sensor networks: shapes, parameters and answers against torchvision, numpy and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.config import PLACES, SensorModelConfig
from kd_edge.models.sensors import SensorNetworks, SensorOutput


def networks(network: str = "conv1d", sensors: int = 2, points: int = 32, **options: object) -> SensorNetworks:
    torch.manual_seed(0)
    config = SensorModelConfig.model_validate({"network": network, "width": 6} | options)
    return SensorNetworks(config, sensors, 4, points)


def inputs_of(model: SensorNetworks, samples: int = 3) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(samples, model.sensors, 3, *[model.points] * (2 if model.takes_images else 1))


def answer(model: SensorNetworks, inputs: Tensor, present: Tensor | None = None) -> SensorOutput:
    with torch.no_grad():
        output: SensorOutput = model(inputs, present)
    return output


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("points", [64, 224])
@pytest.mark.parametrize(
    ("network", "channels", "sides"),
    [
        ("vgg16", (64, 128, 256, 512, 512), (2, 4, 8, 16, 32)),
        ("resnet18", (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
        ("conv1d", (64, 128, 128, 256, 256), (2, 4, 8, 16, 32)),
    ],
)
def test_shapes_at_every_place(network: str, channels: tuple[int, ...], sides: tuple[int, ...], points: int) -> None:
    config = SensorModelConfig.model_validate({"network": network, "attention": True})
    with torch.device("meta"):  # shapes only
        model = SensorNetworks(config, 2, 27, points).eval()
        output = model(torch.empty(2, 2, 3, *[points] * (1 if network == "conv1d" else 2)))
    assert tuple(output.stages) == PLACES
    for place, c, part in zip(PLACES, channels, sides, strict=False):
        width = 1 if network == "conv1d" else points // part
        assert [tuple(x.shape) for x in output.stages[place]] == [(2, c, points // part, width)] * 2
    for place in ("fc1", "fc2"):
        assert [tuple(x.shape) for x in output.stages[place]] == [(2, 300)] * 2
    assert output.logits.shape == (2, 2, 27)
    assert output.weights.shape == (2, 2)
    assert output.together.shape == (2, 27)


@pytest.mark.slow
def test_a_vgg_is_torchvisions_up_to_the_last_pooling() -> None:
    model = networks("vgg16", 1, 64, fusion=()).eval()
    reference = make_layers(cfgs["D"], batch_norm=True).eval()
    own = [model.networks[0].get_submodule(f"block{i}") for i in range(1, 6)]
    reference.load_state_dict(dict(zip(reference.state_dict(), nn.Sequential(*own).state_dict().values(), strict=True)))
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    nn.Sequential(*own).load_state_dict(
        dict(zip(nn.Sequential(*own).state_dict(), reference.state_dict().values(), strict=True))
    )
    image = inputs_of(model)
    with torch.no_grad():
        expected = reference(image[:, 0])
    output = answer(model, image)
    torch.testing.assert_close(output.stages["block5"][0], expected, rtol=1e-4, atol=1e-5)
    # the rest by hand, float64: flat block5, linear, batch norm of statistics 0 and 1, ReLU; fc2; head
    w = {k: v.double().numpy() for k, v in model.networks[0].state_dict().items() if k.startswith(("fc", "head"))}
    flat = output.stages["block5"][0].reshape(3, -1).double().numpy()
    fc1 = np.maximum((flat @ w["fc1.1.weight"].T + w["fc1.1.bias"]) / np.sqrt(1 + 1e-5), 0)
    fc2 = fc1 @ w["fc2.weight"].T + w["fc2.bias"]
    np.testing.assert_allclose(output.stages["fc1"][0].numpy(), fc1, atol=1e-5)
    np.testing.assert_allclose(output.stages["fc2"][0].numpy(), fc2, atol=1e-5)
    np.testing.assert_allclose(output.logits[:, 0].numpy(), fc2 @ w["head.weight"].T + w["head.bias"], atol=1e-5)


def test_a_resnet_is_torchvisions_up_to_its_last_stage() -> None:
    model = networks("resnet18", 1, 64, fusion=()).eval()
    reference = torchvision.models.resnet18(weights=None).eval()
    state = model.networks[0].state_dict()
    ours = [v for k, v in state.items() if k.startswith("block")]
    kept = [k for k in reference.state_dict() if not k.startswith("fc.")]
    reference.load_state_dict(dict(zip(kept, ours, strict=True)), strict=False)
    reference.fc = nn.Identity()  # type: ignore[assignment]
    image = inputs_of(model)
    with torch.no_grad():
        expected = reference(image[:, 0])
    torch.testing.assert_close(
        answer(model, image).stages["block5"][0].mean(dim=(2, 3)), expected, rtol=1e-4, atol=1e-5
    )


def test_parameters_against_a_count_by_hand() -> None:
    with torch.device("meta"):
        plain = SensorNetworks(SensorModelConfig(fusion=()), 2, 27, 64)
        fused = SensorNetworks(SensorModelConfig(), 2, 27, 64)
        one = SensorNetworks(SensorModelConfig(network="conv1d", fusion=(), attention=True), 1, 27, 64)
    # torchvision's vgg16_bn: 138 365 992, of which 25088 x 4096 + 4096 + 4096^2 + 4096 + 4096000 + 1000 the classifier
    convolutions = 138_365_992 - (25088 * 4096 + 4096 + 4096**2 + 4096 + 4_097_000)
    rest = 2048 * 300 + 300 + 600 + 300 * 300 + 300 + 300 * 27 + 27  # at 64 points 512 x 2 x 2
    assert count(plain) == 2 * (convolutions + rest) == 2 * (14_723_136 + 713_727)
    # a fusion of 2 x c channels: 2 (2c c/2 + c/2 + c/2 c + c) + 2 x 2 (c c/4 + c/4 + c/4 c + c) = 5 c^2 + 8 c
    assert count(fused) - count(plain) == sum(5 * c * c + 8 * c for c in (64, 128, 256, 512, 512, 300, 300))
    blocks = 3 * 64 * 7 + 64 * 128 * 5 + 128 * 128 * 5 + 128 * 256 * 5 + 256 * 256 * 5 + 2 * (64 + 2 * 128 + 2 * 256)
    attention = 300 * 64 + 64 + 64
    assert count(one) == blocks + 512 * 300 + 300 + 600 + 300 * 300 + 300 + 300 * 27 + 27 + attention


def test_fusions_are_where_they_were_asked_for_and_change_what_follows() -> None:
    model = networks(fusion=("fc1", "block3")).eval()
    assert tuple(model.fusions) == ("block3", "fc1")
    assert model.config.fusion == ("block3", "fc1")
    plain = networks(fusion=()).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("fusions")})
    x = inputs_of(model)
    fused, alone = answer(model, x), answer(plain, x)
    for place in ("block1", "block2"):
        torch.testing.assert_close(fused.stages[place], alone.stages[place], rtol=0, atol=0)
    with torch.no_grad():
        expected = model.fusions["block3"](alone.stages["block3"])
    torch.testing.assert_close(list(fused.stages["block3"]), expected)
    assert (fused.logits - alone.logits).abs().max() > 1e-3
    # without fusion a sensor does not know the others
    other = x.clone()
    other[:, 1] += 1
    torch.testing.assert_close(answer(plain, other).logits[:, 0], alone.logits[:, 0], rtol=0, atol=0)
    assert (answer(model, other).logits[:, 0] - fused.logits[:, 0]).abs().max() > 1e-4


def test_similarity_reaches_every_fusion() -> None:
    model = networks(similarity="batch").eval()
    x = inputs_of(model)
    assert {fusion.similarity for fusion in model.fusions.values()} == {"batch"}
    assert (answer(model, x).logits[:1] - answer(model, x[:1]).logits).abs().max() > 1e-4
    model.similarity = "identity"
    assert model.similarity == "identity"
    assert {fusion.similarity for fusion in model.fusions.values()} == {"identity"}
    torch.testing.assert_close(answer(model, x).logits[:1], answer(model, x[:1]).logits)


@pytest.mark.parametrize("attention", [False, True])
def test_weights_of_the_sensors(attention: bool) -> None:
    model = networks(sensors=3, attention=attention).eval()
    x = inputs_of(model)
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    uniform = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(answer(model, x, present).weights, uniform)  # attention starts as the mean
    if attention:
        with torch.no_grad():
            model.attention[2].weight.normal_()
    output = answer(model, x, present)
    if attention:
        w = {k: v.double().numpy() for k, v in model.attention.state_dict().items()}
        fc2 = np.stack([f.double().numpy() for f in output.stages["fc2"]], axis=1)
        scores = np.exp(np.tanh(fc2 @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"][0]) * present.numpy()
        expected = scores / scores.sum(axis=1, keepdims=True)
        assert np.ptp(expected[0]) > 1e-2
        np.testing.assert_allclose(output.weights.numpy(), expected, atol=1e-6)
    by_hand = sum(output.weights[:, k, None] * output.logits[:, k] for k in range(3))
    torch.testing.assert_close(output.together, by_hand)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["conv1d", "resnet18"])
def test_what_a_missing_sensor_holds_does_not_matter(network: str) -> None:
    model = networks(network).train()
    present = torch.tensor([[True, True], [True, False], [True, True]])
    first = inputs_of(model)
    second = first.clone()
    second[1, 1] = float("nan")
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(0)
    expected = answer(model, first, present)
    model.load_state_dict(state)
    torch.manual_seed(0)
    output = model(second, present)
    torch.testing.assert_close(output.logits.detach(), expected.logits, rtol=0, atol=0)
    output.together.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(b.isfinite().all() for b in model.buffers())
    every = torch.ones(3, 2, dtype=torch.bool)
    torch.testing.assert_close(answer(model.eval(), first, every).logits, answer(model, first).logits, rtol=0, atol=0)


def test_what_a_missing_sensor_holds_is_unseen_by_its_neighbour() -> None:
    model = networks().eval()
    x, present = inputs_of(model), torch.tensor([[True, False]] * 3)
    other = x.clone()
    other[:, 1] = 100.0
    torch.testing.assert_close(answer(model, x, present).together, answer(model, other, present).together)
    assert (answer(model, x, present).together - answer(model, x).together).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("network", "variant"),
    [
        pytest.param("vgg16", "official", marks=pytest.mark.slow),
        ("resnet18", "paper"),
        ("conv1d", "paper"),
        ("conv1d", "official"),
    ],
)
def test_every_weight_learns_in_float32_and_under_autocast(network: str, variant: str) -> None:
    model = networks(network, variant=variant, width=32, attention=True).train()
    x = inputs_of(model, 4)
    for lower in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower):
            output = model(x)
        loss = output.together.float().square().sum() + output.logits.float().square().sum()
        loss.backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        assert all(g is not None and g.isfinite().all() for g in grads.values())
        still = {name for name, g in grads.items() if g is not None and g.abs().max() == 0}
        assert still <= {"attention.0.weight", "attention.0.bias"}  # while the last weights are 0
        assert output.weights.dtype is torch.float32


@pytest.mark.slow
def test_it_learns_what_a_sensor_tells() -> None:
    """A slow or a fast oscillation in one sensor, noise in the other."""
    model = networks(dropout=0.0, width=16, fusion=("fc1", "fc2")).train()
    torch.manual_seed(1)
    labels = torch.arange(16) % 2
    time = torch.arange(32) / 32
    wave = torch.sin(2 * torch.pi * (time * (2 + 4 * labels[:, None]) + torch.rand(16, 1)))
    x = torch.stack([wave[:, None].expand(16, 3, 32), torch.randn(16, 3, 32)], dim=1)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(15):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x).together, labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1  # from 1.6
    for similarity in ("batch", "running"):
        model.similarity = similarity  # type: ignore[assignment]
        assert (answer(model.eval(), x).together.argmax(1) == labels).all()
    torch.testing.assert_close(answer(model, x).together[:1], answer(model, x[:1]).together)


def test_weights_are_saved_and_come_back() -> None:
    first = networks(attention=True, points=40).train()
    first(inputs_of(first))  # moves the statistics
    torch.manual_seed(9)
    second = SensorNetworks(first.config, 2, 4, 40)
    second.load_state_dict(first.state_dict())
    x = inputs_of(first)
    torch.testing.assert_close(answer(first.eval(), x).logits, answer(second.eval(), x).logits, rtol=0, atol=0)
    assert SensorModelConfig.model_validate_json(first.config.model_dump_json()) == first.config


def test_description() -> None:
    assert networks(fusion=("fc1",)).describe() == (
        "2 x 1-D CNN, 6 wide, on signals of 32 points, fused at fc1 (official), weighted equally, 1.2 M parameters"
    )
    text = networks("resnet18", fusion=(), attention=True).describe()
    assert text == "2 x ResNet18, 6 wide, on images of 32 x 32, not fused, weighted by attention, 22.4 M parameters"


def test_one_sensor_may_be_fused_with_itself() -> None:
    model = networks(sensors=1).train()
    output = answer(model, inputs_of(model))
    assert output.logits.isfinite().all()
    torch.testing.assert_close(output.together, output.logits[:, 0])


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"points 50 for network 'resnet18'.*a multiple of 32.*set points to 64"):
        networks("resnet18", points=50)
    with pytest.raises(ConfigError, match=r"points 0 for network 'vgg16'.*set points to 32"):
        networks("vgg16", points=0)
    with pytest.raises(ConfigError, match=r"points 31 for network 'conv1d'.*32 or more"):
        networks(points=31)
    with pytest.raises(ConfigError, match="0 sensors and 4 classes"):
        networks(sensors=0)
    with pytest.raises(ValidationError, match="fusion names a layer twice: fc1, fc1"):
        SensorModelConfig(fusion=("fc1", "fc1"))
    with pytest.raises(ValidationError, match="'block1'"):
        SensorModelConfig.model_validate({"fusion": ["block7"]})
    model = networks().train()
    x = inputs_of(model)
    with pytest.raises(TrainingError, match="training batch of 1 sample"):
        model(x[:1])
    assert answer(model.eval(), x[:1]).logits.shape == (1, 2, 4)
    with pytest.raises(TrainingError, match=r"inputs \(3, 1, 3, 32\) for 'conv1d'.*\(batch, 2, 3, 32\)"):
        model(x[:, :1])
    with pytest.raises(TrainingError, match=r"\(batch, 2, 3, 32, 32\)"):
        networks("resnet18")(x)
    with pytest.raises(TrainingError, match="a sample without any sensor"):
        model(x, torch.tensor([[True, True], [False, False], [True, True]]))
    with pytest.raises(TrainingError, match=r"present \(3,\) of torch.bool"):
        model(x, torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("network", ["conv1d", "resnet18"])
def test_what_is_lacking_is_in_no_batch_statistics(network: str) -> None:
    """The samples that have a sensor get what they get in a batch of their own."""
    model = networks(network, fusion=(), dropout=0.0).train()
    twin = networks(network, fusion=(), dropout=0.0).train()
    twin.load_state_dict(model.state_dict())
    x = inputs_of(model, 6)
    present = torch.tensor([[True, True], [True, False]] * 3)
    with torch.no_grad():
        found = model(x, present)
        alone = twin(x[present[:, 1]])
    torch.testing.assert_close(found.logits[present[:, 1], 1], alone.logits[:, 1])
    for (name, mine), (_, expected) in zip(
        model.networks[1].named_buffers(), twin.networks[1].named_buffers(), strict=True
    ):
        torch.testing.assert_close(mine, expected, msg=name)
    assert not found.logits[~present[:, 1], 1].any()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_statistics_leave_them_alone(count: int) -> None:
    model = networks(fusion=("fc1",)).train()
    before = {name: value.clone() for name, value in model.networks[1].named_buffers()}
    present = torch.ones(4, 2, dtype=torch.bool)
    present[count:, 1] = False
    output = model(inputs_of(model, 4), present)
    output.together.sum().backward()
    assert torch.isfinite(output.logits).all()
    for name, value in model.networks[1].named_buffers():
        assert torch.equal(value, before[name]), name
    assert all(module.training for module in model.modules())

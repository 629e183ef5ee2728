"""Class activation maps: CAM sums up to the logit, Grad-CAM is its derivative, and the model stays as it was."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.models import BACKBONES, ClipModel, ModelConfig, build_model
from kd_edge.pictures.cam import class_activations, last_stage
from tests.pictures.conftest import by_hand, pixels


def network(backbone: str, temporal: str, segments: int = 3) -> ClipModel:
    """With random weights and with batch norm statistics that are not the initial ones."""
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, temporal=temporal, hidden=8, bottleneck=8)  # type: ignore[arg-type]
    model = build_model(config, 3, 5, segments)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval()


def clip(segments: int = 3, px: int = 64) -> torch.Tensor:
    return torch.randn(segments, 3, px, px, generator=torch.Generator().manual_seed(1))


def test_maps_by_hand() -> None:
    found = class_activations(by_hand(), pixels(), [0, 1])
    x = pixels()[:, 0].numpy()
    assert found.method == "CAM"
    assert found.layer == "backbone.last"
    np.testing.assert_allclose(found.maps, [4 * x, -x])
    np.testing.assert_allclose(found.logits, [0.0, 0.5])
    likeliest = class_activations(by_hand(), pixels())
    np.testing.assert_allclose(likeliest.maps, [-x])
    # gradient of the mean over 2 segments of 4 places
    gradients = class_activations(by_hand(), pixels(), [0, 1], method="Grad-CAM")
    assert gradients.method == "Grad-CAM"
    np.testing.assert_allclose(gradients.maps, [4 * x / 8, -x / 8])


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in ("resnet8_grid", "cnn4_grid")])
def test_cam_adds_up_to_the_logit_and_grad_cam_is_cam_to_scale(backbone: str) -> None:
    model = network(backbone, "tsn", segments=2)
    cam = class_activations(model, clip(2), range(5))
    bias = model.head.classifier.bias.detach().numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(cam.maps.mean(axis=(1, 2, 3)) + bias, cam.logits, rtol=1e-4, atol=1e-5)
    assert cam.maps.shape[:2] == (5, 2)
    places = cam.maps[0].size
    gradients = class_activations(model, clip(2), range(5), method="Grad-CAM")
    np.testing.assert_allclose(gradients.maps * places, cam.maps, rtol=1e-3, atol=1e-4 * np.abs(cam.maps).max())


def test_a_backbone_that_does_more_than_average_has_grad_cam() -> None:
    model = network("resnet8_grid", "tsn", segments=2)
    found = class_activations(model, clip(2), [0])
    assert (found.method, found.layer) == ("Grad-CAM", "backbone.layer3")
    assert np.abs(found.maps).max() > 0
    with pytest.raises(TrainingError, match="the last stage, averaged"):
        class_activations(model, clip(2), [0], method="CAM")
    assert not network("resnet8_grid", "tsn").backbone.is_mean
    assert network("tiny", "tsn").backbone.is_mean


@pytest.mark.parametrize("temporal", ["tsm", "tsm_causal"])
def test_shifted_networks_have_cam_too(temporal: str) -> None:
    model = network("resnet10_thin", temporal)
    cam = class_activations(model, clip(), range(5))
    bias = model.head.classifier.bias.detach().numpy()  # type: ignore[union-attr]
    assert cam.method == "CAM"
    np.testing.assert_allclose(cam.maps.mean(axis=(1, 2, 3)) + bias, cam.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temporal", ["tconv", "trn"])
def test_grad_cam_weighs_by_the_slope_of_the_head(temporal: str) -> None:
    """Slopes by central differences in float64: the last maps reach the logit through their means alone."""
    model = network("tiny", temporal)
    found = class_activations(model, clip(), [3])
    assert found.method == "Grad-CAM"
    with torch.no_grad():
        maps = torch.nn.Sequential(*list(model.backbone)[:4])(clip()).double()  # (3, 24, 4, 4)
        head, features, step = deepcopy(model.head).double(), maps.mean(dim=(2, 3)), 1e-6
        slopes = torch.zeros_like(features)
        for t, c in np.ndindex(*features.shape):
            ends = [features.clone(), features.clone()]
            ends[0][t, c] += step
            ends[1][t, c] -= step
            above, below = (head(end[None])[0, 3] for end in ends)
            slopes[t, c] = (above - below) / (2 * step)
    expected = torch.einsum("tc,tchw->thw", slopes, maps) / 16
    np.testing.assert_allclose(found.maps[0], expected.numpy(), rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_an_earlier_layer_is_seen_through_gradients() -> None:
    model = network("resnet10_thin", "tsn")
    found = class_activations(model, clip(), [0], "backbone.layer2")
    assert found.method == "Grad-CAM"
    assert found.maps.shape == (1, 3, 8, 8)
    assert found.layer == "backbone.layer2"
    assert np.abs(found.maps).max() > 0


def test_the_model_stays_as_it_was() -> None:
    model = network("resnet10_thin", "tconv").train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    image = clip()
    class_activations(model, image, [0, 1])
    with pytest.raises(TrainingError):
        class_activations(model, image, layer="backbone")
    assert [module.training for module in model.modules()] == modes
    assert all(not module._forward_hooks and not module._backward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not image.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_networks_have_gradients_too() -> None:
    model = network("tiny", "tconv")
    expected = class_activations(model, clip(), [1]).maps
    with torch.no_grad():
        found = class_activations(model.requires_grad_(False), clip(), [1]).maps
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found).max() > 0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("backbone.layr3", r"no layer 'backbone.layr3' \(did you mean 'backbone.layer3'\?\)"),
        ("backbone", r"layer 'backbone' puts out \(3, 256\).*--layer backbone.layer4"),
        ("head.classifier", r"layer 'head.classifier' puts out \(1, 5\)"),
        ("backbone.bn1", "overwritten in place"),
    ],
)
def test_layers_without_maps_are_refused(layer: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        class_activations(network("resnet10_thin", "tsn"), clip(), layer=layer)


def test_cam_is_refused_where_there_is_none() -> None:
    model = network("tiny", "tconv")
    assert last_stage(model) == "backbone.layer4"
    with pytest.raises(TrainingError, match=r"CAM of layer 'backbone.layer4' under a TemporalConvolutionHead"):
        class_activations(model, clip(), method="CAM")
    with pytest.raises(TrainingError, match=r"CAM of layer 'backbone.layer3' under a ConsensusHead"):
        class_activations(network("tiny", "tsn"), clip(), layer="backbone.layer3", method="CAM")

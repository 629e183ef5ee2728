from __future__ import annotations

import pytest
import torch
from torch import nn

from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.models.layers import Layer, check_layer, list_layers


class Odd(nn.Module):
    """A layer called twice, one never called, and one that puts out two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(3, 3)
        self.never = nn.Linear(3, 5)
        self.pair = Pair()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pair(self.twice(self.twice(x[:1]).repeat(4, 1)))[0]


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def test_odd_layers_by_hand() -> None:
    assert list_layers(Odd(), (2, 3)) == [
        Layer("twice", "Linear", (1, 3)),
        Layer("never", "Linear", None),
        Layer("pair", "Pair", None),
    ]


def test_clip_model_has_all_paths_and_the_shapes_of_its_stages() -> None:
    model = build_model(ModelConfig(backbone="tiny", temporal="tconv", hidden=16), 1, 3, 4)
    layers = {layer.path: layer for layer in list_layers(model, (2, 4, 1, 32, 32))}
    assert list(layers) == [name for name, _ in model.named_modules() if name]
    stages = [layers[f"backbone.{stage}"].shape for stage in model.backbone.stages]
    assert stages == [(8, 8, 16, 16), (8, 12, 8, 8), (8, 16, 4, 4), (8, 24, 2, 2)]
    assert layers["backbone"].shape == (8, 24)
    assert layers["head.norm1"] == Layer("head.norm1", "BatchNorm1d", (2, 16, 4))
    assert layers["head"].shape == (2, 3)
    for path in layers:
        check_layer(model, path)


def test_the_model_is_left_as_it_was() -> None:
    model = build_model(ModelConfig(backbone="tiny"), 1, 3, 4)
    model.train()
    model.backbone.get_submodule("layer1.1").eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    list_layers(model, (2, 4, 1, 32, 32))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_wrong_shape_and_wrong_path_are_one_line() -> None:
    model = build_model(ModelConfig(backbone="resnet18"), 3, 3, 4)
    with pytest.raises(TrainingError, match=r"cannot be run on an input of \(1, 4, 1, 32, 32\)") as caught:
        list_layers(model, (1, 4, 1, 32, 32))
    assert "\n" not in str(caught.value)
    assert not any(m._forward_hooks for m in model.modules())
    with pytest.raises(TrainingError, match=r"no layer 'backbone.layer5'.*did you mean 'backbone.layer"):
        check_layer(model, "backbone.layer5")
    with pytest.raises(TrainingError, match="no layer ''"):
        check_layer(model, "")

"""Parts of a backbone that are not trained: which those are, and that nothing of them moves."""

from __future__ import annotations

import pytest
import torch

from kd_edge.errors import ConfigError
from kd_edge.models import BACKBONES, ClipModel, ModelConfig, build_model
from kd_edge.models.backbones import build_backbone
from kd_edge.train.finetune.freezing import check_stages, freeze
from kd_edge.train.recipe import StudentConfig


def config(freeze: object, backbone: str = "resnet10_thin") -> StudentConfig:
    model = {"backbone": backbone, "temporal": "tsn", "dropout": 0.0}
    return StudentConfig.model_validate({"modality": "nir", "model": model, "source": "there", "freeze": freeze})


def student(settings: StudentConfig) -> ClipModel:
    torch.manual_seed(0)
    return build_model(settings.model, 1, 3, 2)


def moved(model: ClipModel) -> set[str]:
    """Top-level parts of the network of which anything has changed after a few steps of training."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for _ in range(2):
        model.eval().train()  # also after an evaluation
        torch.nn.functional.cross_entropy(model(torch.randn(4, 2, 1, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
        optimiser.step()
        optimiser.zero_grad()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    return {key.split(".")[1] if key.startswith("backbone.") else "head" for key in changed}


@pytest.mark.parametrize(
    ("freezing", "expected"),
    [
        (None, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "head"}),
        ("backbone", {"head"}),
        (["layer1"], {"layer2", "layer3", "layer4", "head"}),
        (["layer1", "layer2"], {"layer3", "layer4", "head"}),
        (["layer3"], {"conv1", "bn1", "layer1", "layer2", "layer4", "head"}),
    ],
)
def test_what_is_frozen_does_not_move_and_the_rest_does(freezing: object, expected: set[str]) -> None:
    settings = config(freezing)
    model = student(settings)
    freeze(model, settings)
    assert moved(model) == expected


def test_the_number_of_frozen_parameters() -> None:
    settings = config(["layer1"], "tiny")
    assert freeze(student(settings), settings) == 8 * 9 + 8 + 8
    whole = config("backbone", "tiny")
    model = student(whole)
    assert freeze(model, whole) == sum(p.numel() for p in model.backbone.parameters())
    assert freeze(student(whole), whole.model_copy(update={"freeze": None})) == 0


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_follow_one_another_from_the_input_to_the_last(name: str) -> None:
    """Every part with parameters belongs to one stage, unless it comes after the last."""
    with torch.device("meta"):
        backbone = build_backbone(name, in_channels=3)
    parts = [part for stage in backbone.stages for part in backbone.parts_of(stage)]
    every = [m for m in backbone.modules() if not list(m.children()) and list(m.parameters())]
    assert [id(part) for part in parts] == [id(part) for part in every[: len(parts)]]
    left = {path for path, m in backbone.named_modules() if any(m is part for part in every[len(parts) :])}
    assert left == ({"feature.reduce", "feature.project"} if name in ("resnet8_grid", "cnn4_grid") else set())


def test_one_stage_may_stand_without_brackets() -> None:
    assert config("layer2").freeze == ("layer2",)
    assert config("backbone").freeze == "backbone"


def test_a_stage_that_there_is_not_is_one_line() -> None:
    settings = config(["layer5"])
    for check in (lambda: check_stages(settings), lambda: freeze(student(settings), settings)):
        with pytest.raises(ConfigError, match="'layer5', which is not a stage of resnet10_thin") as caught:
            check()
        assert caught.value.expected == "'backbone', or some of layer1, layer2, layer3, layer4"
    check_stages(config("backbone"))
    check_stages(config(None))


def test_partial_bn_holds_in_a_stage_that_trains_the_backbone_alone() -> None:
    model = build_model(ModelConfig(backbone="resnet10_thin", partial_bn=True), 1, 3, 2)
    model.backbone.train()
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [True] + [False] * (len(norms) - 1)

from __future__ import annotations

import itertools

import pytest
import torch

from kd_edge.models import BACKBONES, ClipModel, ModelConfig, StreamingStep, build_model


def trained_looking(model: ClipModel) -> ClipModel:
    """Give the batch norms running statistics that are not the initial ones."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval()


@pytest.mark.parametrize(
    ("backbone", "temporal"), list(itertools.product(("tiny", "resnet18", "mobilenet_v3_small"), ("tsn", "tconv")))
)
def test_stepping_through_a_clip_gives_the_clip_logits(backbone: str, temporal: str) -> None:
    config = ModelConfig.model_validate({"backbone": backbone, "temporal": temporal, "hidden": 16})
    model = trained_looking(build_model(config, in_channels=3, classes=5, segments=4))
    step = StreamingStep(model).eval()
    clip = torch.randn(2, 4, 3, 48, 48)
    with torch.no_grad():
        expected = model(clip)
        past = torch.zeros(2, 3, model.backbone.feature_size)
        for segment in range(4):
            feature, logits = step(clip[:, segment], past)
            past = torch.cat([past[:, 1:], feature.unsqueeze(1)], dim=1)
    assert feature.shape == (2, model.backbone.feature_size)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_tsn_is_the_mean_of_the_segment_logits_and_ignores_order() -> None:
    model = build_model(ModelConfig(backbone="tiny"), in_channels=1, classes=3, segments=4).eval()
    clip = torch.randn(1, 4, 1, 32, 32)
    with torch.no_grad():
        each = torch.stack([model.head.classifier(model.backbone(clip[:, t])) for t in range(4)])
        torch.testing.assert_close(model(clip), each.mean(0), rtol=0, atol=1e-6)
        torch.testing.assert_close(model(clip.flip(1)), model(clip), rtol=0, atol=1e-6)


def test_tconv_sees_the_order_of_the_segments() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone="tiny", temporal="tconv"), in_channels=1, classes=3, segments=4).eval()
    clip = torch.randn(1, 4, 1, 32, 32)
    with torch.no_grad():
        assert (model(clip) - model(clip.flip(1))).abs().max() > 1e-4


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_the_feature_size_and_stages_it_names(backbone: str) -> None:
    config = ModelConfig.model_validate({"backbone": backbone})
    model = build_model(config, in_channels=1, classes=2, segments=2).eval()
    shapes: list[torch.Size] = []
    for stage in model.backbone.stages:
        model.backbone.get_submodule(stage).register_forward_hook(lambda _m, _i, out: shapes.append(out.shape))
    with torch.no_grad():
        feature = model.backbone(torch.randn(1, 1, 64, 64))
    assert feature.shape == (1, model.backbone.feature_size)
    assert tuple(s[1] for s in shapes) == model.backbone.stage_channels
    strides = [64 // s[2] for s in shapes]
    assert strides == ([2, 4, 8, 16] if backbone == "tiny" else [4, 8, 16, 32])


def test_step_exports_with_a_dynamic_batch() -> None:
    model = build_model(ModelConfig(backbone="tiny", temporal="tconv"), in_channels=1, classes=3, segments=4).eval()
    batch = torch.export.Dim("batch")
    past = torch.zeros(2, 3, model.backbone.feature_size)
    program = torch.export.export(
        StreamingStep(model).eval(), (torch.zeros(2, 1, 32, 32), past), dynamic_shapes=({0: batch}, {0: batch})
    )
    feature, logits = program.module()(torch.zeros(5, 1, 32, 32), torch.zeros(5, 3, model.backbone.feature_size))
    assert feature.shape == (5, model.backbone.feature_size)
    assert logits.shape == (5, 3)

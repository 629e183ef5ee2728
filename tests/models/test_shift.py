from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kd_edge.errors import ConfigError, ExportError, TrainingError
from kd_edge.models import ModelConfig, StreamingStep, build_backbone, build_model
from kd_edge.models.shift import add_shifts, run_with_states, shifts, state_shapes, temporal_shift

RESNET18 = [f"layer{k}.{i}.conv1" for k in (1, 2, 3, 4) for i in (0, 1)]


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    segments=st.integers(1, 5),
    channels=st.integers(1, 9),
    fold=st.integers(1, 4),
    causal=st.booleans(),
)
def test_shift_is_an_explicit_index_loop(batch: int, segments: int, channels: int, fold: int, causal: bool) -> None:
    fold = min(fold, channels if causal else channels // 2)
    frames = torch.arange(1, batch * segments * channels * 6 + 1, dtype=torch.float64)
    frames = frames.reshape(batch * segments, channels, 2, 3)
    moved = temporal_shift(frames, segments, fold, causal=causal)
    for b in range(batch):
        for t in range(segments):
            for c in range(channels):
                future, past = (range(0), range(fold)) if causal else (range(fold), range(fold, 2 * fold))
                source = t + (c in future) - (c in past)
                found = moved[b * segments + t, c]
                inside = 0 <= source < segments
                expected = frames[b * segments + source, c] if inside else torch.zeros(2, 3, dtype=torch.float64)
                assert torch.equal(found, expected)


def test_gradient_goes_where_the_channels_came_from() -> None:
    frames = torch.ones(6, 4, 1, 1, dtype=torch.float64, requires_grad=True)  # two clips of three segments
    weight = torch.arange(24, dtype=torch.float64).reshape(6, 4, 1, 1)
    (temporal_shift(frames, 3, 1, causal=True) * weight).sum().backward()
    expected = weight.clone()
    expected[[0, 1, 3, 4], 0] = weight[[1, 2, 4, 5], 0]
    expected[[2, 5], 0] = 0  # the last segment's moving channel leaves the clip
    assert torch.equal(frames.grad, expected)


def test_frames_that_are_not_whole_clips_are_refused() -> None:
    with pytest.raises(TrainingError, match="10 frames for clips of 4 segments"):
        temporal_shift(torch.zeros(10, 8, 2, 2), 4, 1, causal=False)
    model = build_model(ModelConfig(backbone="resnet10_thin", temporal="tsm"), 1, 3, 4)
    with pytest.raises(TrainingError, match=r"clips of shape \(2, 5, 1, 32, 32\).*4 segments"):
        model(torch.zeros(2, 5, 1, 32, 32))


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet10_thin", [f"layer{k}.0.conv1" for k in (1, 2, 3, 4)]),
        ("resnet18", RESNET18),
        ("resnet50", [f"layer{k}.{i}.conv1" for k, n in enumerate((3, 4, 6, 3), 1) for i in range(n)]),
        ("mobilenet_v3_small", [f"features.{i}.block.0.0" for i in (3, 5, 6, 8, 10, 11)]),
        ("efficientnet_lite0", [f"blocks.{i}.expand.0" for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)]),
    ],
)
def test_every_residual_block_is_shifted_and_weights_keep_their_names(backbone: str, expected: list[str]) -> None:
    plain = build_backbone(backbone, in_channels=3)
    shifted = build_backbone(backbone, in_channels=3)
    add_shifts(shifted, 4, 8, causal=True)
    assert [path for path, _ in shifts(shifted)] == expected
    assert {k: v.shape for k, v in shifted.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    for path, module in shifts(shifted):
        old = plain.get_submodule(path)
        assert module.fold == old.in_channels // 8
        assert (module.kernel_size, module.stride, module.padding) == (old.kernel_size, old.stride, old.padding)


def test_state_shapes_by_hand() -> None:
    model = build_model(ModelConfig(backbone="resnet18", temporal="tsm_causal"), 3, 2, 4)
    model.train()
    before = model.backbone.get_submodule("bn1").running_mean.clone()
    shapes = state_shapes(model.backbone, 3, 64)
    # 64 px: 16 x 16 behind the stem; a stage's first block sees the size and channels of the stage before
    sizes = [(8, 16), (8, 16), (8, 16), (16, 8), (16, 8), (32, 4), (32, 4), (64, 2)]
    assert shapes == [(path, (fold, px, px)) for path, (fold, px) in zip(RESNET18, sizes, strict=True)]
    assert torch.equal(model.backbone.get_submodule("bn1").running_mean, before)
    assert model.training
    assert state_shapes(build_backbone("tiny", in_channels=3), 3, 64) == []


def test_one_shifted_block_by_hand() -> None:
    """The residual path keeps its own frame; only the first convolution sees the neighbours'."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", in_channels=3).double().eval()
    add_shifts(backbone, 3, 8, causal=False)
    block = backbone.get_submodule("layer1.0")
    frames = torch.randn(6, 64, 4, 4, dtype=torch.float64)
    clips = frames.reshape(2, 3, 64, 4, 4)
    moved = clips.clone()
    moved[:, :, :16] = 0
    moved[:, :2, :8] = clips[:, 1:, :8]
    moved[:, 1:, 8:16] = clips[:, :2, 8:16]
    with torch.no_grad():
        inner = torch.conv2d(moved.reshape(6, 64, 4, 4), block.conv1.weight, padding=1)
        expected = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(inner)))) + frames)
        torch.testing.assert_close(block(frames), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("temporal", "blind"), [("tsm_causal", True), ("tsm", False), ("tsn", True)])
def test_only_bidirectional_features_change_with_a_future_frame(temporal: str, blind: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"backbone": "resnet10_thin", "temporal": temporal})
    model = build_model(config, 1, 3, 4).eval()
    clip = torch.randn(1, 4, 1, 32, 32)
    changed = clip.clone()
    changed[:, 2] += 1
    with torch.no_grad():
        before, after = model.backbone(clip[0]), model.backbone(changed[0])
    assert torch.equal(before[:2], after[:2]) == blind
    assert not torch.allclose(before[2], after[2], rtol=1e-3)
    if temporal == "tsm_causal":  # the past does reach the future
        assert not torch.allclose(before[3], after[3], rtol=1e-3)


def test_states_are_gone_after_a_step_also_after_a_failed_one() -> None:
    model = build_model(ModelConfig(backbone="resnet10_thin", temporal="tsm_causal"), 1, 3, 4).eval()
    states = [torch.zeros(1, *shape) for _, shape in state_shapes(model.backbone, 1, 32)]
    with torch.no_grad():
        run_with_states(model.backbone, torch.zeros(1, 1, 32, 32), states)
        with pytest.raises(RuntimeError):
            run_with_states(model.backbone, torch.zeros(1, 1, 64, 64), states)
        with pytest.raises(ValueError, match="argument"):
            run_with_states(model.backbone, torch.zeros(1, 1, 32, 32), states[:2])
    assert all(module.carried.state is None for _, module in shifts(model.backbone))


def test_bidirectional_model_has_no_step() -> None:
    model = build_model(ModelConfig(backbone="resnet10_thin", temporal="tsm"), 1, 3, 4)
    with pytest.raises(ExportError, match=r"tsm_causal.*--graph clip"):
        StreamingStep(model)


def test_what_cannot_be_shifted_is_refused() -> None:
    for temporal in ("tsm", "tsm_causal"):
        with pytest.raises(ValidationError, match=f"temporal '{temporal}' shifts inside residual blocks"):
            ModelConfig.model_validate({"backbone": "tiny", "temporal": temporal})
    with pytest.raises(ConfigError, match="without residual blocks"):
        add_shifts(build_backbone("tiny", in_channels=1), 4, 8, causal=True)
    with pytest.raises(ConfigError, match="fold_div 64 moves no channel of 32"):
        build_model(ModelConfig(backbone="resnet10_thin", temporal="tsm", fold_div=64), 1, 3, 4)
    with pytest.raises(ConfigError, match="'tsm' with 1 segment"):
        build_model(ModelConfig(backbone="resnet10_thin", temporal="tsm"), 1, 3, 1)

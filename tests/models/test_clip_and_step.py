from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models import BACKBONES, ClipModel, ModelConfig, StreamingStep, build_backbone, build_model
from kd_edge.models.heads import PooledConvolutionHead
from kd_edge.models.shift import state_shapes


def trained_looking(model: ClipModel) -> ClipModel:
    """Give the batch norms the statistics of one batch: with the initial ones most nets put out almost a constant."""
    torch.manual_seed(1)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    convolution = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(3, model.segments, convolution.in_channels, 40, 40))
    return model.eval()


KINDS = ("tsn", "tconv", "tcn", "trn", "tsm_causal")
LEFT_OUT = [(name, "tsm_causal") for name in ("tiny", "cnn4_grid", "bninception")]  # impossible: no residual blocks
LEFT_OUT += [("resnet50", "tsn"), ("resnet50", "tconv"), ("resnet50", "tcn")]  # slow and like resnet18


@pytest.mark.parametrize(
    ("backbone", "temporal"), [p for p in itertools.product(BACKBONES, KINDS) if p not in LEFT_OUT]
)
def test_stepping_through_a_clip_gives_the_clip_logits(backbone: str, temporal: str) -> None:
    options = {"backbone": backbone, "temporal": temporal, "hidden": 16, "bottleneck": 16}
    model = trained_looking(build_model(ModelConfig.model_validate(options), in_channels=3, classes=5, segments=4))
    step = StreamingStep(model).eval()
    clip = torch.randn(2, 4, 3, 40, 40)
    with torch.no_grad():
        expected = model(clip)
        assert expected.std(dim=0).max() > 1e-2  # the clips can be told apart at all
        past = torch.zeros(2, 3, model.backbone.feature_size)
        states = [torch.zeros(2, *shape) for _, shape in state_shapes(model.backbone, 3, 40)]
        for segment in range(4):
            feature, logits, *states = step(clip[:, segment], past, *states)
            past = torch.cat([past[:, 1:], feature.unsqueeze(1)], dim=1)
    assert feature.shape == (2, model.backbone.feature_size)
    assert bool(states) == (temporal == "tsm_causal")
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


@pytest.mark.parametrize(("reads", "size"), [("both", 24 + 5), ("targets", 5)])
def test_a_head_reads_what_the_backbone_regresses(reads: str, size: int) -> None:
    options = {"backbone": "tiny", "temporal": "tcn", "hidden": 16, "regressed": 5, "reads": reads}
    model = trained_looking(build_model(ModelConfig.model_validate(options), in_channels=1, classes=3, segments=4))
    clip = torch.randn(2, 4, 1, 40, 40)
    step, past = StreamingStep(model).eval(), torch.zeros(2, 3, size)
    bare = build_backbone("tiny", in_channels=1)
    bare.load_state_dict({k: v for k, v in model.backbone.state_dict().items() if "regression" not in k})
    regression = model.backbone.regression.numbers
    with torch.no_grad():
        feature = bare.eval()(clip[:, 3])
        numbers = feature @ regression.weight.T + regression.bias
        for segment in range(4):
            seen, logits = step(clip[:, segment], past)
            past = torch.cat([past[:, 1:], seen.unsqueeze(1)], dim=1)
        torch.testing.assert_close(logits, model(clip), rtol=0, atol=1e-5)
    expected = torch.cat([feature, numbers], dim=1) if reads == "both" else numbers
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-5)
    assert (model.backbone.feature_size, model.head.norm.num_features) == (size, size)


def test_numbers_that_nobody_reads_are_refused() -> None:
    with pytest.raises(ValidationError, match="ignores the 5 regressed numbers"):
        ModelConfig(regressed=5, reads="features")


def test_later_steps_of_a_stateful_model_are_another_function() -> None:
    """Its states reach behind the window: the fifth label is not that of a clip of the last four frames."""
    config = ModelConfig(backbone="resnet10_thin", temporal="tsm_causal")
    model = trained_looking(build_model(config, in_channels=1, classes=5, segments=4))
    frames = torch.randn(1, 5, 1, 32, 32)
    step, past = StreamingStep(model).eval(), torch.zeros(1, 3, 256)
    states = [torch.zeros(1, *shape) for _, shape in state_shapes(model.backbone, 1, 32)]
    with torch.no_grad():
        for k in range(5):
            feature, logits, *states = step(frames[:, k], past, *states)
            past = torch.cat([past[:, 1:], feature.unsqueeze(1)], dim=1)
        assert (logits - model(frames[:, 1:])).abs().max() > 1e-4


@pytest.mark.parametrize("temporal", ["tsn", "tsm", "tconv"])
def test_partial_bn_trains_the_first_norm_of_the_backbone_alone(temporal: str) -> None:
    config = ModelConfig.model_validate({"backbone": "resnet10_thin", "temporal": temporal, "partial_bn": True})
    model = build_model(config, in_channels=1, classes=3, segments=4)
    norms = {name for name, m in model.backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for _ in range(2):
        assert model.eval().train() is model  # also after an evaluation
        torch.nn.functional.cross_entropy(model(torch.randn(2, 4, 1, 32, 32)), torch.tensor([0, 2])).backward()
        optimiser.step()
    assert model.training
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    of_norms = {k.removeprefix("backbone.") for k in changed if k.removeprefix("backbone.").rpartition(".")[0] in norms}
    assert of_norms == {"bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"}
    assert {"backbone.layer4.0.conv2.weight", "head.classifier.weight"} <= changed
    assert ("head.norm1.running_mean" in changed) == (temporal == "tconv")


def test_without_partial_bn_all_norms_train() -> None:
    model = build_model(ModelConfig(backbone="resnet10_thin"), in_channels=1, classes=3, segments=4).train()
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_a_saved_configuration_of_before_still_loads() -> None:
    """Runs know backbone, temporal, dropout and hidden; what came later has defaults that change nothing."""
    saved = {"backbone": "resnet18", "temporal": "tconv", "dropout": 0.5, "hidden": 256}
    config = ModelConfig.model_validate(saved)
    assert not config.partial_bn
    assert {k: v for k, v in config.model_dump().items() if k in saved} == saved


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
    expected = {"tiny": [2, 4, 8, 16], "resnet8_grid": [4, 4, 8, 16], "cnn4_grid": [1, 2, 4, 4]}
    assert strides == expected.get(backbone, [4, 8, 16, 32])


@pytest.mark.parametrize("temporal", KINDS)
@pytest.mark.parametrize("segments", [3, 5])
def test_another_number_of_segments_than_the_models_is_refused(temporal: str, segments: int) -> None:
    backbone = "resnet10_thin" if temporal == "tsm_causal" else "tiny"
    config = ModelConfig.model_validate({"backbone": backbone, "temporal": temporal, "hidden": 8, "bottleneck": 8})
    model = build_model(config, in_channels=1, classes=3, segments=4).eval()
    with pytest.raises(TrainingError, match=rf"\(1, {segments}, 1, 32, 32\)\. Expected \(batch, 4 segments, C, S, S\)"):
        model(torch.zeros(1, segments, 1, 32, 32))
    size, frame = model.backbone.feature_size, torch.zeros(1, 1, 32, 32)
    states = [torch.zeros(1, *shape) for _, shape in state_shapes(model.backbone, 1, 32)]
    with pytest.raises(TrainingError, match=rf"\(1, {segments - 1}, {size}\)\. Expected \(batch, 3 segments, {size}\)"):
        StreamingStep(model)(frame, torch.zeros(1, segments - 1, size), *states)
    with pytest.raises(TrainingError, match=rf"\(1, 3, {size + 1}\)\. Expected"):
        StreamingStep(model)(frame, torch.zeros(1, 3, size + 1), *states)


@pytest.mark.parametrize(("temporal", "least"), [("tsn", 1), ("tconv", 1), ("tcn", 4)])
def test_heads_without_relations_read_any_number_from_their_least_on(temporal: str, least: int) -> None:
    config = ModelConfig.model_validate({"backbone": "tiny", "temporal": temporal, "hidden": 8})
    model = build_model(config, in_channels=1, classes=3, segments=4).eval()
    size = model.backbone.feature_size
    for segments in (least, 9):
        assert model.head(torch.randn(2, segments, size)).isfinite().all()
    for shape in ((2, least - 1, size), (2, 9, size + 1), (2, size)):
        with pytest.raises(TrainingError, match=rf"\(batch, {least} or more segments, {size}\)") as caught:
            model.head(torch.zeros(shape))
        assert "\n" not in str(caught.value)


def test_grid_features_know_where_in_the_picture_something_is() -> None:
    model = build_backbone("resnet8_grid", in_channels=1).eval()
    picture = torch.zeros(2, 1, 64, 64)
    picture[0, :, :16, :16] = picture[1, :, 48:, 48:] = 1  # the same thing at two corners
    with torch.no_grad():
        first, second = model(picture)
        maps = model.layer3(model.layer2(model.layer1(model.relu(model.bn1(model.conv1(picture))))))
    assert (first - second).abs().max() > 1e-3
    assert maps.shape == (2, 192, 4, 4)
    assert sum(p.numel() for p in model.parameters()) == 878336


def test_pooled_convolutions_see_order_and_need_four_segments() -> None:
    head = PooledConvolutionHead(8, 3, 0.5, hidden=4, segments=9).eval()
    features = torch.randn(2, 9, 8)
    with torch.no_grad():
        assert head(features).shape == (2, 3)
        assert (head(features) - head(features.flip(1))).abs().max() > 1e-4
    with pytest.raises(ConfigError, match=r"'tcn' with 3 segments\. Expected at least 4"):
        PooledConvolutionHead(8, 3, 0.5, hidden=4, segments=3)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    backbone=st.sampled_from(["resnet10_thin", "mobilenet_v3_small", "efficientnet_lite0"]),
    batch=st.integers(1, 3),
    segments=st.integers(2, 5),
    px=st.integers(32, 64),
)
def test_stateful_steps_are_exact_at_any_size(backbone: str, batch: int, segments: int, px: int) -> None:
    config = ModelConfig.model_validate({"backbone": backbone, "temporal": "tsm_causal"})
    model = trained_looking(build_model(config, in_channels=1, classes=3, segments=segments))
    step, clip = StreamingStep(model).eval(), torch.randn(batch, segments, 1, px, px)
    past = torch.zeros(batch, segments - 1, model.backbone.feature_size)
    states = [torch.zeros(batch, *shape) for _, shape in state_shapes(model.backbone, 1, px)]
    with torch.no_grad():
        for frame in clip.unbind(1):
            feature, logits, *states = step(frame, past, *states)
            past = torch.cat([past[:, 1:], feature.unsqueeze(1)], dim=1)
        expected = model(clip)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "states"), [("resnet10_thin", 4), pytest.param("efficientnet_lite0", 9, marks=pytest.mark.slow)]
)
def test_stateful_step_exports_with_a_dynamic_batch(backbone: str, states: int) -> None:
    config = ModelConfig.model_validate({"backbone": backbone, "temporal": "tsm_causal"})
    model = trained_looking(build_model(config, in_channels=1, classes=3, segments=3))
    step, free = StreamingStep(model).eval(), {0: torch.export.Dim.DYNAMIC}

    def arguments(batch: int) -> tuple[torch.Tensor, ...]:
        carried = [torch.randn(batch, *shape) for _, shape in state_shapes(model.backbone, 1, 32)]
        return torch.randn(batch, 1, 32, 32), torch.randn(batch, 2, model.backbone.feature_size), *carried

    shapes = (free, free, (free,) * states)
    program = torch.export.export(step, arguments(2), dynamic_shapes=shapes).module()
    for batch in (1, 5):
        given = arguments(batch)
        with torch.no_grad():
            torch.testing.assert_close(program(*given), step(*given), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
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


def test_a_backbone_for_few_pixels_costs_what_it_says() -> None:
    """Multiplications of a frame of 16 x 16 with three channels, counted by hand, and by torch."""
    by_hand = (
        16 * 16 * 9 * 3 * 16  # full resolution
        + 8 * 8 * 9 * 16 * 32
        + 4 * 4 * 9 * 32 * 48
        + 4 * 4 * 9 * 48 * 64
        + 4 * 4 * 64 * 32  # grid feature: fewer channels
        + (64 + 32 * 16) * 128
    )
    model = build_backbone("cnn4_grid", in_channels=3).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        feature = model(torch.zeros(1, 3, 16, 16))
    assert feature.shape == (1, 128)
    assert counter.get_total_flops() == 2 * by_hand == 2 * 1_175_552
    for side, grid in ((32, 8), (80, 20)):
        with torch.no_grad():
            assert (
                model.layer4(model.layer3(model.layer2(model.layer1(torch.zeros(1, 3, side, side))))).shape[3] == grid
            )

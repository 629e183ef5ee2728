from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.train.distil.learner import Learner, teach
from kd_edge.train.distil.methods import (
    AttentionLoss,
    CcskdLoss,
    CorrelationLoss,
    DkdLoss,
    FitnetLoss,
    LogitsLoss,
    Loss,
    MgcamLoss,
    RkdLoss,
    SimilarityLoss,
    SoftTargetLoss,
    term_names,
)
from kd_edge.train.losses import (
    attention_transfer,
    ccskd_schedule,
    correlation_congruence,
    dkd,
    hint_mse,
    mgcam,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from kd_edge.train.teachers.base import Layer, Observation, Tap, per_clip
from kd_edge.train.teachers.images import ImageTeacher, observe

SHAPES = ((4, 1, 32, 32), (4, 3, 32, 32))
EVERY: list[Loss] = [
    SoftTargetLoss(),
    LogitsLoss(),
    DkdLoss(),
    MgcamLoss(),
    FitnetLoss(),
    AttentionLoss(),
    SimilarityLoss(),
    CorrelationLoss(),
    CorrelationLoss(variant="delta"),
    RkdLoss(),
    CcskdLoss(),
]


def models() -> tuple[torch.nn.Module, ...]:
    torch.manual_seed(0)
    student = build_model(ModelConfig(backbone="tiny", dropout=0), 1, 3, 4)
    teacher = ImageTeacher(build_model(ModelConfig(backbone="resnet10_thin", dropout=0.5), 3, 3, 4))
    return student, teacher


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 4, 1, 32, 32), torch.randn(3, 4, 3, 32, 32), torch.tensor([0, 2, 1])


def stages(model: torch.nn.Module, clip: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs of the backbone's parts, each clip's segments averaged: another way than hooks."""
    x, found = clip.flatten(0, 1), {}
    for name, part in model.backbone.named_children():
        x = part(x)
        found[f"backbone.{name}"] = x.reshape(len(clip), 4, *x.shape[1:]).mean(1)
    found["backbone"] = found["backbone.flatten"]
    return found


def test_total_is_cross_entropy_plus_the_weighted_terms() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    losses = (DkdLoss(), MgcamLoss(weight=2.0))
    learner = Learner(student, losses, teacher, SHAPES).eval()
    seen = teach(teacher, rgb, learner.teacher_taps)
    terms, logits = learner(clip, labels, seen)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(student(clip), labels).item())
    expected_dkd = dkd(logits, seen[0].logits, labels, target_weight=0.7, nontarget_weight=0.35)
    layers = [f"backbone.layer{i}" for i in (1, 2, 3, 4)]
    mine, theirs = stages(student, clip), stages(teacher, rgb)
    adapters = learner.terms["mgcam"].adapters[0]
    expected_mgcam = mgcam([mine[name] for name in layers], [theirs[name] for name in layers], adapters=adapters)
    torch.testing.assert_close(terms["dkd"], expected_dkd)
    torch.testing.assert_close(terms["mgcam"], expected_mgcam)
    torch.testing.assert_close(terms["total"], terms["ce"] + 0.1 * expected_dkd + 2.0 * expected_mgcam)


def test_class_weights_are_the_cross_entropys_alone() -> None:
    """What the teacher says of a clip is worth the same whatever its class."""
    student, teacher = models()
    clip, rgb, labels = batch()
    weights = torch.tensor([0.5, 3.0, 1.0])
    learner = Learner(
        student, (DkdLoss(), MgcamLoss()), teacher, SHAPES, label_smoothing=0.1, class_weights=weights
    ).eval()
    seen = teach(teacher, rgb, learner.teacher_taps)
    weighted, logits = learner(clip, labels, seen)
    learner.class_weights = None
    plain, _ = learner(clip, labels, seen)
    each = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(weighted["ce"], (0.5 * each[0] + 1.0 * each[1] + 3.0 * each[2]) / 3)
    assert (weighted["dkd"], weighted["mgcam"]) == (plain["dkd"], plain["mgcam"])
    torch.testing.assert_close(weighted["total"] - plain["total"], weighted["ce"] - plain["ce"])


def test_every_term_on_features_looks_at_its_methods_own_layers() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    learner = Learner(student, EVERY, teacher, SHAPES, epochs=10).eval()
    values, _ = learner(clip, labels, teach(teacher, rgb, learner.teacher_taps))
    mine, theirs = stages(student, clip), stages(teacher, rgb)
    layers = [f"backbone.layer{i}" for i in (1, 2, 3, 4)]
    regressor = learner.terms["fitnet"].adapters[0]
    embedding = learner.terms["cc_2"].adapters[0]
    expected = {
        "fitnet": hint_mse(regressor(mine["backbone.layer2"]), theirs["backbone.layer2"]),
        "at": attention_transfer([mine[n] for n in layers], [theirs[n] for n in layers]),
        "sp": similarity_preserving(mine["backbone.layer4"], theirs["backbone.layer4"]),
        "cc": correlation_congruence(mine["backbone"], theirs["backbone"]),
        "cc_2": correlation_congruence(mine["backbone"], theirs["backbone"], variant="delta", embedding=embedding),
        "rkd": 25 * rkd_distance(mine["backbone"], theirs["backbone"])
        + 50 * rkd_angle(mine["backbone"], theirs["backbone"]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.kind)
def test_every_kind_teaches_the_student_and_not_the_teacher(loss: Loss) -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    learner = Learner(student, [loss], teacher, SHAPES)
    seen = teach(teacher, rgb, learner.teacher_taps)
    values, _ = learner(clip, labels, seen)
    values[loss.kind].backward()
    gradients = [p.grad for p in student.backbone.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0
    assert all(p.grad is None for p in teacher.parameters())
    adapters = list(learner.terms.parameters())
    if loss.kind in ("mgcam", "fitnet", "ccskd"):
        assert adapters
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in adapters)


def test_the_teacher_is_in_eval_mode_and_unchanged() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    teacher.train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    learner = Learner(student, (DkdLoss(), MgcamLoss()), teacher, SHAPES)
    seen = teach(teacher, rgb, learner.teacher_taps)
    assert not teacher.training
    learner(clip, labels, seen)[0]["total"].backward()
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert torch.equal(seen[0].logits, teach(teacher, rgb, learner.teacher_taps)[0].logits)


def test_building_a_learner_leaves_mode_and_statistics_alone() -> None:
    student, teacher = models()
    student.train()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    Learner(student, EVERY, teacher, SHAPES)
    assert student.training
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_taps_are_removed_and_only_set_when_a_loss_needs_them() -> None:
    student, teacher = models()
    clip, _, _ = batch()
    maps = observe(student, clip, [Tap("backbone.layer1", "mean"), Tap("backbone.layer1", "fold")]).taps
    assert [tuple(value.shape) for value in maps.values()] == [(3, 8, 16, 16), (12, 8, 16, 16)]
    assert torch.equal(*(value.reshape(3, -1, 8, 16, 16).mean(1) for value in maps.values()))
    assert observe(student, clip, []).taps == {}
    assert not any(m._forward_hooks for m in student.modules())
    assert not Learner(student, (DkdLoss(),), teacher).student_layers


def test_a_layer_can_be_chosen_and_a_wrong_one_is_named() -> None:
    student, teacher = models()
    learner = Learner(student, (FitnetLoss(student_layers=("backbone.layer3",)),), teacher, SHAPES)
    assert learner.student_layers == {"backbone.layer3": Layer((16, 4, 4), negative=False)}
    assert learner.teacher_layers == {"backbone.layer2": Layer((64, 4, 4), negative=False)}
    with pytest.raises(TrainingError, match=r"did you mean 'backbone.layer3'"):
        Learner(student, (FitnetLoss(student_layers=("backbone.layr3",)),), teacher, SHAPES)
    with pytest.raises(TrainingError, match="a row per frame"):
        Learner(student, (SimilarityLoss(teacher_layers=("head.classifier",)),), teacher, SHAPES)
    for loss in (
        FitnetLoss(student_layers=("backbone",)),
        MgcamLoss(student_layers=("backbone",)),
        CcskdLoss(teacher_layers=("backbone",)),
    ):
        with pytest.raises(TrainingError, match="channels, height, width"):
            Learner(student, (loss,), teacher, SHAPES)


def test_a_layer_that_the_next_one_overwrites_is_refused() -> None:
    student, teacher = models()
    with pytest.raises(TrainingError, match=r"'backbone\.layer1\.0\.bn1' is overwritten in place"):
        Learner(student, (SimilarityLoss(teacher_layers=("backbone.layer1.0.bn1",)),), teacher, SHAPES)


def test_a_linear_layer_of_the_teacher_is_met_without_a_relu() -> None:
    """Inverted residual blocks end without a ReLU; a regressor that ends in one could never reach negative values."""
    student, _ = models()
    mobile = ImageTeacher(build_model(ModelConfig(backbone="mobilenet_v3_small"), 3, 3, 4))
    learner = Learner(student, (FitnetLoss(), CcskdLoss()), mobile, SHAPES)
    assert not learner.terms["fitnet"].adapters[0].rectify
    assert learner.terms["ccskd"].adapters[0].rectify == [False, False, False, False]
    _, resnet = models()
    learner = Learner(student, (FitnetLoss(), CcskdLoss()), resnet, SHAPES)
    assert learner.terms["fitnet"].adapters[0].rectify
    assert learner.terms["ccskd"].adapters[0].rectify == [True, True, True, True]


def test_unequal_numbers_of_layers_are_refused() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    learner = Learner(student, (AttentionLoss(student_layers=("backbone.layer1",)),), teacher, SHAPES)
    with pytest.raises(TrainingError, match="1 student and 4 teacher"):
        learner(clip, labels, teach(teacher, rgb, learner.teacher_taps))


def test_a_teacher_of_another_batch_is_refused() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    for loss in EVERY:
        learner = Learner(student, [loss], teacher, SHAPES)
        seen = teach(teacher, rgb[:2], learner.teacher_taps)
        with pytest.raises(TrainingError):
            learner(clip, labels, seen)


def test_warmup_raises_the_weight_linearly() -> None:
    student, teacher = models()
    clip, _, labels = batch()
    learner = Learner(student, (DkdLoss(weight=1.0, warmup_epochs=4),), teacher).eval()
    seen = (Observation(torch.randn(3, 3), {}),)
    for epoch, share in ((1, 0.25), (4, 1.0), (9, 1.0)):
        terms, _ = learner(clip, labels, seen, epoch)
        torch.testing.assert_close(terms["total"] - terms["ce"], share * terms["dkd"], rtol=1e-4, atol=1e-5)


def test_ccskd_follows_its_schedule_scaled_to_the_run() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    learner = Learner(student, (CcskdLoss(schedule="cifar"),), teacher, SHAPES, epochs=10).eval()
    seen = teach(teacher, rgb, learner.teacher_taps)
    before, after = (learner(clip, labels, seen, epoch)[0]["ccskd"] for epoch in (3, 4))  # starts at 30 %
    assert ccskd_schedule("cifar", epochs=10).start_epoch == 4
    assert not torch.equal(before, after)


def test_adapters_are_trained_with_the_student_and_are_no_part_of_it() -> None:
    student, teacher = models()
    learner = Learner(student, (MgcamLoss(),), teacher, SHAPES)
    adapters = [k for k in learner.state_dict() if k.startswith("terms.mgcam.")]
    assert len(adapters) == 4
    assert not any("adapters" in k for k in student.state_dict())
    assert not list(Learner(student, (MgcamLoss(align="channel_mean"),), teacher, SHAPES).terms.parameters())


def test_terms_of_one_kind_are_numbered() -> None:
    assert term_names([FitnetLoss(), DkdLoss(), FitnetLoss(), FitnetLoss()]) == [
        "fitnet",
        "dkd",
        "fitnet_2",
        "fitnet_3",
    ]


def test_fold_keeps_segments_as_vertices() -> None:
    maps = torch.arange(8.0).reshape(8, 1, 1, 1)
    assert per_clip(maps, 4, "fold").shape[0] == 8
    assert per_clip(maps, 4, "mean").flatten().tolist() == [1.5, 5.5]

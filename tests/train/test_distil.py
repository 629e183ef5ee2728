from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kd_edge.models import ModelConfig, build_model
from kd_edge.train.distil import Learner, Observation, observe, per_clip, teach
from kd_edge.train.losses import dkd, mgcam
from kd_edge.train.recipe import DkdLoss, MgcamLoss


def models() -> tuple[torch.nn.Module, ...]:
    torch.manual_seed(0)
    student = build_model(ModelConfig(backbone="tiny", dropout=0), 1, 3, 4)
    teacher = build_model(ModelConfig(backbone="resnet10_thin", dropout=0.5), 3, 3, 4)
    return student, teacher


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 4, 1, 32, 32), torch.randn(2, 4, 3, 32, 32), torch.tensor([0, 2])


def test_total_is_cross_entropy_plus_the_weighted_terms_of_the_named_stages() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    losses = (DkdLoss(), MgcamLoss(weight=2.0))
    learner = Learner(student, losses, teacher).eval()
    seen = teach(teacher, rgb, losses)
    terms, logits = learner(clip, labels, seen)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(student(clip), labels).item())
    expected_dkd = dkd(logits, seen.logits, labels, target_weight=0.7, nontarget_weight=0.35)
    stages = []
    x = clip.flatten(0, 1)
    for name, part in student.backbone.named_children():
        x = part(x)
        if name in student.backbone.stages:
            stages.append(x.reshape(2, 4, *x.shape[1:]).mean(1))
    teacher_maps = [per_clip(m, 4, "mean") for m in seen.maps]
    expected_mgcam = mgcam(stages, teacher_maps, adapters=learner.adapters["mgcam"])
    torch.testing.assert_close(terms["dkd"], expected_dkd)
    torch.testing.assert_close(terms["mgcam"], expected_mgcam)
    torch.testing.assert_close(terms["total"], terms["ce"] + 0.1 * expected_dkd + 2.0 * expected_mgcam)


def test_the_teacher_is_in_eval_mode_without_gradients_and_unchanged() -> None:
    student, teacher = models()
    clip, rgb, labels = batch()
    teacher.train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    losses = (DkdLoss(), MgcamLoss())
    seen = teach(teacher, rgb, losses)
    assert not teacher.training
    Learner(student, losses, teacher)(clip, labels, seen)[0]["total"].backward()
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert torch.equal(seen.logits, teach(teacher, rgb, losses).logits)


def test_taps_are_removed_and_only_set_when_a_loss_needs_them() -> None:
    student, _ = models()
    clip, _, _ = batch()
    assert len(observe(student, clip, maps=True).maps) == 4
    assert observe(student, clip, maps=False).maps == []
    assert not any(m._forward_hooks for m in student.modules())


def test_warmup_raises_the_weight_linearly() -> None:
    student, _ = models()
    clip, _, labels = batch()
    learner = Learner(student, (DkdLoss(weight=1.0, warmup_epochs=4),)).eval()
    seen = Observation(torch.randn(2, 3), [])
    for epoch, share in ((1, 0.25), (4, 1.0), (9, 1.0)):
        terms, _ = learner(clip, labels, seen, epoch)
        torch.testing.assert_close(terms["total"] - terms["ce"], share * terms["dkd"], rtol=1e-4, atol=1e-5)


def test_adapters_are_trained_with_the_student_and_are_no_part_of_it() -> None:
    student, teacher = models()
    learner = Learner(student, (MgcamLoss(),), teacher)
    adapters = [k for k in learner.state_dict() if k.startswith("adapters.")]
    assert len(adapters) == 4
    assert not any("adapters" in k for k in student.state_dict())
    assert not Learner(student, (MgcamLoss(align="channel_mean"),), teacher).adapters


def test_fold_keeps_segments_as_vertices() -> None:
    maps = torch.arange(8.0).reshape(8, 1, 1, 1)
    assert per_clip(maps, 4, "fold").shape[0] == 8
    assert per_clip(maps, 4, "mean").flatten().tolist() == [1.5, 5.5]

"""The stand-in of a frozen encoder: what losses see of embeddings, with and without gaps."""

from __future__ import annotations

import math

import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.train.distil.learner import Learner, teach
from kd_edge.train.distil.methods import ContrastiveLoss, SemanticLoss
from kd_edge.train.losses import contrastive, semantic_preserving
from kd_edge.train.teachers.base import Tap
from kd_edge.train.teachers.onnx import EMBEDDING, OnnxTeacher

MEAN, FOLD = Tap(EMBEDDING, "mean"), Tap(EMBEDDING, "fold")
NAN = math.nan


def test_the_mean_is_over_the_segments_that_are_there() -> None:
    """Three clips of two segments: whole, half, and without any."""
    clips = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 7.0], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]]])
    (seen,) = teach(OnnxTeacher(4), clips, [MEAN])
    assert seen.taps[MEAN].tolist() == [[2, 4], [5, 7], [0, 0]]
    assert seen.present is not None
    assert seen.present.tolist() == [True, True, False]
    assert (seen.logits.shape, bool(seen.logits.isnan().all())) == ((3, 4), True)
    (folded,) = teach(OnnxTeacher(4), clips, [FOLD])
    assert folded.taps[FOLD].tolist() == [[1, 2], [3, 6], [5, 7], [0, 0], [0, 0], [0, 0]]
    assert folded.present is not None
    assert folded.present.tolist() == [True, False, False]


def test_whole_clips_need_no_mask() -> None:
    (seen,) = teach(OnnxTeacher(4), torch.ones(2, 3, 5), [MEAN, FOLD])
    assert seen.present is None


@pytest.mark.parametrize("segments", ["mean", "fold"])
def test_a_loss_counts_the_clips_that_have_embeddings(segments: str) -> None:
    torch.manual_seed(0)
    student = build_model(ModelConfig(backbone="tiny", dropout=0), 1, 3, 2)
    losses = [ContrastiveLoss(segments=segments), SemanticLoss(segments=segments, weight=2.0)]
    learner = Learner(student, losses, OnnxTeacher(3), ((2, 1, 32, 32), (2, 6))).eval()
    frames, known = torch.randn(4, 2, 1, 32, 32), torch.randn(4, 2, 6)
    known[1] = NAN
    seen = teach(OnnxTeacher(3), known, learner.teacher_taps)
    values, _ = learner(frames, torch.zeros(4, dtype=torch.int64), seen)
    with torch.no_grad():
        features = student.backbone(frames.flatten(0, 1)).unflatten(0, (4, 2))[[0, 2, 3]]
    theirs = known[[0, 2, 3]]
    mine, theirs = (f.mean(dim=1) if segments == "mean" else f.flatten(0, 1) for f in (features, theirs))
    projected = [learner.terms[name].adapters[0](mine) for name in ("contrastive", "semantic")]
    torch.testing.assert_close(values["contrastive"], contrastive(projected[0], theirs))
    torch.testing.assert_close(values["semantic"], semantic_preserving(projected[1], theirs))
    assert values["total"].isfinite()
    values["total"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


def test_it_has_one_layer() -> None:
    with pytest.raises(TrainingError, match="an encoder has no layer 'layer4'"):
        OnnxTeacher(3).places.check("layer4")
    assert OnnxTeacher(3).layers((4, 384))[0].shape == (1, 4, 384)

"""Dense targets beside the labels: its value by hand, whole runs, and the recipes that cannot be."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.rundir import read_metrics
from kd_edge.train.distil.learner import Learner, teach
from kd_edge.train.distil.methods import DkdLoss
from kd_edge.train.distil.terms import DenseTerm
from kd_edge.train.inputs.gathering import data_fingerprints, gather_material
from kd_edge.train.losses import dense_regression
from kd_edge.train.networks import student_learner
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.student_stages import DenseLoss
from kd_edge.train.rehearsal import rehearse
from kd_edge.train.teachers.images import ImageTeacher
from tests.runs import killed, run_all, same, tiny_values, weights
from tests.train.encoders import write_encoder

SIGNALS = {"kind": "signals", "sensors": ["accelerometer"], "smooth_ms": 0}
SIDE = {"kind": "dense", "weight": 0.5, "targets": [SIGNALS]}
WEIGHTS = np.array([2.0, 1.0, 1.0], np.float32)


def clips_and_targets() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    targets = torch.randn(2, 4, 3, generator=generator)
    targets[1, 2:] = torch.nan
    return torch.randn(2, 4, 1, 32, 32, generator=generator), torch.tensor([0, 2]), targets


@pytest.mark.parametrize("kept", [False, True])
def test_each_segment_regresses_its_own_targets(kept: bool) -> None:
    torch.manual_seed(0)
    student = build_model(ModelConfig(backbone="tiny", dropout=0, regressed=3 if kept else 0), 1, 3, 4)
    loss = DenseLoss.model_validate(SIDE | {"warmup_epochs": 2})
    term = DenseTerm(loss, WEIGHTS, None if kept else student.backbone.feature_size)
    learner = Learner(student, dense=term).eval()
    clips, labels, targets = clips_and_targets()
    values, logits = learner(clips, labels, epoch=1, targets=targets)
    with torch.no_grad():
        features = student.backbone(clips.flatten(0, 1))
        regressed = features[:, -3:] if kept else term.regressor(features)
        expected = dense_regression(regressed.unflatten(0, (2, 4)), targets, weights=torch.from_numpy(WEIGHTS))
    torch.testing.assert_close(values["dense"], expected)
    torch.testing.assert_close(values["total"], values["ce"] + 0.25 * values["dense"])  # half of 0.5 in epoch 1 of 2
    assert (learner.weights(1), learner.weights(2)) == ({"dense": 0.25}, {"dense": 0.5})
    torch.testing.assert_close(logits, student(clips))
    values["dense"].backward()
    assert next(student.backbone.parameters()).grad is not None
    assert all(p.grad is None for p in student.head.parameters())


def test_it_stands_beside_other_losses() -> None:
    torch.manual_seed(0)
    student = build_model(ModelConfig(backbone="tiny", dropout=0), 1, 3, 4)
    teacher = ImageTeacher(build_model(ModelConfig(backbone="tiny", dropout=0), 3, 3, 4))
    clips, labels, targets = clips_and_targets()
    seen = teach(teacher, torch.randn(2, 4, 3, 32, 32), [])
    shapes = ((4, 1, 32, 32), (4, 3, 32, 32))
    term = DenseTerm(DenseLoss.model_validate(SIDE), WEIGHTS, student.backbone.feature_size)
    learner = Learner(student, [DkdLoss(weight=3.0)], teacher, shapes, dense=term).eval()
    alone = Learner(student, [DkdLoss(weight=3.0)], teacher, shapes).eval()
    values, _ = learner(clips, labels, seen, targets=targets)
    plain, _ = alone(clips, labels, seen)
    torch.testing.assert_close(values["total"], plain["total"] + 0.5 * values["dense"])
    with pytest.raises(TrainingError, match="a dense loss without targets"):
        learner(clips, labels, seen)


def side_values(encoder: Path | None = None, **changes: Any) -> dict[str, Any]:
    values = tiny_values(teacher=None, losses=[SIDE], validation_subjects=["1"])
    if encoder is not None:
        preprocess = {"channels": 3, "resize_px": 36, "input_px": 32}
        values["teacher"] = {"kind": "onnx", "file": str(encoder), "modality": "rgb", "preprocess": preprocess}
        targets = [SIGNALS, {"kind": "features", "components": 2}]
        values["losses"] = [SIDE | {"targets": targets}, {"kind": "contrastive"}]
        dense = {"kind": "dense", "targets": targets, "epochs": 1, "frames": 3, "batch_size": 6}
        values["stages"] = [dense, {"kind": "labels"}]
    values["student"]["epochs"] = 2
    return values | changes


@pytest.mark.slow
def test_a_run_with_every_kind_of_dense_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    """The loss goes on with what the stage left in the student: it trains no layer of its own."""
    values = side_values(write_encoder(tmp_path / "small.onnx"))
    recipe = Recipe.model_validate(values)
    run_all(recipe, tmp_path / "whole")
    assert killed(values, tmp_path / "killed", False, ("student", 2, 1)) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    lines = [line for line in read_metrics(tmp_path / "whole") if line.stage == "student"]
    assert all({"ce", "dense", "contrastive", "total"} == line.losses.keys() for line in lines)
    assert weights(tmp_path / "whole")["backbone.regression.numbers.weight"].shape == (5, 24)


@pytest.mark.slow
def test_without_a_stage_a_layer_is_trained_and_dropped(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(side_values())
    run_all(recipe, tmp_path / "run")
    assert not any("regress" in name for name in weights(tmp_path / "run"))
    losses = [line.losses for line in read_metrics(tmp_path / "run")]
    assert losses[-1]["total"] == pytest.approx(losses[-1]["ce"] + 0.5 * losses[-1]["dense"], rel=1e-5)


def test_targets_of_a_batch_are_those_of_its_frames_and_the_layer_is_told() -> None:
    material = gather_material(Recipe.model_validate(side_values()))
    loader, batches = material.training_loader(["student"], 6)
    batches.epoch = 1
    frames, targets = next(iter(loader))["inputs"]
    assert (frames.shape, targets.shape) == ((6, 4, 1, 32, 32), (6, 4, 3))
    every = np.concatenate([material.loss_targets.of(s.id, np.arange(4)) for s in material.train])
    assert np.isfinite(every).all()
    assert material.fingerprints == data_fingerprints(material.recipe)
    learner = student_learner(material, None)
    assert learner.dense is not None
    assert isinstance(learner.dense.regressor, torch.nn.Linear)
    assert rehearse(material.recipe).parameters["adapters"] == 24 * 3 + 3


def test_another_target_than_the_stages_gets_a_layer_of_its_own() -> None:
    dense = {"kind": "dense", "targets": [SIGNALS], "epochs": 1, "frames": 3, "batch_size": 6}
    other = SIDE | {"targets": [SIGNALS | {"sensors": ["gyroscope"]}]}
    for losses, keep, expected in (([SIDE], True, True), ([other], True, False), ([SIDE], False, False)):
        stages = [dense | {"keep": keep}, {"kind": "labels"}]
        recipe = Recipe.model_validate(side_values(losses=losses, stages=stages))
        assert recipe.keeps_dense_loss == expected


def test_a_student_without_its_teacher_keeps_its_dense_loss() -> None:
    values = tiny_values(losses=[{"kind": "dkd"}, SIDE]) | {"teacher": None}
    assert [loss.kind for loss in Recipe.model_validate(values).losses] == ["dense"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": [SIDE, SIDE]}, "loss 'dense' occurs twice: name it once"),
        ({"losses": [SIDE | {"targets": []}]}, "at least 1 item"),
        ({"losses": [SIDE | {"targets": [{"kind": "features"}]}]}, "'features' need a teacher that sees images"),
        ({"losses": [SIDE | {"weight": 0}]}, "greater than 0"),
        ({"losses": [SIDE | {"warmup_epochs": 9}]}, "loss 'dense' warms up longer"),
        ({"losses": [SIDE | {"student_layers": ["backbone"]}]}, "Extra inputs"),
    ],
)
def test_recipes_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(side_values() | changes)


def test_a_mirrored_skeleton_beside_the_labels_is_refused() -> None:
    values = side_values(losses=[SIDE | {"targets": [{"kind": "joints"}]}])
    values["student"]["augment"] = {"flip": True}
    with pytest.raises(ValidationError, match="a mirrored skeleton has its left and right sides swapped"):
        Recipe.model_validate(values)

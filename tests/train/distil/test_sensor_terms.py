"""Losses with several wearable sensors as teachers, and the training of such a pair."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd_edge.data import SignalFormat
from kd_edge.errors import TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.rundir import TEACHER
from kd_edge.train.distil.learner import Learner, Observation, teach
from kd_edge.train.distil.methods import (
    AttentionLoss,
    CorrelationLoss,
    DkdLoss,
    FitnetLoss,
    GsdmLoss,
    LogitsLoss,
    Loss,
    MgcamLoss,
    RkdLoss,
    SemanticLoss,
    SimilarityLoss,
    SoftTargetLoss,
)
from kd_edge.train.losses import gsdm, semantic_preserving, soft_target
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import SensorTeacherConfig
from kd_edge.train.rehearsal import rehearse
from kd_edge.train.results.run import Run, load_recipe
from kd_edge.train.teachers.base import Tap
from kd_edge.train.teachers.images import ImageTeacher, five_stages, observe
from kd_edge.train.teachers.sensors import BLOCKS, SensorTeacher
from kd_edge.train.trainer import train
from tests.runs import killed, run_all, same, tiny_values, weights
from tests.shared import Once, Trained

CLASSES, WIDTH = 4, 6
SHAPES = ((4, 1, 32, 32), (2, 3, 32))
VECTORS = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(2))
FORMAT = SignalFormat("g", (-8.0, 8.0), 100.0)
EVERY: list[Loss] = [
    SoftTargetLoss(),
    LogitsLoss(),
    DkdLoss(),
    FitnetLoss(),
    AttentionLoss(),
    SimilarityLoss(),
    CorrelationLoss(),
    RkdLoss(),
    MgcamLoss(),
    GsdmLoss(),
    SemanticLoss(),
]


def networks(temporal: str = "trn", **model: object) -> tuple[Any, SensorTeacher]:
    torch.manual_seed(0)
    student = build_model(
        ModelConfig.model_validate({"backbone": "tiny", "temporal": temporal, "dropout": 0, "bottleneck": WIDTH}),
        1,
        CLASSES,
        4,
    )
    config = SensorTeacherConfig.model_validate(
        {
            "sensors": ["a", "b"],
            "points": 32,
            "model": {"network": "resnet18", "width": WIDTH, "fusion": [], **model},
        }
    )
    return student, SensorTeacher(config, [FORMAT, FORMAT], CLASSES).eval()


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 4, 1, 32, 32), torch.randn(count, 2, 3, 32), torch.arange(count) % CLASSES


def test_every_term_is_the_mean_over_the_sensors() -> None:
    student, teacher = networks()
    clip, signals, labels = batch()
    learner = Learner(student, EVERY, teacher, SHAPES, class_vectors=VECTORS).eval()
    seen = teach(teacher, signals, learner.teacher_taps, ablate=learner.ablates)
    values, logits = learner(clip, labels, seen)
    divergences = [soft_target(logits, one.logits).item() for one in seen]
    assert values["soft_target"].item() == pytest.approx(sum(divergences) / 2, rel=1e-5)
    taps = [Tap(path, "mean") for path in (*five_stages(student), "head.project")]
    mine = observe(student, clip, taps)
    with torch.no_grad():
        blank = student(torch.zeros(1, 4, 1, 32, 32))
        maps = [
            gsdm(
                [mine.taps[tap] for tap in taps[:5]],
                [one.taps[Tap(block, "mean")] for block in BLOCKS],
                logits,
                blank,
                one.logits,
                one.ablated,
                VECTORS,
            )
            for one in seen
        ]
        semantics = [semantic_preserving(mine.taps[taps[5]], one.taps[Tap("fc2", "mean")]) for one in seen]
    assert values["gsdm"].item() == pytest.approx(float(sum(maps) / 2), rel=1e-5)
    assert values["semantic"].item() == pytest.approx(float(sum(semantics) / 2), rel=1e-5)
    values["total"].backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in learner.terms.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_the_relation_heads_projection_is_averaged_over_the_segments() -> None:
    student, _ = networks()
    clip, _, _ = batch()
    seen = observe(student.eval(), clip, [Tap("head.project", "mean"), Tap("backbone", "mean")])
    projected = student.head.project(student.backbone(clip.flatten(0, 1))).reshape(4, 4, WIDTH).mean(1)
    torch.testing.assert_close(seen.taps[Tap("head.project", "mean")], projected)


def test_one_adapter_brings_the_student_near_all_teachers() -> None:
    """Eq. 24 has a single h^S; other losses map onto each teacher by itself."""
    student, teacher = networks("tconv")
    clip, signals, labels = batch()
    learner = Learner(student, [SemanticLoss(), FitnetLoss()], teacher, SHAPES, class_vectors=VECTORS).eval()
    shared, own = learner.terms["semantic"].adapters, learner.terms["fitnet"].adapters
    assert (len(shared), len(own)) == (2, 2)
    assert shared[0] is shared[1]
    assert own[0] is not own[1]
    size = student.backbone.feature_size
    assert sum(p.numel() for p in learner.terms["semantic"].parameters()) == WIDTH * (size + 1)
    seen = teach(teacher, signals, learner.teacher_taps)
    values, _ = learner(clip, labels, seen)
    linear = shared[0][1]
    mine = observe(student, clip, [Tap("backbone", "mean")]).taps[Tap("backbone", "mean")]
    projected = mine @ linear.weight.T + linear.bias
    theirs = [one.taps[Tap("fc2", "mean")] for one in seen]
    torch.testing.assert_close(values["semantic"], sum(((projected - h) ** 2).mean() for h in theirs) / 2)
    values["semantic"].backward()
    # the derivative of the mean over both teachers by the bias: 2 (h^S - mean of h^T), averaged over the batch
    wanted = 2 * (projected - (theirs[0] + theirs[1]) / 2).sum(dim=0) / (4 * WIDTH)
    torch.testing.assert_close(linear.bias.grad, wanted)


def test_gsdm_teaches_the_students_maps() -> None:
    """The published code cuts the gradient off."""
    student, teacher = networks()
    clip, signals, labels = batch()
    learner = Learner(student, [GsdmLoss()], teacher, SHAPES, class_vectors=VECTORS)
    values, _ = learner(clip, labels, teach(teacher, signals, learner.teacher_taps, ablate=True))
    values["gsdm"].backward()
    first = next(p for p in student.backbone.parameters())
    assert first.grad is not None
    assert float(first.grad.norm()) > 0
    assert all(p.grad is None for p in student.head.parameters())  # omega is a constant


@pytest.mark.slow
def test_the_blank_clip_leaves_the_batch_statistics_alone() -> None:
    student, teacher = networks()
    twin = networks()[0]
    clip, signals, labels = batch()
    learner = Learner(student, [GsdmLoss()], teacher, SHAPES, class_vectors=VECTORS)
    learner(clip, labels, teach(teacher, signals, learner.teacher_taps, ablate=True))
    twin.train()(clip)
    for (name, mine), (_, plain) in zip(student.named_buffers(), twin.named_buffers(), strict=True):
        torch.testing.assert_close(mine, plain, msg=name)
    assert student.training


def test_a_black_clip_is_black_before_normalising() -> None:
    student, teacher = networks()
    clip, signals, labels = batch()
    black = torch.tensor([-2.0])
    learner = Learner(student, [GsdmLoss(ablation="black")], teacher, SHAPES, class_vectors=VECTORS, black=black).eval()
    with torch.no_grad():
        torch.testing.assert_close(learner._ablated(clip), student(torch.full((1, 4, 1, 32, 32), -2.0)))
    zeros = Learner(student, [GsdmLoss()], teacher, SHAPES, class_vectors=VECTORS, black=black).eval()
    with torch.no_grad():
        torch.testing.assert_close(zeros._ablated(clip), student(torch.zeros(1, 4, 1, 32, 32)))
    assert learner(clip, labels, teach(teacher, signals, learner.teacher_taps, ablate=True))[0]["gsdm"].isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.kind)
def test_a_missing_sensor_teaches_nothing_and_the_other_all_it_saw(loss: Loss) -> None:
    student, teacher = networks()
    clip, signals, labels = batch(6)
    signals[[1, 4], 0] = torch.nan
    learner = Learner(student, [loss], teacher, SHAPES, class_vectors=VECTORS).eval()
    seen = teach(teacher, signals, learner.teacher_taps, ablate=learner.ablates)
    value = learner(clip, labels, seen)[0][loss.kind]
    there = torch.tensor([True, False, True, True, False, True])
    mine = observe(student, clip, learner._student_taps)
    with torch.no_grad():
        mine = mine._replace(ablated=student(torch.zeros(1, 4, 1, 32, 32)))
    term = learner.terms[loss.kind]
    if isinstance(loss, GsdmLoss):
        mine = loss.prepare(mine, [mine.taps[tap] for tap in term.student_taps], VECTORS)
    first = term.between(term.adapters[0], mine.of(there), seen[0].of(there), labels[there], 1)
    second = term.between(term.adapters[1], mine, seen[1], labels, 1)
    assert value.item() == pytest.approx(((4 / 6 * first + second) / (4 / 6 + 1)).item(), rel=1e-5)


def test_a_batch_that_no_teacher_saw_is_worth_nothing() -> None:
    student, teacher = networks()
    clip, signals, labels = batch(2)
    signals[:] = torch.nan
    learner = Learner(student, [SoftTargetLoss()], teacher, SHAPES).eval()
    unseen = tuple(Observation(torch.zeros(2, CLASSES), {}, present=torch.zeros(2, dtype=torch.bool)) for _ in range(2))
    assert learner(clip, labels, unseen)[0]["soft_target"].item() == 0


def test_attention_weighs_the_soft_targets_sample_by_sample() -> None:
    student, teacher = networks(attention=True)
    clip, signals, labels = batch()
    learner = Learner(student, [SoftTargetLoss(teachers="attention")], teacher, SHAPES).eval()
    seen = teach(teacher, signals, ())
    first, second = torch.tensor([1.0, 0.25, 0.0, 0.5]), torch.tensor([0.0, 0.75, 1.0, 0.5])
    seen = (seen[0]._replace(attention=first), seen[1]._replace(attention=second))
    values, logits = learner(clip, labels, seen)
    each = [
        sum(
            float(w[n]) * soft_target(logits[n : n + 1], one.logits[n : n + 1]).item()
            for w, one in ((first, seen[0]), (second, seen[1]))
        )
        for n in range(4)
    ]
    assert values["soft_target"].item() == pytest.approx(np.mean(each), rel=1e-5)


def test_attention_that_nobody_pays() -> None:
    student, teacher = networks()
    with pytest.raises(TrainingError, match="teachers without attention"):
        Learner(student, [SoftTargetLoss(teachers="attention")], teacher, SHAPES)
    images = ImageTeacher(build_model(ModelConfig(backbone="tiny"), 3, CLASSES, 4))
    with pytest.raises(TrainingError, match="a single teacher"):
        Learner(student, [SoftTargetLoss(teachers="attention")], images, ((4, 1, 32, 32), (4, 3, 32, 32)))


def test_layers_of_one_network_only_and_segments_that_sensors_lack() -> None:
    student, teacher = networks()
    with pytest.raises(TrainingError, match="gsdm' with student_layers alone"):
        Learner(student, [GsdmLoss(student_layers=("backbone.layer4",))], teacher, SHAPES, class_vectors=VECTORS)
    with pytest.raises(TrainingError, match="sensors as teachers, which have no segments"):
        Learner(student, [MgcamLoss(segments="fold")], teacher, SHAPES)
    with pytest.raises(TrainingError, match="no layer 'block9'"):
        Learner(student, [SimilarityLoss(teacher_layers=("block9",))], teacher, SHAPES)


def test_gsdm_and_semantics_between_two_image_networks() -> None:
    student = networks()[0]
    images = ImageTeacher(build_model(ModelConfig(backbone="resnet10_thin"), 3, CLASSES, 4)).eval()
    clip, _, labels = batch()
    shapes = ((4, 1, 32, 32), (4, 3, 32, 32))
    learner = Learner(student, [GsdmLoss(), SemanticLoss()], images, shapes, class_vectors=VECTORS).eval()
    seen = teach(images, torch.randn(4, 4, 3, 32, 32), learner.teacher_taps, ablate=True)
    values, _ = learner(clip, labels, seen)
    assert 0 < float(values["gsdm"].detach()) <= 2
    assert float(values["semantic"].detach()) > 0


# ------------------------------------------------------------------------------------------------ training


@pytest.fixture
def vectors(once: Once) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        np.save(folder / "classes.npy", np.random.default_rng(0).standard_normal((10, WIDTH)))

    return once("vectors", make) / "classes.npy"


def sensor_values(vectors: Path, **changes: Any) -> dict[str, Any]:
    """A tiny recipe whose teachers are the figure's wrist sensors."""
    values = tiny_values(
        teacher={
            "kind": "sensors",
            "sensors": ["accelerometer", "gyroscope"],
            "points": 32,
            "model": {"network": "conv1d", "width": WIDTH},
            "jitter": {"shift": 0.1, "gain": 0.1, "noise": 0.01},
            "epochs": 2,
            "batch_size": 6,
        },
        semantics={"vectors": str(vectors)},
        losses=[{"kind": "soft_target", "weight": 0.1}, {"kind": "gsdm"}, {"kind": "semantic"}],
    )
    values["student"]["model"] = {"backbone": "tiny", "temporal": "trn", "bottleneck": WIDTH}
    return values | changes


@pytest.mark.slow
def test_the_summary_has_every_sensor_and_every_similarity(vectors: Path, trained: Trained) -> None:
    run = trained(sensor_values(vectors))
    summary = Run.load(run).summary
    teacher = summary.stages["teacher"]
    assert teacher.modality == "accelerometer + gyroscope"
    assert (teacher.backbone, teacher.temporal) == ("conv1d", "SPAMFM (official)")
    assert set(teacher.sensors) == {"accelerometer", "gyroscope"}
    assert teacher.sensors["gyroscope"].clips == teacher.test_samples == summary.protocol.test_samples
    assert set(teacher.similarity) == {"identity", "batch", "running"}
    assert teacher.similarity["running"]["together"] == teacher.test.accuracy
    assert teacher.lacking == {"accelerometer": 0, "gyroscope": 0}
    assert summary.semantics.size == WIDTH
    assert load_recipe(run) == Recipe.model_validate(sensor_values(vectors))  # the written recipe is the same one


@pytest.mark.slow
def test_killed_and_resumed_sensors_give_the_same_weights(vectors: Path, trained: Trained, tmp_path: Path) -> None:
    values = sensor_values(vectors)
    whole, folder = trained(values), tmp_path / "killed"
    assert killed(values, folder, False, ("teacher", 2, 1)) == -signal.SIGKILL
    assert killed(values, folder, True, ("student", 2, 1)) == -signal.SIGKILL
    recipe = Recipe.model_validate(values)
    run_all(recipe, folder, resume=True)
    assert same(weights(folder), weights(whole))
    list(train(recipe, tmp_path / "shared", accelerator="cpu", teacher_runs=[whole]))
    assert same(weights(tmp_path / "shared"), weights(whole))


@pytest.mark.slow
def test_other_vectors_are_another_teacher(vectors: Path, trained: Trained, tmp_path: Path) -> None:
    run = trained(sensor_values(vectors))
    other = tmp_path / "other.npy"
    np.save(other, np.load(vectors) + 1)
    recipe = Recipe.model_validate(sensor_values(other))
    with pytest.raises(TrainingError, match="other settings or recordings"):
        list(train(recipe, tmp_path / "new", accelerator="cpu", teacher_runs=[run]))


@pytest.mark.slow
def test_teachers_of_other_classes_or_signals_are_refused(vectors: Path, trained: Trained, tmp_path: Path) -> None:
    values = sensor_values(vectors, losses=[{"kind": "soft_target"}])
    shutil.copytree(trained(sensor_values(vectors)), tmp_path / "run")
    alone = tmp_path / "alone.safetensors"
    shutil.copy(tmp_path / "run" / TEACHER, alone)
    for given in (tmp_path / "run", alone):
        taken = values["teacher"] | {"weights": str(given)}
        other = Recipe.model_validate(values | {"teacher": taken | {"interval": "unit"}})
        with pytest.raises(TrainingError, match=r'teacher\.interval = "signed", the recipe has "unit"'):
            run_all(other, tmp_path / f"of-{given.stem}")
        with pytest.raises(TrainingError, match=r'teacher\.interval = "signed", the recipe has "unit"'):
            rehearse(other)
        assert rehearse(Recipe.model_validate(values | {"teacher": taken})).losses["soft_target"] > 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["student_model"]["labels"][3] = "juggle"
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    assert Run.load(tmp_path / "run").summary.student_model["labels"][3] == "juggle"
    values["teacher"]["weights"] = str(tmp_path / "run")
    with pytest.raises(TrainingError, match="the first that differs: 'juggle' and"):
        run_all(Recipe.model_validate(values), tmp_path / "new")


def test_vectors_are_asked_for_where_they_are_needed(vectors: Path) -> None:
    values = sensor_values(vectors)
    del values["semantics"]
    with pytest.raises(ValueError, match="loss 'gsdm' compares with the class names' vectors"):
        Recipe.model_validate(values)
    values["losses"] = [{"kind": "soft_target"}]
    with pytest.raises(ValueError, match=r"teacher.semantic_weight compares with"):
        Recipe.model_validate(values)
    values["teacher"]["semantic_weight"] = 0
    assert Recipe.model_validate(values).needs_semantics == ""

"""A dry run: every part of a training once, on a few clips, writing only the cache of decoded frames."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from kd_edge.data import Sample, training_sides
from kd_edge.models.layers import evaluating
from kd_edge.rundir import SourceNote
from kd_edge.train.checks import check_batches
from kd_edge.train.crossfit import folds
from kd_edge.train.dense import DenseLearner, frame_loaders
from kd_edge.train.devices import make_fabric
from kd_edge.train.distil.learner import Learner, teach
from kd_edge.train.given import take_weights
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material, Progress, training_batches
from kd_edge.train.networks import build_student, build_teacher, student_learner
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig
from kd_edge.train.step import Step, on_device
from kd_edge.train.teachers.base import LabelLearner, Shape, Teacher


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Result of a dry run.

    Attributes:
        samples: Number of training, validation and test clips.
        inputs: Shape of a batch by stage, (B, T, C, S, S).
        parameters: Number of parameters by stage, and of the losses' ``adapters``.
        student_layers: Tapped layer of the student -> its output for one frame.
        teacher_layers: Tapped layer of the teacher -> its output for one frame.
        losses: Unweighted terms of the first step, with ``total``.
        weights: Weights of the terms in the first epoch.
        seconds: Time of that step on this machine, including the teacher's forward pass.
        steps_per_epoch: Steps of the student over all its training clips.
        dense: First loss of the dense stage; None without one, or if its targets need a trained teacher.
        source: Source of fine-tuning; None without one.
    """

    samples: tuple[int, int, int]
    inputs: Mapping[str, Shape]
    parameters: dict[str, int]
    student_layers: Mapping[str, Shape]
    teacher_layers: Mapping[str, Shape]
    losses: dict[str, float]
    weights: dict[str, float]
    seconds: float
    steps_per_epoch: int
    dense: float | None = None
    source: SourceNote | None = None


def rehearse(recipe: Recipe, data_root: Path | None = None, *, progress: Progress | None = None) -> Rehearsal:
    """Check a recipe against its data set, build its networks and run one training step of each.

    Only the clips of one batch are decoded, so damage in other recordings is not noticed.

    Args:
        recipe: The recipe.
        data_root: Folder with the recordings.
        progress: Called while clips are decoded.

    Raises:
        KdEdgeError: The training could not start.
    """
    before = torch.get_num_threads()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    try:
        check_batches(recipe, world=1)
        clips = max(recipe.student.batch_size, recipe.teacher.batch_size if recipe.teacher else 0)
        material = gather_material(recipe, data_root, progress, at_most=clips)
        folds(
            replace(material, train=_protocol(material)[0])
        )  # with all training subjects, not only those of these clips
        teacher = None
        if recipe.teacher is not None:
            teacher = build_teacher(material, recipe.teacher)
            if isinstance(recipe.teacher, OnnxTeacherConfig):
                pass  # no weights; it was run while the clips were read
            elif recipe.teacher.weights is None:
                # A separate copy, because the statistics of a network after one step are not usable.
                another = build_teacher(material, recipe.teacher)
                weights = material.class_weights("teacher")
                learner = another.learner(recipe.teacher, material.class_vectors, weights)
                _step(material, "teacher", learner, None)
            else:
                take_weights(teacher, recipe.teacher.weights, recipe.teacher, material.dataset.labels)
            teacher.requires_grad_(False)
        mine = student_learner(material, teacher)
        return replace(_step(material, "student", mine, teacher), dense=_dense_step(material), source=mine.source)
    finally:
        torch.set_num_threads(before)


def _step(material: Material, name: str, learner: LabelLearner, teacher: Teacher | None) -> Rehearsal:
    """Run one optimiser step of a stage on its first batch."""
    recipe, stage = material.recipe, material.trained(name)
    train, validation, test = _protocol(material)
    fabric = make_fabric(recipe)
    if teacher is not None:
        teacher.to(fabric.device)
    step = Step(fabric, learner, stage, teacher)
    stages = [name] if teacher is None else [name, "teacher"]
    batch = next(on_device(fabric, material.training_loader(stages, stage.batch_size)[0]))
    start = time.perf_counter()
    losses, _ = step(batch).wait()
    seconds = time.perf_counter() - start
    parameters = {
        "student": count(learner.model),
        "teacher": count(teacher),
        "adapters": count(learner) - count(learner.model),
    }
    return Rehearsal(
        samples=(len(train), len(validation), len(test)),
        inputs={stage: tuple(seen.shape) for stage, seen in zip(stages, batch["inputs"], strict=False)},
        parameters={key: value for key, value in parameters.items() if value or key in stages},
        student_layers={path: layer.shape for path, layer in learner.student_layers.items()},
        teacher_layers={path: layer.shape for path, layer in learner.teacher_layers.items()},
        losses=losses,
        weights=learner.weights(1),
        seconds=seconds,
        steps_per_epoch=len(training_batches(recipe, stage, train, stage.batch_size)),
    )


def _dense_step(material: Material) -> float | None:
    """Run one optimiser step of the dense stage and return its loss."""
    stage = material.recipe.dense_stage
    if stage is None or stage.features is not None:
        return None
    fabric = make_fabric(material.recipe)
    learner = DenseLearner(build_student(material), material.dense_targets, keep=material.recipe.keeps_targets)
    step = Step(fabric, learner, stage, None)
    losses, _ = step(next(on_device(fabric, frame_loaders(material, stage).training))).wait()
    return losses["dense"]


def _protocol(material: Material) -> tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    """All training, validation and test clips of the recipe."""
    recipe, split = material.recipe, material.dataset.split(material.recipe.split)
    return *training_sides(split, recipe.validation_subjects, recipe.validation_trials), split.test


def count(module: nn.Module | None) -> int:
    """Return the number of parameters."""
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def rehearse_losses(learner: Learner, recipe: Recipe, teacher: Teacher) -> None:
    """Run both networks on two empty clips, so that layers that do not fit stop a run before its teacher is trained.

    The networks are not changed.

    Raises:
        TrainingError: A loss does not accept its layers.
    """
    if recipe.clip_shapes is None:
        return
    mine, theirs = (torch.zeros(2, *shape) for shape in recipe.clip_shapes)
    with torch.no_grad(), evaluating(learner), evaluating(teacher), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two equal clips have no graph
        seen = teach(teacher, theirs, learner.teacher_taps, ablate=learner.ablates)
        targets = None if learner.dense is None else torch.zeros(*mine.shape[:2], learner.dense.size)
        learner(mine, torch.tensor([0, 1]), seen, targets=targets)

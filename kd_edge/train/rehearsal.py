"""A dry run: everything a recipe would do once, on a few clips, with nothing written but the frames it decoded."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from kd_edge.data import validation_split
from kd_edge.train.checks import check_batches
from kd_edge.train.devices import make_fabric
from kd_edge.train.distil.learner import Learner, teach
from kd_edge.train.distil.terms import Teacher, Term
from kd_edge.train.given import check_given, load_trained, teacher_weights
from kd_edge.train.inputs.material import Material, Progress, gather_material
from kd_edge.train.networks import build, build_teacher, student_learner, teacher_learner
from kd_edge.train.optim import make_optimiser
from kd_edge.train.recipe import Recipe
from kd_edge.train.teachers.base import Shape
from kd_edge.train.teachers.sensors import SensorLearner


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What one step of a recipe's student looks like.

    Attributes:
        samples: Clips of the protocol: training, validation, test.
        inputs: Shape of a batch by stage, (B, T, C, S, S).
        parameters: By stage, and ``adapters`` of the losses.
        student_layers: Tapped layer -> its output for one frame.
        teacher_layers: Likewise.
        losses: Terms of the first step before their weights, with ``total``.
        weights: Of the terms in the first epoch.
        seconds: Of that step on this machine, teacher's forward pass included.
        steps_per_epoch: Of the student over all its training clips.
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


def rehearse(recipe: Recipe, data_root: Path | None = None, *, progress: Progress | None = None) -> Rehearsal:
    """Check a recipe against its data set, build its networks and take one training step of each.

    Only the clips of one batch are decoded; all other recordings may be damaged without this noticing.

    Args:
        recipe: What would be trained.
        data_root: Folder with the recordings.
        progress: Called while clips are decoded.

    Raises:
        KdEdgeError: What would stop the training at its start.
    """
    before = torch.get_num_threads()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    try:
        check_batches(recipe, world=1)
        clips = max(recipe.student.batch_size, recipe.teacher.batch_size if recipe.teacher else 0)
        material = gather_material(recipe, data_root, progress, at_most=clips)
        if recipe.teacher is None:
            return _step(material, "student", student_learner(material, build(material, "student"), None), None)
        teacher = build_teacher(material)
        if recipe.teacher.weights is None:
            # Another copy: after a single step a network is no teacher, its statistics are hardly begun.
            _step(material, "teacher", teacher_learner(material, build_teacher(material)), None)
        else:
            check_given(material)
            load_trained(teacher, teacher_weights(recipe.teacher.weights))
        student = student_learner(material, build(material, "student"), teacher.requires_grad_(False))
        return _step(material, "student", student, teacher)
    finally:
        torch.set_num_threads(before)


def _step(material: Material, name: str, learner: Learner | SensorLearner, teacher: Teacher | None) -> Rehearsal:
    """One optimiser step of a stage on its first batch."""
    recipe, stage = material.recipe, material.stage(name)
    split = material.dataset.split(recipe.split)
    train, validation = validation_split(split.train, recipe.validation_subjects, recipe.validation_trials)
    fabric = make_fabric(recipe)
    module, optimiser = fabric.setup(learner, make_optimiser(learner, stage))
    if teacher is not None:
        teacher.to(fabric.device)
    loader, _ = material.training_loader([name] if teacher is None else [name, "teacher"], stage.batch_size)
    batch = next(iter(loader))
    inputs, labels = fabric.to_device((batch["inputs"], batch["labels"]))
    start = time.perf_counter()
    seen = None
    if teacher is not None:
        with fabric.autocast():
            seen = teach(teacher, inputs[1], learner.teacher_taps, ablate=learner.ablates)
    values, _ = module(inputs[0], labels, seen)
    fabric.backward(values["total"])
    optimiser.step()
    figures = {key: value.item() for key, value in values.items()}
    seconds = time.perf_counter() - start
    stages = [name] if teacher is None else ["student", "teacher"]
    terms = learner.terms if isinstance(learner, Learner) else None
    parameters = {"student": count(learner.model), "teacher": count(teacher), "adapters": count(terms)}
    layers = (learner.student_layers, learner.teacher_layers) if isinstance(learner, Learner) else ({}, {})
    return Rehearsal(
        samples=(len(train), len(validation), len(split.test)),
        inputs={stage: tuple(clip.shape) for stage, clip in zip(stages, inputs, strict=True)},
        parameters={key: value for key, value in parameters.items() if value},
        student_layers={path: layer.shape for path, layer in layers[0].items()},
        teacher_layers={path: layer.shape for path, layer in layers[1].items()},
        losses=figures,
        weights={name: term.weight(1) for name, term in terms.items() if isinstance(term, Term)} if terms else {},
        seconds=seconds,
        steps_per_epoch=max(1, len(train) // stage.batch_size),
    )


def count(module: torch.nn.Module | None) -> int:
    """Number of parameters."""
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def rehearse_losses(material: Material) -> None:
    """Show both networks two empty clips, so that a layer that does not fit stops a run before its teacher is trained.

    Raises:
        TrainingError: What a loss says of the layers it looks at.
    """
    recipe = material.recipe
    if recipe.clip_shapes is None:
        return
    student, teacher = build(material, "student"), build_teacher(material)
    teacher_learner(material, teacher)  # class vectors must fit
    learner = student_learner(material, student, teacher).eval()
    mine, theirs = (torch.zeros(2, *shape) for shape in recipe.clip_shapes)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two equal clips have no graph
        learner(mine, torch.tensor([0, 1]), teach(teacher, theirs, learner.teacher_taps, ablate=learner.ablates))

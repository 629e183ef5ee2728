"""The networks of a run: built from the recipe, with initial or trained weights."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from kd_edge.models import ClipModel
from kd_edge.models.clip import build_head
from kd_edge.preprocess import Preprocess
from kd_edge.rundir import SourceNote
from kd_edge.train.distil.learner import Learner
from kd_edge.train.distil.terms import DenseTerm
from kd_edge.train.finetune.begin import begin_from
from kd_edge.train.finetune.freezing import freeze
from kd_edge.train.finetune.source import open_source
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import HeadStage, Recipe
from kd_edge.train.recipe.teacher_stages import AnyTeacher
from kd_edge.train.teachers.base import Teacher
from kd_edge.train.teachers.images import ImageTeacher, image_network
from kd_edge.train.teachers.onnx import OnnxTeacher
from kd_edge.train.teachers.sensors import SensorTeacher

TEACHERS: dict[str, type[Teacher]] = {"images": ImageTeacher, "sensors": SensorTeacher, "onnx": OnnxTeacher}
"""The kinds of teachers, by the ``kind`` of their settings."""


def build_student(material: Material) -> ClipModel:
    """The recipe's student with its initial weights; the same for the same seed."""
    return begin_student(material)[0]


def begin_student(material: Material) -> tuple[ClipModel, SourceNote | None]:
    """The recipe's student with its initial weights, and what it was fine-tuned from, where it was."""
    recipe = material.recipe
    source = open_source(recipe.student)  # before the seed: rebuilding a run's student draws random numbers
    _seed(recipe, "student")
    model = image_network(material.student, recipe.first_segments, len(material.dataset.labels))
    if source is not None:
        return model, begin_from(model, source, material)
    freeze(model, recipe.student)
    return model, None


def begin_head(model: ClipModel, material: Material, stage: HeadStage) -> None:
    """Give a student the number of segments it ships with, and a new head where the stage starts with one."""
    recipe = material.recipe
    model.segments = recipe.segments
    if stage.start == "new":
        _seed(recipe, "head")
        model.head = build_head(material.student.model, model.backbone, len(material.dataset.labels), recipe.segments)


def build_teacher(material: Material, config: AnyTeacher) -> Teacher:
    """The recipe's teacher with its initial weights; the same for the same seed."""
    recipe, dataset = material.recipe, material.dataset
    _seed(recipe, "teacher")
    return TEACHERS[config.kind].build(config, recipe.first_segments, len(dataset.labels), dataset)


def _seed(recipe: Recipe, name: str) -> None:
    torch.manual_seed(zlib.crc32(f"{recipe.seed} {name} 0".encode()))


def student_learner(material: Material, teacher: Teacher | None) -> Learner:
    """A new student and what trains it: labels, and the recipe's losses where there is a teacher."""
    recipe, stage = material.recipe, material.recipe.student
    student, source = begin_student(material)  # adapters' weights are of the random numbers that follow
    learner = Learner(
        student,
        recipe.teacher_losses if teacher is not None else (),
        teacher,
        recipe.clip_shapes,
        stage.label_smoothing,
        stage.epochs,
        class_vectors=material.class_vectors,
        black=_black(stage.preprocess),
        class_weights=material.class_weights("student"),
        dense=_dense_term(material, student),
    )
    learner.source = source
    return learner


def _dense_term(material: Material, student: ClipModel) -> DenseTerm | None:
    """What regresses dense targets beside the labels, where the recipe has that loss."""
    recipe = material.recipe
    if recipe.dense_loss is None:
        return None
    size = None if recipe.keeps_dense_loss else student.backbone.feature_size
    return DenseTerm(recipe.dense_loss, material.loss_targets.weights, size)


def _black(spec: Preprocess) -> Tensor:
    """A black pixel as the network sees it, (C,)."""
    mean, std = (torch.tensor(values).expand(spec.input_channels) for values in (spec.mean, spec.std))
    return -mean / std

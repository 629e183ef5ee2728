"""Build the networks of a run from the recipe, with initial or trained weights."""

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
"""Teacher classes by the ``kind`` of their settings."""


def build_student(material: Material) -> ClipModel:
    """Build the student with its initial weights, which depend only on the seed."""
    return begin_student(material)[0]


def begin_student(material: Material) -> tuple[ClipModel, SourceNote | None]:
    """Build the student with its initial weights; also return the note on its source when fine-tuning."""
    recipe = material.recipe
    source = open_source(recipe.student)  # before seeding, because rebuilding a run's student draws random numbers
    _seed(recipe, "student")
    model = image_network(material.student, recipe.first_segments, len(material.dataset.labels))
    if source is not None:
        return model, begin_from(model, source, material)
    freeze(model, recipe.student)
    return model, None


def begin_head(model: ClipModel, material: Material, stage: HeadStage) -> None:
    """Set the student's final number of segments, and build a new head if the stage starts with one."""
    recipe = material.recipe
    model.segments = recipe.segments
    if stage.start == "new":
        _seed(recipe, "head")
        model.head = build_head(material.student.model, model.backbone, len(material.dataset.labels), recipe.segments)


def build_teacher(material: Material, config: AnyTeacher) -> Teacher:
    """Build the teacher with its initial weights, which depend only on the seed."""
    recipe, dataset = material.recipe, material.dataset
    _seed(recipe, "teacher")
    return TEACHERS[config.kind].build(config, recipe.first_segments, len(dataset.labels), dataset)


def _seed(recipe: Recipe, name: str) -> None:
    torch.manual_seed(zlib.crc32(f"{recipe.seed} {name} 0".encode()))


def student_learner(material: Material, teacher: Teacher | None) -> Learner:
    """Build the student and its learner: labels, and with a teacher the recipe's losses."""
    recipe, stage = material.recipe, material.recipe.student
    student, source = begin_student(material)  # before the learner, whose adapters draw the next random numbers
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
    """The dense loss in addition to the labels, if the recipe has it."""
    recipe = material.recipe
    if recipe.dense_loss is None:
        return None
    size = None if recipe.keeps_dense_loss else student.backbone.feature_size
    return DenseTerm(recipe.dense_loss, material.loss_targets.weights, size)


def _black(spec: Preprocess) -> Tensor:
    """A black pixel after normalisation, (C,)."""
    mean, std = (torch.tensor(values).expand(spec.input_channels) for values in (spec.mean, spec.std))
    return -mean / std

"""The networks of a run: built from the recipe, with initial or trained weights."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from kd_edge.data import Wearables
from kd_edge.models import ClipModel, build_model
from kd_edge.models.backbones import start_from_motion
from kd_edge.preprocess import Preprocess
from kd_edge.train.distil.learner import Learner
from kd_edge.train.distil.terms import Teacher
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe, SensorTeacherConfig
from kd_edge.train.teachers.sensors import SensorLearner, SensorTeacher


def build(material: Material, name: str) -> ClipModel:
    """An image stage's model with its initial weights; the same for the same seed."""
    stage, recipe = material.stage(name), material.recipe
    assert not isinstance(stage, SensorTeacherConfig)
    torch.manual_seed(_seed(recipe, name))
    classes = len(material.dataset.labels)
    channels = stage.preprocess.input_channels
    model = build_model(stage.model, channels, classes, recipe.segments, stage.initial_weights)
    if stage.preprocess.has_motion and stage.initial_weights is None:
        start_from_motion(model.backbone, stage.preprocess.channels)
    return model


def build_teacher(material: Material) -> Teacher:
    """The recipe's teacher with its initial weights; the same for the same seed."""
    config = material.recipe.teacher
    if not isinstance(config, SensorTeacherConfig):
        return build(material, "teacher")
    torch.manual_seed(_seed(material.recipe, "teacher"))
    dataset = material.dataset
    assert isinstance(dataset, Wearables)
    formats = [dataset.signal_format(sensor) for sensor in config.sensors]
    return SensorTeacher(config, formats, len(dataset.labels))


def _seed(recipe: Recipe, name: str) -> int:
    return zlib.crc32(f"{recipe.seed} {name} 0".encode())


def teacher_learner(material: Material, teacher: Teacher) -> Learner | SensorLearner:
    """What trains a teacher: labels alone, and class names for sensors."""
    config = material.recipe.teacher
    assert config is not None
    if isinstance(teacher, SensorTeacher):
        assert isinstance(config, SensorTeacherConfig)
        return SensorLearner(teacher, material.class_vectors if config.semantic_weight else None, config)
    return Learner(teacher, label_smoothing=config.label_smoothing)


def student_learner(material: Material, student: ClipModel, teacher: Teacher | None) -> Learner:
    """What trains a student: labels, and the recipe's losses where there is a teacher."""
    recipe, stage = material.recipe, material.recipe.student
    return Learner(
        student,
        recipe.losses if teacher is not None else (),
        teacher,
        recipe.clip_shapes,
        stage.label_smoothing,
        stage.epochs,
        class_vectors=material.class_vectors,
        black=_black(stage.preprocess),
    )


def _black(spec: Preprocess) -> Tensor:
    """A black pixel as the network sees it, (C,)."""
    mean, std = (torch.tensor(values).expand(spec.input_channels) for values in (spec.mean, spec.std))
    return -mean / std

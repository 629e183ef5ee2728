"""Recipes of training runs: one TOML file as frozen pydantic models. Reading one does not import torch."""

from kd_edge.train.recipe.recipe import Recipe
from kd_edge.train.recipe.settings import Stage
from kd_edge.train.recipe.stages import StudentConfig
from kd_edge.train.recipe.student_stages import DenseStage, HeadStage, LabelsStage
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig, SensorTeacherConfig, TeacherConfig

__all__ = [
    "DenseStage",
    "HeadStage",
    "LabelsStage",
    "OnnxTeacherConfig",
    "Recipe",
    "SensorTeacherConfig",
    "Stage",
    "StudentConfig",
    "TeacherConfig",
]

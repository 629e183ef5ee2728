"""What a training run is told: one TOML file as frozen pydantic models. Reading one imports no torch."""

from kd_edge.train.recipe.recipe import Recipe
from kd_edge.train.recipe.stages import OnnxTeacherConfig, SensorTeacherConfig, Stage, StudentConfig, TeacherConfig
from kd_edge.train.recipe.student_stages import DenseStage, HeadStage, LabelsStage

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

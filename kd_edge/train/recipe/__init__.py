"""What a training run is told: one TOML file as frozen pydantic models. Reading one imports no torch."""

from kd_edge.train.recipe.recipe import Recipe
from kd_edge.train.recipe.stages import SensorTeacherConfig, Stage, StudentConfig, TeacherConfig

__all__ = ["Recipe", "SensorTeacherConfig", "Stage", "StudentConfig", "TeacherConfig"]

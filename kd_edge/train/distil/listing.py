"""The layers of a recipe's networks, and which of them its losses look at."""

from __future__ import annotations

from kd_edge.data import SignalFormat
from kd_edge.errors import ConfigError
from kd_edge.models import build_model
from kd_edge.models.layers import Layer, list_layers
from kd_edge.train.distil.learner import term_names
from kd_edge.train.distil.terms import tapped_layers
from kd_edge.train.recipe import Recipe, SensorTeacherConfig
from kd_edge.train.teachers.base import Who
from kd_edge.train.teachers.sensors import SensorTeacher, places

_ANY = SignalFormat("", (-1.0, 1.0), 50.0)


def recipe_layers(recipe: Recipe, who: Who) -> tuple[list[Layer], dict[str, tuple[str, ...]]]:
    """Build a recipe's student or teacher and list what a loss may name; needs no recordings.

    Args:
        recipe: Of which run.
        who: ``student`` or ``teacher``; of several sensors' networks one, they are alike.

    Returns:
        (every layer with its output's shape for one clip, loss -> the layers it looks at).

    Raises:
        ConfigError: No teacher.
        TrainingError: A loss names a layer that does not exist.
    """
    stage = recipe.stages.get(who)
    if stage is None:
        raise ConfigError(f"recipe '{recipe.name}' has no teacher", "a recipe with [teacher]", "leave out --teacher")
    named = list(zip(term_names(recipe.losses), recipe.losses, strict=True))
    if isinstance(stage, SensorTeacherConfig):
        sensors = SensorTeacher(stage, [_ANY] * len(stage.sensors), classes=2)
        layers = [Layer(path, "sensor network", (1, *shape)) for path, shape in places(sensors).items()]
        return layers, {name: tapped_layers(loss, sensors, who) for name, loss in named}
    model = build_model(stage.model, stage.preprocess.input_channels, 2, recipe.segments)
    taps = {name: tapped_layers(loss, model, who) for name, loss in named}
    return list_layers(model, (1, *stage.clip_shape(recipe.segments))), taps

"""The layers of a recipe's networks, and those that its losses use."""

from __future__ import annotations

from kd_edge.errors import ConfigError
from kd_edge.models.layers import Layer, list_layers
from kd_edge.train.distil.methods import term_names
from kd_edge.train.networks import TEACHERS
from kd_edge.train.recipe import Recipe
from kd_edge.train.teachers.base import Who
from kd_edge.train.teachers.images import image_network, image_places

UNKNOWN_CLASSES = 2
"""Number of classes assumed if it is unknown; it affects only the last layer."""


def recipe_layers(
    recipe: Recipe, who: Who, classes: int = UNKNOWN_CLASSES
) -> tuple[list[Layer], dict[str, tuple[str, ...]]]:
    """Build a recipe's student or teacher and list its layers; needs no recordings.

    Args:
        recipe: The recipe.
        who: ``student`` or ``teacher``; for several sensors one network, as they are alike.
        classes: Number of classes of the recipe's data, see ``data.classes.class_names``.

    Returns:
        (all layers with the shape of their output for one clip, loss -> the layers that it uses).

    Raises:
        ConfigError: There is no teacher.
        TrainingError: A loss names a layer that does not exist.
    """
    segments = recipe.first_segments
    if who == "student":
        shape = recipe.student.clip_shape(segments)
        student = image_network(recipe.student, segments, classes, initial_weights=False)
        layers, places = list_layers(student, (1, *shape)), image_places(student)
    elif recipe.teacher is None:
        raise ConfigError(f"recipe '{recipe.name}' has no teacher", "a recipe with [teacher]", "omit --teacher")
    else:
        teacher = TEACHERS[recipe.teacher.kind].build(recipe.teacher, segments, classes, None)
        layers, places = teacher.layers(recipe.teacher.clip_shape(segments)), teacher.places
    named = zip(term_names(recipe.teacher_losses), recipe.teacher_losses, strict=True)
    return layers, {name: loss.layers(places, who) for name, loss in named}

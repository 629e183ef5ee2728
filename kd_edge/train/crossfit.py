"""Cross-fitting by subject: the head is trained on numbers regressed by encoders not trained on the clip's subject.

An encoder regresses better for people in its training data than for new people, and a head trained on those numbers
relies on them too much. The training subjects are therefore divided into folds, and for each fold an encoder is trained
on the other subjects. The shipped student, and all reported figures, use the encoder trained on all subjects.
"""

from __future__ import annotations

from dataclasses import replace

from kd_edge.errors import ConfigError
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe


def folds(material: Material) -> tuple[tuple[str, ...], ...]:
    """Return the subjects left out by each further encoder; empty without cross-fitting.

    Raises:
        ConfigError: There are more folds than training subjects, or only one subject.
    """
    crossfit = _crossfit(material.recipe)
    if crossfit is None:
        return ()
    subjects = sorted({sample.subject for sample in material.train}, key=_in_order)
    count = crossfit if isinstance(crossfit, int) else len(subjects)
    if not 2 <= count <= len(subjects):
        raise ConfigError(
            f"crossfit = {crossfit!r} with {len(subjects)} training subjects ({', '.join(subjects)})",
            "at least two folds, with a subject each",
            "lower crossfit of the head stage, or remove it",
        )
    return tuple(tuple(subjects[k::count]) for k in range(count))


def without(material: Material, subjects: tuple[str, ...]) -> Material:
    """Return the material without some subjects, with their clips for validation."""
    train = tuple(s for s in material.train if s.subject not in subjects)
    left_out = tuple(s for s in material.train if s.subject in subjects)
    # A clip without a subject may show any person.
    dense_only = tuple(s for s in material.dense_only if s.subject and s.subject not in subjects)
    return replace(material, train=train, validation=left_out, dense_only=dense_only)


def _crossfit(recipe: Recipe) -> int | str | None:
    return None if recipe.head_stage is None else recipe.head_stage.crossfit


def _in_order(subject: str) -> tuple[int, str]:
    """Sort key: numeric names by value."""
    return (int(subject) if subject.isdigit() else 0, subject)

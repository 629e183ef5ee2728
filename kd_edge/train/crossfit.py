"""Cross-fitting by subject: a head learns from what encoders regress that had not seen a clip's subject.

An encoder regresses better on those it was trained on than on people it will meet; a head trained on the former trusts
the numbers too much. So the training subjects are dealt into folds, and for each of them another encoder is trained on
the others. What the student ships, and what every figure is of, is the encoder that all of them trained.
"""

from __future__ import annotations

from dataclasses import replace

from kd_edge.errors import ConfigError
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe


def folds(material: Material) -> tuple[tuple[str, ...], ...]:
    """The subjects that each further encoder is trained without, dealt out in turn; none without cross-fitting.

    Raises:
        ConfigError: More folds than training subjects, or a single subject.
    """
    crossfit = _crossfit(material.recipe)
    if crossfit is None:
        return ()
    subjects = sorted({sample.subject for sample in material.train}, key=_in_order)
    count = crossfit if isinstance(crossfit, int) else len(subjects)
    if not 2 <= count <= len(subjects):
        raise ConfigError(
            f"crossfit = {crossfit!r} with {len(subjects)} training subjects ({', '.join(subjects)})",
            "two folds at least, and a subject for each",
            "lower crossfit of the head stage, or leave it out",
        )
    return tuple(tuple(subjects[k::count]) for k in range(count))


def without(material: Material, subjects: tuple[str, ...]) -> Material:
    """What an encoder sees that is trained without some subjects, and judged by their clips."""
    train = tuple(s for s in material.train if s.subject not in subjects)
    left_out = tuple(s for s in material.train if s.subject in subjects)
    # Nobody knows whom a clip without a subject shows.
    dense_only = tuple(s for s in material.dense_only if s.subject and s.subject not in subjects)
    return replace(material, train=train, validation=left_out, dense_only=dense_only)


def _crossfit(recipe: Recipe) -> int | str | None:
    return None if recipe.head_stage is None else recipe.head_stage.crossfit


def _in_order(subject: str) -> tuple[int, str]:
    """Numbers as numbers."""
    return (int(subject) if subject.isdigit() else 0, subject)

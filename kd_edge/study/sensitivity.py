"""A study's results as points over three settings of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_edge.errors import ConfigError, DataError, did_you_mean
from kd_edge.pictures.sensitivity import Setting
from kd_edge.study.plan import StudyConfig, plan
from kd_edge.study.report import report
from kd_edge.train.distil.methods import term_names
from kd_edge.train.recipe import Recipe

KEYS = ("soft_target", "gsdm", "semantic")
"""Weights of the SAKDN paper's three losses, Eq. 25."""
_GREEK = dict(
    zip(
        KEYS,
        ("\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER BETA}", "\N{GREEK SMALL LETTER GAMMA}"),
        strict=True,
    )
)


def settings(
    study: StudyConfig,
    folder: Path,
    keys: tuple[str, str, str] = KEYS,
    *,
    published: bool = False,
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
) -> dict[str, list[Setting]]:
    """Collect the points of a study's plots.

    Args:
        study: Study whose rows differ in three numbers.
        folder: Folder of its runs.
        keys: The name of a loss for its weight (0 in rows without it), ``<loss>.<option>``, or a dotted key of the
            recipe such as ``student.learning_rate``.
        published: Whether to add points for the published results.
        seeds: Seeds that were run; empty for those of the study and its rows.
        overrides: Recipe overrides that were run; other settings are other runs.

    Returns:
        Panel -> points: for each protocol the measured ones (mean over the seeds) and any published ones.

    Raises:
        ConfigError: A key is in no row, or is not a number.
        DataError: There are no points.
    """
    values = _values(study, keys, overrides)
    lines = {line.name: line for line in report(study, folder, seeds=seeds, overrides=overrides)}
    panels: dict[str, list[Setting]] = {}
    for split in study.splits:
        for row in study.rows:
            if row.name not in values:
                continue  # a classical method
            if published and split in row.published:
                point = Setting(row.name, values[row.name], row.published[split])
                panels.setdefault(f"{split}: published", []).append(point)
            mean = lines[row.name].cells[split].mean
            if mean is not None:
                panels.setdefault(f"{split}: measured", []).append(Setting(row.name, values[row.name], mean))
    if not panels:
        raise DataError(
            f"no row of '{study.title}' has a finished run in {folder}"
            + (" or a published figure" if published else ""),
            "at least one",
            "kd-edge study run" if published else "kd-edge study run, or add --published to draw the published figures",
        )
    return panels


def title(key: str) -> str:
    """The axis title of a key."""
    if "." in key:
        return key
    return f"{_GREEK[key]}, weight of {key}" if key in _GREEK else key


def _values(
    study: StudyConfig, keys: tuple[str, str, str], overrides: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Row -> values of the keys."""
    numbers = {p.row.name: _numbers(p.config) for p in plan(study, overrides=overrides) if isinstance(p.config, Recipe)}
    known = {key: None for found in numbers.values() for key in found}
    for key in keys:
        if key not in known:
            losses = [name for name in known if f"{name}.weight" in known]
            raise ConfigError(
                f"no row of '{study.title}' sets a number '{key}'{did_you_mean(key, known)}",
                f"a loss ({', '.join(losses) or 'none here'}), <loss>.<option>, or a dotted key of the recipe",
                "correct --x, --y or --colour",
            )
    values = {}
    for row, found in numbers.items():
        x, y, colour = (_value(found, key) for key in keys)
        if x is not None and y is not None and colour is not None:
            values[row] = (x, y, colour)
    return values


def _value(numbers: Mapping[str, float], key: str) -> float | None:
    """Value of a key: 0 for the weight of a loss that the row lacks; None for other missing keys."""
    return numbers.get(key, None if "." in key else 0.0)


def _numbers(recipe: Recipe) -> dict[str, float]:
    """Every number of a recipe by key; a loss's name is the key of its weight."""
    found: dict[str, float] = {}
    for name, loss in zip(term_names(recipe.losses), recipe.losses, strict=True):
        found[name] = loss.weight
        found |= _leaves(loss.model_dump(mode="json"), f"{name}.")
    return found | _leaves(recipe.model_dump(mode="json", exclude={"losses"}), "")


def _leaves(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[prefix + key] = float(value)
    return found

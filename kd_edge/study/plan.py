"""What a study is: one base recipe, rows that change it, splits and seeds; and the runs that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge import recipes
from kd_edge.comparators import AnyComparator, comparator_model
from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.train.recipe import Recipe

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RowConfig(_Strict):
    """One method of a table.

    Attributes:
        name: Short, for folders and ``--rows``.
        title: As the table prints it.
        published: Split -> the published figure, in percent; empty where there is none.
        set: Changes of the base recipe; tables are merged key by key, everything else replaces.
        without: Top-level keys of the base recipe to drop (``teacher`` for a student that learns alone).
        comparator: Instead of a recipe: settings of a classical method, ``kind`` first; recordings, split, seed and
            validation subjects are the base recipe's, and the student's modality and intensity window where the method
            has them (those that fuse sensors name their modalities themselves).
    """

    name: Name
    title: str
    published: dict[str, float] = {}
    set: dict[str, Any] = {}
    without: tuple[str, ...] = ()
    comparator: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> RowConfig:
        if self.comparator is not None and (self.set or self.without):
            raise ValueError("a comparator takes no recipe: remove set and without")
        return self


class StudyConfig(_Strict):
    """A table of runs.

    Attributes:
        title: What it shows.
        base: Name of the recipe that every row starts from.
        set: Changes of the base recipe for every row, before the row's own.
        metric: Of the test figures; ``map`` is the mean average precision over the classes.
        splits: Protocols; one column each.
        seeds: Every row is trained once per seed.
        rows: In the order of the table.
    """

    title: str
    base: str
    set: dict[str, Any] = {}
    metric: Literal["accuracy", "macro_f1", "map"] = "accuracy"
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    rows: Annotated[tuple[RowConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names):
            raise ValueError("two rows have the same name")
        for row in self.rows:
            foreign = sorted(set(row.published) - set(self.splits))
            if foreign:
                raise ValueError(f"row '{row.name}' has a published figure for '{foreign[0]}', which is not in splits")
        return self


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a study.

    Attributes:
        name: Of its folder: row, split and seed.
        row: Row of the table.
        split: Protocol.
        seed: Of everything random.
        config: What to run: a recipe, or a classical method.
    """

    name: str
    row: RowConfig
    split: str
    seed: int
    config: Recipe | AnyComparator


def load_study(name: str) -> StudyConfig:
    """Find and read a study by name or path.

    Raises:
        ConfigError: Unknown, or with faults.
    """
    return recipes.load("study", name, StudyConfig)


def plan(
    study: StudyConfig,
    *,
    rows: Sequence[str] = (),
    splits: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
) -> list[Planned]:
    """The runs of a study, in the order of its table; every recipe is validated before the first run starts.

    Args:
        study: What to run.
        rows: Only these rows.
        splits: Only these protocols.
        seeds: Instead of the study's.
        overrides: ``dotted.key=value`` for every recipe, after the row's own changes.

    Raises:
        ConfigError: Unknown row or split, or a row whose recipe is not valid.
    """
    chosen_rows = _chosen([row.name for row in study.rows], rows, "row")
    chosen_splits = _chosen(study.splits, splits, "split")
    _check_overrides(overrides)
    base = merged(recipes.read("train", study.base), study.set)
    return [
        Planned(f"{row.name}-{split}-s{seed}", row, split, seed, _config(base, row, split, seed, overrides))
        for row in study.rows
        if row.name in chosen_rows
        for split in chosen_splits
        for seed in seeds or study.seeds
    ]


def _config(
    base: Mapping[str, Any], row: RowConfig, split: str, seed: int, overrides: Sequence[str]
) -> Recipe | AnyComparator:
    what = f"row '{row.name}'"
    if row.comparator is not None:
        base = recipes.overridden(dict(base), overrides)
        recipes.validate(base | {"split": split, "seed": seed}, Recipe, "the study's base recipe")
        model = comparator_model(row.comparator.get("kind", "tstdds"), what)
        return recipes.validate(_comparator(base, row.comparator, model) | {"split": split, "seed": seed}, model, what)
    kept = {key: value for key, value in base.items() if key not in row.without}
    values = merged(kept, {**row.set, "name": f"{base['name']}-{row.name}", "split": split, "seed": seed})
    return recipes.validate(recipes.overridden(values, overrides), Recipe, what)


def _check_overrides(overrides: Sequence[str]) -> None:
    """Seed and split name a run's row and column: they are not to be changed behind the table's back."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in ("seed", "split", "name"):
            raise ConfigError(f"--set {override}", "--seeds and --splits for these", f"leave out --set {key}")


def _comparator(base: Mapping[str, Any], settings: Mapping[str, Any], model: type[AnyComparator]) -> dict[str, Any]:
    """Settings of a classical method: it sees the recordings as the base recipe's student sees them, where it asks."""
    student = base["student"]
    given = {key: base.get(key) for key in ("data", "validation_subjects", "threads")}
    given |= {"modality": student["modality"], "window": student.get("preprocess", {}).get("window")}
    shared = {key: value for key, value in given.items() if value is not None and key in model.model_fields}
    return {**shared, **settings}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables merged key by key; any other value replaces the base's."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        both_tables = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if isinstance(below, Mapping) and both_tables else value
    return result


def _chosen(known: Sequence[str], wanted: Sequence[str], what: str) -> Sequence[str]:
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"the study has no {what} '{name}'{did_you_mean(name, known)}",
                f"some of {', '.join(known)}",
                "correct it",
            )
    return wanted or known

"""Studies: a base recipe, rows that change it, splits and seeds; and the runs that they define."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge import recipes
from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.study.classical import AnyComparator, comparator_model
from kd_edge.train.recipe import Recipe

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
TAKEN = ("robustness", "shipped")
"""Reserved names: the ledgers of models that are measured one by one."""
Seeds = tuple[Annotated[int, Field(ge=0, lt=2**32, strict=True)], ...]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChangesConfig(_Strict):
    """How a recipe differs from the base recipe.

    Attributes:
        set: Changes of the base recipe; tables are merged key by key, a list's by their ``kind`` or position
            (``stages.dense.targets``); everything else replaces.
        without: Top-level keys of the base recipe to drop (``teacher`` for a student that learns alone).
    """

    set: dict[str, Any] = {}
    without: tuple[str, ...] = ()

    def applied(self, base: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Apply these changes to a recipe's values; ``what`` names their owner in errors."""
        kept = {key: value for key, value in base.items() if key not in self.without}
        inside = [key for key, value in self.set.items() if isinstance(value, Mapping)]
        return merged(recipes.with_lists(kept, inside, Recipe), self.set, f"{what}: set")


class RowConfig(ChangesConfig):
    """One method of a table, either run or only read.

    A row that is run is trained from the base recipe or is a classical method (``comparator``). A row is only read if
    it cannot be run here (it names what it ``needs``) or if its result is part ``of`` another row's run.

    Attributes:
        name: Short name, for folders and ``--rows``.
        title: Name of the method as the table prints it.
        published: Split -> the published result, in percent; empty if there is none.
        seeds: Seeds that replace the study's: more if a claim rests on the row, one if nothing is random.
        parts: Names of the study's parts to apply, in order, before the row's own ``set`` and ``without``.
        comparator: Instead of a recipe: settings of a classical method, ``kind`` first; recordings, split, seed and
            validation subjects are the base recipe's, and the student's modality and intensity window where the method
            has them (those that fuse sensors name their modalities themselves).
        needs: What the row requires that is not implemented or not available; the row is listed with its published
            result but never run.
        of: Name of the trained row whose run contains this row's result.
        network: The network of that run: ``teacher``, or ``teacher/SENSOR`` for a single sensor's.
    """

    name: Name
    title: str
    published: dict[str, float] = {}
    seeds: Annotated[Seeds, Field(min_length=1)] | None = None
    parts: tuple[Name, ...] = ()
    comparator: dict[str, Any] | None = None
    needs: str = ""
    of: Name | None = None
    network: Annotated[str, Field(pattern=r"^teacher(/[A-Za-z0-9_]+)?$")] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> RowConfig:
        changed = bool(self.parts or self.set or self.without)
        if self.comparator is not None and changed:
            raise ValueError("a comparator takes no recipe: remove parts, set and without")
        if (self.of is None) != (self.network is None):
            raise ValueError("of and network go together: the row that is run, and 'teacher' or 'teacher/SENSOR'")
        if self.needs and self.of is not None:
            raise ValueError("a row either needs something or is read of another row: remove needs, or of and network")
        if not self.runs and (changed or self.comparator is not None or self.seeds is not None):
            raise ValueError("a row that is only read runs nothing: remove parts, set, without, seeds and comparator")
        if len(set(self.parts)) != len(self.parts):
            raise ValueError("parts names one twice: each is taken once")
        return self

    @property
    def runs(self) -> bool:
        """Whether the row has runs of its own."""
        return not self.needs and self.of is None

    @property
    def sensor(self) -> str | None:
        """The single sensor whose network the result is of; None for all sensors together."""
        return None if self.network is None else self.network.partition("/")[2] or None


class StudyConfig(_Strict):
    """A table of runs.

    Attributes:
        title: Title of the table.
        base: Name of the recipe that every row starts from.
        set: Changes of the base recipe for every row, before the row's own.
        metric: Test figure that the table shows; ``map`` is the mean average precision over the classes, ``sakdn_f``
            what SAKDN's code calls F-measure. ``validation_accuracy`` is that of the kept weights on the validation
            clips: for choosing a setting without a look at the test side.
        splits: Protocols; one column each.
        pooled: Whether the splits' test sides are one test together, as when every subject is left out once: the table
            has one column over all their clips instead of one each. For accuracies.
        seeds: Seeds; every row is trained once per seed, except for rows with seeds of their own.
        parts: Named changes that rows can share; not rows themselves.
        rows: Rows in the order of the table.
        notes: Notes on the recordings or rows, printed below the table.
    """

    title: str
    base: str
    set: dict[str, Any] = {}
    metric: Literal["accuracy", "macro_f1", "map", "sakdn_f", "validation_accuracy"] = "accuracy"
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    pooled: bool = False
    seeds: Annotated[Seeds, Field(min_length=1)] = (0,)
    parts: dict[Name, ChangesConfig] = {}
    rows: Annotated[tuple[RowConfig, ...], Field(min_length=1)]
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        names = [row.name for row in self.rows]
        if twice := next((name for k, name in enumerate(names) if name in names[:k]), None):
            raise ValueError(f"two rows have the same name '{twice}': each needs one of its own")
        own = [(f"seeds of row '{row.name}'", row.seeds) for row in self.rows if row.seeds is not None]
        for what, given in (("seeds", self.seeds), ("splits", self.splits), *own):
            if len(set(given)) != len(given):
                raise ValueError(f"{what} names one twice: each is run and counted once")
        if self.pooled and self.metric != "accuracy":
            raise ValueError("pooled adds up clips that were right: metric must be 'accuracy'")
        for row in self.rows:
            foreign = sorted(set(row.published) - set(self.splits))
            if foreign:
                raise ValueError(f"row '{row.name}' has a published figure for '{foreign[0]}', which is not in splits")
            for part in row.parts:
                if part not in self.parts:
                    raise ValueError(
                        f"row '{row.name}' has the part '{part}', none of the study's{did_you_mean(part, self.parts)}"
                    )
        if idle := sorted(set(self.parts) - {part for row in self.rows for part in row.parts}):
            raise ValueError(f"no row has the part '{idle[0]}'")
        trained = [row.name for row in self.rows if row.runs and row.comparator is None]
        for row in self.rows:
            if row.of is not None and row.of not in trained:
                raise ValueError(f"row '{row.name}' is of '{row.of}', no trained row{did_you_mean(row.of, trained)}")
        return self

    def changes(self, row: RowConfig) -> tuple[ChangesConfig, ...]:
        """Changes from the base recipe to a row's, in order: the row's parts, then its own changes."""
        return (*(self.parts[name] for name in row.parts), row)

    def as_published(self, value: float | None, split: str) -> str:
        """Format a published result like its paper: with the decimals of the column's most precise one."""
        if value is None:
            return "-"
        return f"{value:.{max(_decimals(row.published[split]) for row in self.rows if split in row.published)}f}"


def _decimals(value: float) -> int:
    """Number of decimals of a number as written, at least one."""
    exponent = Decimal(str(value)).as_tuple().exponent
    return max(1, -exponent) if isinstance(exponent, int) else 1


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a study.

    Attributes:
        name: Name of its folder: row, split and seed.
        row: Row of the table.
        split: Protocol.
        seed: Seed of everything random.
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
        ConfigError: Unknown, with faults, or of a name that a ledger of another kind has.
    """
    if Path(name).stem in TAKEN:
        raise ConfigError(
            f"a study called '{Path(name).stem}', whose ledger is that of kd-edge study {Path(name).stem}",
            "a name of its own",
            "rename its file",
        )
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

    Rows that are only read have none.

    Args:
        study: What to run.
        rows: Only these rows, none of which may be only read.
        splits: Only these protocols.
        seeds: Seeds instead of the study's and its rows'.
        overrides: ``dotted.key=value`` for every recipe, after the row's own changes, except below what it does
            ``without``.

    Raises:
        ConfigError: Unknown row or split, a row whose recipe is not valid, or one that is only read.
    """
    chosen_rows = chosen([row.name for row in study.rows], rows, "row")
    for row in study.rows:
        if row.name in rows and not row.runs:
            raise _never_run(row)
    chosen_splits = chosen(study.splits, splits, "split")
    _check_overrides(overrides)
    base = ChangesConfig(set=study.set).applied(recipes.read("train", study.base), "the study")
    if not isinstance(base.get("name"), str):
        raise ConfigError(f"the study's base recipe '{study.base}' has no name", "name = '...'", "add the line")
    runs = [
        Planned(f"{row.name}-{split}-s{seed}", row, split, seed, _config(study, base, row, split, seed, overrides))
        for row in study.rows
        if row.runs and row.name in chosen_rows
        for split in chosen_splits
        for seed in dict.fromkeys(seeds or row.seeds or study.seeds)
    ]
    _check_networks(study, base, overrides, chosen_rows)
    return runs


def _config(
    study: StudyConfig, base: Mapping[str, Any], row: RowConfig, split: str, seed: int, overrides: Sequence[str]
) -> Recipe | AnyComparator:
    what = f"row '{row.name}'"
    if row.comparator is not None:
        base = recipes.overridden(dict(base), overrides)
        recipes.validate(base | {"split": split, "seed": seed}, Recipe, "the study's base recipe")
        model = comparator_model(row.comparator.get("kind", "tstdds"), what)
        return recipes.validate(_comparator(base, row.comparator, model) | {"split": split, "seed": seed}, model, what)
    values: dict[str, Any] = dict(base)
    for changes in study.changes(row):
        values = changes.applied(values, what)
    values |= {"name": f"{base['name']}-{row.name}", "split": split, "seed": seed}
    gone = {key for changes in study.changes(row) for key in changes.without if key not in values}
    kept_overrides = [override for override in overrides if _table(override) not in gone]
    return recipes.validate(recipes.overridden(values, kept_overrides, f"{what}: "), Recipe, what)


def _table(override: str) -> str:
    """The first part of the key in ``dotted.key=value``."""
    return override.partition("=")[0].partition(".")[0].strip()


def _never_run(row: RowConfig) -> ConfigError:
    """The error for a requested row that is only read."""
    if row.needs:
        return ConfigError(f"row '{row.name}' cannot be run, it needs {row.needs}", "another row", "leave it out")
    return ConfigError(
        f"row '{row.name}' is read of row '{row.of}' ({row.network})", "a row with runs of its own", f"run '{row.of}'"
    )


def _check_networks(
    study: StudyConfig, base: Mapping[str, Any], overrides: Sequence[str], chosen: Sequence[str]
) -> None:
    """Check that rows which are read from other rows name networks that those have."""
    known = {row.name: row for row in study.rows}
    for row in study.rows:
        if row.of is None or row.of not in chosen:
            continue
        config = _config(study, base, known[row.of], study.splits[0], 0, overrides)
        teacher = config.teacher if isinstance(config, Recipe) else None
        sensors = teacher.wearables.sensors if teacher is not None and teacher.wearables is not None else ()
        if teacher is None or (row.sensor is not None and row.sensor not in sensors):
            raise ConfigError(
                f"row '{row.name}' is read of {row.network} of row '{row.of}', which has none"
                f"{did_you_mean(row.sensor or '', sensors)}",
                "a row with a teacher, and one of its sensors",
                "correct of or network",
            )


def _check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides of name, split and seed, which identify a run's place in the table."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in ("seed", "split", "name"):
            raise ConfigError(f"--set {override[:120]}", "--seeds and --splits for these", f"leave out --set {key}")


def _comparator(base: Mapping[str, Any], settings: Mapping[str, Any], model: type[AnyComparator]) -> dict[str, Any]:
    """Settings of a classical method; shared fields default to those of the base recipe and its student."""
    student = base["student"]
    given = {key: base.get(key) for key in ("data", "validation_subjects", "threads")}
    given |= {"modality": student["modality"], "window": student.get("preprocess", {}).get("window")}
    shared = {key: value for key, value in given.items() if value is not None and key in model.model_fields}
    return {**shared, **settings}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Merge nested tables key by key, those of a list by ``kind`` or position; any other value replaces the base's.

    Args:
        base: Values to change.
        changes: The changes.
        place: Location of the changes, for errors.

    Raises:
        ConfigError: A list has no such table.
    """
    result = dict(base)
    for key, value in changes.items():
        result[key] = _changed(result.get(key), value, f"{place}.{key}")
    return result


def _changed(below: Any, value: Any, place: str) -> Any:
    if isinstance(below, Mapping) and isinstance(value, Mapping):
        return merged(below, value, place)
    if isinstance(below, list) and isinstance(value, Mapping):
        tables = list(below)
        positions = {part: recipes.position(below, part, place) for part in value}
        if len(set(positions.values())) < len(positions):
            raise ConfigError(
                f"{place} changes one table twice, as {' and '.join(positions)}", "each once", "join them"
            )
        for part, k in positions.items():
            tables[k] = _changed(tables[k], value[part], f"{place}.{part}")
        return tables
    return value


def chosen(known: Sequence[str], wanted: Sequence[str], what: str) -> Sequence[str]:
    """Return the wanted names without duplicates, or all known ones if none is wanted.

    Raises:
        ConfigError: A wanted name is unknown.
    """
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"the study has no {what} '{name}'{did_you_mean(name, known)}",
                f"some of {', '.join(known)}",
                "correct it",
            )
    return tuple(dict.fromkeys(wanted or known))

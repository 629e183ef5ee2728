"""Run a study: what is finished is left alone, what was interrupted goes on, equal teachers are trained once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_edge.comparators import TstddsConfig, run_tstdds
from kd_edge.errors import DataError, KdEdgeError
from kd_edge.study.plan import Planned
from kd_edge.study.table import read_summary
from kd_edge.train.recipe import Recipe
from kd_edge.train.run import Run, load_recipe
from kd_edge.train.trainer import Event, train

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins or goes on; ``number`` of ``total``."""

    planned: Planned
    number: int
    total: int
    folder: Path
    teacher_run: Path | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A run is there already, in this study or another one beside it."""

    planned: Planned
    folder: Path


def run_study(
    runs: Sequence[Planned], folder: Path, *, data_root: Path | None = None, progress: Progress | None = None
) -> Iterator[Started | Skipped | Event]:
    """Train what is not there yet.

    Args:
        runs: From ``plan``.
        folder: Of this study; run directories lie in it. Finished runs of other studies in the folder above count too.
        data_root: Folder with the recordings.
        progress: Called with (what, done, in all) while recordings are prepared.

    Yields:
        ``Started`` or ``Skipped`` for each run, and the trainer's events.

    Raises:
        KdEdgeError: A run cannot start or go on; those before it are kept, and the study goes on when run again.
    """
    for number, planned in enumerate(runs, 1):
        done = finished_run(planned, folder)
        if done is not None:
            yield Skipped(planned, done)
            continue
        place = folder / planned.name
        if isinstance(planned.config, TstddsConfig):
            yield Started(planned, number, len(runs), place, None)
            run_tstdds(planned.config, place, data_root=data_root, progress=progress)
            continue
        resume = (place / "recipe.toml").is_file()
        # A resumed run goes on with what its folder says, for example where the recordings were.
        recipe = load_recipe(place) if resume else planned.config
        teacher = None if recipe.teacher is None or recipe.teacher.weights else _same_teacher(recipe, folder)
        yield Started(planned, number, len(runs), place, teacher)
        yield from train(recipe, place, data_root=data_root, resume=resume, teacher_run=teacher, progress=progress)


def finished_run(planned: Planned, folder: Path) -> Path | None:
    """The folder of a finished run of the same settings: this study's, or another's beside it."""
    fingerprint = planned.config.fingerprint()
    mine = folder / planned.name
    for run in [mine, *(r for r in _finished(folder.parent) if r != mine)]:
        summary = _summary(run)
        if summary is not None and summary.get("recipe_fingerprint") == fingerprint:
            return run
    return None


def _same_teacher(recipe: Recipe, folder: Path) -> Path | None:
    """A finished run that trained the very teacher this recipe would train."""
    wanted = recipe.teacher_fingerprint()
    for path in _finished(folder.parent):
        summary = _summary(path)
        if summary is None or "teacher" not in summary["stages"]:
            continue
        with suppress(KdEdgeError):  # a run of an older release may not load
            if Run.load(path).recipe.teacher_fingerprint() == wanted:
                return path
    return None


def _finished(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/*/summary.json"))


def _summary(run: Path) -> dict[str, Any] | None:
    try:
        return read_summary(run)
    except DataError:
        return None

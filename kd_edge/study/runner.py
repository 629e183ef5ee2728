"""Run a study: skip finished runs, resume interrupted ones, and train shared parts once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import to_json

from kd_edge import recipes
from kd_edge.errors import KdEdgeError, RunHeldError
from kd_edge.rundir import DENSE, RECIPE, SUMMARY, Summary, complete_summary
from kd_edge.study.classical import AnyComparator, comparator_fingerprints, run_comparator
from kd_edge.study.difference import difference
from kd_edge.study.plan import Planned
from kd_edge.train.finetune.source import open_source
from kd_edge.train.inputs.encoder import file_hash
from kd_edge.train.inputs.gathering import data_fingerprints
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig
from kd_edge.train.results.run import load_recipe, same_dense_stage, same_teacher
from kd_edge.train.trainer import Event, train

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A run starts or resumes; ``number`` of ``total``.

    Attributes:
        planned: The run.
        number: Its position, from 1.
        total: Number of runs of the study.
        folder: Its run directory.
        apart_from: Why it is not in the folder of its name: that run has other settings or recordings.
    """

    planned: Planned
    number: int
    total: int
    folder: Path
    apart_from: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A run that another process is training; the study continues with the next one."""

    planned: Planned
    folder: Path


@dataclass(frozen=True, slots=True)
class Skipped:
    """A run that is already finished, in this study or a neighbouring one."""

    planned: Planned
    folder: Path


def run_study(
    runs: Sequence[Planned], folder: Path, *, data_root: Path | None = None, progress: Progress | None = None
) -> Generator[Started | Skipped | Held | Event, None, None]:
    """Train the runs that are not finished; a caller that stops early must close the generator, see ``train``.

    A finished run counts if its settings and recordings are the same, whether in this study or in another one in the
    parent folder. Runs with other settings or recordings keep their folders.

    Args:
        runs: Runs of the study, from ``plan``.
        folder: Folder of this study, which contains the run directories.
        data_root: Folder with the recordings.
        progress: Called with (step, done, total) while recordings are prepared.

    Yields:
        ``Started`` or ``Skipped`` for each run, ``Held`` for one that another process is training, and the trainer's
        events.

    Raises:
        KdEdgeError: A run cannot start or resume; earlier runs are kept, and running the study again continues it.
        RunHeldError: All other runs are finished, but another process is still training some.
    """
    recordings = _Recordings(data_root)
    held = []
    for number, planned in enumerate(runs, 1):
        wanted = recordings.of(planned.config)
        done = finished_run(planned, folder, wanted)
        if done is not None:
            yield Skipped(planned, done)
            continue
        place = _place(planned, folder)
        named = folder / planned.name
        apart_from = "" if place == named else f"{named} is another run: {difference(planned, named)}"
        started = Started(planned, number, len(runs), place, apart_from)
        if not isinstance(planned.config, Recipe):
            yield started
            run_comparator(planned.config, place, data_root=data_root, progress=progress)
            continue
        resume = (place / RECIPE).is_file()
        # A resumed run keeps the recipe of its folder, for example the location of the recordings.
        recipe = load_recipe(place) if resume else planned.config
        yield started
        try:
            yield from train(
                recipe,
                place,
                data_root=data_root,
                resume=resume,
                teacher_runs=_with_same_teacher(recipe, folder, wanted),
                dense_runs=_with_same_dense_stage(recipe, folder, wanted),
                progress=progress,
            )
        except RunHeldError:
            held.append(planned.name)
            yield Held(planned, place)
    if held:
        raise RunHeldError(
            f"another process trains {', '.join(held)}", "every run finished", "run the study again when it is done"
        )


def finished_run(
    planned: Planned,
    folder: Path,
    recordings: dict[str, str] | None = None,
    *,
    among: Sequence[tuple[Path, Summary]] | None = None,
) -> Path | None:
    """Find the latest finished run with the same settings: in this study, otherwise in a neighbouring one.

    Args:
        planned: The run.
        folder: Folder of the study.
        recordings: Fingerprints of the recordings, by stage or, for a comparator, by modality. The run must match them
            and must have started from the same weights; None skips both checks.
        among: Result of ``finished_runs``, to look up many runs; None searches the folders.
    """
    fingerprint = planned.config.fingerprint()
    found = [
        (run.parent == folder, summary.finished, run)
        for run, summary in (finished_runs(folder) if among is None else among)
        if summary.recipe_fingerprint == fingerprint and _is_same(planned.config, run, summary, recordings)
    ]
    return max(found)[2] if found else None


def finished_runs(folder: Path) -> list[tuple[Path, Summary]]:
    """Find all finished runs of a study and of its neighbours."""
    found = ((run, complete_summary(run)) for run in _finished(folder))
    return [(run, summary) for run, summary in found if summary is not None]


def _is_same(config: Recipe | AnyComparator, run: Path, summary: Summary, recordings: dict[str, str] | None) -> bool:
    """Whether a run with the same settings used the same files."""
    if recordings is None:
        return _same_encoder(config, run)
    known = summary.data_fingerprints
    return all(known.get(stage) == value for stage, value in recordings.items()) and _same_source(config, run)


def _same_encoder(config: Recipe | AnyComparator, run: Path) -> bool:
    """Whether a run's teacher is the encoder that the recipe names, compared by content, not by path."""
    if not isinstance(config, Recipe) or not isinstance(config.teacher, OnnxTeacherConfig):
        return True
    with suppress(KdEdgeError):
        other = load_recipe(run).teacher
        if isinstance(other, OnnxTeacherConfig):
            ours, theirs = config.teacher.file, other.file
            return ours.resolve() == theirs.resolve() or file_hash(ours) == file_hash(theirs)
    return False


def _same_source(config: Recipe | AnyComparator, run: Path) -> bool:
    """Whether a run's student started from the current source of the recipe; the file may have been replaced."""
    if not isinstance(config, Recipe) or config.student.source is None:
        return True
    source = open_source(config.student)
    return source is not None and load_recipe(run).student.source_sha256 == source.sha256


class _Recordings:
    """Cached fingerprints of the recordings that configurations use."""

    def __init__(self, data_root: Path | None) -> None:
        self._data_root = data_root
        self._known: dict[bytes, dict[str, str]] = {}

    def of(self, config: Recipe | AnyComparator) -> dict[str, str]:
        """Fingerprints by stage; for a comparator, by modality."""
        if not isinstance(config, Recipe):
            key = to_json([config.data, config.modality])
            if key not in self._known:
                self._known[key] = comparator_fingerprints(config, self._data_root)
            return self._known[key]
        relevant = [config.networks, config.stages, config.losses, config.semantics, config.cache_every]
        key = to_json([config.data, *relevant])
        if key not in self._known:
            self._known[key] = data_fingerprints(config, self._data_root)
        return self._known[key]


def _place(planned: Planned, folder: Path) -> Path:
    """The folder in which a run starts or resumes: never one of other settings or of a finished run."""
    number = 1
    while True:
        place = folder / (planned.name if number == 1 else f"{planned.name}-{number}")
        if not (place / RECIPE).exists() or (complete_summary(place) is None and _is_of(planned, place)):
            return place
        number += 1


def _is_of(planned: Planned, place: Path) -> bool:
    """Whether an unfinished run has the planned settings."""
    try:
        if not isinstance(planned.config, Recipe):
            recipes.load("train", str(place / RECIPE), type(planned.config))
            return True  # an unfinished run of this kind always restarts
        same = load_recipe(place).fingerprint() == planned.config.fingerprint()
        return same and _same_source(planned.config, place)
    except KdEdgeError:
        return False


def _with_same_teacher(recipe: Recipe, folder: Path, recordings: dict[str, str]) -> list[Path]:
    """Finished runs that trained the same teacher as this recipe would."""
    if recipe.teacher is None or recipe.teacher.weights is not None:
        return []  # nothing is trained
    found = []
    for path in _finished(folder):
        with suppress(KdEdgeError):  # other settings, other recordings, an older release
            same_teacher(path, recipe, recordings["teacher"])
            found.append(path)
    return found


def _with_same_dense_stage(recipe: Recipe, folder: Path, recordings: dict[str, str]) -> list[Path]:
    """Finished runs that trained the same dense stage as this recipe would."""
    found = []
    for path in _finished(folder) if recipe.dense_stage is not None else ():
        if (path / DENSE).is_file():
            with suppress(KdEdgeError):  # other settings, other recordings, an older release
                same_dense_stage(path, recipe, recordings)
                found.append(path)
    return found


def _finished(folder: Path) -> list[Path]:
    """Finished runs, first of this study, then of its neighbours."""
    found = sorted(path.parent for path in folder.parent.glob(f"*/*/{SUMMARY}"))
    return sorted(found, key=lambda run: run.parent != folder)

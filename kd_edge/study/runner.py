"""Run a study: what is finished is left alone, what was interrupted goes on, what runs share is trained once."""

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
    """A run begins or goes on; ``number`` of ``total``.

    Attributes:
        planned: Which.
        number: From 1.
        total: Runs of the study.
        folder: Where it lies.
        apart_from: Why it does not lie in the folder that has its name: that one's settings or recordings are others.
    """

    planned: Planned
    number: int
    total: int
    folder: Path
    apart_from: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A run that another process trains; the study goes on with the next one."""

    planned: Planned
    folder: Path


@dataclass(frozen=True, slots=True)
class Skipped:
    """A run is there already, in this study or another one beside it."""

    planned: Planned
    folder: Path


def run_study(
    runs: Sequence[Planned], folder: Path, *, data_root: Path | None = None, progress: Progress | None = None
) -> Generator[Started | Skipped | Held | Event, None, None]:
    """Train what is not there yet; a caller that leaves early closes it, see ``train``.

    A finished run counts when its settings and its recordings are the same: of this study, or of another one in the
    folder above. Runs of other settings or recordings keep their folders.

    Args:
        runs: Runs of the study, from ``plan``.
        folder: Folder of this study; run directories lie in it.
        data_root: Folder with the recordings.
        progress: Called with (what, done, in all) while recordings are prepared.

    Yields:
        ``Started`` or ``Skipped`` for each run, ``Held`` for one that another process trains, and the trainer's events.

    Raises:
        KdEdgeError: A run cannot start or go on; those before it are kept, and the study goes on when run again.
        RunHeldError: All others are there, but another process still trains some.
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
        # A resumed run goes on with what its folder says, for example where the recordings were.
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
            f"another process trains {', '.join(held)}", "every run finished", "run the study again when it has ended"
        )


def finished_run(
    planned: Planned,
    folder: Path,
    recordings: dict[str, str] | None = None,
    *,
    among: Sequence[tuple[Path, Summary]] | None = None,
) -> Path | None:
    """The folder of the run of the same settings that finished last: of this study, else of another beside it.

    Args:
        planned: The run.
        folder: Folder of the study.
        recordings: Fingerprint of each stage's recordings, or of each modality's of a comparator, which the run must
            have, as it must have gone on from the same weights; None does not ask.
        among: What ``finished_runs`` found, where many runs are looked for; None looks.
    """
    fingerprint = planned.config.fingerprint()
    found = [
        (run.parent == folder, summary.finished, run)
        for run, summary in (finished_runs(folder) if among is None else among)
        if summary.recipe_fingerprint == fingerprint and _is_same(planned.config, run, summary, recordings)
    ]
    return max(found)[2] if found else None


def finished_runs(folder: Path) -> list[tuple[Path, Summary]]:
    """All finished runs of a study and of those beside it."""
    found = ((run, complete_summary(run)) for run in _finished(folder))
    return [(run, summary) for run, summary in found if summary is not None]


def _is_same(config: Recipe | AnyComparator, run: Path, summary: Summary, recordings: dict[str, str] | None) -> bool:
    """Whether a run of the same settings was made of the same files."""
    if recordings is None:
        return _same_encoder(config, run)
    known = summary.data_fingerprints
    return all(known.get(stage) == value for stage, value in recordings.items()) and _same_source(config, run)


def _same_encoder(config: Recipe | AnyComparator, run: Path) -> bool:
    """Whether a run's teacher is the encoder that the recipe names: by what is in it, wherever it lies."""
    if not isinstance(config, Recipe) or not isinstance(config.teacher, OnnxTeacherConfig):
        return True
    with suppress(KdEdgeError):
        other = load_recipe(run).teacher
        if isinstance(other, OnnxTeacherConfig):
            ours, theirs = config.teacher.file, other.file
            return ours.resolve() == theirs.resolve() or file_hash(ours) == file_hash(theirs)
    return False


def _same_source(config: Recipe | AnyComparator, run: Path) -> bool:
    """Whether a run's student went on from what now lies where the recipe says; a file may have been replaced."""
    if not isinstance(config, Recipe) or config.student.source is None:
        return True
    source = open_source(config.student)
    return source is not None and load_recipe(run).student.source_sha256 == source.sha256


class _Recordings:
    """Fingerprints of the recordings that configurations use, each looked up once."""

    def __init__(self, data_root: Path | None) -> None:
        self._data_root = data_root
        self._known: dict[bytes, dict[str, str]] = {}

    def of(self, config: Recipe | AnyComparator) -> dict[str, str]:
        """By stage; of a comparator by modality."""
        if not isinstance(config, Recipe):
            key = to_json([config.data, config.modality])
            if key not in self._known:
                self._known[key] = comparator_fingerprints(config, self._data_root)
            return self._known[key]
        looked_at = [config.networks, config.stages, config.losses, config.semantics, config.cache_every]
        key = to_json([config.data, *looked_at])
        if key not in self._known:
            self._known[key] = data_fingerprints(config, self._data_root)
        return self._known[key]


def _place(planned: Planned, folder: Path) -> Path:
    """Where a run goes on or begins: never in the folder of other settings, nor of a finished run."""
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
            return True  # a run of this kind starts again whatever its settings were
        same = load_recipe(place).fingerprint() == planned.config.fingerprint()
        return same and _same_source(planned.config, place)
    except KdEdgeError:
        return False


def _with_same_teacher(recipe: Recipe, folder: Path, recordings: dict[str, str]) -> list[Path]:
    """Finished runs that trained the very teacher this recipe would train."""
    if recipe.teacher is None or recipe.teacher.weights is not None:
        return []  # nothing is trained
    found = []
    for path in _finished(folder):
        with suppress(KdEdgeError):  # other settings, other recordings, an older release
            same_teacher(path, recipe, recordings["teacher"])
            found.append(path)
    return found


def _with_same_dense_stage(recipe: Recipe, folder: Path, recordings: dict[str, str]) -> list[Path]:
    """Finished runs that trained the very dense stage this recipe would train."""
    found = []
    for path in _finished(folder) if recipe.dense_stage is not None else ():
        if (path / DENSE).is_file():
            with suppress(KdEdgeError):  # other settings, other recordings, an older release
                same_dense_stage(path, recipe, recordings)
                found.append(path)
    return found


def _finished(folder: Path) -> list[Path]:
    """Finished runs of this study first, then of those beside it."""
    found = sorted(path.parent for path in folder.parent.glob(f"*/*/{SUMMARY}"))
    return sorted(found, key=lambda run: run.parent != folder)

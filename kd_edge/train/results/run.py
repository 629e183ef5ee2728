"""Finished runs, and resuming interrupted ones; for the files in their folder see ``kd_edge.rundir``."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from kd_edge import recipes
from kd_edge.errors import KdEdgeError, RunHeldError, TrainingError
from kd_edge.files import held, replacing
from kd_edge.models.weights import damage, load_tensors
from kd_edge.rundir import (
    METRICS,
    RECIPE,
    STATE,
    DenseReport,
    FoldReport,
    Selection,
    StageName,
    Summary,
    check_free,
    check_run,
    complete_summary,
    first_fault,
    read_summary,
    run_folders,
)
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe

_LOCK = ".lock"
"""Lock file of the process that trains the run."""


@dataclass(frozen=True)
class Run:
    """A complete run.

    Attributes:
        path: Its directory.
        recipe: As resolved.
        summary: ``summary.json``.
    """

    path: Path
    recipe: Recipe
    summary: Summary

    @classmethod
    def load(cls, path: Path) -> Run:
        """Open a run.

        Raises:
            TrainingError: No run there, not finished, or its summary is damaged.
            ConfigError: Its recipe is damaged.
        """
        check_run(path)
        return cls(path, load_recipe(path), read_summary(path))

    @classmethod
    def latest(cls, root: Path = Path("runs")) -> Run:
        """The newest complete run directly in a folder; runs of studies are one level deeper.

        Raises:
            TrainingError: There is none.
        """
        complete = {path: summary for path in run_folders(root) if (summary := complete_summary(path)) is not None}
        if not complete:
            raise TrainingError(f"no finished run in {root}/", "at least one", "kd-edge train")
        return cls.load(max(complete, key=lambda path: (complete[path].finished, path.name)))


def latest_unfinished(root: Path = Path("runs")) -> Path:
    """The newest interrupted run in a folder, for ``--resume`` without a name.

    Raises:
        TrainingError: There is none.
    """
    open_runs = [path for path in run_folders(root) if complete_summary(path) is None]
    if not open_runs:
        raise TrainingError(
            f"no unfinished run in {root}/", "an interrupted run", "name it: kd-edge train --resume RUN"
        )
    return max(open_runs, key=lambda path: ((path / RECIPE).stat().st_mtime_ns, path.name))


def load_recipe(path: Path) -> Recipe:
    """The recipe of a run directory.

    Raises:
        TrainingError: No run there.
        ConfigError: Damaged.
    """
    check_run(path)
    if not (path / RECIPE).exists():
        raise TrainingError(f"run {path} has no {RECIPE}", "the file that was written with it", "restore it")
    return recipes.load("train", str(path / RECIPE), Recipe)


def same_teacher(path: Path, recipe: Recipe, data_fingerprint: str) -> Selection:
    """Teacher weights of a finished run, if they are those the recipe would train.

    Args:
        path: The finished run.
        recipe: The new run.
        data_fingerprint: What the teacher's recordings are in the new run.

    Raises:
        TrainingError: Not finished, or its teacher was trained otherwise or on other recordings.
    """
    other = Run.load(path)
    same = other.recipe.teacher is not None and other.recipe.teacher_fingerprint() == recipe.teacher_fingerprint()
    if not same or other.summary.data_fingerprints.get("teacher") != data_fingerprint:
        raise TrainingError(
            f"the teacher of {path} was trained with other settings or recordings",
            "a run of the same data, split, seed and [teacher]",
            "leave it out to train the teacher, or set teacher.weights to use another teacher on purpose",
        )
    kept = other.summary.stages["teacher"]
    return Selection(selected_epoch=kept.selected_epoch, selected_by=kept.selected_by, seconds=kept.seconds)


def same_dense_stage(path: Path, recipe: Recipe, data_fingerprints: dict[str, str]) -> DenseReport:
    """Result of a finished run's dense stage, if it is the one the recipe would train.

    Args:
        path: The finished run.
        recipe: The new run.
        data_fingerprints: What the recordings are in the new run.

    Raises:
        TrainingError: Not finished, or its stage was trained otherwise or on other recordings.
    """
    other = Run.load(path)
    wanted, known = recipe.dense_fingerprint(), other.summary.data_fingerprints
    same = wanted is not None and other.recipe.dense_fingerprint() == wanted
    regressed = ["student", "dense"]
    if recipe.dense_stage is not None and recipe.dense_stage.features is not None:
        regressed.append("teacher")
    kept = other.summary.stages["student"].dense
    if kept is None or not same or any(known.get(x) != data_fingerprints.get(x) for x in regressed):
        raise TrainingError(
            f"the dense stage of {path} was trained with other settings or recordings",
            "a run of the same data, split, seed, student and dense stage",
            "leave it out to train the stage",
        )
    return kept


def of_same_clips(paths: Sequence[Path], material: Material) -> Path | None:
    """The first of some finished runs that trained on exactly the same clips.

    Two rows of one study may not: what the student or teacher of one lacks, the other's may have.
    """
    return next((path for path in paths if _is_of_same_clips(path, material)), None)


def _is_of_same_clips(path: Path, material: Material) -> bool:
    protocol = Run.load(path).summary.protocol
    if not protocol.trained_on:  # runs of before tell how many; what clips without a label teach has changed since
        return protocol.train_samples == len(material.train) and not material.dense_only
    return protocol.trained_on == material.trained_on


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a run directory for one process, and remove incomplete files of a killed one.

    Raises:
        TrainingError: Another process is training this run, or its folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            is_held = stack.enter_context(held(path / _LOCK))
        except OSError as error:
            raise TrainingError(
                f"run {path} cannot be locked ({error.strerror or error})", "a writable folder", "check it"
            ) from error
        if not is_held:
            raise RunHeldError(
                f"run {path} is being trained by another process", "one process a run", "wait for it, or stop it first"
            )
        for left in path.rglob(".*.tmp"):
            left.unlink()
        yield


@contextmanager
def begun(path: Path, recipe: Recipe) -> Iterator[None]:
    """Create and lock a new run directory with its recipe; a run that cannot start leaves nothing behind.

    An error before the first epoch has ended takes the recipe away again, so that the corrected command may use the
    folder. A kill or Ctrl-C does not: that run goes on when it is resumed.

    Raises:
        TrainingError: There is a run already, another process begins one, or the folder cannot be written.
    """
    check_free(path)
    is_new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error.strerror or error})",
            "a writable folder",
            "choose another --out",
        ) from error
    try:
        with locked(path):  # before anything is written: of two that begin at once, one must not undo the other
            check_free(path)
            with replacing(path / RECIPE, TrainingError, option="--out") as file:
                file.write(recipes.to_toml(recipe).encode())
            try:
                yield
            except KdEdgeError:
                if not (path / METRICS).exists():
                    (path / RECIPE).unlink(missing_ok=True)
                raise
    except KdEdgeError:
        with suppress(OSError):  # what else lies there stays
            if is_new:
                path.rmdir()
        raise


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state for resuming, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(path / STATE, TrainingError) as file:
        file.write(buffer.getbuffer())


def load_state(path: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The state of an interrupted run; None if its first epoch did not end.

    Raises:
        TrainingError: The run is complete, its recipe is another one, or the file is damaged.
    """
    if complete_summary(path) is not None:
        raise TrainingError(f"run {path} is complete", "an interrupted run", "start a new one: kd-edge train")
    if load_recipe(path).fingerprint() != recipe.fingerprint():
        raise TrainingError(
            f"the recipe differs from {path / RECIPE}", "the same recipe", "resume without --set, or start a new run"
        )
    if not (path / STATE).exists():
        return None
    try:
        state: dict[str, Any] = load_tensors(path / STATE)
        begun_with = _State.model_validate(state).recipe_fingerprint
    except ValidationError as error:
        raise damaged(path / STATE, first_fault(error)) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise damaged(path / STATE, damage(path / STATE, error)) from error
    if begun_with not in (None, recipe.fingerprint()):
        raise TrainingError(
            f"{path / RECIPE} was changed after the run's last epoch: its weights would be of two recipes",
            "the recipe that the run was begun with",
            f"restore {RECIPE}, or start a new run",
        )
    return state


def selections(state: dict[str, Any] | None) -> dict[str, Selection]:
    """Weights of the stages that an interrupted run had finished."""
    reports = {} if state is None else state["report"]
    return {name: _kind_of_report(name)(**kept) for name, kept in reports.items()}


def _kind_of_report(stage: str) -> type[Selection]:
    if stage.startswith("fold"):
        return FoldReport
    return DenseReport if stage == "dense" else Selection


class _Best(BaseModel):
    epoch: int
    score: float
    model: dict[str, Any]


class _State(BaseModel):
    """Schema of the trainer's ``state.pt``, checked before a run is resumed."""

    data_fingerprint: str
    recipe_fingerprint: str | None = None  # runs of before kept none
    threads: int
    stage: StageName
    epoch: int
    learner: dict[str, Any]
    optimiser: dict[str, Any]
    best: _Best
    seconds: float
    spread: dict[str, float] | None = None
    collapsed: int = 0
    report: dict[StageName, Selection]


def damaged(path: Path, why: str) -> TrainingError:
    """The error for a state that cannot be resumed."""
    return TrainingError(f"{path} is damaged ({why})", "the file a run wrote", "remove it to start this run again")


def save_weights(path: Path, state_dict: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write weights as safetensors, atomically, with ``metadata``."""
    data = safetensors_bytes({k: v.detach().cpu().contiguous() for k, v in state_dict.items()}, metadata)
    with replacing(path, TrainingError) as file:
        file.write(data)

"""Paths of the files in a run directory, and reading and writing of its summary and metrics."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from kd_edge.errors import KdEdgeError, TrainingError, reason
from kd_edge.files import replacing
from kd_edge.reading import read_bytes
from kd_edge.rundir.records import MetricsLine, Record, Summary, first_fault

RECIPE, STUDENT, TEACHER = "recipe.toml", "student.safetensors", "teachers/teacher.safetensors"
METRICS, SUMMARY, STATE = "metrics.jsonl", "summary.json", "state.pt"
DENSE, FOLDS = "dense.safetensors", "folds"
STAGES = ("teacher", "dense", "fold", "student", "head")
FILE_BYTES = 64_000_000
"""Upper limit for the size of a run's summary and metrics, in bytes."""
_RECORDING_FILES = ("manifest.csv", "manifest.jsonl", "dataset.toml")
"""Files that mark a folder of recordings, which often contains a recipe as runs do."""


def new_run_path(root: Path, name: str) -> Path:
    """Return a path that does not exist yet: ``<root>/<name>-<date>-<time>``, in local time."""
    stem = f"{name}-{datetime.datetime.now().strftime('%Y%m%d-%H%M%S')}"
    path, number = root / stem, 1
    while path.exists():
        number += 1
        path = root / f"{stem}-{number}"
    return path


def run_folders(root: Path) -> list[Path]:
    """Return all runs directly in a folder, finished or not."""
    return [recipe.parent for recipe in root.glob(f"*/{RECIPE}") if not _has_recordings(recipe.parent)]


def check_run(path: Path, error: type[KdEdgeError] = TrainingError) -> None:
    """Check that a path is a run directory, finished or not.

    Args:
        path: The path to check.
        error: Class of the exception to raise.

    Raises:
        KdEdgeError: The path is not a folder, has no recipe, or is a folder of recordings.
    """
    if path.is_file():
        raise error(f"{path} is a file, not a run", "a folder written by kd-edge train", "name the folder of the run")
    if _has_recordings(path):
        raise error(
            f"{path} is a folder of recordings, not a run",
            "a folder written by kd-edge train",
            f"train on it: kd-edge train --data {path}",
        )
    if not path.is_dir() or not ((path / RECIPE).exists() or (path / SUMMARY).exists()):
        raise error(f"no run {path}", "a folder written by kd-edge train", "train one first: kd-edge train")


def _has_recordings(path: Path) -> bool:
    """Whether a folder contains recordings and no files of a run that was started there nevertheless."""
    is_run = any((path / name).exists() for name in (SUMMARY, METRICS, STATE))
    return not is_run and any((path / name).is_file() for name in _RECORDING_FILES)


def check_free(path: Path) -> None:
    """Check that a new run would not overwrite another one or be written among recordings.

    Raises:
        TrainingError: The folder contains a run or recordings.
    """
    if _has_recordings(path):
        raise TrainingError(f"{path} is a folder of recordings", "a new or empty folder", "choose another --out")
    if (path / RECIPE).exists():
        raise TrainingError(
            f"{path} contains a run already",
            "a new or empty folder",
            f"choose another --out, or kd-edge train --resume {path}",
        )


# --------------------------------------------------------------------------------------------------- summary.json


def read_summary(path: Path, error: type[KdEdgeError] = TrainingError) -> Summary:
    """Read the summary of a finished run.

    Args:
        path: The run directory.
        error: Class of the exception to raise.

    Raises:
        KdEdgeError: The path is not a run, the run is not finished, or the file is damaged.
    """
    check_run(path, error)
    try:
        text = read_bytes(path / SUMMARY, FILE_BYTES).decode()
    except FileNotFoundError as fault:
        raise _unfinished(path, f"it has no {SUMMARY}", error) from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise _damaged(path, fault, error) from fault
    try:
        summary = Summary.model_validate_json(text)
    except ValidationError as fault:
        raise _damaged(path, fault, error) from fault
    if not summary.complete:
        raise _unfinished(path, f"{SUMMARY} is not marked complete", error)
    return summary


def complete_summary(path: Path) -> Summary | None:
    """Read the summary of a finished run; None for any other folder."""
    try:
        return read_summary(path)
    except TrainingError:
        return None


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary, the last file of a run, atomically.

    Raises:
        TrainingError: The folder cannot be written.
        ValueError: A number is not finite.
    """
    with replacing(path / SUMMARY, TrainingError) as file:
        file.write(f"{_as_json(summary, indent=1)}\n".encode())


def _unfinished(path: Path, why: str, error: type[KdEdgeError]) -> KdEdgeError:
    return error(f"run {path} is not finished ({why})", "a finished run", f"continue it: kd-edge train --resume {path}")


def _damaged(path: Path, fault: Exception, error: type[KdEdgeError]) -> KdEdgeError:
    return error(
        f"{path / SUMMARY} is damaged ({_reason_of(fault)})",
        "the file written by a finished run",
        f"restore it, or write it again: kd-edge train --resume {path}",
    )


# -------------------------------------------------------------------------------------------------- metrics.jsonl


def read_metrics(path: Path) -> list[MetricsLine]:
    """Read the lines of ``metrics.jsonl``, except an incomplete last line; empty if there is no such file.

    Raises:
        TrainingError: The file cannot be read, or a line is damaged.
    """
    try:
        lines = read_bytes(path / METRICS, FILE_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise _damaged_metrics(path, "", fault) from fault
    return [_metrics_line(path, number, line) for number, line in enumerate(lines, 1)]


def append_metrics(path: Path, line: MetricsLine) -> None:
    """Append one line to ``metrics.jsonl``.

    Raises:
        TrainingError: The file cannot be written.
        ValueError: A number is not finite.
    """
    text = _as_json(line)
    try:
        with (path / METRICS).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise TrainingError(
            f"{path / METRICS} cannot be written ({error.strerror or error})",
            "a writable folder with free space",
            f"free space, then kd-edge train --resume {path}",
        ) from error


def truncate_metrics(path: Path, stage: str, epoch: int) -> None:
    """Drop the lines after an epoch of a stage and an incomplete last line; a resumed run writes them again.

    Raises:
        TrainingError: A line is damaged, or the file cannot be written.
    """
    kept = [m for m in read_metrics(path) if (*_order(m.stage), m.epoch) <= (*_order(stage), epoch)]
    with replacing(path / METRICS, TrainingError) as file:
        file.write("".join(f"{_as_json(line)}\n" for line in kept).encode())


def _order(stage: str) -> tuple[int, int]:
    """Sort key of a stage: the position of its kind in ``STAGES``, then its number among the folds."""
    kind = stage.rstrip("0123456789")
    return STAGES.index(kind), int(stage.removeprefix(kind) or 0)


def _metrics_line(path: Path, number: int, text: bytes) -> MetricsLine:
    try:
        return MetricsLine.model_validate_json(text)
    except ValidationError as fault:
        raise _damaged_metrics(path, f"line {number} of ", fault) from fault


def _damaged_metrics(path: Path, where: str, fault: Exception) -> TrainingError:
    return TrainingError(
        f"{where}{path / METRICS} is damaged ({_reason_of(fault)})",
        "one JSON object per epoch, as written by kd-edge train",
        "remove the line, or the whole file: it is only used for plots",
    )


# --------------------------------------------------------------------------------------------------------- shared


def _as_json(record: Record, indent: int | None = None) -> str:
    return json.dumps(to_jsonable_python(record), indent=indent, allow_nan=False)


def _reason_of(fault: Exception) -> str:
    if isinstance(fault, ValidationError):
        return first_fault(fault)
    return (fault.strerror if isinstance(fault, OSError) else None) or reason(fault)

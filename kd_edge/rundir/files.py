"""Where the files of a run directory lie, and how its summary and its metrics are read and written."""

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
"""No summary and no metrics of a run are longer."""
_OF_RECORDINGS = ("manifest.csv", "manifest.jsonl", "dataset.toml")
"""A folder of one's own recordings has one of them, and often a recipe beside it, as runs have."""


def new_run_path(root: Path, name: str) -> Path:
    """``<root>/<name>-<date>-<time>``, local time, not there yet."""
    stem = f"{name}-{datetime.datetime.now().strftime('%Y%m%d-%H%M%S')}"
    path, number = root / stem, 1
    while path.exists():
        number += 1
        path = root / f"{stem}-{number}"
    return path


def run_folders(root: Path) -> list[Path]:
    """Every run directly in a folder, finished or not."""
    return [recipe.parent for recipe in root.glob(f"*/{RECIPE}") if not _has_recordings(recipe.parent)]


def check_run(path: Path, error: type[KdEdgeError] = TrainingError) -> None:
    """Refuse what is no run directory, finished or not.

    Args:
        path: The run directory.
        error: What to raise.

    Raises:
        KdEdgeError: No folder, or one without a recipe, or one of recordings.
    """
    if path.is_file():
        raise error(f"{path} is a file, no run", "a folder written by kd-edge train", "name the folder it came from")
    if _has_recordings(path):
        raise error(
            f"{path} is a folder of recordings, no run",
            "a folder written by kd-edge train",
            f"train on it: kd-edge train --data {path}",
        )
    if not path.is_dir() or not ((path / RECIPE).exists() or (path / SUMMARY).exists()):
        raise error(f"no run {path}", "a folder written by kd-edge train", "train one first: kd-edge train")


def _has_recordings(path: Path) -> bool:
    """Whether a folder holds recordings, and no sign of a run that was begun there all the same."""
    is_run = any((path / name).exists() for name in (SUMMARY, METRICS, STATE))
    return not is_run and any((path / name).is_file() for name in _OF_RECORDINGS)


def check_free(path: Path) -> None:
    """Make sure that a new run would not overwrite another one, nor lie among recordings.

    Raises:
        TrainingError: There is a run already, or recordings.
    """
    if _has_recordings(path):
        raise TrainingError(f"{path} is a folder of recordings", "a new or empty folder", "choose another --out")
    if (path / RECIPE).exists():
        raise TrainingError(
            f"{path} holds a run already",
            "a new or empty folder",
            f"choose another --out, or kd-edge train --resume {path}",
        )


# --------------------------------------------------------------------------------------------------- summary.json


def read_summary(path: Path, error: type[KdEdgeError] = TrainingError) -> Summary:
    """The summary of a finished run.

    Args:
        path: The run directory.
        error: What to raise.

    Raises:
        KdEdgeError: No run there, not finished, or the file is damaged.
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
        raise _unfinished(path, f"{SUMMARY} does not say complete", error)
    return summary


def complete_summary(path: Path) -> Summary | None:
    """The summary of a finished run; None of any other folder."""
    try:
        return read_summary(path)
    except TrainingError:
        return None


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary, the last file of a run, whole or not at all.

    Raises:
        TrainingError: The folder cannot be written.
        ValueError: A number is not finite.
    """
    with replacing(path / SUMMARY, TrainingError) as file:
        file.write(f"{_as_json(summary, indent=1)}\n".encode())


def _unfinished(path: Path, why: str, error: type[KdEdgeError]) -> KdEdgeError:
    return error(
        f"run {path} is not finished ({why})", "a finished run", f"go on with it: kd-edge train --resume {path}"
    )


def _damaged(path: Path, fault: Exception, error: type[KdEdgeError]) -> KdEdgeError:
    return error(
        f"{path / SUMMARY} is damaged ({_why(fault)})",
        "the file a finished run wrote",
        f"restore it, or write it again: kd-edge train --resume {path}",
    )


# -------------------------------------------------------------------------------------------------- metrics.jsonl


def read_metrics(path: Path) -> list[MetricsLine]:
    """The complete lines of ``metrics.jsonl``, none where there is no such file; a last line that was cut is left out.

    Raises:
        TrainingError: The file cannot be read, or a line of it is damaged.
    """
    try:
        lines = read_bytes(path / METRICS, FILE_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise _damaged_metrics(path, "", fault) from fault
    return [_metrics_line(path, number, line) for number, line in enumerate(lines, 1)]


def append_metrics(path: Path, line: MetricsLine) -> None:
    """Add one line to ``metrics.jsonl``.

    Raises:
        TrainingError: It cannot be written.
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
    """Drop the lines after an epoch of a stage, and a last line that a kill cut off: they are made again.

    Raises:
        TrainingError: A line is damaged, or the file cannot be written.
    """
    kept = [m for m in read_metrics(path) if (*_turn(m.stage), m.epoch) <= (*_turn(stage), epoch)]
    with replacing(path / METRICS, TrainingError) as file:
        file.write("".join(f"{_as_json(line)}\n" for line in kept).encode())


def _turn(stage: str) -> tuple[int, int]:
    """When it is a stage's turn: its kind's, and its number among the folds."""
    kind = stage.rstrip("0123456789")
    return STAGES.index(kind), int(stage.removeprefix(kind) or 0)


def _metrics_line(path: Path, number: int, text: bytes) -> MetricsLine:
    try:
        return MetricsLine.model_validate_json(text)
    except ValidationError as fault:
        raise _damaged_metrics(path, f"line {number} of ", fault) from fault


def _damaged_metrics(path: Path, where: str, fault: Exception) -> TrainingError:
    return TrainingError(
        f"{where}{path / METRICS} is damaged ({_why(fault)})",
        "one JSON object an epoch, as kd-edge train wrote them",
        "remove the line, or the whole file: it is only drawn",
    )


# --------------------------------------------------------------------------------------------------------- shared


def _as_json(record: Record, indent: int | None = None) -> str:
    return json.dumps(to_jsonable_python(record), indent=indent, allow_nan=False)


def _why(fault: Exception) -> str:
    if isinstance(fault, ValidationError):
        return first_fault(fault)
    return (fault.strerror if isinstance(fault, OSError) else None) or reason(fault)

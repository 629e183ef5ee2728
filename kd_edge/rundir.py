"""The run directory: what a training run leaves behind, in which files."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from kd_edge.errors import TrainingError
from kd_edge.files import replacing

RECIPE, STUDENT, TEACHER = "recipe.toml", "student.safetensors", "teachers/teacher.safetensors"
METRICS, SUMMARY, STATE = "metrics.jsonl", "summary.json", "state.pt"
STAGES = ("teacher", "student")


def new_run_path(root: Path, name: str) -> Path:
    """``<root>/<name>-<date>-<time>``, local time, not there yet."""
    stem = f"{name}-{datetime.datetime.now().strftime('%Y%m%d-%H%M%S')}"
    path, number = root / stem, 1
    while path.exists():
        number += 1
        path = root / f"{stem}-{number}"
    return path


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of ``metrics.jsonl``."""
    if not (path / METRICS).is_file():
        return []
    lines = (path / METRICS).read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary, the last file of a run."""
    with replacing(path / SUMMARY, TrainingError) as file:
        file.write((json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())


def run_folders(root: Path) -> list[Path]:
    """Every run directly in a folder, finished or not."""
    return [recipe.parent for recipe in root.glob(f"*/{RECIPE}")]


def complete_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None of any other folder."""
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and summary.get("complete") is True else None

"""Tables from run directories: what was trained, under which protocol, and how it did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_edge.errors import DataError
from kd_edge.files import replacing


@dataclass(frozen=True, slots=True)
class Row:
    """One trained network of one run."""

    data: str
    split: str
    stage: str
    modality: str
    network: str
    method: str
    epochs: str
    seed: int
    accuracy: float
    macro_f1: float
    test_samples: int
    minutes: float


COLUMNS = (
    "data",
    "split",
    "network",
    "input",
    "method",
    "epochs",
    "seed",
    "accuracy, %",
    "macro F1, %",
    "test clips",
    "min",
)


def rows(folders: Sequence[Path]) -> list[Row]:
    """Read the summaries of complete runs, teachers before students.

    Raises:
        DataError: A folder has no complete summary.
    """
    summaries = [read_summary(folder) for folder in folders]
    return [_row(s, stage) for s in summaries for stage in ("teacher", "student") if tested(s, stage)]


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a complete run.

    Raises:
        DataError: Absent, unreadable or incomplete.
    """
    try:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} has no readable summary.json", "the folder of a finished run", "kd-edge train, or check the path"
        ) from error
    if not summary.get("complete"):
        raise DataError(f"run {folder} is not finished", "a complete run", f"kd-edge train --resume {folder}")
    return summary


def tested(summary: dict[str, Any], stage: str) -> bool:
    """Whether a run has a stage with test figures; a teacher whose modality no test clip has is not tested."""
    return stage in summary["stages"] and summary["stages"][stage]["test"] is not None


def _row(summary: dict[str, Any], stage: str) -> Row:
    values, protocol = summary["stages"][stage], summary["protocol"]
    return Row(
        data=protocol["dataset"],
        split=protocol["split"],
        stage=stage,
        modality=values["modality"],
        network=f"{values['backbone']} + {values['temporal']}",
        method=_method(summary["recipe"], stage),
        epochs=f"{values['selected_epoch']} of {values['epochs']}",
        seed=summary["seed"],
        accuracy=values["test"]["accuracy"],
        macro_f1=values["test"]["macro_f1"],
        test_samples=values.get("test_samples", protocol["test_samples"]),
        minutes=values["seconds"] / 60,
    )


def _method(recipe: dict[str, Any], stage: str) -> str:
    if "kind" in recipe:  # a classical method
        return str(recipe["kind"]).upper()
    losses = [loss["kind"].upper() for loss in recipe.get("losses", [])] if stage == "student" else []
    teacher = recipe.get("teacher") or {}
    if stage == "teacher" and teacher.get("semantic_weight") and not teacher.get("weights"):
        losses = ["SEMANTIC"]
    return " + ".join(["CE", *losses]) if losses else "cross entropy"


def markdown(table: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for row in table:
        cells = (
            row.data,
            row.split,
            f"{row.stage}: {row.network}",
            row.modality,
            row.method,
            row.epochs,
            str(row.seed),
            f"{100 * row.accuracy:.1f}",
            f"{100 * row.macro_f1:.1f}",
            str(row.test_samples),
            f"{row.minutes:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_between_markers(text: str, path: Path, name: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a Markdown file.

    Raises:
        DataError: The file or its markers are missing, or it cannot be written.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    try:
        page = path.read_text(encoding="utf-8")
        before, rest = page.split(start, 1)
        _, after = rest.split(end, 1)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} has no place for '{name}'", f"a Markdown file with {start} and {end}", "add the two lines"
        ) from error
    with replacing(path, DataError) as file:
        file.write(f"{before}{start}\n{text}{end}{after}".encode())

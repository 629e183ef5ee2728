"""Tables of training results, from run directories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_edge.errors import DataError
from kd_edge.files import replacing
from kd_edge.rundir import RecipeNote, Scores, Summary, read_summary


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
    macro_f1: float | None
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
    summaries = [read_summary(folder, DataError) for folder in folders]
    found = [_row(s, stage) for s in summaries for stage in ("teacher", "student")]
    return [row for row in found if row is not None]


def tested(summary: Summary, stage: str) -> Scores | None:
    """Test scores of a run's stage; None if it is missing, or for a teacher whose modality no test clip has."""
    report = summary.stages.get(stage)
    return None if report is None else report.test


def _row(summary: Summary, stage: str) -> Row | None:
    test = tested(summary, stage)
    if test is None:
        return None
    report = summary.stages[stage]
    return Row(
        data=summary.protocol.dataset,
        split=summary.protocol.split,
        stage=stage,
        modality=report.modality,
        network=f"{report.backbone} + {report.temporal}",
        method=f"{'dense, then ' * (report.dense is not None)}{_method(summary.recipe, stage)}",
        epochs=report.selected,
        seed=summary.seed,
        accuracy=test.accuracy,
        macro_f1=test.macro_f1,
        test_samples=summary.test_clips(report),
        minutes=report.all_seconds / 60,
    )


def _method(recipe: RecipeNote, stage: str) -> str:
    if recipe.kind is not None:  # a classical method
        return recipe.kind.upper()
    losses = [loss.kind.upper() for loss in recipe.losses] if stage == "student" else []
    teacher = recipe.teacher
    if stage == "teacher" and teacher is not None and teacher.semantic_weight and not teacher.weights:
        losses = ["SEMANTIC"]
    return " + ".join(["CE", *losses]) if losses else "cross entropy"


def markdown(table: Sequence[Row]) -> str:
    """Format rows as a Markdown table."""
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
            "-" if row.macro_f1 is None else f"{100 * row.macro_f1:.1f}",
            str(row.test_samples),
            f"{row.minutes:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_between_markers(text: str, path: Path, name: str) -> None:
    """Replace the text between ``<!-- name -->`` and ``<!-- /name -->`` in a Markdown file.

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

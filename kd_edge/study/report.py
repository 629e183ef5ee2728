"""The table of a study: what was measured, seed by seed, beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_edge.study.plan import Planned, StudyConfig, plan
from kd_edge.study.runner import finished_run
from kd_edge.study.table import read_summary, tested


@dataclass(frozen=True, slots=True)
class Cell:
    """One method under one protocol; figures in percent.

    Attributes:
        published: What the paper has; None when it has nothing.
        values: Seed -> measured figure, of the runs that are finished.
        missing: Number of runs that are not.
        test_samples: Test clips of those runs; one number where all is well.
        recordings: What the stage's recordings were, by content; one where all is well.
    """

    published: float | None
    values: dict[int, float]
    missing: int
    test_samples: frozenset[int] = frozenset()
    recordings: frozenset[str] = frozenset()

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table: cells by split, and the epochs the runs were trained for."""

    name: str
    title: str
    cells: dict[str, Cell]
    epochs: str


def report(study: StudyConfig, folder: Path, *, seeds: Sequence[int] = (), overrides: Sequence[str] = ()) -> list[Line]:
    """Collect the finished runs of a study.

    Args:
        study: Which one.
        folder: Where its runs lie.
        seeds: As they were run.
        overrides: As they were run; other settings are other runs.

    Returns:
        A line for the teacher, where a row has one, and a line per row.
    """
    runs = plan(study, seeds=seeds, overrides=overrides)
    lines = [
        _line(study, row.name, row.title, [r for r in runs if r.row is row], folder, "student") for row in study.rows
    ]
    taught = [r for r in runs if (found := finished_run(r, folder)) and tested(read_summary(found), "teacher")]
    if taught:
        first = taught[0].row
        lines.insert(0, _line(study, "teacher", "(teacher)", [r for r in taught if r.row is first], folder, "teacher"))
    return lines


def _line(study: StudyConfig, name: str, title: str, runs: Sequence[Planned], folder: Path, stage: str) -> Line:
    cells: dict[str, Cell] = {}
    epochs: set[str] = set()
    for split in study.splits:
        values: dict[int, float] = {}
        clips: set[int] = set()
        recordings: set[str] = set()
        here = [run for run in runs if run.split == split]
        for run in here:
            found = finished_run(run, folder)
            if found is not None:
                summary = read_summary(found)
                figures = summary["stages"][stage]
                clips.add(figures.get("test_samples", summary["protocol"]["test_samples"]))
                recordings |= {summary.get("data_fingerprints", {}).get(stage, "")} - {""}
                values[run.seed] = 100 * figures["test"][study.metric]
                epochs.add(str(figures["epochs"]))
        published = None if stage == "teacher" or not here else here[0].row.published.get(split)
        cells[split] = Cell(published, values, len(here) - len(values), frozenset(clips), frozenset(recordings))
    return Line(name, title, cells, ", ".join(sorted(epochs)))


def report_markdown(study: StudyConfig, lines: Sequence[Line]) -> str:
    """The lines as a Markdown table: per split the published figure (if any), the mean with its spread, every seed."""
    unit = {"accuracy": "accuracy, %", "macro_f1": "macro F1, %", "map": "mAP, %"}[study.metric]
    heads = ["method", "epochs"]
    published = {split for split in study.splits if any(split in row.published for row in study.rows)}
    for split in study.splits:
        heads += [f"{split}: published"] * (split in published) + [f"{split}: {unit}", "each seed"]
    table = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for line in lines:
        cells = [line.title, line.epochs or "-"]
        for split, cell in line.cells.items():
            cells += [_number(cell.published)] * (split in published) + [_measured(cell), _each(cell)]
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join(table + _cautions(study, lines)) + "\n"


def _cautions(study: StudyConfig, lines: Sequence[Line]) -> list[str]:
    """What makes rows of a split incomparable."""
    found = []
    for split in study.splits:
        cells = {line.title: line.cells[split] for line in lines if line.name != "teacher"}
        if len(frozenset[int]().union(*(cell.test_samples for cell in cells.values()))) > 1:
            counts = ", ".join(f"{title} {sorted(c.test_samples)}" for title, c in cells.items() if c.test_samples)
            found.append(f"\n{split}: the rows were tested on different numbers of clips: {counts}.")
        elif len(frozenset[str]().union(*(cell.recordings for cell in cells.values()))) > 1:
            found.append(f"\n{split}: the rows were trained on recordings of different content or frame size.")
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _measured(cell: Cell) -> str:
    if cell.mean is None:
        return "not run"
    return _number(cell.mean) + ("" if cell.spread is None else f" ± {cell.spread:.1f}")


def _each(cell: Cell) -> str:
    parts = [f"{seed}: {value:.1f}" for seed, value in sorted(cell.values.items())]
    if cell.missing and cell.values:
        parts.append(f"{cell.missing} not run")
    return ", ".join(parts) or "-"

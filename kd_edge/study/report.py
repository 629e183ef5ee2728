"""The table of a study: measured results, seed by seed, next to the published ones."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from kd_edge.errors import ConfigError, DataError, did_you_mean
from kd_edge.rundir import Summary, read_summary
from kd_edge.study.difference import superseded
from kd_edge.study.gain import Gain, pooled_gain, shown_interval
from kd_edge.study.ledger import Entry, recorded
from kd_edge.study.plan import Planned, RowConfig, StudyConfig, chosen, plan
from kd_edge.study.runner import finished_run, finished_runs
from kd_edge.study.table import tested
from kd_edge.train.recipe import Recipe

_UNITS = {
    "accuracy": "accuracy, %",
    "macro_f1": "macro F1, %",
    "map": "mAP, %",
    "sakdn_f": "F-measure as SAKDN's code has it, %",
    "validation_accuracy": "accuracy on validation clips, %",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One method under one protocol; figures in percent.

    Attributes:
        published: What the paper has; None when it has nothing.
        values: Seed -> measured figure, of the runs that are finished.
        missing: Number of runs that are not.
        test_samples: Clips that those runs were judged by; one number where all is well.
        recordings: What the stage's recordings were, by content; one where all is well.
        seen_in_training: Test clips of a sensor's network whose very signals trained it; the most of those runs.
        gain: Over another row on the same test clips, of the seeds that both have; None where it was not asked for or
            cannot be told.
        compared: Those seeds, where one of the two rows has more; else nothing.
    """

    published: float | None
    values: dict[int, float]
    missing: int
    test_samples: frozenset[int] = frozenset()
    recordings: frozenset[str] = frozenset()
    seen_in_training: int = 0
    gain: Gain | None = None
    compared: tuple[int, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without a finished run."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table.

    Attributes:
        name: Name of the row; ``teacher`` for the line of the teacher that the rows share, ``teacher of ROW`` where
            there are several.
        title: Name of the method as the table prints it.
        cells: Split -> figures of the row under it.
        epochs: Epochs the runs were trained for; several with commas between them.
        needs: Why the row has no runs, where it never will.
        of: Where the figures are from, when they are another row's run's: its name and network.
        shared: Whether it is the line of a teacher, which is no row of the table.
        pooled: Figures over the test clips of all splits; None where the study does not pool them.
    """

    name: str
    title: str
    cells: dict[str, Cell]
    epochs: str
    needs: str = ""
    of: str = ""
    shared: bool = False
    pooled: Cell | None = None

    def columns(self) -> dict[str, Cell]:
        """The row's cells in the table: one per split, or one for all."""
        return self.cells if self.pooled is None else {"all splits": self.pooled}


def report(
    study: StudyConfig,
    folder: Path,
    *,
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
    ledger: Sequence[Entry] = (),
    against: str | None = None,
    rows: Sequence[str] = (),
) -> list[Line]:
    """Collect the finished runs of a study.

    Args:
        study: The study.
        folder: Folder that its runs lie in.
        seeds: Seeds that were run; none takes the study's and its rows'.
        overrides: Overrides of the recipe that were run; other settings are other runs.
        ledger: What runs came to whose folders are not here.
        against: Row whose runs the others' gain is over; None compares nothing.
        rows: Only these rows, in this order, and no teachers; none takes all.

    Returns:
        A line per row; before them one for each teacher that was trained, where no row is read of a teacher.
    """
    finished = _Finished(folder, ledger)
    runs = plan(study, seeds=seeds, overrides=overrides)
    of_row = {row.name: [r for r in runs if r.row.name == (row.of or row.name)] for row in study.rows}
    lines = [_line(study, row, of_row[row.name], finished) for row in study.rows]
    if against is not None:
        lines = _compared(study, lines, of_row, finished, against)
    if rows:
        by_name = {line.name: line for line in lines}
        return [by_name[name] for name in chosen(list(by_name), rows, "row")]
    return lines if any(row.of for row in study.rows) else _teachers(study, runs, finished) + lines


def not_counted(
    study: StudyConfig,
    folder: Path,
    rows: Sequence[str],
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
    ledger: Sequence[Entry] = (),
) -> list[str]:
    """Describe runs that the table of ``report`` lacks because they were made with other settings."""
    finished = _Finished(folder, ledger)
    planned = [run for run in plan(study, seeds=seeds, overrides=overrides) if run.row.name in rows]
    missing = [run for run in planned if finished(run) is None]
    return list(superseded(missing, [run for run, _ in finished.here if run.parent == folder], ledger))


class _Finished:
    """Cached results of planned runs, from their folders or the ledger.

    Attributes:
        here: The folders, with what they say.
    """

    def __init__(self, folder: Path, ledger: Sequence[Entry]) -> None:
        self._folder, self._ledger = folder, ledger
        self.here = finished_runs(folder)
        self._known: dict[str, Summary | None] = {}

    def __call__(self, run: Planned) -> Summary | None:
        """The summary of a finished run."""
        if run.name not in self._known:
            found = finished_run(run, self._folder, among=self.here)
            here = None if found is None else read_summary(found, DataError)
            self._known[run.name] = recorded(run, self._ledger) if here is None else here
        return self._known[run.name]


def _compared(
    study: StudyConfig, lines: Sequence[Line], runs: Mapping[str, Sequence[Planned]], finished: _Finished, against: str
) -> list[Line]:
    """Add each row's gain over the reference row, clip by clip."""
    if study.metric == "validation_accuracy":
        raise ConfigError(
            f"gains over '{against}' in a study of validation clips, but they are told on test clips",
            "a study of test figures",
            "leave out --against",
        )
    names = [row.name for row in study.rows if row.runs]
    if against not in names:
        raise ConfigError(
            f"the study has no row '{against}' with runs{did_you_mean(against, names)}",
            f"one of {', '.join(names)}",
            "correct it",
        )
    whole = {line.name: set() if line.pooled is None else set(line.pooled.values) for line in lines}
    compared = []
    for line, row in zip(lines, study.rows, strict=True):
        if not row.runs or row.name == against:
            compared.append(line)
            continue
        pairs = {
            split: [_of_seeds(runs[name], split, finished) for name in (row.name, against)] for split in line.cells
        }
        cells = {split: _with_gain(cell, [pairs[split]]) for split, cell in line.cells.items()}
        pooled = line.pooled
        if pooled is not None:  # of the seeds that a row has all splits of, as its pooled figure is
            complete = [
                (
                    {seed: ours[seed] for seed in ours.keys() & whole[row.name]},
                    {s: theirs[s] for s in theirs.keys() & whole[against]},
                )
                for ours, theirs in pairs.values()
            ]
            pooled = _with_gain(pooled, complete)
        compared.append(replace(line, cells=cells, pooled=pooled))
    return compared


def _with_gain(cell: Cell, splits: Sequence[Sequence[Mapping[int, Summary]]]) -> Cell:
    """Add to a cell the gain pooled over the splits, for the seeds that both rows have."""
    every = [set(each) for pair in splits for each in pair]
    both = sorted(set.intersection(*every))
    found = pooled_gain([([ours[s] for s in both], [theirs[s] for s in both]) for ours, theirs in splits])
    return replace(cell, gain=found, compared=() if found is None or set(both) == set.union(*every) else tuple(both))


def _of_seeds(runs: Sequence[Planned], split: str, finished: _Finished) -> dict[int, Summary]:
    """Summaries of the finished runs under a split, by seed."""
    return {run.seed: summary for run in runs if run.split == split and (summary := finished(run)) is not None}


def _teachers(study: StudyConfig, runs: Sequence[Planned], finished: _Finished) -> list[Line]:
    """One line per teacher; each seed's result is from the first row that has this teacher and was run."""
    found: dict[str, dict[tuple[str, int], Planned]] = {}
    for run in runs:
        if not isinstance(run.config, Recipe) or run.config.teacher is None:
            continue
        same = run.config.model_copy(update={"seed": 0, "split": study.splits[0]}).teacher_fingerprint()
        taught, summary = found.setdefault(same, {}), finished(run)
        if summary is not None and tested(summary, "teacher"):
            taught.setdefault((run.split, run.seed), run)
    lines = [_teacher(study, list(taught.values()), finished) for taught in found.values() if taught]
    if len(found) > 1:
        return lines
    return [replace(line, name="teacher", title="(teacher)") for line in lines]


def _teacher(study: StudyConfig, taught: Sequence[Planned], finished: _Finished) -> Line:
    """The line of a teacher from runs that have it, named by the first one's row."""
    row = taught[0].row
    source = RowConfig(name="teacher", title=f"(teacher of {row.title})", of=row.name, network="teacher")
    return replace(_line(study, source, taught, finished), name=f"teacher of {row.name}", shared=True)


def _line(study: StudyConfig, row: RowConfig, runs: Sequence[Planned], finished: _Finished) -> Line:
    """A row's line from its runs, or from the runs that it is read from."""
    cells: dict[str, Cell] = {}
    epochs: set[str] = set()
    for split in study.splits:
        values: dict[int, float] = {}
        clips: set[int] = set()
        recordings: set[str] = set()
        seen = 0
        here = [run for run in runs if run.split == split]
        for run in here:
            summary = finished(run)
            figures = None if summary is None else _figures(summary, row, study.metric)
            value = None if figures is None else figures.value
            if summary is None or figures is None or value is None:
                continue
            clips.add(figures.clips)
            seen = max(seen, figures.seen)
            if row.of is None:  # a teacher's recordings are others than the students'
                recordings |= {summary.data_fingerprints.get("student", "")} - {""}
            values[run.seed] = 100 * value
            epochs.add(figures.epochs)
        missing = len(here) - len(values)
        published = row.published.get(split)
        cells[split] = Cell(published, values, missing, frozenset(clips), frozenset(recordings), seen)
    source = "" if row.of is None else f"{row.of}: {row.network}"
    pooled = _pooled(study, row, runs, finished) if study.pooled else None
    return Line(row.name, row.title, cells, ", ".join(sorted(epochs)), row.needs, source, pooled=pooled)


def _pooled(study: StudyConfig, row: RowConfig, runs: Sequence[Planned], finished: _Finished) -> Cell:
    """A row's results over the test clips of all splits, for the seeds with every split finished."""
    values: dict[int, float] = {}
    clips: set[int] = set()
    missing = 0
    for seed in dict.fromkeys(run.seed for run in runs):
        summaries = [finished(run) for run in runs if run.seed == seed]
        found = [None if summary is None else _figures(summary, row, study.metric) for summary in summaries]
        counted = [(each.value, each.clips) for each in found if each is not None and each.value is not None]
        missing += len(found) - len(counted)
        if len(counted) == len(study.splits):
            total = sum(count for _, count in counted)
            values[seed] = 100 * sum(value * count for value, count in counted) / total
            clips.add(total)
    return Cell(None, values, missing, frozenset(clips))


class _Figures(NamedTuple):
    """Figure of one network, the clips it is of, the epochs it was trained for, and test clips seen in training."""

    value: float | None
    clips: int
    epochs: str
    seen: int


def _figures(summary: Summary, row: RowConfig, metric: str) -> _Figures | None:
    """Of the network that a row is about; None when it was not tested, or not validated where that is asked for."""
    stage = summary.stages.get("student" if row.of is None else "teacher")
    if stage is None:
        return None
    if metric == "validation_accuracy":  # sensors have none one by one
        judged = stage.validation if row.sensor is None else None
        clips = summary.protocol.validation_samples
        return None if judged is None else _Figures(judged.accuracy, clips, stage.trained_for, 0)
    test = stage.test if row.sensor is None else stage.sensors.get(row.sensor)
    if test is None:
        return None
    clips = summary.test_clips(stage) if test.clips is None else test.clips
    return _Figures(getattr(test, metric), clips, stage.trained_for, stage.seen_in_training)


def report_markdown(study: StudyConfig, lines: Sequence[Line]) -> str:
    """The lines as a Markdown table: per split the published figure (if any), the mean with its spread, every seed.

    Below it stands what makes rows incomparable, and what the study notes.
    """
    unit = _UNITS[study.metric]
    heads = ["method", "epochs"]
    published = {split for split in study.splits if any(split in row.published for row in study.rows)}
    gains = any(cell.gain is not None for line in lines for cell in line.columns().values())
    for split in ["all splits"] if study.pooled else study.splits:
        heads += [f"{split}: published"] * (split in published) + [f"{split}: {unit}", "each seed"]
        heads += [f"{split}: gain, points", "95 % by subject", "95 % by clip"] * gains
    heads += ["each split"] * study.pooled
    table = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for line in lines:
        cells = [line.title, line.epochs or "-"]
        for split, cell in line.columns().items():
            measured = "cannot be run" if line.needs else _measured(cell)
            cells += [study.as_published(cell.published, split)] * (split in published) + [measured, _each(cell)]
            cells += _gained(cell) * gains
        cells += [", ".join(f"{split}: {_measured(cell)}" for split, cell in line.cells.items())] * study.pooled
        table.append(f"| {' | '.join(cells)} |")
    notes = [f"\n{note}" for note in study.notes]
    return "\n".join(table + _cautions(study, lines) + _needs(lines) + notes) + "\n"


def _gained(cell: Cell) -> list[str]:
    """Format a gain and its intervals."""
    if cell.gain is None:
        return ["-", "-", "-"]
    seeds = ", ".join(map(str, cell.compared))
    of = f" ({'seed' if len(cell.compared) == 1 else 'seeds'} {seeds})" if cell.compared else ""
    return [f"{cell.gain.points:+.1f}{of}", shown_interval(cell.gain.by_subject), shown_interval(cell.gain.by_clip)]


def _needs(lines: Sequence[Line]) -> list[str]:
    """Reasons for rows without results."""
    lacking = [f"{line.title} needs {line.needs}" for line in lines if line.needs]
    return [f"\nRows that cannot be run: {'; '.join(lacking)}."] if lacking else []


def _cautions(study: StudyConfig, lines: Sequence[Line]) -> list[str]:
    """Reasons why rows of a split are not comparable."""
    found = []
    for split in study.splits:
        cells = [(line.title, line.cells[split]) for line in lines if not line.shared]
        if len(frozenset[int]().union(*(cell.test_samples for _, cell in cells))) > 1:
            counts = ", ".join(f"{title} {sorted(c.test_samples)}" for title, c in cells if c.test_samples)
            found.append(f"\n{split}: the rows were tested on different numbers of clips: {counts}.")
        elif len(frozenset[str]().union(*(cell.recordings for _, cell in cells))) > 1:
            found.append(f"\n{split}: the rows were trained on recordings of different content, frame size or holes.")
        every = [(line.title, line.cells[split].seen_in_training) for line in lines]
        if any(seen for _, seen in every):
            counts = ", ".join(f"{title} {seen}" for title, seen in every if seen)
            found.append(
                f"\n{split}: no test of the sensors, one signal serves several cameras. Test clips with a signal that "
                f"was trained on: {counts}."
            )
    return found


def _measured(cell: Cell) -> str:
    if cell.mean is None:
        return "not run"
    return f"{cell.mean:.1f}" + ("" if cell.spread is None else f" ± {cell.spread:.1f}")


def _each(cell: Cell) -> str:
    parts = [f"{seed}: {value:.1f}" for seed, value in sorted(cell.values.items())]
    if cell.missing and cell.values:
        parts.append(f"{cell.missing} more not run")
    return ", ".join(parts) or "-"

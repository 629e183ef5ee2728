"""Accuracy of models on corrupted clips, kept in a ledger, with one table of all rows.

The ledger is docs/results/robustness.jsonl.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt
from pydantic import Field

from kd_edge import __version__
from kd_edge.evaluate.clips import Progress
from kd_edge.evaluate.corruptions import CLEAN, EVERY, KINDS, SEVERITIES, VERSION, Corruption, Kind
from kd_edge.evaluate.robustness import CorruptedTest
from kd_edge.rundir import Marks
from kd_edge.study.gain import paired, shown_interval
from kd_edge.study.ledger import FORMAT, ModelLine

NAME = "robustness"
"""Name of the ledger, and of the markers in a page."""
_TITLES: dict[Kind, str] = {
    "clean": "none",
    "dots": "dots",
    "fall_off": "illumination fall-off",
    "saturation": "saturation",
    "gain_step": "gain step",
    "blur": "blur",
    "noise": "noise",
}


class RobustnessLine(ModelLine):
    """Accuracy of one model under one corruption; several runs of one row are averaged.

    Attributes:
        kind: Kind of corruption.
        severity: 1 to 3; 0 for clean clips.
        version: Version of the corruptions.
        clips: Number of test clips.
        accuracy: Share of correctly classified clips.
        right: Subject -> a string with ``1`` (right) or ``0`` (wrong) for each clip, in the order of the clip ids.
    """

    kind: Kind
    severity: int = Field(ge=0, le=3)
    version: int
    clips: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1)
    right: dict[str, Marks]

    @property
    def key(self) -> tuple[str | int, ...]:
        """Row, model, clips and corruption."""
        return *self.tested, self.kind, self.severity

    @property
    def tested(self) -> tuple[str | int, ...]:
        """Common part of the keys of one model on the same clips."""
        return *self.model, self.version

    @property
    def place(self) -> tuple[str, ...]:
        """Row, settings (a row has a run per seed), precision and split."""
        return self.row, self.recipe_fingerprint, self.precision, self.split

    @property
    def figures(self) -> object:
        """The results, clip by clip."""
        return self.accuracy, self.clips, self.right

    @property
    def described(self) -> str:
        """Row and corruption."""
        return f"{self.row} ({self.precision}), {self.kind} {self.severity}"

    @property
    def corruption(self) -> Corruption:
        """The corruption applied to the clips."""
        return Corruption(self.kind, self.severity)


def measure(
    row: str, test: CorruptedTest, known: Sequence[RobustnessLine] = (), progress: Progress | None = None
) -> Iterator[RobustnessLine]:
    """Measure a model under every corruption that has no line yet, with one pass over the test clips each.

    Args:
        row: Name of the model in the table.
        test: The model and its test clips.
        known: Existing lines.
        progress: Called with (clips done, total), over all passes.

    Yields:
        One line per corruption, as soon as it is measured.
    """
    manifest = test.manifest
    model = row, manifest.recipe_fingerprint, manifest.precision, test.dataset, test.split
    tested = *model, test.content, manifest.data_fingerprint, VERSION
    done = {line.corruption for line in known if line.tested == tested}
    left = [corruption for corruption in EVERY if corruption not in done]
    for number, corruption in enumerate(left):
        shown = None if progress is None else _within(progress, number, len(left))
        score = test.score(corruption, shown)
        yield RobustnessLine(
            format=FORMAT,
            release=__version__,
            row=row,
            recipe_fingerprint=manifest.recipe_fingerprint,
            precision=manifest.precision,
            dataset=test.dataset,
            split=test.split,
            content=test.content,
            data_fingerprint=manifest.data_fingerprint,
            measured=datetime.now(timezone.utc).isoformat(),
            kind=corruption.kind,
            severity=corruption.severity,
            version=VERSION,
            clips=score.clips,
            accuracy=score.accuracy,
            right=score.right,
        )


def _within(progress: Progress, number: int, passes: int) -> Progress:
    """Progress of one pass as a part of all passes."""
    return lambda done, total: progress(number * total + done, passes * total)


def robustness_markdown(lines: Sequence[RobustnessLine], rows: Sequence[str] = (), against: str | None = None) -> str:
    """Format a table of all rows side by side: one line per kind, one column per severity, and the mean.

    Args:
        lines: Lines of the ledger; those with another version of the corruptions are left out.
        rows: Names of the rows to show, in order; empty for all.
        against: Reference row for the gains; None for no gains.
    """
    lines = [line for line in lines if line.version == VERSION]
    rows = rows or list(dict.fromkeys(line.row for line in lines))
    heads = [f"{row}: {severity}" for row in rows for severity in SEVERITIES]
    table = [f"| corruption | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    figures = {row: _of_row(lines, row) for row in rows}
    for kind in ("clean", *KINDS):
        cells = []
        for row in rows:
            if kind == "clean":
                cells += [_shown(figures[row].get(CLEAN)), "", ""]
            else:
                cells += [_shown(figures[row].get(Corruption(kind, severity))) for severity in SEVERITIES]
        table.append(f"| {_TITLES[kind]} | {' | '.join(cells)} |")
    means = [_shown(_mean(figures[row], severity)) for row in rows for severity in SEVERITIES]
    table.append(f"| mean of all | {' | '.join(means)} |")
    gains = [] if against is None else [_gained(lines, row, against) for row in rows if row != against]
    return "\n".join([*table, "", *_sums(lines, rows, figures), *gains]) + "\n"


def _of_row(lines: Sequence[RobustnessLine], row: str) -> dict[Corruption, float]:
    """Accuracy in percent under each corruption, averaged over the row's runs."""
    own: dict[Corruption, list[float]] = {}
    for line in lines:
        if line.row == row:
            own.setdefault(line.corruption, []).append(100 * line.accuracy)
    return {corruption: statistics.fmean(values) for corruption, values in own.items()}


def _mean(figures: dict[Corruption, float], severity: int | None = None) -> float | None:
    """Mean over all kinds, at one severity or all; None until all are measured."""
    wanted = [c for c in EVERY if c != CLEAN and severity in (None, c.severity)]
    return statistics.fmean(figures[c] for c in wanted) if all(c in figures for c in wanted) else None


def _sums(
    lines: Sequence[RobustnessLine], rows: Sequence[str], figures: dict[str, dict[Corruption, float]]
) -> Iterator[str]:
    """Mean accuracy and number of runs of each row, and a note if rows were tested on different clips."""
    parts = []
    for row in rows:
        runs = len({(line.recipe_fingerprint, line.precision) for line in lines if line.row == row})
        mean, clean = _mean(figures[row]), figures[row].get(CLEAN)
        kept = "not measured in full" if mean is None or clean is None else f"{mean:.1f}, {mean - clean:+.1f} to none"
        parts.append(f"{row} {kept} ({runs} {'run' if runs == 1 else 'runs'})")
    yield f"Accuracy in percent; mean over kinds and severities: {'; '.join(parts)}."
    counts = {line.clips for line in lines if line.row in rows}
    if len(counts) > 1:
        yield f"\nThe rows were tested on different numbers of clips: {', '.join(map(str, sorted(counts)))}."


def _gained(lines: Sequence[RobustnessLine], row: str, against: str) -> str:
    """Gain of a row over another on corrupted clips, with intervals."""
    ours, theirs = _share_right(lines, row), _share_right(lines, against)
    found = None if ours is None or theirs is None else paired(ours, theirs)
    if found is None:
        return f"\n{row} over {against}: not told, both must be measured in full on the same clips."
    subject, clip = shown_interval(found.by_subject), shown_interval(found.by_clip)
    return f"\n{row} over {against}: {found.points:+.1f} points, 95 % by subject {subject}, by clip {clip}."


def _share_right(lines: Sequence[RobustnessLine], row: str) -> dict[str, npt.NDArray[np.float64]] | None:
    """Subject -> (clips,) share of corruptions and runs of the row in which each clip was right."""
    own = [line for line in lines if line.row == row and line.corruption != CLEAN]
    runs = {line.tested for line in own}
    shapes = {tuple((subject, len(marks)) for subject, marks in line.right.items()) for line in own}
    if len(shapes) != 1 or len(own) != len(runs) * (len(EVERY) - 1):
        return None
    return {
        subject: np.mean([[int(mark) for mark in line.right[subject]] for line in own], axis=0)
        for subject in own[0].right
    }


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"

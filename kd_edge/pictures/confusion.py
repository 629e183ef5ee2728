"""Which classes a run takes for which: the confusion picture, its change from another run, and the worst pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_edge.errors import DataError, did_you_mean
from kd_edge.metrics import row_shares, worst_confusions
from kd_edge.rundir import Summary


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a run took for what on the test clips.

    Attributes:
        labels: Class names.
        counts: (K, K) int64, rows are the truth.
        accuracy: Share of right answers.
        run: Name of the run.
        network: Stage, backbone and modality.
    """

    labels: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    accuracy: float
    run: str
    network: str


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """One class taken for another.

    Attributes:
        clips: How many clips of ``true`` were taken for ``predicted``.
        share: Share of the clips of ``true`` that were taken for ``predicted``.
        change: Share now minus share in the run compared with; None without one.
    """

    true: str
    predicted: str
    clips: int
    share: float
    change: float | None = None


def confusion_of(summary: Summary, stage: str, run: Path) -> Confusion:
    """The confusion in a run's summary.

    Args:
        summary: Content of the run's ``summary.json``.
        stage: ``teacher`` or ``student``.
        run: Run directory, for messages.

    Raises:
        DataError: No such stage, or one without a confusion matrix.
    """
    report = summary.stages.get(stage)
    if report is None:
        raise DataError(
            f"run {run} has no stage '{stage}'{did_you_mean(stage, summary.stages)}",
            f"one of {', '.join(summary.stages)}",
            "correct --stage",
        )
    test = report.test
    if test is None:
        raise DataError(
            f"the {stage} of run {run} was not tested: it names no class, or no test clip has its modality",
            "a stage with test figures",
            "choose another --stage",
        )
    labels, counts = tuple(test.per_class), np.asarray(test.confusion, dtype=np.int64)
    if counts.shape != (len(labels), len(labels)) or not labels:
        raise DataError(
            f"the {stage} of run {run} has a confusion matrix of shape {counts.shape} for {len(labels)} classes",
            "one row and column per class",
            "train it again with this release",
        )
    network = f"{stage}, {report.backbone} on {report.modality}"
    return Confusion(labels, counts, test.accuracy, run.name, network)


def confused_pairs(confusion: Confusion, against: Confusion | None = None, most: int = 10) -> list[ConfusedPair]:
    """The most confused pairs of classes, by the share of the true class; equal shares in the order of the classes.

    Args:
        confusion: Confusion of the run.
        against: Confusion of the run it is compared with; None without one.
        most: Largest number of pairs.

    Raises:
        DataError: The two know different classes.
    """
    shares = row_shares(confusion.counts)
    changes = None if against is None else shares - row_shares(_comparable(confusion, against).counts)
    return [
        ConfusedPair(
            confusion.labels[i],
            confusion.labels[j],
            int(confusion.counts[i, j]),
            float(shares[i, j]),
            None if changes is None else float(changes[i, j]),
        )
        for i, j in worst_confusions(confusion.counts, most)
    ]


def draw_confusion(confusion: Confusion, path: Path, against: Confusion | None = None) -> None:
    """Draw a confusion matrix in percent, and beside it the change from another run.

    Args:
        confusion: Confusion of the run.
        path: The PNG to write.
        against: Confusion of the run it is compared with; None without one.

    Raises:
        DataError: The two know different classes.
        TrainingError: The picture cannot be written.
    """
    from kd_edge.train.results import plots

    title = f"{confusion.run}\n{confusion.network}: {confusion.accuracy:.1%}"
    if against is None:
        plots.plot_confusion(confusion.counts.tolist(), confusion.labels, title, path)
        return
    _comparable(confusion, against)
    gain = 100 * (confusion.accuracy - against.accuracy)
    titles = (title, f"change from {against.run}\n{against.accuracy:.1%}, {gain:+.1f} points")
    plots.plot_confusion_change(confusion.counts.tolist(), against.counts.tolist(), confusion.labels, titles, path)


def _comparable(confusion: Confusion, against: Confusion) -> Confusion:
    if against.labels != confusion.labels:
        raise DataError(
            f"run {confusion.run} knows {len(confusion.labels)} classes, {against.run} other ones "
            f"({len(against.labels)})",
            "two runs on the same classes",
            "compare runs of one data set",
        )
    return against

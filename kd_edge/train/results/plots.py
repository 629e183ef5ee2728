"""Pictures of a run: learning curves and confusion matrices, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kd_edge.errors import TrainingError
from kd_edge.files import replacing
from kd_edge.metrics import row_shares
from kd_edge.rundir import MetricsLine, Summary

_NUMBER_POINTS, _LABEL_POINTS = 10, 12
"""A matrix of 27 classes can still be read at two thirds of its size, as a page shows it; three digits fill a cell."""


def plot_run(lines: Sequence[MetricsLine], summary: Summary, labels: Sequence[str], folder: Path) -> None:
    """Curves of a run, and the confusion matrix of each of its stages on the test clips."""
    if lines:
        plot_curves(lines, folder / "curves.png")
    for name, stage in summary.stages.items():
        if stage.test is None:
            continue
        accuracy = 100 * stage.test.accuracy
        title = f"{name}: {stage.backbone} on {stage.modality}, {accuracy:.1f} % of the test clips"
        plot_confusion(stage.test.confusion, labels, title, folder / f"confusion-{name}.png")


def plot_curves(metrics: Sequence[MetricsLine], path: Path) -> None:
    """Losses, accuracy and learning rate over the epochs, one row per stage.

    Args:
        metrics: Lines of ``metrics.jsonl``.
        path: The PNG to write.
    """
    stages = list(dict.fromkeys(m.stage for m in metrics))
    figure = Figure(figsize=(12, 3.4 * len(stages)), layout="constrained")
    axes = figure.subplots(len(stages), 3, squeeze=False)
    for row, stage in zip(axes, stages, strict=True):
        lines = [m for m in metrics if m.stage == stage]
        epochs = [m.epoch for m in lines]
        for name in lines[0].losses:
            row[0].plot(epochs, [m.losses.get(name, np.nan) for m in lines], label=name)
        row[1].plot(epochs, [100 * _known(m.train_accuracy) for m in lines], label="training clips")
        judged = [(m.epoch, m.validation) for m in lines if m.validation is not None]
        if judged:
            at = [epoch for epoch, _ in judged]
            row[0].plot(at, [_known(v.loss) for _, v in judged], "--", label="ce, validation")
            row[1].plot(at, [100 * v.accuracy for _, v in judged], "--", label="validation")
        row[2].plot(epochs, [_known(m.learning_rate) for m in lines])
        for axis, title in zip(row, ("loss", "accuracy, %", "learning rate"), strict=True):
            axis.set(title=f"{stage}: {title}", xlabel="epoch")
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        row[0].legend()
        row[1].legend()
        row[1].set_ylim(0, 101)
    _save(figure, path)


def _known(value: float | None) -> float:
    """A gap in the curve where there is no value."""
    return np.nan if value is None else value


def plot_confusion(counts: Sequence[Sequence[int]], labels: Sequence[str], title: str, path: Path) -> None:
    """Confusion matrix in percent of each true class; cells below half a percent stay empty.

    Args:
        counts: (K, K), rows are the truth.
        labels: Class names.
        title: Above the matrix.
        path: The PNG to write.
    """
    side = _side(labels)
    figure = Figure(figsize=(side, side), layout="constrained")
    _confusion(figure.subplots(), percent(counts), labels, title)
    _save(figure, path)


def plot_confusion_change(
    counts: Sequence[Sequence[int]],
    before: Sequence[Sequence[int]],
    labels: Sequence[str],
    titles: tuple[str, str],
    path: Path,
) -> None:
    """Confusion matrix, and beside it what changed: percentage points more (blue) or fewer (red) than ``before``.

    Args:
        counts: (K, K), rows are the truth.
        before: (K, K), of what it is compared with.
        labels: Class names.
        titles: Above the matrix and above the change.
        path: The PNG to write.
    """
    side = _side(labels)
    figure = Figure(figsize=(2 * side, side + 0.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    _confusion(left, percent(counts), labels, titles[0])
    change = percent(counts) - percent(before)
    bound = max(1.0, float(np.abs(change).max()))
    _matrix(right, change, labels, titles[1], "RdBu", (-bound, bound))
    for (i, j), value in np.ndenumerate(change):
        if abs(value) >= 0.5:
            colour = "w" if abs(value) > 0.6 * bound else "k"
            right.text(j, i, f"{value:+.0f}", ha="center", va="center", fontsize=_NUMBER_POINTS - 1, color=colour)
    _save(figure, path)


def percent(counts: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Counts (K, K) in percent of their row; a row of zeros stays one."""
    return 100 * row_shares(counts)


def _side(labels: Sequence[str]) -> float:
    """Inches."""
    return max(5.0, 2.6 + 0.36 * len(labels))


def _confusion(axis: Axes, table: npt.NDArray[np.float64], labels: Sequence[str], title: str) -> None:
    _matrix(axis, table, labels, title, "Blues", (0, 100))
    for (i, j), value in np.ndenumerate(table):
        if value >= 0.5:
            colour = "w" if value > 55 else "k"
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=_NUMBER_POINTS, color=colour)


def _matrix(
    axis: Axes, table: npt.NDArray[np.float64], labels: Sequence[str], title: str, cmap: str, span: tuple[float, float]
) -> None:
    axis.imshow(table, cmap=cmap, vmin=span[0], vmax=span[1])
    axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=_LABEL_POINTS)
    axis.set_yticks(range(len(labels)), labels, fontsize=_LABEL_POINTS)
    axis.set(xlabel="predicted", ylabel="true", title=title)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    with replacing(path, TrainingError) as file:
        file.write(buffer.getbuffer())

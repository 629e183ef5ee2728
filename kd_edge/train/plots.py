"""Pictures of a run: learning curves and confusion matrices, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kd_edge.errors import TrainingError
from kd_edge.files import replacing


def plot_run(lines: Sequence[dict[str, Any]], summary: dict[str, Any], labels: Sequence[str], folder: Path) -> None:
    """Curves of a run, and the confusion matrix of each of its stages on the test clips."""
    if lines:
        plot_curves(lines, folder / "curves.png")
    for name, stage in summary["stages"].items():
        accuracy = 100 * stage["test"]["accuracy"]
        title = f"{name}: {stage['backbone']} on {stage['modality']}, {accuracy:.1f} % of the test clips"
        plot_confusion(stage["test"]["confusion"], labels, title, folder / f"confusion-{name}.png")


def plot_curves(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Losses, accuracy and learning rate over the epochs, one row per stage.

    Args:
        metrics: Lines of ``metrics.jsonl``.
        path: The PNG to write.
    """
    stages = list(dict.fromkeys(m["stage"] for m in metrics))
    figure = Figure(figsize=(12, 3.4 * len(stages)), layout="constrained")
    axes = figure.subplots(len(stages), 3, squeeze=False)
    for row, stage in zip(axes, stages, strict=True):
        lines = [m for m in metrics if m["stage"] == stage]
        epochs = [m["epoch"] for m in lines]
        for name in lines[0]["losses"]:
            row[0].plot(epochs, [m["losses"][name] for m in lines], label=name)
        row[1].plot(epochs, [100 * m["train_accuracy"] for m in lines], label="training clips")
        if lines[0]["validation"]:
            row[0].plot(epochs, [m["validation"]["loss"] for m in lines], "--", label="ce, validation")
            row[1].plot(epochs, [100 * m["validation"]["accuracy"] for m in lines], "--", label="validation")
        row[2].plot(epochs, [m["learning_rate"] for m in lines])
        for axis, title in zip(row, ("loss", "accuracy, %", "learning rate"), strict=True):
            axis.set(title=f"{stage}: {title}", xlabel="epoch")
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        row[0].legend()
        row[1].legend()
        row[1].set_ylim(0, 101)
    _save(figure, path)


def plot_confusion(counts: Sequence[Sequence[int]], labels: Sequence[str], title: str, path: Path) -> None:
    """Confusion matrix in percent of each true class; cells below half a percent stay empty.

    Args:
        counts: (K, K), rows are the truth.
        labels: Class names.
        title: Above the matrix.
        path: The PNG to write.
    """
    table = np.asarray(counts, dtype=np.float64)
    percent = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(5.0, 2.6 + 0.36 * len(labels))
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axis.set_xticks(range(len(labels)), labels, rotation=90)
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    for (i, j), value in np.ndenumerate(percent):
        if value >= 0.5:
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if value > 55 else "k")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    with replacing(path, TrainingError) as file:
        file.write(buffer.getbuffer())

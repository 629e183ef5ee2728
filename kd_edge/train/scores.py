"""Evaluation of a trained model: logits of a loader's clips, and the figures of a summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kd_edge import metrics
from kd_edge.train.clips import Batch
from kd_edge.types import Float32, Int64


def predict(model: nn.Module, loader: Iterable[Batch], device: torch.device) -> tuple[Float32, Int64]:
    """Logits (N, K) and labels (N,) of all clips, in float32: the precision that is exported."""
    model.eval()
    logits, labels = [], []
    with torch.no_grad():
        for batch in loader:
            logits.append(model(batch["inputs"][0].to(device)).float().cpu().numpy())
            labels.append(batch["labels"].numpy())
    return np.concatenate(logits), np.concatenate(labels)


def brief(logits: Float32, labels: Int64) -> dict[str, float]:
    """Accuracy and loss, for choosing an epoch."""
    return {
        "accuracy": metrics.accuracy(logits.argmax(1), labels),
        "loss": metrics.negative_log_likelihood(logits, labels),
    }


def full(logits: Float32, labels: Int64, names: Sequence[str], temperature: float) -> dict[str, Any]:
    """The figures of a summary; a class without a sample has None.

    ``map`` is that of classification: the mean over the classes of the average precision of their probability.
    """
    classes, predictions = len(names), logits.argmax(1)
    probabilities = metrics.softmax(logits, temperature)
    recall = metrics.per_class_accuracy(predictions, labels, classes)
    return {
        "accuracy": metrics.accuracy(predictions, labels),
        "top5": metrics.top_k(logits, labels, 5),
        "macro_f1": metrics.macro_f1(predictions, labels, classes),
        "map": metrics.mean_average_precision(probabilities, labels),
        "ece": metrics.expected_calibration_error(probabilities, labels),
        "per_class": {n: None if np.isnan(r) else float(r) for n, r in zip(names, recall, strict=True)},
        "confusion": metrics.confusion(predictions, labels, classes).tolist(),
    }

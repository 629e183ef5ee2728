"""Evaluation of a trained model: logits of a loader's clips, and the figures of a summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kd_edge import metrics
from kd_edge.train.inputs.clips import Batch
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


def accuracy(logits: Float32, labels: Int64) -> float | None:
    """Of the clips whose logits (N, K) are there; None when there are none."""
    there = ~np.isnan(logits).any(axis=1)
    return metrics.accuracy(logits[there].argmax(1), labels[there]) if there.any() else None


def of_present(logits: Float32, truth: Int64, labels: Sequence[str]) -> dict[str, Any] | None:
    """Test figures of the clips whose logits (N, K) are there; None when there are none."""
    there = ~np.isnan(logits).any(axis=1)
    if not there.any():
        return None
    return {"clips": int(there.sum())} | metrics.figures(logits[there], truth[there], labels, temperature=None)


def brief(logits: Float32, labels: Int64) -> dict[str, float]:
    """Accuracy and loss, for choosing an epoch."""
    return {
        "accuracy": metrics.accuracy(logits.argmax(1), labels),
        "loss": metrics.negative_log_likelihood(logits, labels),
    }

"""Evaluation of a trained model: logits of a loader's clips, and the figures of a summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from kd_edge import metrics
from kd_edge.data import Sample
from kd_edge.errors import TrainingError
from kd_edge.rundir import Scores
from kd_edge.train.inputs.clips import Batch
from kd_edge.types import Float32, Int64


def predict(model: nn.Module, loader: Iterable[Batch], device: torch.device) -> tuple[Float32, Int64]:
    """Logits (N, K) and labels (N,) of all clips, in float32: the precision that is exported.

    Raises:
        TrainingError: A logit is not finite, though the weights are.
    """
    model.eval()
    logits, labels = [], []
    with torch.no_grad():
        for batch in loader:
            logits.append(model(batch["inputs"][0].to(device)).float().cpu().numpy())
            labels.append(batch["labels"].numpy())
    found = np.concatenate(logits)
    faulty = int((~np.isfinite(found)).any(axis=1).sum())
    if faulty:
        raise TrainingError(
            f"the logits of {faulty} of {len(found)} clips are not finite",
            "finite logits",
            "train again with a lower learning_rate",
        )
    return found, np.concatenate(labels)


def accuracy(logits: Float32, labels: Int64) -> float | None:
    """Scores of the clips that have logits (N, K); None if there are none."""
    there = ~np.isnan(logits).any(axis=1)
    return metrics.accuracy(logits[there].argmax(1), labels[there]) if there.any() else None


def of_present(logits: Float32, truth: Int64, labels: Sequence[str]) -> Scores | None:
    """Test scores of the clips that have logits (N, K); None if there are none."""
    there = ~np.isnan(logits).any(axis=1)
    if not there.any():
        return None
    return Scores(clips=int(there.sum()), **metrics.figures(logits[there], truth[there], labels, temperature=None))


def brief(logits: Float32, labels: Int64) -> Scores:
    """Accuracy and loss, for choosing an epoch."""
    return Scores(
        accuracy=metrics.accuracy(logits.argmax(1), labels), loss=metrics.negative_log_likelihood(logits, labels)
    )


def right_by_subject(samples: Sequence[Sample], logits: npt.NDArray[Any], truth: Int64) -> dict[str, str]:
    """Subject -> ``1`` or ``0`` for each of their clips, in the order of the clips' ids: right or wrong.

    Args:
        samples: (N,) clips.
        logits: (N, K).
        truth: (N,).
    """
    right = dict(zip((s.id for s in samples), (logits.argmax(axis=1) == truth).tolist(), strict=True))
    marks: dict[str, str] = {}
    for sample in sorted(samples, key=lambda s: s.id):
        marks[sample.subject] = marks.get(sample.subject, "") + str(int(right[sample.id]))
    return dict(sorted(marks.items()))

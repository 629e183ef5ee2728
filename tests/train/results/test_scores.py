"""Logits of a loader's clips, and figures of those that are there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kd_edge.errors import TrainingError
from kd_edge.train.results import scores

LOADER = [
    {"inputs": [torch.tensor([[4.0, 0.0], [0.0, 4.0]])], "labels": torch.tensor([0, 0])},
    {"inputs": [torch.tensor([[0.0, 4.0]])], "labels": torch.tensor([1])},
]
CPU = torch.device("cpu")


def test_logits_and_labels_of_all_batches() -> None:
    logits, labels = scores.predict(nn.Identity(), LOADER, CPU)  # type: ignore[arg-type]
    assert logits.tolist() == [[4, 0], [0, 4], [0, 4]]
    assert labels.tolist() == [0, 0, 1]
    found = scores.brief(logits, labels)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(np.log(1 + np.exp(-4)) + 4 / 3)  # once 4 more than twice


def test_logits_that_are_not_finite_are_one_line() -> None:
    with pytest.raises(TrainingError, match="the logits of 2 of 3 clips are not finite"):
        scores.predict(_Overflow(), LOADER, CPU)  # type: ignore[arg-type]


class _Overflow(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1] > 0, x, x * torch.inf)


def test_clips_without_logits_are_left_out() -> None:
    logits = np.array([[4.0, 0.0], [np.nan, np.nan], [0.0, 4.0]], np.float32)
    labels = np.array([0, 0, 0])
    assert scores.accuracy(logits, labels) == 0.5
    found = scores.of_present(logits, labels, ("sit", "stand"))
    assert found is not None
    assert (found.clips, found.accuracy, found.ece, found.confusion) == (2, 0.5, None, [[1, 1], [0, 0]])
    assert found.per_class == {"sit": 0.5, "stand": None}
    assert scores.accuracy(logits[1:2], labels[1:2]) is None
    assert scores.of_present(logits[1:2], labels[1:2], ("sit", "stand")) is None

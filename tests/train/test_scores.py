from __future__ import annotations

import json

import numpy as np
import pytest

from kd_edge.train import scores


def test_the_figures_of_a_summary_are_those_worked_out_by_hand() -> None:
    """Four clips of three classes, the third without a clip; the second clip is taken for class 0."""
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    logits, truth = np.log(probabilities).astype(np.float32), np.array([0, 1, 1, 1])
    figures = scores.full(logits, truth, ("drop", "throw", "clap"), 1.0)
    assert figures["accuracy"] == 0.5
    assert figures["top5"] == 1.0
    assert figures["per_class"] == {"drop": 1.0, "throw": pytest.approx(1 / 3), "clap": None}
    assert figures["confusion"] == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # drop: its clip ranks first, 1; throw: 0.7, 0.3, 0.2 rank before 0.1, all three, 1
    assert figures["map"] == pytest.approx(1.0)
    assert figures["ece"] == pytest.approx((0.2 + 0.6 + abs(2 * 0.7 - 1)) / 4, abs=1e-6)
    json.dumps(figures, allow_nan=False)


def test_the_mean_average_precision_ranks_probabilities_not_logits() -> None:
    """A clip with large logits for every class must not outrank a clip that is sure of one."""
    logits, truth = np.array([[5.0, 4.9], [2.0, -2.0]], dtype=np.float32), np.array([1, 0])
    assert scores.full(logits, truth, ("drop", "throw"), 1.0)["map"] == pytest.approx(1.0)
    assert scores.full(logits, truth[::-1], ("drop", "throw"), 1.0)["map"] == pytest.approx(0.5)

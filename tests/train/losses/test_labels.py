"""Cross-entropy with class weights, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.train.losses import class_weights, cross_entropy

LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
"""Probabilities 1/2 and 1/2, and 1/4 and 3/4."""
WEIGHTS = torch.tensor([2.0, 2 / 3])


def test_a_clip_counts_as_much_as_its_class() -> None:
    # -ln(1/2) = 0.693147 times 2, and -ln(3/4) = 0.287682 times 2/3; the mean is over clips, not over weights.
    found = cross_entropy(LOGITS, torch.tensor([0, 1]), class_weights=WEIGHTS)
    assert float(found) == pytest.approx((2 * 0.693147 + 2 / 3 * 0.287682) / 2, abs=1e-6)


def test_smoothing_is_weighted_with_its_clip() -> None:
    # The second clip: 0.95 of -ln(3/4) and 0.05 of -ln(1/4), 0.342613; the first is the same for both classes.
    found = cross_entropy(LOGITS, torch.tensor([0, 1]), label_smoothing=0.1, class_weights=WEIGHTS)
    assert float(found) == pytest.approx((2 * 0.693147 + 2 / 3 * 0.342613) / 2, abs=1e-6)


def test_batches_of_one_class_keep_their_weight() -> None:
    """Divided by the sum of its weights a batch of rare clips would count no more than one of frequent ones."""
    alone = cross_entropy(LOGITS[:1], torch.tensor([0]), class_weights=WEIGHTS)
    assert float(alone) == pytest.approx(2 * 0.693147, abs=1e-6)


def test_weights_are_those_of_the_classes() -> None:
    with pytest.raises(TrainingError, match=r"\(3,\) class weights for logits \(2, 2\)"):
        cross_entropy(LOGITS, torch.tensor([0, 1]), class_weights=torch.ones(3))


def test_balanced_weights() -> None:
    # 8 clips of 2 classes: 8 / (2 * 6) and 8 / (2 * 2)
    assert class_weights([6, 2]).tolist() == pytest.approx([2 / 3, 2.0])
    assert class_weights([6, 2, 0]).tolist() == pytest.approx([2 / 3, 2.0, 1.0])


def test_named_weights_have_the_mean_one() -> None:
    # 6 clips of 1 and 2 of 3 make 12 over 8 clips: divided by 1.5
    assert class_weights([6, 2], {1: 3.0}).tolist() == pytest.approx([1 / 1.5, 2.0])

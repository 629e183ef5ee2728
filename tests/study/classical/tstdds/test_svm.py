from __future__ import annotations

import numpy as np

from kd_edge.study.classical.tstdds.svm import LinearClassifier, choose

CORNERS = np.float32([[1, 0], [0, 1], [-1, -1]])


def test_every_class_wins_in_its_corner() -> None:
    svm = LinearClassifier(np.repeat(CORNERS, 4, axis=0), np.repeat([0, 1, 2], 4), c=1.0, seed=0)
    decisions = svm.decisions(CORNERS * 3)
    assert decisions.shape == (3, 3)
    assert decisions.argmax(axis=1).tolist() == [0, 1, 2]
    assert svm.parameters == 3 * 2 + 3


def test_two_classes_have_two_opposite_decisions() -> None:
    svm = LinearClassifier(np.float32([[2, 0], [-2, 0]]), np.array([1, 0]), c=1.0, seed=0)
    decisions = svm.decisions(np.float32([[3, 1], [-1, 0]]))
    np.testing.assert_array_equal(decisions[:, 0], -decisions[:, 1])
    assert decisions.argmax(axis=1).tolist() == [1, 0]


def test_the_smallest_of_equally_good_c_is_chosen() -> None:
    train = (np.repeat(CORNERS, 4, axis=0), np.repeat([0, 1, 2], 4))
    svm, accuracy = choose([10.0, 0.5, 1.0], train, (CORNERS, np.array([0, 1, 2])), seed=0)
    assert (svm.c, accuracy) == (0.5, 1.0)


def test_the_c_with_the_best_validation_accuracy_is_chosen() -> None:
    # A mislabelled outlier far out: a large C bends the plane towards it, a small one ignores it.
    rng = np.random.default_rng(0)
    side = np.repeat([0, 1], 20)
    points = np.stack([np.where(side == 1, 1.0, -1.0) + rng.normal(0, 0.2, 40), rng.normal(0, 0.2, 40)], axis=1)
    train = np.concatenate([points, [[0.6, 3.0], [0.7, 2.5]]]).astype(np.float32)
    labels = np.append(side, [0, 0])
    held_out = np.float32([[0.5, 1.2], [0.9, 1.5], [-0.5, -1.2], [-0.9, -1.5]])
    truth = np.array([1, 1, 0, 0])
    scores = {
        c: float((LinearClassifier(train, labels, c, 0).decisions(held_out).argmax(1) == truth).mean())
        for c in (0.02, 100.0)
    }
    assert scores[0.02] > scores[100.0]  # so that the choice is one
    svm, accuracy = choose([0.02, 100.0], (train, labels), (held_out, truth), seed=0)
    assert (svm.c, accuracy) == (0.02, scores[0.02])

"""The classifier of TSTDDs: a linear SVM, one class against the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kd_edge import metrics
from kd_edge.types import Float32, Int64


class LinearClassifier:
    """A fitted ``sklearn.svm.LinearSVC``.

    Args:
        vectors: (N, W) of the training clips.
        labels: (N,) int64, every class 0..K-1 at least once.
        c: Weight of the training errors.
        seed: Seed of the order in which the solver visits the clips.
    """

    def __init__(self, vectors: Float32, labels: Int64, c: float, seed: int) -> None:
        from sklearn.svm import LinearSVC  # reading a configuration must not wait for scikit-learn

        self.c = c
        self._svm = LinearSVC(C=c, dual="auto", max_iter=20_000, random_state=seed).fit(vectors, labels)

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return int(self._svm.coef_.size + self._svm.intercept_.size)

    def decisions(self, vectors: Float32) -> npt.NDArray[np.float64]:
        """Signed distances (N, K) to the classes' planes; of two classes scikit-learn keeps one plane."""
        values: npt.NDArray[np.float64] = np.asarray(self._svm.decision_function(vectors))
        return np.stack([-values, values], axis=1) if values.ndim == 1 else values


def choose(
    choices: Sequence[float], train: tuple[Float32, Int64], validation: tuple[Float32, Int64], seed: int
) -> tuple[LinearClassifier, float]:
    """The classifier whose C has the best validation accuracy, the smallest of equals, and that accuracy.

    Args:
        choices: Values of C.
        train: Vectors (N, W) and labels (N,) to fit on.
        validation: Vectors (N, W) and labels (N,) to choose C by.
        seed: Seed of the order in which the solver visits the clips.
    """
    fitted = [LinearClassifier(*train, c, seed) for c in sorted(choices)]
    vectors, labels = validation
    scores = [metrics.accuracy(svm.decisions(vectors).argmax(1), labels) for svm in fitted]
    best = int(np.argmax(scores))  # the first of equals
    return fitted[best], scores[best]

"""Collaborative representation: all training vectors together explain a new one; the class that explains it best wins.

    min_c |y - A c|^2 + lambda |G c|^2,   G = diag(|y - a_1|, ..., |y - a_N|)
    c = (A^T A + lambda G^T G)^-1 A^T y,   class = argmin_k |y - A_k c_k|

Source: Zhang, Yang, Feng, "Sparse representation or collaborative representation", ICCV 2011; with the
distance-weighted Tikhonov matrix G of Chen, Liu, Kehtarnavaz, J. Real-Time Image Processing 2013. Fusion of decisions:
Chen, Jafari, Kehtarnavaz, "A Real-Time Human Action Recognition System Using Depth and Inertial Sensor Fusion", IEEE
Sensors Journal 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kd_edge.metrics import log_softmax
from kd_edge.types import Int64

_Float64 = npt.NDArray[np.float64]

_SOFTENING = 1e-12  # of the mean diagonal of A^T A: copies of y among the training vectors are not penalised


class CollaborativeRepresentation:
    """The training vectors are the model.

    Args:
        vectors: (N, D) of the training clips; scaled to Euclidean length 1 beforehand, or not at all.
        labels: (N,) int64 in 0..K-1.
        classes: Number K of classes; the residual of one without a training vector is the length of ``y``.
        regularisation: lambda > 0.
    """

    def __init__(self, vectors: npt.NDArray[np.floating], labels: Int64, classes: int, regularisation: float) -> None:
        self._vectors = np.asarray(vectors, dtype=np.float64)
        self._gram = self._vectors @ self._vectors.T
        self._gram += _SOFTENING * np.trace(self._gram) / len(labels) * np.eye(len(labels))
        self._members = np.equal.outer(np.arange(classes), labels)  # (K, N)
        self.regularisation = regularisation

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return self._vectors.size

    def coefficients(self, query: npt.NDArray[np.floating]) -> _Float64:
        """Weights c (N,) of one vector (D,)."""
        y = np.asarray(query, dtype=np.float64)
        squared = ((self._vectors - y) ** 2).sum(axis=1)
        solved = np.linalg.solve(self._gram + self.regularisation * np.diag(squared), self._vectors @ y)
        return np.asarray(solved, dtype=np.float64)

    def residuals(self, queries: npt.NDArray[np.floating]) -> _Float64:
        """Euclidean residuals (Q, K) of vectors (Q, D), one per class; the least one is the answer."""
        found = np.empty((len(queries), len(self._members)))
        for row, query in enumerate(np.asarray(queries, dtype=np.float64)):
            parts = (self._members * self.coefficients(query)) @ self._vectors  # (K, D)
            found[row] = np.linalg.norm(query - parts, axis=1)
        return found


def opinion_pool(residuals: Sequence[_Float64], weights: Sequence[float]) -> _Float64:
    """Logarithmic opinion pool of classifiers whose belief in a class is ``exp(-residual)``.

    Args:
        residuals: (Q, K) of each classifier.
        weights: Weight of each classifier; they sum to 1.

    Returns:
        (Q, K) log of the pooled probabilities, each row normalised: ``exp`` of it sums to 1.
    """
    beliefs = [log_softmax(-values) for values in residuals]
    return log_softmax(np.sum([w * belief for w, belief in zip(weights, beliefs, strict=True)], axis=0))

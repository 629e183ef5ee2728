"""Fit the row of a new class: a regularised linear discriminant on a window's mean feature, in closed form, in NumPy.

The new class is separated from all others by one number, its log-odds ``w x + b``, where x is the mean feature of a
window. Let m_k be the means of the other classes and C their covariance within the classes (both in units of the
deviation within the classes), m the mean of the new class and B the covariance of the m_k. The direction is Fisher's,

    w = (C + B + RIDGE * 1)^-1 (m - mean of the m_k).

The scores of the new class are held out (mean ``new``, standard deviation ``s_new``, at least that of C); the other
side is the class with the largest score (mean ``old``, ``s_old = sqrt(w C w)``). The limit is equally many standard
deviations from both, and the slope is that of two normal distributions with the geometric mean of both variances:

    limit = (new s_old + old s_new) / (s_old + s_new)        slope = (new - old) / (s_old s_new)

All classes have the same prior; with K other classes this adds ``- log K``.

Source: Fisher, "The use of multiple measurements in taxonomic problems", 1936; Friedman, "Regularized Discriminant
Analysis", JASA 1989.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.health import FeatureReference
from kd_edge.types import Float32, Int64

Float64 = npt.NDArray[np.float64]

RIDGE = 1.0
"""Variance that unseen people add in every direction, in units of the variance within the classes."""
_LEAST_DEVIATION = 1e-3


class Others(NamedTuple):
    """Feature statistics of the existing classes.

    Attributes:
        deviation: (D,) standard deviation within the classes, the unit of the other attributes.
        means: (K, D) mean of each class.
        factors: (R, D) F such that F^T F plus ``rest`` times the identity is the covariance within the classes.
        rest: Variance in every direction.
    """

    deviation: Float64
    means: Float64
    factors: Float64
    rest: float

    @classmethod
    def of_reference(cls, reference: FeatureReference) -> Others:
        """Read the statistics that an artifact stores."""
        means, deviation, directions = (array.astype(np.float64) for array in reference.arrays())
        above = np.sqrt(np.maximum(np.asarray(reference.variances) - reference.rest, 0))
        return cls(deviation, means / deviation, above[:, None] * directions, reference.rest)

    @classmethod
    def of_windows(cls, features: Float32, labels: Int64) -> Others:
        """Estimate the statistics from windows (N, D) of two or more classes, any number of each."""
        classes, of = np.unique(labels, return_inverse=True)
        values = features.astype(np.float64)
        means = np.stack([values[of == k].mean(axis=0) for k in range(len(classes))])
        residuals = values - means[of]
        deviation = np.maximum(np.sqrt((residuals**2).mean(axis=0)), _LEAST_DEVIATION)
        return cls(deviation, means / deviation, residuals / deviation / np.sqrt(len(values)), 0.0)

    def joined_by(self, mean: Float64) -> Others:
        """Return the statistics with one more class, given its mean feature (D,)."""
        return self._replace(means=np.vstack([self.means, mean / self.deviation]))

    def directions(self, means: Float64) -> Float64:
        """Return Fisher's direction for each of several means (F, D) of a new class: (F, D), for unscaled features."""
        centre = self.means.mean(axis=0)
        between = (self.means - centre) / np.sqrt(len(self.means))
        low_rank = np.vstack([self.factors, between])  # (R + K, D)
        wanted = means / self.deviation - centre  # (F, D)
        rest = self.rest + RIDGE
        if len(low_rank) > len(self.deviation):  # many kept windows
            dense = rest * np.eye(len(self.deviation)) + low_rank.T @ low_rank
            return np.linalg.solve(dense, wanted.T).T / self.deviation
        # (rest 1 + G'G)^-1 v = (v - G'(rest 1 + GG')^-1 G v) / rest: one equation per factor, not D
        inner = np.linalg.solve(rest * np.eye(len(low_rank)) + low_rank @ low_rank.T, low_rank @ wanted.T)
        solved: Float64 = (wanted - (low_rank.T @ inner).T) / rest
        return solved / self.deviation

    def spread(self, direction: Float64) -> float:
        """Return the standard deviation of ``direction @ feature`` within a class."""
        scaled = direction * self.deviation
        return float(np.sqrt(self.rest * scaled @ scaled + ((self.factors @ scaled) ** 2).sum()))


class Gate(NamedTuple):
    """Log-odds of a new class against all earlier ones: ``weights @ feature + bias``.

    Attributes:
        weights: (D,) float32, for the mean feature of a window.
        bias: Constant term.
    """

    weights: Float32
    bias: float

    def __call__(self, features: Float32) -> Float64:
        """(N, D) -> (N,)."""
        values: Float64 = features.astype(np.float64) @ self.weights.astype(np.float64) + self.bias
        return values


class Fit(NamedTuple):
    """A fitted gate and how good it is.

    Attributes:
        gate: Fitted on all windows.
        held_out: (N,) log-odds of each window by a direction fitted without its fold.
        separation: Distance of both sides from the limit between them, in standard deviations of each side.
        nearest: Position of the class on the other side.
    """

    gate: Gate
    held_out: Float64
    separation: float
    nearest: int


class Scored(NamedTuple):
    """Recorded windows of the other classes: features (N, D) and classes (N,)."""

    features: Float32
    labels: Int64


def fit_gate(others: Others, features: Float32, folds: Int64, kept: Scored | None = None) -> Fit:
    """Fit the row of a new class.

    Args:
        others: Statistics of the other classes.
        features: (N, D) mean features of the new class's windows.
        folds: (N,) fold of each window, two or more; folds are left out in turn.
        kept: Recorded windows of the other classes. They can only move the other side closer and widen it.

    Raises:
        ValueError: Features do not vary within a class, or are so far from all others that the row is not finite.
    """
    values = features.astype(np.float64)
    parts = np.unique(folds)
    means = np.stack([*(values[folds != part].mean(axis=0) for part in parts), values.mean(axis=0)])
    *without, direction = others.directions(means)
    held_out = np.empty(len(values))
    for part, own in zip(parts, without, strict=True):
        held_out[folds == part] = values[folds == part] @ own
    spread = others.spread(direction)
    new, s_new = float(held_out.mean()), max(float(held_out.std()), spread)
    of_classes = others.means @ (direction * others.deviation)  # (K,)
    s_old = spread
    if kept is not None:
        scores = kept.features.astype(np.float64) @ direction
        classes, of = np.unique(kept.labels, return_inverse=True)
        seen = np.array([scores[of == k].mean() for k in range(len(classes))])
        of_classes[classes] = np.maximum(of_classes[classes], seen)
        s_old = max(s_old, float((scores - seen[of]).std()))
    nearest = int(of_classes.argmax())
    old = float(of_classes[nearest])
    if not min(s_old, s_new) > 0:
        raise ValueError("features do not differ within a class")
    limit, slope = (new * s_old + old * s_new) / (s_old + s_new), (new - old) / (s_old * s_new)
    bias = -slope * limit - float(np.log(len(of_classes)))
    gate = Gate((slope * direction).astype(np.float32), bias)
    if not (np.isfinite(gate.weights).all() and np.isfinite(bias)):
        raise ValueError("the row of the new class is not finite")
    return Fit(gate, slope * held_out + bias, (new - old) / (s_old + s_new), nearest)


def gated(logits: Float32, log_odds: Float64, temperature: float) -> Float32:
    """Append one class to logits; its probability is the logistic function of its log-odds.

    The other logits, and with them the ratios of the other probabilities, stay unchanged.

    Args:
        logits: (N, K).
        log_odds: (N,).
        temperature: Divides the logits before the softmax.

    Returns:
        (N, K + 1): ``temperature * (log_odds + log sum exp(logits / temperature))`` in the last column.
    """
    most = logits.max(axis=1).astype(np.float64)
    total = np.exp((logits - most[:, None]) / temperature).sum(axis=1)
    new = most + temperature * (np.log(total) + log_odds)
    with np.errstate(
        over="ignore"
    ):  # no network has logits of that scale; the written file is checked for finite values
        return np.concatenate([logits, new[:, None].astype(np.float32)], axis=1)

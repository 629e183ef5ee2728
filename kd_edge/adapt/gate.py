"""Fit the row of a new class: a regularised linear discriminant on a window's mean feature, in NumPy, in closed form.

The new class is told from all others by one number, ``w x + b`` of the window's mean feature x, its log-odds. With the
others' class means m_k and their covariance within the classes C (both in units of the deviation within the classes),
the new class's mean m and B the covariance of the m_k, the direction is Fisher's,

    w = (C + B + RIDGE * 1)^-1 (m - mean of the m_k).

Scores of the new class are those of clips that w was fitted without (mean ``new``, standard deviation ``s_new``, at
least that of C); the other side is the class with the largest score (``old``, ``s_old = sqrt(w C w)``). The limit lies
equally many standard deviations from both, and the slope is that of two normal distributions whose variance is the
geometric mean of both:

    limit = (new s_old + old s_new) / (s_old + s_new)        slope = (new - old) / (s_old s_new)

All classes are taken to be equally likely before anything is seen: of K others and a new one, ``- log K``.

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
"""Variance that people who were never seen add in every direction, in units of the variance within the classes."""
_LEAST_DEVIATION = 1e-3


class Others(NamedTuple):
    """What the features of the classes that are there already are like.

    Attributes:
        deviation: (D,) standard deviation within the classes, the unit of what follows.
        means: (K, D) mean of each class.
        factors: (R, D); their products sum to the covariance within the classes, less ``rest`` in every direction.
        rest: Variance in every direction.
    """

    deviation: Float64
    means: Float64
    factors: Float64
    rest: float

    @classmethod
    def of_reference(cls, reference: FeatureReference) -> Others:
        """As an artifact carries them."""
        means, deviation, directions = (array.astype(np.float64) for array in reference.arrays())
        above = np.sqrt(np.maximum(np.asarray(reference.variances) - reference.rest, 0))
        return cls(deviation, means / deviation, above[:, None] * directions, reference.rest)

    @classmethod
    def of_windows(cls, features: Float32, labels: Int64) -> Others:
        """Of windows (N, D) of two classes or more; one class's may be any number."""
        classes, of = np.unique(labels, return_inverse=True)
        values = features.astype(np.float64)
        means = np.stack([values[of == k].mean(axis=0) for k in range(len(classes))])
        residuals = values - means[of]
        deviation = np.maximum(np.sqrt((residuals**2).mean(axis=0)), _LEAST_DEVIATION)
        return cls(deviation, means / deviation, residuals / deviation / np.sqrt(len(values)), 0.0)

    def joined_by(self, mean: Float64) -> Others:
        """With one more class, of which the mean feature (D,) is known."""
        return self._replace(means=np.vstack([self.means, mean / self.deviation]))

    def directions(self, means: Float64) -> Float64:
        """Fisher's directions (F, D) for each of several means (F, D) of a new class, as units of a feature."""
        centre = self.means.mean(axis=0)
        between = (self.means - centre) / np.sqrt(len(self.means))
        low_rank = np.vstack([self.factors, between])  # (R + K, D)
        wanted = means / self.deviation - centre  # (F, D)
        rest = self.rest + RIDGE
        if len(low_rank) > len(self.deviation):  # of many kept windows
            dense = rest * np.eye(len(self.deviation)) + low_rank.T @ low_rank
            return np.linalg.solve(dense, wanted.T).T / self.deviation
        # (rest 1 + G'G)^-1 v = (v - G'(rest 1 + GG')^-1 G v) / rest: as many equations as factors, not as D
        inner = np.linalg.solve(rest * np.eye(len(low_rank)) + low_rank @ low_rank.T, low_rank @ wanted.T)
        solved: Float64 = (wanted - (low_rank.T @ inner).T) / rest
        return solved / self.deviation

    def spread(self, direction: Float64) -> float:
        """Standard deviation within a class of ``direction @ feature``."""
        scaled = direction * self.deviation
        return float(np.sqrt(self.rest * scaled @ scaled + ((self.factors @ scaled) ** 2).sum()))


class Gate(NamedTuple):
    """Log-odds of a new class against all before it: ``weights @ feature + bias``.

    Attributes:
        weights: (D,) float32, for the mean feature of a window.
        bias: What is added.
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
        held_out: (N,) log-odds of each window by a direction that its fold had no part in.
        separation: By how many standard deviations of each side both lie apart from the limit between them.
        nearest: Position of the class on the other side.
    """

    gate: Gate
    held_out: Float64
    separation: float
    nearest: int


class Scored(NamedTuple):
    """Windows of recordings of the other classes: (N, D) features and the class (N,) of each."""

    features: Float32
    labels: Int64


def fit_gate(others: Others, features: Float32, folds: Int64, kept: Scored | None = None) -> Fit:
    """Fit the row of a new class.

    Args:
        others: The classes it is told from.
        features: (N, D) mean features of the new class's windows.
        folds: (N,) which part each belongs to; parts are left out in turn, so two or more.
        kept: Windows of the other classes that were recorded here; the other side is then no nearer and no narrower
            than they show.

    Raises:
        ValueError: Features do not differ within a class, or are so far from all others that the row is not finite.
    """
    values = features.astype(np.float64)
    parts = np.unique(folds)
    means = np.stack([*(values[folds != part].mean(axis=0) for part in parts), values.mean(axis=0)])
    *without, direction = others.directions(means)
    held_out = np.empty(len(values))
    for part, its in zip(parts, without, strict=True):
        held_out[folds == part] = values[folds == part] @ its
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
    """Logits with one more class, whose probability is the logistic function of its log-odds.

    The others' logits stay as they are, and so does the share that each has of what is left of the probability.

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
    with np.errstate(over="ignore"):  # of a scale that no network has; what is written is proved to be finite
        return np.concatenate([logits, new[:, None].astype(np.float32)], axis=1)

"""Metrics: accuracy, F1, average precision, calibration, paired intervals; numpy only.

Labels and predictions are class indices 0..K-1; higher scores are better; results are fractions in [0, 1] unless
documented otherwise. Mismatched shapes and labels out of range raise ``KdEdgeError``. The metrics for detection in
untrimmed video are defined in ``kd_edge.detection`` and re-exported here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.detection import (
    Detection,
    detection_average_precision,
    detection_f1,
    interval_overlap,
    map_action,
    map_video,
    two_d_average_precision,
)
from kd_edge.errors import KdEdgeError

__all__ = [
    "Detection",
    "Interval",
    "Reliability",
    "accuracy",
    "average_precision",
    "confusion",
    "detection_average_precision",
    "detection_f1",
    "expected_calibration_error",
    "figures",
    "fit_temperature",
    "fit_unknown_threshold",
    "interval_overlap",
    "log_softmax",
    "macro_f1",
    "map_action",
    "map_video",
    "mean_average_precision",
    "negative_log_likelihood",
    "paired_interval",
    "per_class_accuracy",
    "proportion_interval",
    "reliability",
    "row_shares",
    "sakdn_fmeasure",
    "softmax",
    "top_k",
    "two_d_average_precision",
    "worst_confusions",
]

Array = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]
Float64 = npt.NDArray[np.float64]
_DISTANCES = 1 << 22
"""Upper limit for the number of distances in memory at once, 32 MB."""


# ---------------------------------------------------------------------------------------------- classification


def accuracy(predictions: Labels, labels: Labels) -> float:
    """Share of predictions (N,) equal to labels (N,); -1 means no answer and is never correct."""
    _check_same_length(predictions, labels, "predictions")
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def top_k(scores: Array, labels: Labels, k: int) -> float:
    """Share of samples whose label is among the ``k`` highest scores.

    Args:
        scores: (N, K), any monotone score.
        labels: (N,) integers.
        k: At least 1; K or more gives 1.0. Ties are ranked by class index, lower first, as in ``argmax``.
    """
    _check_scores(scores, labels)
    best = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    return float(np.mean(np.any(best == np.asarray(labels)[:, None], axis=1)))


def confusion(predictions: Labels, labels: Labels, classes: int) -> npt.NDArray[np.int64]:
    """Confusion matrix of counts (K, K) int64: rows are the truth, columns the predictions."""
    _check_same_length(predictions, labels, "predictions")
    _check_range(labels, classes, "label")
    _check_range(predictions, classes, "prediction")
    flat = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def per_class_accuracy(predictions: Labels, labels: Labels, classes: int) -> Float64:
    """Recall of each class, (K,) float64; NaN for a class without a sample."""
    counts = confusion(predictions, labels, classes)
    return _ratio(np.diag(counts), counts.sum(axis=1), empty=np.nan)


def row_shares(counts: npt.ArrayLike) -> Float64:
    """Normalise counts (K, K) by row, float64; rows of zeros stay zero."""
    table = np.asarray(counts, dtype=np.float64)
    return _ratio(table, table.sum(axis=1, keepdims=True), empty=0.0)


def worst_confusions(counts: npt.ArrayLike, most: int = 10) -> list[tuple[int, int]]:
    """Return the confused pairs (true, predicted) of classes, the largest share of the true class first.

    Args:
        counts: (K, K), rows are the truth; ties are ordered by class index.
        most: Largest number of pairs.
    """
    shares = row_shares(counts)
    np.fill_diagonal(shares, 0.0)
    order = np.argsort(-shares, axis=None, kind="stable")[:most]
    return [(i, j) for i, j in (divmod(int(at), len(shares)) for at in order) if shares[i, j] > 0]


def macro_f1(predictions: Labels, labels: Labels, classes: int) -> float:
    """Mean F1 over the classes that occur among the labels or the predictions: the only definition used in kd-edge.

    A class that is predicted but has no sample counts as 0, so that a wrong answer costs the same whether or not its
    class has samples; a class that occurs in neither is left out. On a whole test split, where every class has
    samples, all common definitions agree. Source: scikit-learn's ``f1_score(average="macro")``; see docs/adr/016.

    Args:
        predictions: (N,) integers; -1 means no answer: a miss of the sample's class that predicts no other class.
        labels: (N,) integers.
        classes: Number K of classes.
    """
    _check_same_length(predictions, labels, "predictions")
    predicted, truth = np.asarray(predictions), np.asarray(labels)
    right = _occurrences(truth[predicted == truth], classes, "label")
    occurrences = _occurrences(truth, classes, "label") + _occurrences(
        predicted[predicted != -1], classes, "prediction"
    )
    return float(np.mean((2 * right / np.maximum(occurrences, 1))[occurrences > 0]))


def _occurrences(values: Labels, classes: int, name: str) -> npt.NDArray[np.int64]:
    """Count how often each class occurs, (K,) int64."""
    _check_range(values, classes, name)
    return np.bincount(np.asarray(values, dtype=np.int64), minlength=classes).astype(np.int64)


def sakdn_fmeasure(logits: Array, labels: Labels) -> float:
    """The "F-measure" of SAKDN's code: harmonic mean of top-1 accuracy and retrieval recall@1.

    Recall@1 is the share of samples whose nearest other sample (Euclidean, between logits) has the same label. The
    result is not the F1 of precision and recall (``macro_f1``), and depends on which samples are scored together.

    Args:
        logits: (N, K), finite; for equally near samples and equal logits the first counts.
        labels: (N,) integers.

    Returns:
        The harmonic mean, 0 if both are 0; a single sample has no neighbour and recall 0.

    Source: the public code of Liu et al., "Semantics-aware Adaptive Knowledge Distillation for Sensor-to-Vision Action
    Recognition", whose tables report it.
    """
    _check_scores(logits, labels)
    labels = np.asarray(labels)
    right = accuracy(np.argmax(logits, axis=1), labels)
    recall = float(np.mean(labels[_nearest(logits)] == labels)) if len(labels) > 1 else 0.0
    return 2 * right * recall / (right + recall) if right + recall else 0.0


def _nearest(vectors: Array) -> npt.NDArray[np.int64]:
    """Return the index (N,) of each vector's nearest other vector."""
    points = np.asarray(vectors, dtype=np.float64)
    points = points - points[0]  # a common offset would cost precision
    squares, rows = np.sum(points**2, axis=1), max(1, _DISTANCES // len(points))
    nearest = np.empty(len(points), dtype=np.int64)
    for start in range(0, len(points), rows):
        chunk = points[start : start + rows]
        distances = squares - 2 * chunk @ points.T  # without the row's own square, which is constant along the row
        distances[np.arange(len(chunk)), np.arange(start, start + len(chunk))] = np.inf
        nearest[start : start + rows] = distances.argmin(axis=1)
    return nearest


def average_precision(scores: Array, positives: npt.NDArray[np.bool_]) -> float:
    """Area under the precision-recall steps: ``sum_n (R_n - R_(n-1)) P_n``, with equal scores as one step.

    Args:
        scores: (N,) score of the class.
        positives: (N,) bool, which samples belong to it.

    Returns:
        The area (scikit-learn's ``average_precision_score``); NaN without positives.
    """
    scores, positives = np.asarray(scores), np.asarray(positives, dtype=bool)
    _check_same_length(scores, positives, "scores")
    if not positives.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(positives[order])[last_of_tie]
    ranks = (np.flatnonzero(last_of_tie) + 1).astype(np.float64)
    return float(np.sum(np.diff(hits, prepend=0) * hits / ranks) / positives.sum())


def mean_average_precision(scores: Array, labels: Labels) -> float:
    """Mean of the per-class average precision, one class against the rest, over the classes with samples.

    Args:
        scores: (N, K).
        labels: (N,) integers.
    """
    _check_scores(scores, labels)
    scores, labels = np.asarray(scores), np.asarray(labels)
    return float(np.mean([average_precision(scores[:, c], labels == c) for c in np.unique(labels)]))


# ------------------------------------------------------------------------------------------------- calibration


def softmax(logits: Array, temperature: float = 1.0) -> Float64:
    """Probabilities ``exp(z / temperature) / sum`` over the last axis, finite for any finite logits; float64."""
    if not temperature > 0:
        raise KdEdgeError(f"temperature {temperature}", "a positive number", "check the fitted temperature")
    scaled: Float64 = np.divide(logits, temperature, dtype=np.float64)
    scaled -= np.maximum.reduce(scaled, axis=-1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= np.add.reduce(scaled, axis=-1, keepdims=True)
    return scaled


def softmax_row(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """``softmax`` of one sample in plain floats, equal to within 1e-15: faster in a stream, where caches are cold.

    Args:
        logits: K numbers; a non-finite one may make all probabilities NaN.
        temperature: Positive.
    """
    largest = max(logits) / temperature
    terms = [math.exp(logit / temperature - largest) for logit in logits]
    total = sum(terms)
    return [term / total for term in terms]


def log_softmax(logits: Array, temperature: float = 1.0) -> Float64:
    """Logarithm of ``softmax`` over the last axis, finite for any finite logits; float64."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    top = scaled.max(axis=-1, keepdims=True)
    return np.asarray(scaled - (top + np.log(np.exp(scaled - top).sum(axis=-1, keepdims=True))))


def expected_calibration_error(probabilities: Array, labels: Labels, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, weighted by samples, over equal-width bins ``(k/bins, (k+1)/bins]``.

    Args:
        probabilities: (N, K), rows sum to 1; the confidence is the largest value of a row.
        labels: (N,) integers.
        bins: Number of bins.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 5.
    """
    return reliability(probabilities, labels, bins).error


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Accuracy by confidence, in equal-width bins ``(k/bins, (k+1)/bins]``.

    Attributes:
        counts: Number of samples in each bin, (bins,) int64.
        confidence: Mean confidence in each bin, (bins,) float64; NaN for an empty bin.
        accuracy: Accuracy in each bin, (bins,) float64; NaN for an empty bin.
    """

    counts: npt.NDArray[np.int64]
    confidence: Float64
    accuracy: Float64

    @property
    def error(self) -> float:
        """Mean gap between confidence and accuracy, weighted by samples."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability(probabilities: Array, labels: Labels, bins: int = 15) -> Reliability:
    """Compute the data of a reliability diagram.

    Args:
        probabilities: (N, K), rows sum to 1; the confidence is the largest value of a row.
        labels: (N,) integers.
        bins: Number of bins.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Fig. 1.
    """
    _check_scores(probabilities, labels)
    confidence = np.max(probabilities, axis=1).astype(np.float64)
    right = np.argmax(probabilities, axis=1) == np.asarray(labels)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins).astype(np.int64)
    confidence, accuracy = (
        _ratio(np.bincount(bin_of, weights=sums, minlength=bins), counts, empty=np.nan) for sums in (confidence, right)
    )
    return Reliability(counts, confidence, accuracy)


def negative_log_likelihood(logits: Array, labels: Labels, temperature: float = 1.0) -> float:
    """Mean ``-log softmax(z / temperature)[label]`` in nats, finite for any finite logits."""
    _check_scores(logits, labels)
    logs = log_softmax(logits, temperature)
    return float(-np.mean(logs[np.arange(len(logs)), np.asarray(labels)]))


def figures(scores: Array, labels: Labels, names: Sequence[str], *, temperature: float | None) -> dict[str, Any]:
    """Compute all metrics of a summary as plain JSON values; None for a class without samples.

    Args:
        scores: (N, K): logits, or any scores of which the highest is the prediction.
        labels: (N,) integers.
        names: Names of the K classes.
        temperature: Divisor of the logits before the softmax. None for scores that are not logits (such as an SVM's):
            the calibration error is then None, and average precisions use the scores themselves.
    """
    classes, predictions = len(names), np.asarray(scores).argmax(1)
    ranked = scores if temperature is None else softmax(scores, temperature)
    recall = per_class_accuracy(predictions, labels, classes)
    return {
        "accuracy": accuracy(predictions, labels),
        "top5": top_k(scores, labels, 5),
        "macro_f1": macro_f1(predictions, labels, classes),
        "map": mean_average_precision(ranked, labels),
        "sakdn_f": sakdn_fmeasure(scores, labels),
        "ece": None if temperature is None else expected_calibration_error(ranked, labels),
        "per_class": {n: None if np.isnan(r) else float(r) for n, r in zip(names, recall, strict=True)},
        "confusion": confusion(predictions, labels, classes).tolist(),
    }


def fit_temperature(logits: Array, labels: Labels, *, bounds: tuple[float, float] = (0.2, 10.0)) -> float:
    """Fit the temperature with the smallest negative log likelihood, by golden-section search over its logarithm.

    The negative log likelihood is convex in ``1 / temperature``, so the minimum inside the bounds is unique. If all
    predictions are correct, there is no minimum, because ever lower temperatures fit better; the temperature stays 1.

    Args:
        logits: (N, K) of validation samples the model was not trained on.
        labels: (N,) integers.
        bounds: Smallest and largest temperature.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.
    """
    _check_scores(logits, labels)
    if np.array_equal(np.argmax(logits, axis=1), labels):
        return 1.0
    low, high = np.log(bounds[0]), np.log(bounds[1])
    shrink = (np.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        losses = [negative_log_likelihood(logits, labels, float(np.exp(at))) for at in (left, right)]
        low, high = (low, right) if losses[0] <= losses[1] else (left, high)
    return float(np.exp((low + high) / 2))


def fit_unknown_threshold(probabilities: Array, labels: Labels, *, keep: float = 0.95) -> float:
    """Fit the largest confidence threshold that still keeps the share ``keep`` of the correct predictions.

    A prediction is ``unknown`` if its confidence lies below the threshold.

    Args:
        probabilities: (N, K) calibrated probabilities of validation samples.
        labels: (N,) integers.
        keep: Share of correct predictions that must stay known, in (0, 1].

    Returns:
        The threshold, in [0, 1]; 0.0 (nothing is unknown) if no prediction is correct.
    """
    _check_scores(probabilities, labels)
    right = np.argmax(probabilities, axis=1) == np.asarray(labels)
    confidence = np.sort(np.max(probabilities, axis=1)[right])
    if confidence.size == 0:
        return 0.0
    return float(confidence[len(confidence) - int(np.ceil(round(keep * len(confidence), 9)))])


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference with its bootstrap interval, all as fractions."""

    difference: float
    low: float
    high: float


def paired_interval(
    right_a: npt.NDArray[np.bool_],
    right_b: npt.NDArray[np.bool_],
    subjects: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Accuracy of A minus accuracy of B on the same samples, with a percentile bootstrap over whole subjects.

    Args:
        right_a: (N,) bool, whether A is correct.
        right_b: (N,) bool, whether B is correct.
        subjects: (N,) subject of each sample; whole subjects are drawn with replacement, never single samples.
        level: Coverage of the interval.
        resamples: Number of bootstrap draws.
        seed: Seed of the random draws.

    Returns:
        The difference and its interval; with a single subject the interval has zero width and is meaningless.
    """
    _check_same_length(right_a, right_b, "right_a")
    _check_same_length(np.asarray(subjects), right_b, "subjects")
    gain = np.asarray(right_a, dtype=np.float64) - np.asarray(right_b, dtype=np.float64)
    names, of = np.unique(np.asarray(subjects), return_inverse=True)
    gains, sizes = np.bincount(of, weights=gain), np.bincount(of)
    draws = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    means = gains[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(gain.mean()), float(low), float(high))


def proportion_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of the success rate of independent trials; it has a width even if all succeed.

    Args:
        successes: At least 0, at most ``trials``.
        trials: At least 1.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise KdEdgeError(f"{successes} of {trials}", "0 <= successes <= trials, trials >= 1", "count again")
    share, squared = successes / trials, _NORMAL_95**2
    centre = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = _NORMAL_95 / (1 + squared / trials) * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2))
    return (centre - half if successes else 0.0), (centre + half if successes < trials else 1.0)


_NORMAL_95 = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""

# ------------------------------------------------------------------------------------------------------ checks


def _check_same_length(values: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], name: str) -> None:
    a, b = np.shape(values), np.shape(labels)
    if len(a) != 1 or a != b or a == (0,):
        raise KdEdgeError(f"{name} of shape {a} for {b}", "two equal shapes (N,), N >= 1", "pass one value per sample")


def _check_scores(scores: Array, labels: Labels) -> None:
    a, b = np.shape(scores), np.shape(labels)
    if len(a) != 2 or len(b) != 1 or a[0] != b[0] or b == (0,):
        raise KdEdgeError(f"scores of shape {a} for labels {b}", "(N, K) and (N,), N >= 1", "pass one row per sample")
    _check_range(labels, a[1], "label")


def _check_range(values: Labels, classes: int, name: str) -> None:
    values = np.asarray(values)
    if values.size and (values.min() < 0 or values.max() >= classes):
        worst = int(values.min()) if values.min() < 0 else int(values.max())
        raise KdEdgeError(f"{name} {worst}", f"an integer from 0 to {classes - 1}", "check the class list")


def _ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number], *, empty: float) -> Float64:
    result = np.full(np.shape(part), empty, dtype=np.float64)
    np.divide(part, whole, out=result, where=whole > 0)
    return result

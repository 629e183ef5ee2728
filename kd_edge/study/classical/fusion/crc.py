"""CRC and CRC-2: a collaborative representation classifier on depth motion maps and statistics of wearable sensors.

Sources: Chen, Jafari, Kehtarnavaz, "UTD-MHAD: A multimodal dataset for human action recognition utilizing a depth
camera and a wearable inertial sensor", ICIP 2015 (CRC); "A Real-Time Human Action Recognition System Using Depth and
Inertial Sensor Fusion", IEEE Sensors Journal 2016 (CRC-2).

What is kept: three motion maps per clip, cut to their bounding box, brought to fixed sizes and reduced by a PCA that is
fitted on training clips; mean, variance, standard deviation and root mean square of each axis in six windows; the
distance-weighted Tikhonov matrix; joined vectors (CRC), or a logarithmic opinion pool with equal weights (CRC-2).

What is ours, all of it chosen by leaving out training subjects: the maps' sizes and bins, occupied bins instead of
pixel counts, the front view only where both frames are measured (silhouettes differ by metres), a box that ignores
noise, statistics scaled one by one with length 1 for each sensor, the share of depth in the joined vector, and lambda.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_edge import metrics
from kd_edge.data import Sample
from kd_edge.errors import TrainingError
from kd_edge.rundir import Scores, StageReport
from kd_edge.study.classical.fusion.config import CrcConfig
from kd_edge.study.classical.fusion.inertial import window_statistics
from kd_edge.study.classical.fusion.motion_features import depth_vector, unit_length
from kd_edge.study.classical.fusion.recordings import Recordings, Reduction, gather, signal
from kd_edge.study.classical.fusion.representation import CollaborativeRepresentation, opinion_pool
from kd_edge.study.classical.results import Begin, Fitted, Progress
from kd_edge.train.results.scores import right_by_subject
from kd_edge.types import Int64

_Float64 = npt.NDArray[np.float64]


class CrcReport(StageReport):
    """What became of the classifiers.

    Attributes:
        left_out: Classifier -> lambda -> accuracy when every training subject is left out once.
    """

    left_out: dict[str, dict[str, float]]


def fit_crc(config: CrcConfig, data_root: Path | None, begin: Begin, report: Progress) -> Fitted:
    """Fit the classifiers and test them together; see ``Fit``.

    Raises:
        TrainingError: Nothing moves in the training clips.
    """
    recordings = gather(config, reductions(config), data_root, report)
    begin()
    train = recordings.sides["train"]
    chosen = {part: _choose(config, recordings, part, report) for part in parts(config)}
    fitted = [_Classifier(config, recordings, part, train, chosen[part].regularisation) for part in chosen]
    scores = {side: _scores(config, recordings, fitted, side) for side in ("validation", "test")}
    held_out = recordings.labels("validation")
    truth = recordings.labels("test")
    tested = metrics.figures(scores["test"], truth, recordings.dataset.labels, temperature=None)
    student = CrcReport(
        modality=config.modality,
        backbone="crc",
        temporal=config.fusion if config.depth and config.sensors else "alone",
        epochs=0,
        selected_epoch=0,
        selected_by="; ".join(f"{part}: lambda = {c.regularisation:g}, {c.why}" for part, c in chosen.items()),
        validation=_validation(scores["validation"], held_out),
        test=Scores(**tested, right=right_by_subject(recordings.sides["test"], scores["test"], truth)),
        parameters=sum(classifier.parameters for classifier in fitted),
        left_out={part: c.accuracies for part, c in chosen.items()},
    )
    return Fitted(recordings.dataset, recordings.protocol(config), recordings.fingerprint, student)


def parts(config: CrcConfig) -> dict[str, tuple[str, ...]]:
    """The classifiers of a run, and the modalities whose vectors each of them joins."""
    depth = (config.depth,) if config.depth else ()
    if config.fusion == "features" or not (config.depth and config.sensors):
        return {"joined" if depth and config.sensors else "depth" if depth else "sensors": depth + config.sensors}
    return {"depth": depth, "sensors": config.sensors}


def reductions(config: CrcConfig) -> dict[str, Reduction]:
    """Motion maps as one vector, signals as statistics."""
    motion, normalisation, windows = config.motion, config.normalisation, config.windows
    found = {}
    if config.depth:
        settings = {"motion": motion.model_dump(mode="json"), "normalisation": normalisation}
        found[config.depth] = Reduction(lambda clip: depth_vector(clip.frames, motion, normalisation), settings)
    for sensor in config.sensors:
        found[sensor] = Reduction(lambda clip: window_statistics(signal(clip), windows), {"windows": windows})
    return found


class _Classifier:
    """One classifier and what its vectors go through, fitted on training clips alone."""

    def __init__(
        self,
        config: CrcConfig,
        recordings: Recordings,
        part: str,
        train: Sequence[Sample],
        regularisation: float,
    ) -> None:
        self._spaces = [_Space(config, recordings, modality, train) for modality in parts(config)[part]]
        self._classes = recordings.classes
        labels = np.array([s.label for s in train], dtype=np.int64)
        self._model = CollaborativeRepresentation(self._vectors(train), labels, self._classes, regularisation)

    @property
    def parameters(self) -> int:
        """Number of stored values."""
        return self._model.parameters + sum(space.parameters for space in self._spaces)

    def _vectors(self, samples: Sequence[Sample]) -> _Float64:
        return np.concatenate([space.vectors(samples) for space in self._spaces], axis=1)

    def with_regularisation(self, regularisation: float) -> _Classifier:
        """A classifier of these training vectors under another lambda."""
        other = copy.copy(self)
        other._model = copy.copy(self._model)
        other._model.regularisation = regularisation
        return other

    def residuals(self, samples: Sequence[Sample]) -> _Float64:
        """(N, K)."""
        return self._model.residuals(self._vectors(samples)) if samples else np.zeros((0, self._classes))


class _Space:
    """The vectors of one modality: depth on principal axes, sensors by their largest values; then their length."""

    def __init__(self, config: CrcConfig, recordings: Recordings, modality: str, train: Sequence[Sample]) -> None:
        self._values = recordings.values[modality]
        given = self._stacked(train)
        is_depth = modality == config.depth
        if is_depth:
            _check_different(given, modality)
            from sklearn.decomposition import PCA  # reading a configuration must not wait for scikit-learn

            pca = PCA(config.variance, svd_solver="full").fit(given)
            self._mean, self._axes = pca.mean_, pca.components_.T  # (C,), (C, D)
        else:
            largest = np.abs(given).max(axis=0)
            scale = 1 / np.where(largest > 0, largest, 1) if config.scaling == "columns" else np.ones(len(largest))
            self._mean, self._axes = np.zeros(len(scale)), scale  # (C,), (C,)
        self._length = float(np.sqrt(_share(config, is_depth)))
        self.parameters = int(self._mean.size + self._axes.size)

    def vectors(self, samples: Sequence[Sample]) -> _Float64:
        """(N, D)."""
        centred = self._stacked(samples) - self._mean
        reduced = centred @ self._axes if self._axes.ndim == 2 else centred * self._axes
        return unit_length(reduced) * self._length

    def _stacked(self, samples: Sequence[Sample]) -> _Float64:
        return np.stack([self._values[s.id] for s in samples]).astype(np.float64)


def _check_different(vectors: _Float64, modality: str) -> None:
    if not np.ptp(vectors, axis=0).any():
        raise TrainingError(
            f"the motion maps of all {len(vectors)} training clips of '{modality}' are the same",
            "clips in which something moves",
            "check depth, motion.bin_mm and motion.range_mm",
        )


def _share(config: CrcConfig, is_depth: bool) -> float:
    """The modality's share of the squared length of a classifier's vectors."""
    if config.fusion == "decisions" or not (config.depth and config.sensors):
        return 1.0 if is_depth else 1 / len(config.sensors)
    return float(config.depth_weight) if is_depth else (1 - config.depth_weight) / len(config.sensors)


def _validation(scores: _Float64, truth: Int64) -> Scores | None:
    return Scores(accuracy=metrics.accuracy(scores.argmax(1), truth)) if len(truth) else None


def _scores(config: CrcConfig, recordings: Recordings, fitted: Sequence[_Classifier], side: str) -> _Float64:
    """(N, K); the highest is the answer."""
    residuals = [classifier.residuals(recordings.sides[side]) for classifier in fitted]
    if len(residuals) == 1:
        return -residuals[0]
    return opinion_pool(residuals, [config.depth_weight, 1 - config.depth_weight])


@dataclass(frozen=True)
class _Choice:
    """A lambda, why, and the accuracy of each when every training subject is left out once."""

    regularisation: float
    why: str
    accuracies: dict[str, float]


def _choose(config: CrcConfig, recordings: Recordings, part: str, report: Progress) -> _Choice:
    """The lambda that recognises training subjects best by the others."""
    train, choices = recordings.sides["train"], sorted(config.regularisation)
    subjects = sorted({s.subject for s in train})
    if len(choices) == 1 or len(subjects) == 1:
        return _Choice(choices[0], "fixed" if len(choices) == 1 else "the least: there is one training subject", {})
    right = np.zeros(len(choices))
    for done, subject in enumerate(subjects, 1):
        rest, left_out = ([s for s in train if (s.subject == subject) == out] for out in (False, True))
        fitted = _Classifier(config, recordings, part, rest, choices[0])
        truth = np.array([s.label for s in left_out], dtype=np.int64)
        for number, choice in enumerate(choices):
            right[number] += (fitted.with_regularisation(choice).residuals(left_out).argmin(1) == truth).sum()
        report(f"choosing lambda ({part})", done, len(subjects))
    best = len(choices) - 1 - int(np.argmax(right[::-1]))  # the last of equals
    accuracies = {f"{choice:g}": float(count / len(train)) for choice, count in zip(choices, right, strict=True)}
    return _Choice(choices[best], "best with each training subject left out once", accuracies)

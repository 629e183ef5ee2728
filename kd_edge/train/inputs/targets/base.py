"""Dense targets: what a richer modality says of every frame of the student's clips, scaled by the training clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kd_edge.data import Dataset, Sample
from kd_edge.errors import DataError
from kd_edge.train.inputs.draws import CropDraw
from kd_edge.types import Float32, Int64

LEAST_SPREAD = 1e-6
"""Of a group about its mean, in units of the mean where that is above 1: with less it is rounding that differs."""


@dataclass(frozen=True, slots=True)
class Group:
    """Numbers that share a scale.

    Attributes:
        name: Of the target, and of what they are of it.
        first: Position of the first number.
        count: How many.
        turns: Whether they are vectors (x, y, z) in the camera's frame, which a turned picture turns.
        weight: Factor in the loss.
        late: Whether they are known only later, see ``DenseTargets.complete``.
    """

    name: str
    first: int
    count: int
    turns: bool
    weight: float
    late: bool = False

    @property
    def columns(self) -> slice:
        """Their positions."""
        return slice(self.first, self.first + self.count)

    @property
    def root(self) -> str:
        """What it is of, by which it is told who lacks it."""
        return self.name.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class StudentClips:
    """The clips whose frames need targets.

    Attributes:
        dataset: The recordings.
        samples: Those that have a clip of the student's modality.
        stamps_ns: Sample id -> (N,) stamps of its frames, in order.
        sides: Training, validation and test samples, and those that a dense stage alone trains on: what is fitted is
            fitted on the first, and no clip is given another one's targets across them.
        seed: Where what is random of targets starts from.
        pictures: Sample -> (N, C, S, S) of its frames as evaluation sees them.
        progress: Called with (what, clips done, clips in all) where it takes long.
    """

    dataset: Dataset
    samples: tuple[Sample, ...]
    stamps_ns: Mapping[str, Int64]
    sides: tuple[tuple[Sample, ...], ...] = ()
    seed: int = 0
    pictures: Callable[[Sample], Float32] | None = None
    progress: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The numbers of one target.

    Attributes:
        groups: What they are; positions are counted from 0.
        values: Sample id -> (N, M) of the clip's frames; without the samples that lack it.
        lacking: Sample id -> why it is not there, by the name of what was looked for.
    """

    groups: tuple[Group, ...]
    values: Mapping[str, Float32]
    lacking: Mapping[str, Mapping[str, str]]


class DenseTargets:
    """Targets of all frames of some clips.

    Args:
        groups: What the numbers are.
        values: Sample id -> (N, M) of the clip's frames; NaN where the sample lacks a target.
        lacking: Name of a target -> sample id -> why it is not there.
        fingerprint: SHA-256 (hex) of the recordings' content.

    Attributes:
        size: M.
        weights: (M,) factor of each number in the loss.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        values: Mapping[str, Float32],
        lacking: Mapping[str, Mapping[str, str]],
        fingerprint: str,
    ) -> None:
        self.groups = tuple(groups)
        self.lacking = dict(lacking)
        self.fingerprint = fingerprint
        self.size = sum(group.count for group in groups)
        self.weights = np.concatenate([np.full(group.count, group.weight, np.float32) for group in groups])
        self._values = dict(values)
        self._mean = np.zeros(self.size, np.float32)
        self._scale = np.ones(self.size, np.float32)

    def __contains__(self, sample_id: object) -> bool:
        """Whether a sample has any target."""
        found = self._values.get(str(sample_id))
        return found is not None and not np.isnan(found).all()

    def fit(self, samples: Sequence[Sample], others: Sequence[Sample] = ()) -> None:
        """Scale by these samples: each number about its mean, by the spread that its group has about it.

        A group that none of them has is scaled by the ``others``. Groups that come late are scaled when they are there.

        Raises:
            DataError: Not one of them has a target of some group, or its numbers never change.
        """
        for group in self.groups:
            if not group.late:
                has_any = not np.isnan(self._of_all(group, samples)).all()
                self._fit(group, samples if has_any else others)

    def complete(
        self, name: str, values: Mapping[str, Float32], lacking: Mapping[str, str], samples: Sequence[Sample]
    ) -> None:
        """Take the numbers of a group that came late, and scale them as ``fit`` does.

        Args:
            name: Of the group.
            values: Sample id -> (N, count) of the clip's frames, NaN for frames without.
            lacking: Sample id -> why it has none.
            samples: By which they are scaled.

        Raises:
            DataError: Not one of the samples has any, or all are the same.
        """
        group = next(group for group in self.groups if group.name == name)
        self.lacking[group.root] = lacking
        for sample_id, found in values.items():
            self._values[sample_id][:, group.columns] = found
        self._fit(group, samples)

    def absent(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Group -> share of its numbers that these samples' frames lack: joints not seen, clips without the target."""
        return {group.name: float(np.isnan(self._of_all(group, samples)).mean()) for group in self.groups}

    def _fit(self, group: Group, samples: Sequence[Sample]) -> None:
        values = self._of_all(group, samples).astype(np.float64)
        there = ~np.isnan(values)
        if not there.any():
            raise nowhere(group.root, self.lacking.get(group.root, {}))
        mean = np.where(there, values, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        spread = float(np.sqrt(((values - mean)[there] ** 2).mean()))
        if spread <= LEAST_SPREAD * max(1.0, float(np.abs(mean).max())):
            raise DataError(
                f"{group.name} is the same in every frame of the training clips",
                "targets that differ from moment to moment: these teach nothing",
                "check what measures it, or take it out of the targets",
            )
        self._mean[group.columns], self._scale[group.columns] = mean, spread

    def _of_all(self, group: Group, samples: Sequence[Sample]) -> Float32:
        """(all frames, count) of a group in some samples; of none a frame that lacks everything."""
        found = [self._values[s.id][:, group.columns] for s in samples if s.id in self._values]
        return np.concatenate(found) if found else np.full((1, group.count), np.nan, np.float32)

    def of(self, sample_id: str, frames: Int64, crop: CropDraw | None = None) -> Float32:
        """(F, M) of some frames of a clip, scaled, as they are in a picture that was cropped as drawn."""
        values = self._values[sample_id][frames].copy()
        if crop is not None:
            matrix = _picture_matrix(crop)
            for group in self.groups:
                if group.turns:
                    vectors = values[:, group.columns].reshape(len(frames), -1, 3)
                    vectors[..., :2] = vectors[..., :2] @ matrix.T
                    values[:, group.columns] = vectors.reshape(len(frames), -1)
        scaled: Float32 = (values - self._mean) / self._scale
        return scaled


HELD_NS = 100_000_000
"""A series is taken to stay as it is for so long beyond its ends; of what comes before or after, nobody knows."""


def at_moments(series: np.ndarray, when_ns: Int64, moments_ns: Int64) -> np.ndarray:
    """A series at other moments, by straight lines between its frames.

    Args:
        series: (T, M); NaN where it is not known.
        when_ns: (T,) its frames' stamps, increasing.
        moments_ns: (N,) the moments.

    Returns:
        (N, M); NaN beside a frame where it is not known, and more than 100 ms beyond its ends.
    """
    place = np.interp(moments_ns, when_ns, np.arange(len(when_ns)))
    before = place.astype(np.int64)
    share = (place - before)[:, None]
    after = np.where(share[:, 0] > 0, before + 1, before)  # a moment of a frame takes nothing of the next one
    result: np.ndarray = series[before] * (1 - share) + series[after] * share
    result[(moments_ns < when_ns[0] - HELD_NS) | (moments_ns > when_ns[-1] + HELD_NS)] = np.nan
    return result


def nowhere(name: str, lacking: Mapping[str, str], first: DataError | None = None) -> DataError:
    """The fault that no training clip has a target, with what was expected of the first."""
    why = next(iter(lacking.values()), "none is there")
    return DataError(
        f"no training clip has the dense target {name} (the first: {why})",
        "at least one" if first is None else first.expected,
        "kd-edge data check, or leave the target out" if first is None else first.fix,
    )


def _picture_matrix(crop: CropDraw) -> Float32:
    """What a crop makes of directions (x right, y up) in the picture: (2, 2). Its zoom is left out: bodies are scaled.

    A crop that is turned clockwise shows its content turned the other way.
    """
    turn = math.radians(crop.turn_degrees)
    zoom = math.sqrt(crop.tall * crop.wide)
    across, up = zoom / crop.wide * (-1 if crop.flip else 1), zoom / crop.tall
    return np.array(
        [
            [math.cos(turn) * across, -math.sin(turn) * across],
            [math.sin(turn) * up, math.cos(turn) * up],
        ],
        dtype=np.float32,
    )

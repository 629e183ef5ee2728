"""Dense targets: what a richer modality says of every frame of the student's clips, scaled by the training clips."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kd_edge.data import Dataset, Sample
from kd_edge.data.signals.load import Signals, load_signals
from kd_edge.errors import ConfigError, DataError
from kd_edge.train.inputs.draws import CropDraw
from kd_edge.train.recipe.student_stages import DenseTarget, JointTargets, SignalTargets
from kd_edge.types import Clip, Float32, Int64

LEAST_COVER = 0.5
"""A skeleton must last for this share of its clip."""


@dataclass(frozen=True, slots=True)
class Group:
    """Numbers that share a scale.

    Attributes:
        name: Of the target, and of what they are of it.
        first: Position of the first number.
        count: How many.
        turns: Whether they are vectors (x, y, z) in the camera's frame, which a turned picture turns.
        weight: Factor in the loss.
    """

    name: str
    first: int
    count: int
    turns: bool
    weight: float

    @property
    def columns(self) -> slice:
        """Their positions."""
        return slice(self.first, self.first + self.count)


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
        self.lacking = lacking
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

    def fit(self, samples: Sequence[Sample]) -> None:
        """Scale by these samples: each number about its mean, by the spread that its group has about it.

        Raises:
            DataError: Not one of them has a target of some group.
        """
        there = [self._values[s.id] for s in samples if s.id in self._values]
        every = np.concatenate(there) if there else np.full((1, self.size), np.nan, np.float32)
        for group in self.groups:
            values = every[:, group.columns].astype(np.float64)
            values = values[~np.isnan(values).any(axis=1)]
            if len(values) == 0:
                name = group.name.partition(" ")[0]
                raise _nowhere(name, self.lacking.get(name, {}))
            mean = values.mean(axis=0)
            self._mean[group.columns] = mean
            self._scale[group.columns] = max(float(np.sqrt(((values - mean) ** 2).mean())), 1e-6)

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


def check_targets(targets: Sequence[DenseTarget], dataset: Dataset) -> None:
    """Refuse targets that a data set does not have.

    Raises:
        ConfigError: Names the first.
    """
    for target in targets:
        wanted = (target.modality,) if isinstance(target, JointTargets) else target.sensors
        for name in wanted:
            if name not in dataset.modalities:
                raise ConfigError(
                    f"the dense target '{name}' with {dataset.name}",
                    f"one of {', '.join(dataset.modalities)}",
                    "change the stage's targets, or train without it",
                )


def gather_targets(
    targets: Sequence[DenseTarget], dataset: Dataset, stamps_ns: Mapping[str, Int64], samples: Sequence[Sample]
) -> DenseTargets:
    """Read the targets of the student's clips.

    Args:
        targets: Which.
        dataset: The recordings.
        stamps_ns: Sample id -> (N,) stamps of the student's clip.
        samples: Which clips; those without stamps are left out.

    Raises:
        ConfigError: The data set does not have them.
        DataError: Not one clip has a target.
    """
    check_targets(targets, dataset)
    fingerprint = targets_fingerprint(
        targets, dataset, samples
    )  # of all: which of them have clips is the clips' matter
    samples = [s for s in samples if s.id in stamps_ns]
    groups: list[Group] = []
    parts: list[dict[str, Float32]] = []
    lacking: dict[str, dict[str, str]] = {}
    for target in targets:
        first = sum(group.count for group in groups)
        if isinstance(target, JointTargets):
            found, missing = _joints(target, dataset, stamps_ns, samples)
            if not found:
                raise _nowhere(target.modality, missing[target.modality])
            groups += _joint_groups(target, found, first)
        else:
            signals = load_signals(dataset, samples, target.sensors)
            found, missing = _signals(target, signals, stamps_ns, samples)
            groups += [Group(sensor, first + 3 * k, 3, False, target.weight) for k, sensor in enumerate(target.sensors)]
        parts.append(found)
        lacking |= missing
    values = {s.id: _side_by_side(s.id, parts, groups, targets, len(stamps_ns[s.id])) for s in samples}
    return DenseTargets(groups, values, lacking, fingerprint)


def targets_fingerprint(targets: Sequence[DenseTarget], dataset: Dataset, samples: Sequence[Sample]) -> str:
    """SHA-256 (hex) of the recordings the targets are made of; nothing is decoded."""
    names = [n for t in targets for n in ((t.modality,) if isinstance(t, JointTargets) else t.sensors)]
    content = [[s.id, *(_content(dataset, s, name) for name in names)] for s in samples]
    return hashlib.sha256(json.dumps([names, content]).encode()).hexdigest()


def _nowhere(name: str, lacking: Mapping[str, str]) -> DataError:
    why = next(iter(lacking.values()), "none is there")
    return DataError(
        f"no training clip has the dense target {name} (the first: {why})",
        "at least one",
        "kd-edge data check, or leave the target out",
    )


def _content(dataset: Dataset, sample: Sample, name: str) -> str:
    try:
        return dataset.content_key(sample, name)
    except DataError:
        return "absent"


def _joints(
    target: JointTargets, dataset: Dataset, stamps_ns: Mapping[str, Int64], samples: Sequence[Sample]
) -> tuple[dict[str, Float32], dict[str, dict[str, str]]]:
    found: dict[str, Float32] = {}
    missing: dict[str, str] = {}
    joints = None
    for sample in samples:
        try:
            clip = dataset.open(sample, target.modality)
            joints = joints or _joint_count(clip, target.modality, sample)
            found[sample.id] = joint_targets(clip, stamps_ns[sample.id], target)
            if clip.frames.shape[1] != joints:
                raise DataError(f"{sample.id} has {clip.frames.shape[1]} joints", f"{joints}", "correct the recording")
        except DataError as error:
            found.pop(sample.id, None)
            missing[sample.id] = error.found
    return found, {target.modality: missing}


def _joint_count(clip: Clip, modality: str, sample: Sample) -> int:
    if clip.frames.ndim != 3 or clip.frames.shape[2] != 3 or clip.frames.dtype.kind != "f":
        raise DataError(
            f"{modality} of {sample.id} is {clip.frames.dtype} {clip.frames.shape}",
            "positions of joints (T, J, 3)",
            "name a modality of skeletons in the stage's targets",
        )
    return int(clip.frames.shape[1])


def joint_targets(clip: Clip, stamps_ns: Int64, target: JointTargets) -> Float32:
    """Positions and their changes at the moments of a clip's frames: (N, 3 J) or (N, 6 J).

    Args:
        clip: (T, J, 3) positions, x right, y up, z away from the camera.
        stamps_ns: (N,) of the student's frames.
        target: How.

    Raises:
        DataError: The skeleton covers less than half of the clip, or is not made of finite numbers.
    """
    joints, when = clip.frames.astype(np.float64), clip.stamps_ns + round(target.lag_ms * 1e6)
    if not np.isfinite(joints).all():
        raise DataError("a skeleton with numbers that are not finite", "positions in metres", "correct the recording")
    span = max(1, int(stamps_ns[-1] - stamps_ns[0]))
    covered = min(when[-1], stamps_ns[-1]) - max(when[0], stamps_ns[0])
    if len(stamps_ns) > 1 and covered < LEAST_COVER * span:
        raise DataError(
            f"a skeleton of {len(when)} frames that covers less than half of its clip",
            "one that is as long as the clip",
            "correct the recording, or lag_ms",
        )
    joints = joints - np.median(joints, axis=1, keepdims=True)
    size = float(np.median(np.sqrt((joints**2).sum(axis=2).mean(axis=1))))
    flat = (joints / max(size, 1e-6)).reshape(len(joints), -1)  # (T, 3 J)
    positions = _at(flat, when, stamps_ns)
    if target.velocity_ms is None:
        return positions.astype(np.float32)
    earlier = _at(flat, when, stamps_ns - round(target.velocity_ms * 1e6))
    return np.concatenate([positions, positions - earlier], axis=1).astype(np.float32)


def _at(series: np.ndarray, when_ns: Int64, moments_ns: Int64) -> np.ndarray:
    """A series (T, M) at other moments, between its frames by straight lines; its ends are held."""
    place = np.interp(moments_ns, when_ns, np.arange(len(when_ns)))
    before = np.minimum(place.astype(np.int64), max(0, len(when_ns) - 2))
    share = (place - before)[:, None]
    after = np.minimum(before + 1, len(when_ns) - 1)
    result: np.ndarray = series[before] * (1 - share) + series[after] * share
    return result


def _joint_groups(target: JointTargets, found: Mapping[str, Float32], first: int) -> list[Group]:
    count = next(iter(found.values())).shape[1]
    if target.velocity_ms is None:
        return [Group(f"{target.modality} positions", first, count, True, target.weight)]
    half = count // 2
    return [
        Group(f"{target.modality} positions", first, half, True, target.weight),
        Group(f"{target.modality} velocities", first + half, half, True, target.weight),
    ]


def _signals(
    target: SignalTargets, signals: Signals, stamps_ns: Mapping[str, Int64], samples: Sequence[Sample]
) -> tuple[dict[str, Float32], dict[str, dict[str, str]]]:
    """(N, 3 m) of every sample, smoothed."""
    spans = {s.id: (int(stamps_ns[s.id][0]), int(stamps_ns[s.id][-1])) for s in samples}
    signals = signals.on_clips(spans)
    found = {}
    for sample in samples:
        stamps = stamps_ns[sample.id]
        values = signals.points(sample.id, *spans[sample.id], len(stamps))  # (m, 3, N)
        period_ms = (spans[sample.id][1] - spans[sample.id][0]) / max(1, len(stamps) - 1) / 1e6
        width = max(1, round(target.smooth_ms / max(period_ms, 1e-3)))
        found[sample.id] = _smooth(values.reshape(-1, len(stamps)), width).T.astype(np.float32)
    return found, {sensor: dict(why) for sensor, why in signals.lacking.items()}


def _smooth(series: Float32, width: int) -> np.ndarray:
    """Moving average over time of (M, N), the ends held."""
    if width < 2:
        return series
    padded = np.pad(series.astype(np.float64), ((0, 0), (width // 2, width - 1 - width // 2)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    result: np.ndarray = (sums[:, width:] - sums[:, :-width]) / width
    return result


def _side_by_side(
    sample_id: str,
    parts: Sequence[Mapping[str, Float32]],
    groups: Sequence[Group],
    targets: Sequence[DenseTarget],
    frames: int,
) -> Float32:
    """(N, M) of all targets of a sample; NaN for one that it lacks."""
    names = [{t.modality} if isinstance(t, JointTargets) else set(t.sensors) for t in targets]
    sizes = [sum(g.count for g in groups if g.name.partition(" ")[0] in own) for own in names]
    lacking = [np.full((frames, size), np.nan, np.float32) for size in sizes]
    return np.concatenate([part.get(sample_id, none) for part, none in zip(parts, lacking, strict=True)], axis=1)


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

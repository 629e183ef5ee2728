"""The targets of a dense stage, gathered kind by kind and laid side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kd_edge.data import Dataset, Sample
from kd_edge.errors import ConfigError, DataError, TrainingError
from kd_edge.train.inputs.targets.base import DenseTargets, Found, Group, StudentClips
from kd_edge.train.inputs.targets.features import FeatureSpace, features_to_come
from kd_edge.train.inputs.targets.joints import joints_of
from kd_edge.train.inputs.targets.pixels import pixels_of
from kd_edge.train.inputs.targets.shuffle import shuffled
from kd_edge.train.inputs.targets.signals import check_signals, signals_of
from kd_edge.train.inputs.targets.surrogates import random_like
from kd_edge.train.recipe.student_stages import (
    DenseTarget,
    FeatureTargets,
    JointTargets,
    PixelTargets,
    RandomTargets,
    SignalTargets,
)
from kd_edge.types import Float32, Int64

LARGEST_BYTES = 4_000_000_000
"""Most that dense targets may take in memory."""


def check_targets(targets: Sequence[DenseTarget], dataset: Dataset) -> None:
    """Refuse targets that a data set does not have, or not so.

    Raises:
        ConfigError: Names the first.
    """
    for target in targets:
        for name in target.modalities:
            if name not in dataset.modalities:
                raise ConfigError(
                    f"the dense target '{name}' with {dataset.name}",
                    f"one of {', '.join(dataset.modalities)}",
                    "change the stage's targets, or train without it",
                )
        within = target.of if isinstance(target, RandomTargets) else target
        if isinstance(within, SignalTargets):
            check_signals(within, dataset)


def gather_targets(
    targets: Sequence[DenseTarget],
    dataset: Dataset,
    stamps_ns: Mapping[str, Int64],
    samples: Sequence[Sample],
    features: FeatureSpace | None = None,
    *,
    sides: Sequence[Sequence[Sample]] = (),
    seed: int = 0,
    pictures: Callable[[Sample], Float32] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> DenseTargets:
    """Read the targets of the student's clips; a teacher's features are to come.

    Args:
        targets: Which.
        dataset: The recordings.
        stamps_ns: Sample id -> (N,) stamps of the student's clip.
        samples: Which clips; those without stamps are left out.
        features: What the teacher's features are, where they are among the targets.
        sides: See ``StudentClips``.
        seed: The recipe's seed.
        pictures: Sample -> (N, C, S, S) of its frames as evaluation sees them, for targets made of them.
        progress: Called with (what, clips done, clips in all) where it takes long.

    Raises:
        ConfigError: The data set does not have them.
        DataError: Not one clip has a target.
        TrainingError: They would not fit into memory.
    """
    check_targets(targets, dataset)
    fingerprint = targets_fingerprint(
        targets, dataset, samples
    )  # of all: which of them have clips is the clips' matter
    there = tuple(s for s in samples if s.id in stamps_ns)
    clips = StudentClips(dataset, there, stamps_ns, tuple(tuple(side) for side in sides), seed, pictures, progress)
    parts = [_found(target, clips, features) for target in targets]
    groups: list[Group] = []
    for part in parts:
        first = sum(group.count for group in groups)
        groups += [replace(group, first=first + group.first) for group in part.groups]
    _check_memory(max(sum(group.count for group in groups), features.size if features else 0), clips)
    values = {s.id: _side_by_side(s.id, parts, len(stamps_ns[s.id])) for s in clips.samples}
    lacking = {name: why for part in parts for name, why in part.lacking.items()}
    return DenseTargets(groups, values, lacking, fingerprint)


def targets_fingerprint(targets: Sequence[DenseTarget], dataset: Dataset, samples: Sequence[Sample]) -> str:
    """SHA-256 (hex) of the recordings the targets are made of; nothing is decoded."""
    names = [name for target in targets for name in target.modalities]
    content = [[s.id, *(_content(dataset, s, name) for name in names)] for s in samples]
    return hashlib.sha256(json.dumps([names, content]).encode()).hexdigest()


def _found(target: DenseTarget, clips: StudentClips, features: FeatureSpace | None) -> Found:
    """A target's numbers, in the places that its ``shuffle`` gives them."""
    if isinstance(target, FeatureTargets):
        if features is None:
            raise ConfigError("dense targets 'features' without a teacher", "one that sees images", "add [teacher]")
        return features_to_come(target, features)
    if isinstance(target, RandomTargets):
        found = random_like(_found(target.of, clips, None), target, clips)
    else:
        found = _in_place(target, clips)
    return found if target.shuffle is None else shuffled(found, target.shuffle, clips)


def _in_place(target: JointTargets | SignalTargets | PixelTargets, clips: StudentClips) -> Found:
    if isinstance(target, PixelTargets):
        return pixels_of(target, clips)
    if isinstance(target, JointTargets):
        return joints_of(target, clips)
    return signals_of(target, clips)


def _check_memory(size: int, clips: StudentClips) -> None:
    """Refuse targets that would not fit into memory, before any is made."""
    needed = 4 * size * sum(len(clips.stamps_ns[s.id]) for s in clips.samples)
    if needed > LARGEST_BYTES:
        raise TrainingError(
            f"dense targets of {size} numbers a frame need {needed / 1e9:.1f} GB",
            f"at most {LARGEST_BYTES / 1e9:g} GB",
            "name fewer targets, or set cache_every",
        )


def _content(dataset: Dataset, sample: Sample, name: str) -> str:
    try:
        return dataset.content_key(sample, name)
    except DataError:
        return "absent"


def _side_by_side(sample_id: str, parts: Sequence[Found], frames: int) -> Float32:
    """(N, M) of all targets of a sample; NaN for one that it lacks."""
    sizes = [sum(group.count for group in part.groups) for part in parts]
    lacking = [np.full((frames, size), np.nan, np.float32) for size in sizes]
    return np.concatenate([part.values.get(sample_id, none) for part, none in zip(parts, lacking, strict=True)], axis=1)

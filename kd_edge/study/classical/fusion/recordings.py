"""Recordings of a run that fuses depth with wearable sensors: complete clips, and what they are reduced to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.data import Dataset, Sample, Split, check_split, open_dataset, training_sides
from kd_edge.data.dataset import require_modality
from kd_edge.errors import DataError
from kd_edge.rundir import Protocol
from kd_edge.study.classical.fusion.config import CnnLstmConfig, CrcConfig
from kd_edge.study.classical.fusion.reduction import reduce_clips
from kd_edge.study.classical.results import Progress
from kd_edge.types import Clip, Float32, Int64

AnyFusionConfig = CrcConfig | CnnLstmConfig


@dataclass(frozen=True)
class Reduction:
    """How clips of one modality become arrays.

    Attributes:
        reduce: A clip's array.
        settings: Plain values that decide what it computes.
    """

    reduce: Callable[[Clip], Float32]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Recordings:
    """Clips that every modality of the run has.

    Attributes:
        dataset: Data set that the clips come from.
        sides: ``train``, ``validation`` and ``test`` clips.
        values: Modality -> sample id -> array.
        skipped: Sample id -> why a clip of the protocol takes no part.
        fingerprint: SHA-256 (hex) of all recordings and settings.
    """

    dataset: Dataset
    sides: dict[str, tuple[Sample, ...]]
    values: dict[str, dict[str, Float32]]
    skipped: dict[str, str]
    fingerprint: str

    def labels(self, side: str) -> Int64:
        """(N,) int64."""
        return np.array([s.label for s in self.sides[side]], dtype=np.int64)

    @property
    def classes(self) -> int:
        """Number K of classes."""
        return len(self.dataset.labels)

    def arrays(self, modality: str, side: str) -> Float32:
        """(N, ...) of one modality."""
        values = self.values[modality]
        shape = next(iter(values.values())).shape
        return np.array([values[s.id] for s in self.sides[side]], dtype=np.float32).reshape(-1, *shape)

    def protocol(self, config: AnyFusionConfig) -> Protocol:
        """Its part of the summary."""
        return Protocol(
            dataset=self.dataset.name,
            split=config.split,
            validation_subjects=config.validation_subjects,
            **{f"{side}_samples": len(samples) for side, samples in self.sides.items()},
            skipped=self.skipped,
        )


def gather(
    config: AnyFusionConfig, reductions: Mapping[str, Reduction], data_root: Path | None, report: Progress
) -> Recordings:
    """Reduce the recordings; a clip that lacks a modality, or whose file is damaged, is left out and named.

    Args:
        config: The run.
        reductions: Modality -> how its clips become arrays.
        data_root: Folder with the recordings.
        report: Called with (what, done, in all) as the work goes on.

    Raises:
        DataError: Recordings, modality, split or subjects missing, a modality of another kind, or a class without a
            complete training clip.
    """
    dataset = open_dataset(config.data, data_root)
    split = dataset.split(config.split)
    for modality in reductions:
        require_modality(modality, dataset.modalities, dataset.name)
    # The whole data set, so that other splits and validation subjects share one file.
    reduced = {
        modality: reduce_clips(dataset, dataset.samples, modality, r.reduce, r.settings, report)
        for modality, r in reductions.items()
    }
    skipped: dict[str, str] = {}
    for modality, found in reduced.items():
        if not found.values:
            reason = next(iter(found.skipped.values()), "no clips")
            raise DataError(
                f"no clip of {dataset.name} has a usable '{modality}' ({reason})",
                "depth images as depth and signals as sensors",
                "correct depth and sensors, or complete the data set (kd-edge data check)",
            )
        for sample_id, reason in found.skipped.items():
            skipped[sample_id] = f"{skipped[sample_id]}; {reason}" if sample_id in skipped else reason
    sides = (split.train, split.test, split.validation)
    split = Split(split.name, *(tuple(s for s in side if s.id not in skipped) for side in sides))
    check_split(split, dataset.labels, by_subject=False)
    train, validation = training_sides(split, config.validation_subjects)
    fingerprint = hashlib.sha256("".join(found.fingerprint for found in reduced.values()).encode()).hexdigest()
    values = {modality: found.values for modality, found in reduced.items()}
    chosen = {"train": train, "validation": validation, "test": split.test}
    return Recordings(dataset, chosen, values, skipped, fingerprint)


def check_fusion(config: AnyFusionConfig, data_root: Path | None = None) -> tuple[int, int]:
    """Look at what a run would find, decoding one clip of each modality.

    Returns:
        Numbers of training and test clips of the protocol.

    Raises:
        DataError: What would stop the run at its start: recordings, modality, split or subjects missing.
    """
    dataset = open_dataset(config.data, data_root)
    for modality in config.modalities:
        require_modality(modality, dataset.modalities, dataset.name)
    split = dataset.split(config.split)
    check_split(split, dataset.labels, by_subject=False)
    train, _ = training_sides(split, config.validation_subjects)
    for modality in config.modalities:
        _first(dataset, train, modality)
    return len(train), len(split.test)


def _first(dataset: Dataset, samples: Sequence[Sample], modality: str) -> Clip:
    """The first clip that can be opened: a few that are missing do not stop a run."""
    fault: DataError | None = None
    for sample in samples:
        try:
            return dataset.open(sample, modality)
        except DataError as error:
            fault = fault or error
    assert fault is not None  # check_split saw a training sample
    raise fault


def signal(clip: Clip) -> Float32:
    """A sensor's values (T, C) float32.

    Raises:
        DataError: The modality is made of images.
    """
    if clip.frames.dtype.kind != "f":
        raise DataError("a clip of images", "a signal of a wearable sensor", "correct sensors")
    return np.asarray(clip.frames.reshape(len(clip.frames), -1), dtype=np.float32)  # (T, ...) -> (T, C)

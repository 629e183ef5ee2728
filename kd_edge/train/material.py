"""What a run trains on: the split, the frame caches, and the loaders made from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_edge.data import Dataset, Sample, Split, Wearables, check_split, open_dataset, validation_split
from kd_edge.data.cache import CachedClips, cache_fingerprint, prepare
from kd_edge.data.pairs import PairedClips
from kd_edge.data.semantics import ClassVectors, class_vectors
from kd_edge.data.signals import Signals, load_signals, signals_fingerprint
from kd_edge.errors import ConfigError, DataError
from kd_edge.train.clips import (
    BEFORE_SHARE,
    Batch,
    ClipDataset,
    EpochBatches,
    SignalDataset,
    Windows,
    clip_length_ns,
    make_loader,
)
from kd_edge.train.recipe import Recipe, SensorTeacherConfig, Stage
from kd_edge.train.signal_input import SignalInput
from kd_edge.train.stage_config import StageConfig

Progress = Callable[[str, int, int], None]
"""Called with (modality, clips done, clips in all) while a cache is made."""


@dataclass(frozen=True)
class Material:
    """Everything about the recordings that a run needs.

    Attributes:
        recipe: The run.
        dataset: The recordings.
        train: Samples to train on, with every stage's modality.
        validation: Samples to choose by, with the student's modality; may be empty.
        test: Samples touched once, at the end, with the student's modality: what a teacher lacks must not change them.
        caches: What each stage sees, by stage name: a frame cache, or signals of sensors.
        clip_seconds: Length of the live window.
        semantics: Vectors of the class names, where the recipe has some.
    """

    recipe: Recipe
    dataset: Dataset
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    caches: dict[str, CachedClips | Signals]
    clip_seconds: float
    semantics: ClassVectors | None = None

    @property
    def skipped(self) -> dict[str, str]:
        """Sample id -> why it cannot be used, over all modalities."""
        return {name: why for cache in self.caches.values() for name, why in cache.skipped.items()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the recordings' contents as they are used."""
        return hashlib.sha256("".join(sorted(self.fingerprints.values())).encode()).hexdigest()

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 (hex) of what each stage sees, by stage name; the class names' vectors count as the teacher's.

        Only with a teacher are they looked at, so a student's fingerprint is that of its recordings alone.
        """
        found = {name: cache.fingerprint for name, cache in self.caches.items()}
        return _with_semantics(found, self.semantics)

    @property
    def class_vectors(self) -> Tensor | None:
        """(K, D) float32 of the class names, where the recipe has some."""
        return None if self.semantics is None else torch.from_numpy(self.semantics.vectors)

    @property
    def lacking(self) -> dict[str, int]:
        """Sensor -> number of training samples that have another sensor but not this one."""
        signals = self.caches.get("teacher")
        if not isinstance(signals, Signals):
            return {}
        ids = {s.id for s in self.train}
        return {sensor: len(ids & lacks.keys()) for sensor, lacks in signals.lacking.items()}

    def training_loader(
        self, stages: Sequence[str], batch_size: int, *, rank: int = 0, world: int = 1
    ) -> tuple[DataLoader[Batch], EpochBatches]:
        """Shuffled, augmented clips of one or more stages side by side, and the batches that carry the epoch.

        Crop and flip are the first stage's, changes of intensity each stage's own.
        """
        recipe = self.recipe
        images = [name for name in stages if isinstance(self.caches[name], CachedClips)]
        signals = self._signals(stages, recipe.teacher)
        if not images:
            assert signals is not None
            clips = self._pairs(["student"], self.train)  # for the time that the signals are resampled onto
            return self._shuffled(SignalDataset(clips, signals, recipe.seed), batch_size, rank, world)
        pairs = self._pairs(images, self.train)
        seconds = None if recipe.windows == "clip" else self.clip_seconds
        looping, before = recipe.windows in ("loop", "stream"), BEFORE_SHARE if recipe.windows == "stream" else 0.0
        windows = Windows(recipe.segments, seconds, looping, before)
        configs = [self._images(name) for name in images]
        specs, augments = [c.preprocess for c in configs], [c.augment for c in configs]
        dataset = ClipDataset(pairs, specs, windows, augments, recipe.seed, self.dataset.flip_labels, signals)
        return self._shuffled(dataset, batch_size, rank, world)

    def _shuffled(
        self, dataset: ClipDataset | SignalDataset, batch_size: int, rank: int, world: int
    ) -> tuple[DataLoader[Batch], EpochBatches]:
        batches = EpochBatches(len(dataset), batch_size, self.recipe.seed, rank, world)
        return make_loader(dataset, batches, self.recipe.workers), batches

    def _signals(self, stages: Sequence[str], teacher: Stage | None, *, training: bool = True) -> SignalInput | None:
        """What is made of the sensors, where they are among the stages."""
        signals = self.caches.get("teacher") if "teacher" in stages else None
        if not isinstance(signals, Signals):
            return None
        assert isinstance(teacher, SensorTeacherConfig)
        return SignalInput(signals, teacher.points, teacher.jitter if training else None)

    def evaluation_loader(self, stage: str, samples: Sequence[Sample]) -> DataLoader[Batch]:
        """Centre frames and centre crops of a stage's clips, in order; those its modality has, see ``having``."""
        recipe, usable = self.recipe, self.having(stage, samples)
        batches = EpochBatches(len(usable), max(self.stage(stage).batch_size, 16), None)
        signals = self._signals([stage], recipe.teacher, training=False)
        if signals is not None:
            return make_loader(SignalDataset(self._pairs(["student"], usable), signals, recipe.seed), batches, 0)
        pairs = self._pairs([stage], usable)
        spec = self._images(stage).preprocess
        return make_loader(ClipDataset(pairs, [spec], Windows(recipe.segments), None, recipe.seed), batches, 0)

    def having(self, stage: str, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        """Those of the samples that a stage's modality has."""
        return tuple(s for s in samples if s.id in self.caches[stage])

    def stage(self, name: str) -> Stage:
        """The recipe's ``student`` or ``teacher``."""
        return self.recipe.stages[name]

    def _images(self, name: str) -> StageConfig:
        stage = self.stage(name)
        assert isinstance(stage, StageConfig)
        return stage

    def _pairs(self, stages: Sequence[str], samples: Sequence[Sample]) -> PairedClips:
        caches = [self.caches[name] for name in stages]
        return PairedClips([cache for cache in caches if isinstance(cache, CachedClips)], samples)


def gather_material(
    recipe: Recipe, data_root: Path | None = None, progress: Progress | None = None, *, at_most: int | None = None
) -> Material:
    """Open the recordings, split them and make the frame caches that are not there yet.

    Args:
        recipe: The run.
        data_root: Folder with the recordings.
        progress: Called while a frame cache is made.
        at_most: Only so many training clips, for a dry run; no validation or test clips then.

    Raises:
        DataError: Recordings missing, a class without a sample, no room for the cache.
        ConfigError: The recipe asks for what the data set does not have.
    """
    dataset = open_dataset(recipe.data, data_root)
    split = dataset.split(recipe.split)
    stages = recipe.stages
    for name, stage in stages.items():
        _check_stage(name, stage, dataset)
    _check_labels(dataset)
    semantics = None if recipe.semantics is None else class_vectors(recipe.semantics, dataset.labels, data_root)
    if at_most is None:
        # The whole data set is cached, so that other splits, validation subjects and seeds share it.
        caches = _on_clips(
            {name: _load(stage, dataset, dataset.samples, recipe, progress) for name, stage in stages.items()}
        )
        ours = {"student": caches["student"]}
        split = Split(split.name, _usable(split.train, ours), _usable(split.test, ours))
    check_split(split, dataset.labels, by_subject=False)
    train, validation = validation_split(split.train, recipe.validation_subjects, recipe.validation_trials)
    test = split.test
    if at_most is None:
        train = _usable(train, caches)
        check_split(Split(split.name, train, test), dataset.labels, by_subject=False)
    else:
        few = train[:: max(1, len(train) // at_most)][:at_most]
        caches = _on_clips({name: _load(stage, dataset, few, recipe, progress) for name, stage in stages.items()})
        images = [cache for cache in caches.values() if isinstance(cache, CachedClips)]
        train, validation, test = _usable(PairedClips(images, few).samples, caches), (), ()
    seconds = recipe.clip_seconds
    if seconds is None:
        clips = caches["student"]
        assert isinstance(clips, CachedClips)
        lengths = [clip_length_ns(clips.clip(s.id).stamps_ns) for s in train]
        seconds = round(float(np.median(lengths)) / 1e9, 3)
    return Material(recipe, dataset, train, validation, test, caches, seconds, semantics)


def data_fingerprints(recipe: Recipe, data_root: Path | None = None) -> dict[str, str]:
    """What ``Material.fingerprints`` is or would be; nothing is decoded.

    Raises:
        DataError: No recordings there.
    """
    dataset = open_dataset(recipe.data, data_root)
    semantics = None if recipe.semantics is None else class_vectors(recipe.semantics, dataset.labels, data_root)
    found = {}
    for name, stage in recipe.stages.items():
        if isinstance(stage, SensorTeacherConfig):
            seen = signals_fingerprint(dataset, dataset.samples, stage.sensors)
        else:
            spec, every = stage.preprocess, recipe.cache_every
            seen = cache_fingerprint(dataset, dataset.samples, stage.modality, spec.resize_px, spec.window, every=every)
        found[name] = seen
    return _with_semantics(found, semantics)


def _with_semantics(fingerprints: dict[str, str], semantics: ClassVectors | None) -> dict[str, str]:
    if semantics is None or "teacher" not in fingerprints:
        return fingerprints
    seen = fingerprints["teacher"].encode() + semantics.vectors.tobytes()
    return fingerprints | {"teacher": hashlib.sha256(seen).hexdigest()}


def _on_clips(caches: dict[str, CachedClips | Signals]) -> dict[str, CachedClips | Signals]:
    """The caches, without signals that hardly cover the student's clip: found now, before any span is moved."""
    clips = caches["student"]
    assert isinstance(clips, CachedClips)
    stamps = {s.id: clips.clip(s.id).stamps_ns for s in clips.samples}
    spans = {sample_id: (int(when[0]), int(when[-1])) for sample_id, when in stamps.items()}
    return {name: cache.on_clips(spans) if isinstance(cache, Signals) else cache for name, cache in caches.items()}


def _usable(samples: Sequence[Sample], caches: Mapping[str, CachedClips | Signals]) -> tuple[Sample, ...]:
    """Samples that all of the modalities have."""
    return tuple(s for s in samples if all(s.id in cache for cache in caches.values()))


def _check_labels(dataset: Dataset) -> None:
    classes = len(dataset.labels)
    wrong = next((s for s in dataset.samples if not 0 <= s.label < classes), None)
    if wrong is not None:
        raise DataError(
            f"sample {wrong.id} of {dataset.name} has label {wrong.label}",
            f"0 to {classes - 1}, a position in its {classes} class names",
            "correct the data set's reader or its label files",
        )
    if classes < 2:
        raise DataError(f"{dataset.name} has {classes} class", "at least two", "choose more classes")


def _load(
    stage: Stage, dataset: Dataset, samples: Sequence[Sample], recipe: Recipe, progress: Progress | None
) -> CachedClips | Signals:
    """What a stage sees of the samples: its frame cache, or its sensors' signals."""

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(stage.modality, done, total)

    if isinstance(stage, SensorTeacherConfig):
        return load_signals(dataset, samples, stage.sensors, progress=report)
    spec = stage.preprocess
    every = recipe.cache_every
    return prepare(dataset, samples, stage.modality, spec.resize_px, spec.window, progress=report, every=every)


def _check_sensors(stage: SensorTeacherConfig, dataset: Dataset) -> None:
    if not isinstance(dataset, Wearables):
        raise ConfigError(
            f"teacher.kind 'sensors' with {dataset.name}, which has no wearable sensors",
            "utd_mhad, berkeley_mhad, mmact or synthetic",
            "change data.kind, or teach with images",
        )
    for sensor in stage.sensors:
        dataset.signal_format(sensor)  # names what there is


def _check_stage(name: str, stage: Stage, dataset: Dataset) -> None:
    if isinstance(stage, SensorTeacherConfig):
        _check_sensors(stage, dataset)
        return
    channels, expected = dataset.image_format(stage.modality).channels, stage.preprocess.channels
    if channels != expected:
        raise ConfigError(
            f"{name}.preprocess.channels is {expected}, {stage.modality} of {dataset.name} has {channels}",
            "the same number",
            f"set {name}.preprocess.channels={channels}",
        )
    region, (lowest, highest) = stage.preprocess.region, dataset.image_format(stage.modality).value_range
    if region.kind == "foreground" and (region.low > highest or region.high < lowest):
        raise ConfigError(
            f"{name}.preprocess.region looks for values from {region.low} to {region.high}",
            f"values of {stage.modality}, {lowest:g} to {highest:g}",
            f"set {name}.preprocess.region.low and {name}.preprocess.region.high",
        )
    if channels != 3 and (stage.augment.colour or stage.augment.saturation):
        raise ConfigError(
            f"{name}.augment changes colours, {stage.modality} of {dataset.name} has none",
            "colour and saturation only for three channels",
            f"set {name}.augment.colour=0 and {name}.augment.saturation=0",
        )
    if stage.augment.flip and dataset.flip_labels is None:
        raise DataError(
            f"{name}.augment.flip with {dataset.name}",
            "a data set whose actions may be mirrored",
            f"set {name}.augment.flip=false",
        )

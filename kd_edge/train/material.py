"""What a run trains on: the split, the frame caches, and the loaders made from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from kd_edge.data import Dataset, Sample, Split, check_split, open_dataset, validation_split
from kd_edge.data.cache import CachedClips, cache_fingerprint, prepare
from kd_edge.data.pairs import PairedClips
from kd_edge.errors import ConfigError, DataError
from kd_edge.train.clips import Batch, ClipDataset, EpochBatches, Windows, clip_length_ns, make_loader
from kd_edge.train.recipe import Recipe, StageConfig

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
        caches: Frame cache of each stage, by stage name.
        clip_seconds: Length of the live window.
    """

    recipe: Recipe
    dataset: Dataset
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    caches: dict[str, CachedClips]
    clip_seconds: float

    @property
    def skipped(self) -> dict[str, str]:
        """Sample id -> why it cannot be used, over all modalities."""
        return {name: why for cache in self.caches.values() for name, why in cache.skipped.items()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the recordings' contents as they are used."""
        parts = sorted(cache.fingerprint for cache in self.caches.values())
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def training_loader(
        self, stages: Sequence[str], batch_size: int, *, rank: int = 0, world: int = 1
    ) -> tuple[DataLoader[Batch], EpochBatches]:
        """Shuffled, augmented clips of one or more stages side by side, and the batches that carry the epoch.

        Crop and flip are the first stage's, changes of intensity each stage's own.
        """
        pairs = self._pairs(stages, self.train)
        recipe = self.recipe
        seconds = None if recipe.windows == "clip" else self.clip_seconds
        windows = Windows(recipe.segments, seconds, loop=recipe.windows == "loop")
        specs = [self.stage(name).preprocess for name in stages]
        augments = [self.stage(name).augment for name in stages]
        dataset = ClipDataset(pairs, specs, windows, augments, recipe.seed, self.dataset.flip_labels)
        batches = EpochBatches(len(pairs), batch_size, recipe.seed, rank, world)
        return make_loader(dataset, batches, recipe.workers), batches

    def evaluation_loader(self, stage: str, samples: Sequence[Sample]) -> DataLoader[Batch]:
        """Centre frames and centre crops of a stage's clips, in order; those its modality has, see ``having``."""
        pairs = self._pairs([stage], self.having(stage, samples))
        config = self.stage(stage)
        dataset = ClipDataset(pairs, [config.preprocess], Windows(self.recipe.segments), None, self.recipe.seed)
        return make_loader(dataset, EpochBatches(len(pairs), max(config.batch_size, 16), None), 0)

    def having(self, stage: str, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        """Those of the samples that a stage's modality has."""
        return tuple(s for s in samples if s.id in self.caches[stage])

    def stage(self, name: str) -> StageConfig:
        """The recipe's ``student`` or ``teacher``."""
        stage = self.recipe.student if name == "student" else self.recipe.teacher
        assert stage is not None
        return stage

    def _pairs(self, stages: Sequence[str], samples: Sequence[Sample]) -> PairedClips:
        return PairedClips([self.caches[name] for name in stages], samples)


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
    stages = {"student": recipe.student} | ({"teacher": recipe.teacher} if recipe.teacher else {})
    for name, stage in stages.items():
        _check_stage(name, stage, dataset)
    _check_labels(dataset)
    if at_most is None:
        # The whole data set is cached, so that other splits, validation subjects and seeds share it.
        caches = {name: _cache(stage, dataset, dataset.samples, recipe, progress) for name, stage in stages.items()}
        ours = {"student": caches["student"]}
        split = Split(split.name, _usable(split.train, ours), _usable(split.test, ours))
    check_split(split, dataset.labels, by_subject=False)
    train, validation = validation_split(split.train, recipe.validation_subjects)
    test = split.test
    if at_most is None:
        train = _usable(train, caches)
        check_split(Split(split.name, train, test), dataset.labels, by_subject=False)
    else:
        few = train[:: max(1, len(train) // at_most)][:at_most]
        caches = {name: _cache(stage, dataset, few, recipe, progress) for name, stage in stages.items()}
        train, validation, test = PairedClips(list(caches.values()), few).samples, (), ()
    seconds = recipe.clip_seconds
    if seconds is None:
        lengths = [clip_length_ns(caches["student"].clip(s.id).stamps_ns) for s in train]
        seconds = round(float(np.median(lengths)) / 1e9, 3)
    return Material(recipe, dataset, train, validation, test, caches, seconds)


def data_fingerprints(recipe: Recipe, data_root: Path | None = None) -> dict[str, str]:
    """The fingerprint that each stage's frame cache has or would have; nothing is decoded.

    Raises:
        DataError: No recordings there.
    """
    dataset = open_dataset(recipe.data, data_root)
    stages = {"student": recipe.student} | ({"teacher": recipe.teacher} if recipe.teacher else {})
    found = {}
    for name, stage in stages.items():
        spec, every = stage.preprocess, recipe.cache_every
        found[name] = cache_fingerprint(
            dataset, dataset.samples, stage.modality, spec.resize_px, spec.window, every=every
        )
    return found


def _usable(samples: Sequence[Sample], caches: Mapping[str, CachedClips]) -> tuple[Sample, ...]:
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


def _cache(
    stage: StageConfig, dataset: Dataset, samples: Sequence[Sample], recipe: Recipe, progress: Progress | None
) -> CachedClips:
    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(stage.modality, done, total)

    spec = stage.preprocess
    every = recipe.cache_every
    return prepare(dataset, samples, stage.modality, spec.resize_px, spec.window, progress=report, every=every)


def _check_stage(name: str, stage: StageConfig, dataset: Dataset) -> None:
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

"""Cached clips as network input: which frames, which crop, and in which order; the same for any number of workers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kd_edge.crop import FrameRegion
from kd_edge.data.cache.frames import CachedClip
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.preprocess import Preprocess, clip_input, clip_limits, evaluation_crop
from kd_edge.sampling import gather, motion_indices, nearest, segment_indices
from kd_edge.train.inputs.draws import CropDraw, Draws, draw_crop
from kd_edge.train.inputs.intensity import change_input, change_planes, jitter_limits, normalised, plain
from kd_edge.train.inputs.signals import SignalInput
from kd_edge.train.recipe.augment import Augment
from kd_edge.types import Float32, Int64


class Batch(TypedDict):
    """What the loader yields.

    ``inputs``: one (B, T, C, S, S) float32 per image modality, then (B, m, 3, n) float32 of wearable sensors where they
    teach; ``labels``: (B,) int64.
    """

    inputs: list[Tensor]
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Windows:
    """Where a clip's segments lie.

    Attributes:
        segments: T.
        random_seconds: None spreads the segments over the clip; a length puts them into a random window of 0.5 to 1.5
            times that.
        loop: A random window may run over the clip's end into its start.
    """

    segments: int
    random_seconds: float | None = None
    loop: bool = False

    def choose(self, stamps_ns: Int64, rng: np.random.Generator | None) -> Int64:
        """(T,) frame indices; without ``rng`` the centres of T equal parts of the clip."""
        if rng is None:
            return segment_indices(len(stamps_ns), self.segments, mode="centre")
        if self.random_seconds is not None and self.loop:
            spacing_ns = rng.uniform(0.5, 1.5) * self.random_seconds * 1e9 / self.segments
            moments = rng.uniform() * clip_length_ns(stamps_ns) + np.arange(self.segments) * spacing_ns
            return nearest(stamps_ns, stamps_ns[0] + (moments % clip_length_ns(stamps_ns)).astype(np.int64))
        if self.random_seconds is not None:
            length = clip_length_ns(stamps_ns)
            window = min(rng.uniform(0.5, 1.5) * self.random_seconds * 1e9, length)
            spacing = int(window / self.segments)
            earliest = int(stamps_ns[0]) + (self.segments - 1) * spacing
            newest = int(rng.integers(min(earliest, int(stamps_ns[-1])), int(stamps_ns[-1]) + 1))
            chosen = gather(stamps_ns, newest, self.segments, spacing)
            if chosen is not None:
                return chosen  # else the clip has fewer frames than segments
        return segment_indices(len(stamps_ns), self.segments, mode="random", rng=rng)


def clip_length_ns(stamps_ns: Int64) -> float:
    """Length of a clip, each frame counted as long as the mean time between frames."""
    span = float(stamps_ns[-1] - stamps_ns[0])
    return span * len(stamps_ns) / (len(stamps_ns) - 1) if len(stamps_ns) > 1 else 1.0


class ClipDataset(Dataset[tuple[list[Float32], int]]):
    """Network inputs of paired clips.

    Items are asked for as (position, epoch): what is random follows from seed, epoch and sample id alone, so a resumed
    run and any number of workers see the same clips.

    Args:
        pairs: The clips, one modality per preprocessing.
        specs: Preprocessing of each modality.
        windows: Where the segments lie.
        augments: Random changes of each modality: crop and flip of all are the first one's, intensities each one's own.
            None is evaluation: centre frames, centre crop, nothing random.
        seed: Of the recipe.
        flip_labels: Label of each class after mirroring.
        signals: Of the sensors that teach beside the image modalities.
    """

    def __init__(
        self,
        pairs: PairedClips,
        specs: Sequence[Preprocess],
        windows: Windows,
        augments: Sequence[Augment] | None,
        seed: int,
        flip_labels: Sequence[int] | None = None,
        signals: SignalInput | None = None,
    ) -> None:
        self.pairs = pairs
        self.specs = tuple(specs)
        self.windows = windows
        self.augments = augments
        self.seed = seed
        self.flip_labels = flip_labels
        self.signals = signals

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[Float32], int]:
        position, epoch = key
        sample, clips = self.pairs.samples[position], self.pairs.clips(position)
        first = clips[0].stamps_ns
        if self.augments is None:
            moments = first[self.windows.choose(first, None)]
            same = [_same_share(first, moments, clip.stamps_ns) for clip in clips]
            return [_still(*item) for item in zip(clips, same, self.specs, strict=True)], sample.label
        origin = (self.seed, epoch, zlib.crc32(sample.id.encode()))
        rng = np.random.default_rng(origin)
        moments = first[self.windows.choose(first, rng)]
        crop = draw_crop(self.augments[0], rng)
        label = sample.label
        if crop.flip and self.flip_labels is not None:
            label = self.flip_labels[label]
            if self.signals is not None and label != sample.label:  # nobody mirrors a sensor: both keep their class
                crop, label = replace(crop, flip=False), sample.label
        inputs = []
        for k, (clip, spec, augment) in enumerate(zip(clips, self.specs, self.augments, strict=True)):
            limits = jitter_limits(clip_limits(clip.own_limits, clip.stamps_ns, spec.window), augment, rng)
            here = _same_share(first, moments, clip.stamps_ns)
            inputs.append(_changed(clip, limits, here, spec, crop, augment, Draws((*origin, k))))
        if self.signals is not None:
            inputs.append(self.signals.of(sample.id, first, Draws((*origin, len(clips)))))
        return inputs, label


class SignalDataset(Dataset[tuple[list[Float32], int]]):
    """Signals of wearable sensors alone, asked for like the items of a ``ClipDataset``.

    Args:
        pairs: The image clips whose time the signals are resampled onto.
        signals: What is made of the sensors.
        seed: Of the recipe.
    """

    def __init__(self, pairs: PairedClips, signals: SignalInput, seed: int) -> None:
        self.pairs = pairs
        self.signals = signals
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[Float32], int]:
        position, epoch = key
        sample, clips = self.pairs.samples[position], self.pairs.clips(position)
        draws = Draws((self.seed, epoch, zlib.crc32(sample.id.encode()), len(clips)))
        return [self.signals.of(sample.id, clips[0].stamps_ns, draws)], sample.label


def _still(clip: CachedClip, moments: Int64, spec: Preprocess) -> Float32:
    """One modality at the chosen moments as evaluation sees it, (T, C, S, S)."""
    height, width = clip.frames.shape[1:3]
    limits = clip_limits(clip.own_limits, clip.stamps_ns, spec.window)
    return clip_input(clip.frames, limits, _frames_at(clip, moments, spec), evaluation_crop(height, width, spec), spec)


def _changed(
    clip: CachedClip, limits: Float32, moments: Int64, spec: Preprocess, draw: CropDraw, augment: Augment, draws: Draws
) -> Float32:
    """One modality at the chosen moments, cropped as drawn and with its own changes of intensity, (T, C, S, S)."""
    height, width = clip.frames.shape[1:3]
    crop = draw.on(height, width) if isinstance(spec.region, FrameRegion) else draw.on(1, 1)  # other regions are square
    indices = _frames_at(clip, moments, spec)
    if not augment.changes_planes:
        return change_input(clip_input(clip.frames, limits, indices, crop, spec), spec, augment, draws)
    planes = clip_input(clip.frames, limits, indices, crop, plain(spec))
    change_planes(planes, spec.channels, augment, draws)
    return change_input(normalised(planes, spec), spec, augment, draws)


def _same_share(first: Int64, moments: Int64, other: Int64) -> Int64:
    """Moments of one modality at the same share of another one's length (recordings may end at different moments)."""
    span, other_span = int(first[-1] - first[0]), int(other[-1] - other[0])
    if span == other_span or span == 0:
        shifted: Int64 = moments - first[0] + other[0]
        return shifted
    scaled: Int64 = other[0] + np.rint((moments - first[0]) * (other_span / span)).astype(np.int64)
    return scaled


def _frames_at(clip: CachedClip, moments: Int64, spec: Preprocess) -> Int64:
    """(T, M) frame indices: of each moment the frames of its motion stack."""
    return motion_indices(clip.stamps_ns, nearest(clip.stamps_ns, moments), spec.motion_offsets_ms)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (position, epoch): shuffled by seed and epoch in training, in order for evaluation.

    A last incomplete batch is dropped in training (other clips are left out each epoch) unless it is the only one.

    Args:
        count: Number of samples.
        batch_size: Over all devices.
        seed: None keeps the order and every sample.
        rank: Number of this process.
        world: Number of processes; each takes every ``world``-th sample of a batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None, rank: int = 0, world: int = 1) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world = rank, world
        self.epoch = 0

    def __len__(self) -> int:
        if self.seed is None:
            return -(-self.count // self.batch_size)
        return max(1, self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.count)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for batch in range(len(self)):
            mine = order[batch * self.batch_size : (batch + 1) * self.batch_size][self.rank :: self.world]
            yield [(int(position), self.epoch) for position in mine]


def collate(items: Sequence[tuple[list[Float32], int]]) -> Batch:
    """Stack samples to a batch."""
    modalities = zip(*(inputs for inputs, _ in items), strict=True)
    inputs = [torch.from_numpy(np.stack(clips)) for clips in modalities]
    return {"inputs": inputs, "labels": torch.tensor([label for _, label in items])}


def make_loader(dataset: ClipDataset | SignalDataset, batches: EpochBatches, workers: int) -> DataLoader[Batch]:
    """A loader over the batches; worker processes start afresh (spawn) and live as long as the loader."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # torch types a loader by its dataset's items, not by what collate returns
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )

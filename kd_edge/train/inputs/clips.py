"""Cached clips as network input: frames, crops and their order, independent of the number of workers."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.util import Finalize
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kd_edge.crop import Crop, FrameRegion, PersonRegion
from kd_edge.data.cache.frames import CachedClip
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.data.dataset import Sample
from kd_edge.person import clip_places
from kd_edge.preprocess import Preprocess, clip_input, evaluation_crop
from kd_edge.sampling import motion_indices, nearest
from kd_edge.train.inputs.draws import CropDraw, Draws, draw_crop
from kd_edge.train.inputs.intensity import change_input, change_planes, jitter_limits, normalised, plain
from kd_edge.train.inputs.signals import SignalInput
from kd_edge.train.inputs.windows import Windows, clip_length_ns, same_share
from kd_edge.train.recipe.augment import Augment
from kd_edge.types import Float32, Int64
from kd_edge.window import clip_limits


class Batch(TypedDict):
    """A batch of the loader.

    ``inputs``: one (B, T, C, S, S) float32 per image modality, then (B, m, 3, n) float32 of wearable sensors where they
    teach, then (B, T, M) float32 of what is known of the student's frames; ``labels``: (B,) int64, or (B, F, M) float32
    of dense targets.
    """

    inputs: list[Tensor]
    labels: Tensor


class FrameValues(Protocol):
    """Per-frame values of some clips."""

    def of(self, sample_id: str, frames: Int64, crop: CropDraw | None = None) -> Float32:
        """(F, M) of some frames of a clip, as they are in a picture that was cropped as drawn."""
        ...


Key = tuple[int, int] | tuple[int, int, int]
"""Position of a clip, epoch, and how often the epoch has drawn it before; the last is left out where it is 0."""


class ClipDataset(Dataset[tuple[list[Float32], int]]):
    """Network inputs of paired clips.

    Items are asked for as (position, epoch), or (position, epoch, n) of the n-th further draw of a clip in an epoch:
    what is random follows from seed, epoch, sample id and draw alone, so a resumed run and any number of workers see
    the same clips.

    Args:
        pairs: The clips, one modality per preprocessing.
        specs: Preprocessing of each modality.
        windows: Where the segments lie.
        augments: Random changes of each modality: crop and flip of all are the first one's, intensities each one's own.
            None is evaluation: centre frames, centre crop, nothing random.
        seed: The recipe's seed.
        flip_labels: Label of each class after mirroring.
        signals: What is made of the sensors that teach beside the image modalities.
        beside: What is known of every frame of the first modality, added to a changed clip's inputs as (T, M) each.
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
        beside: Sequence[FrameValues] = (),
    ) -> None:
        self.pairs = pairs
        self.specs = tuple(specs)
        self.windows = windows
        self.augments = augments
        self.seed = seed
        self.flip_labels = flip_labels
        self.signals = signals
        self.beside = tuple(beside)
        self._smoothed: dict[int, list[_Smoothed]] = {}
        self._sessions = Sessions(pairs.samples)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> tuple[list[Float32], int]:
        position, epoch, *again = key
        sample, clips = self.pairs.samples[position], self.pairs.clips(position)
        first = clips[0].stamps_ns
        if self.augments is None:
            moments = first[self.windows.choose(first, None)]
            same = [same_share(first, moments, clip.stamps_ns) for clip in clips]
            return [_still(*item) for item in zip(clips, same, self.specs, strict=True)], sample.label
        origin = (self.seed, epoch, zlib.crc32(sample.id.encode()), *again)
        rng = np.random.default_rng(origin)
        shots, seen = self._looping(position, rng) if self.windows.loop else self._inside(position, rng)
        crop = draw_crop(self.augments[0], rng, Draws(origin))
        label = sample.label
        if crop.flip and self.flip_labels is not None:
            label = self.flip_labels[label]
            if self.signals is not None and label != sample.label:  # nobody mirrors a sensor: both keep their class
                crop, label = replace(crop, flip=False), sample.label
        inputs = []
        for k, (shot, spec, augment) in enumerate(zip(shots, self.specs, self.augments, strict=True)):
            shot = shot._replace(limits=jitter_limits(shot.limits, augment, rng))
            inputs.append(_changed(shot, spec, crop, augment, Draws((*origin, k))))
        if self.signals is not None:
            giver = self.pairs.giver(position)
            spans = self.pairs.caches[0].clip(giver).stamps_ns
            inputs.append(self.signals.of(giver, spans, Draws((*origin, len(clips)))))
        inputs += [self._known(values, position, seen, crop) for values in self.beside]
        return inputs, label

    def still(self, position: int, frames: Int64) -> Float32:
        """Frames of a clip's first modality without random changes, (F, C, S, S)."""
        clip = self.pairs.clips(position)[0]
        return _still(clip, clip.stamps_ns[frames], self.specs[0])

    def changed(self, position: int, frames: Int64, *draw: int) -> tuple[Float32, int, CropDraw]:
        """Frames of a clip's first modality with the same random changes.

        Args:
            position: Which clip.
            frames: (F,).
            draw: Other random changes for each.

        Returns:
            Frames (F, C, S, S), the label, and how they were cropped.
        """
        assert self.augments is not None
        sample, clip, spec, augment = (
            self.pairs.samples[position],
            self.pairs.clips(position)[0],
            self.specs[0],
            self.augments[0],
        )
        origin = (self.seed, *draw, zlib.crc32(sample.id.encode()))
        rng = np.random.default_rng(origin)
        crop = draw_crop(augment, rng, Draws(origin))
        label = self.flip_labels[sample.label] if crop.flip and self.flip_labels is not None else sample.label
        shot = _Shot(clip.frames, *self._measured(position)[0], _frames_at(clip, clip.stamps_ns[frames], spec))
        shot = shot._replace(limits=jitter_limits(shot.limits, augment, rng))
        return _changed(shot, spec, crop, augment, Draws((*origin, 0))), label, crop

    def _inside(self, position: int, rng: np.random.Generator) -> tuple[list[_Shot], _Frames]:
        """Every modality of a window inside the clip."""
        clips = self.pairs.clips(position)
        first = clips[0].stamps_ns
        frames = self.windows.choose(first, rng)
        moments = first[frames]
        shots = [
            _Shot(clip.frames, *smoothed, _frames_at(clip, same_share(first, moments, clip.stamps_ns), spec))
            for clip, smoothed, spec in zip(clips, self._measured(position), self.specs, strict=True)
        ]
        return shots, _Frames(frames, position, frames, np.zeros(len(frames), dtype=bool))

    def _looping(self, position: int, rng: np.random.Generator) -> tuple[list[_Shot], _Frames]:
        """Every modality of a window that may begin before the clip does."""
        other = self._before(position, rng) if rng.random() < self.windows.before_share else position
        clips, before = self.pairs.clips(position), self.pairs.clips(other)
        length, length_before = (clip_length_ns(c[0].stamps_ns) for c in (clips, before))
        moments = self.windows.around(clips[0].stamps_ns, rng, other_before=other != position)
        half = length / len(clips[0].stamps_ns) / 2  # what is nearer to the first frame is the clip's own
        shots = []
        for k, spec in enumerate(self.specs):
            at = moments[:, None] - np.asarray(spec.motion_offsets_ms, dtype=np.int64) * 1_000_000  # (T, M)
            shot = _endless(clips[k], self._measured(position)[k], at, length)
            if other != position:
                earlier = at.ravel() < -half
                _put(shot, earlier, _endless(before[k], self._measured(other)[k], at, length_before))
            shots.append(shot)
        own = in_endless(clips[0].stamps_ns, moments, length)
        others = in_endless(before[0].stamps_ns, moments, length_before)
        return shots, _Frames(own, other, others, (moments < -half) & (other != position))

    def _known(self, values: FrameValues, position: int, seen: _Frames, crop: CropDraw) -> Float32:
        """(T, M) of the frames that a window shows, cropped as drawn."""
        known = values.of(self.pairs.samples[position].id, seen.frames, crop)
        if seen.is_other.any():
            before = values.of(self.pairs.samples[seen.other].id, seen.frames_of_other[seen.is_other], crop)
            known[seen.is_other] = before
        return known

    def _before(self, position: int, rng: np.random.Generator) -> int:
        """The preceding clip, if its frames have the same size."""
        other = self._sessions.before(position, rng)
        here, there = ([clip.frames.shape[1:] for clip in self.pairs.clips(p)] for p in (position, other))
        return other if here == there else position

    def _measured(self, position: int) -> list[_Smoothed]:
        """Smoothed intensity limits and places of a sample's clips, each computed once."""
        if position not in self._smoothed:
            self._smoothed[position] = [
                _smoothed(clip, spec) for clip, spec in zip(self.pairs.clips(position), self.specs, strict=True)
            ]
        return self._smoothed[position]


class SignalDataset(Dataset[tuple[list[Float32], int]]):
    """Signals of wearable sensors alone, indexed like a ``ClipDataset``.

    Args:
        pairs: The image clips whose time the signals are resampled onto.
        signals: What is made of the sensors.
        seed: The recipe's seed.
    """

    def __init__(self, pairs: PairedClips, signals: SignalInput, seed: int) -> None:
        self.pairs = pairs
        self.signals = signals
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> tuple[list[Float32], int]:
        position, epoch, *again = key
        sample, clips = self.pairs.samples[position], self.pairs.clips(position)
        draws = Draws((self.seed, epoch, zlib.crc32(sample.id.encode()), *again, len(clips)))
        return [self.signals.of(sample.id, clips[0].stamps_ns, draws)], sample.label


def _still(clip: CachedClip, moments: Int64, spec: Preprocess) -> Float32:
    """One modality at the chosen times without random changes, (T, C, S, S)."""
    height, width = clip.frames.shape[1:3]
    limits, places = _smoothed(clip, spec)
    crop = evaluation_crop(height, width, spec)
    return clip_input(clip.frames, limits, _frames_at(clip, moments, spec), crop, spec, places=places)


class _Smoothed(NamedTuple):
    """Smoothed measurements of each frame of a clip: intensity limits (N, 2) and places (N, 3) of a person."""

    limits: Float32
    places: Float32 | None


def _smoothed(clip: CachedClip, spec: Preprocess) -> _Smoothed:
    places = None
    if isinstance(spec.region, PersonRegion) and clip.own_places is not None:
        places = clip_places(clip.own_places, clip.stamps_ns, spec.region)
    return _Smoothed(clip_limits(clip.own_limits, clip.stamps_ns, spec.window), places)


class _Frames(NamedTuple):
    """Frames of the first modality in a window: (T,) of its clip, or of the preceding one."""

    frames: Int64
    other: int
    frames_of_other: Int64
    is_other: npt.NDArray[np.bool_]


class _Shot(NamedTuple):
    """One modality of a window: frames with their limits and places, and the (T, M) indices used."""

    frames: npt.NDArray[Any]
    limits: Float32
    places: Float32 | None
    indices: Int64


def _put(shot: _Shot, chosen: npt.NDArray[np.bool_], other: _Shot) -> None:
    """Replace some frames of a shot, with their measurements, by those of another one at the same times."""
    shot.frames[chosen], shot.limits[chosen] = other.frames[chosen], other.limits[chosen]
    if shot.places is not None and other.places is not None:
        shot.places[chosen] = other.places[chosen]


class Sessions:
    """Groups of clips recorded one after the other: those of the same subject, view and trial.

    Args:
        samples: Of the clips.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._sessions: dict[tuple[str, ...], list[int]] = {}
        for position, sample in enumerate(samples):
            self._sessions.setdefault(self._of(sample), []).append(position)

    def before(self, position: int, rng: np.random.Generator) -> int:
        """The preceding clip: another action of the same session, or the same one if there is no other."""
        sample = self._samples[position]
        others = [k for k in self._sessions[self._of(sample)] if self._samples[k].label != sample.label]
        return others[int(rng.integers(len(others)))] if others else position

    @staticmethod
    def _of(sample: Sample) -> tuple[str, ...]:
        return sample.subject, sample.view, sample.trial


def in_endless(stamps_ns: Int64, at: Int64, length: float) -> Int64:
    """Frames of an endlessly repeated clip, at times from its start.

    Args:
        stamps_ns: (N,) of the clip.
        at: Any shape, ns; negative ones lie before the clip's beginning.
        length: Length of the clip in ns, in the modality that the moments are of; recordings may differ in length.
    """
    own = clip_length_ns(stamps_ns)
    half = own / len(stamps_ns) / 2  # before the end, the first frame is the nearest again
    phase = ((at * (own / length) + half) % own - half).astype(np.int64)
    return nearest(stamps_ns - stamps_ns[0], phase)


def _endless(clip: CachedClip, measured: _Smoothed, at: Int64, length: float) -> _Shot:
    """An endlessly repeated clip, at times from its start, as a live camera would see it.

    Motion stacks reach over the joints, too.

    Args:
        clip: Frames and stamps of one modality.
        measured: What was measured in its frames.
        at: (T, M) ns of every frame that is looked at; negative ones lie before the clip's beginning.
        length: Length of the clip in ns, in the modality that the moments are of; recordings may differ in length.

    Returns:
        A frame of its own for each moment.
    """
    chosen = in_endless(clip.stamps_ns, at, length).ravel()
    places = None if measured.places is None else measured.places[chosen]
    return _Shot(clip.frames[chosen], measured.limits[chosen], places, np.arange(at.size).reshape(at.shape))


def _changed(shot: _Shot, spec: Preprocess, draw: CropDraw, augment: Augment, draws: Draws) -> Float32:
    """One modality of a window with the drawn crop and its own intensity changes, (T, C, S, S)."""
    frames, limits, places, indices = shot
    crop = _crop(draw, spec, frames.shape[1:3])
    if not augment.changes_planes:
        return change_input(clip_input(frames, limits, indices, crop, spec, places=places), spec, augment, draws)
    planes = clip_input(frames, limits, indices, crop, plain(spec), places=places)
    change_planes(planes, spec.channels, augment, draws)
    return change_input(normalised(planes, spec), spec, augment, draws)


def _crop(draw: CropDraw, spec: Preprocess, shape: tuple[int, ...]) -> Crop:
    """A drawn crop of a modality's region."""
    if isinstance(spec.region, FrameRegion):
        return draw.on(shape[0], shape[1])
    return draw.about() if isinstance(spec.region, PersonRegion) else draw.on(1, 1)  # regions are square


def _frames_at(clip: CachedClip, moments: Int64, spec: Preprocess) -> Int64:
    """(T, M) frame indices: of each moment the frames of its motion stack."""
    return motion_indices(clip.stamps_ns, nearest(clip.stamps_ns, moments), spec.motion_offsets_ms)


class EpochBatches(Sampler[list[Key]]):
    """Batches of keys: shuffled by seed and epoch in training, in order for evaluation.

    A last incomplete batch is dropped in training (other clips are left out each epoch) unless it is the only one.
    Which clips an epoch draws follows from the seed and its number alone.

    With ``classes`` every class is drawn equally often, in rounds: ceil(count * repeat / K) of them, each with one clip
    of each of the K classes that there are, in random order. Of a class every clip has its turn before one comes again.
    Without the batch that is dropped, numbers of draws of two classes differ by one at most.

    Args:
        count: Number of samples.
        batch_size: Over all devices.
        seed: None keeps the order and every sample.
        rank: Number of this process.
        world: Number of processes; each takes every ``world``-th sample of a batch.
        repeat: How often an epoch draws a sample.
        classes: (count,) class of each sample, to draw all classes equally often; None draws all samples.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        world: int = 1,
        *,
        repeat: int = 1,
        classes: Sequence[int] | None = None,
    ) -> None:
        self.count = count
        self.repeat = repeat
        of = np.asarray([] if classes is None else classes)
        self._members = [np.flatnonzero(of == label) for label in np.unique(of)]
        together = len(self._members) or 1
        self.draws = -(-count * repeat // together) * together
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world = rank, world
        self.epoch = 0

    def __len__(self) -> int:
        if self.seed is None:
            return -(-self.count // self.batch_size)
        return max(1, self.draws // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        positions, again = self._order()
        for batch in range(len(self)):
            mine = range(batch * self.batch_size, min((batch + 1) * self.batch_size, len(positions)))
            yield [self._key(int(positions[k]), int(again[k])) for k in mine[self.rank :: self.world]]

    def _key(self, position: int, again: int) -> Key:
        return (position, self.epoch, again) if again else (position, self.epoch)

    def _order(self) -> tuple[Int64, Int64]:
        """(draws,) positions in the order of an epoch, and how often it has drawn each of them before."""
        if self.seed is None:
            return np.arange(self.count), np.zeros(self.count, dtype=np.int64)
        rng = np.random.default_rng([self.seed, self.epoch])
        if not self._members:
            drawn = rng.permutation(self.draws)
            return drawn % self.count, drawn // self.count
        rounds = self.draws // len(self._members)
        turns = [
            np.concatenate([rng.permutation(members) for _ in range(-(-rounds // len(members)))])[:rounds]
            for members in self._members
        ]
        places = rng.permuted(np.tile(np.arange(len(turns)), (rounds, 1)), axis=1)  # (rounds, K), each row all classes
        number = np.arange(rounds)[:, None]
        sizes = np.array([len(members) for members in self._members])
        return np.stack(turns)[places, number].ravel(), (number // sizes[places]).ravel()


def collate(items: Sequence[tuple[list[Float32], int | Float32]]) -> Batch:
    """Stack samples to a batch."""
    modalities = zip(*(inputs for inputs, _ in items), strict=True)
    inputs = [torch.from_numpy(np.stack(clips)) for clips in modalities]
    return {"inputs": inputs, "labels": torch.from_numpy(np.stack([label for _, label in items]))}


class Loaders(NamedTuple):
    """The data that a stage trains on.

    Attributes:
        training: Shuffled and changed at random.
        batches: Carries the epoch.
        validation: In order; None where nothing is held out.
        note: What is worth knowing of it.
    """

    training: DataLoader[Batch]
    batches: EpochBatches
    validation: DataLoader[Batch] | None
    note: str = ""


def make_loader(dataset: Dataset[Any], batches: EpochBatches, workers: int) -> DataLoader[Batch]:
    """A loader over the batches; worker processes are spawned and live as long as the loader.

    It draws from a generator of its own: its draws depend on the number of workers and on which epoch is its first, and
    must not move the network's (dropout), or a resumed run would end with other weights.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_before_python,
    )


def _leave_before_python(_: int) -> None:
    """Let a worker process end before Python stops its threads.

    Where a loader is given up in the middle of an epoch, one of them may be handing over a batch: torn out of C++ code,
    it would abort the process, and torch would tell of a crash beneath whatever had ended the epoch.
    """
    Finalize(None, _leave, exitpriority=-100)  # the last one


def _leave() -> None:
    if sys.exc_info()[0] is None:  # else the traceback is still to come
        os._exit(0)

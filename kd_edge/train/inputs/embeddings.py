"""Embeddings of every frame of some clips by a frozen encoder, computed once and kept beside the frame caches.

    <cache root>/embeddings-<key>/<clip>.npy   (M, D) float32 of a clip's frames, as the frame cache has them

The key is the SHA-256 of everything that decides a number: the encoder's file, its output and its preprocessing; a
clip's name is that of its recording's content. A clip is written whole or not at all, so an encoding that was killed
goes on where it was, and a damaged file is made again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from kd_edge.data import Dataset, Sample
from kd_edge.data.cache.frames import CachedClips, prepare
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.errors import DataError, TrainingError
from kd_edge.files import CACHE_VARIABLE, cache_root, replacing
from kd_edge.preprocess import Preprocess
from kd_edge.sampling import nearest
from kd_edge.train.inputs.clips import ClipDataset
from kd_edge.train.inputs.draws import CropDraw
from kd_edge.train.inputs.encoder import Encoder, file_hash
from kd_edge.train.inputs.windows import Windows, same_share
from kd_edge.types import Float32, Int64

FORMAT = 1
"""Version of the cache; part of its key."""
LEAST_COVER = 0.5
"""A teacher's clip must last for at least this share of the student's."""


class SeenClip(NamedTuple):
    """A teacher's embeddings of the frames of one of its clips.

    Attributes:
        stamps_ns: (M,) int64.
        values: (M, D) float32.
    """

    stamps_ns: Int64
    values: Float32


class Embeddings:
    """Embeddings of the clips of one modality; the numbers stay on the disk.

    Args:
        frames: The clips that were encoded.
        files: Sample id -> its embeddings.
        size: D.
        fingerprint: SHA-256 (hex) of the recordings and of what encoded them.

    Attributes:
        modality: What was encoded.
        samples: Those that have embeddings.
        skipped: Sample id -> why it has none.
        size: D.
        fingerprint: As given.
    """

    def __init__(self, frames: CachedClips, files: Mapping[str, Path], size: int, fingerprint: str) -> None:
        self.modality = frames.modality
        self.samples = frames.samples
        self.skipped = frames.skipped
        self.size = size
        self.fingerprint = fingerprint
        self._frames, self._files = frames, dict(files)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._files

    def __str__(self) -> str:
        skipped = f", {len(self.skipped)} cannot be used" if self.skipped else ""
        return f"{len(self)} {self.modality} clips as embeddings of {self.size} numbers a frame{skipped}"

    def __len__(self) -> int:
        return len(self._files)

    def clip(self, sample_id: str) -> SeenClip:
        """Stamps and embeddings of a sample's frames.

        Raises:
            DataError: Its file is gone since it was made.
        """
        stamps = self._frames.clip(sample_id).stamps_ns
        values = _opened(self._files[sample_id], (len(stamps), self.size))
        if values is None:
            raise DataError(
                f"the embeddings {self._files[sample_id]} are gone or damaged", "the file as it was made", "train again"
            )
        return SeenClip(stamps, values)


class FrameEmbeddings:
    """Embeddings at the times of the student's frames, see ``at_frames``.

    Args:
        embeddings: Of the teacher's clips.
        stamps_ns: Sample id -> (N,) stamps of the student's clip.
    """

    def __init__(self, embeddings: Embeddings, stamps_ns: Mapping[str, Int64]) -> None:
        self._embeddings = embeddings
        self._stamps = dict(stamps_ns)

    def of(self, sample_id: str, frames: Int64, crop: CropDraw | None = None) -> Float32:
        """(F, D) at some frames of the student's clip, whose crop changes nothing; NaN where there is none."""
        if sample_id not in self._embeddings:
            return np.full((len(frames), self._embeddings.size), np.nan, np.float32)
        return at_frames(self._embeddings.clip(sample_id), self._stamps[sample_id], frames)


def at_frames(seen: SeenClip, stamps_ns: Int64, frames: Int64 | None = None) -> Float32:
    """A teacher's embeddings at the times of a student's frames: (F, D).

    Taken is the teacher's frame that is nearest at the same share of its clip, as everywhere where student and teacher
    are paired: between two embeddings by straight lines lies that of no image. A frame without one within the teacher's
    own time between frames, where some of its frames were lost, has none: NaN. So has a clip whose teacher's covers
    less than half of it.

    Args:
        seen: The teacher's clip.
        stamps_ns: (N,) of the student's clip.
        frames: (F,) which of them; None takes all.
    """
    moments = stamps_ns if frames is None else stamps_ns[frames]
    when, values = seen
    at = same_share(stamps_ns, moments, when)
    chosen = nearest(when, at)
    found: Float32 = np.array(values[chosen], dtype=np.float32)
    if len(when) > 1:
        found[np.abs(when[chosen] - at) > np.median(np.diff(when))] = np.nan
    if len(stamps_ns) > 1 and when[-1] - when[0] < LEAST_COVER * (stamps_ns[-1] - stamps_ns[0]):
        found[:] = np.nan
    return found


class EncoderSettings(Hashable, Protocol):
    """The settings of an encoder: part of a recipe's ``[teacher]`` of kind ``onnx``."""

    @property
    def file(self) -> Path:
        """Path of the graph."""

    @property
    def modality(self) -> str:
        """The image modality that it sees."""

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing from recorded frames to its input."""

    @property
    def output(self) -> str | None:
        """Name of the graph's output; None takes the only one."""

    @property
    def batch_size(self) -> int:
        """Images per batch."""


def embed_clips(
    config: EncoderSettings, dataset: Dataset, samples: Sequence[Sample], every: int, done: Callable[[int, int], None]
) -> Embeddings:
    """Encode every frame of some clips that is not in the cache yet, without random changes.

    Args:
        config: The recipe's ``[teacher]``.
        dataset: Where the clips come from.
        samples: Which ones.
        every: Only every n-th frame.
        done: Called with (clips done, clips in all): half of them are decoded first, the others encoded.

    Raises:
        DataError: No clip can be decoded, or there is no room.
        TrainingError: The encoder's file is refused, or what it says is no number.
    """
    spec = config.preprocess
    encoder = open_encoder(config)  # before hours of decoding

    def decoded(count: int, total: int) -> None:
        done(count, 2 * total)

    seen, settings = (dataset, samples, config.modality), (spec.resize_px, spec.window)
    frames = prepare(*seen, *settings, progress=decoded, every=every, region=spec.region, holes=spec.holes)
    folder = cache_root() / f"embeddings-{_key(config, dataset, every)[:20]}"
    clips = ClipDataset(PairedClips([frames]), [spec], Windows(2), None, seed=0)
    files: dict[str, Path] = {}
    for position, sample in enumerate(clips.pairs.samples):
        count = len(frames.clip(sample.id).stamps_ns)
        file = folder / f"{_name(dataset, sample, config.modality)}.npy"
        if _opened(file, (count, encoder.size)) is None:
            _check_room(folder.parent, 4 * encoder.size * count * (len(clips) - position))
            _write(file, _encoded(encoder, clips, position, count, config.batch_size))
        files[sample.id] = file
        done(len(clips) + position + 1, 2 * len(clips))
    return Embeddings(frames, files, encoder.size, embeddings_fingerprint(config, dataset, samples, every))


def open_encoder(config: EncoderSettings) -> Encoder:
    """Open a recipe's encoder, with as many threads as PyTorch.

    Raises:
        TrainingError: Its file is refused.
    """
    batch, threads = config.batch_size, torch.get_num_threads()
    return Encoder(config.file, config.preprocess, config.output, batch=batch, threads=threads)


def embedding_size(config: EncoderSettings) -> int:
    """Embedding size D of a recipe's encoder.

    Raises:
        TrainingError: Its file is refused.
    """
    return _size(config, file_hash(config.file))


@functools.lru_cache(maxsize=8)
def _size(config: EncoderSettings, content: str) -> int:
    return open_encoder(config).size


def embeddings_fingerprint(config: EncoderSettings, dataset: Dataset, samples: Sequence[Sample], every: int) -> str:
    """SHA-256 (hex) of the output of ``embed_clips``, without computing it.

    Raises:
        TrainingError: No such encoder.
    """
    content = [[s.id, _name(dataset, s, config.modality)] for s in samples]
    return hashlib.sha256(json.dumps([_key(config, dataset, every), content]).encode()).hexdigest()


def _key(config: EncoderSettings, dataset: Dataset, every: int) -> str:
    left = {"holes"} if config.preprocess.holes == "averaged" else None  # it came after the first caches
    spec = config.preprocess.model_dump(mode="json", exclude=left)
    settings = [FORMAT, dataset.name, config.modality, file_hash(config.file), config.output, spec, every]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _name(dataset: Dataset, sample: Sample, modality: str) -> str:
    try:
        return hashlib.sha256(dataset.content_key(sample, modality).encode()).hexdigest()[:40]
    except DataError:
        return "absent"


def _encoded(encoder: Encoder, clips: ClipDataset, position: int, count: int, batch: int) -> Float32:
    """(M, D) of a clip, a few images at a time."""
    parts = [
        encoder.embed(clips.still(position, np.arange(first, min(first + batch, count))))
        for first in range(0, count, batch)
    ]
    return np.concatenate(parts)


def _opened(file: Path, shape: tuple[int, int]) -> Float32 | None:
    """A clip's embeddings, memory-mapped; None if they are absent or damaged."""
    try:
        values: npt.NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == shape and values.dtype == np.float32 else None


def _write(file: Path, values: Float32) -> None:
    with replacing(file, TrainingError, option=CACHE_VARIABLE) as opened:
        np.save(opened, values, allow_pickle=False)


def _check_room(root: Path, needed: int) -> None:
    """Fail early if the embeddings will not fit on the disk."""
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DataError(
            f"the embeddings need about {needed / 1e9:.1f} GB in {root}, {free / 1e9:.1f} GB are there",
            "room for all of them",
            f"free some space, set {CACHE_VARIABLE} to a larger disk, or set cache_every in the recipe",
        )

"""Writes the files of a cache: clips decoded and resized a few ahead, appended one after the other."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import Dataset, ImageFormat, Sample
from kd_edge.errors import DataError
from kd_edge.preprocess import FixedWindow, PercentileWindow, percentile_limits, resize
from kd_edge.types import Float32, Int64

FORMAT = 1
"""Of the cache; part of its key."""

_DECODERS = 2  # SciPy, zlib and OpenCV release the interpreter lock
_LOOKAHEAD = 4  # clips decoded ahead of the one being written: bounds the memory


@dataclass(frozen=True, slots=True)
class Job:
    """What a cache is made of."""

    dataset: Dataset
    samples: tuple[Sample, ...]
    modality: str
    image_format: ImageFormat
    resize_px: int
    window: FixedWindow | PercentileWindow | None

    @property
    def window_key(self) -> list[float | None] | None:
        """What of the window decides the cached limits; smoothing and minimum span are applied later."""
        if not isinstance(self.window, PercentileWindow):
            return None
        return [self.window.low_percent, self.window.high_percent, self.window.ignore_value]


class _Decoded(NamedTuple):
    frames: npt.NDArray[Any]
    stamps_ns: Int64
    limits: Float32


def pack(folder: Path, job: Job, fingerprint: str, progress: Callable[[int, int], None] | None) -> None:
    """Fill an empty folder with a cache; the index comes last.

    Raises:
        DataError: Not one sample can be used.
        OSError: The folder cannot be written.
    """
    with (folder / "frames.bin").open("wb") as file:
        writer = _Writer(file, job.image_format)
        for done, (sample, decoded) in enumerate(_decode_all(job), 1):
            writer.add(sample, decoded)
            if progress is not None:
                progress(done, len(job.samples))
        file.flush()
        os.fsync(file.fileno())
    writer.finish(folder, job.modality, fingerprint)


def _decode_all(job: Job) -> Iterator[tuple[Sample, _Decoded | DataError]]:
    """Decoded and resized clips, in order."""
    pending: deque[tuple[Sample, Future[_Decoded | DataError]]] = deque()
    with ThreadPoolExecutor(_DECODERS, "decode") as decoders:
        try:
            for sample in job.samples:
                pending.append((sample, decoders.submit(_decode, job, sample)))
                if len(pending) > _LOOKAHEAD:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _decode(job: Job, sample: Sample) -> _Decoded | DataError:
    try:
        clip = job.dataset.open(sample, job.modality)
    except DataError as error:
        return error
    frames = np.stack([resize(frame, job.resize_px) for frame in clip.frames])
    channels = 1 if frames.ndim == 3 else frames.shape[-1]
    expected = job.image_format
    if (frames.dtype.name, channels) != (expected.dtype, expected.channels):
        return DataError(
            f"{sample.id} has {frames.dtype.name} images of {channels} channels",
            f"{expected.dtype} with {expected.channels}",
            "fetch this recording again",
        )
    limits = np.full((len(frames), 2), np.nan, dtype=np.float32)
    if isinstance(job.window, PercentileWindow):
        limits[:] = [percentile_limits(frame, job.window) for frame in frames]
    return _Decoded(frames, clip.stamps_ns, limits)


class _Writer:
    """Appends clips and remembers where they are."""

    def __init__(self, file: IO[bytes], image_format: ImageFormat) -> None:
        self._file = file
        self._format = image_format
        self._clips: list[dict[str, Any]] = []
        self._skipped: dict[str, str] = {}
        self._stamps: list[Int64] = []
        self._limits: list[Float32] = []
        self._bytes = self._frames = 0

    def add(self, sample: Sample, decoded: _Decoded | DataError) -> None:
        if isinstance(decoded, DataError):
            self._skipped[sample.id] = str(decoded)
            return
        frames, stamps, limits = decoded
        self._file.write(frames.data)
        place = {"offset": self._bytes, "shape": frames.shape, "first": self._frames}
        self._clips.append({"sample": asdict(sample), **place})
        self._stamps.append(stamps)
        self._limits.append(limits)
        self._bytes += frames.nbytes
        self._frames += len(frames)

    def finish(self, folder: Path, modality: str, fingerprint: str) -> None:
        if not self._clips:
            why = next(iter(self._skipped.values()), "no sample was asked for")
            raise DataError(
                f"not one {modality} clip can be used; the first: {why}", "recordings", "kd-edge data check"
            )
        np.save(folder / "stamps.npy", np.concatenate(self._stamps))
        np.save(folder / "limits.npy", np.concatenate(self._limits))
        index = {
            "fingerprint": fingerprint,
            "modality": modality,
            "image_format": asdict(self._format),
            "bytes": self._bytes,
            "frames": self._frames,
            "median_seconds": float(np.median([float(s[-1] - s[0]) / 1e9 for s in self._stamps])),
            "skipped": self._skipped,
            "clips": self._clips,
        }
        (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")

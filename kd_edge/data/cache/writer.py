"""Write the files of a cache: clips are decoded and resized a few ahead, and appended in order.

A journal next to the frames records the written clips. Decoding a large data set takes hours, so an interrupted
preparation is resumed after the last clip in the journal.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.crop import AnyRegion, PersonRegion
from kd_edge.data.dataset import Dataset, ImageFormat, Sample
from kd_edge.errors import DataError
from kd_edge.person import measure
from kd_edge.resizing import Holes, resize
from kd_edge.types import Float32, Int64
from kd_edge.window import AnyWindow, FixedWindow, RelativeWindow, own_limits

FORMAT = 1
"""Version of the cache format; part of the key."""

_DECODERS = 2  # SciPy, zlib and OpenCV release the interpreter lock
_LOOKAHEAD = 4  # clips decoded ahead of the one being written; limits the memory
_CLIPS_TO_ESTIMATE = 16  # clips after which the total size is estimated

FRAMES, JOURNAL = "frames.bin", "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that determines the content of a cache."""

    dataset: Dataset
    samples: tuple[Sample, ...]
    modality: str
    image_format: ImageFormat
    resize_px: int
    window: AnyWindow | None
    every: int = 1
    region: AnyRegion | None = None
    holes: Holes = "averaged"

    @property
    def window_key(self) -> list[float | None] | None:
        """Settings of the window that affect the cached limits; smoothing, span and minimum span are applied later."""
        window = self.window
        if window is None or isinstance(window, FixedWindow):
            return None
        if isinstance(window, RelativeWindow):
            return [window.low, window.high, window.minimum_share]
        return [window.low_percent, window.high_percent, window.ignore_value]

    @property
    def region_key(self) -> list[float | None] | None:
        """Settings of the region that affect the cached places; smoothing and the square's side are applied later."""
        if not isinstance(self.region, PersonRegion):
            return None
        region = self.region
        return [region.low, region.high, region.focal, region.metres, region.height_m, region.minimum_share]


class _Decoded(NamedTuple):
    frames: npt.NDArray[Any]
    stamps_ns: Int64
    limits: Float32
    places: Float32


def pack(folder: Path, job: Job, fingerprint: str, progress: Callable[[int, int], None] | None) -> None:
    """Write a cache into a folder that is empty or left by an interrupted preparation; the index is written last.

    Raises:
        DataError: No sample can be used, or the disk is too small for all of them.
        OSError: The folder is not writable.
    """
    with (folder / FRAMES).open("ab") as frames, (folder / JOURNAL).open("a+", encoding="utf-8") as journal:
        writer = _Writer(frames, journal, job.image_format)
        first = writer.resume(job.samples)
        for done, (sample, decoded) in enumerate(_decode_all(job, first), first + 1):
            writer.add(sample, decoded)
            if done - first == _CLIPS_TO_ESTIMATE:
                _check_room(folder, writer.bytes, done, len(job.samples))
            if progress is not None:
                progress(done, len(job.samples))
        frames.flush()
        try:
            os.fsync(frames.fileno())
        except OSError:
            journal.truncate(0)  # not resumable: it is unknown which frames have reached the disk
            raise
    writer.finish(folder, job.modality, fingerprint)
    (folder / JOURNAL).unlink()


def _check_room(folder: Path, written: int, done: int, total: int) -> None:
    """Raise a DataError early, instead of after hours, if the clips will not fit."""
    remaining, free = written / done * (total - done), shutil.disk_usage(folder).free
    if remaining > free:
        raise DataError(
            f"the cache of {total} clips needs about {(written + remaining) / 1e9:.0f} GB in {folder.parent}, "
            f"{(written + free) / 1e9:.0f} GB are available",
            "room for all decoded frames",
            "free some space, set KD_EDGE_CACHE to a larger disk, or cache fewer frames: cache_every=3 in the recipe",
        )


def _decode_all(job: Job, start: int) -> Iterator[tuple[Sample, _Decoded | DataError]]:
    """Yield decoded and resized clips from index ``start`` on, in order."""
    pending: deque[tuple[Sample, Future[_Decoded | DataError]]] = deque()
    with ThreadPoolExecutor(_DECODERS, "decode") as decoders:
        try:
            for sample in job.samples[start:]:
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
    channels = 1 if clip.frames.ndim == 3 else clip.frames.shape[-1]
    expected = job.image_format
    if (clip.frames.dtype.name, channels) != (expected.dtype, expected.channels):
        return DataError(
            f"{sample.id} has {clip.frames.dtype.name} images of {channels} channels",
            f"{expected.dtype} with {expected.channels}",
            "fetch this recording again",
        )
    frames = np.stack([resize(frame, job.resize_px, job.holes) for frame in clip.frames[:: job.every]])
    limits, places = (np.full((len(frames), count), np.nan, dtype=np.float32) for count in (2, 3))
    if job.window is not None and job.window_key is not None:
        limits[:] = [own_limits(frame, job.window) for frame in frames]
    if isinstance(job.region, PersonRegion):
        places[:] = [measure(frame, job.region) for frame in frames]
    return _Decoded(frames, clip.stamps_ns[:: job.every], limits, places)


class _Writer:
    """Appends clips and records their positions.

    Attributes:
        bytes: Size of the frames so far.
    """

    def __init__(self, frames: IO[bytes], journal: IO[str], image_format: ImageFormat) -> None:
        self._frames_file, self._journal = frames, journal
        self._format = image_format
        self._clips: list[dict[str, Any]] = []
        self._skipped: dict[str, str] = {}
        self._stamps: list[Int64] = []
        self._limits: list[Float32] = []
        self._places: list[Float32] = []
        self.bytes = self._frames = 0

    def resume(self, samples: Sequence[Sample]) -> int:
        """Restore the state of the journal and drop later frames; return the number of samples done."""
        self._journal.seek(0)
        kept = 0
        lines = self._journal.read().split("\n")[:-1]  # the last may be truncated
        for line, sample in zip(lines, samples, strict=False):
            entry = json.loads(line)
            if entry["sample"] != asdict(sample):
                raise ValueError("the journal is of other samples")
            self._take(entry)
            kept += len(line.encode()) + 1
        self._journal.truncate(kept)
        self._journal.seek(0, os.SEEK_END)
        if self._frames_file.seek(0, os.SEEK_END) < self.bytes:
            raise ValueError("fewer frames than recorded in the journal")
        self._frames_file.truncate(self.bytes)
        return len(self._clips) + len(self._skipped)

    def add(self, sample: Sample, decoded: _Decoded | DataError) -> None:
        entry: dict[str, Any] = {"sample": asdict(sample)}
        if isinstance(decoded, DataError):
            entry["skipped"] = str(decoded)
        else:
            self._frames_file.write(decoded.frames.data)
            self._frames_file.flush()
            entry |= {"offset": self.bytes, "shape": decoded.frames.shape, "first": self._frames}
            entry |= {"bytes": decoded.frames.nbytes, "stamps": decoded.stamps_ns.tolist()}
            for name, values in (("limits", decoded.limits), ("places", decoded.places)):
                entry[name] = None if np.isnan(values).all() else values.tolist()
        self._take(entry)
        self._journal.write(json.dumps(entry) + "\n")  # after the frames, so that a kill in between drops them
        self._journal.flush()

    def _take(self, entry: dict[str, Any]) -> None:
        if "skipped" in entry:
            self._skipped[entry["sample"]["id"]] = entry["skipped"]
            return
        stamps = np.array(entry["stamps"], dtype=np.int64)
        self._clips.append({key: entry[key] for key in ("sample", "offset", "shape", "first")})
        self._stamps.append(stamps)
        self._limits.append(_measured(entry["limits"], len(stamps), 2))
        self._places.append(_measured(entry["places"], len(stamps), 3))
        self.bytes += entry["bytes"]
        self._frames += len(stamps)

    def finish(self, folder: Path, modality: str, fingerprint: str) -> None:
        if not self._clips:
            why = next(iter(self._skipped.values()), "no sample was requested")
            raise DataError(f"no {modality} clip can be used; the first: {why}", "recordings", "kd-edge data check")
        np.save(folder / "stamps.npy", np.concatenate(self._stamps))
        np.save(folder / "limits.npy", np.concatenate(self._limits))
        if not all(np.isnan(places).all() for places in self._places):
            np.save(folder / "places.npy", np.concatenate(self._places))
        index = {
            "fingerprint": fingerprint,
            "modality": modality,
            "image_format": asdict(self._format),
            "bytes": self.bytes,
            "frames": self._frames,
            "median_seconds": float(np.median([float(s[-1] - s[0]) / 1e9 for s in self._stamps])),
            "skipped": self._skipped,
            "clips": self._clips,
        }
        (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _measured(values: list[list[float]] | None, frames: int, count: int) -> Float32:
    """(frames, count) values of a journal entry; NaN if nothing was measured."""
    return np.full((frames, count), np.nan, np.float32) if values is None else np.array(values, dtype=np.float32)

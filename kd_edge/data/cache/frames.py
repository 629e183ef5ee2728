"""The frame cache: decoded, resized frames of many clips in one memory-mapped file, so that training never waits.

A cache is a folder named by the SHA-256 of everything that decides its content; it is written beside its final place
and moved there in one step, so that it is either complete or absent. A preparation that was killed goes on where it
was; what it left (``.tmp-<name>``) is deleted a week later. ``.lock-<name>`` is there while a cache is being made.

    <cache root>/<data set>-<modality>-<key>/frames.bin   frames of all clips, one after the other
                                             stamps.npy   (all frames,) int64, ns from the start of each sample
                                             limits.npy   (all frames, 2) float32, what each frame alone says of them
                                             places.npy   (all frames, 3) float32, where the person is, if asked for
                                             index.json   where each clip lies, which samples were skipped and why
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.crop import AnyRegion
from kd_edge.data.cache.writer import FORMAT, JOURNAL, Job, pack
from kd_edge.data.dataset import Dataset, ImageFormat, Sample
from kd_edge.errors import DataError
from kd_edge.files import CACHE_VARIABLE, cache_root, held
from kd_edge.resizing import Holes
from kd_edge.types import Float32, Int64
from kd_edge.window import AnyWindow

_LEFTOVER_SECONDS = (
    7 * 24 * 3600
)  # hours of decoding are worth a weekend's wait; a cache given up must not stay forever
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY, _LOCK = ".tmp-", ".lock-"

log = logging.getLogger("kd_edge.data")


class CachedClip(NamedTuple):
    """Views into the cache; nothing is copied.

    Attributes:
        frames: (T, h, w) or (T, h, w, 3), uint8 or uint16, read-only, as ``resizing.resize`` returns them.
        stamps_ns: (T,) int64, 0 at the start of the sample.
        own_limits: (T, 2) float32, limits of each frame alone; NaN for a fixed window.
        own_places: (T, 3) float32, where the person is in each frame alone; None unless a person region was asked for.
    """

    frames: npt.NDArray[Any]
    stamps_ns: Int64
    own_limits: Float32
    own_places: Float32 | None = None


class CachedClips:
    """The clips of one modality in a ready cache; safe to use from several processes.

    Attributes:
        path: Folder of the cache.
        modality: What was cached.
        samples: Samples that are in it, in the order they were asked for.
        skipped: Sample id -> why it is not in it.
        fingerprint: SHA-256 (hex) of the data set's content and the settings.
        image_format: Of the original images.
        bytes: Size of the frames.
        median_seconds: Median duration of the clips, first to last frame.
    """

    def __init__(self, path: Path) -> None:
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        self.path = path
        self.modality: str = index["modality"]
        self.samples = tuple(Sample(**entry["sample"]) for entry in index["clips"])
        self.skipped: dict[str, str] = index["skipped"]
        self.fingerprint: str = index["fingerprint"]
        stored = index["image_format"]
        self.image_format = ImageFormat(**{**stored, "value_range": tuple(stored["value_range"])})
        self.bytes: int = index["bytes"]
        self.median_seconds: float = index["median_seconds"]
        self._dtype = np.dtype(self.image_format.dtype)
        self._places = {e["sample"]["id"]: (e["offset"], tuple(e["shape"]), e["first"]) for e in index["clips"]}
        if (path / "frames.bin").stat().st_size != self.bytes:
            raise ValueError("frames.bin has another size than the index says")
        self._frames = np.memmap(path / "frames.bin", dtype=np.uint8, mode="r")
        self._stamps: Int64 = np.load(path / "stamps.npy", allow_pickle=False)
        self._limits: Float32 = np.load(path / "limits.npy", allow_pickle=False)
        places = path / "places.npy"
        self._all_places: Float32 | None = np.load(places, allow_pickle=False) if places.exists() else None
        if not len(self._stamps) == len(self._limits) == index["frames"]:
            raise ValueError("stamps.npy or limits.npy has another length than the index says")

    def __reduce__(self) -> tuple[type[CachedClips], tuple[Path]]:
        return CachedClips, (self.path,)  # a loader process opens the map itself instead of receiving its content

    def __str__(self) -> str:
        return f"{len(self)} {self.modality} clips, {self.bytes / 1e6:.0f} MB in {self.path}"

    def __len__(self) -> int:
        return len(self.samples)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._places

    def clip(self, sample_id: str) -> CachedClip:
        """Frames, stamps and percentile limits of one sample, without copying.

        Raises:
            DataError: The sample is not in the cache; says why it was skipped.
        """
        if sample_id not in self._places:
            reason = self.skipped.get(sample_id, "it was not asked for when the cache was made")
            raise DataError(f"sample {sample_id} is not cached: {reason}", "a cached sample", "kd-edge data check")
        offset, shape, first = self._places[sample_id]
        size = int(np.prod(shape)) * self._dtype.itemsize
        frames = np.asarray(self._frames[offset : offset + size]).view(self._dtype).reshape(shape)
        last = first + shape[0]
        places = None if self._all_places is None else self._all_places[first:last]
        return CachedClip(frames, self._stamps[first:last], self._limits[first:last], places)


def prepare(
    dataset: Dataset,
    samples: Sequence[Sample],
    modality: str,
    resize_px: int,
    window: AnyWindow | None = None,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    every: int = 1,
    region: AnyRegion | None = None,
    holes: Holes = "averaged",
) -> CachedClips:
    """Open the cache of these clips, made first where it is not there yet.

    Where another process is making the same cache it waits for it, and says so once through the logger
    ``kd_edge.data``; other caches are made at the same time.

    Args:
        dataset: Where the clips come from.
        samples: Which ones; ask for the whole data set when several splits will use it.
        modality: An image modality.
        resize_px: Shorter side of the cached frames.
        window: Adds each frame's own limits; a fixed one or None needs none.
        root: Folder of the caches; None takes ``cache_root()``.
        progress: Called with (clips done, clips in all) while decoding.
        every: Keep every n-th frame, the first one included, with its own stamp.
        region: A person region adds where the person is in each frame; others need nothing.
        holes: What pixels without a measurement do where resizing averages.

    Returns:
        The ready cache. Damaged or absent recordings are left out and named in ``skipped``.

    Raises:
        DataError: Nothing could be decoded or the disk is full; nothing is left half-written. Or the folder cannot be
            written; what is kept to go on with next time is named.
        ConfigError: No root was given, and none is known.
    """
    root = cache_root() if root is None else root
    image_format = dataset.image_format(modality)
    job = Job(dataset, tuple(samples), modality, image_format, resize_px, window, every, region, holes)
    fingerprint = _fingerprint(job)
    path = root / f"{dataset.name}-{modality}-{fingerprint[:20]}"
    ready = _open(path)
    if ready is not None:
        return ready
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            ready = _open(path)  # another process may have made it meanwhile
            if ready is None:
                _make(path, job, fingerprint, progress)
                ready = CachedClips(path)
            return ready
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def _lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """One preparation of a cache at a time.

    Yields:
        Whether it is held; without waiting it is not where another process holds it.
    """

    def waiting() -> None:
        log.warning("waiting for another process, which makes %s", path)

    with held(path.with_name(_LOCK + path.name), waiting if wait else None) as is_held:
        yield is_held


def cache_fingerprint(
    dataset: Dataset,
    samples: Sequence[Sample],
    modality: str,
    resize_px: int,
    window: AnyWindow | None = None,
    *,
    every: int = 1,
    region: AnyRegion | None = None,
    holes: Holes = "averaged",
) -> str:
    """SHA-256 (hex) that the cache of these clips has or would have, see ``prepare``; nothing is decoded."""
    form = dataset.image_format(modality)
    job = Job(dataset, tuple(samples), modality, form, resize_px, window, every, region, holes)
    return _fingerprint(job)


def _fingerprint(job: Job) -> str:
    settings = [FORMAT, job.dataset.name, job.modality, job.resize_px, job.window_key]
    settings += [job.every] if job.every > 1 else []
    settings += [job.region_key] if job.region_key is not None else []
    settings += [job.holes] if job.holes != "averaged" else []
    content = [[s.id, s.subject, s.view, s.trial, s.label, _content_key(job, s)] for s in job.samples]
    return hashlib.sha256(json.dumps([settings, content]).encode()).hexdigest()


def _content_key(job: Job, sample: Sample) -> str:
    try:
        return job.dataset.content_key(sample, job.modality)
    except DataError:
        return "absent"


def _open(path: Path) -> CachedClips | None:
    """The cache, or None when it is absent or damaged."""
    try:
        return CachedClips(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _make(path: Path, job: Job, fingerprint: str, progress: Callable[[int, int], None] | None) -> None:
    """Write a cache beside its place and move it there; the caller holds the lock."""
    _clean(path)
    temporary = path.with_name(_TEMPORARY + path.name)
    if path.exists():
        shutil.rmtree(path)
    try:
        temporary.mkdir(exist_ok=True)
        try:
            pack(temporary, job, fingerprint, progress)
        except (ValueError, KeyError, TypeError):  # what a kill left is damaged: from the start
            shutil.rmtree(temporary)
            temporary.mkdir()
            pack(temporary, job, fingerprint, progress)
        temporary.replace(path)
    except Exception as error:  # an interrupted preparation is kept and goes on next time
        if not isinstance(error, OSError) or error.errno in _FULL:  # a full disk must not stay full
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _clean(path: Path) -> None:
    """Delete what killed preparations of other caches left, unless it can still be gone on with or is being made."""
    left = {name for start in (_TEMPORARY, _LOCK) for name in _names(path.parent, start)}
    for name in sorted(left - {path.name}):
        other = path.with_name(name)
        with _lock(other, wait=False) as is_held:
            temporary = other.with_name(_TEMPORARY + name)
            if is_held and not _resumable(temporary):
                shutil.rmtree(temporary, ignore_errors=True)


def _names(folder: Path, start: str) -> list[str]:
    return [found.name.removeprefix(start) for found in folder.glob(f"{start}*")]


def _resumable(temporary: Path) -> bool:
    try:
        journal = (temporary / JOURNAL).stat()
        return journal.st_size > 0 and time.time() - journal.st_mtime < _LEFTOVER_SECONDS
    except OSError:
        return False


def _unwritable(path: Path, error: OSError) -> DataError:
    root, temporary = path.parent, path.with_name(_TEMPORARY + path.name)
    full = error.errno in _FULL
    kept = f"; what was decoded is kept in {temporary} and goes on next time" if _resumable(temporary) else ""
    return DataError(
        f"the disk of the cache {root} is full" if full else f"cannot write the cache {root} ({error.strerror}{kept})",
        "room for the decoded frames" if full else "a folder that can be written",
        f"free some space there, or set {CACHE_VARIABLE} to another folder",
    )

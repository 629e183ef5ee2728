"""The frame cache: decoded, resized frames of many clips in one memory-mapped file, so that training never waits.

A cache is a folder named by the SHA-256 of everything that determines its content. It is written to a temporary folder
and renamed, so that it is either complete or absent. A preparation that was killed is resumed; its files
(``.tmp-<name>``) are deleted after a week. ``.lock-<name>`` exists while a cache is being made.

    <cache root>/<data set>-<modality>-<key>/frames.bin   frames of all clips, concatenated
                                             stamps.npy   (all frames,) int64, ns from the start of each sample
                                             limits.npy   (all frames, 2) float32, limits of each frame alone
                                             places.npy   (all frames, 3) float32, position of the person, on request
                                             index.json   offset of each clip, skipped samples and the reasons
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

# Hours of decoding are kept over a weekend, but an abandoned cache must not stay forever.
_LEFTOVER_SECONDS = 7 * 24 * 3600
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY, _LOCK = ".tmp-", ".lock-"

log = logging.getLogger("kd_edge.data")


class CachedClip(NamedTuple):
    """Views into the cache; nothing is copied.

    Attributes:
        frames: (T, h, w) or (T, h, w, 3), uint8 or uint16, read-only, as returned by ``resizing.resize``.
        stamps_ns: (T,) int64, 0 at the start of the sample.
        own_limits: (T, 2) float32, limits of each frame alone; NaN for a fixed window.
        own_places: (T, 3) float32, position of the person in each frame alone; None without a person region.
    """

    frames: npt.NDArray[Any]
    stamps_ns: Int64
    own_limits: Float32
    own_places: Float32 | None = None


class CachedClips:
    """The clips of one modality in a ready cache; safe to use from several processes.

    Attributes:
        path: Folder of the cache.
        modality: The cached modality.
        samples: Cached samples, in the order requested.
        skipped: Sample id -> why it is not cached.
        fingerprint: SHA-256 (hex) of the data set's content and the settings.
        image_format: Format of the original images.
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
            raise ValueError("the size of frames.bin differs from that in the index")
        self._frames = np.memmap(path / "frames.bin", dtype=np.uint8, mode="r")
        self._stamps: Int64 = np.load(path / "stamps.npy", allow_pickle=False)
        self._limits: Float32 = np.load(path / "limits.npy", allow_pickle=False)
        places = path / "places.npy"
        self._all_places: Float32 | None = np.load(places, allow_pickle=False) if places.exists() else None
        if not len(self._stamps) == len(self._limits) == index["frames"]:
            raise ValueError("the length of stamps.npy or limits.npy differs from that in the index")

    def __reduce__(self) -> tuple[type[CachedClips], tuple[Path]]:
        return CachedClips, (self.path,)  # a loader process opens the map itself instead of receiving its content

    def __str__(self) -> str:
        return f"{len(self)} {self.modality} clips, {self.bytes / 1e6:.0f} MB in {self.path}"

    def __len__(self) -> int:
        return len(self.samples)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._places

    def clip(self, sample_id: str) -> CachedClip:
        """Return frames, stamps and limits of one sample, without copying.

        Raises:
            DataError: The sample is not in the cache; the message has the reason.
        """
        if sample_id not in self._places:
            reason = self.skipped.get(sample_id, "it was not requested when the cache was made")
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
    """Open the cache of these clips, creating it if necessary.

    If another process is creating the same cache, wait for it, with one message to the logger ``kd_edge.data``;
    different caches can be created at the same time.

    Args:
        dataset: Data set of the clips.
        samples: Samples to cache; request the whole data set if several splits will use it.
        modality: An image modality.
        resize_px: Shorter side of the cached frames.
        window: Adds each frame's own limits, unless it is fixed or None.
        root: Folder of the caches; None for ``cache_root()``.
        progress: Called with (clips done, total number of clips) while decoding.
        every: Keep every n-th frame, beginning with the first, with its own stamp.
        region: A person region adds the position of the person in each frame; other regions add nothing.
        holes: How resizing treats pixels without a measurement.

    Returns:
        The ready cache. Damaged or missing recordings are left out and listed in ``skipped``.

    Raises:
        DataError: Nothing could be decoded, or the disk is full; partial files are removed. Or the folder is not
            writable; the message names the partial files kept for resuming.
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
            ready = _open(path)  # another process may have created it in the meantime
            if ready is None:
                _make(path, job, fingerprint, progress)
                ready = CachedClips(path)
            return ready
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def _lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a cache, so that only one process creates it.

    Yields:
        Whether the lock is held; without waiting, False if another process holds it.
    """

    def waiting() -> None:
        log.warning("waiting for another process that is creating %s", path)

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
    """Return the SHA-256 (hex) of the cache that ``prepare`` opens or would create; nothing is decoded."""
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
    """The cache, or None if it is missing or damaged."""
    try:
        return CachedClips(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _make(path: Path, job: Job, fingerprint: str, progress: Callable[[int, int], None] | None) -> None:
    """Write a cache to a temporary folder and rename it; the caller holds the lock."""
    _clean(path)
    temporary = path.with_name(_TEMPORARY + path.name)
    if path.exists():
        shutil.rmtree(path)
    try:
        temporary.mkdir(exist_ok=True)
        try:
            pack(temporary, job, fingerprint, progress)
        except (ValueError, KeyError, TypeError):  # the files of a killed process are damaged: start over
            shutil.rmtree(temporary)
            temporary.mkdir()
            pack(temporary, job, fingerprint, progress)
        temporary.replace(path)
    except Exception as error:  # an interrupted preparation is kept and resumed next time
        if not isinstance(error, OSError) or error.errno in _FULL:  # a full disk must not stay full
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _clean(path: Path) -> None:
    """Delete the files of killed preparations of other caches, unless they can be resumed or are in use."""
    leftovers = {name for prefix in (_TEMPORARY, _LOCK) for name in _names(path.parent, prefix)}
    for name in sorted(leftovers - {path.name}):
        other = path.with_name(name)
        with _lock(other, wait=False) as is_held:
            temporary = other.with_name(_TEMPORARY + name)
            if is_held and not _resumable(temporary):
                shutil.rmtree(temporary, ignore_errors=True)


def _names(folder: Path, prefix: str) -> list[str]:
    return [found.name.removeprefix(prefix) for found in folder.glob(f"{prefix}*")]


def _resumable(temporary: Path) -> bool:
    try:
        journal = (temporary / JOURNAL).stat()
        return journal.st_size > 0 and time.time() - journal.st_mtime < _LEFTOVER_SECONDS
    except OSError:
        return False


def _unwritable(path: Path, error: OSError) -> DataError:
    root, temporary = path.parent, path.with_name(_TEMPORARY + path.name)
    full = error.errno in _FULL
    kept = f"; decoded clips are kept in {temporary} and resumed next time" if _resumable(temporary) else ""
    return DataError(
        f"the disk of the cache {root} is full" if full else f"cannot write the cache {root} ({error.strerror}{kept})",
        "room for the decoded frames" if full else "a writable folder",
        f"free some space there, or set {CACHE_VARIABLE} to another folder",
    )

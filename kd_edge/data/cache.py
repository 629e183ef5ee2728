"""The frame cache: decoded, resized frames of many clips in one memory-mapped file, so that training never waits.

A cache is a folder named by the SHA-256 of everything that decides its content; it is written beside its final place
and moved there in one step, so that it is either complete or absent.

    <cache root>/<data set>-<modality>-<key>/frames.bin   frames of all clips, one after the other
                                             stamps.npy   (all frames,) int64, ns from the start of each sample
                                             limits.npy   (all frames, 2) float32, each frame's own percentile limits
                                             index.json   where each clip lies, which samples were skipped and why
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import platformdirs

from kd_edge.data.dataset import Dataset, ImageFormat, Sample
from kd_edge.errors import DataError
from kd_edge.preprocess import FixedWindow, PercentileWindow, percentile_limits, resize
from kd_edge.types import Float32, Int64

FORMAT = 1
"""Of the cache; part of its key."""

CACHE_VARIABLE = "KD_EDGE_CACHE"
"""Environment variable: the folder of the caches."""

_DECODERS = 2  # SciPy, zlib and OpenCV release the interpreter lock
_LOOKAHEAD = 4  # clips decoded ahead of the one being written


def cache_root() -> Path:
    """``KD_EDGE_CACHE``, or the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else platformdirs.user_cache_path("kd-edge", appauthor=False)


class CachedClip(NamedTuple):
    """Views into the cache; nothing is copied.

    Attributes:
        frames: (T, h, w) or (T, h, w, 3), uint8 or uint16, read-only, as ``preprocess.resize`` returns them.
        stamps_ns: (T,) int64, 0 at the start of the sample.
        own_limits: (T, 2) float32, percentile limits of each frame alone; NaN for a fixed window.
    """

    frames: npt.NDArray[Any]
    stamps_ns: Int64
    own_limits: Float32


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
        self.image_format = ImageFormat(**{**index["image_format"], "value_range": tuple(index["image_format"]["value_range"])})
        self.bytes: int = index["bytes"]
        self.median_seconds: float = index["median_seconds"]
        self._dtype = np.dtype(self.image_format.dtype)
        self._places = {e["sample"]["id"]: (e["offset"], tuple(e["shape"]), e["first"]) for e in index["clips"]}
        if (path / "frames.bin").stat().st_size != self.bytes:
            raise ValueError("frames.bin has another size than the index says")
        self._frames = np.memmap(path / "frames.bin", dtype=np.uint8, mode="r")
        self._stamps: Int64 = np.load(path / "stamps.npy", allow_pickle=False)
        self._limits: Float32 = np.load(path / "limits.npy", allow_pickle=False)
        if not len(self._stamps) == len(self._limits) == index["frames"]:
            raise ValueError("stamps.npy or limits.npy has another length than the index says")

    def __reduce__(self) -> tuple[type[CachedClips], tuple[Path]]:
        return CachedClips, (self.path,)  # a loader process opens the map itself instead of receiving its content

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
            raise DataError(f"sample {sample_id} is not in the cache: {reason}", "a cached sample", "see kd-edge data check")
        offset, shape, first = self._places[sample_id]
        size = int(np.prod(shape)) * self._dtype.itemsize
        frames = np.asarray(self._frames[offset : offset + size]).view(self._dtype).reshape(shape)
        last = first + shape[0]
        return CachedClip(frames, self._stamps[first:last], self._limits[first:last])


def prepare(
    dataset: Dataset,
    samples: Sequence[Sample],
    modality: str,
    resize_px: int,
    window: FixedWindow | PercentileWindow | None = None,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CachedClips:
    """Open the cache of these clips, made first where it is not there yet.

    Args:
        dataset: Where the clips come from.
        samples: Which ones; ask for the whole data set when several splits will use it.
        modality: An image modality.
        resize_px: Shorter side of the cached frames.
        window: A percentile window adds each frame's own limits; a fixed one or None needs none.
        root: Folder of the caches; None takes ``cache_root()``.
        progress: Called with (clips done, clips in all) while decoding.

    Returns:
        The ready cache. Damaged or absent recordings are left out and named in ``skipped``.

    Raises:
        DataError: Nothing could be decoded, the disk is full or the folder cannot be written; nothing is left half-written.
    """
    root = cache_root() if root is None else root
    image_format = dataset.image_format(modality)
    fingerprint = _fingerprint(dataset, samples, modality, resize_px, window)
    path = root / f"{dataset.name}-{modality}-{fingerprint[:20]}"
    ready = _open(path)
    if ready is not None:
        return ready
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f".{path.name}.lock"):
            ready = _open(path)  # another process may have made it meanwhile
            if ready is None:
                _make(path, dataset, samples, modality, image_format, resize_px, window, fingerprint, progress)
                ready = CachedClips(path)
            return ready
    except OSError as error:
        raise _unwritable(root, error) from error


class _lock:  # noqa: N801 - reads like the context manager it is
    """Exclusive among processes; released by the kernel when its process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        import fcntl

        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _window_key(window: FixedWindow | PercentileWindow | None) -> list[float | None] | None:
    """What of the window decides the cached limits; smoothing and span are applied later."""
    if not isinstance(window, PercentileWindow):
        return None
    return [window.low_percent, window.high_percent, window.ignore_value]


def _fingerprint(
    dataset: Dataset,
    samples: Sequence[Sample],
    modality: str,
    resize_px: int,
    window: FixedWindow | PercentileWindow | None,
) -> str:
    content = []
    for sample in samples:
        try:
            content.append([sample.id, sample.label, dataset.content_key(sample, modality)])
        except DataError:
            content.append([sample.id, sample.label, "absent"])
    settings = [FORMAT, dataset.name, modality, resize_px, _window_key(window)]
    return hashlib.sha256(json.dumps([settings, content]).encode()).hexdigest()


def _open(path: Path) -> CachedClips | None:
    """The cache, or None when it is absent or damaged."""
    try:
        return CachedClips(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _make(
    path: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    modality: str,
    image_format: ImageFormat,
    resize_px: int,
    window: FixedWindow | PercentileWindow | None,
    fingerprint: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write a cache beside its place and move it there; the caller holds the lock."""
    for leftover in path.parent.glob(f".tmp-{path.name}*"):  # of a killed preparation
        shutil.rmtree(leftover)
    if path.exists():
        shutil.rmtree(path)
    temporary = path.parent / f".tmp-{path.name}"
    temporary.mkdir()
    try:
        writer = _Writer(temporary, image_format)
        with writer:
            for done, (sample, decoded) in enumerate(_decoded(dataset, samples, modality, resize_px, window), 1):
                writer.add(sample, decoded)
                if progress is not None:
                    progress(done, len(samples))
        writer.finish(modality, fingerprint)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _decoded(
    dataset: Dataset,
    samples: Sequence[Sample],
    modality: str,
    resize_px: int,
    window: FixedWindow | PercentileWindow | None,
) -> Iterator[tuple[Sample, CachedClip | DataError]]:
    """Decoded and resized clips in order, a few ahead of the consumer."""

    def decode(sample: Sample) -> CachedClip | DataError:
        try:
            clip = dataset.open(sample, modality)
        except DataError as error:
            return error
        frames = np.stack([resize(frame, resize_px) for frame in clip.frames])
        limits = np.full((len(frames), 2), np.nan, dtype=np.float32)
        if isinstance(window, PercentileWindow):
            limits[:] = [percentile_limits(frame, window) for frame in frames]
        return CachedClip(frames, clip.stamps_ns, limits)

    pending: deque[tuple[Sample, Future[CachedClip | DataError]]] = deque()
    with ThreadPoolExecutor(_DECODERS) as decoders:
        try:
            for sample in samples:
                pending.append((sample, decoders.submit(decode, sample)))
                if len(pending) > _LOOKAHEAD:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


class _Writer:
    """Appends clips to a cache folder."""

    def __init__(self, folder: Path, image_format: ImageFormat) -> None:
        self._folder = folder
        self._format = image_format
        self._file = (folder / "frames.bin").open("wb")
        self._entries: list[dict[str, Any]] = []
        self._skipped: dict[str, str] = {}
        self._stamps: list[Int64] = []
        self._limits: list[Float32] = []
        self._seconds: list[float] = []
        self._bytes = self._frames = 0

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, sample: Sample, decoded: CachedClip | DataError) -> None:
        reason = str(decoded) if isinstance(decoded, DataError) else self._misfit(decoded.frames)
        if reason:
            self._skipped[sample.id] = reason
            return
        assert isinstance(decoded, CachedClip)
        frames, stamps, limits = decoded
        self._file.write(frames.data)
        entry = {"sample": asdict(sample), "offset": self._bytes, "shape": frames.shape, "first": self._frames}
        self._entries.append(entry)
        self._stamps.append(stamps)
        self._limits.append(limits)
        self._seconds.append(float(stamps[-1] - stamps[0]) / 1e9)
        self._bytes += frames.nbytes
        self._frames += len(frames)

    def _misfit(self, frames: npt.NDArray[Any]) -> str:
        channels = 1 if frames.ndim == 3 else frames.shape[-1]
        if (frames.dtype.name, channels) == (self._format.dtype, self._format.channels):
            return ""
        return f"{frames.dtype.name} with {channels} channels instead of {self._format.dtype} with {self._format.channels}"

    def finish(self, modality: str, fingerprint: str) -> None:
        """Write the index last; without any clip there is no cache."""
        if not self._entries:
            why = next(iter(self._skipped.values()), "no sample was asked for")
            raise DataError(f"not one {modality} clip can be used; the first: {why}", "recordings", "kd-edge data check")
        np.save(self._folder / "stamps.npy", np.concatenate(self._stamps))
        np.save(self._folder / "limits.npy", np.concatenate(self._limits))
        index = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "modality": modality,
            "image_format": asdict(self._format),
            "bytes": self._bytes,
            "frames": self._frames,
            "median_seconds": float(np.median(self._seconds)),
            "skipped": self._skipped,
            "clips": self._entries,
        }
        (self._folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _unwritable(root: Path, error: OSError) -> DataError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return DataError(
        f"the disk of the cache {root} is full" if full else f"cannot write the cache {root} ({error.strerror})",
        "room for the decoded frames" if full else "a folder that can be written",
        f"free some space there, or set {CACHE_VARIABLE} to another folder",
    )

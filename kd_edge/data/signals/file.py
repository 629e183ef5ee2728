"""The cache file of decoded signals: written atomically, read with verification, or memory-mapped.

index      JSON: samples, sensors, formats, missing recordings and the reasons
values_k   (all samples of sensor k, 3) float32
stamps_k   (all samples of sensor k,) int64, ns
offsets_k  (samples + 1,) int64, start and end of each recording
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_edge.errors import DataError
from kd_edge.files import replacing
from kd_edge.types import Float32, Int64

Content = tuple[dict[str, Any], list["Track"]]
"""The index, and the track of each sensor."""


class Track(NamedTuple):
    """All signals of one sensor, concatenated; recording i extends from offsets[i] to offsets[i + 1]."""

    values: Float32
    stamps_ns: Int64
    offsets: Int64


def write_signals(path: Path, index: dict[str, Any], tracks: Sequence[Track]) -> None:
    """Write the file atomically.

    Raises:
        DataError: Writing failed.
    """
    arrays = {f"{name}_{k}": array for k, track in enumerate(tracks) for name, array in track._asdict().items()}
    with replacing(path, DataError) as file:
        np.savez(file, index=np.frombuffer(json.dumps(index).encode(), np.uint8), **arrays)


def read_signals(path: Path, fingerprint: str) -> Content | None:
    """Load the file, verifying all checksums; None if it is missing, damaged or of other recordings."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return _content(lambda name: file[name], fingerprint)
    except Exception:  # a damaged zip file raises a dozen types; faults of the disk show when writing
        return None


def map_signals(path: Path, fingerprint: str) -> Content:
    """Memory-map the file, so that processes share its pages and read only the parts they access.

    Checksums are not verified, because the process that passes on the path has read the file.

    Raises:
        DataError: The file has been removed, or is of other recordings.
    """
    try:
        with zipfile.ZipFile(path) as file:
            content = _content(lambda name: _mapped(path, file, f"{name}.npy"), fingerprint)
    except Exception:  # as above
        content = None
    if content is None:
        raise DataError(
            f"the cached signals {path} were removed or changed",
            "the file that this run read at its start",
            "do not change the cache during a run; start or resume the run again",
        )
    return content


def _content(array: Callable[[str], Any], fingerprint: str) -> Content | None:
    """Index and tracks; None if they have another fingerprint, or do not fit each other."""
    index: dict[str, Any] = json.loads(array("index").tobytes())
    count = len(index["sensors"])
    tracks = [Track(*(array(f"{name}_{k}") for name in Track._fields)) for k in range(count)]
    fits = index["fingerprint"] == fingerprint and all(_is_valid(t, len(index["samples"])) for t in tracks)
    return (index, tracks) if fits else None


def _mapped(path: Path, file: zipfile.ZipFile, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Memory-map an array of an uncompressed zip file."""
    member = file.getinfo(name)
    with file.open(member) as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        header = stream.tell()
    with path.open("rb") as opened:
        opened.seek(member.header_offset + 26)  # lengths of the name and of the extra field, which follow them
        lengths = np.frombuffer(opened.read(4), "<u2")
    if 0 in shape:  # an empty array cannot be mapped
        return np.zeros(shape, dtype)
    offset = member.header_offset + 30 + int(lengths.sum()) + header
    return np.memmap(path, dtype, "r", offset, shape).view(np.ndarray)


def _is_valid(track: Track, samples: int) -> bool:
    kinds = [array.dtype.str for array in track] == [np.dtype(kind).str for kind in (np.float32, np.int64, np.int64)]
    shapes = track.values.shape == (*track.stamps_ns.shape, 3) and track.offsets.shape == (samples + 1,)
    if not kinds or not shapes:
        return False
    grows = bool((np.diff(track.offsets) >= 0).all())
    return grows and track.offsets[0] == 0 and track.offsets[-1] == len(track.stamps_ns)

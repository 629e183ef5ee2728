"""The cache file of decoded signals: written whole, read and verified, or mapped without loading it.

index      JSON: samples, sensors, formats, what is lacking and why
values_k   (all samples of sensor k, 3) float32
stamps_k   (all samples of sensor k,) int64, ns
offsets_k  (samples + 1,) int64, where each recording lies
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
"""The index, and what each sensor recorded."""


class Track(NamedTuple):
    """All signals of one sensor, one after the other; recording i lies from offsets[i] to offsets[i + 1]."""

    values: Float32
    stamps_ns: Int64
    offsets: Int64


def write_signals(path: Path, index: dict[str, Any], tracks: Sequence[Track]) -> None:
    """Write the file, whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    arrays = {f"{name}_{k}": array for k, track in enumerate(tracks) for name, array in track._asdict().items()}
    with replacing(path, DataError) as file:
        np.savez(file, index=np.frombuffer(json.dumps(index).encode(), np.uint8), **arrays)


def read_signals(path: Path, fingerprint: str) -> Content | None:
    """Load the file into memory, every checksum verified; None when it is absent, damaged or of other recordings."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return _content(lambda name: file[name], fingerprint)
    except Exception:  # a damaged zip file raises a dozen kinds; what is wrong with the disk shows when writing
        return None


def map_signals(path: Path, fingerprint: str) -> Content:
    """Map the file into memory: processes share its pages, and read only what they look at.

    Checksums are not verified: whoever hands the path on has read the file.

    Raises:
        DataError: It is no longer there, or of other recordings.
    """
    try:
        with zipfile.ZipFile(path) as file:
            content = _content(lambda name: _mapped(path, file, f"{name}.npy"), fingerprint)
    except Exception:  # as above
        content = None
    if content is None:
        raise DataError(
            f"the cached signals {path} are gone or were changed",
            "the file that this run read at its start",
            "leave the cache alone during a run, and start or resume it again",
        )
    return content


def _content(array: Callable[[str], Any], fingerprint: str) -> Content | None:
    """Index and tracks; None when they are not what was asked for, or do not fit each other."""
    index: dict[str, Any] = json.loads(array("index").tobytes())
    count = len(index["sensors"])
    tracks = [Track(*(array(f"{name}_{k}") for name in Track._fields)) for k in range(count)]
    fits = index["fingerprint"] == fingerprint and all(_sound(t, len(index["samples"])) for t in tracks)
    return (index, tracks) if fits else None


def _mapped(path: Path, file: zipfile.ZipFile, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of an uncompressed zip file, where it lies."""
    member = file.getinfo(name)
    with file.open(member) as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        header = stream.tell()
    with path.open("rb") as opened:
        opened.seek(member.header_offset + 26)  # lengths of the name and of the extra field, then these
        lengths = np.frombuffer(opened.read(4), "<u2")
    if 0 in shape:  # nothing cannot be mapped
        return np.zeros(shape, dtype)
    offset = member.header_offset + 30 + int(lengths.sum()) + header
    return np.memmap(path, dtype, "r", offset, shape).view(np.ndarray)


def _sound(track: Track, samples: int) -> bool:
    kinds = [array.dtype.str for array in track] == [np.dtype(kind).str for kind in (np.float32, np.int64, np.int64)]
    shapes = track.values.shape == (*track.stamps_ns.shape, 3) and track.offsets.shape == (samples + 1,)
    if not kinds or not shapes:
        return False
    grows = bool((np.diff(track.offsets) >= 0).all())
    return grows and track.offsets[0] == 0 and track.offsets[-1] == len(track.stamps_ns)

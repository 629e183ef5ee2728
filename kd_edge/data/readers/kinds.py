"""Kind of a recording, recognised by the content of its file, or by its suffix if the content is not conclusive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kd_edge.data.readers.images import IMAGES
from kd_edge.data.readers.pages import is_tiff
from kd_edge.data.readers.thermal_csv import is_thermal
from kd_edge.errors import DataError
from kd_edge.reading import open_regular

Kind = Literal["array", "matlab", "pages", "image", "thermal", "video"]

_HEAD_BYTES = 132
_PICTURES = (b"\x89PNG\r\n\x1a\n", *(b"P%d" % kind + space for kind in range(1, 7) for space in (b"\n", b" ", b"\r\n")))
_FLIR = (b"FFF\0", b"AFF\0")
_ISO_MEDIA = b"ftyp"


def kind_of(path: Path) -> Kind:
    """Return the kind of a file; ``video`` for all files that only a decoder can recognise.

    Raises:
        DataError: The file is a radiometric recording of FLIR.
        OSError: The file is missing or not a regular file.
    """
    suffix = path.suffix.lower()
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_FLIR):
        raise radiometric(path)
    if head.startswith(b"\x93NUMPY") or suffix == ".npy":
        return "array"
    if head.startswith(b"MATLAB 5.0") or suffix == ".mat":
        return "matlab"
    if is_tiff(head):
        return "pages"
    if is_thermal(head):
        return "thermal"
    is_picture = head.startswith(_PICTURES) and head[4:8] != b"MPEG"
    if is_picture or (suffix in IMAGES and not _is_video(head)):  # JPEG under another suffix may be Motion JPEG
        return "image"
    return "video"


def _is_video(head: bytes) -> bool:
    """Whether a file with the suffix of an image is a video by its first bytes."""
    return (
        head[4:8] == _ISO_MEDIA
        or head.startswith((b"\x1aE\xdf\xa3", b"OggS"))
        or (head[:4], head[8:12])
        == (
            b"RIFF",
            b"AVI ",
        )
    )


def radiometric(path: Path) -> DataError:
    """Return the error for a format that only its maker's programs can convert."""
    return DataError(
        f"{path} is a radiometric recording of FLIR (.seq, .csq, .fff)",
        "16 bit grey: TIFF or PNG images, a TIFF of several pages, or FFV1 in Matroska",
        "export it with FLIR's own program, or with split_seqs of the Python package flirpy (.seq), or convertflirVID "
        "of the R package Thermimage (.seq, .csq)",
    )

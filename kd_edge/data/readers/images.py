"""Image files, decoded by OpenCV as R, G, B or grey of 8 or 16 bit, after a check of their size."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.data.readers.bounds import check_pixels, image_size
from kd_edge.errors import DataError, reason
from kd_edge.packages import import_extra
from kd_edge.reading import read_bytes
from kd_edge.types import Image

log = logging.getLogger("kd_edge.data")

IMAGES = (".png", ".tif", ".tiff", ".pgm", ".jpg", ".jpeg", ".bmp")
_NAMED = 3
_JPEG, _FLIR, _FLIR_BYTES = b"\xff\xd8\xff", b"FLIR\0", 1 << 16
_NUMBER = re.compile(r"\d+")
IMAGE_BYTES = 128_000_000
"""Most bytes of an image file; an image of at most ``FRAME_PIXELS`` is smaller."""


def read_image(file: Path, *, grey: bool = False) -> Image:
    """Decode one image file.

    Args:
        file: The file.
        grey: Convert colour to grey.

    Returns:
        (H, W), or (H, W, 3) in R, G, B order; uint8 or uint16.

    Raises:
        DataError: The file is missing, damaged, too large or of another kind; the message names it.
    """
    cv2 = import_extra("cv2", "cpu")
    try:
        return rgb_or_grey(cv2, decode(cv2, read_bytes(file, IMAGE_BYTES)), grey)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or reason(error)
        raise DataError(f"{file} cannot be read: {found}", "a readable image", "check or re-create the file") from error


def decode(cv2: Any, content: bytes) -> Image:
    """Decode an image file to pixels in OpenCV's channel order, after checking its size.

    Raises:
        ValueError: OpenCV cannot read the image, it is too large, or it is not grey or colour of 8 or 16 bit.
    """
    check_pixels(*image_size(content))
    if content.startswith(_JPEG) and _FLIR in content[:_FLIR_BYTES]:
        _warn_of_radiometric_jpeg()
    return decode_pixels(cv2, np.frombuffer(content, np.uint8))


def decode_pixels(cv2: Any, content: npt.NDArray[np.uint8]) -> Image:
    """Decode an image whose size has been checked.

    Raises:
        ValueError: See ``decode``.
    """
    try:
        image: Image | None = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    except (MemoryError, cv2.error) as error:
        raise ValueError(reason(error)) from error
    if image is None:
        raise ValueError("it is not an image that OpenCV can read")
    if image.dtype not in (np.uint8, np.uint16) or image.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"it contains {image.dtype} {image.shape}, not 8 or 16 bit grey or colour")
    return image


@functools.cache
def _warn_of_radiometric_jpeg() -> None:
    log.warning(
        "radiometric JPEGs of FLIR: the coloured picture in them is read, not the temperatures, which "
        "'exiftool -b -RawThermalImage' extracts"
    )


def rgb_or_grey(cv2: Any, image: Image, grey: bool) -> Image:
    """Convert OpenCV's B, G, R order to R, G, B, or to grey."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 4:
        image = image[:, :, :3]
    converted: Image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
    return converted


def by_numbers(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts frame10 after frame9."""
    return _by_numbers(path.name)


def _by_numbers(name: str) -> list[tuple[int, int | str]]:
    return [(1, int(p)) if p.isdigit() else (0, p) for p in re.split(r"(\d+)", name)]


def sequence(folder: Path) -> list[Path]:
    """Return the paths of a folder's images; see ``sequence_names``."""
    return [folder / name for name in sequence_names(folder)]


def sequence_names(folder: Path) -> list[str]:
    """Return the names of a folder's images in the order of the numbers in them.

    Names that begin with a dot are skipped: macOS writes ``._frame1.png`` next to ``frame1.png`` on foreign disks.
    Names of one sequence differ only in their numbers; a single name of another form is part of the sequence.

    Raises:
        DataError: There is no image, or there are several sequences, so that the choice is ambiguous.
    """
    names = os.listdir(folder)  # noqa: PTH208 - an hour has 100,000 images, which take seconds as paths
    found = sorted(name for name in names if name.lower().endswith(IMAGES) and not name.startswith("."))
    if not found:
        raise DataError(f"{folder} contains no image", f"one of {', '.join(IMAGES)}", "check the path")
    if _counts_evenly(found):
        return found
    several = sorted(_sequences(found))
    if len(several) > 1:
        raise DataError(
            f"{folder} contains {len(several)} sequences of images: {', '.join(several[:_NAMED])}"
            + (" and so on" if len(several) > _NAMED else ""),
            "one sequence",
            f"move each into its own folder, or replay one: 'replay:{folder / several[0]}'",
        )
    return sorted(found, key=_by_numbers)


def _counts_evenly(names: Sequence[str]) -> bool:
    """Whether names differ only in one number with a fixed count of digits, as written by most cameras."""
    last = None if not names[0].isascii() else re.search(r"\d+(?=\D*$)", names[0])
    if last is None:
        return False
    start, end = last.span()
    around = {(len(name), name[:start], name[end:]) for name in names}
    numbers = "".join(name[start:end] for name in names)
    return len(around) == 1 and numbers.isascii() and numbers.isdigit()


def _sequences(names: Sequence[str]) -> set[str]:
    """Globs of the sequences among image names, as far as the names distinguish them.

    ``a_0001.png`` and ``b_0001.png`` belong to two sequences, as do ``cam1_0001.png`` and ``cam2_0001.png``, which have
    the same counts. If there are three or more numbers before the last one, or one of them has more than three digits,
    they are a date or a time, and there is one sequence.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kinds[_NUMBER.sub("*", name)].append(name)
    several = {kind for kind, members in kinds.items() if len(members) > 1 and "*" in kind}
    if len(several) != 1:
        return several
    counted: dict[str, set[int]] = defaultdict(set)
    for name in kinds[next(iter(several))]:
        *before, last = _NUMBER.finditer(name)
        if len(before) > 2 or any(len(number[0]) > 3 for number in before):
            return several
        counted[f"{name[: last.start()]}*{name[last.end() :]}"].add(int(last[0]))
    is_disjoint = sum(len(numbers) for numbers in counted.values()) == len(set.union(*counted.values()))
    return several if is_disjoint else set(counted)


def chosen(pattern: Path) -> list[Path]:
    """Return the files of a glob in one folder, ordered by the numbers in their names; hidden ones only on request."""
    files = pattern.parent.glob(pattern.name.replace("**", "*"))  # in one folder only, not below it
    return sorted((p for p in files if pattern.name.startswith(".") or not p.name.startswith(".")), key=by_numbers)

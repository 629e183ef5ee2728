"""Image files as OpenCV decodes them, as ours: R, G, B or grey, 8 or 16 bit, their size known before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.data.readers.bounds import check_pixels, image_size
from kd_edge.errors import DataError, import_extra, reason
from kd_edge.reading import read_bytes
from kd_edge.types import Image

IMAGES = (".png", ".tif", ".tiff", ".pgm", ".jpg", ".jpeg", ".bmp")
IMAGE_BYTES = 128_000_000
"""A longer file is no image of at most ``FRAME_PIXELS``."""


def read_image(file: Path, *, grey: bool = False) -> Image:
    """One decoded image file.

    Args:
        file: The file.
        grey: Make colour grey.

    Returns:
        (H, W), or (H, W, 3) in R, G, B order; uint8 or uint16.

    Raises:
        DataError: Absent, damaged, too large or of another kind; the file is named.
    """
    cv2 = import_extra("cv2", "cpu")
    try:
        return rgb_or_grey(cv2, decode(cv2, read_bytes(file, IMAGE_BYTES)), grey)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or reason(error)
        raise DataError(f"{file} cannot be read: {found}", "a readable image", "check or re-create the file") from error


def decode(cv2: Any, content: bytes) -> Image:
    """An image file's pixels in OpenCV's order, its size known before.

    Raises:
        ValueError: It is none that OpenCV can read, too large, or neither 8 nor 16 bit grey or colour.
    """
    check_pixels(*image_size(content))
    try:
        image: Image | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except (MemoryError, cv2.error) as error:
        raise ValueError(reason(error)) from error
    if image is None:
        raise ValueError("it is no image OpenCV can read")
    if image.dtype not in (np.uint8, np.uint16) or image.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"it holds {image.dtype} {image.shape}, not 8 or 16 bit grey or colour")
    return image


def rgb_or_grey(cv2: Any, image: Image, grey: bool) -> Image:
    """OpenCV's B, G, R order to R, G, B; grey where one channel is wanted."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 4:
        image = image[:, :, :3]
    converted: Image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
    return converted


def by_numbers(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts frame10 behind frame9."""
    return [(1, int(p)) if p.isdigit() else (0, p) for p in re.split(r"(\d+)", path.name)]

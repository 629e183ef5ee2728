"""Pixels of recordings as OpenCV decodes them, as ours: R, G, B or grey, 8 or 16 bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from kd_edge.errors import reason
from kd_edge.runtime.cameras.bounds import check_pixels, image_size
from kd_edge.types import Image


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
    """OpenCV's B, G, R order to R, G, B; grey where the model wants one channel."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 4:
        image = image[:, :, :3]
    converted: Image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
    return converted

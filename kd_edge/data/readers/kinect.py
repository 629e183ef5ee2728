"""Shared by NTU RGB+D and PKU-MMD: videos of a Kinect v2, colour (1920 x 1080) and infrared (512 x 424) at 30 fps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from kd_edge.data.dataset import ImageFormat, require_modality
from kd_edge.errors import DataError

FPS = 30.0
"""Frame rate of both streams, 1/s."""

MODALITIES = ("rgb", "ir")
"""Image modalities."""

FORMATS = {
    "rgb": ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), FPS),
    "ir": ImageFormat("nir", "uint8", 1, "intensity", (0.0, 255.0), FPS),
}
"""Modality -> format of its decoded images."""


def require_recorded(
    modality: str, modalities: Sequence[str], recorded: Sequence[str], dataset: str, place: str
) -> None:
    """Raise a DataError unless the modality exists and this copy has at least one recording of it.

    Args:
        modality: The requested modality.
        modalities: Modalities of the complete data set.
        recorded: Modalities with a recording.
        dataset: Name of the data set, for the error.
        place: Expected location of the recordings, for the error.
    """
    require_modality(modality, modalities, dataset)
    if modality not in recorded:
        raise DataError(
            f"this copy of {dataset} has no {modality} recording", place, "complete the data set (kd-edge data check)"
        )


def no_picture(dataset: str) -> NoReturn:
    """Raise the DataError for skeletons where images are expected."""
    raise DataError(f"modality 'skeleton' of {dataset} is a signal", "an image modality", "use rgb or ir")


def walk(root: Path, folder: str, skip: re.Pattern[str] | None = None) -> Iterator[Path]:
    """Yield every file below a data set's folder in a fixed order; linked folders are followed, each once.

    Args:
        root: The data set's folder.
        folder: Expected content of the folder, for the error.
        skip: Names of folders to skip.

    Raises:
        DataError: The folder does not exist.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}", folder, "correct --data")
    seen = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if skip is None or not skip.fullmatch(name))
        yield from (Path(place) / name for name in sorted(files))


def held(root: Path) -> str:
    """Return the first names in a folder, for an error message."""
    return ", ".join(sorted(path.name for path in root.iterdir())[:5]) or "nothing"

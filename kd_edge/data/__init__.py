"""Recordings: readers of data sets, pairing by sample id, the frame cache. Never imports torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kd_edge.data.dataset import Dataset, ImageFormat, Sample, Split, check_split, validation_split
from kd_edge.errors import DataError

__all__ = [
    "DataConfig",
    "Dataset",
    "ImageFormat",
    "Sample",
    "Split",
    "SyntheticData",
    "UtdMhadData",
    "check_split",
    "open_dataset",
    "validation_split",
]

DATA_VARIABLE = "KD_EDGE_DATA"
"""Environment variable: the folder that holds the data sets, or the data set's own folder."""


class SyntheticData(BaseModel):
    """The generated data set: an articulated figure performs ten actions, RGB and near infrared paired.

    Attributes:
        clips_per_class: Clips of each action, dealt evenly over the subjects.
        subjects: Number of different bodies; the last quarter of them is the test side.
        seed: Of everything random.
        height_px: Image height.
        width_px: Image width.
        fps: Frame rate, 1/s.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["synthetic"] = "synthetic"
    clips_per_class: int = Field(48, ge=1, le=10_000)
    subjects: int = Field(12, ge=2, le=1000)
    seed: int = Field(0, ge=0)
    height_px: int = Field(120, ge=32, le=1080)
    width_px: int = Field(160, ge=32, le=1920)
    fps: float = Field(30.0, ge=5, le=120)


class UtdMhadData(BaseModel):
    """UTD-MHAD (Chen, Jafari, Kehtarnavaz, ICIP 2015): depth, skeleton, inertial and, where present, RGB.

    Attributes:
        root: The folder with ``Depth/``, ``Skeleton/`` and ``Inertial/``; None takes ``--data`` or ``KD_EDGE_DATA``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["utd_mhad"] = "utd_mhad"
    root: Path | None = None


DataConfig = Annotated[SyntheticData | UtdMhadData, Field(discriminator="kind")]


def open_dataset(config: SyntheticData | UtdMhadData, data_root: Path | None = None) -> Dataset:
    """Open the configured data set; nothing is decoded yet.

    Args:
        config: Which one, with its settings.
        data_root: Folder with the recordings, before the configured one and ``KD_EDGE_DATA``: the data set's own
            folder, or one that holds it as ``utd-mhad/``. Generated data needs none.

    Raises:
        DataError: No folder given, or not the data set's.
    """
    # Imported here: reading a configuration must not need OpenCV or SciPy.
    if isinstance(config, SyntheticData):
        from kd_edge.data.synthetic import Synthetic

        return Synthetic(**config.model_dump(exclude={"kind"}))
    from kd_edge.data.cache import cache_root
    from kd_edge.data.utd_mhad import UtdMhad

    return UtdMhad(_recordings(data_root or config.root, "utd-mhad"), hash_memo=cache_root() / "hashes.jsonl")


def _recordings(given: Path | None, folder: str) -> Path:
    """The data set's folder: the given path or the environment's, itself or its subfolder."""
    root = given or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if root is None:
        raise DataError(
            f"no folder given for the recordings of {folder}",
            f"--data DIR, or {DATA_VARIABLE} set to it",
            f"kd-edge train RECIPE --data DIR, where DIR or DIR/{folder} holds the recordings",
        )
    root = root.expanduser()
    return root / folder if (root / folder).is_dir() else root

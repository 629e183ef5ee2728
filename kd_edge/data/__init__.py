"""Recordings: readers of data sets, pairing by sample id, the frame cache. Never imports torch."""

from __future__ import annotations

from kd_edge.data.config import (
    BerkeleyMhadData,
    DataConfig,
    FilesData,
    MMActData,
    NtuRgbdData,
    PkuMmdData,
    SyntheticData,
    UtdMhadData,
    open_dataset,
)
from kd_edge.data.dataset import (
    ActionInterval,
    Dataset,
    ImageFormat,
    LongVideo,
    LongVideos,
    Sample,
    SignalFormat,
    Split,
    Wearables,
)
from kd_edge.data.splits import check_split, training_sides, validation_split

__all__ = [
    "ActionInterval",
    "BerkeleyMhadData",
    "DataConfig",
    "Dataset",
    "FilesData",
    "ImageFormat",
    "LongVideo",
    "LongVideos",
    "MMActData",
    "NtuRgbdData",
    "PkuMmdData",
    "Sample",
    "SignalFormat",
    "Split",
    "SyntheticData",
    "UtdMhadData",
    "Wearables",
    "check_split",
    "open_dataset",
    "training_sides",
    "validation_split",
]

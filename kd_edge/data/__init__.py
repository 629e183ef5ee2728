"""Data sets: readers, pairing of modalities by sample id, the frame cache. Never imports torch."""

from __future__ import annotations

from kd_edge.data.config import (
    AnyData,
    BerkeleyMhadData,
    DataConfig,
    FilesData,
    FirActionData,
    MMActData,
    NtuRgbdData,
    PkuMmdData,
    SyntheticData,
    UtdMhadData,
    data_config,
    data_of_model,
    known_kinds,
    open_dataset,
    unknown_kind,
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
from kd_edge.data.installed import OwnData
from kd_edge.data.splits import check_split, split_by_subject, training_sides, validation_split

__all__ = [
    "ActionInterval",
    "AnyData",
    "BerkeleyMhadData",
    "DataConfig",
    "Dataset",
    "FilesData",
    "FirActionData",
    "ImageFormat",
    "LongVideo",
    "LongVideos",
    "MMActData",
    "NtuRgbdData",
    "OwnData",
    "PkuMmdData",
    "Sample",
    "SignalFormat",
    "Split",
    "SyntheticData",
    "UtdMhadData",
    "Wearables",
    "check_split",
    "data_config",
    "data_of_model",
    "known_kinds",
    "open_dataset",
    "split_by_subject",
    "training_sides",
    "unknown_kind",
    "validation_split",
]

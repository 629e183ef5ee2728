"""Class names of a data set, also without its recordings."""

from __future__ import annotations

import importlib
from pathlib import Path

from kd_edge.data.config import AnyData, MMActData, NtuRgbdData, open_dataset
from kd_edge.errors import KdEdgeError

_PUBLISHED = ("utd_mhad", "ntu_rgbd", "pku_mmd", "berkeley_mhad", "mmact", "fir_action")
"""Kinds whose classes are known from their papers; each is a module of ``kd_edge.data.readers``."""


def class_names(config: AnyData, data_root: Path | None = None) -> tuple[str, ...] | None:
    """Return the class names of a data set: from its recordings if they can be opened, otherwise the published ones.

    Args:
        config: Settings of the data set.
        data_root: Folder with the recordings.

    Returns:
        Names in order; None if only the missing recordings could provide them.
    """
    try:
        return open_dataset(config, data_root).labels
    except KdEdgeError:
        if data_root is not None:
            raise
    if config.kind not in _PUBLISHED:
        return None
    reader = importlib.import_module(f"kd_edge.data.readers.{config.kind}")
    labels: tuple[str, ...] = reader.LABELS
    if isinstance(config, NtuRgbdData):
        return labels[: reader.ACTIONS[config.actions]]
    if isinstance(config, MMActData) and not config.desk:
        return tuple(label for label in labels if not label.endswith("_desk"))
    return labels

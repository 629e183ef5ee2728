"""The classes of a data set, where its recordings need not be at hand."""

from __future__ import annotations

import importlib
from pathlib import Path

from kd_edge.data.config import AnyData, MMActData, NtuRgbdData, open_dataset
from kd_edge.errors import KdEdgeError

_PUBLISHED = ("utd_mhad", "ntu_rgbd", "pku_mmd", "berkeley_mhad", "mmact", "fir_action")
"""Kinds whose classes are known from their papers; a module of ``kd_edge.data.readers`` each."""


def class_names(config: AnyData, data_root: Path | None = None) -> tuple[str, ...] | None:
    """Class names of the configured data set: of its recordings where they can be opened, else the published ones.

    Args:
        config: Which data set.
        data_root: Folder with the recordings.

    Returns:
        Names in their order; None where only recordings that are not here could tell.
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

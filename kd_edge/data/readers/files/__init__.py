"""Your own recordings: class folders or a manifest, with further settings in ``dataset.toml``."""

from __future__ import annotations

from kd_edge.data.readers.files.dataset import Files

__all__ = ["Files"]

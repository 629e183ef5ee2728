"""One's own recordings: folders of classes, a manifest, or both, and ``dataset.toml`` for what files do not say."""

from __future__ import annotations

from kd_edge.data.readers.files.dataset import Files

__all__ = ["Files"]

"""Lists that other tools made of recordings, as the rows of a manifest."""

from __future__ import annotations

from kd_edge.data.readers.files.imports.importing import Imported, foreign, import_rows

__all__ = ["Imported", "foreign", "import_rows"]

"""Import lists of recordings written by other tools as manifest rows."""

from __future__ import annotations

from kd_edge.data.readers.files.imports.importing import Imported, foreign, import_rows

__all__ = ["Imported", "foreign", "import_rows"]

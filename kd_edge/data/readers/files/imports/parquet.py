"""Read Apache Parquet tables within size limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_edge.data.readers.files.imports.found import unreadable
from kd_edge.data.readers.files.rows import MOST_ROWS
from kd_edge.errors import reason
from kd_edge.packages import import_extra
from kd_edge.reading import open_regular

MOST_BYTES = 1_000_000_000
"""Limit for the columns read, uncompressed."""


def read_columns(path: Path, wanted: Sequence[str] | None = None) -> tuple[list[dict[str, Any]], dict[bytes, bytes]]:
    """Read the rows and the metadata of a table.

    Args:
        path: The file.
        wanted: Columns to read, ignoring missing ones; None reads all.

    Raises:
        DataError: The file cannot be read, or is too large.
        MissingExtraError: pyarrow is not installed.
    """
    parquet = import_extra("pyarrow.parquet", "parquet")
    try:
        with open_regular(path) as file:
            table = parquet.ParquetFile(file)
            names = [n for n in table.schema_arrow.names if wanted is None or n in wanted]
            _check_size(path, table.metadata, names)
            rows: list[dict[str, Any]] = table.read(columns=names).to_pylist()
            return rows, dict(table.schema_arrow.metadata or {})
    except (OSError, ValueError, TypeError, KeyError, MemoryError, NotImplementedError) as error:  # raised by pyarrow
        raise unreadable(path, getattr(error, "strerror", None) or reason(error)) from error


def columns_of(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        DataError: The file cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    parquet = import_extra("pyarrow.parquet", "parquet")
    try:
        with open_regular(path) as file:
            names: list[str] = parquet.ParquetFile(file).schema_arrow.names
            return names
    except (OSError, ValueError, TypeError, KeyError, MemoryError, NotImplementedError) as error:
        raise unreadable(path, getattr(error, "strerror", None) or reason(error)) from error


def _check_size(path: Path, metadata: Any, names: Sequence[str]) -> None:
    if metadata.num_rows > MOST_ROWS:
        raise unreadable(path, f"more than {MOST_ROWS:,} rows")
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in chunks if any(_is_of(c.path_in_schema, n) for n in names))
    if size > MOST_BYTES:
        raise unreadable(path, f"its columns take {size:,} bytes, more than {MOST_BYTES:,}")


def _is_of(path: str, name: str) -> bool:
    """Whether a leaf of the schema belongs to a column, whose own name may contain dots."""
    return path == name or path.startswith(f"{name}.")

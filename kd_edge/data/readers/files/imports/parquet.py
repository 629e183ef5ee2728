"""Tables in Apache Parquet, read within bounds."""

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
"""Of the columns that are read, unpacked."""


def read_columns(path: Path, wanted: Sequence[str] | None = None) -> tuple[list[dict[str, Any]], dict[bytes, bytes]]:
    """Rows of a table, and what the file says of itself.

    Args:
        path: The file.
        wanted: Columns to read, those of them that it has; None reads all.

    Raises:
        DataError: It cannot be read, or is too large.
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
    except (OSError, ValueError, TypeError, KeyError, MemoryError, NotImplementedError) as error:  # pyarrow's are those
        raise unreadable(path, getattr(error, "strerror", None) or reason(error)) from error


def columns_of(path: Path) -> list[str]:
    """Names of its columns.

    Raises:
        DataError: It cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    parquet = import_extra("pyarrow.parquet", "parquet")
    try:
        with open_regular(path) as file:
            names: list[str] = parquet.ParquetFile(file).schema_arrow.names
            return names
    except (OSError, ValueError, TypeError, KeyError, MemoryError, NotImplementedError) as error:
        raise unreadable(path, getattr(error, "strerror", None) or reason(error)) from error


def _check_size(path: Path, facts: Any, names: Sequence[str]) -> None:
    if facts.num_rows > MOST_ROWS:
        raise unreadable(path, f"more than {MOST_ROWS:,} rows")
    size = 0
    for group in map(facts.row_group, range(facts.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in chunks if any(_is_of(c.path_in_schema, n) for n in names))
    if size > MOST_BYTES:
        raise unreadable(path, f"its columns take {size:,} bytes, more than {MOST_BYTES:,}")


def _is_of(path: str, name: str) -> bool:
    """Whether a leaf of the schema belongs to a column, whose own name may have dots."""
    return path == name or path.startswith(f"{name}.")

"""Write a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kd_edge.errors import KdEdgeError


@contextmanager
def replacing(path: Path, error: type[KdEdgeError] = KdEdgeError) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place on success and vanishes on failure.

    Args:
        path: The file to write; its folder is made.
        error: What to raise when the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as fault:
        raise error(
            f"{path} cannot be written ({fault.strerror or fault})",
            "a writable folder with free space",
            "free space or choose another folder with --out",
        ) from fault
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)

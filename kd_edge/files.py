"""Write a file or a folder whole or not at all."""

from __future__ import annotations

import os
import shutil
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


@contextmanager
def making(folder: Path, option: str, error: type[KdEdgeError] = KdEdgeError) -> Iterator[Path]:
    """Fill a temporary folder that becomes ``folder`` on success and vanishes on failure.

    Args:
        folder: Folder to make; must be absent or empty.
        option: Option of the command line that chose the folder, for the advice.
        error: What to raise when it is not free or cannot be written.
    """
    check_free(folder, option, error)
    temporary = folder.with_name(f".tmp-{folder.name}")
    try:
        if temporary.exists():  # of a killed process
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.replace(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as fault:
        raise error(
            f"cannot write {folder} ({fault.strerror})", "a writable folder with room", f"choose another {option}"
        ) from fault


def check_free(folder: Path, option: str, error: type[KdEdgeError] = KdEdgeError) -> None:
    """Make sure that ``making`` may make a folder: to be asked before hours of work, not only after."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as fault:
        raise error(
            f"cannot read {folder} ({fault.strerror})", "a new or empty folder", f"choose another {option}"
        ) from fault
    if taken:
        raise error(f"{folder} holds something already", "a new or empty folder", f"choose another {option}")

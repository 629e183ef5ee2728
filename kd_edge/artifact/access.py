"""Open and hash an artifact's file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kd_edge.errors import ArtifactError
from kd_edge.reading import open_regular


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; every failure raises an ArtifactError."""
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no file {path}", "an artifact (student.onnx)", "kd-edge export, or check the path"
        ) from error
    except OSError as error:
        if path.is_dir():
            raise ArtifactError(
                f"{path} is a folder",
                "an artifact (student.onnx)",
                f"export the run: kd-edge export {path}; or name the file",
            ) from error
        raise ArtifactError(f"{path} cannot be read ({error.strerror})", "a readable file", "check the path") from error


def sha256s(file: BinaryIO, ends: Sequence[int]) -> dict[int, str]:
    """Hash a file up to several positions, in small chunks, so that 45 MB are never in memory at once.

    Args:
        file: The file.
        ends: The positions, increasing.

    Returns:
        The SHA-256 (hex) of all bytes before each position.
    """
    digest, found, at = hashlib.sha256(), {}, 0
    buffer = memoryview(bytearray(1 << 18))
    file.seek(0)
    for end in ends:
        while at < end and (got := file.readinto(buffer[: min(end - at, len(buffer))])):  # type: ignore[attr-defined]
            digest.update(buffer[:got])
            at += got
        found[end] = digest.hexdigest()
    return found

"""Content hashes of files, cached by path, size and modification time."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import IO

from kd_edge.errors import DataError

_PIECE = 1 << 20  # bytes


class FileHashes:
    """SHA-256 of files; a file is read again only if its size or modification time changes.

    Args:
        memo: JSON-lines file that caches the hashes between runs; None caches them in memory only. If it cannot be
            read or written, hashes are recomputed without an error.
        sampled: Hash the size, the modification time and the first, middle and last MiB instead of every byte, for
            videos of gigabytes. A file that is fetched again counts as changed, because damage may have been elsewhere.
            So does a copy on another machine, which rebuilds the caches there, unless it keeps the times (``cp -p``,
            ``rsync -t``). A repair that keeps size and time is not detected. Needs a separate memo.
    """

    def __init__(self, memo: Path | None = None, *, sampled: bool = False) -> None:
        self._memo = memo
        self._sampled = sampled
        self._known: dict[tuple[str, int, int], str] | None = None

    def sha256(self, path: Path) -> str:
        """Return the hex digest of the file's bytes.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        try:
            stat = path.stat()
            key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
            known = self._load()
            if key not in known:
                with path.open("rb") as file:
                    known[key] = _sampled(file, stat) if self._sampled else _digest(file)
                self._append(key, known[key])
            return known[key]
        except OSError as error:
            raise DataError(
                f"cannot read {path} ({error.strerror})", "the recording", "complete the data set (kd-edge data check)"
            ) from error

    def _load(self) -> dict[tuple[str, int, int], str]:
        if self._known is None:
            self._known = {}
            self._known.update(filter(None, map(_entry, _lines(self._memo))))
        return self._known

    def _append(self, key: tuple[str, int, int], digest: str) -> None:
        if self._memo is None:
            return
        try:  # several processes may append at the same time, because a line is short
            self._memo.parent.mkdir(parents=True, exist_ok=True)
            with self._memo.open("a", encoding="utf-8") as file:
                file.write(json.dumps([*key, digest]) + "\n")
        except OSError:
            self._memo = None


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def _sampled(file: IO[bytes], stat: os.stat_result) -> str:
    size = stat.st_size
    digest = hashlib.sha256(f"sampled {size} {stat.st_mtime_ns} ".encode())
    for position in (0, (size - _PIECE) // 2, size - _PIECE) if size > 3 * _PIECE else range(0, size, _PIECE):
        file.seek(position)
        digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _entry(line: str) -> tuple[tuple[str, int, int], str] | None:
    try:
        path, size, mtime_ns, digest = json.loads(line)
        return (str(path), int(size), int(mtime_ns)), str(digest)
    except (ValueError, TypeError):  # a line cut short by a kill
        return None


def _lines(memo: Path | None) -> list[str]:
    try:
        return memo.read_text(encoding="utf-8").splitlines() if memo else []
    except (OSError, UnicodeDecodeError):
        return []

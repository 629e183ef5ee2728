"""How much may still be written: the folder's own bound, and what is to stay free of its disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Room:
    """Counts what a folder may still take.

    Args:
        folder: It may yet have to be made.
        most_bytes: It takes at most so much; None: no bound of its own.
        keep_free_bytes: So much of the disk stays free.
    """

    def __init__(self, folder: Path, most_bytes: int | None, keep_free_bytes: int) -> None:
        self._disk = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        self._most, self._keep_free = most_bytes, keep_free_bytes
        self._taken = 0 if most_bytes is None else _size(folder)

    def wrote(self, count: int) -> None:
        """So many bytes of a clip have been written and stay."""
        self._taken += count

    def left_bytes(self, under_way: int = 0) -> int:
        """What may still be written, 0 and less: nothing.

        Args:
            under_way: What the clip that is being written takes already.
        """
        free = shutil.disk_usage(self._disk).free - self._keep_free
        return free if self._most is None else min(free, self._most - self._taken - under_way)

    def told(self, under_way: int = 0) -> str:
        """Which bound it is that leaves least; ``under_way`` as above."""
        own = None if self._most is None else self._most - self._taken - under_way
        if self._most is not None and own == self.left_bytes(under_way):
            return f"the folder has the {self._most / 1e9:g} GB it may (--max-gb)"
        if not self._keep_free:
            return "the disk is full"
        return f"the disk has no more than {self._keep_free / 1e9:g} GB left (--keep-free-gb)"


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for place, _, names in os.walk(folder) for name in names
               if (entry := Path(place, name)).is_file())  # fmt: skip

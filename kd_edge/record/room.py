"""How much may still be written: the bound of the folder and the free space required on its disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Room:
    """Tracks how much may still be written to a folder.

    Args:
        folder: The folder; it need not exist yet.
        most_bytes: Largest size of the folder; None means no bound.
        keep_free_bytes: Space that stays free on the disk.
    """

    def __init__(self, folder: Path, most_bytes: int | None, keep_free_bytes: int) -> None:
        self._disk = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        self._most, self._keep_free = most_bytes, keep_free_bytes
        self._taken = 0 if most_bytes is None else _size(folder)

    def wrote(self, count: int) -> None:
        """Count bytes of a clip that were written and kept."""
        self._taken += count

    def left_bytes(self, under_way: int = 0) -> int:
        """Return how many bytes may still be written; 0 or less means none.

        Args:
            under_way: Size so far of the clip being written.
        """
        free = shutil.disk_usage(self._disk).free - self._keep_free
        return free if self._most is None else min(free, self._most - self._taken - under_way)

    def reason(self, under_way: int = 0) -> str:
        """Name the bound that leaves least; see ``left_bytes``."""
        own = None if self._most is None else self._most - self._taken - under_way
        if self._most is not None and own == self.left_bytes(under_way):
            return f"the folder has reached its {self._most / 1e9:g} GB (--max-gb)"
        if not self._keep_free:
            return "the disk is full"
        return f"the disk has no more than {self._keep_free / 1e9:g} GB left (--keep-free-gb)"


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for place, _, names in os.walk(folder) for name in names
               if (entry := Path(place, name)).is_file())  # fmt: skip

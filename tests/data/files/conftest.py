"""A folder of somebody's own recordings, to be filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kd_edge.data.readers.files import Files


class Folder:
    """Writes recordings below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def clip(self, name: str, frames: int = 6, value: int = 0, dtype: Any = np.uint8) -> Path:
        """An array (T, 40, 48) whose k-th frame is ``value`` + k."""
        stack = np.empty((frames, 40, 48), dtype)
        stack[:] = value + np.arange(frames)[:, None, None]
        return self.array(name, stack)

    def array(self, name: str, values: npt.NDArray[Any]) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
        return path

    def text(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def manifest(self, *lines: str) -> Path:
        return self.text("manifest.csv", "\n".join(lines) + "\n")

    def open(self) -> Files:
        return Files(self.root)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty one."""
    root = tmp_path / "mine"
    root.mkdir()
    return Folder(root)

"""Packages that bring data sets, laid on the import path as an installer does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = Path(__file__).parents[1] / "train/examples/own_dataset"
Install = Callable[..., Path]


def lay(site: Path, text: str, kind: str, value: str, name: str) -> None:
    """A module, and beside it what its project file says."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kd_edge.datasets]\n{kind} = {value}\n")
    (site / f"{value.partition(':')[0]}.py").write_text(text)


def example_project() -> tuple[str, str, str]:
    """Kind, place and package of the example that is shipped."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((kind, value),) = project["entry-points"]["kd_edge.datasets"].items()
    return kind, value, project["name"]


def write_gestures(folder: Path) -> Path:
    """24 recordings of a square that goes to the left or to the right, by four people, for the example."""
    folder.mkdir()
    for k in range(24):
        label, subject = ("left", "right")[k % 2], f"p{k // 6}"
        frames = np.full((12, 40, 48), 30 + k, np.uint8)
        for t, frame in enumerate(frames):
            at = 3 * t if label == "right" else 33 - 3 * t
            frame[10:26, at : at + 12] = 220
        np.save(folder / f"{label}_{subject}_{k}.npy", frames)
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package that brings a data set, for this test; returns the folder on the import path."""
    before = set(sys.modules)

    def installed(text: str, kind: str = "mine", value: str = "mine_package:Mine", name: str = "mine-package") -> Path:
        site = tmp_path / f"site-{name}"
        lay(site, text, kind, value, name)
        monkeypatch.syspath_prepend(site)
        return site

    yield installed
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]


@pytest.fixture
def gestures(install: Install, tmp_path: Path) -> Path:
    """The shipped example of an own data set, installed, and a folder of recordings for it."""
    install((EXAMPLE / "own_dataset.py").read_text(), *example_project())
    return write_gestures(tmp_path / "recordings")

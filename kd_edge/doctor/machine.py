"""What the doctor examines besides packages: files, environment and the running Python; tests can fake it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path

from kd_edge.errors import printable
from kd_edge.reading import is_folder

MOST = 1000
"""Maximum number of files of one kind that are examined."""
_TEXT_BYTES = 4096


def matching(folder: Path, pattern: str) -> list[Path]:
    """Paths below a folder that match a pattern, at most ``MOST``; empty if the folder cannot be read."""
    try:
        return sorted(islice(folder.glob(pattern), MOST))
    except (OSError, ValueError):
        return []


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine.

    Attributes:
        root: The root folder.
        environment: Environment variables.
        python: Major and minor version of the running Python.
        path: Module search path of that Python.
        architecture: Architecture as reported by ``uname -m``.
        user: Numeric user id.
    """

    root: Path
    environment: Mapping[str, str]
    python: tuple[int, int]
    path: tuple[str, ...]
    architecture: str
    user: int

    @classmethod
    def here(cls) -> Machine:
        """The current machine."""
        version = (sys.version_info.major, sys.version_info.minor)
        return cls(Path("/"), os.environ, version, tuple(sys.path), platform.machine(), os.geteuid())

    def file(self, path: str) -> Path:
        """An absolute path of this machine."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        """The beginning of a file; an empty string if it cannot be read."""
        try:
            with self.file(path).open("rb") as file:
                return file.read(_TEXT_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def variable(self, name: str) -> str:
        """An environment variable; an empty string if it is not set."""
        return self.environment.get(name, "")

    def listed(self, name: str) -> list[Path]:
        """The folders of an environment variable such as ``LD_LIBRARY_PATH``."""
        return [self.file(each) for each in self.variable(name).split(os.pathsep) if each.startswith("/")]

    def modules(self, name: str) -> Iterator[Path]:
        """Folders of a package that Python would find, the one it takes first; nothing is imported."""
        for folder in self.path:
            where = self.file(folder) if folder.startswith("/") else Path(folder)
            if is_folder(where / name):
                yield where / name

    def version(self, distribution: str) -> str:
        """The version of what pip installed; an empty string where it is not."""
        folders = [str(self.file(folder)) for folder in self.path if folder.startswith("/")]
        name = distribution.replace("_", "-").lower()
        for found in metadata.distributions(name=name, path=folders):
            return printable((found.version or "")[:40])
        return ""

    @property
    def is_container(self) -> bool:
        """Whether this is Docker's or Podman's."""
        return self.file("/.dockerenv").exists() or self.file("/run/.containerenv").exists()

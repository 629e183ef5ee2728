"""systemd unit files, created from a template in ``launch/`` by changing settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import kd_edge
from kd_edge.errors import ConfigError, printable

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./?&~-]+")
_UNSET = re.compile(r"""[$"'\\]""")
"""Characters that must not be in a program's path, which systemd parses differently from arguments."""


def template(file: str) -> str:
    """Read a unit template from ``launch/`` or the package.

    Args:
        file: Name of the template, for example ``kd-edge.service``.

    Raises:
        ConfigError: The template is not in this installation.
    """
    package = Path(kd_edge.__file__).parent
    for folder in (package / "_recipes" / "launch", package.parent / "launch"):
        if (folder / file).is_file():
            return (folder / file).read_text(encoding="utf-8")
    raise ConfigError(f"{file} is not in this installation", "a whole one", "pip install --force-reinstall kd-edge")


def value(text: str, what: str) -> str:
    """Escape text for use as the value of a setting.

    Args:
        text: The literal text, in which ``%`` has no special meaning.
        what: Name of the value in errors.

    Raises:
        ConfigError: The text has control characters or undecodable bytes, which a unit file cannot contain.
    """
    if not text.isprintable() or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"{what} '{printable(text)}' has characters that a unit file cannot hold",
            "printable characters, all on one line",
            "rename the file, or put the camera's address into a camera file",
        )
    return text.replace("%", "%%")


def command_line(words: Iterable[str]) -> str:
    """Format a command for ``ExecStart=``, quoting words if necessary (systemd.service(5), "Command lines").

    Args:
        words: Program and arguments, as literal text.

    Raises:
        ConfigError: A word cannot be written in a unit file.
    """
    program, *arguments = words
    if not program.startswith("/") or _UNSET.search(program):
        raise ConfigError(
            f"program '{printable(program)}'", "an absolute path without quotes, $ and backslashes", "install elsewhere"
        )
    return " ".join([quoted(value(program, "program")), *(_argument(each) for each in arguments)])


def _argument(word: str) -> str:
    return quoted(value(word, "argument").replace("$", "$$"))


def quoted(word: str) -> str:
    """Quote a word if systemd would otherwise split it or interpret its characters."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class Unit:
    """A unit file whose settings can be changed one by one, keeping comments and order.

    Args:
        text: Content of the file.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    @property
    def text(self) -> str:
        """The whole file."""
        return "\n".join(self._lines) + "\n"

    def get(self, key: str) -> str:
        """Return the value of a setting; an empty string if it is not set."""
        return next((line.partition("=")[2] for line in self._lines if line.startswith(f"{key}=")), "")

    def set(self, key: str, value: str) -> None:
        """Replace the value of an existing setting."""
        at = next(at for at, line in enumerate(self._lines) if line.startswith(f"{key}="))
        self._lines[at] = f"{key}={value}"

    def add(self, after: str, key: str, value: str) -> None:
        """Add a setting after the last one called ``after``."""
        at = max(at for at, line in enumerate(self._lines) if line.startswith(f"{after}="))
        self._lines.insert(at + 1, f"{key}={value}")

    def drop(self, keys: Iterable[str]) -> None:
        """Remove settings."""
        gone = tuple(f"{key}=" for key in keys)
        self._lines = [line for line in self._lines if not line.startswith(gone)]

    def drop_comments(self) -> None:
        """Remove comments, and the repeated empty lines that remain."""
        kept = [line for line in self._lines if not line.startswith("#")]
        self._lines = [line for at, line in enumerate(kept) if line or (at and kept[at - 1])]

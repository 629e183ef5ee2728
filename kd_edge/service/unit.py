"""systemd's unit files: one is made from a template of ``launch/`` by setting what differs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import kd_edge
from kd_edge.errors import ConfigError, printable

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./?&~-]+")
_UNSET = re.compile(r"""[$"'\\]""")
"""What must not be in the path of a program: systemd does not treat it as it does arguments."""


def template(file: str) -> str:
    """A unit as it lies in ``launch/`` and in the package.

    Args:
        file: Its name, for example ``kd-edge.service``.

    Raises:
        ConfigError: The installation lacks it.
    """
    package = Path(kd_edge.__file__).parent
    for folder in (package / "_recipes" / "launch", package.parent / "launch"):
        if (folder / file).is_file():
            return (folder / file).read_text(encoding="utf-8")
    raise ConfigError(f"{file} is not in this installation", "a whole one", "pip install --force-reinstall kd-edge")


def value(text: str, what: str) -> str:
    """Text as the value of a setting.

    Args:
        text: What it is to say; ``%`` stands for itself.
        what: What it is, for the refusal.

    Raises:
        ConfigError: A unit file cannot say it: control characters, or bytes that are no text.
    """
    if not text.isprintable() or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"{what} '{printable(text)}' has characters that a unit file cannot hold",
            "printable characters, all on one line",
            "rename the file, or put the camera's address into a camera file",
        )
    return text.replace("%", "%%")


def command_line(words: Iterable[str]) -> str:
    """A command for ``ExecStart=``, each word quoted where it has to be (systemd.service(5), "Command lines").

    Args:
        words: Program and arguments; every character stands for itself.

    Raises:
        ConfigError: A word that a unit file cannot say.
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
    """A word in quotes where systemd would take it apart or its characters for something else."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class Unit:
    """A unit file whose settings can be changed one by one; comments and order stay.

    Args:
        text: The file.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    @property
    def text(self) -> str:
        """The whole file."""
        return "\n".join(self._lines) + "\n"

    def get(self, key: str) -> str:
        """The value of a setting; an empty string where it is not set."""
        return next((line.partition("=")[2] for line in self._lines if line.startswith(f"{key}=")), "")

    def set(self, key: str, value: str) -> None:
        """Give a setting that is there another value, in its place."""
        at = next(at for at, line in enumerate(self._lines) if line.startswith(f"{key}="))
        self._lines[at] = f"{key}={value}"

    def add(self, after: str, key: str, value: str) -> None:
        """Add a setting behind the last one called ``after``."""
        at = max(at for at, line in enumerate(self._lines) if line.startswith(f"{after}="))
        self._lines.insert(at + 1, f"{key}={value}")

    def drop(self, keys: Iterable[str]) -> None:
        """Take settings out."""
        gone = tuple(f"{key}=" for key in keys)
        self._lines = [line for line in self._lines if not line.startswith(gone)]

    def drop_comments(self) -> None:
        """Take out comments, and what is then left of empty lines in a row."""
        kept = [line for line in self._lines if not line.startswith("#")]
        self._lines = [line for at, line in enumerate(kept) if line or (at and kept[at - 1])]

"""Single key presses on a terminal."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kd_edge.errors import ConfigError

_MOST_BYTES = 256
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)
"""Escape sequences of arrows and function keys."""


@contextmanager
def key_presses() -> Iterator[Callable[[], str]]:
    """Read single keys inside the block, without Enter and without echo; Ctrl-C still interrupts.

    Yields:
        A function that returns the keys pressed since its last call, without arrows and function keys, and without
        anything typed while the process is in the background.

    Raises:
        ConfigError: Standard input is not a terminal.
    """
    try:
        import termios
        import tty

        handle = sys.stdin.fileno()
        before = termios.tcgetattr(handle)
    except (ImportError, OSError, ValueError, termios.error) as error:
        raise ConfigError(
            "keys without a terminal",
            "a terminal as standard input (ssh -t), or clips of a set length",
            "add --seconds, or leave --label and --key out",
        ) from error
    try:
        tty.setcbreak(handle)
        yield lambda: _pressed(handle)
    finally:
        if _is_in_front(handle):  # otherwise the shell owns it, and would stop this process
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(handle, termios.TCSADRAIN, before)


def has_keys() -> bool:
    """Whether keys can be read: standard input is a terminal, and this process is in its foreground."""
    try:
        return sys.stdin.isatty() and _is_in_front(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # standard input is missing or closed
        return False


def _is_in_front(handle: int) -> bool:
    try:
        return os.tcgetpgrp(handle) == os.getpgrp()
    except OSError:  # the terminal of another session: no job control
        return True


def _pressed(handle: int) -> str:
    if not _is_in_front(handle) or not select.select([handle], [], [], 0)[0]:
        return ""
    try:
        keys = os.read(handle, _MOST_BYTES)
    except OSError:  # the terminal is gone, but the recording continues
        return ""
    return _ESCAPE.sub("", keys.decode("utf-8", "ignore"))

"""Single key presses of a terminal."""

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
"""What arrows and function keys send."""


@contextmanager
def key_presses() -> Iterator[Callable[[], str]]:
    """Inside the block keys come one by one, without Enter and without being shown; Ctrl-C still interrupts.

    Yields:
        Gives the keys that were pressed since it was asked last; arrows and the like are none, and so is what is typed
        while the process is in the background.

    Raises:
        ConfigError: Standard input is no terminal.
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
        if _is_in_front(handle):  # else the shell has it, and would stop who touches it
            with suppress(termios.error):  # it is gone
                termios.tcsetattr(handle, termios.TCSADRAIN, before)


def has_keys() -> bool:
    """Whether somebody at a terminal may press keys: standard input is one, and this process is in its foreground."""
    try:
        return sys.stdin.isatty() and _is_in_front(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # none, or closed
        return False


def _is_in_front(handle: int) -> bool:
    try:
        return os.tcgetpgrp(handle) == os.getpgrp()
    except OSError:  # the terminal of another session: nobody stops us
        return True


def _pressed(handle: int) -> str:
    if not _is_in_front(handle) or not select.select([handle], [], [], 0)[0]:
        return ""
    try:
        keys = os.read(handle, _MOST_BYTES)
    except OSError:  # the terminal is gone, the recording goes on
        return ""
    return _ESCAPE.sub("", keys.decode("utf-8", "ignore"))

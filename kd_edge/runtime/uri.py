"""``scheme:target?key=value``: how the command line and camera files name cameras and sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl


class Uri(NamedTuple):
    """A URI, taken apart.

    Attributes:
        scheme: Before the first colon; empty without a colon.
        target: Between the first colon and the query: a path, a device or nothing.
        query: What follows the last ``?``, by key.
    """

    scheme: str
    target: str
    query: dict[str, str]


def parse(text: str) -> Uri:
    """Take a URI apart; a question mark without ``=`` behind it belongs to the target (a glob)."""
    scheme, colon, rest = text.partition(":")
    if not colon:
        return Uri("", text, {})
    target, _, query = rest.rpartition("?")
    if "=" not in query:
        return Uri(scheme, rest, {})
    return Uri(scheme, target, dict(parse_qsl(query, keep_blank_values=True)))


def forms(schemes: Sequence[str]) -> str:
    """The schemes as an error message names them: ``replay:, synthetic:``."""
    return ", ".join(f"{scheme}:" for scheme in schemes)

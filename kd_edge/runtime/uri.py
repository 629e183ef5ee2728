"""``scheme:target?key=value``: how the command line and camera files name cameras and sinks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

NETWORK = ("rtsp", "rtsps", "http", "https", "udp")
"""Schemes of URLs. What follows a ``?`` is the server's; our keys follow a ``#``, which is never sent to a server."""
PIPELINE = "gstreamer"
"""What follows this scheme is GStreamer's language, all of it."""
TOPIC = "ros2"
"""What follows this scheme is a topic of ROS 2."""
RECORDING = "replay"
HIDDEN = "***"

_VALUE = re.compile(r"=[^&/;]*")  # in a path, too: rtsp://host/user=a&password=b
_PROPERTY = re.compile(r"""\s*=\s*(?:"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|(?:\\.|\S)+)""")
_USER = re.compile(r"://\S*@")


class Uri(NamedTuple):
    """A URI, taken apart.

    Attributes:
        scheme: Before the first colon; empty without a colon.
        target: Between the first colon and the keys: a path, a device, ``//host/path?query`` or nothing.
        query: Our keys: what follows the last ``?``, or in a URL the ``#``.
    """

    scheme: str
    target: str
    query: dict[str, str]


def parse(text: str) -> Uri:
    """Take a URI apart; a question mark without ``=`` behind it belongs to the target, as does one in a file's name."""
    scheme, colon, rest = text.partition(":")
    if not colon:
        return Uri("", text, {})
    if scheme == PIPELINE:
        return Uri(scheme, rest, {})
    if scheme in NETWORK:
        target, _, query = rest.partition("#")
        return Uri(scheme, target, dict(parse_qsl(query, keep_blank_values=True)))
    target, _, query = rest.rpartition("?")
    if "=" not in query or (scheme == RECORDING and os.path.lexists(rest)):
        return Uri(scheme, rest, {})
    return Uri(scheme, target, dict(parse_qsl(query, keep_blank_values=True)))


def shown(text: str) -> str:
    """A name or URI without what may be secret in it, for messages, logs and labels.

    In a URL that is everything up to the last ``@`` (user and password, even one whose special characters were not
    escaped), the server's query and every value in the path; in a pipeline every property's value.
    """
    scheme, _, rest = text.partition(":")
    if scheme == PIPELINE:
        return f"{scheme}:{_PROPERTY.sub(f'={HIDDEN}', _USER.sub(f'://{HIDDEN}@', rest))}"
    if scheme not in NETWORK and not rest.startswith("//"):
        return text
    user, at, place = rest.removeprefix("//").rpartition("@")
    path, _, query = place.partition("#")[0].partition("?")
    told = _VALUE.sub(f"={HIDDEN}", path) + (f"?{HIDDEN}" if query else "")
    return f"{scheme}://{HIDDEN if user else ''}{at}{told}"


def forms(schemes: Sequence[str]) -> str:
    """The schemes as an error message names them: ``replay:, synthetic:``."""
    return ", ".join(f"{scheme}:" for scheme in schemes)

"""What to record: labels and their keys, length and number of clips, and bounds on disk space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kd_edge.data.readers.files.rows import is_label, plain
from kd_edge.errors import ConfigError, printable

Mode = Literal["timed", "keys", "plain"]
"""Clips of a fixed length after a count-down; a long recording with pieces marked by key; or one without labels."""
DIGITS = "1234567890"
"""Keys assigned, in order, to labels without a key."""
END_KEY = " "
"""Ends the running piece."""
DISCARD_KEYS = "\x7f\b"
"""Sent by terminals for backspace: discards the running piece or clip, or the last one if none is running."""
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to record. Created by ``make_plan``, which checks it.

    Attributes:
        labels: Classes, in order.
        keys: Label of each key; empty if no keys are used.
        seconds: Length of a clip; None records until stopped.
        count: Clips per label.
        countdown_seconds: Length of the count-down before each clip.
        pause_seconds: Pause between a clip and the next count-down.
        duration_seconds: Length of the session; None for no limit.
        subject: Name of the person.
        view: Name of the camera position.
        trial: Number of the first repetition; None continues after those in the folder.
        session: Name of this session; None uses the date and time.
        waits: Whether to wait for a lost camera; otherwise it ends the session.
        most_bytes: Largest size of the folder; None for no limit.
        keep_free_bytes: Space that stays free on the disk.
    """

    labels: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    count: int = 1
    countdown_seconds: float = 3.0
    pause_seconds: float = 2.0
    duration_seconds: float | None = None
    subject: str = ""
    view: str = ""
    trial: int | None = None
    session: str | None = None
    waits: bool = True
    most_bytes: int | None = None
    keep_free_bytes: int = 1_000_000_000

    @property
    def mode(self) -> Mode:
        """How clips get their labels."""
        if self.keys:
            return "keys"
        return "plain" if self.seconds is None or not self.labels else "timed"


def make_plan(
    *,
    labels: Sequence[str] = (),
    keys: Sequence[str] = (),
    seconds: float | None = None,
    count: int | None = None,
    countdown_seconds: float = 3.0,
    pause_seconds: float = 2.0,
    duration_seconds: float | None = None,
    subject: str = "",
    view: str = "",
    trial: int | None = None,
    session: str | None = None,
    waits: bool = True,
    max_gb: float | None = None,
    keep_free_gb: float = 1.0,
) -> Plan:
    """Make a plan from the options of the command line.

    Args:
        labels: Names of classes.
        keys: ``KEY=LABEL`` each; without ``seconds``, labels without a key get digits in order.
        seconds: Length of a clip, s.
        count: Clips per label; None means one.
        countdown_seconds: See ``Plan``.
        pause_seconds: See ``Plan``.
        duration_seconds: See ``Plan``.
        subject: See ``Plan``.
        view: See ``Plan``.
        trial: See ``Plan``.
        session: See ``Plan``.
        waits: See ``Plan``.
        max_gb: Largest size of the folder, 10^9 bytes.
        keep_free_gb: Space that stays free on the disk, 10^9 bytes.

    Raises:
        ConfigError: Options contradict each other, or a name is invalid.
    """
    mapped = _mapped(keys)
    named = [_label(name) for name in (*labels, *mapped.values())]
    every = tuple(dict.fromkeys(named))
    check_spelling(every)
    if count is not None and seconds is None:
        raise ConfigError(f"--count {count} without --seconds", "the length of a clip", "add --seconds, e.g. 4")
    if count is not None and not labels:
        raise ConfigError(f"--count {count} without --label", "what the clips show", "add --label NAME")
    if mapped and seconds is not None:
        raise ConfigError(
            f"--key together with --seconds {seconds:g}",
            "keys, which begin and end pieces, or clips of a fixed length",
            "omit one of them; --duration limits the session",
        )
    if every and seconds is None:
        mapped |= _digits([label for label in every if label not in mapped.values()], mapped)
    return Plan(
        labels=every,
        keys=mapped,
        seconds=seconds,
        count=count or 1,
        countdown_seconds=countdown_seconds,
        pause_seconds=pause_seconds,
        duration_seconds=duration_seconds,
        subject=_name(subject, "--subject"),
        view=_name(view, "--view"),
        trial=trial,
        session=None if session is None else _name(session, "--session"),
        waits=waits,
        most_bytes=None if max_gb is None else round(max_gb * 1e9),
        keep_free_bytes=round(keep_free_gb * 1e9),
    )


def check_spelling(labels: Sequence[str], known: Sequence[str] = ()) -> None:
    """Check that no two labels differ only in case, spaces, ``_`` and ``-``.

    Args:
        labels: New labels.
        known: Labels that the folder has.

    Raises:
        ConfigError: Two labels do.
    """
    spelled = {plain(label): label for label in known}
    for label in labels:
        other = spelled.setdefault(plain(label), label)
        if other != label:
            raise ConfigError(
                f"labels '{printable(label)}' and '{printable(other)}'",
                "one spelling per class: these differ only in case or spaces",
                f"--label '{printable(other)}'",
            )


def _mapped(keys: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in keys:
        key, sign, label = text[:1], text[1:2], text[2:]
        if sign != "=" or not label.strip() or not key.isprintable() or key == END_KEY:
            raise ConfigError(
                f"--key '{printable(text)}'", "one key (not the space bar) and a label", "for example --key w=wave"
            )
        if key in found:
            raise ConfigError(f"key '{key}' twice", "one label per key", "choose another key")
        found[key] = _label(label)
    return found


def _digits(labels: Sequence[str], taken: Mapping[str, str]) -> dict[str, str]:
    free = [digit for digit in DIGITS if digit not in taken]
    if len(labels) > len(free):
        raise ConfigError(
            f"{len(labels)} labels without a key", f"at most {len(free)}, one per digit", "name keys: --key w=wave"
        )
    return dict(zip(free, labels, strict=False))


def _label(text: str) -> str:
    label = text.strip()
    if not label or not is_label(label):
        raise ConfigError(
            f"label '{printable(text[:40])}'",
            "the name of a class: 1 to 200 printable characters on one line",
            "correct --label or --key",
        )
    return label


def _name(text: str, option: str) -> str:
    name = text.strip()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ConfigError(f"{option} '{printable(text[:40])}'", "at most 200 printable characters", f"correct {option}")
    return name

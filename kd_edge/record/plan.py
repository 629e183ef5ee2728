"""What is to be recorded: labels and their keys, how long, how often, and how much of the disk it may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kd_edge.data.readers.files.rows import is_label, plain
from kd_edge.errors import ConfigError, printable

Mode = Literal["timed", "keys", "plain"]
"""Clips of a set length after a count-down; one long recording whose pieces keys mark; or one without labels."""
DIGITS = "1234567890"
"""Keys of labels that were given none, in their order."""
END_KEY = " "
"""Ends whatever piece runs."""
DISCARD_KEYS = "\x7f\b"
"""What a terminal sends for backspace: the piece or the clip that runs, else the last one, is discarded."""
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be recorded; made by ``make_plan``, which checks it.

    Attributes:
        labels: Classes, in their order.
        keys: Label of each key; empty where no keys are used.
        seconds: Length of a clip; None records until it is ended.
        count: How many clips of each label.
        countdown_seconds: How long before each clip the count-down begins.
        pause_seconds: Between a clip and the next count-down.
        duration_seconds: When to end it all; None: never.
        subject: Who performs.
        view: From where.
        trial: Number of the first repetition; None goes on after those that the folder has.
        session: Name of this session; None: the time of day.
        waits: Whether a camera that is lost is waited for; else it ends the session.
        most_bytes: The folder takes at most so much; None: as much as there is.
        keep_free_bytes: So much of the disk stays free.
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
        """How labels come about."""
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
    """What a user asked for on the command line, as a plan.

    Args:
        labels: Names of classes.
        keys: ``KEY=LABEL`` each; labels without a key get digits in their order where no ``seconds`` are given.
        seconds: Length of a clip, s.
        count: How many clips of each label; None: one.
        countdown_seconds: See ``Plan``; so are the others.
        pause_seconds: See ``Plan``.
        duration_seconds: See ``Plan``.
        subject: See ``Plan``.
        view: See ``Plan``.
        trial: See ``Plan``.
        session: See ``Plan``.
        waits: See ``Plan``.
        max_gb: Bound of the folder, 10^9 bytes.
        keep_free_gb: What stays free of the disk, 10^9 bytes.

    Raises:
        ConfigError: Parts of it contradict each other, or a name cannot be one.
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
            "keys, which begin and end pieces, or clips of a set length",
            "leave one of them out; --duration ends it all",
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
    """Refuse a label that differs from another one by capitals, blanks, ``_`` and ``-`` only.

    Args:
        labels: New ones.
        known: Those that the folder has.

    Raises:
        ConfigError: Two of them do.
    """
    spelled = {plain(label): label for label in known}
    for label in labels:
        other = spelled.setdefault(plain(label), label)
        if other != label:
            raise ConfigError(
                f"label '{printable(label)}' beside '{printable(other)}'",
                "one spelling of a class: these differ by capitals or blanks only",
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
            raise ConfigError(f"key '{key}' twice", "one label a key", "choose another key")
        found[key] = _label(label)
    return found


def _digits(labels: Sequence[str], taken: Mapping[str, str]) -> dict[str, str]:
    free = [digit for digit in DIGITS if digit not in taken]
    if len(labels) > len(free):
        raise ConfigError(
            f"{len(labels)} labels without a key", f"at most {len(free)}, one a digit", "name keys: --key w=wave"
        )
    return dict(zip(free, labels, strict=False))


def _label(text: str) -> str:
    label = text.strip()
    if not label or not is_label(label):
        raise ConfigError(
            f"label '{printable(text[:40])}'",
            "the name of a class: 1 to 200 characters that can be printed, on one line",
            "correct --label or --key",
        )
    return label


def _name(text: str, option: str) -> str:
    name = text.strip()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f"{option} '{printable(text[:40])}'", "at most 200 characters that can be printed", f"correct {option}"
        )
    return name

"""The verb record: record clips from the user's own cameras, ready to train on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from kd_edge.cli.console import JsonOption, counted, err, out, print_json
from kd_edge.errors import printable

if TYPE_CHECKING:  # help is shown without the packages of cameras
    from kd_edge.record import Event, Kept, Plan, Status, Summary

app = typer.Typer()

LINE_SECONDS = 10.0
"""Seconds between status lines without a terminal."""


@app.command(
    epilog="Examples:  kd-edge record --camera ir0 --out gestures --label wave --subject 3 --seconds 4 --count 10  |  "
    "kd-edge record --camera ir0 --camera rgb0 --out gestures --key w=wave --key p=point --subject 3  |  "
    "kd-edge record --camera ir=synthetic: --out night --duration 3600 --max-gb 20"
)
def record(
    camera: Annotated[
        list[str],
        typer.Option(
            "--camera", "-c", metavar="NAME|URI", help="Camera; kd-edge cameras lists them. Repeatable: NAME=URI."
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="A new folder, or one recorded with the same cameras, to add to."),
    ],
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="CLASS",
            help="Class of the clips; without --seconds, keys 1, 2, ... mark it. Repeatable.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="K=CLASS",
            help="Key that starts and ends a piece of CLASS; backspace discards it. Repeatable.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", min=0.2, max=3600, help="Length of a clip.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, max=10_000, help="Number of clips per label.")
    ] = None,
    countdown: Annotated[
        float, typer.Option("--countdown", metavar="S", min=0, max=60, help="Countdown before each of these clips.")
    ] = 3.0,
    pause: Annotated[
        float, typer.Option("--pause", metavar="S", min=0, max=3600, help="Pause between two of these clips.")
    ] = 2.0,
    duration: Annotated[
        float | None,
        typer.Option("--duration", metavar="S", min=0.2, max=1e7, help="Stop after this many seconds."),
    ] = None,
    subject: Annotated[str, typer.Option("--subject", metavar="NAME", help="Person who performs.")] = "",
    view: Annotated[str, typer.Option("--view", metavar="NAME", help="Viewpoint of the cameras.")] = "",
    trial: Annotated[
        int | None,
        typer.Option(
            "--trial",
            metavar="N",
            min=0,
            max=100_000_000,
            help="Trial number of the first clip; default: continues the folder's numbering.",
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option("--session", metavar="NAME", help="Session name in the manifest; default the time of day."),
    ] = None,
    max_gb: Annotated[
        float | None, typer.Option("--max-gb", metavar="GB", min=0.001, max=1e9, help="Maximum size of the folder.")
    ] = None,
    keep_free_gb: Annotated[
        float, typer.Option("--keep-free-gb", metavar="GB", min=0, max=1e9, help="Disk space to keep free.")
    ] = 1.0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Stop when a camera is lost, with exit code 1.")] = False,
    json_: JsonOption = False,
) -> None:
    """Record clips from one or several cameras into a folder that data check and train can read; Ctrl-C stops.

    Pixels and time stamps are stored exactly. After a killed session, the
    next start with the same --out repairs the folder, continues its numbering
    and overwrites nothing.

    Exit code 1 if a full disk, --max-gb or a lost camera ended the recording;
    everything recorded before is kept.
    """
    from kd_edge.record import Session, make_plan
    from kd_edge.runtime.signals import interrupt_on_termination

    plan = make_plan(
        labels=label or (),
        keys=key or (),
        seconds=seconds,
        count=count,
        countdown_seconds=countdown,
        pause_seconds=pause,
        duration_seconds=duration,
        subject=subject,
        view=view,
        trial=trial,
        session=session,
        waits=not no_wait,
        max_gb=max_gb,
        keep_free_gb=keep_free_gb,
    )
    recording = Session(camera, folder, plan)
    began = False
    try:
        with interrupt_on_termination(), ExitStack() as stack:
            keys = _keys(plan, stack)
            stack.enter_context(recording)
            began = True
            shown = stack.enter_context(_Display(plan, has_keys=keys is not None))
            for event in recording.events(keys):
                shown.show(event)
    except KeyboardInterrupt:
        if not began:
            raise typer.Exit(130) from None
    summary = recording.summary
    if json_:
        print_json(asdict(summary))
    else:
        out.print(escape(printable(_summary(summary))), soft_wrap=True)
    if summary.ended:
        err.print(f"[red]ended early:[/red] {escape(printable(summary.ended))}", soft_wrap=True)
        raise typer.Exit(1)


def _keys(plan: Plan, stack: ExitStack) -> Callable[[], str] | None:
    """Source of key presses; None if the plan needs no keys or they cannot be read."""
    from kd_edge.cli.keys import has_keys, key_presses

    if plan.mode == "keys" or (plan.mode == "timed" and has_keys()):
        return stack.enter_context(key_presses())
    return None


class _Display:
    """Display of a recording: a live line and the bell on a terminal, plain lines elsewhere.

    Args:
        plan: The plan of the recording.
        has_keys: Whether key presses are read.
    """

    def __init__(self, plan: Plan, *, has_keys: bool) -> None:
        self._plan, self._has_keys = plan, has_keys
        self._live = Live(console=err, auto_refresh=False, transient=True) if err.is_terminal else None
        self._printed = time.monotonic()

    def __enter__(self) -> _Display:
        if self._live is not None:
            self._live.start()
        if self._plan.keys:
            keys = ", ".join(f"{key} {label}" for key, label in self._plan.keys.items())
            self._line(f"keys: {keys}; the same key or space ends a piece, backspace discards it, Ctrl-C stops")
        elif self._has_keys:
            self._line("backspace discards a clip, which is then recorded again; Ctrl-C stops")
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        from kd_edge.record import Began, Countdown, Kept, Note

        if isinstance(event, Countdown):
            left = f"{event.label} ({event.number} of {event.count}) in {event.seconds}"
            self._bell()
            if self._live is None and event.seconds > 1:
                return
            self._changing(left) if self._live is not None else self._line(left)
        elif isinstance(event, Began):
            self._bell()
            self._line(f"recording {event.label}".rstrip())
        elif isinstance(event, Kept):
            self._bell()
            self._line(_kept(event))
        elif isinstance(event, Note):
            self._line(event.text)
        elif self._live is not None:
            self._changing(status_line(event))
        elif time.monotonic() - self._printed > LINE_SECONDS:
            self._line(status_line(event))

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        err.print(escape(printable(text)), soft_wrap=True)

    def _changing(self, text: str) -> None:
        if self._live is not None:
            self._live.update(Text(printable(text), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _bell(self) -> None:
        if self._live is not None:
            err.bell()


def status_line(status: Status) -> str:
    """Status of a recording in one line."""
    cameras = (
        f"{name} {c.frames} frames {c.fps:.1f}/s{f' {c.dropped} DROPPED' if c.dropped else ''} {c.age_ms:.0f} ms old"
        for name, c in status.cameras.items()
    )
    state = status.waiting and f"waiting for {status.waiting}"
    if status.seconds is not None:
        state = f"{status.label or 'no label'} {status.seconds:.1f} s"
    return "  ".join([state or "ready", *cameras, f"{status.left_bytes / 1e9:.1f} GB left"])


def _kept(event: Kept) -> str:
    clip, why = event.clip, f", cut short: {event.why}" if event.why else ""
    if not clip.rows:
        return f"nothing kept: too few frames{why}"
    pieces = f" {counted(len(clip.rows), 'piece')}" if len(clip.rows) > 1 else ""
    label = clip.rows[0]["label"] if len(clip.rows) == 1 else ""
    frames = " + ".join(str(count) for count in clip.frames.values())
    name = clip.rows[0]["id"].partition("-")[0]
    return f"kept {name}{pieces}{f' {label}' if label else ''}: {clip.seconds:.1f} s, {frames} frames{why}"


def _summary(summary: Summary) -> str:
    labels = ", ".join(f"{count} {label}" for label, count in summary.labels.items())
    text = f"{summary.out}: {counted(summary.clips, 'recording')}, {summary.seconds:.1f} s, "
    text += f"{summary.size_bytes / 1e6:.1f} MB; {labels or 'no labels'}"
    lost = {name: count for name, count in summary.dropped.items() if count}
    if lost:
        text += "; DROPPED " + ", ".join(f"{count} frames of {name}" for name, count in lost.items())
    if summary.cut_short:
        text += f"; cut short: {', '.join(summary.cut_short)}"
    unusable = {name: count for name, count in summary.unusable.items() if count}
    if unusable:
        text += "; unusable " + ", ".join(f"{count} frames of {name}" for name, count in unusable.items())
    again = {name: count for name, count in summary.reconnects.items() if count}
    if again:
        text += "; reopened " + ", ".join(f"{name} {count} times" for name, count in again.items())
    return text

"""The verb cameras, and cameras doctor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic_core import to_jsonable_python
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from kd_edge.cli.console import JsonOption, err, out, print_json
from kd_edge.errors import ConfigError, printable
from kd_edge.runtime.uri import TOPIC

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.runtime.cameras.advice import Advice
    from kd_edge.runtime.cameras.listing import Cameras
    from kd_edge.runtime.cameras.modes import PixelFormat
    from kd_edge.runtime.cameras.stills import Still

app = typer.Typer(invoke_without_command=True)


MODES_SHOWN = 4

STATES = {True: "present", False: "not attached", None: "not opened"}


def camera_table(found: Cameras, *, ros: bool = False) -> RenderableType:
    """Attached devices with their formats, and configured cameras, each with the command that uses it.

    Args:
        found: The cameras found.
        ros: Whether ROS 2 topics were searched.
    """
    built = Table(box=None, pad_edge=False)
    for name in ("camera", "what", "use it with"):
        built.add_column(name, overflow="fold")
    for device in found.attached:
        what = [device.description or "video device", *map(_format_line, device.formats)]
        what += [device.fault] if device.fault else []
        built.add_row(*(escape(text) for text in (device.device, "\n  ".join(what), device.use)))
    for camera in found.configured:
        state = camera.fault or STATES[camera.present]
        built.add_row(*(escape(printable(text)) for text in (camera.name, f"{camera.uri} ({state})", camera.use)))
    built.add_row("synthetic:", "a generated figure, no device needed", "kd-edge run --camera synthetic:")
    topics = [device for device in found.attached if device.uri.startswith(f"{TOPIC}:")]
    more = "" if ros else " (--ros shows them)"
    built.add_row("ros2:", f"a topic of ROS 2's images{more}", "kd-edge run --camera ros2:/TOPIC")
    notes = []
    if len(topics) == len(found.attached):
        notes.append("no video device is attached to this machine")
    if ros and not topics:
        domain = os.environ.get("ROS_DOMAIN_ID") or "0"
        notes.append(f"nobody publishes images in ROS domain {printable(domain)}: check ROS_DOMAIN_ID and the driver")
    return Group(built, *notes) if notes else built


def _format_line(one: PixelFormat) -> str:
    """``GREY 640x480 (30, 15), 320x240 (60) and 3 more``."""
    shown, more = one.modes[:MODES_SHOWN], len(one.modes) - MODES_SHOWN
    return f"{one.name} {', '.join(map(str, shown))}{f' and {more} more' if more > 0 else ''}"


@app.callback(
    epilog="Examples:  kd-edge cameras  |  kd-edge cameras --stills pictures  |  kd-edge cameras --write ir0 --of "
    "/dev/video2  |  kd-edge cameras --ros  |  kd-edge cameras doctor ir0"
)
def cameras(
    context: typer.Context,
    stills: Annotated[
        Path | None, typer.Option("--stills", metavar="DIR", help="Save a picture from each attached camera.")
    ] = None,
    write: Annotated[
        str | None, typer.Option("--write", metavar="NAME", help="Write a camera file, runtime/cameras/NAME.toml.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="DEVICE|URI", help="The camera that --write and --stills use."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --write replace an existing file.")] = False,
    ros: Annotated[
        bool, typer.Option("--ros", help="Also look for ROS 2 image topics (in ROS_DOMAIN_ID); takes 2 s.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """List attached and configured cameras, their formats, and the command that uses each.

    Exit code 1 if a camera delivered no picture for --stills.
    """
    if context.invoked_subcommand is not None:
        if stills or write or of or force or ros or json_:
            raise ConfigError("options before doctor", "options after doctor", "kd-edge cameras doctor --help")
        return
    from kd_edge.runtime.cameras.listing import list_cameras

    if (of and not (write or stills)) or (force and not write):
        raise ConfigError(
            "--of or --force alone", "what to do with it", "--write NAME makes a camera file, --stills DIR a picture"
        )
    found = list_cameras(ros=ros)
    file = None if write is None else _write(found, write, of, force)
    pictures = [] if stills is None else _stills(found, stills, of)
    if json_:
        done = {"written": file, "stills": pictures}
        print_json({**to_jsonable_python(found), **{key: value for key, value in done.items() if value}})
    elif file is None and stills is None:
        out.print(camera_table(found, ros=ros))
    if file is not None and not json_:
        text = "\n".join(map(_shown_line, file.read_text().splitlines()))
        out.print(f"{escape(str(file))}:\n{escape(text)}\nkd-edge run --camera {escape(file.stem)}")
    if stills is not None and not json_:
        out.print("\n".join(map(_still_line, pictures)) or "no camera is there", soft_wrap=True)
    if any(picture.fault for picture in pictures):
        raise typer.Exit(1)


def _shown_line(line: str) -> str:
    """A line of a camera file, with any password in its URI hidden."""
    from kd_edge.runtime.uri import shown

    key, equals, value = line.partition(" = ")
    return f'uri = "{shown(value[1:-1])}"' if key == "uri" and equals else line


def _write(found: Cameras, name: str, of: str | None, force: bool) -> Path:
    from kd_edge.runtime.cameras.camera_file import write_camera_file
    from kd_edge.runtime.cameras.listing import camera_file_of, uri_of

    return write_camera_file(name, camera_file_of(found, uri_of(found, of)), overwrite=force)


def _stills(found: Cameras, folder: Path, of: str | None) -> list[Still]:
    from kd_edge.runtime.cameras.listing import present, uri_of
    from kd_edge.runtime.cameras.stills import grab_stills

    with err.status("grabbing pictures"):
        return grab_stills([uri_of(found, of)] if of else present(found), folder)


def _still_line(picture: Still) -> str:
    if picture.fault:
        return f"[red]{escape(printable(picture.camera))}[/red] {escape(picture.fault)}"
    preview = f", for people {escape(str(picture.preview))}" if picture.preview else ""
    return f"{escape(printable(picture.camera))} {picture.what} {escape(str(picture.file))}{preview}"


def advice_table(found: Sequence[Advice]) -> RenderableType:
    """One row per finding, with the fix and the lines for the camera file below it."""
    colour = {"ok": "green", "note": "yellow", "problem": "red"}
    built = Table(box=None, pad_edge=False, show_header=False)
    for one in found:
        fix = f"\n[dim]-> {escape(printable(one.fix))}[/dim]" if one.fix else ""
        lines = "".join(f"\n   {escape(printable(line))}" for line in one.lines)
        level = f"[{colour[one.level]}]{one.level}[/]"
        built.add_row(level, one.topic, escape(printable(one.found)) + fix + lines)
    return built


@app.command(
    epilog="Examples:  kd-edge cameras doctor ir0  |  kd-edge cameras doctor v4l2:/dev/video2 --model student.onnx"
)
def doctor(
    camera: Annotated[str, typer.Argument(metavar="NAME|URI", help="kd-edge cameras shows them.")],
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.5, max=600, help="How long to watch the camera.")
    ] = 10.0,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", metavar="FILE", help="Artifact that will use the camera; default as for kd-edge run."
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Watch a camera: check its rate, time stamps, light, emitter and flicker, and suggest settings for its file.

    Exit code 1 if a problem is found.
    """
    from kd_edge.artifact import default_model, load
    from kd_edge.runtime.cameras.advice import diagnose
    from kd_edge.runtime.uri import shown

    manifest = load(model or default_model()).manifest
    with err.status(f"watching {escape(printable(shown(camera)))} for {seconds:g} s"):
        found = diagnose(camera, seconds, manifest)
    if json_:
        print_json(found)
    else:
        out.print(advice_table(found.advice))
    if found.level == "problem":
        raise typer.Exit(1)

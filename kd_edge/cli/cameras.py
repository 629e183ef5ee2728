"""The verb cameras, and cameras doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from kd_edge.cli.console import JsonOption, err, out, print_json
from kd_edge.errors import printable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.runtime.cameras.advice import Advice
    from kd_edge.runtime.cameras.listing import Cameras

app = typer.Typer(invoke_without_command=True)


def camera_table(found: Cameras) -> RenderableType:
    """Devices and configured cameras, each with the line that uses it."""
    built = Table(box=None, pad_edge=False)
    for name in ("camera", "what", "use it with"):
        built.add_column(name)
    for device in found.attached:
        built.add_row(device.device, escape(device.description or "video device"), device.use)
    for camera in found.configured:
        state = camera.fault or ("present" if camera.present else "not attached")
        built.add_row(*(escape(printable(text)) for text in (camera.name, f"{camera.uri} ({state})", camera.use)))
    built.add_row("synthetic:", "a generated figure, no device needed", "kd-edge run --camera synthetic:")
    note = "" if found.attached else "no video device is attached to this machine"
    return Group(built, note) if note else built


@app.callback()
def cameras(context: typer.Context, json_: JsonOption = False) -> None:
    """Show what is attached, what is configured, and the exact line to use it."""
    if context.invoked_subcommand is not None:
        return
    from kd_edge.runtime.cameras.listing import list_cameras

    found = list_cameras()
    if json_:
        print_json(found)
    else:
        out.print(camera_table(found))


def advice_table(found: Sequence[Advice]) -> RenderableType:
    """One row for each finding; what to do, and the lines for the camera file, below it."""
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
        float, typer.Option("--seconds", metavar="S", min=0.5, max=600, help="How long it is watched.")
    ] = 10.0,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="FILE", help="What its pictures are for; default as for kd-edge run."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Watch a camera: rate, stamps, light, emitter, flicker, and what to write in its file.

    Exit code 1 when something is wrong.
    """
    from kd_edge.artifact import default_model, load
    from kd_edge.runtime.cameras.advice import diagnose

    manifest = load(model or default_model()).manifest
    with err.status(f"watching {escape(printable(camera))} for {seconds:g} s"):
        found = diagnose(camera, seconds, manifest)
    if json_:
        print_json(found)
    else:
        out.print(advice_table(found.advice))
    if found.level == "problem":
        raise typer.Exit(1)

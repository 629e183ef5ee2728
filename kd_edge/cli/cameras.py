"""The verb cameras."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from kd_edge.cli.console import JsonOption, out, print_json
from kd_edge.errors import printable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.runtime.cameras.listing import Cameras

app = typer.Typer()

STATES = {True: "present", False: "not attached", None: "not opened"}


def camera_table(found: Cameras) -> RenderableType:
    """Devices and configured cameras, each with the line that uses it."""
    built = Table(box=None, pad_edge=False)
    for name in ("camera", "what", "use it with"):
        built.add_column(name)
    for device in found.attached:
        built.add_row(device.device, escape(device.description or "video device"), device.use)
    for camera in found.configured:
        state = camera.fault or STATES[camera.present]
        built.add_row(*(escape(printable(text)) for text in (camera.name, f"{camera.uri} ({state})", camera.use)))
    built.add_row("synthetic:", "a generated figure, no device needed", "kd-edge run --camera synthetic:")
    note = "" if found.attached else "no video device is attached to this machine"
    return Group(built, note) if note else built


@app.command()
def cameras(json_: JsonOption = False) -> None:
    """Show what is attached, what is configured, and the exact line to use it."""
    from kd_edge.runtime.cameras.listing import list_cameras

    found = list_cameras()
    if json_:
        print_json(found)
    else:
        out.print(camera_table(found))

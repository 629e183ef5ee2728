"""The verb install-service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kd_edge.cli.console import JsonOption, out, print_json, print_text
from kd_edge.errors import ConfigError, printable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.service import Outcome

app = typer.Typer()


@app.command(
    name="install-service",
    epilog="Examples:  kd-edge install-service --camera ir0 --model student.onnx --dry-run  |  "
    "kd-edge install-service --camera ir0 --user  |  "
    "kd-edge install-service --ros --topics /camera/infra1/image_rect_raw --model student.onnx  |  "
    "kd-edge install-service --uninstall --name kd-edge-ir0",
)
def install_service(
    camera: Annotated[
        list[str] | None,
        typer.Option("--camera", "-c", metavar="NAME", help="Camera name, file or URI, as for run. Repeatable."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="FILE", help="Artifact to copy; default the newest in its folder."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the service; default derived from the camera.")
    ] = None,
    ros: Annotated[bool, typer.Option("--ros", help="Install the ROS 2 node instead of kd-edge run.")] = False,
    topics: Annotated[
        list[str] | None,
        typer.Option("--topics", metavar="TOPIC", help="Image topic of the node, instead of --camera. Repeatable."),
    ] = None,
    sinks: Annotated[
        list[str] | None,
        typer.Option("--sink", metavar="URI", help="Where labels go; default the journal and /run. Repeatable."),
    ] = None,
    user: Annotated[
        bool, typer.Option("--user", help="Install for your user: needs no root, starts at login.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit and every command; change nothing.")
    ] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Stop the service and remove it; keeps the model.")
    ] = False,
    with_model: Annotated[bool, typer.Option("--with-model", help="With --uninstall: also remove the model.")] = False,
    json_: JsonOption = False,
) -> None:
    """Install a systemd service that labels a camera from boot, or remove it.

    The camera and the model are checked, then copied to where the service can
    read them. Installing again replaces the service.

    Exit code 1 if systemd refuses, or if the installed service does not
    start.
    """
    from kd_edge.artifact import artifact_path
    from kd_edge.service import Service, install, make_plan
    from kd_edge.service import uninstall as remove

    if uninstall:
        if name is None or camera or model or ros or topics or sinks:
            found = "no --name" if name is None else "--uninstall with options of an installation"
            raise ConfigError(found, "--uninstall --name NAME", "systemctl list-units 'kd-edge*' shows them")
        outcome = remove(name, for_user=user, with_model=with_model, dry_run=dry_run)
    else:
        if with_model:
            raise ConfigError("--with-model without --uninstall", "both", "add --uninstall")
        service = Service(
            cameras=tuple(camera or ()),
            model=None if model is None else artifact_path(model),
            name=name,
            sinks=tuple(sinks or ()),
            ros=ros,
            topics=tuple(topics or ()),
            for_user=user,
        )
        outcome = install(make_plan(service), dry_run=dry_run)
    if json_:
        print_json(outcome)
    else:
        _print_outcome(outcome)


def _print_outcome(outcome: Outcome) -> None:
    """Print what was done, or would be done."""
    is_dry = outcome.done == "nothing"
    if is_dry and outcome.text:
        print_text(f"# {outcome.unit}\n{outcome.text}\n")
    would = "would be " if is_dry else ""
    for action, paths in ((f"{would}written", outcome.written), (f"{would}removed", outcome.removed)):
        for path in paths:
            out.print(f"{action}: {escape(printable(path))}", soft_wrap=True)
    for line in outcome.left:
        out.print(escape(printable(line)), soft_wrap=True)
    for command in outcome.commands:
        out.print(f"{'would run' if is_dry else 'ran'}: {escape(printable(command))}", soft_wrap=True)
    for note in outcome.notes:
        out.print(f"[yellow]note[/yellow] {escape(printable(note))}", soft_wrap=True)
    if outcome.labels:
        out.print(f"labels: {escape(outcome.labels)}", soft_wrap=True)

"""The verb doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from kd_edge.cli.console import err, out, print_json
from kd_edge.errors import ConfigError, printable
from kd_edge.files import check_writable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.doctor import Finding
    from kd_edge.hardware import Checked

app = typer.Typer()


def doctor_report(findings: Sequence[Finding]) -> RenderableType:
    """One row per finding, with its fix below."""
    colour = {"ok": "green", "note": "yellow", "problem": "red"}
    built = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        expected = f"\n[dim]expected: {escape(finding.expected)}[/dim]" if finding.expected else ""
        fix = f"\n[dim]-> {escape(finding.fix)}[/dim]" if finding.fix else ""
        level = f"[{colour[finding.level]}]{finding.level}[/]"
        built.add_row(level, escape(finding.topic), escape(finding.found) + expected + fix)
    return built


@app.command(
    epilog="Examples:  kd-edge doctor  |  kd-edge doctor --hardware --json jetson.json  |  "
    "kd-edge doctor --hardware --only 'engine tensorrt' --model student.onnx"
)
def doctor(
    hardware: Annotated[
        bool, typer.Option("--hardware", help="Run every check that this machine's devices support; takes minutes.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="FILE", help="Artifact for --hardware; default the bundled one."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Run only this check of --hardware. Repeatable.")
    ] = None,
    json_: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="[FILE]", help="Report as JSON on standard output or, with --hardware, in FILE."
        ),
    ] = None,
) -> None:
    """Report what is installed, conflicting packages, usable engines and cameras, and how to fix problems.

    Exit code 1 if a problem is found. The report of --hardware is meant to be
    shared: it contains no user name, host name, serial number or picture.
    """
    if hardware:
        _hardware(model, only or (), json_)
        return
    if model is not None or only or json_ not in (None, "-"):
        raise ConfigError("--model, --only or a file without --hardware", "--hardware", "kd-edge doctor --hardware")
    from kd_edge.doctor import examine

    with err.status("importing what is installed"):
        findings = examine()
    if json_ is not None:
        print_json(findings)
    else:
        out.print(doctor_report(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def _hardware(model: Path | None, only: Sequence[str], json_: str | None) -> None:
    from kd_edge.artifact import BUNDLED, load
    from kd_edge.hardware import examine_hardware

    chosen = load(model or BUNDLED).path
    file = None if json_ in (None, "-") else Path(str(json_))
    if file is not None:
        check_writable(file, ConfigError, option="--json")
        if file.exists() and not file.read_bytes()[:1] == b"{":
            raise ConfigError(f"{file} exists and is not a report", "a new file", "choose another --json")
    with err.status("") as status:
        report = examine_hardware(
            chosen,
            file,
            only=only,
            say=lambda what: status.update(escape(what)),
            told=None if json_ == "-" else lambda check: out.print(checked_line(check)),
        )
    if json_ == "-":
        print_json(report)
    else:
        out.print(*(f"[yellow]note[/yellow] {escape(note)}" for note in report.notes), sep="\n")
        counts = ", ".join(f"{report.count(result)} {result}" for result in ("passed", "failed", "skipped"))
        out.print(f"{counts}{f'; written to {escape(printable(str(file)))}' if file is not None else ''}")
    if report.count("failed"):
        raise typer.Exit(1)


def checked_line(check: Checked) -> RenderableType:
    """A check and its result, with its figures below."""
    colour = {"passed": "green", "failed": "red", "skipped": "yellow"}[check.result]
    built = Table(box=None, pad_edge=False, show_header=False)
    figures = "".join(
        f"\n[dim]{escape(name)}: {escape(f'{value:.3g}' if isinstance(value, float) else value)}[/dim]"
        for name, value in check.figures.items()
    )
    why = f": {escape(check.why)}" if check.why else ""
    built.add_row(f"[{colour}]{check.result:7}[/]", escape(check.name), escape(check.what) + why + figures)
    return built

"""The verb doctor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from kd_edge.cli.console import JsonOption, err, out, print_json

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.doctor import Finding

app = typer.Typer()


def doctor_report(findings: Sequence[Finding]) -> RenderableType:
    """One row per finding, its remedy below it."""
    colour = {"ok": "green", "note": "yellow", "problem": "red"}
    built = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        expected = f"\n[dim]expected: {escape(finding.expected)}[/dim]" if finding.expected else ""
        fix = f"\n[dim]-> {escape(finding.fix)}[/dim]" if finding.fix else ""
        level = f"[{colour[finding.level]}]{finding.level}[/]"
        built.add_row(level, escape(finding.topic), escape(finding.found) + expected + fix)
    return built


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """Report what is installed, what clashes, which engines and cameras are usable, and what to do.

    Exit code 1 when something is wrong.
    """
    from kd_edge.doctor import examine

    with err.status("importing what is installed"):
        findings = examine()
    if json_:
        print_json(findings)
    else:
        out.print(doctor_report(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)

"""Verbs of studies: list, show, run, report, and tables of any runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kd_edge import recipes
from kd_edge.cli import show, show_training
from kd_edge.cli.console import DataOption, JsonOption, SetOption, err, out, print_json
from kd_edge.errors import ConfigError

if TYPE_CHECKING:
    from kd_edge.study.plan import Planned

app = typer.Typer(no_args_is_help=True, help="Run whole tables, and print what came out beside what was published.")

NameArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Name or path; kd-edge study list.")]
RowsOption = Annotated[
    str | None, typer.Option("--rows", metavar="A,B", help="Only these rows; kd-edge study show STUDY names them.")
]
SplitsOption = Annotated[str | None, typer.Option("--splits", metavar="A,B", help="Only these protocols.")]
SeedsOption = Annotated[str | None, typer.Option("--seeds", metavar="0,1", help="Instead of the study's.")]
FolderOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the runs; default runs/studies/STUDY.")
]
PageOption = Annotated[
    Path | None, typer.Option("--into", metavar="FILE", help="Markdown page whose marked place is replaced.")
]


@app.command("list")
def study_list(json_: JsonOption = False) -> None:
    """List all studies, your own first when names collide."""
    from kd_edge.study.plan import load_study, plan

    found = {name: load_study(name) for name in recipes.names("study")}
    if json_:
        print_json(found)
        return
    for name, study in found.items():
        read = sum(not row.runs for row in study.rows)
        only = f" ({read} only read)" if read else ""
        out.print(f"[b]{name}[/b]  {study.title}: {len(study.rows)} rows{only}, {len(plan(study))} runs")


@app.command("show", epilog="Examples:  kd-edge study show mgcam_table1  |  kd-edge study show mgcam_table1 --row at")
def study_show(
    name: NameArgument,
    row: Annotated[str | None, typer.Option("--row", metavar="NAME", help="Print this row's resolved recipe.")] = None,
) -> None:
    """Show a study's rows, or the complete recipe of one of them, ready for kd-edge train."""
    from kd_edge.study.plan import load_study, plan

    study = load_study(name)
    if row is not None:
        sys.stdout.write(recipes.to_toml(plan(study, rows=[row])[0].config))
        return
    out.print(show_training.study(study, plan(study)))


@app.command(
    "run",
    epilog="Examples:  kd-edge study run mgcam_table3 --data ~/data/ntu  |  kd-edge study run utd_mhad_methods --rows "
    "at,sp --seeds 0,1,2  |  kd-edge study run mgcam_table1 --dry-run",
)
def study_run(
    name: NameArgument,
    data: DataOption = None,
    rows: RowsOption = None,
    splits: SplitsOption = None,
    seeds: SeedsOption = None,
    settings: SetOption = None,
    folder: FolderOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take one step of every row on a few clips; write nothing.")
    ] = False,
) -> None:
    """Train every row that is not there yet; interrupted trainings go on, a shared teacher is trained once."""
    from kd_edge.study.plan import load_study, plan
    from kd_edge.study.runner import Skipped, Started, run_study

    runs = plan(
        load_study(name), rows=_names(rows), splits=_names(splits), seeds=_numbers(seeds), overrides=settings or ()
    )
    if dry_run:
        _rehearse(runs, data)
        return
    place = folder or _folder(name)
    display = show.Training(err)
    with display:
        events = run_study(runs, place, data_root=data, progress=display.decoding)
        for event in display.watch(events):
            if isinstance(event, Skipped):
                out.print(f"{event.planned.name}: there already, {event.folder}")
            elif isinstance(event, Started):
                shared = f", teacher of {event.teacher_run}" if event.teacher_run else ""
                out.print(f"[b]{event.planned.name}[/b] ({event.number} of {event.total}): {event.folder}{shared}")
                display.restart()
    out.print(f"the table: [b]kd-edge study report {name}" + (f" --out {folder}[/b]" if folder else "[/b]"))


@app.command("report", epilog="Example:  kd-edge study report mgcam_table1 --into docs/RESULTS.md --place table1")
def study_report(
    name: NameArgument,
    seeds: SeedsOption = None,
    settings: SetOption = None,
    folder: FolderOption = None,
    page: PageOption = None,
    place: Annotated[str | None, typer.Option("--place", help="Name of the marked place; default the study's.")] = None,
    json_: JsonOption = False,
) -> None:
    """Print a study's table: published figure, mean and spread over the seeds, every seed; rows not run say so."""
    from kd_edge.study.plan import load_study
    from kd_edge.study.report import report, report_markdown

    study = load_study(name)
    lines = report(study, folder or _folder(name), seeds=_numbers(seeds), overrides=settings or ())
    if json_:
        print_json(lines)
        return
    _write(report_markdown(study, lines), page, place or Path(name).stem, len(lines))


@app.command("table")
def study_table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    page: PageOption = None,
    place: Annotated[str, typer.Option("--place", help="Name of the marked place: <!-- NAME -->.")] = "runs",
    json_: JsonOption = False,
) -> None:
    """Write the test results of finished runs as one table.

    Example: kd-edge study table runs/teacher-and-student runs/alone --into docs/RESULTS.md --place utd-mhad
    """
    from kd_edge.study.table import markdown
    from kd_edge.study.table import rows as read_rows

    found = read_rows(runs)
    if json_:
        print_json(found)
        return
    _write(markdown(found), page, place, len(found))


def _write(text: str, page: Path | None, place: str, rows: int) -> None:
    """To standard output, or between a page's markers."""
    from kd_edge.study.table import write_between_markers

    if page is None:
        sys.stdout.write(text)
        return
    write_between_markers(text, page, place)
    out.print(f"{rows} rows in {page}")


def _rehearse(runs: Sequence[Planned], data: Path | None) -> None:
    """One step of every recipe; the first row that cannot start ends it."""
    from kd_edge.comparators import check_comparator
    from kd_edge.train.recipe import Recipe
    from kd_edge.train.rehearsal import rehearse

    for planned in runs:
        if not isinstance(planned.config, Recipe):
            counts = check_comparator(planned.config, data)
            out.print(f"{planned.name}: {planned.config.kind}, {counts[0]} training, {counts[1]} test clips")
            continue
        with show.Training(err) as display:
            result = rehearse(planned.config, data, progress=display.decoding)
        terms = " ".join(f"{key} {value:.3g}" for key, value in result.losses.items())
        out.print(f"{planned.name}: {terms}; {result.steps_per_epoch} steps an epoch, {result.seconds:.1f} s each")


def _folder(name: str) -> Path:
    return Path("runs") / "studies" / Path(name).stem


def _names(text: str | None) -> list[str]:
    return [] if text is None else [part.strip() for part in text.split(",")]


def _numbers(text: str | None) -> list[int]:
    parts = _names(text)
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"--seeds {text}", "numbers with commas between, for example 0,1,2", "correct it")
    return [int(part) for part in parts]

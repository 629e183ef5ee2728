"""The verb study: run, report and draw whole tables of experiments."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kd_edge import recipes
from kd_edge.cli.console import DataOption, JsonOption, SetOption, counted, err, out, print_json, print_text
from kd_edge.cli.progress import TrainingDisplay
from kd_edge.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kd_edge.study.plan import Planned, RowConfig, StudyConfig

app = typer.Typer(
    no_args_is_help=True, help="Run tables of experiments, and print the results next to the published ones."
)

NameArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Name (see kd-edge study list) or path.")]
RowsOption = Annotated[
    str | None, typer.Option("--rows", metavar="A,B", help="Only these rows; kd-edge study show STUDY lists them.")
]
SplitsOption = Annotated[str | None, typer.Option("--splits", metavar="A,B", help="Only these protocols.")]
SeedsOption = Annotated[
    str | None, typer.Option("--seeds", metavar="0,1", help="Seeds to use instead of those of the study and its rows.")
]
FolderOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the runs; default runs/studies/STUDY.")
]
LedgerOption = Annotated[
    Path | None, typer.Option("--ledger", metavar="FILE", help="Ledger of results; default docs/results/STUDY.jsonl.")
]
PageOption = Annotated[
    Path | None,
    typer.Option("--into", metavar="FILE", help="Markdown page in which to replace the text between the markers."),
]


@app.command("list")
def study_list(json_: JsonOption = False) -> None:
    """List all studies; your own override bundled ones of the same name."""
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
    """Show a study's rows, or the complete recipe of one row, ready for kd-edge train."""
    from kd_edge.study.plan import load_study, plan

    study = load_study(name)
    if row is not None:
        print_text(recipes.to_toml(plan(study, rows=[row])[0].config))
        return
    out.print(overview(study, plan(study)))


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
        bool, typer.Option("--dry-run", help="Run one step of every row on a few clips; write nothing.")
    ] = False,
) -> None:
    """Train every row that is not finished; resumes interrupted trainings, and trains a shared teacher only once."""
    from kd_edge.study.plan import load_study, plan

    runs = plan(
        load_study(name),
        rows=names_of(rows),
        splits=names_of(splits),
        seeds=numbers_of(seeds),
        overrides=settings or (),
    )
    if dry_run:
        _rehearse(runs, data)
        return
    from kd_edge.study.runner import Held, Skipped, Started, run_study

    place = folder or runs_folder(name)
    display = TrainingDisplay(err)
    try:
        with display, closing(run_study(runs, place, data_root=data, progress=display.decoding)) as events:
            for event in display.watch(events):
                if isinstance(event, Skipped):
                    out.print(f"{event.planned.name}: already finished, {event.folder}")
                elif isinstance(event, Held):
                    out.print(f"{event.planned.name}: being trained by another process, {event.folder}")
                elif isinstance(event, Started):
                    out.print(f"[b]{event.planned.name}[/b] ({event.number} of {event.total}): {event.folder}")
                    if event.apart_from:
                        out.print(escape(event.apart_from), soft_wrap=True)
                    display.restart()
    except KeyboardInterrupt:
        err.print("interrupted; repeat the command to resume")
        raise
    out.print(f"the table: [b]kd-edge study report {name}" + (f" --out {folder}[/b]" if folder else "[/b]"))


@app.command("ledger", epilog="Example:  kd-edge study ledger utd_mhad_dense --seeds 0,1,2,3,4")
def study_ledger(
    name: NameArgument,
    seeds: SeedsOption = None,
    settings: SetOption = None,
    folder: FolderOption = None,
    ledger: LedgerOption = None,
    json_: JsonOption = False,
) -> None:
    """Save the results of a study's finished runs, one line each, in a file that can be committed and merged."""
    from kd_edge.rundir import read_summary
    from kd_edge.study.ledger import add, entry, ledger_of
    from kd_edge.study.plan import load_study, plan
    from kd_edge.study.runner import finished_run, finished_runs

    place = folder or runs_folder(name)
    runs = plan(load_study(name), seeds=numbers_of(seeds), overrides=settings or ())
    here = finished_runs(place)
    found = [(run, finished_run(run, place, among=here)) for run in runs]
    entries = [entry(run, read_summary(where, DataError)) for run, where in found if where is not None]
    path = ledger or ledger_of(name)
    added = add(path, entries)
    if json_:
        print_json({"ledger": path, "added": added, "finished": len(entries), "planned": len(runs)})
        return
    out.print(f"{added} runs added to {path}; {len(entries)} of {len(runs)} are finished here")


@app.command(
    "report",
    epilog="Examples:  kd-edge study report mgcam_table1 --into docs/RESULTS.md --place table1  |  kd-edge study "
    "report utd_mhad_methods --against alone",
)
def study_report(
    name: NameArgument,
    rows: RowsOption = None,
    seeds: SeedsOption = None,
    settings: SetOption = None,
    folder: FolderOption = None,
    page: PageOption = None,
    place: Annotated[str | None, typer.Option("--place", help="Name of the markers; default the study's name.")] = None,
    ledger: LedgerOption = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ROW", help="Also show each row's gain over this one, clip by clip."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Print a study's table: published result, mean and spread over the seeds, every seed; rows not run are marked.

    Runs whose folders are not here are taken from the ledger, if it has them.
    """
    from kd_edge.study.ledger import ledger_of, read_ledger
    from kd_edge.study.plan import load_study
    from kd_edge.study.report import not_counted, report, report_markdown

    study = load_study(name)
    if ledger is not None and not ledger.is_file():
        raise DataError(f"no ledger {ledger}", "a file that kd-edge study ledger wrote", "correct --ledger")
    kept = read_ledger(ledger or ledger_of(name))
    lines = report(
        study,
        folder or runs_folder(name),
        seeds=numbers_of(seeds),
        overrides=settings or (),
        ledger=kept,
        against=against,
        rows=names_of(rows),
    )
    left = not_counted(
        study, folder or runs_folder(name), [line.name for line in lines], numbers_of(seeds), settings or (), kept
    )
    if left:
        note = f"{counted(len(left), 'run')} with other settings than requested not counted, first {left[0]}"
        err.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
    nothing = not any(cell.values for line in lines for cell in line.cells.values())
    asked = "".join([f" --seeds {seeds}" if seeds else "", *(f" --set {each}" for each in settings or ())])
    where = f"{folder or runs_folder(name)}, and no figures of it in {ledger or ledger_of(name)}"
    missing = f"no finished run of {name}{asked} in {where}"
    if nothing and page is not None:  # never replace existing results with an empty table
        raise DataError(missing, f"figures for {page}", f"run it first: kd-edge study run {name}{asked}")
    if json_:
        print_json(lines)
    else:
        write_table(report_markdown(study, lines), page, place or Path(name).stem, len(lines))
    if nothing:
        err.print(f"[yellow]note:[/yellow] nothing has run: {escape(missing)}", soft_wrap=True)


@app.command("table")
def study_table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    page: PageOption = None,
    place: Annotated[str, typer.Option("--place", help="Name of the markers: <!-- NAME -->.")] = "runs",
    json_: JsonOption = False,
) -> None:
    """Write the test results of finished runs as one table.

    Example: kd-edge study table runs/teacher-and-student runs/alone --into
    docs/RESULTS.md --place utd-mhad
    """
    from kd_edge.study.table import markdown
    from kd_edge.study.table import rows as read_rows

    found = read_rows(runs)
    if json_:
        print_json(found)
        return
    write_table(markdown(found), page, place, len(found))


def write_table(text: str, page: Path | None, place: str, rows: int) -> None:
    """Write a table to standard output, or between a page's markers."""
    from kd_edge.study.table import write_between_markers

    if page is None:
        print_text(text)
        return
    write_between_markers(text, page, place)
    out.print(f"{counted(rows, 'row')} in {page}")


def _rehearse(runs: Sequence[Planned], data: Path | None) -> None:
    """Run one step of every recipe; stops at the first row that cannot start."""
    from kd_edge.study.classical import check_comparator
    from kd_edge.train.recipe import Recipe
    from kd_edge.train.rehearsal import rehearse

    for planned in runs:
        if not isinstance(planned.config, Recipe):
            counts = check_comparator(planned.config, data)
            out.print(f"{planned.name}: {planned.config.kind}, {counts[0]} training, {counts[1]} test clips")
            continue
        with TrainingDisplay(err) as display:
            result = rehearse(planned.config, data, progress=display.decoding)
        terms = " ".join(f"{key} {value:.3g}" for key, value in result.losses.items())
        out.print(f"{planned.name}: {terms}; {result.steps_per_epoch} steps an epoch, {result.seconds:.1f} s each")


def runs_folder(name: str) -> Path:
    """Default folder of a study's runs."""
    return Path("runs") / "studies" / Path(name).stem


def names_of(text: str | None) -> list[str]:
    """Split comma-separated names; an empty list for None."""
    return [] if text is None else [part.strip() for part in text.split(",")]


def numbers_of(text: str | None) -> list[int]:
    """Parse comma-separated seeds; an empty list for None."""
    parts = names_of(text)
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"--seeds {text}", "comma-separated numbers, for example 0,1,2", "correct it")
    return [int(part) for part in parts]


def overview(config: StudyConfig, runs: Sequence[Planned]) -> Table:
    """Rows of a study and what each of them trains."""
    published = (f"{split}: published" for split in config.splits)
    table = Table("row", "title", "what", "seeds", *published, title=config.title)
    for row in config.rows:
        seeds = ", ".join(str(seed) for seed in row.seeds or config.seeds) if row.runs else ""
        figures = (config.as_published(row.published.get(split), split) for split in config.splits)
        table.add_row(row.name, row.title, _what(row, runs), seeds, *figures)
    return table


def _what(row: RowConfig, runs: Sequence[Planned]) -> str:
    """What a row trains, or why it trains nothing."""
    from kd_edge.train.recipe import Recipe

    if row.needs:
        return f"not run: needs {row.needs}"
    if row.of is not None:
        return f"read of {row.of}: {row.network}"
    config = next(run.config for run in runs if run.row is row)
    if not isinstance(config, Recipe):
        return config.kind
    names = {"labels": " + ".join(["CE", *(loss.kind for loss in config.losses)])}
    return ", ".join(names.get(stage.kind, stage.kind) for stage in config.stages)

"""The verbs study robustness and study shipped: measure models one by one and keep the results in a ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kd_edge.cli.console import DataOption, JsonOption, err, print_json
from kd_edge.cli.progress import progress_bar
from kd_edge.cli.study import PageOption, names_of, write_table
from kd_edge.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

app = typer.Typer()


@app.command(
    "robustness",
    epilog="Example:  kd-edge study robustness alone=runs/alone distilled=runs/best --against alone --data DIR",
)
def study_robustness(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ROW=RUN|ARTIFACT]...", help="Models to measure; several runs of one row are averaged."
        ),
    ] = None,
    data: DataOption = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Protocol; default the one the model was trained under."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", metavar="FILE", help="Ledger; default docs/results/robustness.jsonl.")
    ] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="A,B", help="Only these rows, in this order.")] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ROW", help="Also show each row's gain over this one, clip by clip."),
    ] = None,
    page: PageOption = None,
    place: Annotated[str, typer.Option("--place", help="Name of the markers: <!-- NAME -->.")] = "robustness",
    json_: JsonOption = False,
) -> None:
    """Measure accuracy as images degrade: dots, fall-off, saturation, gain step, blur, noise; three severities each.

    Models in the ledger are not measured again; a killed measurement is
    resumed. The table shows the models given, or all of the ledger; of
    several with the same name and settings, the latest counts.
    """
    from kd_edge.evaluate.robustness import corrupted_test
    from kd_edge.study.ledger import add, current, ledger_of, read_lines
    from kd_edge.study.robustness import NAME, RobustnessLine, measure, robustness_markdown

    path = ledger or ledger_of(NAME)
    given = [_row_and_run(model) for model in models or ()]
    known_rows = [line.row for line in read_lines(path, RobustnessLine)]
    to_come = _chosen_rows(path, [*known_rows, *(row for row, _ in given)], rows)
    if against not in (None, *to_come):
        raise ConfigError(
            f"--against {against}, which is not a row of the table", f"one of {', '.join(to_come)}", "correct it"
        )
    asked = set()
    for row, run in given:
        with progress_bar(err) as bar, corrupted_test(run, data_root=data, split=split) as test:
            task = bar.add_task(f"{row}: corrupted clips", total=None)
            asked.add((row, test.content))
            known = read_lines(path, RobustnessLine)
            for line in measure(row, test, known, _progress(bar, task)):
                add(path, [line], RobustnessLine)
    beside = names_of(rows) or [row for row in (against,) if row]
    kept = current(read_lines(path, RobustnessLine), asked, beside)
    _print_ledger(path, asked)
    chosen = _chosen_rows(path, [line.row for line in kept], rows)
    if json_:
        print_json([line for line in kept if line.row in chosen])
        return
    write_table(robustness_markdown(kept, chosen, against), page, place, len(chosen))


@app.command(
    "shipped",
    epilog="Example:  kd-edge study shipped best=fp32.onnx best=int8.onnx --data DIR --into docs/RESULTS.md",
)
def study_shipped(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ROW=ARTIFACT]...", help="Artifacts to score, for example one row in several precisions."
        ),
    ] = None,
    data: DataOption = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", metavar="FILE", help="Ledger; default docs/results/shipped.jsonl.")
    ] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="A,B", help="Only these rows, in this order.")] = None,
    page: PageOption = None,
    place: Annotated[str, typer.Option("--place", help="Name of the markers: <!-- NAME -->.")] = "shipped",
    json_: JsonOption = False,
) -> None:
    """Score artifacts on all test clips: clip by clip and as the stream a robot sees, with size and time per frame.

    Artifacts in the ledger are not measured again. The table shows the
    artifacts given, or all of the ledger; of several with the same name and
    precision, the latest counts.
    """
    from kd_edge.artifact import load
    from kd_edge.evaluate import evaluate
    from kd_edge.study.ledger import add, current, ledger_of, read_lines
    from kd_edge.study.shipped import NAME, ShippedLine, shipped, shipped_markdown

    path = ledger or ledger_of(NAME)
    asked = set()
    for row, file in [_row_and_run(text) for text in artifacts or ()]:
        artifact = load(file)
        asked.add((row, artifact.manifest.manifest_sha256))
        if any(line.is_of(row, artifact.manifest) for line in read_lines(path, ShippedLine)):
            continue
        with progress_bar(err) as bar:
            task = bar.add_task(f"{row}, {artifact.manifest.precision}: test clips", total=None)
            evaluation = evaluate(file, data_root=data, streaming=True, progress=_progress(bar, task))
        add(path, [shipped(row, artifact, evaluation)], ShippedLine)
    kept = current(read_lines(path, ShippedLine), asked, names_of(rows))
    _print_ledger(path, asked)
    chosen = _chosen_rows(path, [line.row for line in kept], rows)
    if json_:
        print_json([line for line in kept if line.row in chosen])
        return
    write_table(shipped_markdown(kept, chosen), page, place, len(chosen))


def _print_ledger(path: Path, asked: set[tuple[str, str]]) -> None:
    """Print where the results were saved."""
    if asked:
        err.print(f"results saved in {escape(str(path))}", soft_wrap=True)


def _chosen_rows(path: Path, known: Sequence[str], wanted: str | None) -> list[str]:
    """The wanted rows of a ledger, or all, in order."""
    if not known:
        raise DataError(f"no figures in {path}", "something to measure", "name it: ROW=RUN --data DIR")
    rows = names_of(wanted) or list(dict.fromkeys(known))
    if unknown := [row for row in rows if row not in known]:
        raise ConfigError(
            f"no row '{unknown[0]}' in {path}", f"some of {', '.join(sorted(set(known)))}", "correct --rows"
        )
    return rows


def _progress(bar: Progress, task: TaskID) -> Callable[[int, int], None]:
    """Callback that updates a progress bar with (done, total)."""
    return lambda done, total: bar.update(task, completed=done, total=total)


def _row_and_run(text: str) -> tuple[str, Path]:
    """Parse ``ROW=RUN``."""
    row, _, run = text.partition("=")
    if not re.fullmatch("[a-z0-9][a-z0-9_]*", row) or not run:
        raise ConfigError(
            f"'{text}'",
            "ROW=RUN or ROW=ARTIFACT, a row's name in small letters, digits and _",
            "for example alone=runs/a",
        )
    return row, Path(run)

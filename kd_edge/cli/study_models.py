"""The verbs study robustness and study shipped: models measured one by one, their figures kept in a ledger."""

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
        typer.Argument(metavar="[ROW=RUN|ARTIFACT]...", help="What to measure; a row of several runs is averaged."),
    ] = None,
    data: DataOption = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Protocol; default the one it was trained under.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", metavar="FILE", help="Ledger; default docs/results/robustness.jsonl.")
    ] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="A,B", help="Only these rows, in this order.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="ROW", help="Also each row's gain over this one, clip by clip.")
    ] = None,
    page: PageOption = None,
    place: Annotated[str, typer.Option("--place", help="Name of the marked place: <!-- NAME -->.")] = "robustness",
    json_: JsonOption = False,
) -> None:
    """Accuracy when the camera gets worse: dots, fall-off, saturation, gain step, blur, noise, three severities each.

    What the ledger has is not measured again; a measurement that was killed goes on where it was. The table has the
    models named here, else all of the ledger: of two with the same name and settings the one measured last.
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
            f"--against {against}, which is no row of the table", f"one of {', '.join(to_come)}", "correct it"
        )
    asked = set()
    for row, run in given:
        with progress_bar(err) as bar, corrupted_test(run, data_root=data, split=split) as test:
            task = bar.add_task(f"{row}: corrupted clips", total=None)
            asked.add((row, test.content))
            known = read_lines(path, RobustnessLine)
            for line in measure(row, test, known, _shown_by(bar, task)):
                add(path, [line], RobustnessLine)
    beside = names_of(rows) or [row for row in (against,) if row]
    kept = current(read_lines(path, RobustnessLine), asked, beside)
    _tell_ledger(path, asked)
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
        typer.Argument(metavar="[ROW=ARTIFACT]...", help="What to judge; one row in several precisions, for example."),
    ] = None,
    data: DataOption = None,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", metavar="FILE", help="Ledger; default docs/results/shipped.jsonl.")
    ] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="A,B", help="Only these rows, in this order.")] = None,
    page: PageOption = None,
    place: Annotated[str, typer.Option("--place", help="Name of the marked place: <!-- NAME -->.")] = "shipped",
    json_: JsonOption = False,
) -> None:
    """Artifacts on all test clips: clip by clip, as the stream a robot sees, their size, and what a frame takes.

    What the ledger has is not measured again. The table has the artifacts named here, else all of the ledger: of two
    with the same name and precision the one measured last.
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
            told = _shown_by(bar, bar.add_task(f"{row}, {artifact.manifest.precision}: test clips", total=None))
            judged = evaluate(file, data_root=data, streaming=True, progress=told)
        add(path, [shipped(row, artifact, judged)], ShippedLine)
    kept = current(read_lines(path, ShippedLine), asked, names_of(rows))
    _tell_ledger(path, asked)
    chosen = _chosen_rows(path, [line.row for line in kept], rows)
    if json_:
        print_json([line for line in kept if line.row in chosen])
        return
    write_table(shipped_markdown(kept, chosen), page, place, len(chosen))


def _tell_ledger(path: Path, asked: set[tuple[str, str]]) -> None:
    """Say where figures were kept."""
    if asked:
        err.print(f"figures kept in {escape(str(path))}", soft_wrap=True)


def _chosen_rows(path: Path, known: Sequence[str], wanted: str | None) -> list[str]:
    """Rows of a ledger, in their order."""
    if not known:
        raise DataError(f"no figures in {path}", "something to measure", "name it: ROW=RUN --data DIR")
    rows = names_of(wanted) or list(dict.fromkeys(known))
    if unknown := [row for row in rows if row not in known]:
        raise ConfigError(
            f"no row '{unknown[0]}' in {path}", f"some of {', '.join(sorted(set(known)))}", "correct --rows"
        )
    return rows


def _shown_by(bar: Progress, task: TaskID) -> Callable[[int, int], None]:
    """Tells a bar (done, in all)."""
    return lambda done, total: bar.update(task, completed=done, total=total)


def _row_and_run(text: str) -> tuple[str, Path]:
    """``ROW=RUN``."""
    row, _, run = text.partition("=")
    if not re.fullmatch("[a-z0-9][a-z0-9_]*", row) or not run:
        raise ConfigError(
            f"'{text}'",
            "ROW=RUN or ROW=ARTIFACT, a row's name in small letters, digits and _",
            "for example alone=runs/a",
        )
    return row, Path(run)

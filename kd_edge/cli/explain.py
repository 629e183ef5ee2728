"""The verb explain: visualise what a run's student attends to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kd_edge.cli.console import DataOption, JsonOption, err, out, print_json
from kd_edge.cli.progress import progress_bar

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.pictures.explain import Explained

app = typer.Typer()


@app.command(
    epilog="Examples:  kd-edge explain runs/mine --sample a1_s2_t1 --data ~/data/utd-mhad  |  kd-edge explain "
    "runs/mine --wrong 3  |  kd-edge explain runs/mine --sample a1_s2_t1 --layer backbone.layer3 --out pictures"
)
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    samples: Annotated[
        list[str] | None, typer.Option("--sample", metavar="ID", help="Sample of the run's data set. Repeatable.")
    ] = None,
    wrong: Annotated[
        int, typer.Option("--wrong", min=0, metavar="N", help="Explain the first N misclassified test clips.")
    ] = 0,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the pictures; default RUN/explain/ID.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="PATH", help="Layer whose maps are drawn; default the last stage.")
    ] = None,
    data: DataOption = None,
    json_: JsonOption = False,
) -> None:
    """Draw what a run's student attends to: activation and discriminative maps, sensor images, training curves."""
    from kd_edge.pictures.explain import explain as explain_run

    explained = []
    with progress_bar(err) as bar:
        task = bar.add_task("looking for mistakes", total=None, visible=wrong > 0)
        found = explain_run(
            run,
            samples or (),
            wrong=wrong,
            out=folder,
            layer=layer,
            data_root=data,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        for one in found:
            explained.append(one)
            if not json_:
                out.print(_explained(one))
    if json_:
        print_json(explained)
        return
    mistakes = sum(one.side == "test clip" and one.predicted != one.true for one in explained)
    if mistakes < wrong:
        out.print(f"{mistakes} in all: no more test clips are taken for another class")


def _explained(one: Explained) -> str:
    """A sample, its prediction, the folder of its pictures, and the pictures that were skipped."""
    answer = f"{escape(one.predicted)} {one.probability:.0%}"
    if one.predicted != one.true:
        answer += f", truly {escape(one.true)} {one.true_probability:.0%}"
    lines = [f"{escape(one.sample)} ({one.side}): {answer}"]
    lines.append(f"  {', '.join(one.pictures)} in {escape(str(one.folder))}")
    lines += [f"  no {name}: {escape(why)}" for name, why in one.skipped.items()]
    return "\n".join(lines)

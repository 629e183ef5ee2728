"""The verbs study confusion and study sensitivity: plots of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kd_edge.cli.console import JsonOption, SetOption, out, print_json
from kd_edge.cli.data import check_png
from kd_edge.cli.study import SeedsOption, numbers_of, runs_folder
from kd_edge.errors import DataError

if TYPE_CHECKING:
    from kd_edge.pictures.confusion import ConfusedPair

app = typer.Typer()


@app.command(
    "confusion", epilog="Example:  kd-edge study confusion runs/distilled --against runs/alone --out confusion.png"
)
def study_confusion(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    picture: Annotated[Path, typer.Option("--out", metavar="FILE", help="PNG file to write.")],
    stage: Annotated[str, typer.Option("--stage", help="Network: student or teacher.")] = "student",
    against: Annotated[
        Path | None, typer.Option("--against", metavar="RUN", help="Another run; also draw the change from it.")
    ] = None,
    most: Annotated[int, typer.Option("--pairs", min=1, help="Number of most confused pairs to print.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Draw a run's confusion matrix in percent and name the most confused pairs of classes."""
    from kd_edge.pictures.confusion import confused_pairs, confusion_of, draw_confusion
    from kd_edge.rundir import read_summary

    check_png(picture)
    drawn = confusion_of(read_summary(run, DataError), stage, run)
    other = None if against is None else confusion_of(read_summary(against, DataError), stage, against)
    pairs = confused_pairs(drawn, other, most)
    draw_confusion(drawn, picture, other)
    if json_:
        print_json(pairs)
    else:
        out.print(confused_report(pairs))
        out.print(f"confusion in {picture}")


@app.command(
    "sensitivity",
    epilog="Examples:  kd-edge study sensitivity sakdn_table9_mmact --published --out weights.png  |  kd-edge "
    "study sensitivity sakdn_table9_mmact --x semantic --y gsdm --colour soft_target --polar --out settings.png",
)
def study_sensitivity(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="Name (see kd-edge study list) or path.")],
    picture: Annotated[Path, typer.Option("--out", metavar="FILE", help="PNG file to write.")],
    x: Annotated[
        str, typer.Option("--x", metavar="KEY", help="First axis: a loss (its weight), LOSS.OPTION, or a recipe key.")
    ] = "soft_target",
    y: Annotated[str, typer.Option("--y", metavar="KEY", help="Second axis.")] = "gsdm",
    colour: Annotated[str, typer.Option("--colour", metavar="KEY", help="Drawn as colour.")] = "semantic",
    published: Annotated[bool, typer.Option("--published", help="Also draw the published results.")] = False,
    polar: Annotated[
        bool, typer.Option("--polar", help="First key as angle, second as radius, as in the paper.")
    ] = False,
    runs: Annotated[
        Path | None, typer.Option("--runs", metavar="DIR", help="Folder of the runs; default runs/studies/STUDY.")
    ] = None,
    seeds: SeedsOption = None,
    settings: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Draw how a study's result depends on three settings of its rows: two axes, colour, and size for the result."""
    from kd_edge.pictures.sensitivity import draw_sensitivity
    from kd_edge.study.plan import load_study
    from kd_edge.study.sensitivity import settings as read_settings
    from kd_edge.study.sensitivity import title

    check_png(picture)
    study, keys = load_study(name), (x, y, colour)
    place = runs or runs_folder(name)
    panels = read_settings(study, place, keys, published=published, seeds=numbers_of(seeds), overrides=settings or ())
    draw_sensitivity(
        panels, (title(x), title(y), title(colour)), f"{study.metric}, %", study.title, picture, polar=polar
    )
    if json_:
        print_json(panels)
    else:
        out.print(f"{sum(map(len, panels.values()))} points in {picture}")


def confused_report(pairs: Sequence[ConfusedPair]) -> str:
    """One line per confused pair, with its share and number of clips."""
    if not pairs:
        return "no clip was taken for another class"
    return "\n".join(
        f"{escape(p.true)} taken for {escape(p.predicted)}  {p.share:.0%} ({p.clips} clips)"
        + ("" if p.change is None else f", {100 * p.change:+.0f} points")
        for p in pairs
    )

"""Verbs that draw: class examples of a data set, confusion of a run."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Any

import typer

from kd_edge import recipes
from kd_edge.cli import show, show_scores
from kd_edge.cli.console import DataOption, JsonOption, err, out, print_json
from kd_edge.errors import ConfigError, did_you_mean


def add_to(data_app: typer.Typer, study_app: typer.Typer) -> None:
    """Make them verbs of their groups."""
    data_app.command(
        "examples",
        epilog="Examples:  kd-edge data examples synthetic --out classes.png  |  "
        "kd-edge data examples utd_mhad --classes 'wave,sit to stand' --modalities depth,pose --out classes.png",
    )(examples)
    study_app.command(
        "confusion",
        epilog="Example:  kd-edge study confusion runs/distilled --against runs/alone --out confusion.png",
    )(confusion)


def examples(
    source: Annotated[str, typer.Argument(metavar="KIND|RECIPE", help="A kind of data set, or a recipe's.")],
    picture: Annotated[Path, typer.Option("--out", metavar="FILE", help="The PNG to write.")],
    data: DataOption = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B", help="Names, with commas between; default the first 10.")
    ] = None,
    modalities: Annotated[
        str | None, typer.Option("--modalities", metavar="A,B", help="Default all that are made of images.")
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=1, max=64, help="Frames per clip.")] = 6,
) -> None:
    """Draw what the classes look like: a row of frames per class and camera."""
    from kd_edge.data import open_dataset
    from kd_edge.pictures.examples import class_examples, draw_examples

    _check_png(picture)
    dataset = open_dataset(_data_config(source), data)
    with show.progress(err) as bar:
        task = bar.add_task("classes", total=None)
        found = class_examples(
            dataset,
            classes=_split(classes, dataset.labels),
            modalities=None if modalities is None else [name.strip() for name in modalities.split(",")],
            frames=frames,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    draw_examples(found, f"{dataset.name}: {frames} evenly spaced frames of one clip", picture)
    out.print(f"{len(found)} rows in {picture}")


def confusion(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    picture: Annotated[Path, typer.Option("--out", metavar="FILE", help="The PNG to write.")],
    stage: Annotated[str, typer.Option("--stage", help="student or teacher.")] = "student",
    against: Annotated[
        Path | None, typer.Option("--against", metavar="RUN", help="Another run; what changed is drawn beside it.")
    ] = None,
    most: Annotated[int, typer.Option("--pairs", min=1, help="So many most confused pairs are printed.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Draw a run's confusion matrix in percent and name the most confused pairs of classes."""
    from kd_edge.pictures.confusion import confused_pairs, confusion_of, draw_confusion
    from kd_edge.study.table import read_summary

    _check_png(picture)
    drawn = confusion_of(read_summary(run), stage, run)
    other = None if against is None else confusion_of(read_summary(against), stage, against)
    pairs = confused_pairs(drawn, other, most)
    draw_confusion(drawn, picture, other)
    if json_:
        print_json(pairs)
    else:
        out.print(show_scores.confused(pairs))
        out.print(f"confusion in {picture}")


def _check_png(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}", "a file name ending in .png", f"--out {path.with_suffix('.png')}")


def _split(names: str | None, labels: tuple[str, ...]) -> list[str] | None:
    """Names between commas; a class whose own name has a comma is found as a whole."""
    if names is None:
        return None
    return [names] if names in labels else [name.strip() for name in names.split(",")]


def _data_config(source: str) -> Any:
    """The settings of a kind of data set as they are by default, or of a recipe."""
    from pydantic import BaseModel

    from kd_edge.data import DataConfig

    class Wanted(BaseModel):
        data: DataConfig

    kinds = [str(model.model_fields["kind"].default) for model in typing.get_args(typing.get_args(DataConfig)[0])]
    if source in kinds:
        return recipes.validate({"data": {"kind": source}}, Wanted, "data set").data
    known = recipes.names("train")
    if source not in known and not source.endswith(".toml"):
        raise ConfigError(
            f"no data set or recipe '{source}'{did_you_mean(source, [*kinds, *known])}",
            f"one of {', '.join(kinds)}, or a recipe",
            "kd-edge recipes list shows the recipes; a path ending in .toml works too",
        )
    from kd_edge.train.recipe import Recipe

    return recipes.load("train", source, Recipe).data

"""Verbs about files: recipes, data, study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kd_edge import recipes
from kd_edge.cli import show
from kd_edge.cli.console import DataOption, JsonOption, SetOption, err, out, print_json
from kd_edge.errors import ConfigError

recipes_app = typer.Typer(no_args_is_help=True, help="List, show and copy the recipes that [b]train[/b] reads.")
data_app = typer.Typer(no_args_is_help=True, help="Look after recordings: check, prepare, generate.")
study_app = typer.Typer(no_args_is_help=True, help="Tables from run directories.")


@data_app.command("check", epilog="Example:  kd-edge data check utd_mhad --data ~/data/utd-mhad")
def data_check(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="utd_mhad or synthetic.")],
    data: DataOption = None,
    modalities: Annotated[
        list[str] | None, typer.Option("--modality", help="Repeatable; default all of the data set.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Read every recording: what is complete, missing or damaged. Exit code 1 when something cannot be used."""
    from kd_edge.data import open_dataset
    from kd_edge.data.check import check

    dataset = open_dataset(_data_config(kind), data)
    with show.progress(err) as bar:
        task = bar.add_task("reading", total=None)
        report = check(dataset, modalities, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if json_:
        print_json(report)
    else:
        out.print(show.data_report(report))
    if not report.faultless:
        raise typer.Exit(1)


@data_app.command("prepare", epilog="Example:  kd-edge data prepare utd_mhad_pose_to_depth --data ~/data/utd-mhad")
def data_prepare(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE")],
    data: DataOption = None,
    settings: SetOption = None,
) -> None:
    """Decode a recipe's recordings into the frame cache, so that training starts at once."""
    from kd_edge.train.material import gather_material
    from kd_edge.train.recipe import Recipe

    config = recipes.load("train", recipe, Recipe, settings or ())
    with show.Training(err) as display:
        material = gather_material(config, data, display.decoding)
    out.print(show.material(material))


@data_app.command("synth", epilog="Example:  kd-edge data synth --out figures --clips-per-class 2")
def data_synth(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="New or empty folder.")],
    clips: Annotated[int, typer.Option("--clips-per-class", min=1)] = 2,
    subjects: Annotated[int, typer.Option("--subjects", min=2)] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
) -> None:
    """Write clips of the generated figure as files to look at or replay: RGB video, infrared .npy, labels.csv."""
    from kd_edge.data.check import write_synthetic
    from kd_edge.data.synthetic import Synthetic

    dataset = Synthetic(clips_per_class=clips, subjects=subjects, seed=seed)
    with show.progress(err) as bar:
        task = bar.add_task("drawing", total=None)
        files = write_synthetic(
            folder, dataset, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    example = next(file for file in files if file.suffix == ".npy")
    out.print(f"{len(dataset.samples)} clips in {folder}; replay one: kd-edge run --camera replay:{example}")


def _data_config(kind: str) -> Any:
    from pydantic import BaseModel

    from kd_edge.data import DataConfig

    class Wanted(BaseModel):
        data: DataConfig

    return recipes.validate({"data": {"kind": kind}}, Wanted, "data set").data


@recipes_app.command("list")
def recipes_list(json_: JsonOption = False) -> None:
    """List all recipes, your own first when names collide."""
    found = {name: recipes.find("train", name) for name in recipes.names("train")}
    if json_:
        print_json(found)
        return
    for name, path in found.items():
        comment = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        out.print(f"[b]{name}[/b]  {comment}")


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a recipe."""
    sys.stdout.write(recipes.find("train", name).read_text(encoding="utf-8"))


@recipes_app.command("copy")
def recipes_copy(name: str) -> None:
    """Copy a recipe to ./train/recipes, where you can edit it."""
    source = recipes.find("train", name)
    target = Path("train") / "recipes" / source.name
    if target.exists():
        raise ConfigError(f"{target} is already there", "no file of that name", "edit it, or rename it first")
    from kd_edge.files import replacing

    with replacing(target, ConfigError) as file:
        file.write(source.read_bytes())
    out.print(f"{target}  (train it with: kd-edge train {source.stem})")


@study_app.command("table")
def study_table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    page: Annotated[
        Path | None,
        typer.Option("--into", metavar="FILE", help="Markdown page whose marked place is replaced."),
    ] = None,
    place: Annotated[str, typer.Option("--place", help="Name of the marked place: <!-- NAME -->.")] = "runs",
    json_: JsonOption = False,
) -> None:
    """Write the test results of finished runs as one table.

    Example: kd-edge study table runs/teacher-and-student runs/alone --into docs/RESULTS.md --place utd-mhad
    """
    from kd_edge import study

    table = study.rows(runs)
    if json_:
        print_json(table)
    elif page is None:
        sys.stdout.write(study.markdown(table))
    else:
        study.write_between_markers(study.markdown(table), page, place)
        out.print(f"{len(table)} rows in {page}")

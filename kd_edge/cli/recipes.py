"""The verb recipes: list, show, copy, layers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from kd_edge import recipes
from kd_edge.cli.console import DataOption, JsonOption, SetOption, out, print_json, print_text
from kd_edge.errors import ConfigError, printable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.models.layers import Layer


app = typer.Typer(no_args_is_help=True, help="List, show and copy the recipes that [b]train[/b] reads.")


@app.command("list")
def recipes_list(json_: JsonOption = False) -> None:
    """List all recipes; your own override bundled ones of the same name."""
    found = {name: recipes.find("train", name) for name in recipes.names("train")}
    if json_:
        print_json(found)
        return
    for name, path in found.items():
        out.print(f"[b]{escape(printable(name))}[/b]  {escape(printable(_comment(path)))}")


def _comment(path: Path) -> str:
    """The first sentence of a recipe's first comment, or the error of an unreadable file."""
    try:
        lines = recipes.text_of(path).splitlines()
    except ConfigError as error:
        return str(error)
    comment = " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
    return re.split(r"(?<=\.) ", comment, maxsplit=1)[0].rstrip(".:")


@app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="Recipe name or path.")]) -> None:
    """Print a recipe."""
    print_text(recipes.text_of(recipes.find("train", name)))


@app.command("copy")
def recipes_copy(name: Annotated[str, typer.Argument(help="Recipe name or path.")]) -> None:
    """Copy a recipe to ./train/recipes, where you can edit it."""
    source = recipes.find("train", name)
    target = Path("train") / "recipes" / source.name
    if target.exists():
        raise ConfigError(f"{target} is already there", "no file of that name", "edit it, or rename it first")
    from kd_edge.files import replacing

    with replacing(target, ConfigError) as file:
        file.write(recipes.text_of(source).encode())
    out.print(f"{target}  (train it with: kd-edge train {source.stem})")


@app.command("layers", epilog="Example:  kd-edge recipes layers quickstart --teacher")
def recipes_layers(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe name or path.")],
    teacher: Annotated[
        bool, typer.Option("--teacher", help="List the teacher's layers instead of the student's.")
    ] = False,
    depth: Annotated[
        int, typer.Option("--depth", min=1, help="Deepest level shown; layers used by losses are always shown.")
    ] = 2,
    data: DataOption = None,
    settings: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """List a network's layers by module path, with their output shapes and the losses that use them.

    These paths are the values of student_layers and teacher_layers of a loss.
    Needs no recordings, unless the classes are known only from them.
    """
    from kd_edge.data.classes import class_names
    from kd_edge.train.recipe import Recipe

    recipe = recipes.load("train", name, Recipe, settings or ())
    from kd_edge.train.distil.listing import UNKNOWN_CLASSES, recipe_layers

    labels = class_names(recipe.data, data)
    who: Literal["student", "teacher"] = "teacher" if teacher else "student"
    every, taps = recipe_layers(recipe, who, UNKNOWN_CLASSES if labels is None else len(labels))
    stage = recipe.networks[who]
    shape = stage.clip_shape(recipe.first_segments)
    tapped = {path for paths in taps.values() for path in paths}
    found = [layer for layer in every if json_ or layer.path in tapped or layer.path.count(".") < depth]
    if json_:
        seen = {"inputs": stage.modalities, "clip_shape": shape, "classes": labels}
        print_json({"layers": found, "losses": taps, **seen})
        return
    inputs = f"{who} of {recipe.name}: {', '.join(stage.modalities)}, a clip is {shape}"
    if labels is None:
        known = f"classes unknown without the recordings: {UNKNOWN_CLASSES} assumed; add --data DIR"
    else:
        known = f"{len(labels)} classes of {recipe.data.kind}: {', '.join(labels)}"
    out.print(escape(printable(inputs)), escape(printable(known)), sep="\n")
    out.print(layer_table(found, taps))


def layer_table(found: Sequence[Layer], taps: Mapping[str, Sequence[str]]) -> Table:
    """Every layer of a model, with the losses that use it."""
    table = Table("layer", "kind", "output for one clip", "used by")
    for layer in found:
        users = ", ".join(name for name, paths in taps.items() if layer.path in paths)
        table.add_row(layer.path, layer.kind, "-" if layer.shape is None else str(layer.shape), users)
    return table

"""Verbs about files: recipes, data, study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kd_edge import recipes
from kd_edge.cli import show, show_training
from kd_edge.cli.console import DataOption, JsonOption, SetOption, err, out, print_json
from kd_edge.errors import ConfigError

if TYPE_CHECKING:
    from kd_edge.train.recipe import Recipe

recipes_app = typer.Typer(no_args_is_help=True, help="List, show and copy the recipes that [b]train[/b] reads.")
data_app = typer.Typer(no_args_is_help=True, help="Look after recordings: check, prepare, generate.")


@data_app.command(
    "check",
    epilog="Examples:  kd-edge data check utd_mhad --data ~/data/utd-mhad  |  kd-edge data check pku_rgb_to_ir --quick",
)
def data_check(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND|RECIPE",
            help="utd_mhad, ntu_rgbd, pku_mmd, berkeley_mhad, mmact or synthetic; or a recipe that uses it.",
        ),
    ],
    data: DataOption = None,
    modalities: Annotated[
        list[str] | None, typer.Option("--modality", help="Repeatable; default all of the data set.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read only the headers of videos: presence, size, number of frames.")
    ] = False,
    settings: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Read every recording: what is complete, missing or damaged. Exit code 1 when something cannot be used.

    Of a recipe only its own modalities are read, and it is told whether its training could start (exit code 1 if not).
    """
    from kd_edge.data import open_dataset
    from kd_edge.data.check import check

    recipe = _recipe(kind, settings)
    dataset = open_dataset(_data_config(kind) if recipe is None else recipe.data, data)
    wanted: dict[str, Any] = {}
    if recipe is not None:
        modalities = modalities or recipe.modalities
        held_out = {"validation_subjects": recipe.validation_subjects, "validation_trials": recipe.validation_trials}
        wanted = {"split": recipe.split, **held_out}
    with show.progress(err) as bar:
        task = bar.add_task("reading", total=None)
        report = check(
            dataset,
            modalities,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            quick=quick,
            **wanted,
        )
    if json_:
        print_json(report)
    else:
        out.print(show.data_report(report))
    if not (report.faultless and report.trainable):
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


@data_app.command("glove", epilog="Example:  kd-edge data glove sakdn_utd_mhad --from glove.840B.300d.txt")
def data_glove(
    name: Annotated[str, typer.Argument(metavar="RECIPE")],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="FILE", help="Word vectors as text (GloVe, word2vec, gzipped or not), or glove-6b-50d."
        ),
    ],
    target: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Text file to write; default the import folder.")
    ] = None,
    data: DataOption = None,
    settings: SetOption = None,
    json_: JsonOption = False,
) -> None:
    r"""Copy the vectors of a recipe's class names out of a big file, under the name its \[semantics] has for them.

    The default name is the recipe's. A source without the words that were imported before is refused. No network.
    """
    from kd_edge.data import open_dataset
    from kd_edge.data.semantics import SemanticsConfig, import_name, import_vectors
    from kd_edge.train.recipe import Recipe

    recipe = recipes.load("train", name, Recipe, settings or ())
    semantics = recipe.semantics or SemanticsConfig()
    with show.progress(err) as bar:
        task = bar.add_task("reading", total=None)
        found = import_vectors(
            source,
            import_name(semantics, recipe.name),
            open_dataset(recipe.data, data).labels,
            semantics,
            out=target,
            data_root=data,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_:
        print_json(found._asdict())
        return
    rows = [(label, " ".join(known), " ".join(found.unknown[label])) for label, known in found.known.items()]
    out.print(show.table(("class", "words", "unknown"), rows))
    out.print(f"{found.size} values each in {found.path}; in a recipe: semantics.vectors = '{found.name}'")


def _recipe(kind: str, settings: list[str] | None) -> Recipe | None:
    """The recipe of that name, unless it is a kind of data set."""
    if kind.endswith(".toml") or kind in recipes.names("train"):
        from kd_edge.train.recipe import Recipe

        return recipes.load("train", kind, Recipe, settings or ())
    if settings:
        raise ConfigError(
            f"--set with '{kind}', which is no recipe", "a recipe", "name a recipe that uses the data set"
        )
    return None


def _data_config(kind: str) -> Any:
    """A kind of data set with its default settings."""
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


@recipes_app.command("layers", epilog="Example:  kd-edge recipes layers quickstart --teacher")
def recipes_layers(
    name: Annotated[str, typer.Argument(metavar="RECIPE")],
    teacher: Annotated[bool, typer.Option("--teacher", help="The teacher's instead of the student's.")] = False,
    depth: Annotated[int, typer.Option("--depth", min=1, help="Deepest level shown; taps may lie deeper.")] = 2,
    settings: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """List a network's layers by module path, with their outputs' shapes and the losses that look at them.

    The paths are what student_layers and teacher_layers of a loss name. Needs no recordings.
    """
    from kd_edge.train.layers import recipe_layers
    from kd_edge.train.recipe import Recipe

    recipe = recipes.load("train", name, Recipe, settings or ())
    every, taps = recipe_layers(recipe, "teacher" if teacher else "student")
    tapped = {path for paths in taps.values() for path in paths}
    found = [layer for layer in every if json_ or layer.path in tapped or layer.path.count(".") < depth]
    if json_:
        print_json({"layers": found, "losses": taps})
    else:
        out.print(show_training.layers(found, taps))

"""Verbs that draw: class examples, what a run confuses and looks at, what a study depends on."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from kd_edge import recipes
from kd_edge.cli import show, show_scores
from kd_edge.cli.console import DataOption, JsonOption, SetOption, err, out, print_json
from kd_edge.cli.studies import SeedsOption
from kd_edge.errors import ConfigError, did_you_mean

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.pictures.explain import Explained

app = typer.Typer()


def add_to(data_app: typer.Typer, study_app: typer.Typer) -> None:
    """Make them verbs of their groups; ``explain`` has none."""
    data_app.command(
        "examples",
        epilog="Examples:  kd-edge data examples synthetic --out classes.png  |  "
        "kd-edge data examples utd_mhad --classes 'wave,sit to stand' --modalities depth,pose --out classes.png",
    )(examples)
    study_app.command(
        "confusion",
        epilog="Example:  kd-edge study confusion runs/distilled --against runs/alone --out confusion.png",
    )(confusion)
    study_app.command(
        "sensitivity",
        epilog="Examples:  kd-edge study sensitivity sakdn_table9_mmact --published --out weights.png  |  kd-edge "
        "study sensitivity sakdn_table9_mmact --x semantic --y gsdm --colour soft_target --polar --out settings.png",
    )(sensitivity)


@app.command(
    epilog="Examples:  kd-edge explain runs/mine --sample a1_s2_t1 --data ~/data/utd-mhad  |  kd-edge explain "
    "runs/mine --wrong 3  |  kd-edge explain runs/mine --sample a1_s2_t1 --layer backbone.layer3 --out pictures"
)
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    samples: Annotated[
        list[str] | None, typer.Option("--sample", metavar="ID", help="Sample of the run's data set; repeatable.")
    ] = None,
    wrong: Annotated[
        int, typer.Option("--wrong", min=0, metavar="N", help="The first N test clips it takes for another class.")
    ] = 0,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Of the pictures; default RUN/explain/ID.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="PATH", help="Whose maps are drawn; default the last stage.")
    ] = None,
    data: DataOption = None,
    json_: JsonOption = False,
) -> None:
    """Draw what a run's student looks at: activation maps, discriminative maps, sensors' images, training curves."""
    from kd_edge.pictures.explain import explain as explain_run

    explained = []
    with show.progress(err) as bar:
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


def sensitivity(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="Name or path; kd-edge study list.")],
    picture: Annotated[Path, typer.Option("--out", metavar="FILE", help="The PNG to write.")],
    x: Annotated[
        str, typer.Option("--x", metavar="KEY", help="First axis: a loss (its weight), LOSS.OPTION, or a recipe's key.")
    ] = "soft_target",
    y: Annotated[str, typer.Option("--y", metavar="KEY", help="Second axis.")] = "gsdm",
    colour: Annotated[str, typer.Option("--colour", metavar="KEY", help="Drawn as colour.")] = "semantic",
    published: Annotated[bool, typer.Option("--published", help="Also draw the published figures.")] = False,
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

    _check_png(picture)
    study, keys = load_study(name), (x, y, colour)
    place = runs or Path("runs") / "studies" / Path(name).stem
    panels = read_settings(study, place, keys, published=published, seeds=_seeds(seeds), overrides=settings or ())
    draw_sensitivity(
        panels, (title(x), title(y), title(colour)), f"{study.metric}, %", study.title, picture, polar=polar
    )
    if json_:
        print_json(panels)
    else:
        out.print(f"{sum(map(len, panels.values()))} points in {picture}")


def _explained(one: Explained) -> str:
    """A sample, the answer to it, the folder of its pictures, and what is not among them."""
    answer = f"{escape(one.predicted)} {one.probability:.0%}"
    if one.predicted != one.true:
        answer += f", truly {escape(one.true)} {one.true_probability:.0%}"
    lines = [f"{escape(one.sample)} ({one.side}): {answer}"]
    lines.append(f"  {', '.join(one.pictures)} in {escape(str(one.folder))}")
    lines += [f"  no {name}: {escape(why)}" for name, why in one.skipped.items()]
    return "\n".join(lines)


def _check_png(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}", "a file name ending in .png", f"--out {path.with_suffix('.png')}")


def _split(names: str | None, labels: tuple[str, ...]) -> list[str] | None:
    """Names between commas; a class whose own name has a comma is found as a whole."""
    if names is None:
        return None
    return [names] if names in labels else [name.strip() for name in names.split(",")]


def _seeds(text: str | None) -> list[int]:
    parts = _split(text, ()) or []
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"--seeds {text}", "numbers with commas between, for example 0,1,2", "correct it")
    return [int(part) for part in parts]


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

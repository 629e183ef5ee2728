"""The verb data: check, prepare, generate, import and draw recordings; import word vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from kd_edge import recipes
from kd_edge.cli.console import DataOption, JsonOption, SetOption, counted, err, faults, out, print_json, table
from kd_edge.cli.progress import TrainingDisplay, progress_bar
from kd_edge.errors import ConfigError, did_you_mean, printable

if TYPE_CHECKING:
    from kd_edge.data.check import Report, SplitReport
    from kd_edge.data.readers.files.imports import Imported
    from kd_edge.train.inputs.material import Material
    from kd_edge.train.recipe import Recipe

app = typer.Typer(no_args_is_help=True, help="Check, prepare, generate and import recordings.")


@app.command(
    "check",
    epilog="Examples:  kd-edge data check utd_mhad --data ~/data/utd-mhad  |  kd-edge data check pku_rgb_to_ir --quick",
)
def data_check(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND|RECIPE",
            help="files, utd_mhad, ntu_rgbd, pku_mmd, berkeley_mhad, mmact, fir_action, synthetic or an installed "
            "package's kind; or a recipe that uses it.",
        ),
    ],
    data: DataOption = None,
    modalities: Annotated[
        list[str] | None, typer.Option("--modality", help="Modality to check; default all of the data set. Repeatable.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read only the headers of videos: presence, size, number of frames.")
    ] = False,
    settings: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Read every recording and report what is complete, missing or damaged.

    For a recipe, only its modalities are read, and the report includes
    whether its training could start.

    Exit code 1 if a recording cannot be used or the training could not start.
    """
    from kd_edge.data import open_dataset
    from kd_edge.data.check import check

    recipe = _recipe(kind, settings)
    dataset = open_dataset(_data_config(kind) if recipe is None else recipe.data, data)
    wanted: dict[str, Any] = {}
    if recipe is not None:
        modalities = modalities or recipe.modalities
        held_out = {"validation_subjects": recipe.validation_subjects, "validation_trials": recipe.validation_trials}
        wanted = {"split": recipe.split, "fits": recipe.check_data, **held_out}
    with progress_bar(err) as bar:
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
        out.print(data_report(report))
    if not (report.faultless and report.trainable):
        raise typer.Exit(1)


@app.command("prepare", epilog="Example:  kd-edge data prepare utd_mhad_pose_to_depth --data ~/data/utd-mhad")
def data_prepare(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE")],
    data: DataOption = None,
    settings: SetOption = None,
) -> None:
    """Decode a recipe's recordings into the frame cache, so that training starts immediately."""
    from kd_edge.train.recipe import Recipe

    config = recipes.load("train", recipe, Recipe, settings or ())
    from kd_edge.train.inputs.gathering import gather_material

    with TrainingDisplay(err) as display:
        material = gather_material(config, data, display.decoding)
    out.print(material_report(material))


@app.command(
    "synth",
    epilog="Examples:  kd-edge data synth --out figures --clips-per-class 8  |  "
    "kd-edge data check files --data figures",
)
def data_synth(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="New or empty folder.")],
    clips: Annotated[int, typer.Option("--clips-per-class", min=1, help="Clips per class.")] = 4,
    subjects: Annotated[int, typer.Option("--subjects", min=2, help="Number of people.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed.")] = 0,
) -> None:
    """Write clips of the generated figure as files: to view, to replay, and to train on like your own recordings.

    Writes RGB videos, infrared arrays, joint positions, and the signals of a
    watch and a phone, with manifest.csv and dataset.toml.
    """
    from kd_edge.data.synthetic.dataset import Synthetic
    from kd_edge.data.synthetic.writing import write_synthetic

    dataset = Synthetic(clips_per_class=clips, subjects=subjects, seed=seed)
    with progress_bar(err) as bar:
        task = bar.add_task("drawing", total=None)
        files = write_synthetic(
            folder, dataset, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    example = next(file for file in files if file.suffix == ".npy")
    out.print(f"{len(dataset.samples)} clips in {folder}; look at all: kd-edge data check files --data {folder}")
    out.print(f"replay one: kd-edge run --camera replay:{example}")


@app.command(
    "import",
    epilog="Examples:  kd-edge data import train_list.txt val_list.txt --root videos --names classes.txt  |  "
    "kd-edge data import activity_net.json --root videos --skip-missing  |  kd-edge data import ~/data/so101_pick",
)
def data_import(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="LIST|DIR...",
            help="Lists of 'path label' (mmaction2, PyTorchVideo), ActivityNet JSON, tables with file_name and label "
            "(.csv, .jsonl, .parquet); or a folder: Hugging Face VideoFolder, lerobot.",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Folder that the file names are relative to; default the list's."),
    ] = None,
    modality: Annotated[
        str, typer.Option("--modality", help="Modality of the files, if the list does not name it.")
    ] = "rgb",
    names: Annotated[
        Path | None,
        typer.Option("--names", metavar="FILE", help="Names of numbered classes, one per line, starting with class 0."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="Column of a table that has the classes.")
    ] = None,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Leave out missing files.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing manifest.")] = False,
    json_: JsonOption = False,
) -> None:
    """Convert another tool's list into manifest.csv, next to the files it names.

    The manifest is written atomically, and only if every row of the list is
    valid.
    """
    from kd_edge.data.readers.files.imports import import_rows
    from kd_edge.data.readers.files.writing import check_no_manifest, write_manifest
    from kd_edge.files import expanded

    found = import_rows(
        [expanded(source) for source in sources],
        None if root is None else expanded(root),
        modality=modality,
        names=None if names is None else expanded(names),
        label=label,
        skip_missing=skip_missing,
    )
    manifest = found.root / "manifest.csv"
    check_no_manifest(manifest, force=force)
    write_manifest(found.rows, manifest, force=force)
    if json_:
        print_json({"manifest": manifest, "rows": len(found.rows), **import_counts(found), "remarks": found.remarks})
        return
    for line in import_report(found):
        out.print(escape(line), highlight=False)
    out.print(escape(f"wrote {manifest}; next: kd-edge data check files --data {found.root}"))


def import_counts(found: Imported) -> dict[str, dict[str, int]]:
    """Count rows by class, modality and side; rows without one are counted as ''."""
    return {
        "classes": dict(Counter(row.label for row in found.rows).most_common()),
        "modalities": dict(Counter(name for row in found.rows for name in row.files)),
        "sides": dict(Counter(row.split for row in found.rows)),
    }


def import_report(found: Imported) -> Iterator[str]:
    """Lines that summarise an import."""
    yield from (f"{printable(path)}: {kind}" for path, kind in found.kinds.items())
    counts = import_counts(found)
    classes = [f"{printable(name) or 'none yet'} {count}" for name, count in counts["classes"].items()]
    more = f", and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    count = counted(len(found.rows), "recording")
    yield f"{count} of {counted(len(classes), 'class')}: {', '.join(classes[:SHOWN])}{more}"
    yield f"modalities: {', '.join(f'{name} {count}' for name, count in counts['modalities'].items())}"
    sides = counts["sides"]
    yield f"sides: {', '.join(f'{side or NO_SIDE} {count}' for side, count in sides.items())}"
    if "test" not in sides:
        yield "no list names the test side: the last quarter is taken, see test_subjects in dataset.toml"
    yield from (printable(remark) for remark in found.remarks[:REMARKS])


@app.command("glove", epilog="Example:  kd-edge data glove sakdn_utd_mhad --from glove.840B.300d.txt")
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
    r"""Extract the word vectors of a recipe's class names from a large file, under the name in its \[semantics] table.

    The default name is the recipe's. A source that lacks previously imported
    words is refused. Uses no network.
    """
    from kd_edge.data import open_dataset
    from kd_edge.data.words.class_vectors import SemanticsConfig, import_name, import_vectors
    from kd_edge.train.recipe import Recipe

    recipe = recipes.load("train", name, Recipe, settings or ())
    semantics = recipe.semantics or SemanticsConfig()
    with progress_bar(err) as bar:
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
    out.print(table(("class", "words", "unknown"), rows))
    out.print(f"{found.size} values each in {found.path}; in a recipe: semantics.vectors = '{found.name}'")


def _recipe(kind: str, settings: list[str] | None) -> Recipe | None:
    """Load the recipe of that name; None for a kind of data set."""
    if kind.endswith(".toml") or kind in recipes.names("train"):
        from kd_edge.train.recipe import Recipe

        return recipes.load("train", kind, Recipe, settings or ())
    if settings:
        raise ConfigError(
            f"--set with '{kind}', which is not a recipe", "a recipe", "name a recipe that uses the data set"
        )
    return None


NO_SIDE = "not told"
SHOWN = 10
"""Maximum number of classes listed."""
REMARKS = 12
"""Maximum number of remarks printed; the rest are counted."""


def data_report(report: Report) -> RenderableType:
    """What is complete, missing and damaged."""
    rows = [
        (
            m.modality,
            str(m.usable),
            str(len(m.unusable)),
            " / ".join(map(str, m.frames)),
            " / ".join(f"{s:.1f}" for s in m.seconds),
        )
        for m in report.modalities
    ]
    header = ("modality", "usable", "unusable", "frames min / median / max", "seconds")
    classes = list(report.per_class.values())
    known = len(report.per_subject.keys() - {""})
    subjects = counted(known, "subject") if known else "subjects not known"
    lines = [
        f"{report.dataset}: {counted(report.samples, 'sample')}, {report.complete} complete, "
        f"{counted(len(report.per_class), 'class')} ({min(classes)} to {max(classes)} samples each), {subjects}"
    ]
    gaps = faults(report.gaps, "of the complete data set are not here")
    broken = faults({n: why for m in report.modalities for n, why in m.unusable.items()}, "cannot be used")
    notes = [f"  {escape(remark)}" for remark in report.remarks[:REMARKS]]
    if len(report.remarks) > REMARKS:
        notes.append(f"  and {len(report.remarks) - REMARKS} more remarks (all with --json)")
    if report.quick:
        notes.append("  headers only: damage inside a file is found without --quick")
    warnings = [f"[yellow]note:[/yellow] {escape(warning)}" for warning in report.imbalances]
    verdict = [] if report.split is None else [_split(report.split)]
    faulty = [text.lstrip("\n") for text in (gaps, broken) if text]
    return Group(*lines, *notes, table(header, rows), _classes(report), *faulty, *warnings, *verdict)


def _classes(report: Report) -> RenderableType:
    """Clips and subjects per class, and its clips on each side of a split."""
    sides = ("training", "validation", "test") if report.sides else ()
    header = (f"class (split {report.sides})" if sides else "class", "clips", "subjects", *sides)
    rows = []
    for name, count in report.classes.items():
        each = (count.train, count.validation, count.test) if sides else ()
        rows.append([escape(printable(name)), str(count.clips), str(count.subjects or "?"), *map(str, each)])
    return table(header, rows)


def _split(split: SplitReport) -> str:
    """Whether a recipe's training could start."""
    if split.fault is not None:
        return f"[red]split {escape(split.name)}: training cannot start:[/red] {escape(split.fault)}"
    sides = f"{split.train} training, {split.validation} validation and {split.test} test samples"
    return f"split {escape(split.name)}: training can start, with {sides}"


def material_report(prepared: Material) -> str:
    """The frame caches and signals of a recipe."""
    lines = [f"{stage}: {cache}" for stage, cache in prepared.caches.items()]
    lines += [f"{sensor}: {count} training samples lack it" for sensor, count in prepared.lacking.items() if count]
    return "\n".join(lines) + faults(prepared.skipped, "cannot be used")


@app.command(
    "examples",
    epilog="Examples:  kd-edge data examples synthetic --out classes.png  |  "
    "kd-edge data examples utd_mhad --classes 'wave,sit to stand' --modalities depth,pose --out classes.png",
)
def data_examples(
    source: Annotated[str, typer.Argument(metavar="KIND|RECIPE", help="A kind of data set, or a recipe that uses it.")],
    picture: Annotated[Path, typer.Option("--out", metavar="FILE", help="PNG file to write.")],
    data: DataOption = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B", help="Class names, comma-separated; default the first 10.")
    ] = None,
    modalities: Annotated[
        str | None, typer.Option("--modalities", metavar="A,B", help="Comma-separated; default all image modalities.")
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=1, max=64, help="Frames per clip.")] = 6,
) -> None:
    """Draw example clips: a row of frames per class and camera.

    With an incomplete copy of the data, missing rows are listed.
    """
    from kd_edge.data import open_dataset
    from kd_edge.pictures.examples import class_examples, draw_examples

    check_png(picture)
    dataset = open_dataset(_data_config(source), data)
    lacking: dict[str, str] = {}
    with progress_bar(err) as bar:
        task = bar.add_task("classes", total=None)
        found = class_examples(
            dataset,
            classes=split_names(classes, dataset.labels),
            modalities=None if modalities is None else [name.strip() for name in modalities.split(",")],
            frames=frames,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            lacking=lacking,
        )
    draw_examples(found, f"{dataset.name}: {frames} evenly spaced frames of one clip", picture)
    shown = len({example.label for example in found})
    chosen = (
        "" if classes or shown == len(dataset.labels) else f" ({shown} of {len(dataset.labels)} classes; --classes)"
    )
    out.print(f"{counted(len(found), 'row')} in {picture}{chosen}{faults(lacking, 'are not in the picture', 'rows')}")


def check_png(path: Path) -> None:
    """Refuse a picture's file name that does not end in .png."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}", "a file name ending in .png", f"--out {path.with_suffix('.png')}")


def split_names(names: str | None, labels: tuple[str, ...]) -> list[str] | None:
    """Split comma-separated names; a single class name that contains a comma is kept whole."""
    if names is None:
        return None
    return [names] if names in labels else [name.strip() for name in names.split(",")]


def _data_config(source: str) -> Any:
    """Default settings of a kind of data set, or the data settings of a recipe."""
    from kd_edge.data import data_config, known_kinds

    kinds = known_kinds()
    if source in kinds:
        return data_config({"kind": source}, "data set")
    known = recipes.names("train")
    if source not in known and not source.endswith(".toml"):
        raise ConfigError(
            f"no data set or recipe '{source}'{did_you_mean(source, [*kinds, *known])}",
            f"one of {', '.join(kinds)}, or a recipe",
            "kd-edge recipes list shows the recipes; a path ending in .toml works too",
        )
    from kd_edge.train.recipe import Recipe

    return recipes.load("train", source, Recipe).data

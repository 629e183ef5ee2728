"""The command line: parse, load, one call each. The only module that prints."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kd_edge import __version__, recipes, show
from kd_edge.errors import EXTRA_OF, ConfigError, KdEdgeError, MissingExtraError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train a small infrared or RGB action recogniser by distillation, export it, run it on a robot.",
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, show and copy the recipes that [b]train[/b] reads.")
data_app = typer.Typer(no_args_is_help=True, help="Look after recordings: check, prepare, generate.")
study_app = typer.Typer(no_args_is_help=True, help="Tables from run directories.")
app.add_typer(recipes_app, name="recipes")
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")

WIDE = 160
"""Columns where no terminal says how many it has: a log must not be folded at 80."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDE)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with the recordings; else KD_EDGE_DATA."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print figures as JSON on standard output, nothing else.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, dotted: student.epochs=20."),
]


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        app(args=_resume_latest(sys.argv[1:]))
    except KdEdgeError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        missing = f"module '{error.name}' is not installed"
        _fail(MissingExtraError(missing, f"the extra [{extra}]", f"pip install 'kd-edge[{extra}]'"))


def _resume_latest(arguments: list[str]) -> list[str]:
    """``--resume`` without a run means the latest; Typer has no options whose value may be left out."""
    completed: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        bare = argument == "--resume" and following.startswith("-")
        completed += [argument, "latest"] if bare else [argument]
    return completed


def _fail(error: KdEdgeError) -> None:
    err.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
    sys.exit(2)


def _print_json(values: Any) -> None:
    sys.stdout.write(json.dumps(_plain(values), indent=2) + "\n")


def _plain(values: Any) -> Any:
    """Dataclasses, paths and numpy scalars as plain JSON values."""
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        return {f.name: _plain(getattr(values, f.name)) for f in dataclasses.fields(values)}
    if isinstance(values, dict):
        return {str(k): _plain(v) for k, v in values.items()}
    if isinstance(values, (list, tuple, set)):
        return [_plain(v) for v in values]
    if hasattr(values, "model_dump"):
        return values.model_dump(mode="json")
    if hasattr(values, "tolist"):
        return values.tolist()
    return str(values) if isinstance(values, Path) else values


def _version(show: bool) -> None:
    if show:
        sys.stdout.write(f"kd-edge {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# --------------------------------------------------------------------------------------------------------- train


@app.command(
    epilog="Examples:  kd-edge train  |  kd-edge train utd_mhad_pose_to_depth --data ~/data/utd-mhad  |  "
    "kd-edge train quickstart --set student.epochs=20 --seed 1  |  kd-edge train --resume"
)
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="Name or path; kd-edge recipes list.")
    ] = "quickstart",
    data: DataOption = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Run directory; default runs/<recipe>-<time>."),
    ] = None,
    settings: SetOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Override the recipe's seed.")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="[RUN]", help="Go on with an interrupted run; default the latest."),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="Devices per node.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Train the teacher, then the student; write a run directory."""
    from kd_edge.train.recipe import Recipe
    from kd_edge.train.run import latest_unfinished, load_recipe, new_run_path
    from kd_edge.train.trainer import train as train_run

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision the recipe names
    if resume is None:
        overrides = [*(settings or ()), *([] if seed is None else [f"seed={seed}"])]
        config = recipes.load("train", recipe, Recipe, overrides)
        run = folder or new_run_path(Path("runs"), config.name)
    elif settings or seed is not None or folder is not None:
        raise ConfigError(
            "--resume with --set, --seed or --out", "--resume alone", "an interrupted run keeps its recipe"
        )
    else:
        run = latest_unfinished() if resume == "latest" else Path(resume)
        config = load_recipe(run)
    with show.Training(err) as display:
        events = train_run(
            config,
            run,
            data_root=data,
            resume=resume is not None,
            devices=devices,
            nodes=nodes,
            progress=display.decoding,
        )
        summary = display.follow(events)
    if json_:
        _print_json(summary)
    else:
        out.print(show.training_summary(summary))
        out.print(f"run {run}\nexport it: [b]kd-edge export {run}[/b]")


# -------------------------------------------------------------------------------------------------------- export


@app.command(
    "export",
    epilog="Examples:  kd-edge export --fp16  |  kd-edge export runs/quickstart-20260101-120000 --out robot.onnx  |  "
    "kd-edge export --profile my_profile.toml",
)
def export_(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Run directory; default the newest finished one.")
    ] = "latest",
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Half-precision arithmetic, float32 inputs and outputs.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Export profile: export/profiles/NAME.toml, or a path."),
    ] = None,
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="The artifact to write.")] = Path(
        "student.onnx"
    ),
    graph: Annotated[str, typer.Option("--graph", help="'step' for the runtime, or the plain 'clip' model.")] = "step",
    data: DataOption = None,
    json_: JsonOption = False,
) -> None:
    """Export a student to one self-describing ONNX file, compared with the trained model on real clips."""
    from kd_edge.export.export import export
    from kd_edge.export.profile import ExportProfile
    from kd_edge.train.run import Run

    if fp16 and profile is not None:
        raise ConfigError("--fp16 and --profile together", "one of them", "set precision in the profile")
    name = profile or ("fp16" if fp16 else "fp32")
    settings = recipes.load("export", name, ExportProfile, [] if graph == "step" else [f"graph={graph}"])
    folder = Run.latest().path if run == "latest" else Path(run)
    with err.status(f"exporting {folder}"):
        exported = export(folder, settings, target, data_root=data)
    if json_:
        _print_json(exported.report)
        return
    out.print(show.export_summary(exported))
    out.print(f"run it: [b]kd-edge run --camera synthetic: --model {target}[/b]")


# ---------------------------------------------------------------------------------------------------------- run


@app.command(
    epilog="Examples:  kd-edge run --camera ir0  |  kd-edge run --camera synthetic: --duration 20  |  "
    "kd-edge run --camera replay:clip_depth.mat --model student.onnx --sink jsonl:-"
)
def run(
    camera: Annotated[str, typer.Option("--camera", "-c", metavar="NAME|URI", help="kd-edge cameras shows them.")],
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="FILE", help="Artifact; default the newest here, else the bundled one."),
    ] = None,
    sinks: Annotated[
        list[str] | None,
        typer.Option("--sink", metavar="URI", help="terminal: or jsonl:PATH, repeatable. Default terminal:"),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--duration", metavar="S", min=0.1, help="Stop after so many seconds."),
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Pace a recording by its time stamps.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the engine.")] = 1,
    provider: Annotated[str, typer.Option("--provider", help="cpu or cuda.")] = "cpu",
    strict: Annotated[bool, typer.Option("--strict", help="Make any fallback an error.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept-self-test", help="Run a model that fails its self-test; labels are 'degraded'.")
    ] = False,
    notify: Annotated[bool, typer.Option("--notify", help="Report to systemd (READY, WATCHDOG).")] = False,
) -> None:
    """Live labels from a camera; Ctrl-C stops."""
    import time

    from kd_edge.artifact import default_model
    from kd_edge.runtime.stream import interrupt_on_sigterm, stream

    if provider not in ("cpu", "cuda"):
        raise ConfigError(f"--provider {provider}", "cpu or cuda", "correct it")
    path = model or default_model()
    err.print(f"model {path}")
    labels = stream(
        model=path,
        camera=camera,
        realtime=realtime,
        sinks=sinks or ["terminal:"],
        threads=threads,
        provider="cuda" if provider == "cuda" else "cpu",
        strict=strict,
        self_test="accept" if accept else "raise",
        notify=notify,
    )
    acted = right = 0
    start = time.monotonic()
    try:
        with interrupt_on_sigterm(), labels:
            for prediction in labels:
                if prediction.label is not None and prediction.truth is not None:
                    acted += 1
                    right += prediction.label == prediction.truth
                if duration is not None and time.monotonic() - start > duration:
                    break
    except KeyboardInterrupt:
        pass
    window_seconds = labels.recognizer.manifest.clip_seconds
    err.print(show.stream_summary(labels.statistics, window_seconds, acted, right))


# ----------------------------------------------------------------------------------------------------- evaluate


@app.command(
    epilog="Examples:  kd-edge evaluate student.onnx --streaming --data ~/data/utd-mhad  |  kd-edge evaluate runs/mine"
)
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="RUN|ARTIFACT")],
    data: DataOption = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Protocol; default the one it was trained under."),
    ] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Also join each subject's test clips into one stream.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the engine.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Score a model on the test clips of its data set."""
    from kd_edge.evaluate import evaluate as evaluate_model

    with show.progress(err) as bar:
        task = bar.add_task("test clips", total=None)
        result = evaluate_model(
            model,
            data_root=data,
            split=split,
            streaming=streaming,
            threads=threads,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_:
        _print_json(result)
    else:
        out.print(show.evaluation(result))


# ---------------------------------------------------------------------------------------------- bench, cameras


@app.command(
    epilog="Examples:  kd-edge bench student.onnx  |  kd-edge bench --reference resnet18 --input 224 --json  |  "
    "kd-edge bench --training quickstart"
)
def bench(
    model: Annotated[Path | None, typer.Argument(metavar="[ARTIFACT]")] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="BACKBONE", help="An untrained network instead of an artifact."),
    ] = None,
    training: Annotated[
        str | None,
        typer.Option("--training", metavar="RECIPE", help="Loader against training step, instead of a model."),
    ] = None,
    data: DataOption = None,
    input_px: Annotated[int, typer.Option("--input", metavar="PX", help="Input side of the reference.")] = 224,
    motion: Annotated[bool, typer.Option("--motion", help="Motion stack for the reference.")] = False,
    frames: Annotated[int, typer.Option("--frames", min=10, help="Timed pushes.")] = 200,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Camera frame.")] = "640x480",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the engine.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Measure a model: latency by stage, ratio to one bare backbone pass, start-up, memory. Or a recipe's training."""
    import tempfile

    from kd_edge.bench import bench as measure

    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--size {size}", "WIDTHxHEIGHT, for example 640x480", "correct it")
    if sum(wanted is not None for wanted in (model, reference, training)) != 1:
        raise ConfigError(
            "not one of ARTIFACT, --reference and --training", "one of them", "kd-edge bench student.onnx"
        )
    if training is not None:
        _bench_training(training, data, json_)
        return
    with tempfile.TemporaryDirectory() as folder, err.status("measuring; keep the machine quiet"):
        if reference is not None:
            from kd_edge.export.reference import make_reference_artifact

            model = Path(folder) / "reference.onnx"
            make_reference_artifact(reference, input_px, model, motion=motion)
        assert model is not None
        report = measure(model, frames=frames, size=(int(height), int(width)), threads=threads)
    if json_:
        _print_json(report)
    else:
        out.print(show.bench(report))


def _bench_training(recipe: str, data: Path | None, json_: bool) -> None:
    from kd_edge.train.recipe import Recipe
    from kd_edge.train.throughput import measure

    with show.Training(err) as display:
        figures = measure(recipes.load("train", recipe, Recipe), data, progress=display.decoding)
    if json_:
        _print_json(figures)
    else:
        out.print(
            f"{recipe}: loader alone {figures.loader:.0f} clips/s, training step {figures.step:.1f} clips/s, "
            f"ratio {figures.ratio:.1f} ({figures.threads} thread(s), warm cache)"
        )


@app.command()
def cameras(json_: JsonOption = False) -> None:
    """Show what is attached, what is configured, and the exact line to use it."""
    from kd_edge.runtime.cameras.listing import list_cameras

    found = list_cameras()
    if json_:
        _print_json(found)
    else:
        out.print(show.cameras(found))


# --------------------------------------------------------------------------------------------------------- demo


@app.command(epilog="Example:  kd-edge demo --out /tmp/demo")
def demo(
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default runs/demo-<time>.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long the student watches.")] = 20.0,
) -> None:
    """Go the whole way on generated data: train, export, run; minutes on two cores."""
    from kd_edge.demo import Watched, demo_export, demo_stream, demo_train
    from kd_edge.runtime.sinks.terminal import describe
    from kd_edge.train.run import new_run_path

    place = folder or new_run_path(Path("runs"), "demo")
    out.rule("1  train a teacher on RGB, then a student on near infrared")
    with show.Training(err) as display:
        summary = display.follow(demo_train(place, display.decoding))
    out.print(show.training_summary(summary))
    out.rule("2  export the student")
    with err.status("exporting"):
        exported = demo_export(place)
    out.print(show.export_summary(exported))
    out.rule("3  live labels from the synthetic infrared camera")
    for event in demo_stream(exported.artifact.path, seconds):
        if isinstance(event, Watched):
            out.print(f"{event.right} of {event.labels} labels right in {event.seconds:.0f} s")
        else:
            out.print(describe(event), markup=False)
    out.rule("where everything landed")
    out.print(show.demo_places(place, exported.artifact.path))


# --------------------------------------------------------------------------------------------------------- data


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
        _print_json(report)
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


# ------------------------------------------------------------------------------------------------------ recipes


@recipes_app.command("list")
def recipes_list(json_: JsonOption = False) -> None:
    """List all recipes, your own first when names collide."""
    found = {name: recipes.find("train", name) for name in recipes.names("train")}
    if json_:
        _print_json(found)
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


# ------------------------------------------------------------------------------------------------------- doctor


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """Report what is installed, what clashes, which engines and cameras are usable, and what to do.

    Exit code 1 when something is wrong.
    """
    from kd_edge.doctor import examine

    findings = examine()
    if json_:
        _print_json(findings)
    else:
        out.print(show.doctor(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


# -------------------------------------------------------------------------------------------------------- study


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
        _print_json(table)
    elif page is None:
        sys.stdout.write(study.markdown(table))
    else:
        study.write_between_markers(study.markdown(table), page, place)
        out.print(f"{len(table)} rows in {page}")

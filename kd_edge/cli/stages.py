"""The main verbs: train, export, run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kd_edge import recipes
from kd_edge.cli import show, show_training
from kd_edge.cli.console import DataOption, JsonOption, SetOption, err, out, print_json
from kd_edge.errors import ConfigError

if TYPE_CHECKING:
    from kd_edge.train.recipe import Recipe

app = typer.Typer()


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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, take one step on a few clips, write nothing.")
    ] = False,
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
        if dry_run:
            _rehearse(config, data, json_)
            return
        run = folder or new_run_path(Path("runs"), config.name)
    elif settings or seed is not None or folder is not None or dry_run:
        raise ConfigError(
            "--resume with --set, --seed, --out or --dry-run", "--resume alone", "an interrupted run keeps its recipe"
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
        print_json(summary)
    else:
        out.print(show.training_summary(summary))
        out.print(f"run {run}\nexport it: [b]kd-edge export {run}[/b]")


def _rehearse(config: Recipe, data: Path | None, json_: bool) -> None:
    from kd_edge.train.rehearsal import rehearse

    with show.Training(err) as display:
        result = rehearse(config, data, progress=display.decoding)
    if json_:
        print_json(result)
    else:
        out.print(show_training.rehearsal(result))


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
    if run == "latest":
        err.print(f"run {folder}")
    with err.status("exporting"):
        exported = export(folder, settings, target, data_root=data)
    if json_:
        print_json(exported.report)
        return
    out.print(show.export_summary(exported))
    out.print(f"run it: [b]kd-edge run --camera synthetic: --model {target}[/b]")


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
    from kd_edge.runtime.tally import Tally

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
    counts = Tally()
    start = time.monotonic()
    try:
        with interrupt_on_sigterm(), labels:
            for prediction in labels:
                counts.add(prediction)
                if duration is not None and time.monotonic() - start > duration:
                    break
    except KeyboardInterrupt:
        if not hasattr(labels, "recognizer"):  # while the model was loading
            raise typer.Exit(130) from None
    window_seconds = labels.recognizer.manifest.clip_seconds
    err.print(show.stream_summary(labels.statistics, window_seconds, counts))

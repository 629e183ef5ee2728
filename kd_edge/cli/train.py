"""The verb train: a run, or a dry run of one."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from kd_edge import recipes
from kd_edge.cli.console import DataOption, JsonOption, SetOption, counted, err, out, percent, print_json, table
from kd_edge.cli.export import export_summary, steps
from kd_edge.cli.progress import TrainingDisplay, progress_bar, source_report
from kd_edge.errors import ConfigError, printable
from kd_edge.files import expanded
from kd_edge.packages import import_extra

if TYPE_CHECKING:
    from kd_edge.export.exporter import Exported
    from kd_edge.rundir import DenseReport, Summary
    from kd_edge.train.recipe import Recipe
    from kd_edge.train.rehearsal import Rehearsal

app = typer.Typer()
DEFAULT = "quickstart"


@app.command(
    epilog="Examples:  kd-edge train  |  kd-edge train --data ~/gestures  |  "
    "kd-edge train utd_mhad_pose_to_depth --data ~/data/utd-mhad  |  "
    "kd-edge train utd_mhad_best --data ~/data/utd-mhad --export best.onnx  |  "
    "kd-edge train quickstart --set student.epochs=20 --seed 1  |  kd-edge train --resume  |  "
    "kd-edge train --data ~/gestures --from bundled --set student.freeze=backbone"
)
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="Name (see kd-edge recipes list) or path. Default quickstart; with --data of your own recordings, "
            "DIR/recipe.toml or what data init would write.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Run directory; default runs/<recipe>-<time>."),
    ] = None,
    settings: SetOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Override the recipe's seed.")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="[RUN]", help="Resume an interrupted run; default the latest."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|ARTIFACT|FILE",
            help="Fine-tune: initialise the student with the matching weights of a run, an artifact, 'bundled', or a "
            "weights file.",
        ),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="Devices per node.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Number of nodes.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything and run one step on a few clips; write nothing.")
    ] = False,
    target: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="FILE", help="Afterwards export the student to FILE, like kd-edge export --out."
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train the teacher, then the student; write a run directory and, with --export, an artifact."""
    from kd_edge.rundir import new_run_path

    if target is not None:
        _check_target(target, dry_run)
    if resume is None:
        overrides = [*(settings or ()), *([] if seed is None else [f"seed={seed}"]), *_begun_from(source)]
        _check_begun_once(source, overrides)
        config = _recipe(recipe, data, overrides)
        if dry_run:
            _note_left_out(config, data)
            _rehearse(config, data, json_)
            return
        run = folder or new_run_path(Path("runs"), config.name)
    elif settings or seed is not None or folder is not None or dry_run or source is not None:
        raise ConfigError(
            "--resume with --set, --seed, --out, --from or --dry-run",
            "--resume alone",
            "an interrupted run keeps its recipe",
        )
    else:
        from kd_edge.train.results.run import latest_unfinished, load_recipe

        run = latest_unfinished() if resume == "latest" else Path(resume)
        config = load_recipe(run)
    _note_left_out(config, data)
    from kd_edge.train.trainer import train as train_run

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs the precision, which the recipe sets
    with _resumable(run), TrainingDisplay(err) as display:
        events = train_run(
            config,
            run,
            data_root=data,
            resume=resume is not None,
            devices=devices,
            nodes=nodes,
            progress=display.decoding,
        )
        with closing(events):
            summary = display.follow(events)
    if summary is None:
        return  # of several processes, the first one reports
    if not json_:
        out.print(training_summary(summary))
        out.print(f"run {run}" + (f"\nexport it: [b]kd-edge export {run}[/b]" if target is None else ""))
    if target is None:
        if json_:
            print_json(summary)
        return
    exported = _exported(run, target, data)
    if json_:
        print_json({"training": summary, "export": exported.report})
    else:
        out.print(export_summary(exported))


@contextmanager
def _resumable(run: Path) -> Iterator[None]:
    """Print how to resume if the training is interrupted."""
    from kd_edge.rundir import RECIPE

    try:
        yield
    except KeyboardInterrupt:
        if (run / RECIPE).is_file() and os.environ.get("LOCAL_RANK", "0") == "0":
            err.print(f"interrupted; resume with: [b]kd-edge train --resume {escape(str(run))}[/b]", soft_wrap=True)
        raise


def _begun_from(source: str | None) -> list[str]:
    """Recipe overrides of ``--from``, as an absolute path: the run may be resumed from another folder."""
    if source is None:
        return []
    from kd_edge.train.finetune.source import BUNDLED

    place = source if source == BUNDLED else str(expanded(source).absolute())
    return [f"student.source={json.dumps(place, ensure_ascii=False)}", "student.initial_weights=null"]


def _check_begun_once(source: str | None, overrides: list[str]) -> None:
    """Refuse a second source: of two values for one key, the last would silently win."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    if source is not None and keys.count("student.source") > 1:
        raise ConfigError("--from with --set student.source", "one of them", "leave one out")


def _check_target(target: Path, dry_run: bool) -> None:
    """Check before hours of training that the export can be written."""
    if dry_run:
        raise ConfigError("--export with --dry-run, which trains nothing", "one of them", "leave one out")
    import_extra("onnx", "export")
    if target.is_dir() or not target.parent.is_dir():
        found = "is a folder" if target.is_dir() else f"is in {target.parent}, which is not a folder"
        raise ConfigError(f"--export {target} {found}", "a file in an existing folder", "correct it")


def _exported(run: Path, target: Path, data: Path | None) -> Exported:
    """Export the student of a finished run in float32."""
    from kd_edge.export.exporter import export
    from kd_edge.export.profile import ExportProfile

    with steps() as say:
        return export(run, recipes.load("export", "fp32", ExportProfile), target, data_root=data, say=say)


def _recipe(name: str | None, data: Path | None, overrides: list[str]) -> Recipe:
    """Load the named recipe; without a name, the recipe of a folder of the user's own recordings."""
    from kd_edge.data.config import known_kind
    from kd_edge.train.recipe import Recipe

    root = None if data is None else expanded(data)
    if name is not None or root is None or known_kind(root) is not None:
        config = recipes.load("train", name or DEFAULT, Recipe, overrides)
        _check_trained(config, overrides)
        return config
    from kd_edge.train.recipe.folder import recipe_of

    with progress_bar(err) as bar:
        task = bar.add_task("looking", total=None)
        config, note = recipe_of(root, overrides, lambda done, total: bar.update(task, completed=done, total=total))
    err.print(escape(printable(note)), soft_wrap=True)
    return config


def _check_trained(config: Recipe, overrides: list[str]) -> None:
    """Refuse settings of a labels stage if the recipe's student has none."""
    from kd_edge.train.recipe.stages import Training

    keys = [override.partition("=")[0].strip() for override in overrides]
    idle = [key for key in keys if key.startswith("student.") and key.removeprefix("student.") in Training.model_fields]
    if idle and config.labels_stage is None:
        stages = ", ".join(f"stages.{stage.kind}" for stage in config.stages)
        raise ConfigError(
            f"--set {idle[0]}, a setting of a labels stage, but recipe {config.name} has none",
            f"a setting of one of its stages: {stages}",
            f"for example --set stages.{config.stages[0].kind}.{idle[0].removeprefix('student.')}=...",
        )


def _note_left_out(config: Recipe, data: Path | None) -> None:
    """Print which of the user's own recordings are not in the manifest and thus are not trained on."""
    from kd_edge.data.config import FilesData

    if not isinstance(config.data, FilesData) or (root := data or config.data.root) is None:
        return
    from kd_edge.train.recipe.folder import left_out

    if note := left_out(expanded(root)):
        err.print(f"[yellow]note:[/yellow] {escape(printable(note))}", soft_wrap=True)


def _rehearse(config: Recipe, data: Path | None, json_: bool) -> None:
    from kd_edge.train.rehearsal import rehearse

    with TrainingDisplay(err) as display:
        result = rehearse(config, data, progress=display.decoding)
    if json_:
        print_json(result)
    else:
        out.print(rehearsal_report(result))


def rehearsal_report(result: Rehearsal) -> Group:
    """Shapes, parameters, losses and duration of one training step."""
    train, validation, test = result.samples
    steps = counted(result.steps_per_epoch, "step")
    head = [f"{train} training, {validation} validation, {test} test clips; {steps} an epoch"]
    head += [f"{name}: clips {shape}, {result.parameters[name]:,} parameters" for name, shape in result.inputs.items()]
    if "adapters" in result.parameters:
        head.append(f"adapters of the losses: {result.parameters['adapters']:,} parameters, dropped at export")
    parts: list[RenderableType] = ["\n".join(head)]
    if result.source is not None:
        parts.append(source_report(result.source))
    if result.student_layers:
        layers = Table("student's layer", "shape", "teacher's layer", "shape")
        for mine, theirs in itertools.zip_longest(result.student_layers.items(), result.teacher_layers.items()):
            layers.add_row(*(str(value) for value in (*(mine or ("", "")), *(theirs or ("", "")))))
        parts.append(layers)
    values = Table("loss", "first value", "weight")
    if result.dense is not None:
        values.add_row("dense stage", f"{result.dense:.4g}", "")
    for name, value in result.losses.items():
        weight = result.weights.get(name)
        values.add_row(name, f"{value:.4g}", "" if weight is None else f"{weight:g}")
    parts += [values, f"one step: {result.seconds:.2f} s on this machine, the first one"]
    return Group(*parts)


def training_summary(summary: Summary) -> RenderableType:
    """Test scores of each stage of a run."""
    rows = [
        (
            f"{name} ({stage.modality}, {stage.backbone} + {stage.temporal})",
            *(percent(getattr(stage.test, figure, None)) for figure in ("accuracy", "macro_f1", "map")),
            stage.selected,
            f"{stage.all_seconds / 60:.1f}",
        )
        for name, stage in summary.stages.items()
    ]
    protocol = summary.protocol
    where = f"{protocol.dataset}, split {protocol.split}"
    title = f"{where}, {counted(protocol.test_samples, 'test clip')}, seed {summary.seed}"
    parts: list[RenderableType] = [title, table(("", "accuracy", "macro F1", "mAP", "epoch", "minutes"), rows)]
    dense = [stage.dense for stage in summary.stages.values() if stage.dense is not None]
    return Group(*parts, *(line for report in dense if (line := _explained(report))))


def _explained(report: DenseReport) -> str:
    """Share of its targets that a dense stage explains on the validation clips; empty without such clips."""
    shares = [f"{share:.1%} of {target}" for target, share in report.explained.items() if share is not None]
    return f"dense stage: explains {', '.join(shares)} on the validation clips" if shares else ""

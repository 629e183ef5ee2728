"""The verb evaluate: trimmed clips, the stream they make, or the long videos they were cut from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kd_edge import recipes
from kd_edge.cli import show, show_scores
from kd_edge.cli.console import DataOption, JsonOption, err, out, print_json
from kd_edge.errors import ConfigError

app = typer.Typer()


@app.command(
    epilog="Examples:  kd-edge evaluate student.onnx --streaming --data ~/data/utd-mhad  |  kd-edge evaluate runs/mine"
    "  |  kd-edge evaluate student.onnx --detection --write found --data ~/data/pku-mmd"
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
    detection: Annotated[
        bool, typer.Option("--detection", help="Instead find the actions in the long videos (pku_mmd).")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="P", help="Detection: least probability of a proposal; default 0.1."),
    ] = None,
    iou: Annotated[
        float | None, typer.Option("--iou", metavar="O", help="Detection: least overlap of a match; default 0.5.")
    ] = None,
    scales: Annotated[
        list[float] | None,
        typer.Option("--scale", metavar="X", help="Detection: window length in trained ones, repeatable; default 1."),
    ] = None,
    proposals: Annotated[
        str | None,
        typer.Option("--proposals", metavar="KIND", help="Detection: merged runs (the default), or windows."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="DIR", help="Detection: what was found, as PKU-MMD's evaluator reads it."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the engine.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Score a model on the test clips of its data set, or on the long videos they were cut from."""
    given = {"threshold": threshold, "scales": scales or None, "proposals": proposals}
    chosen = {key: value for key, value in given.items() if value is not None}
    if detection:
        if streaming:
            raise ConfigError("--detection with --streaming", "one of them", "evaluate twice")
        _detect(model, data, split, chosen, 0.5 if iou is None else iou, write, threads, json_)
        return
    if chosen or iou is not None or write is not None:
        raise ConfigError(
            "--threshold, --iou, --scale, --proposals or --write without --detection", "both", "add --detection"
        )
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
        print_json(result)
    else:
        out.print(show_scores.evaluation(result))


def _detect(
    model: Path,
    data: Path | None,
    split: str | None,
    chosen: dict[str, Any],
    iou: float,
    write: Path | None,
    threads: int,
    json_: bool,
) -> None:
    from kd_edge.evaluate import detect
    from kd_edge.evaluate.spotting import Spotting

    settings = recipes.validate(chosen, Spotting, "--detection")
    with show.progress(err) as bar:
        task = bar.add_task("long videos", total=None)
        result = detect(
            model,
            data_root=data,
            split=split,
            settings=settings,
            iou=iou,
            threads=threads,
            write=write,
            progress=lambda frames, done, total: bar.update(task, completed=done, total=total, note=f"{frames} frames"),
        )
    if json_:
        print_json(result)
    else:
        out.print(show_scores.detections(result))
        if write is not None:
            out.print(f"proposals in {write}, one file per video")

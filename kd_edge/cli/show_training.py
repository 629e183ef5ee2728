"""What a recipe, a dry run or a study looks like, as text for a terminal; prints nothing itself."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.models.layers import Layer
    from kd_edge.study.plan import Planned, RowConfig, StudyConfig
    from kd_edge.train.rehearsal import Rehearsal
    from kd_edge.train.throughput import Throughput


def throughput(recipe: str, figures: Throughput) -> str:
    """Loader against step, and what the losses add."""
    cost = figures.cost
    lines = [
        f"{recipe}: loader alone {figures.loader:.0f} clips/s, training step {figures.step:.1f} clips/s, "
        f"ratio {figures.ratio:.1f} ({figures.threads} thread(s), warm cache)"
    ]
    if cost.teacher:
        lines.append(
            f"step by part, medians of {cost.rounds} rounds in turn: teacher forward {cost.teacher:.3f} s, "
            f"student forward and backward {cost.student:.3f} s, both with all losses {cost.distilled:.3f} s: "
            f"{cost.ratio:.3f} x the sum"
        )
    if figures.losses:
        shares = ", ".join(f"{name} {ratio:.3f} x" for name, ratio in figures.losses.items())
        lines.append(f"the step relative to the step without one loss: {shares}")
    if figures.points:
        lines.append(f"virtual images of 64 x 3 x {figures.points} signals: {figures.images_ms:.1f} ms")
    return "\n".join(lines)


def rehearsal(result: Rehearsal) -> Group:
    """What one step of a recipe looks like."""
    train, validation, test = result.samples
    head = [f"{train} training, {validation} validation, {test} test clips; {result.steps_per_epoch} steps an epoch"]
    head += [f"{name}: clips {shape}, {result.parameters[name]:,} parameters" for name, shape in result.inputs.items()]
    if "adapters" in result.parameters:
        head.append(f"adapters of the losses: {result.parameters['adapters']:,} parameters, dropped at export")
    parts: list[RenderableType] = ["\n".join(head)]
    if result.student_layers:
        layers = Table("student's layer", "shape", "teacher's layer", "shape")
        for mine, theirs in itertools.zip_longest(result.student_layers.items(), result.teacher_layers.items()):
            layers.add_row(*(str(value) for value in (*(mine or ("", "")), *(theirs or ("", "")))))
        parts.append(layers)
    values = Table("loss", "first value", "weight")
    for name, value in result.losses.items():
        weight = result.weights.get(name)
        values.add_row(name, f"{value:.4g}", "" if weight is None else f"{weight:g}")
    parts += [values, f"one step: {result.seconds:.2f} s on this machine, the first one"]
    return Group(*parts)


def layers(found: Sequence[Layer], taps: Mapping[str, Sequence[str]]) -> Table:
    """Every layer of a model, with what looks at it."""
    table = Table("layer", "kind", "output for one clip", "looked at by")
    for layer in found:
        users = ", ".join(name for name, paths in taps.items() if layer.path in paths)
        table.add_row(layer.path, layer.kind, "-" if layer.shape is None else str(layer.shape), users)
    return table


def study(config: StudyConfig, runs: Sequence[Planned]) -> Table:
    """Rows of a study and what each of them trains."""
    table = Table("row", "title", "what", *(f"{split}: published" for split in config.splits), title=config.title)
    for row in config.rows:
        published = (str(row.published.get(split, "-")) for split in config.splits)
        table.add_row(row.name, row.title, _what(row, runs), *published)
    return table


def _what(row: RowConfig, runs: Sequence[Planned]) -> str:
    """What a row trains, or why it trains nothing."""
    if row.needs:
        return f"not run: needs {row.needs}"
    if row.of is not None:
        return f"read of {row.of}: {row.network}"
    config = next(run.config for run in runs if run.row is row)
    losses = getattr(config, "losses", None)
    return getattr(config, "kind", None) or " + ".join(["CE", *(loss.kind for loss in losses or ())])

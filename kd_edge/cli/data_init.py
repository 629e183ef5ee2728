"""The verb data init: inspect a folder of the user's own recordings, propose its manifest and its recipe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from kd_edge.cli.console import JsonOption, counted, err, out, print_json, table
from kd_edge.cli.progress import progress_bar
from kd_edge.errors import printable
from kd_edge.files import expanded

if TYPE_CHECKING:
    from kd_edge.data.survey import ModalitySurvey, Side, Spread, Survey

app = typer.Typer()
_ALL = "; kd-edge data check files --data DIR --quick opens all"
NAMED, CLASSES = 5, 60
"""Maximum numbers of damaged files and classes that are named; the rest are counted (all with --json)."""


@app.command(
    "init",
    epilog="Examples:  kd-edge data init ~/gestures  |  kd-edge data init ~/gestures --dry-run  |  "
    "kd-edge data init clips --pattern '{label}_{subject}_{trial}'  |  kd-edge data init ~/gestures --student rgb",
)
def data_init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder with one folder per class, with labels in file names, or with a list."
        ),
    ],
    student: Annotated[
        str | None,
        typer.Option(
            "--student", metavar="MODALITY", help="Modality of the student; default: infrared if there is one."
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern",
            metavar="NAMES",
            help="Pattern of the file names, for example subject{subject}_{trial}_{modality}.",
        ),
    ] = None,
    without_damaged: Annotated[
        bool, typer.Option("--without-damaged", help="Leave unreadable files out of the manifest.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only; write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recipe.toml.")] = False,
    json_: JsonOption = False,
) -> None:
    """Inspect a folder of your own recordings, and write manifest.csv and a recipe.toml that is ready to train.

    Reads file headers and two dozen pictures. An existing manifest and
    dataset.toml are kept.
    """
    from kd_edge.train.recipe.folder import check_free, look_at, write

    root = expanded(folder)
    if not dry_run:
        check_free(root, force=force)
    with progress_bar(err) as bar:
        task = bar.add_task("looking", total=None)
        looked = look_at(
            root,
            student=student,
            pattern=pattern,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    written = () if dry_run else write(looked, without_damaged=without_damaged)
    if json_:
        values = asdict(looked.found) | {"recipe": looked.proposal.recipe, "reasons": looked.proposal.reasons}
        print_json(values | {"written": [str(path) for path in written]})
        return
    out.print(survey_report(looked.found))
    out.print(escape("\nrecipe: " + "; ".join(looked.proposal.reasons)), soft_wrap=True)
    if dry_run:
        out.print("nothing was written (--dry-run)")
        return
    out.print("written: " + escape(printable(", ".join(map(str, written)))), soft_wrap=True)
    out.print(escape(printable(f"train: kd-edge train --data {folder}")), soft_wrap=True)


def survey_report(found: Survey) -> RenderableType:
    """Contents of a folder, as tables and lines."""
    subjects = counted(len(found.subjects), "subject") if found.subjects else "subjects not known"
    head = (
        f"{found.name}, by {found.source}: {counted(found.clips, 'clip')}, "
        f"{counted(len(found.classes), 'class')}, {subjects}, {counted(found.complete, 'clip')} with every modality"
    )
    classes = [
        (escape(c.label), str(c.clips), str(len(c.subjects) or ""), _seconds(c.seconds))
        for c in found.classes[:CLASSES]
    ]
    if len(found.classes) > CLASSES:
        classes.append((f"and {len(found.classes) - CLASSES} more", "", "", ""))
    modalities = [_modality(found, m) for m in found.modalities]
    parts: list[RenderableType] = [
        escape(head),
        "",
        table(("class", "clips", "subjects", "seconds 5 % / median / 95 %"), classes),
        "",
        table(("modality", "band", "holds", "per second", "clips", "missing", "damaged", "seconds"), modalities),
        "",
        *(_side(name, side) for name, side in found.sides.items()),
    ]
    if found.gaps:
        use = f"class '{found.background}'" if found.background else "background in dataset.toml makes them a class"
        parts.append(escape(f"gaps between labelled pieces: {found.gaps}, {found.gap_seconds:.0f} s; {use}"))
    return Group(*parts, *(f"  {escape(remark)}" for remark in _remarks(found)))


def _modality(found: Survey, m: ModalitySurvey) -> tuple[str, ...]:
    sizes = ", ".join(f"{size.width_px}x{size.height_px}" for size in m.sizes[:2])
    more = f" and {len(m.sizes) - 2} more sizes" if len(m.sizes) > 2 else ""
    rate = f"{m.fps.median:g}" if m.fps.low == m.fps.high else f"{m.fps.low:g} to {m.fps.high:g}"
    missing, damaged = found.clips - m.clips, len(m.damaged)
    holds = f"{sizes}{more} {m.dtype}".strip()
    return (
        escape(m.name), m.band or "signal", holds, rate, str(m.clips), str(missing or ""), str(damaged or ""),
        _seconds(m.seconds),
    )  # fmt: skip


def _side(name: str, side: Side) -> str:
    who = f": {', '.join(side.subjects[:12])}{' ...' if len(side.subjects) > 12 else ''}" if side.subjects else ""
    return escape(f"{name}: {counted(side.clips, 'clip')}{who}")


def _remarks(found: Survey) -> list[str]:
    remarks = list(found.remarks)
    partly = (m for m in found.modalities if m.opened < m.files)
    remarks += (f"{m.name}: {m.opened} of {m.files} files were opened, evenly spread{_ALL}" for m in partly)
    if damaged := found.damaged:
        named = "; ".join(list(damaged.values())[:NAMED])
        more = f"; and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
        remarks.append(f"files that cannot be read, training continues without them: {len(damaged)}, {named}{more}")
    if found.unlisted:
        from kd_edge.data.survey import unlisted_said

        remarks.append(unlisted_said(found.source, found.unlisted))
    return remarks


def _seconds(spread: Spread) -> str:
    return f"{spread.low:.1f} / {spread.median:.1f} / {spread.high:.1f}"

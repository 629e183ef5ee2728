"""Proposes a recipe for own recordings from their contents, with reasons in its comments; it trains as it is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge import recipes
from kd_edge.data.balance import IMBALANCE
from kd_edge.data.dataset import listed
from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.skeletons import DRAWN
from kd_edge.data.survey import ModalitySurvey, Survey, some_pictures
from kd_edge.errors import ConfigError, DataError, did_you_mean, printable
from kd_edge.machine import has_bfloat16
from kd_edge.resizing import resize
from kd_edge.train.recipe.recipe import Recipe

NAME = "recipe.toml"
"""File name of a folder's own recipe."""
LONGEST_WINDOW_S = 5.0
"""If the median clip is longer, the window is ``WINDOW_S``, to limit the delay of labels."""
WINDOW_S = 3.0
SHORTEST_WINDOW_S = 0.5
PAIRED_SHARE = 0.8
"""A teacher must have at least this share of the student's clips: clips it lacks are not used."""
STEPS = 450
"""Approximate number of optimiser steps, as far as ``EPOCHS`` allow."""
FEWEST_STEPS = 160
"""Minimum number of steps per epoch: with few clips, an epoch draws each several times (``repeat``)."""
EPOCHS = (15, 40)
SEGMENTS, BATCH = 8, 8
MOTION_MS = 70
DEPTH_MARGIN = 300.0
"""In units of the pictures, usually mm."""
_BANDS = ("nir", "lwir", "depth", "rgb")
"""Bands preferred for the student: a robot in the dark sees no colours."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A recipe and its reasons.

    Attributes:
        text: The TOML file.
        recipe: What it says.
        reasons: A line on each choice.
    """

    text: str
    recipe: Recipe
    reasons: tuple[str, ...]


class _Length(NamedTuple):
    """Length of a stage: epochs, batch size, and how often an epoch draws every clip."""

    epochs: int
    batch: int
    repeat: int


def propose(dataset: Files, found: Survey, student: str | None = None) -> Proposal:
    """Propose a recipe that trains on a folder of recordings.

    Args:
        dataset: The folder; a few of its pictures are read.
        found: The result of ``survey``.
        student: Modality of the student; None chooses one.

    Raises:
        ConfigError: There is no such modality, or it has no pictures.
        DataError: A class has no training clip with pictures of the student's modality.
    """
    own = _student(dataset, found, student)
    teacher = _teacher(dataset, found, own)
    window = _window(own)
    segments = max(2, min(SEGMENTS, own.frames))
    train = min(found.sides["train"].clips, own.clips)
    batch = max(2, min(BATCH, train))
    repeat = math.ceil(FEWEST_STEPS * batch / (EPOCHS[1] * max(1, train)))
    steps = max(1, train * repeat // batch)
    epochs = max(EPOCHS[0], min(EPOCHS[1], math.ceil(STEPS / steps)))
    rare = _is_imbalanced(dataset, found, own)
    length = _Length(epochs, batch, repeat)
    stages = [_stage("student", dataset, own, length, rare)]
    if teacher is not None:
        stages += [_stage("teacher", dataset, teacher, length, rare), _LOSSES]
    windows, why = _windows(own, window)
    values = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", found.name).strip("-._") or "own",
        "split": found.split,
        "sides": _sides(found),
        "segments": segments,
        "windows": windows,
        "why_windows": why,
        "window": f"{window:g}",
        "precision": "bf16-mixed" if has_bfloat16() else "32-true",
        "losses": "" if teacher is not None else "losses = []    # no teacher\n",
    }
    text = _HEAD.format(**values) + "".join(stages)
    recipe = recipes.from_text(text, Recipe, "proposed recipe")
    reasons = (
        *_reasons(found, own, teacher),
        why,
        *(["rare classes count as much as frequent ones"] if rare else []),
        f"{epochs} epochs, {batch} clips per step, {steps} {'step' if steps == 1 else 'steps'} per epoch"
        + (f", which draws every clip {repeat} times" if repeat > 1 else ""),
    )
    return Proposal(text, recipe, reasons)


def _student(dataset: Files, found: Survey, wanted: str | None) -> ModalitySurvey:
    own = _chosen(dataset, found, wanted)
    if lacking := _lacking(dataset, found, own.name):
        raise DataError(
            f"{own.name} of {dataset.root} has no readable training clip of {listed(lacking)}",
            "at least one of every class",
            "add clips, or choose another modality with --student",
        )
    return own


def _chosen(dataset: Files, found: Survey, wanted: str | None) -> ModalitySurvey:
    readable = [m for m in found.pictures if len(m.damaged) < m.opened]
    names = [m.name for m in readable]
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(
                f"{found.name} has no pictures called '{wanted}'{did_you_mean(wanted, names)}",
                f"one of {', '.join(names)}",
                "correct --student",
            )
        return found.modality(wanted)
    seen = [m for m in readable if m.name != DRAWN] or readable  # no camera delivers drawn skeletons
    most = max(m.clips for m in seen)
    enough = [m for m in seen if 2 * m.clips >= most]
    enough = [m for m in enough if not _lacking(dataset, found, m.name)] or enough
    return min(enough, key=lambda m: (_BANDS.index(m.band or "rgb"), -m.clips))


def _lacking(dataset: Files, found: Survey, *modalities: str) -> list[str]:
    """Return the classes without a training clip that has all of the modalities, leaving out known damaged files."""
    damaged = found.damaged.keys()
    files = {row.id: {m: printable(str(path)) for m, path in row.files.items()} for row in dataset.rows}
    usable = (
        s.label
        for s in dataset.split(found.split).train
        if set(modalities) <= files[s.id].keys() and not any(files[s.id][m] in damaged for m in modalities)
    )
    present = set(usable)
    return [label for k, label in enumerate(dataset.labels) if k not in present]


def _teacher(dataset: Files, found: Survey, student: ModalitySurvey) -> ModalitySurvey | None:
    """Choose colour pictures or drawn skeletons that most of the student's clips have; only the latter teach colour."""
    readable = (m for m in found.pictures if len(m.damaged) < m.opened and m.name != student.name)
    others = [m for m in readable if m.band == "rgb" and (student.band != "rgb" or m.name == DRAWN)]
    paired = [m for m in others if found.paired[student.name][m.name] >= PAIRED_SHARE * student.clips]
    paired = [m for m in paired if not _lacking(dataset, found, student.name, m.name)]
    return max(paired, key=lambda m: m.clips, default=None)


def _window(student: ModalitySurvey) -> float:
    """Return the length of the live window in s."""
    median = student.seconds.median
    return WINDOW_S if median > LONGEST_WINDOW_S else max(SHORTEST_WINDOW_S, round(median, 2))


def _windows(student: ModalitySurvey, window: float) -> tuple[str, str]:
    """Placement of training windows, and why."""
    if student.seconds.median > LONGEST_WINDOW_S:
        return "random", f"windows of {window:g} s inside clips of {student.seconds.median:.1f} s"
    return "stream", f"windows of {window:g} s, the median clip, that begin in the previous action, as in a live stream"


def _sides(found: Survey) -> str:
    parts = []
    for side in ("train", "validation", "test"):
        content = found.sides[side]
        subjects = ", ".join(content.subjects[:4]) + (" ..." if len(content.subjects) > 4 else "")
        parts.append(f"{side} {content.clips}{f' ({subjects})' if subjects else ''}")
    return printable("; ".join(parts))


def _reasons(found: Survey, student: ModalitySurvey, teacher: ModalitySurvey | None) -> list[str]:
    reasons = [f"the student sees {student.name} ({student.band})"]
    if teacher is not None:
        reasons.append(
            f"{teacher.name} teaches: {found.paired[student.name][teacher.name]} of {student.clips} clips have it"
        )
    else:
        reasons.append("no teacher" + (": too few clips have colour pictures" if _has_colour(found, student) else ""))
    if student.clips < found.clips:
        reasons.append(f"{found.clips - student.clips} clips without {student.name} are not used")
    return reasons


def _has_colour(found: Survey, student: ModalitySurvey) -> bool:
    return student.band != "rgb" and any(m.band == "rgb" for m in found.pictures)


def _is_imbalanced(dataset: Files, found: Survey, student: ModalitySurvey) -> bool:
    """Whether the most frequent class has many times as many training clips as the rarest."""
    having = {row.id for row in dataset.rows if student.name in row.files}
    clips = Counter(s.label for s in dataset.split(found.split).train if s.id in having)
    return max(clips.values()) > IMBALANCE * min(clips.values())


def _stage(stage: str, dataset: Files, modality: ModalitySurvey, length: _Length, rare: bool) -> str:
    """Return the TOML tables of a stage."""
    channels = dataset.settings.of(modality.name).channels(modality.name)
    pictures = some_pictures(dataset, modality.name, modality.seconds.median)
    window, low, high = _intensities(modality, pictures)
    side = min(min(size.height_px, size.width_px) for size in modality.sizes)
    pixels, holes = 64 if side < 96 else 96, modality.band == "depth"
    seen = [resize(p, pixels, "left_out") for p in pictures] if holes else pictures
    planes = [np.clip((p.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) for p in seen]
    mean, deviation = (round(float(f(np.concatenate([p.ravel() for p in planes]))), 2) for f in (np.mean, np.std))
    offset = max(MOTION_MS, math.ceil(1000 / modality.fps.median) if modality.fps.median else 0)
    return _STAGE.format(
        stage=stage,
        modality=modality.name,
        epochs=length.epochs,
        batch=length.batch,
        repeat=f"repeat = {length.repeat}    # how often an epoch draws every clip\n" if length.repeat > 1 else "",
        weights='class_weights = "balanced"    # rare classes count as much as frequent ones\n' if rare else "",
        channels=channels,
        pixels=pixels,
        holes=_HOLES if holes else "",
        offsets=f"[0, {offset}, {2 * offset}]" if 2 * offset <= 2000 else "[0]",
        mean=max(0.01, mean),
        deviation=max(0.05, deviation),
        window=window,
        flip="true" if dataset.settings.mirror is not None else "false",
        why_flip=_why_flip(dataset),
    )


def _intensities(modality: ModalitySurvey, pictures: Sequence[npt.NDArray[Any]]) -> tuple[str, float, float]:
    """Return the intensity window as TOML and its approximate limits: fixed distances for depth, else percentiles."""
    values = np.concatenate([p[:: max(1, p.shape[0] // 64), :: max(1, p.shape[1] // 64)].ravel() for p in pictures])
    seen = values[values > 0] if modality.band == "depth" and values.any() else values
    low, high = (float(limit) for limit in np.percentile(seen, (1, 99)))
    if modality.name == DRAWN:
        return '{ kind = "fixed", low = 0.0, high = 255.0 }', 0.0, 255.0
    if modality.band == "depth":
        margin = max(DEPTH_MARGIN, (high - low) / 2)  # arms may reach further than in the sampled pictures
        low, high = 10.0 * math.floor(max(0.0, low - margin) / 10), 10.0 * math.ceil((high + margin) / 10)
        return f'{{ kind = "fixed", low = {low}, high = {high} }}', low, high
    span = ""
    if modality.dtype == "uint16":
        span = f", minimum_span = {max(8.0, round((high - low) / 4)):.1f}"
    return f'{{ kind = "percentile", low_percent = 1.0, high_percent = 99.0{span} }}', low, high


def _why_flip(dataset: Files) -> str:
    mirror = dataset.settings.mirror
    if mirror is None:
        return "dataset.toml has no mirror, which names the classes that mirroring swaps"
    return f"{len(mirror)} pairs of classes are swapped" if mirror else "mirroring changes no class"


_HEAD = """\
# Proposed by kd-edge data init for the recordings in this folder; edit as needed.
#   kd-edge data check DIR/recipe.toml --data DIR       reads every file and says whether training can start
#   kd-edge train --data DIR --set student.epochs=40    overrides a value for one run
name = "{name}"
split = "{split}"    # {sides}
segments = {segments}
windows = "{windows}"    # {why_windows}
clip_seconds = {window}    # length of the live window
precision = "{precision}"    # the faster choice on this machine
threads = 1    # reproducible weights; more threads may be faster
{losses}
[data]
kind = "files"
"""
_STAGE = """
[{stage}]
modality = "{modality}"
optimiser = "adamw"
learning_rate = 0.001
weight_decay = 0.05
schedule = "one_cycle"
epochs = {epochs}
batch_size = {batch}
label_smoothing = 0.1
{repeat}{weights}
[{stage}.model]
backbone = "resnet10_thin"
temporal = "tconv"
hidden = 128
dropout = 0.1

[{stage}.preprocess]
channels = {channels}
resize_px = {pixels}
input_px = {pixels}
{holes}motion_offsets_ms = {offsets}    # three frames as channels: short-term motion
mean = [{mean}]
std = [{deviation}]
window = {window}

[{stage}.augment]
crop_scale = [0.8, 1.0]
shift = 0.2
flip = {flip}    # {why_flip}
gain = 0.2
offset = 0.1
"""
_HOLES = """\
holes = "left_out"    # 0 means no measurement, not a distance
"""
_LOSSES = """
[[losses]]
kind = "dkd"
weight = 0.1
target_weight = 0.7
nontarget_weight = 0.35
temperature = 4.0

[[losses]]
kind = "mgcam"
weight = 1.0
"""

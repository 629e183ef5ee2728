"""What the classes of a data set look like in each of its cameras: a contact sheet."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import Dataset, ImageFormat, Sample, require_modality
from kd_edge.errors import DataError, did_you_mean
from kd_edge.files import replacing
from kd_edge.packages import import_extra
from kd_edge.sampling import segment_indices
from kd_edge.types import Image

Rgb = npt.NDArray[np.uint8]

GAP_PX = 2
DOTS_PER_INCH = 100
DARKEST = 40
"""Grey of the lowest measured value where pixels without a measurement are black."""


@dataclass(frozen=True, slots=True)
class Example:
    """One clip of a class in one modality.

    Attributes:
        label: Name of the class.
        sample: Id of the sample; the same for all modalities of a class where one sample has them all.
        modality: Which camera.
        frames: (N, h, w, 3) uint8, ready to be looked at.
    """

    label: str
    sample: str
    modality: str
    frames: Rgb


def class_examples(
    dataset: Dataset,
    *,
    classes: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    frames: int = 6,
    height_px: int = 96,
    most_classes: int = 10,
    progress: Callable[[int, int], None] | None = None,
    lacking: dict[str, str] | None = None,
) -> list[Example]:
    """Centre-segment frames of a sample of each class, in every modality: of an incomplete copy, what is there.

    All modalities of a class are of the first sample that has them; where none has, each is of the first that has it.

    Args:
        dataset: Data set that the clips come from.
        classes: Names of the classes; None takes the first ``most_classes``.
        modalities: Names of the modalities; None takes all that are made of images.
        frames: Frames per clip.
        height_px: Height of one frame.
        most_classes: Largest number of classes where ``classes`` is None.
        progress: Called with (classes done, classes in all).
        lacking: Filled with "class, modality" -> why no clip of it can be read.

    Returns:
        Class by class, in each the modalities in the given order, those without a readable clip left out.

    Raises:
        DataError: Unknown class or modality, a modality that is a signal, or nothing that can be read.
    """
    names = list(dataset.labels[:most_classes]) if classes is None else list(classes)
    for name in names:
        if name not in dataset.labels:
            raise DataError(
                f"{dataset.name} has no class '{name}'{did_you_mean(name, dataset.labels)}",
                f"some of {', '.join(dataset.labels)}",
                "correct --classes",
            )
    lacks = {} if lacking is None else lacking
    formats = _formats(dataset, modalities, lacks)
    examples: list[Example] = []
    for done, name in enumerate(names, start=1):
        examples += _examples(dataset, name, formats, frames, height_px, lacks)
        if progress is not None:
            progress(done, len(names))
    if not examples:
        first = next(iter(lacks.items()), ("none", "it has no modality made of images"))
        raise DataError(
            f"no clip of {dataset.name} can be drawn (first: {first[0]}: {first[1]})",
            "at least one that can be read",
            "kd-edge data check, or name other --classes or --modalities",
        )
    return examples


def draw_examples(examples: Sequence[Example], title: str, path: Path) -> None:
    """Draw a contact sheet: one row per class and modality, class and modality at the left.

    Args:
        examples: Clips to draw, from ``class_examples``.
        title: Title above the sheet.
        path: The PNG to write.

    Raises:
        DataError: The picture cannot be written.
    """
    sheet, middles = contact_sheet([example.frames for example in examples])
    import_extra("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = sheet.shape[:2]
    longest = max(len(f"{e.label}  {e.modality}") for e in examples)
    left, top = 6 * longest + 24, 34  # pixels that the text takes
    figure = Figure(figsize=((left + width) / DOTS_PER_INCH, (top + height) / DOTS_PER_INCH), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axis = figure.add_axes((left / (left + width), 0, width / (left + width), height / (top + height)))
    axis.imshow(sheet, aspect="auto", interpolation="nearest")
    axis.set_axis_off()
    for example, middle in zip(examples, middles, strict=True):
        axis.text(-8, middle, f"{example.label}  {example.modality}", ha="right", va="center", fontsize=8)
    figure.text(0.5, 1 - top / 2 / (top + height), title, ha="center", va="center", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with replacing(path, DataError, option="--out") as file:
        file.write(buffer.getbuffer())


def contact_sheet(rows: Sequence[Rgb]) -> tuple[Rgb, list[float]]:
    """Rows of frames of any width below each other on white.

    Args:
        rows: Frames of each row, (N, h, w, 3) uint8.

    Returns:
        (H, W, 3) uint8, and the middle of each row in pixels from the top.
    """
    height = sum(r.shape[1] + GAP_PX for r in rows)
    sheet = np.full((height, max(r.shape[0] * (r.shape[2] + GAP_PX) for r in rows), 3), 255, dtype=np.uint8)
    top, middles = 0, []
    for row in rows:
        for position, frame in enumerate(row):
            left = position * (frame.shape[1] + GAP_PX)
            sheet[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
        middles.append(top + (row.shape[1] - 1) / 2)
        top += row.shape[1] + GAP_PX
    return sheet, middles


def viewable(frames: npt.NDArray[Any], image_format: ImageFormat) -> Rgb:
    """Frames of a clip for the eye: colour as it is, one channel from its 0.5th to its 99.5th percentile.

    In depth images 0 means "no measurement": it is left out of the percentiles and stays black, below all measured
    values.

    Args:
        frames: (N, h, w) or (N, h, w, 3), uint8 or uint16.
        image_format: Format of their modality.

    Returns:
        (N, h, w, 3) uint8.
    """
    if image_format.channels == 3:
        return np.asarray(frames, dtype=np.uint8)
    depth = image_format.band == "depth"
    measured = frames > 0 if depth else np.ones(frames.shape, dtype=bool)
    if not measured.any():
        return np.zeros((*frames.shape, 3), dtype=np.uint8)
    low, high = np.percentile(frames[measured], (0.5, 99.5))
    darkest = DARKEST if depth else 0
    share = np.clip((frames - low) / max(high - low, 1.0), 0, 1)
    grey = np.where(measured, darkest + share * (255 - darkest), 0).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _formats(dataset: Dataset, modalities: Sequence[str] | None, lacking: dict[str, str]) -> dict[str, ImageFormat]:
    """The format of each modality wanted; of all, those that are images, as far as this copy tells."""
    if modalities is not None:
        for modality in modalities:
            require_modality(modality, dataset.modalities, dataset.name)
        return {m: dataset.image_format(m) for m in modalities}
    formats = {}
    for modality in dataset.modalities:
        try:
            formats[modality] = dataset.image_format(modality)
        except DataError as error:
            if error.expected != "an image modality":  # else a signal, which nobody misses here
                lacking[modality] = error.found
    return formats


def _examples(
    dataset: Dataset,
    name: str,
    formats: Mapping[str, ImageFormat],
    frames: int,
    height_px: int,
    lacking: dict[str, str],
) -> list[Example]:
    """A class in every modality: of one sample where one has them all, else each of the first that has it.

    Of a sample without a modality that is still wanted nothing else is decoded.
    """
    found: dict[str, Example] = {}
    faults: dict[str, str] = {}
    for sample in (s for s in dataset.samples if dataset.labels[s.label] == name):
        its: dict[str, Example] = {}
        for modality in sorted(formats, key=lambda m: m in found):
            if found and not its and modality in found:
                break
            try:
                pictures = viewable(_frames(dataset, sample, modality, frames, height_px), formats[modality])
                its[modality] = Example(name, sample.id, modality, pictures)
            except DataError as error:
                faults.setdefault(modality, error.found)
        if len(its) == len(formats):
            found = its
            break
        found = its | found
    for modality in formats:
        if modality not in found:
            lacking[f"{name}, {modality}"] = faults.get(modality, "no sample is here")
    return [found[m] for m in formats if m in found]


def _frames(dataset: Dataset, sample: Sample, modality: str, count: int, height_px: int) -> npt.NDArray[Any]:
    """Centre frames (count, height_px, w[, 3]) of one clip, in its own values."""
    cv2 = import_extra("cv2", "cpu")
    clip = dataset.open(sample, modality)
    chosen: list[Image] = [clip.frames[i] for i in segment_indices(len(clip), count, mode="centre")]
    height, width = chosen[0].shape[:2]
    size = (max(1, round(width * height_px / height)), height_px)
    # depth must not be averaged across the edge of "no measurement"
    method = cv2.INTER_NEAREST if dataset.image_format(modality).band == "depth" else cv2.INTER_AREA
    return np.stack([cv2.resize(image, size, interpolation=method) for image in chosen])

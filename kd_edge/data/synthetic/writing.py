"""Write generated recordings as a folder of files with a manifest, like your own recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from kd_edge.data.dataset import Sample
from kd_edge.data.readers.files.rows import Row
from kd_edge.data.readers.files.settings import FILE
from kd_edge.data.readers.files.writing import write_manifest
from kd_edge.data.synthetic.dataset import MODALITIES, SKELETON, Synthetic
from kd_edge.errors import DataError, reason
from kd_edge.files import making
from kd_edge.packages import import_extra
from kd_edge.types import Clip

_ENDINGS = {"rgb": ".avi", "nir": ".npy", SKELETON: ".npy"}
_SIGNAL = ".csv"


def write_synthetic(
    out: Path,
    dataset: Synthetic,
    samples: Sequence[Sample] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Write generated recordings as files for viewing, replay, and training with ``kind = "files"``.

    Writes ``<id>_rgb.avi`` (FFV1), ``<id>_nir.npy`` ((T, H, W) uint8), ``<id>_skeleton.npy`` ((T, 20, 3) float32) and
    ``<id>_<sensor>.csv``, all lossless, with ``manifest.csv`` and ``dataset.toml``. The folder is created in one step
    when all files are complete.

    Args:
        out: Folder to create; must not exist or be empty.
        dataset: Data set of the recordings.
        samples: Samples to write; None writes all.
        progress: Called with (samples done, total number of samples).

    Returns:
        The files, ``manifest.csv`` and ``dataset.toml`` last.

    Raises:
        DataError: The folder is not empty or not writable, or the disk is full.
        MissingExtraError: PyAV is not installed.
    """
    import_extra("av", "replay")  # fail before the first clip is drawn
    chosen = dataset.samples if samples is None else tuple(samples)
    sides = _sides(dataset)
    rows: list[Row] = []
    with making(out, "--out", DataError) as temporary:
        for done, sample in enumerate(chosen, 1):
            files = {name: PurePosixPath(_written(temporary, dataset, sample, name)) for name in dataset.modalities}
            label, side = dataset.labels[sample.label], sides.get(sample.id, "")
            rows.append(Row(sample.id, label, files, sample.subject, sample.view, sample.trial, side))
            if progress is not None:
                progress(done, len(chosen))
        write_manifest(rows, temporary / "manifest.csv")
        (temporary / FILE).write_text("\n".join(_settings(dataset)) + "\n", encoding="utf-8")
    names = [str(file) for row in rows for file in row.files.values()]
    return tuple(out / name for name in (*names, "manifest.csv", FILE))


def _sides(dataset: Synthetic) -> dict[str, str]:
    """Sample id -> side; empty for a single person."""
    try:
        split = dataset.split(dataset.splits()[0])
    except DataError:
        return {}
    return {s.id: "train" for s in split.train} | {s.id: "test" for s in split.test}


def _written(folder: Path, dataset: Synthetic, sample: Sample, modality: str) -> str:
    """Write one file and return its name."""
    clip = dataset.open(sample, modality)
    name = f"{sample.id}_{modality}{_ENDINGS.get(modality, _SIGNAL)}"
    if modality == "rgb":
        _write_video(folder / name, clip, dataset.image_format(modality).fps)
    elif modality in _ENDINGS:
        np.save(folder / name, clip.frames)
    else:
        (folder / name).write_text("".join(_signal_lines(clip)), encoding="ascii")
    return name


def _write_video(path: Path, clip: Clip, fps: float) -> None:
    """Write FFV1 in AVI, whose stamps are whole frames; Matroska's are whole milliseconds."""
    av = import_extra("av", "replay")
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width = clip.frames.shape[1:3]
            stream.pix_fmt = "bgr0"
            for frame in clip.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    except (OSError, ValueError) as error:  # PyAV raises both
        _refuse(path, error)


def _refuse(path: Path, error: Exception) -> NoReturn:
    raise DataError(
        f"{path.name} cannot be written: {reason(error)}", "room on the disk", "free some or choose another --out"
    ) from error


def _signal_lines(clip: Clip) -> Iterator[str]:
    """Yield lines of the time in ns and three axes, with the full precision of float32."""
    yield "time,x,y,z\n"
    for stamp, axes in zip(clip.stamps_ns.tolist(), clip.frames, strict=True):
        yield f"{stamp},{','.join(f'{value:.9g}' for value in axes)}\n"


def _settings(dataset: Synthetic) -> Iterator[str]:
    """Yield the lines of ``dataset.toml``."""
    yield "# Written by kd-edge data synth; docs/own_recordings.md describes these keys."
    yield f"labels = {json.dumps(list(dataset.labels))}"
    mirrored = dataset.flip_labels or ()
    pairs = [[dataset.labels[k], dataset.labels[opposite]] for k, opposite in enumerate(mirrored) if k < opposite]
    yield f"mirror = {json.dumps(pairs)}"
    for name in MODALITIES:
        images = dataset.image_format(name)
        yield ""
        yield f"[modality.{name}]"
        yield f'band = "{images.band}"'
        yield f'unit = "{images.value_unit}"'
        yield f"range = [{images.value_range[0]}, {images.value_range[1]}]"
        yield f"fps = {images.fps}"
    yield ""
    yield f"[modality.{SKELETON}]"
    yield f"fps = {dataset.image_format(MODALITIES[0]).fps}"
    for name in dataset.sensors:
        signal = dataset.signal_format(name)
        yield ""
        yield f"[modality.{name}]"
        yield f'unit = "{signal.unit}"'
        yield f"range = [{signal.value_range[0]}, {signal.value_range[1]}]"
        yield f"rate_hz = {signal.rate_hz}"

"""Berkeley MHAD: 11 actions, 12 subjects, 5 repetitions, 12 cameras; video and six accelerometers, paired by name.

Source: Ofli, Chaudhry, Kurillo, Vidal, Bajcsy, "Berkeley MHAD: A comprehensive multimodal human action database",
WACV 2013. The split is that of Liu, Wang, Li, Lin, "Semantics-aware adaptive knowledge distillation for
sensor-to-vision action recognition", TIP 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from kd_edge.data.dataset import ImageFormat, Probe, Sample, SignalFormat, Split, listed, require_modality
from kd_edge.data.readers.berkeley_files import (
    LAYOUT,
    Performance,
    View,
    find_files,
    frame_stamps,
    listing_key,
    picture_files,
    read_pictures,
)
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.readers.sensor_files import VERSION, Columns, SignalFile, read_signal
from kd_edge.data.splits import check_split, require_split
from kd_edge.data.splits import split_by_subject as by_subject
from kd_edge.errors import DataError, did_you_mean
from kd_edge.types import Clip, Int64

LABELS = (
    "jumping in place", "jumping jacks", "bending", "punching", "waving two hands", "waving one hand",
    "clapping hands", "throwing a ball", "sit down then stand up", "sit down", "stand up",
)  # fmt: skip
"""Names of the actions A01 to A11."""

VIEWS = {
    f"c{cluster}_{camera}": View(cluster, camera)
    for cluster, cameras in ((1, 4), (2, 4), (3, 2), (4, 2))
    for camera in range(1, cameras + 1)
}
"""Name of a view -> its folders ``ClusterCC/CamCC``."""

TEST_SUBJECTS = tuple(f"S{n:02d}" for n in range(8, 13))
"""The first seven train."""

OFFICIAL_SIDES = (4_604, 3_296)
"""Training and test clips of all views: 7,900 in all."""

NEVER_RECORDED = {Performance(4, 8, 5): (1, 2, 3, 4), Performance(5, 2, 5): (3, 4), Performance(10, 8, 5): (3, 4)}
"""Performance -> clusters without pictures of it."""

FPS = 22.0
"""Nominal frame rate of the cameras, 1/s."""

RATE_HZ = 30.0
"""Nominal rate of the accelerometers, 1/s."""

_SENSORS = tuple(f"accelerometer_{n}" for n in range(1, 7))
_COLUMNS = Columns(axes=0, time=3, timed=False)
_GRAVITY = 9.80665  # m/s^2
_RANGE_G = 6.0  # wider range of the Shimmer's accelerometer


class BerkeleyMhad:
    """Reader of the official files: pictures of twelve cameras and text files of six accelerometers.

    Modalities: ``rgb`` (T, H, W, 3) uint8 and ``accelerometer_1`` to ``accelerometer_6`` (T, 3) float32, if at least
    one file has them. A sample is one performance seen by one camera: its id is ``s01_a02_r03_c1_2``, its view ``c1_2``
    (cluster 1, camera 2), its trial the repetition. The accelerometers' files are shared by all views.

    Pictures are timed by the stamps in ``Camera/Correspondences/corr_moc_img_*.txt`` (frame, time, ...) or
    ``time_stamps_img_*.txt``, otherwise by their numbers at 22 Hz. Signals with stamps on the same clock (fourth
    column) are aligned by them, beginning with the first picture; other signals are assumed to begin with it, at 30 Hz
    if they have no stamps. The documentation of neither clock could be checked: stamps that do not match the nominal
    rate, or do not overlap, are ignored. Mirroring changes no class.

    Args:
        root: The data set's folder.
        views: Some of ``VIEWS``; None for all.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
        hash_memo: File that caches content hashes between runs; None hashes the files each time.

    Raises:
        DataError: The folder is missing, empty or of something else; a view does not exist or is not recorded.
    """

    name = "berkeley_mhad"
    labels = LABELS
    flip_labels: tuple[int, ...] | None = tuple(range(len(LABELS)))

    def __init__(
        self,
        root: Path,
        *,
        views: Sequence[str] | None = None,
        decode_height_px: int = 480,
        hash_memo: Path | None = None,
    ) -> None:
        self.root = root
        self._height = decode_height_px
        self._hashes = FileHashes(hash_memo)
        self._views = _chosen(views)
        self._found = find_files(root, len(LABELS))
        self._signal_format: SignalFormat | None = None
        keys = [key for key in sorted(self._found.pictures) if key[1] in self._views.values()]
        if not keys:
            raise DataError(
                f"no recording of {', '.join(self._views)} in {root}", LAYOUT, "correct views, or complete the data set"
            )
        self._keys = {_id(*key): key for key in keys}
        self.samples = tuple(_sample(sample_id, *key) for sample_id, key in self._keys.items())
        self.sensors = tuple(sensor for sensor in _SENSORS if self._found.signals[_SENSORS.index(sensor) + 1])
        self.modalities = ("rgb", *self.sensors)

    def path(self, sample: Sample, modality: str) -> Path:
        """Return the folder of pictures, or the file of a signal or its expected path."""
        require_modality(modality, self.modalities, self.name)
        performance, view = self._keys[sample.id]
        if modality == "rgb":
            return self._found.pictures[performance, view]
        n = _SENSORS.index(modality) + 1
        expected = self.root / "Accelerometer" / f"Shimmer{n:02d}" / f"acc_h{n:02d}_{performance}.txt"
        return self._found.signals[n].get(performance, expected)

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip; see ``Dataset.open``."""
        if modality == "rgb":
            files = picture_files(self.path(sample, modality))
            images = read_pictures(list(files.values()), self._height)
            return Clip(images, self._picture_stamps(sample, files)[0])
        signal = read_signal(self.path(sample, modality), _COLUMNS, RATE_HZ)
        return self._aligned(sample, signal)

    def probe(self, sample: Sample, modality: str) -> Probe:
        """Count the pictures without reading them; a signal is read as a whole. See ``Probed.probe``."""
        if modality != "rgb":
            clip = self.open(sample, modality)
            return Probe(len(clip), clip.seconds)
        stamps, _ = self._picture_stamps(sample, picture_files(self.path(sample, modality)))
        return Probe(len(stamps), float(stamps[-1]) / 1e9)

    def content_key(self, sample: Sample, modality: str) -> str:
        """Names, sizes and times of the pictures, or hash of the signal's file; see ``Dataset.content_key``.

        Includes the stamps of the pictures, which determine the times of pictures and signals.
        """
        times = self._found.times.get(self._keys[sample.id][0])
        clock = self._hashes.sha256(times)[:16] if times is not None else "nominal"
        path = self.path(sample, modality)
        if modality == "rgb":
            return f"{listing_key(path)}-{clock}-h{self._height}"
        return f"{self._hashes.sha256(path)}-{clock}-signal{VERSION}"

    def image_format(self, modality: str) -> ImageFormat:
        """See ``Dataset.image_format``."""
        require_modality(modality, self.modalities, self.name)
        if modality != "rgb":
            raise DataError(f"modality '{modality}' of {self.name} is a signal", "an image modality", "use rgb")
        return ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), FPS)

    def signal_format(self, sensor: str) -> SignalFormat:
        """See ``Wearables.signal_format``.

        The files lack the unit, which is derived from gravity: g if the median magnitude of the first readable file of
        each sensor is about 1, m/s^2 if it is about 9.8, otherwise counts of a 12-bit converter.
        """
        if sensor not in self.sensors:
            raise DataError(
                f"{self.name} has no sensor '{sensor}'{did_you_mean(sensor, self.sensors)}",
                f"one of {', '.join(self.sensors) or 'none: this copy has no sensor file'}",
                "correct sensors in the recipe, or complete the data set",
            )
        if self._signal_format is None:
            self._signal_format = _signal_format([list(files.values()) for files in self._found.signals.values()])
        return self._signal_format

    def gaps(self) -> dict[str, str]:
        """See ``Dataset.gaps``. Subjects, cameras and actions that this copy lacks entirely are not expected."""
        performances = {performance for performance, _ in self._keys.values()}
        views = sorted({view for _, view in self._keys.values()})
        subjects, actions = ({getattr(p, part) for p in performances} for part in ("subject", "action"))
        every = (
            (Performance(subject, action, repetition), view)
            for subject in sorted(subjects)
            for action in sorted(actions)
            for repetition in range(1, 6)
            for view in views
        )
        return {
            _id(*key): "never recorded" if key[1].cluster in NEVER_RECORDED.get(key[0], ()) else "no pictures"
            for key in every
            if _id(*key) not in self._keys
        }

    def remarks(self) -> tuple[str, ...]:
        """Counts against the complete data set, missing sensors, assumed times. See ``Dataset.remarks``."""
        split, views = self._split(), len(self._views)
        of_all = f"of {sum(OFFICIAL_SIDES):,} clips of the complete data set"
        remarks = [f"{len(self.samples):,} {of_all}" + (f" (views {', '.join(self._views)})" if views < 12 else "")]
        if views == len(VIEWS):
            train, test = OFFICIAL_SIDES
            remarks.append(
                f"subjects: {len(split.train):,} of {train:,} training and {len(split.test):,} of {test:,} test samples"
            )
        remarks += self._sensor_remarks()
        if self._found.others:
            remarks.append(f"not read, not an action of A01 to A{len(LABELS)}: {listed(self._found.others)}")
        return tuple(remarks)

    def splits(self) -> tuple[str, ...]:
        """``subjects``: the first seven train, the last five test."""
        return ("subjects",)

    def split(self, name: str) -> Split:
        """See ``Dataset.split``."""
        require_split(name, self.splits(), self.name)
        split = self._split()
        check_split(split, self.labels)
        return split

    def _split(self) -> Split:
        return by_subject("subjects", self.samples, TEST_SUBJECTS)

    def _picture_stamps(self, sample: Sample, files: dict[int, Path]) -> tuple[Int64, float | None]:
        """Stamps of the pictures, 0 at the first, and its time on the recording's clock in seconds."""
        times = self._found.times.get(self._keys[sample.id][0])
        return frame_stamps(times, list(files), FPS)

    def _aligned(self, sample: Sample, signal: SignalFile) -> Clip:
        """Move a signal to the clock of the pictures, dropping samples before the first of them."""
        if signal.stamps_ns is None:
            stamps = np.round(np.arange(len(signal.values)) / RATE_HZ * 1e9).astype(np.int64)
            return Clip(signal.values, stamps)
        pictures, start_s = self._picture_stamps(sample, picture_files(self.path(sample, "rgb")))
        if start_s is None:
            return Clip(signal.values, signal.stamps_ns)
        stamps = signal.stamps_ns + round((signal.start_s - start_s) * 1e9)
        overlap_ns = min(int(stamps[-1]), int(pictures[-1])) - max(int(stamps[0]), 0)
        kept = stamps >= 0
        if overlap_ns < int(pictures[-1]) / 2 or kept.sum() < 2:  # another clock
            return Clip(signal.values, signal.stamps_ns)
        return Clip(signal.values[kept], stamps[kept])

    def _sensor_remarks(self) -> Iterator[str]:
        performances = {performance for performance, _ in self._keys.values()}
        first = {performance: sample_id for sample_id, (performance, _) in reversed(self._keys.items())}
        for sensor, files in zip(_SENSORS, self._found.signals.values(), strict=True):
            missing = sorted(first[performance] for performance in performances - files.keys())
            if missing:
                share = f"{len(missing):,} of {len(performances):,}"
                yield f"{sensor} is missing in {share} performances: {listed(missing)}"
        for sensor in self.sensors[:1]:
            form = self.signal_format(sensor)
            yield f"accelerometers: the files lack the unit; by the size of gravity it is {form.unit}"
        if not performances & self._found.times.keys():
            yield f"no stamps of the pictures (Camera/Correspondences): {FPS:g} Hz is assumed"


def _id(performance: Performance, view: View) -> str:
    return f"{performance}_c{view.cluster}_{view.camera}"


def _sample(sample_id: str, performance: Performance, view: View) -> Sample:
    trial, name = f"R{performance.repetition:02d}", f"c{view.cluster}_{view.camera}"
    return Sample(sample_id, f"S{performance.subject:02d}", name, trial, performance.action - 1)


def _chosen(views: Sequence[str] | None) -> dict[str, View]:
    for view in views or ():
        if view not in VIEWS:
            raise DataError(
                f"Berkeley MHAD has no view '{view}'{did_you_mean(view, VIEWS)}",
                f"some of {', '.join(VIEWS)}",
                "correct views in the recipe",
            )
    return {name: view for name, view in VIEWS.items() if views is None or name in views}


def _signal_format(files: Iterable[Sequence[Path]]) -> SignalFormat:
    """Unit and range by the size of gravity in the first readable file of each sensor."""
    found = [next(filter(None, map(_magnitude, paths)), None) for paths in files]
    magnitudes = [magnitude for magnitude in found if magnitude is not None]
    magnitude = float(np.median(magnitudes)) if magnitudes else 0.0
    if 0.5 <= magnitude <= 2:
        return SignalFormat("g", (-_RANGE_G, _RANGE_G), RATE_HZ)
    if 0.5 * _GRAVITY <= magnitude <= 2 * _GRAVITY:
        return SignalFormat("m/s^2", (-_RANGE_G * _GRAVITY, _RANGE_G * _GRAVITY), RATE_HZ)
    return SignalFormat("counts", (0.0, 4095.0), RATE_HZ)


def _magnitude(path: Path) -> float | None:
    """Median norm of a file's vectors; None for an unreadable file."""
    try:
        return float(np.median(np.linalg.norm(read_signal(path, _COLUMNS, RATE_HZ).values, axis=1)))
    except DataError:
        return None

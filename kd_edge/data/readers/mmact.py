"""MMAct: 37 actions, 20 subjects, four cameras; video and four wearable sensors, paired by name.

Source: Kong, Wu, Deng, Klinkigt, Tong, Murakami, "MMAct: A large-scale dataset for cross modal human action
understanding", ICCV 2019. The protocols and the number of samples are those of the lists of Liu, Wang, Li, Lin,
"Semantics-aware adaptive knowledge distillation for sensor-to-vision action recognition", TIP 2021.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kd_edge.data.dataset import ImageFormat, Probe, Sample, SignalFormat, Split, listed, require_modality
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.readers.kinect import held, walk
from kd_edge.data.readers.sensor_files import VERSION, Columns, read_signal
from kd_edge.data.readers.video import decoder_key, read_video, video_info
from kd_edge.data.splits import check_split, require_split
from kd_edge.errors import DataError, did_you_mean
from kd_edge.types import Clip

LABELS = (
    "carrying", "checking_time", "closing", "crouching", "entering", "exiting", "fall", "jumping", "kicking",
    "loitering", "looking_around", "opening", "picking_up", "pointing", "pulling", "pushing", "running",
    "setting_down", "standing", "talking", "talking_on_phone", "throwing", "transferring_object", "using_phone",
    "walking", "waving_hand", "drinking", "pocket_in", "pocket_out", "sitting", "sitting_down", "standing_up",
    "talking_on_phone_desk", "using_pc", "using_phone_desk", "carrying_heavy", "carrying_light",
)  # fmt: skip
"""Names of the complete data set's actions, in its order."""

DESK_SCENE = 3
"""Scene with ``using_phone`` and ``talking_on_phone`` at a desk, which are separate classes under equal file names."""

TEST_SUBJECTS = frozenset({17, 18, 19, 20})
TEST_CAMERA, TEST_SCENE, TEST_SESSION = 4, 2, 5
"""Test sides of the protocols; everything else trains. Scene 2 is the one with occlusion."""

OFFICIAL_SIDES = {
    "cross_subject": (27_754, 7_408),
    "cross_view": (26_458, 8_704),
    "cross_scene": (25_078, 10_084),
    "cross_session": (28_232, 6_930),
}
"""Training and test samples, counted from the published lists: 35,162 in all."""

FORMATS = {
    "acc_phone": SignalFormat("m/s^2", (-78.4532, 78.4532), 100.0),
    "acc_watch": SignalFormat("m/s^2", (-78.4532, 78.4532), 100.0),
    "gyroscope": SignalFormat("rad/s", (-34.9066, 34.9066), 50.0),
    "orientation": SignalFormat("degree", (-180.0, 360.0), 50.0),
}
"""Units are Android's. The ranges are not published; 8 g and 2000 degree/s are usual for such devices."""

_LAYOUT = "subject1/cam1/scene1/session1/carrying.mp4 and acc_phone_clip/subject1/scene1/session1/carrying.csv"
_FOLDERS = {
    "acc_phone": "acc_phone_clip",
    "acc_watch": "acc_watch_clip",
    "gyroscope": "gyro_clip",
    "orientation": "orientation_clip",
}
_SENSOR_OF = {folder: sensor for sensor, folder in _FOLDERS.items()}
_PART = re.compile(r"(subject|cam|camera|scene|session)[_ -]?0*(\d+)", re.IGNORECASE)
_COLUMNS = Columns(axes=1, time=0, timed=True)


class MMAct:
    """Reader of the official files, in either layout or anywhere below the root; names are case-insensitive.

    The folders on a file's path, in any order, give subject, camera, scene and session; its name is the action. The
    order is ``subject1/cam1/scene1/session1`` in the trimmed release and ``cam1/subject1/scene1/session1`` in the
    challenge. Modalities, if at least one file has them: ``rgb`` (T, H, W, 3) uint8 and the sensors ``acc_phone``,
    ``acc_watch`` (T, 3) in m/s^2, ``gyroscope`` in rad/s, ``orientation`` (azimuth, pitch, roll) in degree. A sensor
    has no view: one file is shared by every camera's sample of a performance, also across the sides of ``cross_view``.
    Its stamps are on its own clock, 0 at the first sample: a trimmed signal is assumed to begin with the video, which
    has no stamp on that clock.

    A sample's id consists of all its parts (``s01_cam1_scene3_session2_carrying``), its trial of scene and session.
    Classes are those of the 37 with samples in this copy, in the official order. Mirroring changes no class.

    Args:
        root: The data set's folder.
        desk: Whether scene 3's ``using_phone`` and ``talking_on_phone`` are separate classes (37 in total); otherwise
            they count as those of the other scenes (35).
        decode_height_px: Higher pictures are scaled down to this height while decoding.
        hash_memo: File that caches content hashes between runs; None hashes the files each time.

    Raises:
        DataError: The folder is missing, empty or of something else.
    """

    name = "mmact"

    def __init__(
        self, root: Path, *, desk: bool = True, decode_height_px: int = 480, hash_memo: Path | None = None
    ) -> None:
        self.root = root
        self._height = decode_height_px
        self._hashes = FileHashes(hash_memo)
        self._found = _recorded(root, desk)
        present = {parts.action for parts in self._found.videos}
        self.labels = tuple(label for label in LABELS if label in present)
        self.flip_labels: tuple[int, ...] | None = tuple(range(len(self.labels)))
        self._parts = {_id(parts): parts for parts in sorted(self._found.videos)}
        self.samples = tuple(self._sample(sample_id, parts) for sample_id, parts in self._parts.items())
        self.sensors = tuple(sensor for sensor in _FOLDERS if self._found.signals[sensor])
        self.modalities = ("rgb", *self.sensors)

    def path(self, sample: Sample, modality: str) -> Path:
        """Return the file of a sample's modality, or its expected path."""
        require_modality(modality, self.modalities, self.name)
        parts = self._parts[sample.id]
        if modality == "rgb":
            return self._found.videos[parts]
        relative = f"subject{parts.subject}/scene{parts.scene}/session{parts.session}/{_file_action(parts)}.csv"
        expected = self.root / _FOLDERS[modality] / relative
        return self._found.signals[modality].get(parts._replace(camera=0), expected)

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip; a video that ends before its header says is damaged. See ``Dataset.open``."""
        path = self.path(sample, modality)
        if modality == "rgb":
            return read_video(path, max_height_px=self._height, whole=True)
        signal = read_signal(path, _COLUMNS, FORMATS[modality].rate_hz)
        assert signal.stamps_ns is not None, "the columns are timed"
        return Clip(signal.values, signal.stamps_ns)

    def probe(self, sample: Sample, modality: str) -> Probe:
        """Read the header of a video, or the whole of a signal. See ``Probed.probe``."""
        if modality == "rgb":
            info = video_info(self.path(sample, modality))
            return Probe(info.frames, max(0, info.frames - 1) / info.fps)
        clip = self.open(sample, modality)
        return Probe(len(clip), clip.seconds)

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the whole file and the decoding; see ``Dataset.content_key``."""
        digest = self._hashes.sha256(self.path(sample, modality))
        return f"{digest}-h{self._height}-{decoder_key()}" if modality == "rgb" else f"{digest}-signal{VERSION}"

    def image_format(self, modality: str) -> ImageFormat:
        """See ``Dataset.image_format``."""
        require_modality(modality, self.modalities, self.name)
        if modality != "rgb":
            raise DataError(f"modality '{modality}' of {self.name} is a signal", "an image modality", "use rgb")
        return ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), 30.0)

    def signal_format(self, sensor: str) -> SignalFormat:
        """See ``Wearables.signal_format``."""
        if sensor not in self.sensors:
            raise DataError(
                f"{self.name} has no sensor '{sensor}'{did_you_mean(sensor, self.sensors)}",
                f"one of {', '.join(self.sensors) or 'none: this copy has no sensor file'}",
                "correct sensors in the recipe, or complete the data set",
            )
        return FORMATS[sensor]

    def gaps(self) -> dict[str, str]:
        """Performances that one camera of this copy has and another lacks; see ``Dataset.gaps``.

        Performances that no camera has are not in the published lists.
        """
        cameras = sorted({parts.camera for parts in self._parts.values()})
        every = {p._replace(camera=camera) for p in self._parts.values() for camera in cameras}
        return {_id(parts): "no video" for parts in sorted(every - self._found.videos.keys())}

    def remarks(self) -> tuple[str, ...]:
        """Counts against the published lists, missing sensors, and irregularities; see ``Dataset.remarks``."""
        official = sum(OFFICIAL_SIDES["cross_view"])
        remarks = [f"{len(self.samples):,} of {official:,} samples of the complete data set"]
        for name, (train, test) in OFFICIAL_SIDES.items():
            split = self._split(name)
            remarks.append(
                f"{name}: {len(split.train):,} of {train:,} training and {len(split.test):,} of {test:,} test samples"
            )
            untested = [
                label for k, label in enumerate(self.labels) if split.test and all(s.label != k for s in split.test)
            ]
            if untested:
                remarks.append(f"{name}: no test sample of {listed(untested)}")
        remarks += self._shared_signals()
        remarks += self._sensor_remarks()
        if self._found.duplicates:
            remarks.append(f"found twice, the first is read: {listed(self._found.duplicates)}")
        if self._found.unknown:
            remarks.append(f"not read, no action of that name: {listed(self._found.unknown)}")
        return tuple(remarks)

    def splits(self) -> tuple[str, ...]:
        """Subjects 1 to 16 / 17 to 20, cameras 1 to 3 / 4, scenes 1, 3, 4 / 2, sessions 1 to 4 / 5."""
        return tuple(OFFICIAL_SIDES)

    def split(self, name: str) -> Split:
        """See ``Dataset.split``. Not every class has test samples in scene 2.

        The paper's cross-session rule (the first 80 % of each subject's sessions train) means sessions 1 to 4 against
        5, according to its lists.
        """
        require_split(name, self.splits(), self.name)
        split = self._split(name)
        check_split(split, self.labels, by_subject=name == "cross_subject")
        return split

    def _sample(self, sample_id: str, parts: _Parts) -> Sample:
        trial = f"scene{parts.scene}_session{parts.session}"
        label = self.labels.index(parts.action)
        return Sample(sample_id, f"subject{parts.subject:02d}", f"cam{parts.camera}", trial, label)

    def _split(self, name: str) -> Split:
        def tests(sample: Sample) -> bool:
            parts = self._parts[sample.id]
            return {
                "cross_subject": parts.subject in TEST_SUBJECTS,
                "cross_view": parts.camera == TEST_CAMERA,
                "cross_scene": parts.scene == TEST_SCENE,
                "cross_session": parts.session == TEST_SESSION,
            }[name]

        test = tuple(s for s in self.samples if tests(s))
        return Split(name, tuple(s for s in self.samples if not tests(s)), test)

    def _shared_signals(self) -> Iterator[str]:
        """Remark on sensor files shared by all cameras, so that test signals of ``cross_view`` are training signals."""
        split = self._split("cross_view")
        trained = {self._parts[s.id]._replace(camera=0) for s in split.train}
        shared = [
            parts
            for parts in (self._parts[s.id]._replace(camera=0) for s in split.test)
            if parts in trained and any(parts in files for files in self._found.signals.values())
        ]
        if shared:
            yield (
                f"cross_view: the signals of {len(shared):,} of {len(split.test):,} test samples are training signals "
                "too, because all cameras share one file: figures of sensors are not test figures"
            )

    def _sensor_remarks(self) -> Iterator[str]:
        filmed = {parts._replace(camera=0): _id(parts) for parts in reversed(self._parts.values())}
        for sensor, files in self._found.signals.items():
            missing = sorted(filmed[parts] for parts in filmed.keys() - files.keys())
            if missing:
                yield f"{sensor} is missing in {len(missing):,} of {len(filmed):,} performances: {listed(missing)}"
        unfilmed = {parts for files in self._found.signals.values() for parts in files} - filmed.keys()
        if unfilmed:
            yield f"not used, sensors without a video: {len(unfilmed):,} performances"


class _Parts(NamedTuple):
    """Parts of a file's path; the camera of a sensor file is 0."""

    subject: int
    camera: int
    scene: int
    session: int
    action: str


class _Recorded(NamedTuple):
    """Videos and signals by their parts; names of duplicate files; names that are not an action."""

    videos: dict[_Parts, Path]
    signals: dict[str, dict[_Parts, Path]]
    duplicates: list[str]
    unknown: list[str]


def _id(parts: _Parts) -> str:
    return f"s{parts.subject:02d}_cam{parts.camera}_scene{parts.scene}_session{parts.session}_{parts.action}"


def _file_action(parts: _Parts) -> str:
    return parts.action.removesuffix("_desk") if parts.scene == DESK_SCENE else parts.action


def _recorded(root: Path, desk: bool) -> _Recorded:
    """Find every video and signal of the data set's actions."""
    found = _Recorded({}, {sensor: {} for sensor in _FOLDERS}, [], [])
    for path in walk(root, f"the folder of MMAct, with {_LAYOUT}"):
        suffix = path.suffix.lower()
        if suffix not in (".mp4", ".avi", ".csv"):
            continue
        folders = path.relative_to(root).parts[:-1]
        sensor = next((_SENSOR_OF[f.lower()] for f in folders if f.lower() in _SENSOR_OF), None)
        parts = _read_parts(folders, path.stem, desk, filmed=suffix != ".csv")
        if parts is None or (suffix == ".csv") != (sensor is not None):
            continue
        name = path.relative_to(root).as_posix()
        files = found.videos if sensor is None else found.signals[sensor]
        if parts.action not in LABELS:
            found.unknown.append(name)
        elif parts in files:
            found.duplicates.append(name)
        else:
            files[parts] = path
    if not found.videos:
        what = "sensor files, but no video" if any(found.signals.values()) else held(root)
        raise DataError(
            f"no MMAct video in {root} (it contains {what})",
            _LAYOUT,
            "give the data set's own folder as --data, or one that contains it as mmact/",
        )
    return found


def _read_parts(folders: tuple[str, ...], stem: str, desk: bool, *, filmed: bool) -> _Parts | None:
    """Parse the folders and the name of a file; None if a part is missing."""
    numbers = {m[1].lower()[:3]: int(m[2]) for m in map(_PART.fullmatch, folders) if m}  # sub, cam, sce, ses
    if not {"sub", "sce", "ses"} <= numbers.keys() or (filmed and "cam" not in numbers):
        return None
    action = re.sub(r"[\s-]+", "_", stem.strip().lower())
    if numbers["sce"] == DESK_SCENE and action in ("using_phone", "talking_on_phone"):
        action += "_desk"
    if not desk:
        action = action.removesuffix("_desk")
    return _Parts(numbers["sub"], numbers["cam"] if filmed else 0, numbers["sce"], numbers["ses"], action)

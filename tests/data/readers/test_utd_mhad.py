from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kd_edge.data.dataset import SignalFormat, Wearables
from kd_edge.data.readers.utd_mhad import LABELS, UtdMhad, depth_clip, sample_of
from kd_edge.errors import DataError
from tests.recordings import absent


def test_time_comes_first_and_modalities_share_their_seconds(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    sample = dataset.samples[0]
    assert (sample.id, sample.subject, sample.trial, sample.label) == ("a1_s1_t1", "1", "1", 0)
    assert dataset.modalities == ("depth", "pose", "pose_centred", "skeleton", "inertial", "accelerometer", "gyroscope")
    stored = scipy.io.loadmat(small_utd / "Depth" / "a1_s1_t1_depth.mat")["d_depth"]
    depth = dataset.open(sample, "depth")
    assert depth.frames.shape == (4, 240, 320)
    assert depth.frames.dtype == np.uint16
    assert depth.frames.flags.c_contiguous
    assert depth.frames[3, 100, 150] == stored[100, 150, 3]
    assert depth.stamps_ns.tolist() == [0, 33_333_333, 66_666_666, 100_000_000]
    inertial = dataset.open(sample, "inertial")
    assert inertial.frames.shape == (9, 6)
    assert inertial.stamps_ns[[0, 4, 8]].tolist() == [0, 50_000_000, 100_000_000]
    skeleton = dataset.open(sample, "skeleton")
    assert skeleton.frames.shape == (4, 20, 3)
    for modality in ("pose", "pose_centred"):
        assert dataset.open(sample, modality).frames.shape == (4, 240, 320, 3)


def test_samples_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "Depth"
    folder.mkdir()
    for name in ("a10_s1_t1", "a2_s1_t1", "a1_s2_t1"):
        (folder / f"{name}_depth.mat").touch()
    assert [s.id for s in UtdMhad(tmp_path).samples] == ["a1_s2_t1", "a2_s1_t1", "a10_s1_t1"]


def test_wrong_folders_say_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        UtdMhad(tmp_path / "nowhere")
    with pytest.raises(DataError, match="it contains nothing"):
        UtdMhad(tmp_path)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DataError, match=r"it contains holiday\.jpg.*Depth/aA_sS_tT_depth\.mat"):
        UtdMhad(tmp_path)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"d_depth": np.zeros((240, 320), np.uint16)}, "shape"),  # no time
        ({"d_depth": np.zeros((320, 240, 3), np.uint16)}, "shape"),  # turned
        ({"d_depth": np.zeros((240, 320, 0), np.uint16)}, "shape"),  # empty
        ({"d_depth": np.zeros((240, 320, 2), np.float64)}, "float64"),  # not a depth image
        ({"d_skel": np.zeros((20, 3, 4))}, "no array 'd_depth'"),  # another file
        ({"d_depth": "text"}, "shape"),
    ],
)
def test_wrong_content_names_the_file(small_utd: Path, values: dict[str, object], reason: str) -> None:
    path = small_utd / "Depth" / "a1_s1_t1_depth.mat"
    scipy.io.savemat(path, values)
    dataset = UtdMhad(small_utd)
    with pytest.raises(DataError, match=reason) as caught:
        dataset.open(dataset.samples[0], "depth")
    assert str(path) in caught.value.found


def test_a_joint_that_is_not_a_number_is_damage(small_utd: Path) -> None:
    path = small_utd / "Skeleton" / "a1_s1_t1_skeleton.mat"
    joints = np.zeros((20, 3, 4))
    joints[3, 1, 2] = np.nan
    scipy.io.savemat(path, {"d_skel": joints})
    dataset = UtdMhad(small_utd)
    with pytest.raises(DataError, match="finite"):
        dataset.open(dataset.samples[0], "pose")


@pytest.mark.slow
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3))
@pytest.mark.filterwarnings("ignore")  # SciPy may warn before it gives up
def test_any_damage_is_a_data_error(small_utd: Path, cut: float, flips: list[tuple[float, int]]) -> None:
    path = small_utd / "Skeleton" / "a1_s1_t1_skeleton.mat"
    original = path.read_bytes()
    damaged = bytearray(original[: int(cut * len(original))])
    for place, value in flips if damaged else []:
        damaged[int(place * len(damaged))] = value
    path.write_bytes(damaged)
    dataset = UtdMhad(small_utd)
    try:
        found = dataset.open(dataset.samples[0], "skeleton").frames.shape[1:]
    except DataError as error:
        found = error.found
    path.write_bytes(original)
    assert found == (20, 3) or path.name in found


def test_missing_file_and_unknown_modality(small_utd: Path) -> None:
    (small_utd / "Depth" / "a1_s1_t1_depth.mat").unlink()
    dataset = UtdMhad(small_utd)
    assert len(dataset.samples) == 8  # its skeleton is still there
    with pytest.raises(DataError, match=r"no file .*a1_s1_t1_depth\.mat"):
        dataset.open(dataset.samples[0], "depth")
    with pytest.raises(DataError, match=r"a1_s1_t1_depth\.mat"):
        dataset.content_key(dataset.samples[0], "depth")
    with pytest.raises(DataError, match=r"no modality 'detph' \(did you mean 'depth'\?\)"):
        dataset.open(dataset.samples[0], "detph")
    with pytest.raises(DataError, match="is a signal"):
        dataset.image_format("inertial")


def test_content_key_follows_the_content(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    first, second = dataset.samples[:2]
    before = dataset.content_key(first, "depth")
    assert before != dataset.content_key(second, "depth")
    keys = {dataset.content_key(first, modality) for modality in ("pose", "pose_centred", "skeleton")}
    assert len(keys) == 3
    path = dataset.path(first, "depth")
    path.write_bytes(path.read_bytes() + b"\0")
    assert UtdMhad(small_utd).content_key(first, "depth") != before


def test_the_worn_sensors_are_the_halves_of_the_inertial_file(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    sample = dataset.samples[0]
    assert isinstance(dataset, Wearables)
    assert dataset.sensors == ("accelerometer", "gyroscope")
    stored = scipy.io.loadmat(small_utd / "Inertial" / "a1_s1_t1_inertial.mat")["d_iner"].astype(np.float32)
    for sensor, columns in (("accelerometer", stored[:, :3]), ("gyroscope", stored[:, 3:])):
        clip = dataset.open(sample, sensor)
        assert np.array_equal(clip.frames, columns)
        assert clip.frames.flags.c_contiguous
        assert np.array_equal(clip.stamps_ns, dataset.open(sample, "inertial").stamps_ns)
        with pytest.raises(DataError, match="is a signal"):
            dataset.image_format(sensor)
    assert dataset.signal_format("accelerometer") == SignalFormat("g", (-8.0, 8.0), 79.0)
    assert dataset.signal_format("gyroscope") == SignalFormat("degree/s", (-1000.0, 1000.0), 79.0)
    with pytest.raises(DataError, match=r"'gyroscop' \(did you mean 'gyroscope'\?\)"):
        dataset.signal_format("gyroscop")
    with pytest.raises(DataError, match="no modality 'depth'"):
        dataset.signal_format("depth")


def test_content_key_of_a_signal_covers_what_its_stamps_are_made_from(small_utd: Path) -> None:
    dataset = UtdMhad(small_utd)
    sample = dataset.samples[0]
    before = [dataset.content_key(sample, m) for m in ("inertial", "accelerometer", "gyroscope", "depth")]
    assert len(set(before)) == 4
    scipy.io.savemat(dataset.path(sample, "skeleton"), {"d_skel": np.zeros((20, 3, 7))})
    after = [UtdMhad(small_utd).content_key(sample, m) for m in ("inertial", "accelerometer", "gyroscope", "depth")]
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, False, False, True]
    dataset.path(sample, "skeleton").unlink()
    with pytest.raises(DataError, match=r"a1_s1_t1_skeleton\.mat"):
        UtdMhad(small_utd).content_key(sample, "gyroscope")


def test_mirroring_swaps_swipes_and_circles_and_nothing_else() -> None:
    mirrored = UtdMhad.flip_labels
    assert mirrored is not None
    assert [mirrored[label] for label in mirrored] == list(range(27))
    changed = {LABELS[a]: LABELS[b] for a, b in enumerate(mirrored) if a != b}
    assert changed == {
        "swipe left": "swipe right",
        "swipe right": "swipe left",
        "draw circle clockwise": "draw circle counter-clockwise",
        "draw circle counter-clockwise": "draw circle clockwise",
    }


def test_incomplete_copy_cannot_be_split(small_utd: Path) -> None:
    with pytest.raises(DataError, match=r"no training sample of 'wave'.* and 20 more"):
        UtdMhad(small_utd).split("odd_even")
    with pytest.raises(DataError, match="did you mean 'odd_even'"):
        UtdMhad(small_utd).split("oddeven")


def test_file_names_tell_the_sample() -> None:
    sample = sample_of(Path("somewhere/a27_s8_t3_depth.mat"))
    assert sample is not None
    assert (sample.id, LABELS[sample.label], sample.subject) == ("a27_s8_t3", "squat", "8")
    assert sample_of(Path("film.mat")) is None
    assert sample_of(Path("a28_s1_t1_depth.mat")) is None


def test_rgb_where_there_is_a_folder(small_utd: Path) -> None:
    import cv2

    (small_utd / "RGB").mkdir()
    path = small_utd / "RGB" / "a1_s1_t1_color.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 15, (64, 48))
    for _ in range(3):
        video.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))  # red, in OpenCV's order
    video.release()
    dataset = UtdMhad(small_utd)
    assert dataset.modalities[-1] == "rgb"
    clip = dataset.open(dataset.samples[0], "rgb")
    assert clip.frames.shape == (3, 48, 64, 3)
    assert clip.frames[0, 20, 20, 0] > 230
    assert clip.frames[0, 20, 20, 2] < 20
    assert np.diff(clip.stamps_ns) == pytest.approx(1e9 / 15, rel=1e-3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a1_s1_t1_color\.avi is damaged"):
        dataset.open(dataset.samples[0], "rgb")
    with pytest.raises(DataError, match=r"no file .*a1_s1_t3_color\.avi"):
        dataset.open(dataset.samples[1], "rgb")


def test_the_real_data_set(utd_root: Path) -> None:
    dataset = UtdMhad(utd_root)
    if len(dataset.samples) < 861:
        absent(f"only {len(dataset.samples)} of the 861 samples of UTD-MHAD")
    assert dataset.gaps() == dict.fromkeys(("a8_s1_t4", "a23_s6_t4", "a27_s8_t4"), "never recorded")
    sides = {name: (len(dataset.split(name).train), len(dataset.split(name).test)) for name in dataset.splits()}
    assert sides["trials"] == (432, 429)
    assert sides["odd_even"] == (431, 430)
    assert sides["subject_1"] == (754, 107)
    acceleration = [dataset.open(s, "accelerometer") for s in dataset.samples[::100]]
    assert np.median([np.linalg.norm(c.frames, axis=1).mean() for c in acceleration]) == pytest.approx(1.1, abs=0.2)
    clip = depth_clip(utd_root / "Depth" / "a1_s1_t1_depth.mat")
    assert clip.frames.shape == (48, 240, 320)
    assert os.path.commonpath([dataset.path(dataset.samples[0], "depth"), utd_root]) == str(utd_root)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge.adapt import clips as watching
from kd_edge.adapt.clips import (
    MOST_WINDOWS,
    Watched,
    clips_of_class,
    clips_to_keep,
    findings,
    moments,
    watch,
    windows,
)
from kd_edge.artifact import Artifact
from kd_edge.engines import open_engine
from kd_edge.errors import ArtifactError, CameraError, DataError
from kd_edge.runtime import Recognizer
from kd_edge.types import Clip, Image, Reason
from tests.adapt.conftest import FPS, waving, write_clips


def nothing(done: int, total: int) -> None:
    """Nobody is told."""


def stamps(count: int, fps: float = 10.0) -> np.ndarray:
    return np.round(np.arange(count) * 1e9 / fps).astype(np.int64)


def test_moments_lie_a_spacing_apart_up_to_the_end(student: Artifact) -> None:
    manifest = student.manifest  # eight segments, 0.2 s apart
    assert moments(stamps(15), manifest).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert moments(stamps(17), manifest).tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert moments(stamps(18), manifest).tolist() == [0, 1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert moments(stamps(14), manifest).tolist() == [0, 1, 3, 5, 7, 9, 11, 13]  # half a spacing may be lacking
    assert moments(stamps(13), manifest).tolist() == []
    assert moments(stamps(1), manifest).tolist() == []


def test_of_a_long_clip_the_middle_is_seen(student: Artifact) -> None:
    at = moments(stamps(1001), student.manifest)
    assert len(at) == 7 + MOST_WINDOWS
    assert np.diff(at).tolist() == [2] * (len(at) - 1)
    assert abs((at[0] + at[-1]) / 2 - 500) <= 2


def test_a_clip_with_a_gap_has_no_window(student: Artifact) -> None:
    whole = stamps(20)
    assert len(moments(whole, student.manifest)) == 11
    assert len(moments(np.delete(whole, [8, 9, 10, 11]), student.manifest)) == 0


def test_windows_are_those_of_a_stream(student: Artifact) -> None:
    clip = Clip(waving(0, 2.4), np.round(np.arange(72) * 1e9 / FPS).astype(np.int64))
    with open_engine(student) as engine:
        seen = windows(engine, clip)
    with Recognizer.load(student, smooth_ms=0) as recognizer:
        last = [recognizer.push(frame, int(stamp)) for frame, stamp in zip(clip.frames, clip.stamps_ns, strict=True)][
            -1
        ]
    assert len(seen) == 6
    feature, logits = seen[-1]
    assert (feature.shape, logits.shape) == ((24,), (10,))
    odds = np.exp((logits - logits.max()) / student.manifest.temperature)
    assert last is not None
    # the stream keeps each frame's feature, and the percentile window has seen the frames between: all the same here
    np.testing.assert_allclose(last.probabilities, odds / odds.sum(), atol=1e-4)


def test_clips_are_counted_by_those_that_fill_a_window(student: Artifact, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "wave", 3)
    np.save(folder / "subject9_trial0_nir.npy", waving(9, 1.0))
    recorded = clips_of_class(folder, "wave", 10, student.manifest)
    told = []
    with open_engine(student) as engine:
        watched = watch(engine, recorded, lambda done, total: told.append((done, total)))
    assert (watched.shorter, watched.labels.tolist(), watched.subjects) == (1, [10, 10, 10], ("0", "1", "2"))
    assert np.bincount(watched.clips).tolist() == [4, 4, 4]  # eleven segments, the first half a spacing early
    assert watched.features.shape == (12, 24)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_clips_answer_is_that_of_its_mean_logits() -> None:
    logits = np.array([[3, 0], [0, 1], [0, 1]], dtype=np.float32)
    watched = Watched(
        np.zeros((3, 1), np.float32), logits, np.array([0, 0, 1]), np.array([0, 0]), ("", ""), np.ones(3, bool)
    )
    assert watched.clip_logits().tolist() == [[1.5, 0.5], [0.0, 1.0]]
    assert watched.answers().tolist() == [0, 1]
    assert watched.accuracy() == 0.5
    assert watched.window_labels.tolist() == [0, 0, 0]


def test_kept_clips_have_the_models_classes(student: Artifact, keep: Path) -> None:
    recorded = clips_to_keep(keep, student.manifest, [])
    assert sorted(set(recorded.labels)) == list(range(10))
    names = [recorded.dataset.labels[sample.label] for sample in recorded.samples]
    assert names == [student.manifest.labels[label] for label in recorded.labels]


def test_clips_of_what_is_added_are_not_kept(student: Artifact, tmp_path: Path) -> None:
    for name in ("clap", "wave"):
        write_clips(tmp_path / name, 2)
    recorded = clips_to_keep(tmp_path, student.manifest, ["wave"])
    assert recorded.labels == (9, 9)
    with pytest.raises(DataError, match="'wave'"):
        clips_to_keep(tmp_path, student.manifest, [])


def test_names_and_folders_below_a_class_are_part_of_its_clips(student: Artifact, tmp_path: Path) -> None:
    for name in ("wave_anna_1_nir", "wave_ben_1_nir", "deeper/wave_anna_2_nir"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", waving(0))
    recorded = clips_of_class(tmp_path, "wave", 10, student.manifest)
    assert recorded.dataset.labels == ("wave",)
    assert len(recorded.samples) == 3


def test_a_manifest_beside_the_clips_says_where_they_begin(student: Artifact, tmp_path: Path) -> None:
    np.save(tmp_path / "long_nir.npy", waving(0, 6.0))
    rows = ["id,label,nir,start_s,end_s", "1,point,long_nir.npy,0,2.5", "2,,long_nir.npy,3,5.5"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    recorded = clips_of_class(tmp_path, "wave", 10, student.manifest)
    assert [len(recorded.dataset.open(sample, "nir")) for sample in recorded.samples] == [75, 75]


@pytest.mark.parametrize(
    ("name", "array", "toml", "found"),
    [
        ("a_depth.npy", waving(0, dtype="uint16"), "", r"depth \(depth\).*uint8 frames of nir"),
        ("a_rgb.npy", np.repeat(waving(0)[..., None], 3, axis=3), "", r"rgb \(rgb\).*uint8 frames of nir"),
        ("a_nir.npy", waving(0), "[modality.nir]\nrange = [0, 100]", "values from 0 to 100.*0 to 255 intensity"),
        ("a_acc.csv", "0,0,9.8\n" * 50, "", "no pictures"),
    ],
)
def test_other_bands_and_ranges_are_refused(student, tmp_path, name, array, toml, found) -> None:
    if isinstance(array, str):
        (tmp_path / name).write_text(array)
    else:
        np.save(tmp_path / name, array)
    if toml:
        (tmp_path / "dataset.toml").write_text(toml)
    with pytest.raises(DataError, match=found):
        clips_of_class(tmp_path, "wave", 10, student.manifest)


@pytest.mark.parametrize(
    ("array", "error", "found"),
    [
        (waving(0, dtype="uint16"), CameraError, "uint16"),
        (np.zeros((60, 1, 80), dtype=np.uint8), CameraError, "frames of 80x1"),
        (waving(0, 1.0), DataError, r"all 1 clips in .* are shorter than the model's window of 1\.6 s"),
        (b"no array", DataError, "a_nir.npy"),
    ],
)
def test_clips_that_are_no_use_are_refused(student, tmp_path, array, error, found) -> None:
    if isinstance(array, bytes):
        (tmp_path / "a_nir.npy").write_bytes(array)
    else:
        np.save(tmp_path / "a_nir.npy", array)
    with open_engine(student) as engine, pytest.raises(error, match=found):
        watch(engine, clips_of_class(tmp_path, "wave", 10, student.manifest), nothing)


def test_an_empty_folder_and_none_are_refused(student: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no recording"):
        clips_of_class(tmp_path, "wave", 10, student.manifest)
    with pytest.raises(DataError, match="no folder"):
        clips_of_class(tmp_path / "none", "wave", 10, student.manifest)


def still(seed: int) -> Image:
    return np.repeat(waving(seed, 0.1)[:1], 60, axis=0)


def test_a_damaged_clip_is_named_and_must_go(student: Artifact, tmp_path: Path) -> None:
    write_clips(tmp_path / "wave", 1)
    (tmp_path / "wave" / "subject7_trial0_nir.npy").write_bytes(b"no array")
    with open_engine(student) as engine, pytest.raises(DataError) as told:
        watch(engine, clips_of_class(tmp_path / "wave", "wave", 10, student.manifest), nothing)
    assert "subject7_trial0_nir.npy is damaged" in told.value.found
    assert told.value.fix == "record it again, or take it out of the folder"


@pytest.mark.parametrize(
    ("frames", "why"),
    [(lambda seed: np.zeros((60, 64, 80), dtype=np.uint8), "dark: mean 0 below"), (still, "static: not a pixel")],
)
def test_clips_that_show_nothing_are_refused_and_said_why(student: Artifact, tmp_path: Path, frames, why: str) -> None:
    for k in range(4):
        np.save(tmp_path / f"subject{k}_nir.npy", frames(k))
    np.save(tmp_path / "subject4_nir.npy", waving(4, 1.0))
    message = rf"in 4 of 5 clips in .* there is nothing to see \({why}.*\), 1 are too short"
    with open_engine(student) as engine, pytest.raises(DataError, match=message):
        watch(engine, clips_of_class(tmp_path, "wave", 10, student.manifest), nothing)


def test_one_that_shows_nothing_is_left_out_and_counted(student: Artifact, tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "wave", 3)
    np.save(folder / "subject9_trial0_nir.npy", np.zeros((60, 64, 80), dtype=np.uint8))
    with open_engine(student) as engine:
        watched = watch(engine, clips_of_class(folder, "wave", 10, student.manifest), nothing)
    assert (watched.empty, watched.shorter, watched.subjects) == (1, 0, ("0", "1", "2"))
    assert watched.cause.startswith("dark: mean 0 below")
    assert watched.healthy.shape == (12,)


def test_findings_are_those_of_a_stream(student: Artifact) -> None:
    frames = np.concatenate([waving(0, 1.7), np.zeros((20, 64, 80), dtype=np.uint8)])
    clip = Clip(frames, np.round(np.arange(len(frames)) * 1e9 / FPS).astype(np.int64))
    found = findings(clip, student.manifest)
    with Recognizer.load(student, smooth_ms=0) as recognizer:
        told = [recognizer.push(frame, int(stamp)) for frame, stamp in zip(frames, clip.stamps_ns, strict=True)]
    ends = moments(clip.stamps_ns, student.manifest)[student.manifest.segments - 1 :]
    assert found[0].cause.reason is not Reason.DARK
    assert found[-1].cause.reason is Reason.DARK
    for end, finding in list(zip(ends, found, strict=True))[1:]:
        prediction = told[end]
        assert prediction is not None
        assert (finding.cause.reason is Reason.DARK) == (prediction.reason is Reason.DARK)


def test_what_is_no_number_is_refused(student: Artifact, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = watching.windows

    def broken(engine, clip):
        return [(feature * np.nan, logits) for feature, logits in good(engine, clip)]

    monkeypatch.setattr(watching, "windows", broken)
    with (
        open_engine(student) as engine,
        pytest.raises(ArtifactError, match=r"gives values that are not finite on .*subject0"),
    ):
        watch(engine, clips_of_class(clips, "wave", 10, student.manifest), nothing)

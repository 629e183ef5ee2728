"""A thermal array's recordings the whole way: exported, watched whole as a stream, replayed as a camera."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data import FirActionData
from kd_edge.data.readers.fir_action import LABELS, FirAction
from kd_edge.data.readers.thermal_csv import read_thermal
from kd_edge.errors import BrokenOffError, CameraError, ConfigError, DataError
from kd_edge.evaluate import evaluate
from kd_edge.evaluate.joined import JoinedStream
from kd_edge.models import ModelConfig
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import stream
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.window import RelativeWindow
from tests.runs import write_run
from tests.runtime.cameras.test_replay import read_all
from tests.thermal import CLIMBING, FRAMES, csv_lines, write_csv, write_set


@pytest.fixture(scope="module")
def fir_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "fir-action"
    write_set(root)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, fir_root: Path) -> Path:
    """An artifact of a student of 16 x 16 pixels with random weights."""
    from kd_edge import recipes
    from kd_edge.export.exporter import export
    from kd_edge.export.profile import ExportProfile

    spec = Preprocess(
        resize_px=16,
        input_px=16,
        motion_offsets_ms=(0, 100, 200),
        window=RelativeWindow(low=28_000, high=31_500, span=400.0),
        std=(0.1,),
    )
    folder = tmp_path_factory.mktemp("run")
    run = write_run(
        folder / "run",
        model=ModelConfig(backbone="cnn4_grid", temporal="tconv", hidden=8),
        preprocess=spec,
        segments=4,
        clip_seconds=0.4,
        labels=LABELS,
        modality="fir",
        data=FirActionData(),
        image_format=asdict(FirAction(fir_root).image_format("fir")),
        split="day_20170203",
    )
    return export(
        run, recipes.load("export", "fp32", ExportProfile), folder / "fir.onnx", data_root=fir_root
    ).artifact.path


def test_recordings_are_watched_whole(model: Path, fir_root: Path) -> None:
    result = evaluate(model, data_root=fir_root, streaming=True)
    stream = result.streaming
    assert stream is not None
    assert (result.clip.clips, stream.every.clips) == (10, 10)  # two recordings of five actions
    assert stream.frames == 2 * (FRAMES - CLIMBING)
    assert stream.unlabelled == 0  # each has seen enough before
    assert stream.live.changes == 2 * 4
    with pytest.raises(ConfigError, match=r"3 random orders of fir_action, whose recordings are watched whole"):
        evaluate(model, data_root=fir_root, orders=3)


def test_each_action_is_scored_by_the_last_label_inside_it(model: Path, fir_root: Path) -> None:
    """Against a recogniser that is pushed the same frames here."""
    from kd_edge import artifact
    from kd_edge.runtime import Recognizer

    dataset = FirAction(fir_root)
    group = dataset.sequences(dataset.split("day_20170203").test)[1]
    clip, actions = dataset.sequence(group, "fir")
    loaded = artifact.load(model)
    with JoinedStream(loaded, threads=1) as stream:
        stream.watch_sequence("one", clip, actions)
        score = stream.score()
    recognizer = Recognizer.load(model)
    said = [recognizer.push(image, int(t)) for image, t in zip(clip.frames, clip.stamps_ns, strict=True)]
    recognizer.close()
    inside = [[p.index for p in said[a.start : a.end + 1] if p is not None and p.index >= 0] for a in actions]
    right = [indices[-1] == action.label for indices, action in zip(inside, actions, strict=True)]
    assert score.every.accuracy == pytest.approx(np.mean(right))
    assert (score.every.clips, score.frames) == (5, len(clip))


def test_a_recording_that_cannot_be_read_is_left_out(model: Path, fir_root: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "fir")
    (tmp_path / "fir" / "20170203" / "raw" / "20170203_p1_dark1.csv").write_text("2017\nnothing\n")
    result = evaluate(model, data_root=tmp_path / "fir", streaming=True)
    assert len(result.skipped) == 5
    assert result.streaming is not None
    assert (result.streaming.every.clips, result.streaming.frames) == (5, FRAMES - CLIMBING)


def test_a_recording_is_replayed_from_when_its_sensor_has_settled(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv")
    camera = open_camera(f"replay:{path}", Wanted("lwir", "uint16", 1))
    assert (camera.band, camera.dtype, camera.channels) == ("lwir", "uint16", 1)
    frames, whole = read_all(camera), read_thermal(path)
    np.testing.assert_array_equal([f.image for f in frames], whole.frames[CLIMBING:])
    assert [f.captured_ns for f in frames] == whole.stamps_ns[CLIMBING:].tolist()
    even = read_all(open_camera(f"replay:{path}?fps=4"))
    assert [f.captured_ns for f in even[:3]] == [0, 250_000_000, 500_000_000]


def test_a_damaged_line_ends_a_replay_after_the_frames_before_it(tmp_path: Path) -> None:
    lines = csv_lines()
    lines[41] = lines[41].replace(",20.0000", ",hot", 1)
    (tmp_path / "x.csv").write_text("\n".join(lines))
    camera = open_camera(f"replay:{tmp_path}/x.csv")
    for _ in range(39 - CLIMBING):  # lines 3 to 41 are frames
        assert camera.read(1.0) is not None
    with pytest.raises(BrokenOffError, match=r"x\.csv, line 42: pixel 0 is 'hot'\. Expected deg C"):
        camera.read(1.0)
    assert camera.ended
    (tmp_path / "y.csv").write_text("\n".join(csv_lines(0)))
    with pytest.raises(DataError, match=r"y\.csv, line 3: no frame"):
        open_camera(f"replay:{tmp_path}/y.csv")


def test_labels_come_from_a_replayed_recording(model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv")
    with stream(model=model, camera=f"replay:{tmp_path}/x.csv") as predictions:
        said = list(predictions)
    assert len(said) == FRAMES - CLIMBING
    labelled = [p for p in said if p.index >= 0]
    assert {p.label for p in labelled} <= {*LABELS, None}
    assert [p.captured_ns for p in said[-5:]] == (read_thermal(tmp_path / "x.csv").stamps_ns[-5:]).tolist()
    assert len(labelled) >= len(said) - 12  # until window and motion stack are full, and after the gap


def test_a_camera_of_another_kind_is_refused(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", np.zeros((9, 16, 16), np.uint8))
    with pytest.raises(CameraError, match="uint8"), stream(model=model, camera=f"replay:{tmp_path}/grey.npy") as labels:
        next(iter(labels))

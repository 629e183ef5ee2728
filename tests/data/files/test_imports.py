"""Lists of other tools, as they write them, become a manifest; what is wrong with them is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.imports import Imported, foreign, import_rows
from kd_edge.data.readers.files.rows import Row
from kd_edge.data.readers.files.writing import write_manifest
from kd_edge.errors import ConfigError, DataError
from tests.data.files.conftest import Folder

Piece = tuple[str, str, str, float, float | None]


def told(found: Imported, modality: str = "rgb") -> list[Piece]:
    """Label, file, side and piece of each row."""
    return [(row.label, str(row.files[modality]), row.split, row.start_s, row.end_s) for row in found.rows]


def imported(folder: Folder, *names: str, **options: Any) -> Imported:
    return import_rows([folder.root / name for name in names], **options)


def videos(folder: Folder, *names: str) -> None:
    """Files that are there; nobody looks into them."""
    for name in names:
        folder.text(name, "x")


# ------------------------------------------------------------------------------------------------- text lists


def test_lists_of_videos_with_numbers(folder: Folder) -> None:
    videos(folder, "v/a.mp4", "v/b c.mp4", "v/d.avi")
    folder.text("kinetics_train_list_videos.txt", "v/a.mp4 1\nv/b c.mp4 0\n\n")
    folder.text("kinetics_val_list_videos.txt", "v/d.avi 1\n")
    folder.text("label_map.txt", "abseiling\nair drumming\n")
    names = ("kinetics_train_list_videos.txt", "kinetics_val_list_videos.txt")
    found = imported(folder, *names, names=folder.root / "label_map.txt")
    assert told(found) == [
        ("air drumming", "v/a.mp4", "train", 0.0, None),
        ("abseiling", "v/b c.mp4", "train", 0.0, None),
        ("air drumming", "v/d.avi", "val", 0.0, None),
    ]
    assert [row.id for row in found.rows] == ["v/a", "v/b c", "v/d"]
    assert set(found.kinds.values()) == {"a list of videos"}
    without = imported(folder, *names)
    assert [row.label for row in without.rows] == ["1", "0", "1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v/a.mp4 wave\nv/b c.mp4 sit to stand\n", ["wave", "sit to stand"]),
        ("v/a.mp4,wave\nv/b c.mp4,\n", ["wave", ""]),
        ("v/a.mp4;wave, twice\nv/b c.mp4;x\n", ["wave, twice", "x"]),
        ("v/a.mp4\twave\r\nv/b c.mp4\tsit  down\r\n", ["wave", "sit  down"]),
        ("v/a.mp4 -1\nv/b c.mp4\n", ["", ""]),
        ("\ufeffv/a.mp4 3\nv/b c.mp4 4\n", ["3", "4"]),
    ],
)
def test_what_stands_between_path_and_label(folder: Folder, text: str, expected: list[str]) -> None:
    videos(folder, "v/a.mp4", "v/b c.mp4")
    folder.text("list.csv", text)
    found = imported(folder, "list.csv", modality="ir")
    assert [(row.label, str(row.files["ir"])) for row in found.rows] == list(
        zip(expected, ("v/a.mp4", "v/b c.mp4"), strict=True)
    )


def test_absolute_paths_are_named_from_the_root(folder: Folder) -> None:
    videos(folder, "v/a.mp4", "v/b.mp4")
    folder.text("lists/train.csv", f"{folder.root}/v/a.mp4 0\n{folder.root}/v/b.mp4 1\n")
    found = imported(folder, "lists/train.csv", root=folder.root)
    assert [str(row.files["rgb"]) for row in found.rows] == ["v/a.mp4", "v/b.mp4"]
    with pytest.raises(DataError, match=r"lies outside the folder.*--root names the folder of the files"):
        imported(folder, "lists/train.csv")


def images(folder: Folder, name: str, count: int) -> None:
    videos(folder, *(f"{name}/img_{k:05}.jpg" for k in range(1, count + 1)))


def test_lists_of_folders_of_images(folder: Folder) -> None:
    images(folder, "frames/one", 10)
    images(folder, "frames/two", 6)
    folder.text("train_videofolder.txt", "frames/one 10 3\nframes/two 5 4\n")
    folder.text("dataset.toml", "[modality.rgb]\nfps = 10")
    found = imported(folder, "train_videofolder.txt")
    assert told(found) == [("3", "frames/one", "train", 0.0, None), ("4", "frames/two", "train", 0.0, 0.45)]
    folder.text("offsets.txt", "frames/one 0 4 wave\nframes/one 4 6 sit\n")
    assert told(imported(folder, "offsets.txt")) == [
        ("wave", "frames/one", "", 0.0, 0.35),
        ("sit", "frames/one", "", 0.35, None),
    ]


def test_the_frames_that_a_list_names_are_those_that_are_read(folder: Folder) -> None:
    folder.clip("frames.npy", frames=100)
    write_manifest(
        [
            Row("a", "wave", {"ir": Path("frames.npy")}, start_s=(40 - 0.5) / 29.97, end_s=(40 + 7 - 0.5) / 29.97),  # type: ignore[dict-item]
            Row("b", "sit", {"ir": Path("frames.npy")}, start_s=(90 - 0.5) / 29.97),  # type: ignore[dict-item]
        ],
        folder.root / "manifest.csv",
    )
    folder.text("dataset.toml", "[modality.ir]\nfps = 29.97")
    dataset = folder.open()
    frames = [dataset.open(sample, "ir").frames[:, 0, 0].tolist() for sample in dataset.samples]
    assert frames == [list(range(40, 47)), list(range(90, 100))]


# ------------------------------------------------------------------------------------------------- ActivityNet


ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [{"nodeName": "Wave", "nodeId": 1, "parentName": "Root", "parentId": 0}],
    "database": {
        "abc": {
            "duration": 60.0,
            "subset": "training",
            "resolution": "320x240",
            "url": "https://example.org/abc",
            "annotations": [
                {"label": "Wave", "segment": [1.5, 4.25]},
                {"label": "Sit down", "segment": [50.0, 60.4]},
                {"label": "Wave", "segment": [1.5, 4.25]},
            ],
        },
        "d-e": {"duration": 9.0, "subset": "validation", "annotations": [{"label": "Wave", "segment": [0, 9]}]},
        "hidden": {"duration": 9.0, "subset": "testing", "annotations": []},
    },
}


def test_activitynet(folder: Folder) -> None:
    videos(folder, "videos/v_abc.mp4", "videos/more/d-e.mkv")
    folder.text("activity_net.v1-3.min.json", json.dumps(ACTIVITYNET))
    found = imported(folder, "activity_net.v1-3.min.json")
    assert told(found) == [
        ("Wave", "videos/v_abc.mp4", "train", 1.5, 4.25),
        ("Sit down", "videos/v_abc.mp4", "train", 50.0, 60.0),
        ("Wave", "videos/more/d-e.mkv", "val", 0.0, 9.0),
    ]
    assert found.remarks == ("videos without annotations, left out: 1", "duplicate rows: 1")
    folder.text("bare.json", json.dumps(ACTIVITYNET["database"]))
    assert told(imported(folder, "bare.json")) == told(found)


def test_lengths_of_videos_may_be_texts_of_numbers(folder: Folder) -> None:
    videos(folder, "a.mp4")
    video = {"duration": "60.5", "annotations": [{"label": "x", "segment": ["50", "60.8"]}]}
    folder.text("anet.json", json.dumps({"a": video}))
    assert told(imported(folder, "anet.json")) == [("x", "a.mp4", "", 50.0, 60.5)]
    folder.text("anet.json", json.dumps({"a": {**video, "duration": "long"}}))
    with pytest.raises(DataError, match="video a: duration 'long' is not a number of seconds"):
        imported(folder, "anet.json")


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ([0.5, 2.9], "line 1: a piece from 0.5 s to 2.9 s of a.npy, which ends at 1.967 s"),
        ([2.0, 2.2], "line 1: a piece from 2 s to 2.2 s of a.npy, which ends at 1.967 s"),
        ([0.5, 2.4], ""),
    ],
)
def test_pieces_lie_inside_the_recordings_that_are_there(folder: Folder, segment: list[float], message: str) -> None:
    folder.clip("a.npy", frames=60)
    folder.text("anet.json", json.dumps({"a": {"annotations": [{"label": "x", "segment": segment}]}}))
    if not message:
        assert told(imported(folder, "anet.json")) == [("x", "a.npy", "", *segment)]
        return
    with pytest.raises(DataError) as error:
        imported(folder, "anet.json")
    assert message in str(error.value)


def test_comments_of_lists_are_left_out_and_files_that_begin_like_them_are_not(folder: Folder) -> None:
    videos(folder, "#1 a.mp4", "b.mp4")
    folder.text("list.txt", "# name, class\n#b.mp4 3\n#1 a.mp4 1\nb.mp4 2\n")
    found = imported(folder, "list.txt")
    assert [(str(row.files["rgb"]), row.label) for row in found.rows] == [("#1 a.mp4", "1"), ("b.mp4", "2")]
    assert found.remarks == ("lines that begin with # and name no file, left out: 2",)


def test_only_line_ends_end_the_lines_of_a_list(folder: Folder) -> None:
    videos(folder, "a\u2028b.mp4", "c\x0cd.mp4")
    folder.text("list.txt", "a\u2028b.mp4 1\nc\x0cd.mp4 2\n")
    assert [str(row.files["rgb"]) for row in imported(folder, "list.txt").rows] == ["a\u2028b.mp4", "c\x0cd.mp4"]


def test_backslashes_are_told(folder: Folder) -> None:
    videos(folder, "v/a.mp4")
    folder.text("list.txt", "v\\a.mp4 1\n")
    with pytest.raises(DataError, match=r"line 1: no rgb file v\\a\.mp4, but one with / instead of"):
        imported(folder, "list.txt")


def test_blanks_around_a_label_make_no_other_class(folder: Folder) -> None:
    videos(folder, "a.mp4", "b.mp4")
    pieces = {
        name: {"annotations": [{"label": label, "segment": [0, 1]}]}
        for name, label in zip("ab", (" x ", "x"), strict=True)
    }
    folder.text("anet.json", json.dumps(pieces))
    assert [row.label for row in imported(folder, "anet.json").rows] == ["x", "x"]


def test_videos_that_are_gone_may_be_left_out(folder: Folder) -> None:
    videos(folder, "videos/abc.mp4")
    folder.text("anet.json", json.dumps(ACTIVITYNET))
    with pytest.raises(DataError, match=r"line 4: no rgb file d-e\.mp4\. .*--skip-missing leaves out"):
        imported(folder, "anet.json")
    found = imported(folder, "anet.json", skip_missing=True)
    assert [row.label for row in found.rows] == ["Wave", "Sit down"]
    assert "missing recordings, left out: 1 of 3" in found.remarks
    with pytest.raises(DataError, match="no recording of"):
        imported(folder, "anet.json", root=folder.text("empty/x.txt", "").parent, skip_missing=True)


# ------------------------------------------------------------------------------------------------- tables


def test_videofolder_with_metadata_in_each_split(folder: Folder) -> None:
    videos(folder, "train/0001.mp4", "train/0002.mp4", "validation/1.mp4")
    folder.text("train/metadata.csv", 'file_name,label,caption\n0001.mp4,wave,"a, b"\n0002.mp4,sit,\n')
    folder.text("validation/metadata.jsonl", '{"file_name": "1.mp4", "label": "wave", "boxes": [1, 2]}\n')
    found = imported(folder, "")
    assert told(found) == [
        ("wave", "train/0001.mp4", "train", 0.0, None),
        ("sit", "train/0002.mp4", "train", 0.0, None),
        ("wave", "validation/1.mp4", "val", 0.0, None),
    ]
    assert found.rows[0].notes == {"caption": "a, b"}
    assert found.remarks == (
        "columns that are kept and not read: caption",
        "columns of lists or tables, left out: boxes",
    )
    assert foreign(folder.root) == "train/metadata.csv"
    with pytest.raises(DataError, match=r"mine is described by train/metadata\.csv.*kd-edge data import .*mine"):
        folder.open()


def test_several_files_a_row_are_modalities(folder: Folder) -> None:
    videos(folder, "a.mp4", "a_ir.mp4", "b.mp4")
    folder.text(
        "metadata.jsonl",
        '{"color_file_name": "a.mp4", "ir_file_name": "a_ir.mp4", "action": "wave", "subject": 7}\n'
        '{"color_file_name": "b.mp4", "ir_file_name": null, "action": "sit", "subject": 8}\n',
    )
    found = imported(folder, "metadata.jsonl")
    assert [{name: str(path) for name, path in row.files.items()} for row in found.rows] == [
        {"color": "a.mp4", "ir": "a_ir.mp4"},
        {"color": "b.mp4"},
    ]
    assert [row.subject for row in found.rows] == ["7", "8"]


def test_folders_are_classes_where_no_column_is(folder: Folder) -> None:
    videos(folder, "train/wave/1.mp4", "train/sit/1.mp4")
    folder.text("metadata.csv", "file_name,caption\ntrain/wave/1.mp4,x\ntrain/sit/1.mp4,y\n")
    assert [row.label for row in imported(folder, "").rows] == ["wave", "sit"]
    assert foreign(folder.root) == ""
    assert folder.open().labels == ("sit", "wave")


def test_parquet_knows_the_names_of_its_classes(folder: Folder) -> None:
    videos(folder, "1.mp4", "2.mp4")
    features = {"label": {"names": ["sit", "wave"], "_type": "ClassLabel"}, "file_name": {"_type": "Value"}}
    table = pa.table({"file_name": ["1.mp4", "2.mp4"], "label": [1, 0]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, folder.root / "metadata.parquet")
    assert [row.label for row in imported(folder, "").rows] == ["wave", "sit"]


def test_a_table_with_a_manifests_columns(folder: Folder) -> None:
    videos(folder, "v/1.mp4")
    folder.text(
        "clips.tsv", "video\tclass\tsubject\tstart_s\tend_s\n1.mp4\twave\tanna\t1\t2.5\n1.mp4\tsit\tanna\t3\t4\n"
    )
    found = imported(folder, "clips.tsv", root=folder.root / "v")
    assert told(found) == [("wave", "1.mp4", "", 1.0, 2.5), ("sit", "1.mp4", "", 3.0, 4.0)]
    assert found.rows[0].subject == "anna"


# ------------------------------------------------------------------------------------------------- lerobot


def info(version: str, **changes: Any) -> str:
    camera = {"dtype": "video", "shape": [40, 48, 3], "names": ["height", "width", "channels"]}
    values = {
        "codebase_version": version,
        "fps": 10,
        "chunks_size": 1000,
        "splits": {"train": "0:4"},
        "features": {
            "observation.images.top": {**camera, "info": {"video.is_depth_map": False}},
            "observation.images.wrist_depth": {**camera, "info": {"video.is_depth_map": True}},
            "observation.state": {"dtype": "float32", "shape": [7]},
            "timestamp": {"dtype": "float32", "shape": [1]},
        },
    }
    return json.dumps(values | changes)


def test_lerobot_two(folder: Folder) -> None:
    folder.text("meta/info.json", info("v2.1", splits={"train": "0:2", "test": "2:3"}, chunks_size=2))
    folder.text(
        "meta/episodes.jsonl",
        '{"episode_index": 0, "tasks": ["pick up the cube"], "length": 5}\n'
        '{"episode_index": 1, "tasks": ["pick", "place"], "length": 5}\n'
        '{"episode_index": 2, "tasks": ["place"], "length": 5}\n',
    )
    for chunk, number in ((0, 0), (0, 1), (1, 2)):
        for key in ("top", "wrist_depth"):
            videos(folder, f"videos/chunk-{chunk:03d}/observation.images.{key}/episode_{number:06d}.mp4")
    found = imported(folder, "")
    top = "videos/chunk-{}/observation.images.top/episode_{}.mp4"
    assert told(found, "top") == [
        ("pick up the cube", top.format("000", "000000"), "train", 0.0, None),
        ("place", top.format("001", "000002"), "test", 0.0, None),
    ]
    assert [row.id for row in found.rows] == ["episode_000000", "episode_000002"]
    assert found.remarks == (
        "episodes of several tasks, left out: 1",
        "features other than videos, left out: observation.state",
        "wrist_depth is depth: set band below [modality.wrist_depth] in dataset.toml",
    )
    with pytest.raises(DataError, match=r"is described by meta/info\.json"):
        folder.open()


def write_three(folder: Folder, write_video: Callable[..., Path]) -> None:
    """Four episodes of six frames; the wrist's file begins with another episode, so that its pieces lie later."""
    path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mkv"
    folder.text("meta/info.json", info("v3.0", video_path=path))
    rows: dict[str, list[Any]] = {"episode_index": [0, 1, 2, 3], "tasks": [["pick"], ["place"], ["pick"], ["place"]]}
    rows["stats/timestamp/max"] = [[0.5]] * 4
    for key, first in (("top", 0.0), ("wrist_depth", 1.0)):
        name = f"videos/observation.images.{key}"
        rows |= {
            f"{name}/chunk_index": [0] * 4,
            f"{name}/file_index": [7] * 4,
            f"{name}/from_timestamp": [first + 0.6 * k for k in range(4)],
            f"{name}/to_timestamp": [first + 0.6 * (k + 1) for k in range(4)],
        }
        count, start = 24 + round(10 * first), 0 if first == 0 else -10
        pictures = [np.full((40, 48), 100 + start + k, np.uint8) for k in range(count)]
        target = folder.root / f"videos/observation.images.{key}/chunk-000/file-007.mkv"
        target.parent.mkdir(parents=True)
        write_video(target, pictures, fps=10)
    (folder.root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(rows), folder.root / "meta/episodes/chunk-000/file-000.parquet")


def test_episodes_of_lerobot_three_share_videos(folder: Folder, write_video: Callable[..., Path]) -> None:
    write_three(folder, write_video)
    found = imported(folder, "")
    assert [(row.label, row.start_s, row.end_s) for row in found.rows] == [
        ("pick", 0.0, 0.6),
        ("place", 0.6, 1.2),
        ("pick", 1.2, pytest.approx(1.8)),
        ("place", pytest.approx(1.8), 2.4),
    ]
    assert str(found.rows[0].files["top"]) == "videos/observation.images.top/chunk-000/file-007.mkv"
    write_manifest(found.rows, folder.root / "manifest.csv")
    dataset = Files(folder.root)
    assert dataset.labels == ("pick", "place")
    for k, sample in enumerate(dataset.samples):
        for camera in ("top", "wrist_depth"):
            frames = dataset.open(sample, camera).frames
            assert frames.reshape(len(frames), -1)[:, 0].tolist() == list(range(100 + 6 * k, 106 + 6 * k))


# ------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "", "it is empty"),
        ("list.txt", "1.mp4 0\n2.mp4 1\n", "line 2: no rgb file 2.mp4"),
        ("list.txt", "../1.mp4 0\n1.mp4 1\n", "line 1: rgb '../1.mp4' lies outside the folder"),
        ("list.txt", "1.mp4 0 3 5\n1.mp4 1\n", "line 1: '0 3 5' after the path, where one label"),
        ("list.txt", "1.mp4 0\n1.mp4 1\n", "two rows with id '1'"),
        ("list.txt", "x 3 0\nx 3 1 2\n", "line 2: '3 1 2' after the path, where one label"),
        ("list.txt", "x 3 0\nx many 0\nx 3 1\n", "line 2: 'many 0' after"),
        ("list.txt", "x 5 0\nx 2 1\n", "line 1: frames 0 to 4 of x, which has 3 images"),
        ("list.txt", "x -1 2 0\nx 0 2 1\n", "line 1: frames -1 to 0 of x"),
        ("list.txt", "1.mp4 wave\x1b[2J\n", "is not a valid class name"),
        ("a.json", "[]", "it is not a JSON object"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", '{"database": []}', "'database' is not an object of videos"),
        ("a.json", '{"database": {"1": {"annotations": []}}}', "no video in it has annotations"),
        ("a.json", '{"1": {"annotations": 3}}', "video 1: 'annotations' is not a list"),
        ("a.json", '{"1": {"annotations": [{"label": "x"}]}}', "video 1: an annotation without label and segment"),
        ("a.json", '{"1": {"annotations": [{"label": "x", "segment": [3, 2]}]}}', "the piece ends at 2 s, before"),
        ("a.json", '{"1": {"annotations": [{"label": "x", "segment": [0, NaN]}]}}', "is not a number of seconds"),
        ("a.json", "[" * 100_000, "a.json cannot be read"),
        ("metadata.csv", "file_name,mood\n1.mp4,good\n", "columns file_name, mood. Expected a column of classes"),
        ("metadata.jsonl", '{"label": "x"}', "columns label. Expected a column of files, for example file_name"),
        ("metadata.jsonl", '{"file_name": "1.mp4"\n', "line 1:"),
        ("metadata.jsonl", "[]\n", "line 1: it is not a JSON object"),
        ("metadata.parquet", "no parquet", "metadata.parquet cannot be read"),
        ("manifest.csv", "label,rgb\n", "is already a manifest"),
        ("list.png", "x", "is not a list of a known kind"),
        ("absent/", "", "no file or folder"),
        ("x/", "", "contains no list of a known kind"),
        ("meta/info.json", "{}", "is of format ''. Expected v2.0, v2.1 or v3.0"),
        ("meta/info.json", '{"codebase_version": "v1.6"}', "is of format 'v1.6'"),
        ("meta/info.json", '{"codebase_version": "v2.1"}', "'features' is not an object"),
        ("meta/info.json", '{"codebase_version": "v2.1", "features": {}}', "it has no video feature"),
        ("meta/info.json", info("v2.1"), "episodes.jsonl cannot be read"),
        ("meta/info.json", info("v3.0"), "there is no meta/episodes/*/*.parquet next to it"),
    ],
)  # fmt: skip
def test_faults_of_lists(folder: Folder, name: str, text: str, message: str) -> None:
    videos(folder, "1.mp4", "x/1.png", "x/2.png", "x/3.png")
    before = {path for path in folder.root.rglob("*") if path.is_file()}
    if not name.endswith("/"):
        before.add(folder.text(name, text))
    with pytest.raises(DataError) as error:
        imported(folder, name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert {path for path in folder.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{episode_index:99999d}", "has other fields"),
        ("{video_key.__class__}/{episode_index}", "no top file {video_key.__class__}"),
        ("{secret}", "has other fields than episode_index, episode_chunk, video_key"),
        ("/etc/{video_key}", "lies outside the folder"),
        ("../{video_key}", "lies outside the folder"),
    ],
)
def test_a_template_is_filled_and_never_run(folder: Folder, path: str, message: str) -> None:
    folder.text("meta/info.json", info("v2.1", video_path=path))
    folder.text("meta/episodes.jsonl", '{"episode_index": 0, "tasks": ["x"], "length": 5}\n')
    with pytest.raises(DataError) as error:
        imported(folder, "")
    assert message in str(error.value) or (path == "{episode_index:99999d}" and "no top file" in str(error.value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_index": [0.5]}, "episode_index is 0.5, not a whole number"),
        ({"tasks": ["pick"]}, "'tasks' is not a list of names"),
        ({"videos/observation.images.top/file_index": [-1]}, "file_index is -1, not a whole number"),
        ({"videos/observation.images.top/to_timestamp": ["soon"]}, "to_timestamp is not a number of seconds"),
        ({"videos/observation.images.top/to_timestamp": None}, "it has no column 'videos/observation.images.top/to_"),
    ],
)
def test_faults_of_episodes(folder: Folder, changes: dict[str, Any], message: str) -> None:
    camera = "videos/observation.images.top"
    rows = {"episode_index": [0], "tasks": [["pick"]]}
    rows |= {f"{camera}/chunk_index": [0], f"{camera}/file_index": [0]}
    rows |= {f"{camera}/from_timestamp": [0.0], f"{camera}/to_timestamp": [1.0], **changes}
    features = {"observation.images.top": {"dtype": "video"}}
    folder.text("meta/info.json", info("v3.0", features=features))
    (folder.root / "meta/episodes/chunk-000").mkdir(parents=True)
    table = pa.table({name: values for name, values in rows.items() if values is not None})
    pq.write_table(table, folder.root / "meta/episodes/chunk-000/file-000.parquet")
    with pytest.raises(DataError) as error:
        imported(folder, "")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "it is empty"), ("a\nb\na\n", "name or number twice"), ("0 a\n1 b\n", "line 3: no name for label 2")],
)
def test_faults_of_names(folder: Folder, text: str, message: str) -> None:
    videos(folder, "1.mp4", "2.mp4", "3.mp4")
    folder.text("list.txt", "1.mp4 0\n2.mp4 1\n3.mp4 2\n")
    names = folder.text("classes.txt", text)
    with pytest.raises(DataError, match=message):
        imported(folder, "list.txt", names=names)


def test_clashes_between_lists(folder: Folder) -> None:
    videos(folder, "1.mp4", "2.mp4")
    folder.text("train.txt", "1.mp4 0\n2.mp4 1\n")
    folder.text("val.txt", "1.mp4 0\n")
    with pytest.raises(DataError, match=r"train\.txt line 1 and val\.txt line 1: two rows with id '1'"):
        imported(folder, "train.txt", "val.txt")
    folder.text("more/val.txt", "x")
    with pytest.raises(ConfigError, match=r"lists in several folders.*--root"):
        imported(folder, "train.txt", "more/val.txt")
    with pytest.raises(ConfigError, match="--modality view"):
        imported(folder, "train.txt", modality="view")

"""The whole way: recordings, the program, its answers, Ctrl-C, and what the reader then finds."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.readers.files import Files
from kd_edge.label.edits import Add
from kd_edge.label.labels import Labels
from tests.cli.conftest import Kd, kd, one_line
from tests.label.running import labelling
from tests.label.videos import numbered, write_video

__all__ = ["kd"]


@pytest.mark.slow
def test_what_is_labelled_is_what_the_reader_finds(root: Path, kd: Kd) -> None:
    marked = [(0, 1.0, 2.5, "wave"), (0, 2.5, 4.0, "kick"), (1, 0.0, 1.0, "wave"), (1, 9.0, 9.901, "kick")]
    with labelling(root) as running:
        for revision, (number, start_s, end_s, label) in enumerate(marked, 1):
            edit = {"kind": "add", "recording": number, "start_s": start_s, "end_s": end_s, "label": label}
            assert running.ask("/api/edit", {"revision": revision, "edit": edit})["revision"] == revision + 1
        running.process.send_signal(signal.SIGINT)
        assert "every change is in" in running.process.communicate(timeout=60)[0]
        assert running.process.returncode == 0
    assert sorted(path.name for path in root.iterdir()) == ["dataset.toml", "long", "manifest.csv"]

    code, text, error = kd("data", "check", "files", "--data", str(root), "--modality", "ir")
    assert (code, error) == (0, "")
    assert "4 samples, 4 complete, 2 classes" in text

    found = Files(root)
    assert found.labels == ("kick", "wave")
    by_id = {sample.id: sample for sample in found.samples}
    assert sorted(by_id) == ["long/monday_ir@1", "long/monday_ir@2.5", "long/tuesday_ir@0", "long/tuesday_ir@9"]
    frames = {id_: [int(image[0, 0]) for image in found.open(sample, "ir").frames] for id_, sample in by_id.items()}
    assert frames == {
        "long/monday_ir@1": list(range(10, 25)),
        "long/monday_ir@2.5": list(range(25, 40)),
        "long/tuesday_ir@0": list(range(10)),
        "long/tuesday_ir@9": list(range(90, 100)),  # with the last one
    }
    # The thermal camera began half a second later, 9 a second: frames from 5 / 9 s to before 2 s of its own.
    thermal = found.open(by_id["long/monday_ir@1"], "thermal").frames
    assert [(int(image[0, 0]) - 20_000) // 100 for image in thermal] == list(range(5, 18))
    assert {sample.id: sample.subject for sample in found.samples} == {
        "long/monday_ir@1": "anna", "long/monday_ir@2.5": "anna", "long/tuesday_ir@0": "ben", "long/tuesday_ir@9": "ben"
    }  # fmt: skip


@pytest.mark.slow
def test_it_ends_by_sigterm_too_and_is_alone(root: Path, kd: Kd) -> None:
    with labelling(root) as running:
        code, _, error = kd("label", str(root))
        assert code == 2
        assert "is being labelled by another kd-edge label" in one_line(error)
        running.process.send_signal(signal.SIGTERM)
        running.process.communicate(timeout=60)
        assert running.process.returncode == 0
    assert not (root / ".label.lock").exists()


@pytest.mark.slow
def test_it_is_killed_and_everything_is_there(root: Path) -> None:
    with labelling(root) as running:
        edit = {"kind": "add", "recording": 0, "start_s": 1, "end_s": 2, "label": "wave"}
        running.ask("/api/edit", {"revision": 1, "edit": edit})
        running.process.kill()
        running.process.communicate(timeout=60)
    with labelling(root) as running:
        assert [piece["label"] for piece in running.ask("/api/recordings/0")["pieces"]] == ["wave"]


def test_folders_of_classes_become_a_manifest_at_the_first_change(tmp_path: Path) -> None:
    for label in ("kick", "wave"):
        for who in ("anna", "ben"):
            write_video(tmp_path / label / f"{who}_01_ir.mkv", [numbered(k) for k in range(10)])
    before = {sample.id: sample.label for sample in Files(tmp_path).samples}
    labels = Labels(tmp_path)
    assert not (tmp_path / "manifest.csv").exists()
    assert [(one.name, one.rows[0].label, one.subject) for one in labels.recordings] == [
        ("kick/anna_01_ir", "kick", "anna"),
        ("kick/ben_01_ir", "kick", "ben"),
        ("wave/anna_01_ir", "wave", "anna"),
        ("wave/ben_01_ir", "wave", "ben"),
    ]
    assert labels.labelled_s(0) == pytest.approx(0.9)
    labels.apply(Add(kind="add", recording=0, start_s=0.2, end_s=0.5, label="kick"), 1)
    after = {sample.id: sample.label for sample in Files(tmp_path).samples}
    assert after == before | {"kick/anna_01_ir@0.2": 0}


@pytest.mark.slow
def test_long_recordings_begin_without_what_their_names_tell(tmp_path: Path, kd: Kd) -> None:
    for name in ("monday_ir", "tuesday_ir", "thermal"):
        write_video(tmp_path / "night" / f"{name}.mkv", [numbered(k) for k in range(10)])
    told = Labels(tmp_path)
    assert {row.label for one in told.recordings for row in one.rows} == {"night"}
    with labelling(tmp_path) as running:
        assert "file names: night; --fresh ignores them" in str(running.process.stdout.readline())
    fresh = Labels(tmp_path, fresh=True)
    assert [(one.rows[0].label, sorted(one.rows[0].files)) for one in fresh.recordings] == [
        ("", ["thermal"]), ("", ["ir"]), ("", ["ir"])
    ]  # fmt: skip
    fresh.apply(Add(kind="add", recording=1, start_s=0.2, end_s=0.5, label="wave"), 1)
    assert [row.label for one in Labels(tmp_path).recordings for row in one.rows] == ["", "wave", ""]
    code, _, error = kd("label", str(tmp_path), "--fresh")
    assert code == 2
    assert "--fresh, and there is a manifest.csv" in one_line(error)


def test_a_file_named_as_its_modality_is_no_fault(tmp_path: Path, kd: Kd) -> None:
    for name in ("thermal.mkv", "ir.mkv"):
        write_video(tmp_path / name, [numbered(k) for k in range(10)])
    code, _, error = kd("data", "init", str(tmp_path))
    assert code == 2
    one_line(error)
    assert len(Labels(tmp_path, fresh=True).recordings) == 1  # two cameras of one recording


def test_a_manifest_of_json_lines_stays_one(tmp_path: Path) -> None:
    write_video(tmp_path / "a_ir.mkv", [numbered(k) for k in range(50)])
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "label": null, "ir": "a_ir.mkv", "place": "Zürich"}\n')
    labels = Labels(tmp_path)
    labels.apply(Add(kind="add", recording=0, start_s=1.0, end_s=2.5, label="wave"), 1)
    labels.apply(Add(kind="add", recording=0, start_s=3.0, end_s=4.0, label="kick"), 2)
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "label": "wave", "id": "a_ir@1", "start_s": "1", "end_s": "2.5", "ir": "a_ir.mkv", "place": "Zürich"
    }  # fmt: skip
    clip = Files(tmp_path).open(Files(tmp_path).samples[0], "ir")
    np.testing.assert_array_equal(clip.frames[:, 0, 0], np.arange(10, 25))


@pytest.mark.slow
def test_what_cannot_be_labelled_is_one_line(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "manifest.csv").write_text("id,label,ir\n1,wave,../../etc/passwd\n")
    for arguments, told in (
        (("absent",), "no folder absent"),
        (("empty",), "empty"),
        (("faulty",), "lies outside the folder"),
        (("empty", "--port", "70000"), "--port"),
    ):
        code, _, error = kd("label", *arguments)
        assert code == 2
        assert told in error
        assert "Traceback" not in error
    assert list((tmp_path / "empty").iterdir()) == []


def test_without_the_extra_it_says_what_to_install(kd: Kd, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    code, _, error = kd("label", str(root))
    assert code == 2
    assert "uvicorn" in one_line(error)

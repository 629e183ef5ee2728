"""What the page asks for: every route, what it answers to bad requests, and who is not let in."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kd_edge.errors import ConfigError
from kd_edge.label.labels import Labels
from kd_edge.label.server import MOST_BODY_BYTES, listening
from tests.label.conftest import PORT, TOKEN, Server


def grey(answer: Any) -> int:
    """The middle value of the picture that was sent."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (48, 64)
    return int(np.median(picture))


def sentence(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"])


# ---------------------------------------------------------------------------------------------- what is shown


def test_the_state_lists_recordings_and_classes(server: Server) -> None:
    state = server.get("/api/state").json()
    assert state["recordings"] == [
        {"name": "long/monday_ir", "subject": "anna", "pieces": 0},
        {"name": "long/tuesday_ir", "subject": "ben", "pieces": 0},
    ]
    assert (state["revision"], state["classes"], state["undo"], state["redo"]) == (1, [], "", "")
    assert state["file"] == "manifest.csv"


def test_a_recording_tells_what_its_pictures_are(server: Server) -> None:
    found = server.get("/api/recordings/0").json()
    assert found["seconds"] == pytest.approx(0.5 + 179 / 9)  # of the thermal pictures, which begin half a second later
    ir, thermal = found["tracks"]
    assert (ir["modality"], ir["dtype"], ir["size"], ir["fps"], ir["contrast"]) == (
        "ir",
        "uint8",
        [48, 64],
        10,
        [0, 255],
    )
    assert (thermal["dtype"], thermal["fps"], thermal["late_s"]) == ("uint16", 9, 0.5)
    # Frames 0, 45, 90, 134 and 179: the percentiles 0.5 and 99.5 of five values as often as each other.
    assert thermal["contrast"] == [20_000, 37_900]


def test_a_frame_is_the_last_one_at_or_before_its_moment(server: Server) -> None:
    answer = server.get("/api/recordings/0/frame", modality="ir", t=7.35)
    assert grey(answer) == 73
    assert (answer.headers["x-frame-s"], answer.headers["x-next-s"]) == ("7.300000000", "7.400000000")
    last = server.get("/api/recordings/0/frame", modality="ir", t=99)
    assert (grey(last), last.headers["x-frame-s"], last.headers["x-next-s"]) == (199, "19.900000000", "")


def test_frames_of_another_camera_are_paired_by_their_stamps(server: Server) -> None:
    # At 7.3 s the thermal camera is at 6.8 s of its own: frame 61.2, so the nearest one is 61, at 0.5 + 61 / 9 s.
    answer = server.get("/api/recordings/0/frame", modality="thermal", t=7.3, nearest=1, low=20_000, high=45_500)
    assert grey(answer) == 61
    assert float(answer.headers["x-frame-s"]) == pytest.approx(0.5 + 61 / 9, abs=1e-6)
    later = server.get("/api/recordings/0/frame", modality="thermal", t=7.36, nearest=1, low=20_000, high=45_500)
    assert grey(later) == 62
    before = server.get("/api/recordings/0/frame", modality="thermal", t=7.36, low=20_000, high=45_500)
    assert grey(before) == 61


def test_contrast_is_the_recordings_and_can_be_chosen(server: Server) -> None:
    server.get("/api/recordings/0")
    usual = server.get("/api/recordings/0/frame", modality="thermal", t=0.5 + 90 / 9)
    assert grey(usual) == round((29_000 - 20_000) / 17_900 * 255 - 0.5)
    chosen = server.get("/api/recordings/0/frame", modality="thermal", t=0.5 + 90 / 9, low=28_000, high=29_000)
    assert grey(chosen) == 255
    assert grey(server.get("/api/recordings/0/frame", modality="ir", t=10, low=0, high=200)) == 127


def test_lengths_are_told_some_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_edge.label.server.LENGTHS_AT_ONCE", 1)
    server.add("wave", 1, 3, recording=1)
    assert server.get("/api/lengths").json()["next"] == 1
    rest = server.get("/api/lengths", **{"from": 1}).json()
    assert rest == {"lengths": {"1": {"seconds": pytest.approx(9.9), "labelled_s": 2.0}}, "next": None}
    assert server.get("/api/lengths", **{"from": 7}).json() == {"lengths": {}, "next": None}


def test_the_page_has_no_other_hosts_and_no_code_but_its_own(server: Server) -> None:
    for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")):
        answer = server.client.get(path, headers={"X-Token": ""})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "://" not in answer.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert TOKEN not in answer.text


# ---------------------------------------------------------------------------------------------- what is changed


def test_pieces_are_added_changed_and_deleted(server: Server) -> None:
    assert server.add("wave", 1.0, 2.5).json()["said"] == "wave (1.00 s to 2.50 s) added"
    assert server.add("kick", 2.5, 4.25).json()["revision"] == 3
    assert server.pieces() == [("wave", 1.0, 2.5), ("kick", 2.5, 4.25)]
    id_ = server.get("/api/recordings/0").json()["pieces"][1]["id"]
    assert id_ == "long/monday_ir@2.5"
    changed = server.edit("change", recording=0, id=id_, end_s=5.0, label="push", subject="eva", trial="2")
    assert changed.json()["said"] == "kick (2.50 s to 4.25 s) changed to push"
    assert changed.json()["classes"] == ["wave", "kick", "push"]
    assert server.manifest == [
        "id,label,subject,view,trial,split,start_s,end_s,ir,thermal,thermal_offset_s,weather",
        "long/monday_ir@1,wave,anna,,,train,1,2.5,long/monday_ir.mkv,long/monday_thermal.npy,0.5,rain",
        "long/monday_ir@2.5,push,eva,,2,train,2.5,5,long/monday_ir.mkv,long/monday_thermal.npy,0.5,rain",
        "tuesday,,ben,,,,,,long/tuesday_ir.mkv,,,",
    ]
    for piece in server.get("/api/recordings/0").json()["pieces"]:
        assert server.edit("delete", recording=0, id=piece["id"]).status_code == 200
    assert server.pieces() == []
    assert server.manifest[1] == "long/monday_ir,,eva,,,train,,,long/monday_ir.mkv,long/monday_thermal.npy,0.5,rain"


def test_undo_and_redo_go_over_all_changes(server: Server) -> None:
    before = server.manifest
    server.add("wave", 1, 2)
    server.edit("describe", recording=1, subject="eva")
    server.add("kick", 3, 4, recording=1)
    after = server.manifest
    said = [server.post("/api/undo").json()["said"] for _ in range(4)]
    assert said == [
        "undone: kick (3.00 s to 4.00 s) added",
        "undone: subject of long/tuesday_ir is eva",
        "undone: wave (1.00 s to 2.00 s) added",
        "nothing to undo: these are the labels as they were read",
    ]
    assert [line.split(",")[0:3] for line in server.manifest[1:]] == [line.split(",")[0:3] for line in before[1:]]
    again = server.post("/api/redo").json()
    assert (again["said"], again["recording"]) == ("done again: wave (1.00 s to 2.00 s) added", 0)
    assert again["redo"] == "subject of long/tuesday_ir is eva"
    server.post("/api/redo")
    assert server.post("/api/redo").json()["said"] == "done again: kick (3.00 s to 4.00 s) added"
    assert server.manifest == after
    assert server.post("/api/redo").json()["said"] == "nothing to redo: no change was undone since the last one"
    server.post("/api/undo")
    server.add("push", 5, 6)
    assert server.post("/api/redo").json()["said"].startswith("nothing to redo")


def test_an_undo_past_the_beginning_changes_nothing(server: Server) -> None:
    before, revision = server.manifest, server.labels.revision
    answer = server.post("/api/undo")
    assert (answer.status_code, answer.json()["revision"]) == (200, revision)
    assert server.manifest == before


def test_classes_are_added_and_keep_their_place(server: Server) -> None:
    assert server.edit("class", label=" wave ").json()["said"] == "class wave added"
    assert server.edit("class", label="kick").json()["classes"] == ["wave", "kick"]
    assert "differs from 'wave' by capitals" in sentence(server.edit("class", label="Wave"), 400)
    assert server.manifest[1].startswith("monday,,")  # a class alone is no change of the file


def test_dataset_toml_says_which_classes_there_are(server: Server, root: Path) -> None:
    with (root / "dataset.toml").open("a") as file:
        file.write("")
    text = (root / "dataset.toml").read_text()
    (root / "dataset.toml").write_text('labels = ["kick", "wave"]\n' + text)
    assert server.post("/api/reload").json()["classes"] == ["kick", "wave"]
    told = sentence(server.add("wvae", 1, 2), 400)
    assert "dataset.toml does not name the class 'wvae' (did you mean 'wave'?)" in told
    (root / "dataset.toml").write_text('labels = ["kick", "wave", "wvae"]\n' + text)
    assert server.add("wvae", 1, 2).status_code == 200


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"start_s": 2, "end_s": 2, "label": "a"}, "the piece ends at 2.000 s and begins at 2.000 s"),
        ({"start_s": 3, "end_s": 2, "label": "a"}, "begins at 3.000 s. Set the other end first."),
        ({"start_s": 1, "end_s": 30, "label": "a"}, "the recording lasts 20.389 s"),
        ({"start_s": 25, "end_s": 26, "label": "a"}, "the recording lasts 20.389 s"),
        ({"start_s": 11, "end_s": 13, "label": "kick"}, "kick (11.00 s to 13.00 s) overlaps wave (10.00 s to 12.00 s)"),
        ({"start_s": 9, "end_s": 10.001, "label": "kick"}, "overlaps wave (10.00 s to 12.00 s)"),
        ({"start_s": 10, "end_s": 12, "label": "wave"}, "exists already"),
        ({"start_s": -1, "end_s": 2, "label": "a"}, "edit.add.start_s"),
        ({"start_s": "1", "end_s": 2, "label": "a"}, "edit.add.start_s"),
        ({"start_s": 1, "end_s": 2, "label": " "}, "a class has a name"),
        ({"start_s": 1, "end_s": 2, "label": "a\nb"}, "can be printed"),
        ({"start_s": 1, "end_s": 2, "label": "a" * 201}, "at most 200 characters"),
        ({"start_s": 1, "end_s": 2, "label": "a", "path": "x"}, "edit.add.path"),
        ({"start_s": 1, "end_s": 2, "label": "a", "recording": 9}, "no recording of number 9"),
        ({"start_s": 1, "end_s": 2, "label": "a", "recording": -1}, "edit.add.recording"),
    ],
)
def test_what_the_reader_would_refuse_is_refused(server: Server, what: dict[str, Any], told: str) -> None:
    server.add("wave", 10, 12)
    before = server.manifest
    assert told in sentence(server.edit("add", **({"recording": 0} | what)), 400)
    assert server.manifest == before
    assert server.get("/api/state").json()["revision"] == 2


def test_pieces_of_one_class_may_overlap_and_touch(server: Server) -> None:
    assert server.add("wave", 10, 12).status_code == 200
    assert server.add("wave", 11, 13).status_code == 200
    assert server.add("kick", 13, 14).status_code == 200
    assert server.add("kick", 8, 10).status_code == 200


def test_moving_an_end_over_another_piece_is_refused(server: Server) -> None:
    server.add("wave", 1, 2)
    server.add("kick", 3, 4)
    assert "overlaps kick" in sentence(server.edit("change", recording=0, id="long/monday_ir@1", end_s=3.5), 400)
    assert "no piece 'nobody'" in sentence(server.edit("change", recording=0, id="nobody", end_s=3.5), 400)
    assert "no piece 'nobody'" in sentence(server.edit("delete", recording=0, id="nobody"), 400)
    assert "no piece 'tuesday'" in sentence(server.edit("delete", recording=1, id="tuesday"), 400)  # says it is there
    assert server.edit("change", recording=0, id="long/monday_ir@1", end_s=2.0).json()["said"] == "nothing to change"


# ---------------------------------------------------------------------------------------------- conflicts


def test_a_window_that_has_not_seen_the_newest_labels_changes_nothing(server: Server) -> None:
    server.add("wave", 1, 2)
    before = server.manifest
    for answer in (
        server.edit("add", revision=1, recording=0, start_s=5, end_s=6, label="kick"),
        server.post("/api/undo", revision=1),
        server.post("/api/redo", revision=1),
    ):
        assert "another window has changed the labels" in sentence(answer, 409)
        assert answer.json()["conflict"] == "window"
    assert server.manifest == before
    assert server.add("kick", 5, 6).status_code == 200


def test_a_file_that_something_else_has_written_is_not_overwritten(server: Server, root: Path) -> None:
    server.add("wave", 1, 2)
    text = (root / "manifest.csv").read_text().replace("wave", "point")
    (root / "manifest.csv").write_text(text)
    answer = server.add("kick", 5, 6)
    assert "something else has written manifest.csv" in sentence(answer, 409)
    assert answer.json()["conflict"] == "disk"
    assert server.post("/api/undo").status_code == 409
    assert (root / "manifest.csv").read_text() == text
    assert server.post("/api/reload").json()["undo"] == ""
    assert server.add("kick", 5, 6).status_code == 200
    assert server.pieces() == [("point", 1.0, 2.0), ("kick", 5.0, 6.0)]


def test_a_manifest_that_came_or_went_is_a_conflict(server: Server, root: Path) -> None:
    (root / "manifest.csv").rename(root / "manifest.jsonl")
    assert server.add("kick", 5, 6).status_code == 409
    (root / "manifest.jsonl").unlink()
    assert server.add("kick", 5, 6).status_code == 409
    assert not (root / "manifest.csv").exists()


def test_a_faulty_manifest_is_told_and_what_was_known_stays(server: Server, root: Path) -> None:
    server.add("wave", 1, 2)
    (root / "manifest.csv").write_text("id,label\n1,wave\n")
    assert "names no file" in sentence(server.post("/api/reload"), 422)
    assert server.pieces() == [("wave", 1.0, 2.0)]


def test_a_disk_that_takes_nothing_loses_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("wave", 1, 2)
    before = server.manifest

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kd_edge.files.os.fsync", full)
        assert "No space left on device" in sentence(server.add("kick", 5, 6), 422)
    assert server.manifest == before
    assert [path.name for path in server.root.iterdir() if path.name.startswith(".")] == []
    assert server.pieces() == [("wave", 1.0, 2.0)]
    assert server.add("kick", 5, 6).status_code == 200


# ---------------------------------------------------------------------------------------------- who is let in


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Token": ""},
        {"X-Token": TOKEN[:-1]},
        {"X-Token": "é"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{PORT}"},
        {"Host": "127.0.0.1:1"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
    ],
)
def test_others_are_not_let_in(server: Server, headers: dict[str, str]) -> None:
    raw = {name: value.encode() for name, value in headers.items()}
    before = server.manifest
    what = {"kind": "add", "recording": 0, "start_s": 1, "end_s": 2, "label": "wave"}
    assert server.client.post("/api/edit", json={"revision": 1, "edit": what}, headers=raw).status_code == 403
    assert server.client.get("/api/state", headers=raw).status_code == 403
    assert server.client.get("/api/recordings/0/frame?modality=ir&t=1", headers=raw).status_code == 403
    assert server.manifest == before


def test_its_own_page_is_let_in_by_either_name(server: Server) -> None:
    for host in (f"127.0.0.1:{PORT}", f"localhost:{PORT}"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert server.client.get("/api/state", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../manifest.csv",
        "/%2e%2e/manifest.csv",
        "/page/app.js",
        "/manifest.csv",
        "/long/monday_ir.mkv",
        "//etc/passwd",
    ],
)
def test_no_file_but_those_of_the_page_is_given(server: Server, path: str) -> None:
    assert server.client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/recordings/2", 404),
        ("/api/recordings/99999999999999999999", 404),
        (f"/api/recordings/{'9' * 5000}", 404),
        (f"/api/recordings/{'9' * 5000}/frame?modality=ir&t=0", 404),
        ("/api/recordings/-1", 404),
        ("/api/recordings/first", 404),
        ("/api/recordings/..%2f..%2fetc", 404),
        ("/api/recordings/2/frame?modality=ir&t=0", 404),
        ("/api/recordings/0/frame?modality=rgb&t=0", 400),
        ("/api/recordings/0/frame?modality=..%2f..%2fpasswd&t=0", 400),
        ("/api/recordings/0/frame?t=0", 400),
        ("/api/recordings/1/frame?modality=thermal&t=0", 400),
        ("/api/recordings/0/frame?modality=ir&t=nan", 400),
        ("/api/recordings/0/frame?modality=ir&t=1e400", 400),
        ("/api/recordings/0/frame?modality=ir&t=soon", 400),
        ("/api/recordings/0/frame?modality=ir&t=0&low=x&high=9", 400),
        ("/api/lengths?from=soon", 400),
        ("/api/lengths?from=-3", 400),
    ],
)
def test_bad_questions_are_told(server: Server, path: str, status: int) -> None:
    answer = server.client.get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"revision": 1}', 400),
        (b'{"revision": 1, "edit": {"kind": "drop"}}', 400),
        (b'{"revision": true, "edit": {"kind": "class", "label": "a"}}', 400),
        (b'{"revision": 1, "edit": {"kind": "class", "label": "\\ud800"}}', 400),
        (b"[" * 60_000, 400),
        (b" " * (MOST_BODY_BYTES + 1), 413),
        (json.dumps({"revision": 1, "edit": {"kind": "class", "label": "a" * 70_000}}).encode(), 413),
    ],
)
def test_bad_bodies_are_told(server: Server, body: bytes, status: int) -> None:
    answer = server.client.post("/api/edit", content=body)
    assert answer.status_code == status, answer.text
    assert "error" in answer.json()
    assert len(answer.text) < 2000


def test_other_methods_are_refused(server: Server) -> None:
    assert server.client.get("/api/edit").status_code == 405
    assert server.client.post("/api/state").status_code == 405


def test_a_recording_that_is_damaged_or_gone_is_told(server: Server, root: Path) -> None:
    (root / "long" / "tuesday_ir.mkv").write_bytes(b"\0" * 5000)
    found = server.get("/api/recordings/1").json()
    assert "tuesday_ir.mkv" in found["tracks"][0]["error"]
    assert "tuesday_ir.mkv" in sentence(server.get("/api/recordings/1/frame", modality="ir", t=0), 422)
    (root / "long" / "tuesday_ir.mkv").unlink()
    assert "tuesday_ir.mkv" in server.get("/api/recordings/1").json()["tracks"][0]["error"]


def test_names_that_are_no_utf8_can_be_labelled(server: Server, root: Path) -> None:
    odd = os.fsdecode(b"long/b\xffd_ir.mkv")
    shutil.copy(root / "long" / "tuesday_ir.mkv", root / odd)
    (root / "manifest.csv").write_bytes(b"label,ir\n," + os.fsencode(odd) + b"\n")
    assert server.post("/api/reload").json()["recordings"] == [
        {"name": "long/b\\udcffd_ir", "subject": "", "pieces": 0}
    ]
    assert server.get("/api/recordings/0").json()["tracks"][0]["file"] == "b\\udcffd_ir.mkv"
    assert server.get("/api/recordings/0/frame", modality="ir", t=1).status_code == 200
    assert server.add("wave", 1, 2).status_code == 200
    assert [row.label for row in Labels(root).recordings[0].rows] == ["wave"]
    assert (root / "manifest.csv").read_bytes().count(os.fsencode(odd)) == 1


def test_a_port_that_is_taken_is_told() -> None:
    with listening(0) as own:
        assert own.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match="cannot be used"):
            listening(own.getsockname()[1])

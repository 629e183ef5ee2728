"""What the verb cameras prints, and what cameras doctor does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kd_edge.cli.cameras import camera_table
from kd_edge.runtime.cameras.listing import AttachedCamera, Cameras
from tests.cli.conftest import Kd, one_line

FIGURE = "synthetic:?height_px=48&width_px=64&realtime=false"


def test_doctor_of_a_good_camera(kd: Kd) -> None:
    code, output, error = kd("cameras", "doctor", FIGURE, "--seconds", "1")
    assert (code, error) == (0, "")
    assert "30.0 frames/s, nominal 30.0" in output
    assert "'bundled' rates them as healthy as its training pictures" in output


def test_doctor_in_json_and_with_exit_code_1_where_something_is_wrong(kd: Kd, tmp_path: Path) -> None:
    np.save(tmp_path / "dark.npy", np.zeros((40, 48, 64), np.uint8))
    code, output, _ = kd("cameras", "doctor", "replay:dark.npy", "--json")
    assert code == 1
    report = json.loads(output)
    assert (report["camera"], report["measured"]["frames"]) == ("replay:dark.npy", 40)
    assert report["measured"]["values"]["black"] == 1.0
    assert {"light", "pictures for the model"} <= {a["topic"] for a in report["advice"] if a["level"] == "problem"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nope",), "unknown camera 'nope'"),
        (("replay:gone.npy",), "no recording gone.npy"),
        (("v4l2:/dev/video97",), "no device /dev/video97"),
        (("synthetic:", "--model", "gone.onnx"), "no file gone.onnx"),
    ],
)
def test_what_doctor_cannot_watch_is_one_line(kd: Kd, arguments: tuple[str, ...], told: str) -> None:
    code, _, error = kd("cameras", "doctor", *arguments)
    assert code == 2
    assert told in one_line(error)


@pytest.mark.slow
def test_a_camera_file_is_written_and_not_overwritten(kd: Kd, tmp_path: Path) -> None:
    code, output, _ = kd("cameras", "--write", "figure", "--of", FIGURE)
    assert code == 0
    assert output.endswith("kd-edge run --camera figure\n")
    assert f'uri = "{FIGURE}"' in (tmp_path / "runtime/cameras/figure.toml").read_text()
    code, _, error = kd("cameras", "--write", "figure", "--of", FIGURE)
    assert (code, "exists already" in one_line(error)) == (2, True)
    assert kd("cameras", "--write", "figure", "--of", FIGURE, "--force")[0] == 0
    code, output, _ = kd("cameras", "--json")
    assert [c["present"] for c in json.loads(output)["configured"] if c["name"] == "figure"] == [True]


def test_stills_of_all_that_is_there_and_exit_code_1_where_one_fails(kd: Kd, tmp_path: Path) -> None:
    kd("cameras", "--write", "figure", "--of", FIGURE)
    code, output, _ = kd("cameras", "--stills", "pictures", "--json")
    assert code == 0
    (still,) = (each for each in json.loads(output)["stills"] if each["camera"] == "figure")
    assert (tmp_path / still["file"]).read_bytes().startswith(b"\x89PNG")
    code, output, _ = kd("cameras", "--stills", "pictures", "--of", "replay:gone.npy")
    assert code == 1
    assert output.startswith("replay:gone.npy no recording gone.npy")


def test_options_before_doctor_are_refused(kd: Kd) -> None:
    assert "options before doctor" in one_line(kd("cameras", "--json", "doctor", "synthetic:")[2])


def test_topics_that_nobody_publishes_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    topic = AttachedCamera("/image", "sensor_msgs/msg/Image", "kd-edge run --camera ros2:/image", "ros2:/image")
    none, one = Cameras((), ()), Cameras((topic,), ())
    nobody = "nobody publishes images in ROS domain 42"

    def shown(found: Cameras, ros: bool) -> str:
        Console(width=200).print(camera_table(found, ros=ros))
        return capsys.readouterr().out

    assert nobody in shown(none, True)
    assert "--ros shows them" not in shown(none, True)
    assert nobody not in shown(none, False)
    assert "--ros shows them" in shown(none, False)
    assert nobody not in shown(one, True)
    assert "no video device is attached" in shown(one, True)

from pathlib import Path

import pytest

from kd_edge import doctor


def findings(topic: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine() if finding.topic == topic]


def test_this_machine_is_described_without_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path))
    found = doctor.examine()
    assert {"machine", "engine", "extra [cpu]", "bundled model", "cameras", "frame cache", "recordings"} <= {
        f.topic for f in found
    }
    assert [f for f in found if f.level == "problem"] == []


@pytest.mark.parametrize("pair", [("onnxruntime", "onnxruntime-gpu"), ("opencv-python", "opencv-python-headless")])
def test_packages_that_share_an_import_name_clash(monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name in pair else None)
    (clash,) = findings("clash")
    assert clash.level == "problem"
    assert clash.found == f"{pair[0]} and {pair[1]} are both installed"
    assert "uninstall both" in clash.fix


@pytest.mark.parametrize(("torch", "vision", "problems"), [("2.14.1+cu130", "0.29.1", 0), ("2.13.0", "0.29.1", 1)])
def test_torch_and_torchvision_must_match(
    monkeypatch: pytest.MonkeyPatch, torch: str, vision: str, problems: int
) -> None:
    monkeypatch.setattr(doctor, "_version", {"torch": torch, "torchvision": vision}.get)
    assert len(findings("torch")) == problems


def test_a_folder_of_recordings_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_DATA", "/nowhere")
    (finding,) = findings("recordings")
    assert (finding.level, finding.found) == ("problem", "KD_EDGE_DATA=/nowhere is no folder")

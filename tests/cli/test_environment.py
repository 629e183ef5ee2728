"""The command line where something of its surroundings is missing: a package, a home, a standard stream."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kd_edge
from tests.cli.conftest import Kd, one_line, unload

KD_EDGE = [sys.executable, "-c", "from kd_edge.cli import main; main()"]
CHECKOUT = str(Path(kd_edge.__file__).parents[1])
USER = 12345
BARE = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
BARE += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # the interpreter may be root's alone


# ------------------------------------------------------------------------------------------------- no package


def test_a_package_that_cannot_be_imported_is_one_line(kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is not at fault, so its self-test is not what fails."""
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")')
    monkeypatch.syspath_prepend(str(tmp_path))
    unload(monkeypatch, "cv2")
    for arguments in (["--accept-self-test"], []):
        code, _, error = kd("run", "--camera", "synthetic:?frames=3", *arguments)
        assert code == 2
        line = one_line("\n".join(row for row in error.splitlines() if not row.startswith("model ")))
        assert line.startswith("error: module 'cv2' cannot be imported")
        assert "(libGL.so.1: cannot open shared object file)" in line
        assert "Fix: apt install libgl1" in line


def test_a_package_that_another_imports_plainly_is_one_line(
    kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import ctypes; ctypes.CDLL('libcudart.so.12')")  # as torch does
    monkeypatch.syspath_prepend(str(tmp_path))
    unload(monkeypatch, "torch", "kd_edge.train", "kd_edge.models")
    code, _, error = kd("train")
    assert code == 2
    assert one_line(error).startswith("error: module 'torch' cannot be imported")
    assert "(libcudart.so.12: cannot open shared object file: No such file or directory)" in error


# ---------------------------------------------------------------------------------------------------- no home


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["recipes", "list"], 0, "quickstart"),
        (["cameras"], 0, "ir0"),
        (["run", "--camera", "ir0"], 2, "no device /dev/video0"),
        (["run", "--camera", "replay:~/clip.npy"], 2, "~/clip.npy: no home folder is known (user id 12345"),
        (["run", "--camera", "synthetic:", "--sink", "jsonl:~/labels"], 2, "~/labels: no home folder is known"),
        (["data", "check", "utd_mhad", "--data", "~/data"], 2, "~/data: no home folder is known"),
        (["train"], 2, "no folder for the cache: KD_EDGE_CACHE is not set, and user id 12345 has no known home"),
        (["data", "glove", "quickstart", "--from", "x.txt"], 2, "no folder for the vectors 'quickstart'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_without_a_home(
    kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.delenv("KD_EDGE_CACHE")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))  # Matplotlib would set it to a folder of its own
    found, text, error = kd(*arguments)
    assert found == code
    assert says in text + error
    assert "Traceback" not in error


@pytest.fixture
def bare(tmp_path: Path) -> list[str]:
    """The start of a command that runs it under a user id without a name and without HOME."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become another user")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.name.startswith(("pytest-of-", "pytest-")):
            folder.chmod(0o755)
    os.chown(tmp_path, USER, USER)
    command = [*BARE, "env", "-i", f"PATH={os.environ['PATH']}", f"PYTHONPATH={CHECKOUT}", "OMP_NUM_THREADS=1"]
    program = [*command, sys.executable, "-c", "import numpy"]
    tried = subprocess.run(program, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"another user cannot run this Python: {tried.stderr.strip()[-200:]}")
    return command


@pytest.mark.slow
def test_a_user_id_without_a_name(bare: list[str], tmp_path: Path) -> None:
    """The whole way a container takes: nothing of it may ask for a home."""
    for arguments, code, says in (
        (["cameras"], 0, "ir0"),
        (["run", "--engine", "onnxruntime", "--camera", "synthetic:?realtime=false&frames=100"], 0, "100 frames"),
    ):
        done = subprocess.run(
            [*bare, *KD_EDGE, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )
        assert (done.returncode, says in done.stdout + done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr


# --------------------------------------------------------------------------------------------- no standard stream


def shell(command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": CHECKOUT, "OMP_NUM_THREADS": "1"}
    line = command.replace("kd-edge", f"'{KD_EDGE[0]}' -c '{KD_EDGE[2]}'")
    return subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "output", "error"),
    [
        ("kd-edge --version >&-", 0, "", ""),
        ("kd-edge --version 2>&-", 0, f"kd-edge {kd_edge.__version__}\n", ""),
        ("kd-edge --version <&- >&- 2>&-", 0, "", ""),
        pytest.param("kd-edge recipes show nothing >&-", 2, "", "error: unknown recipe", marks=pytest.mark.slow),
        pytest.param("kd-edge recipes show nothing 2>&-", 2, "", "", marks=pytest.mark.slow),
        ("kd-edge run --camera 'synthetic:?realtime=false&frames=3' --engine onnxruntime >&- 2>&-", 0, "", ""),
    ],
)
def test_a_closed_stream_is_the_null_device(command: str, code: int, output: str, error: str) -> None:
    done = shell(command)
    assert (done.returncode, done.stdout) == (code, output)
    assert done.stderr.startswith(error)
    assert bool(done.stderr) == bool(error)


def unread(*arguments: str, both: bool = False) -> tuple[int, str]:
    """Exit code and error output of a verb whose output's reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*KD_EDGE, *arguments], stdout=writer, stderr=writer if both else subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": CHECKOUT}, timeout=100, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb",
    [
        "--version",
        "recipes list",
        *(pytest.param(v, marks=pytest.mark.slow) for v in ("--help", "recipes show quickstart")),
    ],
)
def test_a_reader_that_has_gone_ends_a_verb_in_silence(verb: str) -> None:
    assert unread(*verb.split()) == (1, "")


@pytest.mark.slow
def test_a_mistake_keeps_its_exit_code_where_nobody_reads_it() -> None:
    assert unread("recipes", "show", "nothing", both=True) == (2, "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_an_output() -> None:
    done = shell("kd-edge recipes list > /dev/full")
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: standard output cannot be written (No space left on device)")
    done = shell("kd-edge --help > /dev/full")
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: the output cannot be written (no space left)")
    done = shell("kd-edge --version 2> /dev/full")
    assert (done.returncode, done.stdout) == (0, f"kd-edge {kd_edge.__version__}\n")
    assert shell("kd-edge recipes show nothing 2> /dev/full").returncode == 2

"""What only reads settings must not wait for torch: 17 s against 1 s on a loaded machine."""

import json
import subprocess
import sys

import pytest

VERBS = [
    (["recipes", "list"], 0),
    (["recipes", "show", "quickstart"], 0),
    (["study", "list"], 0),
    (["study", "show", "mgcam_table1"], 0),
    (["study", "show", "mgcam_table1", "--row", "at"], 0),
    (["study", "show", "utd_mhad_classical"], 0),
    (["cameras"], 0),
    (["train", "quickstrt"], 2),
    (["train", "quickstart", "--set", "student.epoch=3"], 2),
    (["train", "sakdn_utd_mhad", "--set", "losses=3"], 2),
    (["study", "run", "mgcam_table1", "--set", "student.epoch=3"], 2),
    (["study", "run", "mgcam_table1", "--rows", "nope"], 2),
    (["data", "check", "quickstart", "--set", "student.epoch=3"], 2),
    (["data", "prepare", "quickstart", "--set", "student.epoch=3"], 2),
    (["recipes", "layers", "quickstart", "--set", "student.epoch=3"], 2),
    (["bench", "--training", "quickstart", "--set", "student.epoch=3"], 2),
    (["export", "--profile", "nope"], 2),
]
IMPORTED = """
import contextlib, io, json, sys
from kd_edge.cli import main

codes, heavy = [], []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["kd-edge", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main()
    except SystemExit as end:
        codes.append(end.code)
    heavy.append(sorted({"torch", "torchvision", "onnx"} & sys.modules.keys()))
print(json.dumps([codes, heavy]))
"""


@pytest.mark.slow
def test_settings_are_read_without_torch() -> None:
    verbs = [arguments for arguments, _ in VERBS]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, json.dumps(verbs)], capture_output=True, text=True, check=True
    )
    codes, heavy = json.loads(done.stdout.splitlines()[-1])
    assert dict(zip(map(" ".join, verbs), heavy, strict=True)) == {" ".join(verb): [] for verb in verbs}
    assert codes == [code for _, code in VERBS]

#!/usr/bin/env python3
"""The names of TensorRT's Python API that kd-edge uses, looked up in the binding wheels of TensorRT 10 and 11.

    python tools/check_tensorrt_names.py [--write]

Downloads the wheels (1 MB each; they install and do not import without TensorRT's libraries); ``--write`` writes
tests/engines/tensorrt/names.json, which the tests hold the source to.

pybind11 keeps every name of a module as text in its shared object: what is not there does not exist. That a name is
there does not tell whose it is, nor its arguments.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "kd_edge/engines/tensorrt" / f"{name}.py" for name in ("builder", "engine", "inspection", "library")]
FOUND = ROOT / "tests/engines/tensorrt/names.json"
WHEELS = (
    "tensorrt-cu12-bindings==10.3.0",  # JetPack 6
    "tensorrt-cu12-bindings==10.16.1.11",  # JetPack 7.2
    "tensorrt-cu13-bindings==11.4.0.106",  # the coming one
)
OBJECTS = {
    *("trt", "builder", "network", "config", "parser", "profile", "cache"),
    *("runtime", "engine", "context", "inspector", "layer"),
}
"""Names of variables that hold TensorRT's modules and objects in the sources."""
ATTRIBUTES = ("library.trt.",)
GUARDED = {"num_compute_capabilities", "set_compute_capability"}
"""TensorRT-RTX alone has them; they are used where it has ``ComputeCapability``."""


def used() -> set[str]:
    """Every name that is taken from such an object, or from what was taken from one."""
    names = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                if text.partition(".")[0] in OBJECTS or text.startswith(ATTRIBUTES):
                    names.add(node.attr)
    return names - {"trt", "name", "kind", "version", "dtype", "key", "get"}


def in_wheel(wheel: Path, names: set[str]) -> set[str]:
    """Those names that end a piece of text in its shared objects, where linkers keep short ones in longer ones."""
    with zipfile.ZipFile(wheel) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist() if ".so" in name)
    return {name for name in names if name.encode() + b"\0" in content}


def main() -> int:
    """Compare; 1 where a name is missing that is not asked for with getattr or hasattr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names, found = used(), {}
    with tempfile.TemporaryDirectory() as folder:
        for wheel in WHEELS:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            subprocess.run([*command, "--python-version", "3.11", "--only-binary", ":all:", wheel], check=True)
        for path in sorted(Path(folder).glob("*.whl")):
            there = in_wheel(path, names)
            found["-".join(path.name.split("-")[:2])] = {"there": sorted(there), "missing": sorted(names - there)}
    for wheel, result in found.items():
        sys.stdout.write(f"{wheel}: {len(result['there'])} names, missing {', '.join(result['missing']) or 'none'}\n")
    if options.write:
        FOUND.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any({*result["missing"]} - GUARDED for result in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""What users read of the node's parameters, held to what the node declares.

    python tools/check_ros_parameters.py [--write]

Exit code 1 where the parameter file or the table of launch/README.md says something else; ``--write`` writes both anew.
The source is kd_edge.runtime.ros.parameters.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path

from kd_edge.runtime.ros.parameters import PARAMETERS, SIMULATED, Parameter

LAUNCH = Path(__file__).resolve().parent.parent / "launch"
FILE = LAUNCH / "ros2/kd_edge/config/action_recognition.yaml"
README = LAUNCH / "README.md"
TABLE = re.compile(r"(?<=\n\n)\| Parameter \| Default \|.*?\n(?=\n)", re.DOTALL)
HEAD = """\
# Every parameter of the node, with its default. ros2 launch kd_edge kd_edge.launch.py parameters:=FILE takes a copy;
# a line that is left out keeps its default. "Live": ros2 param set changes it while labels come; the others are read
# when the node is configured, and refused while it is.
/**/action_recognition:      # in every namespace
  ros__parameters:
"""
WIDTH = 120


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    is_to_write = parser.parse_args().write
    readme = README.read_text()
    wanted = {FILE: parameter_file(), README: TABLE.sub(lambda _: table(), readme, count=1)}
    if not TABLE.search(readme):
        sys.stderr.write(f"{README.name} has no table of parameters\n")
        return 1
    differ = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in differ:
        sys.stdout.write(
            f"{path.name}: {'written' if is_to_write else 'differs: python tools/check_ros_parameters.py --write'}\n"
        )
        if is_to_write:
            path.write_text(wanted[path])
    return int(bool(differ) and not is_to_write)


def parameter_file() -> str:
    """The parameter file: what each is, then its default."""
    said = "Time comes from /clock: bags, simulators. Declared by ROS itself."
    lines = [*comment(said), f"    {SIMULATED}: false", ""]
    for each in PARAMETERS:
        facts = (each.description, sentence(limits(each)), "Live." if each.live else "")
        lines += [*comment(" ".join(filter(None, facts))), f"    {each.name}: {shown(each)}", ""]
    return HEAD + "\n".join(lines[:-1]) + "\n"


def comment(text: str) -> list[str]:
    """A text as lines of comment above a parameter."""
    return textwrap.wrap(text, WIDTH, initial_indent="    # ", subsequent_indent="    # ", break_on_hyphens=False)


def table() -> str:
    """The table of the README."""
    rows = [
        f"| `{each.name}` | `{shown(each)}` | {limits(each) or '-'} | {'yes' if each.live else 'no'} | "
        f"{each.description} |"
        for each in PARAMETERS
    ]
    return "\n".join(["| Parameter | Default | Range | Live | What |", "|---|---|---|---|---|", *rows, ""])


def shown(parameter: Parameter) -> str:
    """The default as YAML, which JSON is; a float keeps its point, since ROS tells 5 from 5.0."""
    default = list(parameter.default) if parameter.kind == "strs" else parameter.default
    return json.dumps(default)


def limits(parameter: Parameter) -> str:
    """What a value must be in, if there are limits."""
    if parameter.choices:
        return ", ".join(f"`{choice}`" if choice else "empty" for choice in parameter.choices)
    ends = (parameter.least, parameter.most)
    return " to ".join(f"{end:.10g}" for end in ends if end is not None)


def sentence(found: str) -> str:
    """Limits in a comment."""
    plain = found.replace("`", "")
    return f"One of: {plain}." if "," in plain else f"{plain}." if plain else ""


if __name__ == "__main__":
    sys.exit(main())

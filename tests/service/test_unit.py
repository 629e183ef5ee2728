from __future__ import annotations

import pytest

from kd_edge.errors import ConfigError
from kd_edge.service.unit import Unit, command_line, value

TEXT = """# words at its beginning
[Service]
# why
Key=1
Other=2
Key=3

[Install]
WantedBy=a
"""


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("ir0", "ir0"),
        ("jsonl:/run/a/b.jsonl?max_mb=20", "jsonl:/run/a/b.jsonl?max_mb=20"),
        ("v4l2:/dev/video0?pixel_format=Y16&fps=9", "v4l2:/dev/video0?pixel_format=Y16&fps=9"),
        ("a b", '"a b"'),
        ("", '""'),
        ("100%", "100%%"),
        ("$HOME", '"$$HOME"'),
        ("${HOME}", '"$${HOME}"'),
        ('q"q', '"q\\"q"'),
        ("it's", '"it\'s"'),
        ("back\\slash", '"back\\\\slash"'),
        (";", '";"'),
        ("#x", '"#x"'),
        ("größe", '"größe"'),
    ],
)
def test_words_of_a_command(word: str, written: str) -> None:
    """systemd.service(5): % begins a specifier and $ a variable, each doubled stands for itself; C-style escapes."""
    assert command_line(["/bin/echo", word]) == f"/bin/echo {written}"


@pytest.mark.parametrize(
    "word", ["a\nExecStartPre=/bin/sh", "a\rb", "a\tb", "\x1b[2J", "\x00", "\u2028", "\udcff", "\u202e"]
)
def test_what_a_unit_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="has characters that a unit file cannot hold"):
        command_line(["/bin/echo", word])
    with pytest.raises(ConfigError):
        value(word, "camera")


@pytest.mark.parametrize("program", ["kd-edge", "./kd-edge", "/opt/a$b/kd-edge", '/opt/a"b', "/opt/a\\b", "-/bin/echo"])
def test_a_program_is_an_absolute_path(program: str) -> None:
    with pytest.raises(ConfigError, match="an absolute path"):
        command_line([program])


def test_settings_are_changed_in_their_place() -> None:
    unit = Unit(TEXT)
    assert (unit.get("Key"), unit.get("Absent")) == ("1", "")
    unit.set("Other", "4")
    unit.add("Key", "New", "5")
    unit.drop(["WantedBy"])
    assert unit.text == "# words at its beginning\n[Service]\n# why\nKey=1\nOther=4\nKey=3\nNew=5\n\n[Install]\n"
    unit.drop_comments()
    assert unit.text == "[Service]\nKey=1\nOther=4\nKey=3\nNew=5\n\n[Install]\n"

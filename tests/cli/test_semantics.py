"""``kd-edge data glove``: what it writes, shows and refuses."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Kd, one_line

LINES = ["drink 1 2", "eat 3 4", "brush 5 6", "teeth 7 8", "unused 9 9", "up 0 1", "sit -1 0"]


def test_words_of_a_recipe_are_imported(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("\n".join(LINES) + "\n")
    code, text, _ = kd("data", "glove", "quickstart", "--from", "glove.txt", "--json")
    assert code == 0
    figures = json.loads(text)
    written = tmp_path / "cache" / "semantics" / f"{figures['name']}.txt"
    assert (figures["path"], figures["size"]) == (str(written), 2)
    assert figures["known"]["brush teeth"] == ["brush", "teeth"]
    assert figures["unknown"]["brush hair"] == ["hair"]
    assert figures["known"]["throw"] == []
    assert sorted(written.read_text().splitlines()) == sorted(line for line in LINES if "unused" not in line)


def test_the_table_names_what_is_unknown_and_how_to_use_the_file(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("\n".join(LINES) + "\n")
    code, text, _ = kd("data", "glove", "quickstart", "--from", "glove.txt", "--out", "few/words.txt")
    assert code == 0
    row = next(line for line in text.splitlines() if line.startswith("brush hair"))
    assert row.split() == ["brush", "hair", "brush", "hair"]  # class; known; unknown
    assert "semantics.vectors = 'few/words.txt'" in text
    assert (tmp_path / "few" / "words.txt").is_file()


def test_mistakes_are_one_line(kd: Kd, tmp_path: Path) -> None:
    code, _, error = kd("data", "glove", "quickstart", "--from", "absent.txt")
    assert code == 2
    assert "no vectors 'absent.txt'" in one_line(error)
    assert "Fix: correct --from" in error
    (tmp_path / "glove.txt").write_text("drink 1 2\neat 3\n")
    code, _, error = kd("data", "glove", "quickstart", "--from", "glove.txt")
    assert code == 2
    assert "line 2: 1 values, not 2" in one_line(error)
    assert not (tmp_path / "cache" / "semantics").exists()

"""Mutated TOML files of cameras, recipes, studies and profiles, and overrides of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kd_edge import recipes
from kd_edge.errors import KdEdgeError
from kd_edge.export.profile import ExportProfile
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.study.plan import StudyConfig, load_study, plan
from kd_edge.train.recipe import Recipe
from tests.fuzz.artifacts import check_line
from tests.fuzz.mutate import TEXTS, Generator, chance, choose, mutated_bytes

MODELS: dict[recipes.Verb, type[BaseModel] | None] = {
    "train": Recipe, "study": StudyConfig, "export": ExportProfile, "runtime": None
}  # fmt: skip
VALUES = (
    "0", "-1", "1", "9" * 30, "9" * 5000, "0x" + "f" * 5000, "1e999", "nan", "inf", "-inf", "1e300", "1e-300", "true",
    "1979-05-27T07:32:00Z", "07:32:00", "[]", "{}", "[[]]", "[" * 5000, "[" * 100 + "]" * 100, "{a=" * 3000, '""',
    '"\\u0000"', '"\\u202e"', "'\x1b'", '"""' + "x" * 3000 + '"""', '["a", 1]', "{kind='fixed'}", "{a.b.c=1}",
    "." * 100, '"replay:x?fps=nan"', '"synthetic:?fps=1e999"', '"v4l2:"', '"x:\\u0000"', '"replay:' + "y" * 6000 + '"',
)  # fmt: skip
LINES = (
    "a = 1", "[a]", "[[a]]", "a." * 20000 + "a = 1", "[" + "b." * 5000 + "b]", "= 1", "\x00", "[student]", "[[losses]]",
    'x = "' + "y" * 100_000 + '"', "name = 1", "\n" * 5000, "[a.b]\n[a]\nb = 1", "a = {b = 1}\na.c = 2", "uri = []",
)  # fmt: skip
KEYS = (
    "name", "student.epochs", "losses.0.weight", "losses.\u00b2.weight", "losses." + "9" * 5000, "a" + ".b" * 9, ".",
    "", "a..b", "data", "losses", "a." * 3000 + "a", "teacher.kind", "preprocess.window.low",
)  # fmt: skip


class Tomls:
    """Cases of TOML files; files of 300 kB and more, and what is no file at all, are among them."""

    def __init__(self, folder: Path, *, large: bool = True) -> None:
        self._path = folder / "case.toml"
        self._files = [
            (verb, path.read_bytes())
            for verb in MODELS
            for path in (recipes.find(verb, name) for name in recipes.names(verb))
        ]
        self._large = large

    def __call__(self, rng: Generator) -> str:
        """Try one case: ``refused`` or ``accepted``."""
        verb, content = choose(rng, self._files)
        self._put(rng, _mutated(rng, content))
        overrides = [f"{choose(rng, KEYS)}={choose(rng, VALUES)}" for _ in range(int(choose(rng, (0, 0, 0, 1, 3))))]
        try:
            self._read(rng, verb, overrides)
        except KdEdgeError as error:
            return check_line(error)
        return "accepted"

    def _read(self, rng: Generator, verb: recipes.Verb, overrides: list[str]) -> None:
        name = str(self._path)
        model = MODELS[verb]
        if model is None:
            camera_config(name)
        elif verb == "study":
            plan(load_study(name), overrides=overrides)
        elif verb == "train" and chance(rng, 0.2):  # as the base of a study
            values: dict[str, Any] = {"title": "x", "base": name, "rows": [{"name": "a"}], "splits": ["trials"]}
            plan(recipes.validate(values, StudyConfig, "study"), overrides=overrides)
        else:
            recipes.load(verb, name, model, overrides)

    def _put(self, rng: Generator, content: bytes) -> None:
        self._path.unlink(missing_ok=True)
        if self._path.is_dir():
            self._path.rmdir()
        kind = rng.random()
        if kind < 0.01:
            os.mkfifo(self._path)
        elif kind < 0.02:
            self._path.symlink_to("nowhere")
        elif kind < 0.03:
            self._path.symlink_to("/dev/zero")
        elif kind < 0.04 and self._large:
            with self._path.open("wb") as file:
                file.truncate(2**30)
        else:
            self._path.write_bytes(content)


def _mutated(rng: Generator, content: bytes) -> bytes:
    if chance(rng, 0.15):
        return mutated_bytes(rng, content)
    lines = content.decode().split("\n")
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(lines)))
        kind = rng.random()
        if kind < 0.65 and "=" in lines[at]:
            lines[at] = lines[at].partition("=")[0] + "= " + choose(rng, VALUES)
        elif kind < 0.75:
            lines.insert(at, choose(rng, LINES))
        elif kind < 0.85:
            lines.insert(at, lines[at])
        elif kind < 0.9:
            lines[at] = choose(rng, TEXTS) + lines[at]
        else:
            del lines[at]
            lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass") + choose(rng, (b"", b"", b"\xff", b"\r", b"\r\n"))

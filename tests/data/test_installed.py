"""Data sets that other packages bring: the example as a stranger installs it, and packages that are broken."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from kd_edge import recipes
from kd_edge.data import AnyData, DataConfig, FilesData, OwnData, data_config, known_kinds, open_dataset, unknown_kind
from kd_edge.data.config import KINDS
from kd_edge.errors import ConfigError, DataError
from kd_edge.recipes import to_toml
from kd_edge.train.recipe import Recipe
from tests.packages import EXAMPLE, Install
from tests.runs import tiny_values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def tiny(**data: object) -> Recipe:
    """A student alone that trains in a second."""
    values = tiny_values(data={"kind": "gestures", **data}, losses=[])
    del values["teacher"]
    values["student"] |= {"modality": "ir", "epochs": 1}
    return Recipe.model_validate(values)


def test_the_example_is_short_and_known(gestures: Path) -> None:
    code = [line for line in (EXAMPLE / "own_dataset.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 50
    assert known_kinds() == (*KINDS, "gestures")
    assert "own_dataset" not in sys.modules  # a name alone loads nothing
    config = data_config({"kind": "gestures", "fps": 15}, "test")
    dataset = open_dataset(config, gestures)
    assert (dataset.name, dataset.labels, len(dataset.samples)) == ("gestures", ("left", "right"), 24)
    assert dataset.open(dataset.samples[0], "ir").stamps_ns[1] == 66_666_667


def test_settings_survive_a_recipe_as_text(gestures: Path) -> None:
    recipe = tiny(fps=15)
    again = Recipe.model_validate(tomllib.loads(to_toml(recipe)))
    assert again == recipe
    assert json.loads(recipe.model_dump_json())["data"] == {"kind": "gestures", "root": None, "fps": 15.0}
    assert recipe.fingerprint() == tiny(fps=15, root="elsewhere").fingerprint() != tiny(fps=30).fingerprint()
    assert recipe.data.model_dump(mode="json", exclude={"root"}) == {"kind": "gestures", "fps": 15.0}


def test_built_in_settings_are_written_as_before() -> None:
    adapter: TypeAdapter[AnyData] = TypeAdapter(DataConfig)
    config = adapter.validate_python({"kind": "files", "root": "x"})
    assert config == FilesData(root=Path("x"))
    assert adapter.dump_python(config, mode="json") == {"kind": "files", "root": "x", "decode_height_px": 480}


def test_the_folder_may_be_given_in_three_ways(gestures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = data_config({"kind": "gestures"}, "test")
    assert len(open_dataset(config.model_copy(update={"root": gestures})).samples) == 24
    monkeypatch.delenv("KD_EDGE_DATA", raising=False)
    with pytest.raises(DataError, match="no folder given for the recordings of gestures"):
        open_dataset(config)
    monkeypatch.setenv("KD_EDGE_DATA", str(gestures.parent))
    gestures.rename(gestures.parent / "gestures")
    assert len(open_dataset(config).samples) == 24


def test_faults_of_settings_are_told_with_their_place(gestures: Path) -> None:
    with pytest.raises(ConfigError) as error:
        recipes.validate(tiny_values(data={"kind": "gestures", "fsp": 3, "seed": 1}, segments=1), Recipe, "recipe")
    found = "data.fsp: unknown key (did you mean 'fps'?); data.seed: unknown key; segments: input should be greater"
    assert f"recipe has 3 faults: {found}" in str(error.value)


def test_an_unknown_kind_is_told_with_all_that_are_known(gestures: Path) -> None:
    told = "unknown 'gesture' (did you mean 'gestures'?), known here: synthetic, utd_mhad, ntu_rgbd, pku_mmd, "
    told += "berkeley_mhad, mmact, fir_action, files, gestures; "
    told += "packages may add others (entry points kd_edge.datasets)"
    assert unknown_kind("gesture") == told
    with pytest.raises(ConfigError) as error:
        recipes.validate(tiny_values(data={"kind": "gesture"}, segments=1), Recipe, "recipe")
    assert f"recipe has 2 faults: data.kind: {told}; segments:" in str(error.value)


WHOLE = """
from pathlib import Path
from kd_edge.data import OwnData, Sample

class Dataset:
    name = "mine"; labels = ("a", "b"); modalities = ("ir",); flip_labels = None
    samples = (Sample("1", "s", "v", "t", 0), Sample("2", "s", "v", "t", 1))
    open = content_key = image_format = split = gaps = remarks = splits = lambda *_: None

class Mine(OwnData):
    kind: str = "mine"
    def open(self, folder: Path):
        return Dataset()
"""


@pytest.mark.parametrize(
    ("text", "value", "told"),
    [
        (None, "mine_package:Mine", "ModuleNotFoundError: No module named 'mine_package'"),
        ("import absent_package", "mine_package:Mine", "ModuleNotFoundError: No module named 'absent_package'"),
        ("1 / 0", "mine_package:Mine", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "mine_package:Mine", "SystemExit: 3"),
        ("def", "mine_package:Mine", "SyntaxError"),
        ("", "mine_package:Mine", "has no attribute 'Mine'"),
        ("Mine = 3", "mine_package:Mine", "it is not a subclass of kd_edge.data.OwnData with a method open"),
        ("class Mine: kind = 'mine'", "mine_package:Mine", "it is not a subclass of"),
        (WHOLE.replace("def open(self", "def opened(self"), "mine_package:Mine", "it is not a subclass of"),
        (
            WHOLE.replace('kind: str = "mine"', 'kind: str = "other"'),
            "mine_package:Mine",
            "the default of its field kind is 'other'",
        ),
        (
            WHOLE.replace('kind: str = "mine"', ""),
            "mine_package:Mine",
            "the default of its field kind is PydanticUndefined",
        ),
        ("", "mine_package", "it is not a subclass of"),
    ],
    ids=lambda value: None if value is None or len(value) > 30 else value,
)
def test_a_broken_package_is_named(install: Install, text: str | None, value: str, told: str) -> None:
    site = install(text or "", value=value)
    if text is None:
        (site / "mine_package.py").unlink()
    with pytest.raises(ConfigError) as error:
        data_config({"kind": "mine"}, "test")
    assert "the package mine-package 1.0 provides the data kind 'mine' as mine_package" in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert data_config({"kind": "files"}, "test") == FilesData()


def test_a_kind_of_ours_may_not_be_brought(install: Install) -> None:
    install("1 / 0", kind="files")
    with pytest.raises(
        ConfigError, match=r"the package mine-package 1\.0 provides a data kind 'files', which is built into"
    ):
        open_dataset(FilesData(), Path())
    assert known_kinds() == KINDS


def test_two_packages_may_not_bring_one_kind(install: Install) -> None:
    install(WHOLE)
    install(WHOLE, value="another:Mine", name="another-package")
    with pytest.raises(ConfigError, match=r"by the package another-package 1\.0 and by the package mine-package 1\.0"):
        data_config({"kind": "mine"}, "test")


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (("", ""), None, ""),
        (("remarks = splits", "remarks"), ConfigError, "kind 'mine', a Dataset, lacks 'splits'"),
        (('"2", "s"', '"1", "s"'), DataError, "two samples of kind 'mine' have the id '1'"),
        (('"t", 1', '"t", 2'), DataError, "sample '2' of kind 'mine' has the label 2. Expected an index into its 2"),
    ],
    ids=["whole", "member", "id", "label"],
)
def test_what_a_package_opens_is_looked_at(
    install: Install, tmp_path: Path, change: tuple[str, str], error: type[Exception] | None, told: str
) -> None:
    install(WHOLE.replace(*change))
    config = data_config({"kind": "mine"}, "test")
    if error is None:
        assert open_dataset(config, tmp_path).labels == ("a", "b")
        return
    with pytest.raises(error, match=told):
        open_dataset(config, tmp_path)


def test_a_kind_without_a_folder_refuses_one(install: Install, tmp_path: Path) -> None:
    install(WHOLE.replace('kind: str = "mine"', 'kind: str = "mine"\n    reads_folder = False'))
    config = data_config({"kind": "mine"}, "test")
    assert isinstance(config, OwnData)
    assert open_dataset(config).labels == ("a", "b")
    with pytest.raises(ConfigError, match=r"generated data \(kind = 'mine'\), which reads no folder"):
        open_dataset(config, tmp_path)

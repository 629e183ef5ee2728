import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from kd_edge import recipes
from kd_edge.errors import ConfigError, MissingExtraError

if recipes.sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["fixed"] = "fixed"
    low: float = 0


class Other(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["other"] = "other"
    span: int = 1


class Stage(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(ge=1)
    window: Annotated[Fixed | Other, Field(discriminator="kind")] = Fixed()


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    student: Stage
    losses: list[Stage] = []
    folder: Path | None = None
    sizes: tuple[tuple[float, float], ...] = ()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "train" / "recipes"
    place.mkdir(parents=True)
    return place


def test_all_faults_at_once_with_suggestions(folder: Path) -> None:
    (folder / "mine.toml").write_text(
        'nme = "x"\n[student]\nepochs = 0\nwindow = {kind = "fixed", lo = 3}\n[[losses]]\nepoch = 2\n'
    )
    with pytest.raises(ConfigError) as caught:
        recipes.load("train", "mine", Recipe)
    text = str(caught.value)
    assert f"recipe {folder}/mine.toml has 6 faults" in text
    for part in [
        "name: missing",
        "student.epochs: input should be greater than or equal to 1, got 0",
        "student.window.lo: unknown key (did you mean 'low'?)",
        "losses.0.epochs: missing",
        "losses.0.epoch: unknown key (did you mean 'epochs'?)",
        "nme: unknown key (did you mean 'name'?)",
    ]:
        assert part in text
    assert "\n" not in text


def test_unknown_kind_is_guessed(folder: Path) -> None:
    (folder / "mine.toml").write_text('name = "x"\n[student]\nepochs = 1\nwindow = {kind = "fixd"}\n')
    with pytest.raises(
        ConfigError, match=r"student.window.kind: unknown 'fixd' \(did you mean 'fixed'\?\), known: fixed, other"
    ):
        recipes.load("train", "mine", Recipe)


def test_overrides_win(folder: Path) -> None:
    (folder / "mine.toml").write_text('name = "x"\n[student]\nepochs = 1\n[[losses]]\nepochs = 2\n')
    overrides = ["student.epochs=7", "losses.0.epochs=9", "name=plain words", 'student.window={kind="other", span=4}']
    recipe = recipes.load("train", "mine", Recipe, overrides)
    assert (recipe.student.epochs, recipe.losses[0].epochs, recipe.name) == (7, 9, "plain words")
    assert recipe.student.window == Other(span=4)


STAGES: dict[str, Any] = {
    "stages": [{"kind": "dense", "epochs": 1}, {"kind": "head"}, {"epochs": 2}, 7],
    "losses": [{"kind": "dkd"}, {"kind": "at"}, {"kind": "dkd"}],
}


def test_a_table_of_a_list_goes_by_its_kind_or_its_position() -> None:
    changes = ["stages.dense.epochs=4", "stages.head.more.deep=5", "stages.2.epochs=6", "stages.3=8"]
    assert recipes.overridden(STAGES, [*changes, "losses.at.weight=2"]) == {
        "stages": [{"kind": "dense", "epochs": 4}, {"kind": "head", "more": {"deep": 5}}, {"epochs": 6}, 8],
        "losses": [{"kind": "dkd"}, {"kind": "at", "weight": 2}, {"kind": "dkd"}],
    }
    assert recipes.overridden(STAGES, ['stages.head={kind="labels"}'])["stages"][1] == {"kind": "labels"}
    gone = recipes.overridden(STAGES, ["stages.dense=null", "stages.0.epochs=3", "losses.at=null"])
    assert gone == {
        "stages": [{"kind": "head", "epochs": 3}, {"epochs": 2}, 7],
        "losses": [{"kind": "dkd"}, {"kind": "dkd"}],
    }


class Sum(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = "x"
    parts: tuple[Fixed | Other, ...] = (Fixed(), Other(span=3))
    numbers: tuple[int, ...] = (1, 2)


def test_a_table_of_a_list_that_the_file_leaves_out_is_that_of_the_model() -> None:
    changed = recipes.from_text("", Sum, "the sum", ["parts.other.span=5"])
    assert changed.parts == (Fixed(), Other(span=5))
    assert recipes.from_text("parts = []", Sum, "the sum").parts == ()
    for text, override in (("parts = []", "parts.other.span=5"), ("", "parts.fixd.low=1"), ("", "parts.2.low=1")):
        with pytest.raises(ConfigError, match="in a list of"):
            recipes.from_text(text, Sum, "the sum", [override])
    with pytest.raises(ConfigError, match="numbers: input should be a valid tuple"):
        recipes.from_text("", Sum, "the sum", ["numbers.0=5"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.x.epochs=1", "'x' in a list of 4. Expected the kind of one, dense, head, or a position from 0"),
        ("stages.4.epochs=1", "'4' in a list of 4"),
        ("losses.dkd.weight=1", "'dkd' in a list of 3, 2 of which are of that kind"),
        ("losses.-1.weight=1", "'-1' in a list of 3"),
        ("losses.\u0661.weight=1", "in a list of 3"),  # a one that int() knows
    ],
)
def test_a_table_that_a_list_does_not_have_is_told(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipes.overridden(STAGES, [override])
    assert message in str(caught.value)


def test_null_is_nothing_and_in_quotes_a_text(folder: Path) -> None:
    (folder / "mine.toml").write_text('name = "x"\nfolder = "a"\n[student]\nepochs = 1\n')
    assert recipes.load("train", "mine", Recipe, ["folder=null"]).folder is None
    assert recipes.load("train", "mine", Recipe, ['name="null"']).name == "null"
    assert recipes.load("train", "mine", Recipe, ["name=nullify"]).name == "nullify"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.epochs", "key=value"),  # no '='
        ("student=null", "student: input should be .*, got null, which is for optional keys"),
        ("name.x=1", "'name' is a value"),  # a table where a value is
        ("losses.3.epochs=1", "in a list of 0"),  # no such entry
    ],
)
def test_bad_overrides(folder: Path, override: str, message: str) -> None:
    (folder / "mine.toml").write_text('name = "x"\nlosses = []\n[student]\nepochs = 1\n')
    with pytest.raises(ConfigError, match=message):
        recipes.load("train", "mine", Recipe, [override])


def test_unknown_name_suggests(folder: Path) -> None:
    (folder / "quickstart2.toml").write_text("")
    with pytest.raises(ConfigError, match=r"unknown recipe 'quikstart2' \(did you mean 'quickstart2'\?\)"):
        recipes.find("train", "quikstart2")


def test_missing_path_and_broken_toml(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file gone\.toml"):
        recipes.find("train", "gone.toml")
    (folder / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read"):
        recipes.load("train", "bad", Recipe)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a = \xff", "can't decode byte 0xff"),
        (b"a = 1\0", "Expected newline"),
        (b"a = " + b"[" * 20_000, "nested too deeply"),
        (b"a = " + b"[" * 60 + b"]" * 60, "nested deeper than 32 levels"),
        (b"a." * 100_000 + b"a = 1", "a key of more than 32 parts at character 0"),
        (b"[b]\n['a' . \"b\".c" + b".a" * 31 + b"]", "a key of more than 32 parts at character 5"),
        (b"a = " + b"9" * 5000, "4300 digits"),
        (b"a = 0x" + b"f" * 5000, "an integer of more than 64 bits"),
        (b"#" * 256_001, "more than 256,000 bytes"),
    ],
)
def test_whatever_the_bytes_it_is_one_line(folder: Path, content: bytes, why: str) -> None:
    (folder / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"bad\.toml cannot be read \(.*{why}") as caught:
        recipes.load("train", "bad", Recipe)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_key_of_as_many_parts_as_allowed_and_dots_in_texts_are_read(folder: Path) -> None:
    key = ".".join("abcdefgh" * 3)
    (folder / "good.toml").write_text(f'{key} = 1\nb = "{"a" * 100}. b. {"." * 100}"\n')
    assert recipes.read("train", "good").keys() == {"a", "b"}


def test_values_of_all_kinds_where_others_belong(folder: Path) -> None:
    (folder / "bad.toml").write_text(
        f'name = 1979-05-27\nfolder = "{"x" * 50_000}\\u0000"\nsizes = [[nan, 1], [true, inf]]\n'
        "student = {epochs = 9223372036854775807, window = []}\nlosses = {a.b = 1}\n" + f'"{"k" * 50_000}" = 1\n'
    )
    with pytest.raises(ConfigError, match=r"bad\.toml has") as caught:
        recipes.load("train", "bad", Recipe)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_of_very_many_faults_the_first_are_told(folder: Path) -> None:
    (folder / "bad.toml").write_text("".join(f"key{k} = 1\n" for k in range(500)))
    with pytest.raises(ConfigError, match=r"has 502 faults: .*; and 482 more\. Expected"):
        recipes.load("train", "bad", Recipe)


def test_what_is_no_file_is_neither_listed_nor_found(folder: Path) -> None:
    os.mkfifo(folder / "fifo.toml")
    (folder / "link.toml").symlink_to("nowhere")
    (folder / "zero.toml").symlink_to("/dev/zero")
    (folder / "folder.toml").mkdir()
    assert not {"fifo", "link", "zero", "folder"} & set(recipes.names("train"))
    for name in ("fifo", "link.toml", "train/recipes/fifo.toml", "train/recipes/zero.toml", "x" * 5000, "a\0.toml"):
        with pytest.raises(ConfigError, match=r"unknown recipe|no file"):
            recipes.load("train", name, Recipe)


def test_a_working_directory_that_was_removed_holds_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "ir0" in recipes.names("runtime")
    assert recipes.find("runtime", "ir0").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("losses.\u00b2.epochs=1", "in a list of 1"),  # a digit to some, no number
        ("losses." + "9" * 5000 + ".epochs=1", "in a list of 1"),
        ("a." * 40 + "a=1", "a key of at most 32 parts"),
        ("student.epochs=0x" + "f" * 5000, r"student.epochs: input should be a valid integer.*, got '0xf+"),
        ("sizes=" + "[" * 20_000, "sizes: input should be a valid tuple"),
        ("student.epochs=1\nname = 2", "student.epochs: input should be a valid integer"),
    ],
)
def test_overrides_of_all_kinds(folder: Path, override: str, message: str) -> None:
    (folder / "mine.toml").write_text('name = "x"\n[student]\nepochs = 1\n[[losses]]\nepochs = 2\n')
    with pytest.raises(ConfigError, match=message) as caught:
        recipes.load("train", "mine", Recipe, [override])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_own_folder_comes_before_the_shipped_one(folder: Path) -> None:
    (folder / "quickstart.toml").write_text("")
    assert recipes.find("train", "quickstart") == folder / "quickstart.toml"
    assert "quickstart" in recipes.names("train")


def test_written_toml_reads_back() -> None:
    recipe = Recipe(
        name='a "b"\n\\ \U0001f916 \x7f',
        student=Stage(epochs=3, window=Other()),
        losses=[Stage(epochs=1), Stage(epochs=2)],
        folder=Path("~/data dir"),
        sizes=((1e-05, 2.0), (float("inf"), 1e22)),
    )
    text = recipes.to_toml(recipe)
    assert Recipe.model_validate(tomllib.loads(text)) == recipe
    assert "folder" not in recipes.to_toml(recipe.model_copy(update={"folder": None})), "None is left out"


def test_a_robot_without_tomli_w_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    with pytest.raises(MissingExtraError, match=r"the extra \[train\]"):
        recipes.to_toml(Recipe(name="x", student=Stage(epochs=1)))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_numbers_without_an_end_are_told_with_their_place(text: str) -> None:
    with pytest.raises(ConfigError, match=f"2 faults: sizes.0.1: must be a finite number, got {text}; nme"):
        recipes.from_text(f"sizes = [[1, {text}]]\nnme = 1\nname = 'x'\nstudent = {{epochs = 1}}", Recipe, "recipe")


def test_a_mark_before_the_text_is_none_of_it(folder: Path) -> None:
    file = folder / "marked.toml"
    file.write_bytes(b'\xef\xbb\xbfname = "x"\n')
    assert recipes.text_of(file) == 'name = "x"\n'
    assert recipes.read("train", str(file)) == {"name": "x"}

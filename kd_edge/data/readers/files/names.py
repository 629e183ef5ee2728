"""What the names of one's own recordings tell where nobody has said how they are made up: who performs, which action.

Only what cannot well be anything else is taken: a letter or word that is usual before a number (``s03``, ``subject3``,
``trial_2``), or, of words without one, the column whose words come back in other classes, as people's names do.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, zip_longest

from kd_edge.errors import DataError, printable

_WORDS: Mapping[str, tuple[str, ...]] = {
    "subject": ("s", "sub", "subj", "subject", "p", "person", "participant", "actor", "performer", "user", "name"),
    "trial": ("t", "trial", "r", "rep", "repetition", "take", "run", "e"),
    "view": ("c", "cam", "camera", "v", "view"),
    "label": ("a", "act", "action", "class", "gesture", "label"),
    "group": ("g", "group"),
}
"""What stands before a number in names of recordings. Groups are of the same people (UCF101)."""
_FIELD_OF = {word: field for field, words in _WORDS.items() for word in words}
_SPELT_OUT = 3
"""Only a word of so many letters is believed to say what the next word is (``subject_anna``)."""
_SEPARATORS = re.compile(r"[/_\-. ]+")
_RUN_TOGETHER = re.compile(r"(?:[A-Za-z]+\d+){2,}")
_LETTERS_NUMBER = re.compile(r"([A-Za-z]+)(\d+)")

_MOST = 0.9
"""What so many names tell is taken, though a few strays do not."""

Told = dict[str, str]
"""Field (``subject``, ``trial``, ``view``, ``label``) -> what a name says of it."""


def is_subject(name: str) -> bool:
    """Whether a folder's name is a numbered person: ``s01``, ``subject_3``."""
    match = re.fullmatch(r"([A-Za-z]+)[_\- ]?\d+", name)
    return match is not None and _FIELD_OF.get(match[1].lower()) == "subject"


def person(name: str) -> str:
    """A subject's name without what people write differently: capitals, and zeros before a number."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold())


def other_spellings(names: Iterable[str]) -> dict[str, str]:
    """Subject that is one spelled before, but for capitals and zeros before a number -> how it was spelled first."""
    first: dict[str, str] = {}
    spelled = {name: first.setdefault(person(name), name) for name in names if name}
    return {name: other for name, other in spelled.items() if name != other}


def strays(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names that do not tell who performs where most do, but too few for ``told_by_names`` to take it.

    Args:
        labels: Class of each recording.
        names: As for ``told_by_names``.
    """
    tokens = [_tokens(name) for name in names]
    telling = [not {"subject", "group"}.isdisjoint(_numbered(its)) for its in tokens]
    if not any(telling):
        usual = _usual_length(tokens)
        telling = [len(its) == usual for its in tokens]
        if not _people([its for its in tokens if len(its) == usual], list(compress(labels, telling))):
            return []
    if not len(names) / 2 <= sum(telling) < _MOST * len(names):
        return []
    return [name for name, tells in zip(names, telling, strict=True) if not tells]


def told_by_names(labels: Sequence[str], names: Sequence[str], where: str) -> list[Told]:
    """What each recording's name tells beside its class: a class where all names do, the rest where nine in ten do.

    Args:
        labels: Class of each recording by its folder; all empty where no folder names classes, then names may.
        names: What is left of each path below its class's folder without modality and ending, as ``anna/take_03``.
        where: The folder, for messages.

    Raises:
        DataError: No folder names a class, and two words of the names could.
    """
    tokens = [_tokens(name) for name in names]
    told = [_numbered(its) for its in tokens]
    counts = Counter(field for its in told for field in its)
    common = {field for field, n in counts.items() if n >= (1 if field == "label" else _MOST) * len(told)}
    told = [{field: its[field] for field in its if field in common} for its in told]
    if not any(labels):
        _tell_labels(told, tokens, names, where)
        labels = [its.get("label", "") for its in told]
    if "subject" not in common:
        _tell_subjects(told, tokens, labels)
    return [{field: text for field, text in its.items() if field != "group"} for its in told]


def _tokens(name: str) -> list[str]:
    """Words and numbers of a name; what runs together as ``S001C002`` is taken apart."""
    found: list[str] = []
    for part in filter(None, _SEPARATORS.split(name)):
        together = _RUN_TOGETHER.fullmatch(part) is not None
        found += [match[0] for match in _LETTERS_NUMBER.finditer(part)] if together else [part]
    return found


def _numbered(tokens: Sequence[str]) -> Told:
    """Fields that a letter or word before a number, or a word that is spelt out, names; the first of each counts."""
    told: Told = {}
    for token, following in zip_longest(tokens, tokens[1:], fillvalue=""):
        match = _LETTERS_NUMBER.fullmatch(token)
        field = _FIELD_OF.get(match[1].lower() if match else token.lower())
        if field is None:
            continue
        if match:
            told.setdefault(field, token if field == "label" else match[2])
            if token[0] in "Pp" and field == "subject":  # S001P003: the third person of the first setup
                told[field] = match[2]
        elif following and (following.isdigit() or len(token) > _SPELT_OUT):
            told.setdefault(field, following)
    return told


def _tell_labels(told: Sequence[Told], tokens: Sequence[Sequence[str]], names: Sequence[str], where: str) -> None:
    """Add the class where files lie in no class's folder: the only word of the names that changes and comes back."""
    if told and "label" in told[0]:
        return
    if len({len(its) for its in tokens}) > 1:  # names of one and of two words: "wave_01", "sit_down_01"
        words = ["_".join(_leading_words(its)) for its in tokens]
        if all(words) and _come_back(words):
            for its, word in zip(told, words, strict=True):
                its["label"] = word
        return
    columns = [column for column in _word_columns(tokens) if _come_back(column)]
    if len(columns) == 1:
        for its, word in zip(told, columns[0], strict=True):
            its["label"] = word
    elif columns:
        one, other = columns[0][0], columns[1][0]
        raise DataError(
            f"{where} has files by no class's folder, whose names have two words that change: '{printable(one)}' and "
            f"'{printable(other)}' in '{printable(names[0])}'",
            "to know which of them is the class",
            "say --pattern '{label}_{subject}_{trial}' or whatever it is (pattern in dataset.toml), or use folders",
        )


def _leading_words(tokens: Sequence[str]) -> list[str]:
    first = next((k for k, token in enumerate(tokens) if _has_digit(token)), len(tokens))
    return list(tokens[:first])


def _tell_subjects(told: Sequence[Told], tokens: Sequence[Sequence[str]], labels: Sequence[str]) -> None:
    """Add who performs: groups of the same people, else words that come back in other classes."""
    if any("group" in its for its in told):
        for its in told:
            its.update({"subject": its["group"]} if "group" in its else {})
        return
    usual = _usual_length(tokens)
    chosen = [k for k, its in enumerate(tokens) if len(its) == usual]
    if len(chosen) >= _MOST * len(tokens):
        people = _people([tokens[k] for k in chosen], [labels[k] for k in chosen])
        for k, word in zip(chosen, people, strict=False):
            told[k]["subject"] = word


def _usual_length(tokens: Sequence[Sequence[str]]) -> int:
    """Of how many words and numbers most names are made."""
    return max(Counter(map(len, tokens)).items(), key=lambda item: item[1], default=(0, 0))[0]


def _people(tokens: Sequence[Sequence[str]], labels: Sequence[str]) -> list[str]:
    """The words of equally long names that come back in other classes; none where there are none."""
    for column in _word_columns(tokens):
        alike = [person(word) for word in column]
        if _come_back(alike) and _in_several_classes(alike, labels):
            return column
    return []


def _word_columns(tokens: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """What stands at one place of all the names, where it is a word without digits in each."""
    for column in zip(*tokens, strict=True):
        if not any(map(_has_digit, column)):
            yield list(column)


def _come_back(words: Sequence[str]) -> bool:
    """Whether there are at least two words, and each of them occurs again."""
    counts = Counter(words)
    return len(counts) > 1 and min(counts.values()) > 1


def _in_several_classes(words: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether words are none of a class: each but one in five occurs in more than one."""
    classes = defaultdict[str, set[str]](set)
    for word, label in zip(words, labels, strict=True):
        classes[word].add(label)
    return sum(len(its) > 1 for its in classes.values()) >= 0.8 * len(classes)


def _has_digit(token: str) -> bool:
    return any(character.isdigit() for character in token)

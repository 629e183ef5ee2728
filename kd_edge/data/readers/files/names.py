"""Read subject, action, trial and view from the names of recordings when no pattern is given.

Only unambiguous parts are used: a usual letter or word before a number (``s03``, ``subject3``, ``trial_2``) or, for
words without a number, the position whose words recur in other classes, as people's names do.
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
"""Words before a number in names of recordings. A group is of the same people (UCF101)."""
_FIELD_OF = {word: field for field, words in _WORDS.items() for word in words}
_SPELT_OUT = 3
"""Only a word of more letters than this names the field of the next word (``subject_anna``)."""
_SEPARATORS = re.compile(r"[/_\-. ]+")
_RUN_TOGETHER = re.compile(r"(?:[A-Za-z]+\d+){2,}")
_LETTERS_NUMBER = re.compile(r"([A-Za-z]+)(\d+)")

_MOST = 0.9
"""A field is used if at least this share of the names contains it, so that a few strays do not matter."""

Fields = dict[str, str]
"""Field (``subject``, ``trial``, ``view``, ``label``) -> its text in a name."""


def is_subject(name: str) -> bool:
    """Whether a folder name is a numbered person: ``s01``, ``subject_3``."""
    match = re.fullmatch(r"([A-Za-z]+)[_\- ]?\d+", name)
    return match is not None and _FIELD_OF.get(match[1].lower()) == "subject"


def person(name: str) -> str:
    """Normalise a subject's name: case-folded, without leading zeros in numbers."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold())


def other_spellings(names: Iterable[str]) -> dict[str, str]:
    """Map each subject that differs from an earlier one only by capitals or leading zeros to the earlier spelling."""
    first: dict[str, str] = {}
    spelled = {name: first.setdefault(person(name), name) for name in names if name}
    return {name: earlier for name, earlier in spelled.items() if name != earlier}


def strays(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names without a subject, if most names have one but too few for ``fields_from_names`` to use it.

    Args:
        labels: Class of each recording.
        names: See ``fields_from_names``.
    """
    tokens = [_tokens(name) for name in names]
    has_subject = [not {"subject", "group"}.isdisjoint(_numbered(words)) for words in tokens]
    if not any(has_subject):
        usual = _usual_length(tokens)
        has_subject = [len(words) == usual for words in tokens]
        if not _people([words for words in tokens if len(words) == usual], list(compress(labels, has_subject))):
            return []
    if not len(names) / 2 <= sum(has_subject) < _MOST * len(names):
        return []
    return [name for name, has_one in zip(names, has_subject, strict=True) if not has_one]


def fields_from_names(labels: Sequence[str], names: Sequence[str], where: str) -> list[Fields]:
    """Read the fields of each recording's name: the class if all names contain it, others if nine in ten do.

    Args:
        labels: Class of each recording by its folder; if all are empty, the class is read from the names.
        names: Path of each recording below its class folder without modality and suffix, for example ``anna/take_03``.
        where: The folder, for messages.

    Raises:
        DataError: There are no class folders, and two words of the names could be the class.
    """
    tokens = [_tokens(name) for name in names]
    fields = [_numbered(words) for words in tokens]
    counts = Counter(field for values in fields for field in values)
    common = {field for field, n in counts.items() if n >= (1 if field == "label" else _MOST) * len(fields)}
    fields = [{field: values[field] for field in values if field in common} for values in fields]
    if not any(labels):
        _add_labels(fields, tokens, names, where)
        labels = [values.get("label", "") for values in fields]
    if "subject" not in common:
        _add_subjects(fields, tokens, labels)
    return [{field: text for field, text in values.items() if field != "group"} for values in fields]


def _tokens(name: str) -> list[str]:
    """Words and numbers of a name; run-together ones such as ``S001C002`` are split."""
    found: list[str] = []
    for part in filter(None, _SEPARATORS.split(name)):
        together = _RUN_TOGETHER.fullmatch(part) is not None
        found += [match[0] for match in _LETTERS_NUMBER.finditer(part)] if together else [part]
    return found


def _numbered(tokens: Sequence[str]) -> Fields:
    """Fields named by a letter or word before a number, or by a spelt-out word; the first of each counts."""
    fields: Fields = {}
    for token, following in zip_longest(tokens, tokens[1:], fillvalue=""):
        match = _LETTERS_NUMBER.fullmatch(token)
        field = _FIELD_OF.get(match[1].lower() if match else token.lower())
        if field is None:
            continue
        if match:
            fields.setdefault(field, token if field == "label" else match[2])
            if token[0] in "Pp" and field == "subject":  # S001P003: the third person of the first setup
                fields[field] = match[2]
        elif following and (following.isdigit() or len(token) > _SPELT_OUT):
            fields.setdefault(field, following)
    return fields


def _add_labels(fields: Sequence[Fields], tokens: Sequence[Sequence[str]], names: Sequence[str], where: str) -> None:
    """Add the class of files outside class folders: the only word of the names that varies and recurs."""
    if fields and "label" in fields[0]:
        return
    if len({len(words) for words in tokens}) > 1:  # names of one and of two words: "wave_01", "sit_down_01"
        labels = ["_".join(_leading_words(words)) for words in tokens]
        if all(labels) and _recur(labels):
            for values, label in zip(fields, labels, strict=True):
                values["label"] = label
        return
    columns = [column for column in _word_columns(tokens) if _recur(column)]
    if len(columns) == 1:
        for values, label in zip(fields, columns[0], strict=True):
            values["label"] = label
    elif columns:
        first, second = columns[0][0], columns[1][0]
        raise DataError(
            f"{where} has files outside class folders whose names have two words that vary: '{printable(first)}' and "
            f"'{printable(second)}' in '{printable(names[0])}'",
            "to know which of them is the class",
            "give a pattern such as --pattern '{label}_{subject}_{trial}' (pattern in dataset.toml), or use folders",
        )


def _leading_words(tokens: Sequence[str]) -> list[str]:
    first = next((k for k, token in enumerate(tokens) if _has_digit(token)), len(tokens))
    return list(tokens[:first])


def _add_subjects(fields: Sequence[Fields], tokens: Sequence[Sequence[str]], labels: Sequence[str]) -> None:
    """Add the subject: the group if names contain one, otherwise the word that recurs in other classes."""
    if any("group" in values for values in fields):
        for values in fields:
            values.update({"subject": values["group"]} if "group" in values else {})
        return
    usual = _usual_length(tokens)
    chosen = [k for k, words in enumerate(tokens) if len(words) == usual]
    if len(chosen) >= _MOST * len(tokens):
        people = _people([tokens[k] for k in chosen], [labels[k] for k in chosen])
        for k, word in zip(chosen, people, strict=False):
            fields[k]["subject"] = word


def _usual_length(tokens: Sequence[Sequence[str]]) -> int:
    """The most frequent number of tokens in a name."""
    return max(Counter(map(len, tokens)).items(), key=lambda item: item[1], default=(0, 0))[0]


def _people(tokens: Sequence[Sequence[str]], labels: Sequence[str]) -> list[str]:
    """The words of equally long names that recur in other classes; empty if there are none."""
    for column in _word_columns(tokens):
        normalised = [person(word) for word in column]
        if _recur(normalised) and _in_several_classes(normalised, labels):
            return column
    return []


def _word_columns(tokens: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield the words at one position of all names, if none contains a digit."""
    for column in zip(*tokens, strict=True):
        if not any(map(_has_digit, column)):
            yield list(column)


def _recur(words: Sequence[str]) -> bool:
    """Whether there are at least two different words and each occurs more than once."""
    counts = Counter(words)
    return len(counts) > 1 and min(counts.values()) > 1


def _in_several_classes(words: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether at least four in five words occur in more than one class."""
    classes = defaultdict[str, set[str]](set)
    for word, label in zip(words, labels, strict=True):
        classes[word].add(label)
    return sum(len(labels_of_word) > 1 for labels_of_word in classes.values()) >= 0.8 * len(classes)


def _has_digit(token: str) -> bool:
    return any(character.isdigit() for character in token)

"""Find and read TOML files (recipes, profiles, cameras) into pydantic models; report all faults at once."""

from __future__ import annotations

import copy
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.files import user_folder
from kd_edge.packages import import_extra
from kd_edge.reading import DEPTH, check_plain, is_file, read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Verb = Literal["train", "study", "export", "runtime"]
Model = TypeVar("Model", bound=BaseModel)

FOLDERS: dict[Verb, tuple[str, str]] = {
    "train": ("train", "recipes"),
    "study": ("train", "studies"),
    "export": ("export", "profiles"),
    "runtime": ("runtime", "cameras"),
}
"""Top-level folder of each verb, and where its TOML files lie inside."""
TOML_BYTES = 256_000
"""Upper limit for the size of a TOML file: no hand-written file is longer."""
_KEY_PART = r"""(?:(?<![\w-])[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?:{_KEY_PART}[ \t]*\.[ \t]*){{{DEPTH}}}")
_FAULTS_SHOWN, _VALUE_CHARACTERS = 20, 120
NOUNS: dict[Verb, str] = {"train": "recipe", "study": "study", "export": "profile", "runtime": "camera"}
LISTINGS: dict[Verb, str] = {
    "train": "kd-edge recipes list",
    "study": "kd-edge study list",
    "export": "ls export/profiles",
    "runtime": "kd-edge cameras",
}


def search_path(verb: Verb) -> list[Path]:
    """Folders to search for a named file, the user's own first."""
    package = Path(__file__).parent
    top, inner = FOLDERS[verb]
    packaged = package / "_recipes" / top
    shipped = packaged if packaged.is_dir() else package.parent / top
    own = user_folder("config")
    roots = [*_local_folder(top), *([] if own is None else [own / top]), shipped]
    # Studies are searched only in their own folder, because train/ itself contains recipes.
    return [folder for root in roots for folder in ([root / inner] if verb == "study" else [root / inner, root])]


def _local_folder(top: str) -> list[Path]:
    try:
        return [Path.cwd() / top]
    except OSError:  # the working directory was removed
        return []


def names(verb: Verb) -> list[str]:
    """Sorted names, without duplicates, of all files that a verb can use."""
    found = (file for folder in search_path(verb) if folder.is_dir() for file in folder.glob("*.toml"))
    return sorted({file.stem for file in found if is_file(file)})


def find(verb: Verb, name: str) -> Path:
    """Locate a TOML file by path or by name.

    Raises:
        ConfigError: There is no such file; the error suggests the closest name.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if is_file(path):
            return path
        raise ConfigError(f"no file {name}", f"a {NOUNS[verb]} file", f"check the path, or {LISTINGS[verb]}")
    for folder in search_path(verb):
        if is_file(path := folder / f"{name}.toml"):
            return path
    known = names(verb)
    creation = f", and kd-edge cameras --write {name} creates one" if verb == "runtime" else ""
    raise ConfigError(
        f"unknown {NOUNS[verb]} '{name}'{did_you_mean(name, known)}",
        f"one of {', '.join(known)}",
        f"{LISTINGS[verb]} shows them{creation}; a path ending in .toml works too",
    )


def load(verb: Verb, name: str, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Find, read and validate one TOML file.

    Args:
        verb: Whose file it is.
        name: A name to search for, or a path ending in ``.toml``.
        model: The pydantic model it must satisfy.
        overrides: ``dotted.key=value`` entries that take precedence over the file. The value is parsed as TOML, or
            otherwise taken as a string; ``null`` removes an optional key or one table of a list. A table of a list is
            addressed by its ``kind`` or its position.

    Raises:
        ConfigError: All faults of the file together, each with its location and a suggestion.
    """
    path = find(verb, name)
    return validate(_with_overrides(_parse_file(path), overrides, model), model, f"{NOUNS[verb]} {path}")


def read(verb: Verb, name: str) -> dict[str, Any]:
    """Find and read one TOML file without validating it.

    Raises:
        ConfigError: There is no such file, or it is not TOML.
    """
    return _parse_file(find(verb, name))


def from_text(text: str, model: type[Model], what: str, overrides: Sequence[str] = ()) -> Model:
    """Validate the text of a TOML file; see ``load``.

    Raises:
        ConfigError: The text is not TOML, or has faults.
    """
    try:
        values = _parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{what} cannot be read ({error})", "TOML", "correct it") from error
    return validate(_with_overrides(values, overrides, model), model, what)


def text_of(path: Path) -> str:
    """Read a TOML file's text, without a byte-order mark.

    Raises:
        ConfigError: The file cannot be read, is longer than ``TOML_BYTES``, or is not UTF-8.
    """
    try:
        return read_bytes(path, TOML_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    except ValueError as error:
        raise _unreadable(path, error) from error


def overridden(raw: dict[str, Any], overrides: Sequence[str], where: str = "") -> dict[str, Any]:
    """Return a copy of plain values with ``dotted.key=value`` entries applied.

    Args:
        raw: The values.
        overrides: The entries, see ``load``.
        where: Prefix of error messages.

    Raises:
        ConfigError: An entry has no ``=``, or a key lies below a value that is not a table.
    """
    values = copy.deepcopy(raw)
    for override in overrides:
        _override(values, override, where)
    return values


def _with_overrides(raw: dict[str, Any], overrides: Sequence[str], model: type[BaseModel]) -> dict[str, Any]:
    into = [key.strip() for key, dot, _ in (override.partition("=")[0].partition(".") for override in overrides) if dot]
    return overridden(with_lists(raw, into, model), overrides)


def with_lists(raw: dict[str, Any], keys: Iterable[str], model: type[BaseModel]) -> dict[str, Any]:
    """Add a model's default lists of tables to the values, so that single tables of them can be overridden.

    Args:
        raw: The values.
        keys: Keys of the lists to be changed; only lists missing from the values are added.
        model: The model with the defaults.
    """
    fields = {key: model.model_fields[key] for key in keys if key in model.model_fields and key not in raw}
    defaults = {key: field.get_default(call_default_factory=True) for key, field in fields.items()}
    written = {
        key: [table.model_dump(mode="json", exclude_none=True) for table in tables]
        for key, tables in defaults.items()
        if isinstance(tables, (list, tuple)) and all(isinstance(table, BaseModel) for table in tables)
    }
    return raw | written


def position(tables: Sequence[Any], part: str, where: str) -> int:
    """Return the position of the table in a list that a part of a key refers to, by its ``kind`` or its position.

    Args:
        tables: The list.
        part: The part of the key, for example ``dense`` or ``0``.
        where: Prefix of error messages.

    Raises:
        ConfigError: No table matches, or several have that kind.
    """
    if part.isascii() and part.isdecimal() and len(part) < 10 and int(part) < len(tables):
        return int(part)
    kinds = [table["kind"] for table in tables if isinstance(table, dict) and isinstance(table.get("kind"), str)]
    if kinds.count(part) == 1:
        return next(k for k, table in enumerate(tables) if isinstance(table, dict) and table.get("kind") == part)
    known = f"the kind of one, {', '.join(dict.fromkeys(kinds))}, or " if kinds else ""
    several = f", {kinds.count(part)} of which are of that kind" if part in kinds else ""
    raise ConfigError(
        f"{where}: '{part[:_VALUE_CHARACTERS]}' in a list of {len(tables)}{several or did_you_mean(part, kinds)}",
        f"{known}a position from 0",
        "correct it",
    )


def _parse_file(path: Path) -> dict[str, Any]:
    try:
        return _parse_toml(text_of(path))
    except ValueError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, why: object) -> ConfigError:
    return ConfigError(f"{path} cannot be read ({why})", "a TOML file in UTF-8", "correct the file")


def _parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; raises ValueError (such as TOMLDecodeError) for any fault."""
    if long := _LONG_KEY.search(text):  # the parser's time grows with the square of a key's parts
        raise ValueError(f"a key of more than {DEPTH} parts at character {long.start()}")
    try:
        values = tomllib.loads(text.replace("\r\n", "\n"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_plain(values)
    return values


def validate(raw: dict[str, Any], model: type[Model], what: str) -> Model:
    """Validate plain values against a model, reporting all faults in one error.

    Numbers that are not finite are faults in every file, because training, measuring and writing cannot handle them.

    Raises:
        ConfigError: The values have faults; each is reported with its location.
    """
    faults = [f"{place}: must be a finite number, got {value}" for place, value in _non_finite(raw)]
    cause: ValidationError | None = None
    try:
        validated = model.model_validate(raw)
        if not faults:
            return validated
    except ValidationError as error:
        cause = error
        reported = {fault.partition(": ")[0] for fault in faults}
        raised = [d for d in error.errors(include_url=False) if ".".join(map(str, d["loc"])) not in reported]
        details = [d for d in raised if not _is_consequence(d, raised)]
        faults += [fault for detail in details[:_FAULTS_SHOWN] for fault in _faults(detail, model)]
        faults += [""] * (len(details) - _FAULTS_SHOWN)  # counted but not shown
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
    raise ConfigError(
        f"{what} has {count}: {'; '.join([*faults[:_FAULTS_SHOWN], *more])}",
        "every key known and in range",
        "correct them and run again",
    ) from cause


def to_toml(model: BaseModel) -> str:
    """Serialise a model as TOML that loads as an equal model; None is left out.

    Raises:
        MissingExtraError: tomli-w is not installed; it is optional because a robot only reads TOML.
    """
    text: str = import_extra("tomli_w", "train").dumps(model.model_dump(mode="json", exclude_none=True))
    return text


def _non_finite(value: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Iterate over the location and value of each number that is infinite or NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place[1:], value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _non_finite(inner, f"{place}.{str(key)[:_VALUE_CHARACTERS]}")
    elif isinstance(value, (list, tuple)):
        for k, inner in enumerate(value):
            yield from _non_finite(inner, f"{place}.{k}")


def _override(raw: dict[str, Any], override: str, where: str) -> None:
    key, equals, text = override.partition("=")
    shown = f"{where}--set {override[:_VALUE_CHARACTERS]}"
    if not equals or not key.strip():
        raise ConfigError(shown, "key=value, for example --set student.epochs=20", "add the '=' part")
    value = _parse_value(text)
    *parents, last = key.strip().split(".")
    if len(parents) >= DEPTH:
        raise ConfigError(shown, f"a key of at most {DEPTH} parts", "shorten it")
    table: Any = raw
    for part in parents:
        table = _descend(table, part, shown)
    if isinstance(table, list) and value is None:
        del table[position(table, last, shown)]
    elif isinstance(table, list):
        table[position(table, last, shown)] = value
    else:
        table[last] = value


def _parse_value(text: str) -> Any:
    """Parse the value of an override: None for ``null``, a TOML value, or otherwise the text itself."""
    if text.strip() == "null":
        return None
    with suppress(ValueError):
        values = _parse_toml(f"value = {text}")
        if len(values) == 1:
            return values["value"]
    return text


def _descend(table: Any, part: str, shown: str) -> Any:
    if isinstance(table, list):
        return table[position(table, part, shown)]
    child = table.setdefault(part, {})
    if not isinstance(child, (dict, list)):
        raise ConfigError(f"{shown}: '{part[:_VALUE_CHARACTERS]}' is a value", "a table", "drop what follows it")
    return child


def _is_consequence(detail: Any, raised: Sequence[Any]) -> bool:
    """Whether a list is too short only because some of its items are invalid, which is reported already."""
    loc = detail["loc"]
    return detail["type"] == "too_short" and any(d["loc"][: len(loc)] == loc for d in raised if d is not detail)


def _faults(detail: Any, model: type[BaseModel]) -> list[str]:
    """Split a pydantic error into one fault per line: a model's validator may report several contradictions at once."""
    lines = str(detail["msg"]).split("\n") if detail["type"] == "value_error" else [detail["msg"]]
    return [_fault(detail | {"msg": line}, model) for line in lines]


def _fault(detail: Any, model: type[BaseModel]) -> str:
    """Format one pydantic error as ``location: fault``."""
    loc = tuple(part[:_VALUE_CHARACTERS] if isinstance(part, str) else part for part in detail["loc"])
    fields, place = _locate(model, loc)
    if detail["type"] == "extra_forbidden":
        key = str(loc[-1])  # not suggested itself: a field of another kind of data set may have this name
        return f"{place}: unknown key{did_you_mean(key, (field for field in fields if field != key))}"
    if detail["type"] == "missing":
        return f"{place}: missing"
    if detail["type"] == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in detail["ctx"]["expected_tags"].split(",")]
        tag = str(detail["ctx"]["tag"])[:_VALUE_CHARACTERS]
        return f"{place}.kind: unknown '{tag}'{did_you_mean(tag, tags)}, known: {', '.join(tags)}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "unknown_kind":  # the message already contains the value and the known kinds
        return f"{place}: {message}"
    value = detail.get("input")
    field = model.model_fields.get(str(loc[0])) if loc else None
    is_secret = field is not None and not field.repr  # values that the model's repr hides are not shown here either
    shown = f", got {_shortened(value)}" if isinstance(value, (str, int, float, bool)) and not is_secret else ""
    if value is None:
        shown = ", got null, which is for optional keys"
    where = f"{place}: " if place else ""  # the message of a contradiction names the keys itself
    return f"{where}{message[:1].lower()}{message[1:]}{shown}"


def _shortened(value: object) -> str:
    """Format a value for a message, shortened if long."""
    text = repr(value)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[:_VALUE_CHARACTERS]}..."


def _locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], str]:
    """Return the field names of the table at ``loc``, and ``loc`` as dotted text without pydantic's union tags."""
    candidates: list[type[BaseModel]] = [model]
    place: list[str] = []
    fields: list[str] = list(model.model_fields)
    for part in loc:
        if isinstance(part, int):
            place.append(str(part))
            continue
        fields = [name for candidate in candidates for name in candidate.model_fields]
        holders = [candidate for candidate in candidates if part in candidate.model_fields]
        if holders:
            place.append(part)
            candidates = [m for holder in holders for m in _models(holder.model_fields[part].annotation)]
            continue
        tagged = [c for c in candidates if part in (_tag(c), c.__name__)]
        if tagged:
            candidates = tagged
            fields = [name for candidate in candidates for name in candidate.model_fields]
        else:
            place.append(part)
    return fields, ".".join(place)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """All pydantic models inside a (nested) annotation."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models(argument)

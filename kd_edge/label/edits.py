"""Edits that the page may request, validated before they are applied."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kd_edge.data.readers.files.rows import is_label


def _name(text: str) -> str:
    text = text.strip()
    if not is_label(text):
        raise ValueError("at most 200 characters that can be printed")
    return text


def _class_name(text: str) -> str:
    if not (text := _name(text)):
        raise ValueError("a class has a name")
    return text


Text = Annotated[str, Field(max_length=1000), AfterValidator(_name)]
ClassName = Annotated[str, Field(max_length=1000), AfterValidator(_class_name)]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0, le=2_000_000)]
Id = Annotated[str, Field(min_length=1, max_length=5000)]


class _Edit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Add(_Edit):
    """A new piece.

    Attributes:
        recording: Its number.
        start_s: Where it begins, s of the recording.
        end_s: Where it ends; the frame at that moment is no part of it.
        label: Its class.
    """

    kind: Literal["add"]
    recording: Number
    start_s: Seconds
    end_s: Seconds
    label: ClassName


class Change(_Edit):
    """A change of a piece's start, end, class or description; None leaves it unchanged."""

    kind: Literal["change"]
    recording: Number
    id: Id
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    label: ClassName | None = None
    subject: Text | None = None
    trial: Text | None = None


class Delete(_Edit):
    """Deletes a piece."""

    kind: Literal["delete"]
    recording: Number
    id: Id


class Describe(_Edit):
    """Sets the subject of a recording, for all its present and future pieces."""

    kind: Literal["describe"]
    recording: Number
    subject: Text


class AddClass(_Edit):
    """Adds a class; it is stored once a piece has it."""

    kind: Literal["class"]
    label: ClassName


Edit = Annotated[Add | Change | Delete | Describe | AddClass, Field(discriminator="kind")]


class EditRequest(_Edit):
    """An edit of the revision that the page shows.

    Attributes:
        revision: Of the labels that the page shows.
        edit: What is to be changed.
    """

    revision: int
    edit: Edit


class RevisionRequest(_Edit):
    """Undo, redo or reload, for the revision that the page shows."""

    revision: int

"""Commands as text, parsed by the command line's own parser."""

from __future__ import annotations

from typing import Any

import typer

from kd_edge import cli

ROOT = typer.main.get_command(cli.app)


def parsed(words: list[str]) -> tuple[Any, dict[str, Any]]:
    """The verb that the words after ``kd-edge`` name, and its parameters' values.

    Raises:
        click.UsageError: Unknown or missing options and arguments, and values of a wrong type.
    """
    words = cli._completed(words)
    command: Any = ROOT
    while hasattr(command, "commands") and not (command.invoke_without_command and words[:1] not in _verbs(command)):
        command = command.commands[words.pop(0)]
    return command, command.make_context(command.name, words).params


def _verbs(group: object) -> list[list[str]]:
    return [[name] for name in getattr(group, "commands", {})]

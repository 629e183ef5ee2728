"""Links of the documents lead somewhere, and the commands that they show parse."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.cli.examples import parsed

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "train", "export", "runtime", "launch", "tools", "docs", "docs/adr")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?: {4}|\t)(kd-edge .*)$", re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def anchors(page: Path) -> frozenset[str]:
    """The fragments of a page's headings, spelt as GitHub does: lower case, hyphens for spaces, no punctuation."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = (re.sub(r"[`*]|\]\([^)]*\)", "", line) for line in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def commands(page: Path) -> list[str]:
    """Complete commands in code blocks; continued lines are joined, a synopsis with ``...`` is left out."""
    text = page.read_text().replace("\\\n", " ")
    return [line for line in COMMAND.findall(text) if "..." not in line]


def words(command: str) -> list[str]:
    """The words after ``kd-edge``: no comment, nothing after a pipe, no optional parts in brackets."""
    split = shlex.split(re.sub(r"(?<!\S)\[[^\]]*\](?!\S)", "", command), comments=True)
    end = next((k for k, word in enumerate(split) if word in ("|", "&", "&&", ";", ">", "2>")), len(split))
    return split[1:end]


def test_there_are_pages_and_commands() -> None:
    assert len(PAGES) > 50
    assert sum(len(commands(page)) for page in PAGES) > 100


def test_headings_are_spelt_as_github_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# In short\n\n```\n# no heading\n```\n\n## Live: how `often`, [really](x.md)?\n\n### 16x16 - a *test*\n"
    )
    assert anchors(page) == {"in-short", "live-how-often-really", "16x16---a-test"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", page.read_text())):
        target, _, fragment = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (fragment and file.suffix == ".md" and fragment not in anchors(file)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize(
    "command", sorted({command for page in PAGES for command in commands(page)}), ids=lambda text: text[:60]
)
def test_a_command_parses(command: str) -> None:
    parsed(words(command))

"""Render a page of tables and pictures as Markdown and as one self-contained HTML file."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kd_edge.errors import printable

Tone = Literal["plain", "good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of text; a tone other than plain colours it in HTML and makes it bold in Markdown."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts; the first ``words`` columns are aligned left, the others contain numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """An inline SVG with a caption; Markdown, which cannot embed it, shows the table instead, if given."""

    svg: str
    caption: str
    table: Table | None = None


Block = Paragraph | Table | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]


# -------------------------------------------------------------------------------------------------------- Markdown

_MARKS = re.compile(r"([\\`*\[\]|])")


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Render the page as Markdown, with pictures as their tables; all texts are escaped."""
    parts = [f"# {_marked(title)}"]
    for section in sections:
        parts.append(f"## {_marked(section.title)}")
        parts += [text for block in section.blocks if (text := _markdown_of(block))]
    return "\n\n".join(parts) + "\n"


def _markdown_of(block: Block) -> str:
    if isinstance(block, Paragraph):
        return _marked(block.text) if block.tone == "plain" else f"**{_marked(block.text)}**"
    if isinstance(block, Picture):
        return "" if block.table is None else f"{_marked(block.caption)}\n\n{_markdown_of(block.table)}"
    aligned = ["---" if column < block.words else "--:" for column in range(len(block.head))]
    lines = [[_marked(cell) for cell in block.head], aligned]
    lines += [[_marked(cell) for cell in row] for row in block.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _marked(text: str) -> str:
    return _MARKS.sub(r"\\\1", html.escape(printable(text), quote=False))


# ------------------------------------------------------------------------------------------------------------ HTML

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Makes the browser refuse scripts and external resources."""

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2128; --soft: #636c76; --line: #d9dee4; --band: #f5f7f9;
  --accent: #1f6feb; --other: #c2570c; --good: #1a7f37; --warning: #9a6700; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e4e8ec; --soft: #97a1ab; --line: #343b43;
  --band: #1b2026; --accent: #6cabff; --other: #f0945a; --good: #57c26f; --warning: #dfae3a; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: 0.6rem 0; overflow-wrap: anywhere; }
p.good, p.warning, p.bad { padding: 0.6rem 0.9rem; border-left: 4px solid; background: var(--band); }
p.good { border-color: var(--good); } p.warning { border-color: var(--warning); } p.bad { border-color: var(--bad); }
.wide { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.32rem 0.75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th.word, td.word { text-align: left; white-space: normal; }
td.word { overflow-wrap: break-word; min-width: 6rem; max-width: 28rem; }
tbody tr:nth-child(even) { background: var(--band); }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: 0.88rem; max-width: 46rem; margin: 0 0 0.5rem; }
svg { display: block; }
svg text { fill: var(--ink); font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
svg text.soft { fill: var(--soft); } svg text.on { fill: var(--paper); }
svg text.title { font-size: 13px; font-weight: 600; }
svg text.small { font-size: 9px; } svg text.name { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
.line { stroke: var(--line); } .axis { stroke: var(--soft); } .accent { stroke: var(--accent); fill: var(--accent); }
.band { fill: var(--band); } .hollow { fill: var(--paper); }
.frame { fill: none; stroke: var(--line); } .dashed { stroke-dasharray: 4 4; }
.bar { fill: var(--accent); fill-opacity: 0.35; } .gap { fill: var(--other); fill-opacity: 0.45; }
.cell { fill: var(--accent); }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Render the page as one HTML file without scripts and external references, in light and dark mode."""
    body = "\n".join(_html_of_section(section) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
{body}
</body>
</html>
"""


def escaped(text: str) -> str:
    """Escape a text for an element or a quoted attribute of HTML or SVG."""
    return html.escape(printable(text))


def _html_of_section(section: Section) -> str:
    blocks = "\n".join(_html_of(block) for block in section.blocks)
    return f"<section>\n<h2>{escaped(section.title)}</h2>\n{blocks}\n</section>"


def _html_of(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f'<p class="{block.tone}">{escaped(block.text)}</p>'
    if isinstance(block, Picture):
        caption = f"<figcaption>{escaped(block.caption)}</figcaption>"
        return f'<figure>{caption}<div class="wide">{block.svg}</div></figure>'
    head = _row(block.head, "th", block.words)
    rows = "\n".join(_row(row, "td", block.words) for row in block.rows)
    return f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _row(cells: Sequence[str], tag: str, words: int) -> str:
    marks = [' class="word"' if column < words else "" for column in range(len(cells))]
    return (
        f"<tr>{''.join(f'<{tag}{mark}>{escaped(cell)}</{tag}>' for mark, cell in zip(marks, cells, strict=True))}</tr>"
    )

"""Markdown (CommonMark): front matter as facts, the rest as plain paragraphs without its marks.

    >>> read_markdown(b"---\\ntitle: To a friend\\ndate: 1788-06-01\\n---\\n# Heading\\n\\nDear *Sir*,\\n", where="a.md")
    FormatDocument(text='Heading\\n\\nDear Sir,', kind='markdown', title='To a friend', date='1788-06-01', …)

Headings, list items, quotations and code are paragraphs of their own; emphasis and links leave their words, images
nothing; HTML inside is read as HTML. What markup would make of the text is never guessed: the parser is markdown-it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import yaml

from foundry_pipeline.corpus.formats.decoding import decode
from foundry_pipeline.corpus.formats.document import FormatDocument, counted, iso_date, paragraphs
from foundry_pipeline.declarations.yaml_file import read_text
from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.S)
_FRONT_LARGEST = 1 << 16


def read_markdown(data: bytes, *, where: str, encoding: str = "") -> FormatDocument:
    """A Markdown text; raises FoundryError for front matter that is no mapping of plain values."""
    text, read_as = decode(data, where=where, declared=encoding)
    facts, body = front_matter(text, where=where)
    counts: Counter[str] = Counter()
    tokens = _parser().parse(body)
    written = paragraphs(_blocks(tokens, counts, where))
    heading = next((t.content for i, t in enumerate(tokens) if i and tokens[i - 1].type == "heading_open"), "")
    return FormatDocument(
        text=written,
        kind="markdown",
        title=str(facts.get("title") or "") or " ".join(_plain(_parser().parseInline(heading)[0], Counter()).split()),
        date=iso_date(facts.get("date", "")),
        author=str(facts.get("author") or ""),
        encoding=read_as,
        counts=counted(written, counts),
    )


def front_matter(text: str, *, where: str) -> tuple[dict[str, Any], str]:
    """The YAML mapping between two `---` lines that a text opens with ({} if it has none), and the text after it."""
    match = _FRONT.match(text)
    if match is None or len(match.group(1)) > _FRONT_LARGEST:
        return {}, text
    mend = "write it as `title: …`, `date: YYYY-MM-DD`, one a line, between two `---` lines"
    try:
        facts = read_text(match.group(1))
    except (yaml.YAMLError, RecursionError) as error:
        raise FoundryError(
            f"the front matter is no YAML ({str(error).splitlines()[0]})", where=where, mend=mend
        ) from error
    if facts is None:
        return {}, text[match.end() :]
    if not isinstance(facts, dict):
        # A rule, a sentence and another rule: `---` at the head of a text does not always open front matter.
        return {}, text
    # Plain values alone: a list of lists of lists, a few bytes of YAML, may be gigabytes when written out.
    plain = {str(k): v for k, v in facts.items() if isinstance(v, str | int | float | dt.date)}
    return plain, text[match.end() :]


def _parser() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _blocks(tokens: list[Token], counts: Counter[str], where: str) -> list[str]:
    blocks: list[str] = []
    for token in tokens:
        if token.type == "inline":
            blocks.append(_plain(token, counts))
        elif token.type in ("fence", "code_block"):
            blocks.append(token.content.rstrip("\n"))
        elif token.type == "html_block":
            blocks.append(_from_html(token.content, counts, where))
    return blocks


def _plain(token: Token, counts: Counter[str]) -> str:
    """An inline token's words: marks gone, line breaks kept."""
    parts: list[str] = []
    for child in token.children or []:
        if child.type in ("text", "code_inline", "text_special"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif child.type == "image":
            counts["images"] += 1
        elif child.type == "html_inline":
            counts["HTML tags"] += 1
    return "".join(parts)


def _from_html(content: str, counts: Counter[str], where: str) -> str:
    from foundry_pipeline.corpus.formats.html import parse, text_of

    counts["HTML blocks"] += 1
    # A comment or a lone closing tag has nothing to parse.
    if not re.search(r"[^\s<>]", re.sub(r"<!--.*?-->|<[^>]*>", "", content, flags=re.S)):
        return ""
    return text_of(parse(content, where=where), counts)

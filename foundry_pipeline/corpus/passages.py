"""Passages: the paragraphs of the cleaned documents, evened out where they are very long or very short.

    >>> passages = cut_passages(documents)
    >>> row = passages.row(0, named=True)
    >>> document_text[row["start"]:row["end"]] == row["text"]
    True

A document is cut at its empty lines. Then, with words as `textstats.words` counts them:

- an opening line that ends in a colon (`Fellow-Citizens of the Senate …:`) and has under 25 words is dropped: it is an
  address to the reader and says nothing;
- a paragraph of more than 160 words is divided at sentence ends into the fewest parts that can hold it, as even as the
  sentences allow; a sentence is never divided, so one that is longer than 160 words stays whole;
- a paragraph or part of under 25 words is joined to the shorter of its neighbours (the following one if they are equal),
  which may bring that one a little over 160;
- text that a document says twice in the same words is kept once, where it first stands.

`cut_counts` says how often each happened. Nothing is random and nothing depends on other documents.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from foundry_pipeline.declarations.sources import PassageAnchor
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.textstats import sentence_spans, words

LONGEST = (
    160  # words: about 220 tokens, inside the 256 that the sentence encoder reads and a 512-token training example
)
SHORTEST = 25  # words: less does not carry a thought of its own in this kind of prose

PASSAGE_SCHEMA: dict[str, Any] = {
    "passage_id": pl.String,
    "document_id": pl.String,
    "source": pl.String,
    "role": pl.String,
    "author": pl.String,
    "position": pl.Int64,
    "date": pl.String,
    "year": pl.Int64,
    "text": pl.String,
    "words": pl.Int64,
    "held_out": pl.Boolean,
    "start": pl.Int64,
    "end": pl.Int64,
    "duplicate_of": pl.String,
}

_PARAGRAPH_END = re.compile(r"(?:\r?\n[ \t\u00a0]*){2,}|\f")


@dataclass
class Cut:
    """One document's passages as spans [start, end) of its text, and what it took to get them."""

    spans: list[tuple[int, int]] = field(default_factory=list)
    salutations: int = 0
    divided: int = 0
    joined: int = 0
    repeated: int = 0


def cut_text(text: str) -> Cut:
    """Cut one cleaned text; an empty one has no passage."""
    cut = Cut()
    paragraphs = list(_paragraphs(text))
    if paragraphs and _is_salutation(text[slice(*paragraphs[0])]):
        paragraphs, cut.salutations = paragraphs[1:], 1
    for start, end in paragraphs:
        parts = _divide(text, start, end)
        cut.divided += len(parts) > 1
        cut.spans.extend(parts)
    cut.joined = _join_short(text, cut.spans)
    seen: set[str] = set()
    kept = []
    for span in cut.spans:
        passage = text[slice(*span)]
        if passage not in seen:
            kept.append(span)
        seen.add(passage)
    cut.repeated, cut.spans = len(cut.spans) - len(kept), kept
    return cut


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    edges = [0, *(edge for mark in _PARAGRAPH_END.finditer(text) for edge in mark.span()), len(text)]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        body = text[start:end].strip()
        if body:
            first = start + text[start:end].index(body)
            yield first, first + len(body)


def _is_salutation(paragraph: str) -> bool:
    return paragraph.endswith(":") and _size(paragraph) < SHORTEST


def _size(text: str) -> int:
    return len(words(text))


def _divide(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A paragraph's parts: one if it is short enough, else the fewest runs of sentences of at most LONGEST words each.

    Of the ways to place that many cuts, the one with the least sum of squared part lengths, which is the most even.
    """
    sentences = [(start + a, start + b) for a, b in sentence_spans(text[start:end])]
    sizes = [_size(text[a:b]) for a, b in sentences]
    if sum(sizes) <= LONGEST or len(sentences) == 1:
        return [(start, end)]
    # best[j]: (parts, sum of squares, first sentence of the last part) for the first j sentences
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for j in range(1, len(sentences) + 1):
        options = []
        for i in range(j - 1, -1, -1):
            size = sum(sizes[i:j])
            if size > LONGEST and i < j - 1:
                break
            options.append((best[i][0] + 1, best[i][1] + size * size, i))
        best.append(min(options))
    cuts, j = [], len(sentences)
    while j:
        i = best[j][2]
        cuts.append((sentences[i][0], sentences[j - 1][1]))
        j = i
    return cuts[::-1]


def _join_short(text: str, spans: list[tuple[int, int]]) -> int:
    """Join, from the first on, each span that is too short to stand alone to the shorter of its neighbours (the following
    one if they are equal); what lay between, white space only, becomes part of the passage. Returns how often."""
    sizes = [_size(text[slice(*span)]) for span in spans]
    joined = index = 0
    while index < len(spans) and len(spans) > 1:
        if sizes[index] >= SHORTEST:
            index += 1
            continue
        near = [i for i in (index + 1, index - 1) if 0 <= i < len(spans)]
        low, high = sorted((index, min(near, key=lambda i: sizes[i])))
        spans[low : high + 1] = [(spans[low][0], spans[high][1])]
        sizes[low : high + 1] = [sizes[low] + sizes[high]]
        joined, index = joined + 1, low  # all before it are long enough; the joined one may not be yet
    return joined


def passage_id(document_id: str, text: str) -> str:
    """SHA-256 (hex) of the document's id and the passage's text."""
    return hashlib.sha256((document_id + text).encode()).hexdigest()


def cut_passages(documents: pl.DataFrame) -> pl.DataFrame:
    """Passages of all documents, ordered by (document_id, position).

    `documents` holds document_id, source, role, author, date (ISO), text and held_out. The result has the columns of
    PASSAGE_SCHEMA: `position` counts from 0 within a document, `words` as textstats.words, and `start`, `end` are
    character offsets into the cleaned text such that text[start:end] is the passage, letter for letter. Raises
    DeclarationError for a document that yields no passage. `duplicate_of` is null: see near_duplicates.py.
    """
    rows: list[dict[str, Any]] = []
    for document in documents.sort("document_id").iter_rows(named=True):
        text = document["text"]
        spans = cut_text(text).spans
        if not spans:
            raise DeclarationError(
                "the cleaned text holds no passage",
                where=f"document `{document['document_id']}`",
                mend="look at the file and at the cleaning rules of its manifest",
            )
        for position, (start, end) in enumerate(spans):
            passage = text[start:end]
            rows.append(
                {
                    **{k: document[k] for k in ("document_id", "source", "role", "author", "date", "held_out")},
                    "passage_id": passage_id(document["document_id"], passage),
                    "position": position,
                    "year": int(document["date"][:4]),
                    "text": passage,
                    "words": _size(passage),
                    "start": start,
                    "end": end,
                    "duplicate_of": None,  # near_duplicates.py fills it in
                }
            )
    return pl.DataFrame(rows, schema=PASSAGE_SCHEMA)


def own_passages(passages: pl.DataFrame) -> pl.DataFrame:
    """The character's own passages that may be learned from, each once: not another's, not held out, no duplicate."""
    return passages.filter((pl.col("role") == "primary") & ~pl.col("held_out") & pl.col("duplicate_of").is_null())


def cut_counts(documents: pl.DataFrame) -> dict[str, int]:
    """How often cutting dropped a salutation, divided a long paragraph, joined a short one or met a repetition."""
    cuts = [cut_text(text) for text in documents["text"]]
    names = ("salutations", "divided", "joined", "repeated")
    return {"passages": sum(len(c.spans) for c in cuts), **{n: sum(getattr(c, n) for c in cuts) for n in names}}


def find_anchor(passages: pl.DataFrame, anchor: PassageAnchor) -> dict[str, Any]:
    """The passage (a row of PASSAGE_SCHEMA) that holds an anchor's words.

    White space in the anchor matches any white space. Raises DeclarationError if the document is unknown, or the words
    occur in none of its passages or more than once; an anchor does not reach over the end of a passage.
    """
    where = f"anchor {anchor.anchor!r} in document `{anchor.document}`"
    rows = passages.filter(pl.col("document_id") == anchor.document).sort("position")
    if rows.is_empty():
        known = sorted(set(passages["document_id"]))
        close = difflib.get_close_matches(anchor.document, known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else f"; there are {', '.join(known)}"
        raise DeclarationError(f"no such document{hint}", where=where, mend="correct `document`")
    pattern = re.compile(r"\s+".join(re.escape(part) for part in anchor.anchor.split()))
    found = [(row, len(pattern.findall(row["text"]))) for row in rows.iter_rows(named=True)]
    total = sum(count for _, count in found)
    if total > 1:
        raise DeclarationError(f"the words occur {total} times", where=where, mend="take more of the words around them")
    if total == 0:
        raise DeclarationError(
            "the words occur in no passage of the cleaned text",
            where=where,
            mend="copy them from one passage, as it reads after cleaning (not from the transcription)",
        )
    return next(row for row, count in found if count)

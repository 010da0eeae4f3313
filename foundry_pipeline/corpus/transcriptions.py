"""Two transcriptions of one text, aligned word by word, and what they differ in.

    >>> found = compare("The publick good, I trust.", "The public good I trust,", a="founders_1", b="local_1")
    >>> [(d.kind, d.text_a, d.text_b) for d in found.differences], found.equal
    ([('spelling', 'publick', 'public'), ('punctuation', ',', ''), ('punctuation', '.', ',')], 0.8)

Words and marks of punctuation are aligned so that the most of them are equal (longest common subsequence, bit-parallel
after Hyyrö 2004, as `rapidfuzz` computes it), after a long text has been divided at runs of words that both have exactly
once. Nothing is judged right: a difference is listed with its places in both texts, and a cleaning rule may then say which
reading is used.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import polars as pl

from foundry_pipeline.textstats import normalise

Kind = Literal["spelling", "punctuation", "case", "word", "missing"]
KINDS: tuple[Kind, ...] = ("spelling", "punctuation", "case", "word", "missing")
ANCHOR = 6  # words: a run of as many, once in each text, is taken to be the same place
BLOCK = 4_000  # tokens: shorter stretches are aligned whole
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")
_SPELT = 60.0  # similarity in percent above which two words are one, spelt in two ways


@dataclass(frozen=True)
class Difference:
    """One place where two transcriptions part.

    `offset_a`, `offset_b` are characters into the texts: where the words of that side stand, or would stand. `kind`:
    `case` and `punctuation` differ in nothing else; `spelling`: alike letter for letter by more than 60 %, or the same
    letters written in one word or two; `missing`: words that one side does not have; `word`: other words.
    """

    document_a: str
    document_b: str
    offset_a: int
    offset_b: int
    text_a: str
    text_b: str
    kind: Kind


DIFFERENCE_SCHEMA = {f.name: (pl.Int64 if f.type == "int" else pl.String) for f in fields(Difference)}


@dataclass(frozen=True)
class Comparison:
    """`equal` is the share of both texts' words that are aligned letter for letter; `differences` in order of place."""

    document_a: str
    document_b: str
    words_a: int
    words_b: int
    equal: float
    differences: tuple[Difference, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many differences of each kind, all kinds named."""
        made = Counter(d.kind for d in self.differences)
        return {kind: made[kind] for kind in KINDS}

    def frame(self) -> pl.DataFrame:
        """One row a difference, columns of DIFFERENCE_SCHEMA."""
        return differences_frame([self])


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum()


def compare(text_a: str, text_b: str, *, a: str, b: str) -> Comparison:
    """Align two texts; `a` and `b` name them."""
    left, right = _tokens(text_a), _tokens(text_b)
    found: list[Difference] = []
    equal = 0
    for tag, i, j, k, m in _aligned([t.text for t in left], [t.text for t in right]):
        if tag == "equal":
            equal += sum(t.is_word for t in left[i:j])
            continue
        for part_a, part_b in _divided(left[i:j], right[k:m]):
            at_a = part_a[0].start if part_a else _place(left, i, text_a)
            at_b = part_b[0].start if part_b else _place(right, k, text_b)
            said_a, said_b = _said(text_a, part_a), _said(text_b, part_b)
            found.append(Difference(a, b, at_a, at_b, said_a, said_b, _kind(part_a, part_b)))
    words_a, words_b = sum(t.is_word for t in left), sum(t.is_word for t in right)
    share = 2 * equal / (words_a + words_b) if words_a + words_b else 1.0
    return Comparison(a, b, words_a, words_b, round(share, 6), tuple(found))


def _tokens(text: str) -> list[_Token]:
    """Words and marks, a curly quote as a straight one, so that typography alone is no difference."""
    found = []
    for match in _TOKEN.finditer(text):
        plain = normalise(match.group()).translate(_QUOTES)
        if plain:
            found.append(_Token(plain, match.start(), match.end()))
    return found


_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "-", "—": "-", "―": "-"})


def _said(text: str, tokens: Sequence[_Token]) -> str:
    return text[tokens[0].start : tokens[-1].end] if tokens else ""


def _place(tokens: Sequence[_Token], index: int, text: str) -> int:
    return tokens[index].start if index < len(tokens) else len(text)


def _divided(a: Sequence[_Token], b: Sequence[_Token]) -> Iterator[tuple[Sequence[_Token], Sequence[_Token]]]:
    """A difference token by token where both sides have as many and word meets word, else whole."""
    if len(a) == len(b) and all(x.is_word == y.is_word for x, y in zip(a, b, strict=True)):
        yield from (([x], [y]) for x, y in zip(a, b, strict=True))
    else:
        yield a, b


def _kind(a: Sequence[_Token], b: Sequence[_Token]) -> Kind:
    from rapidfuzz.fuzz import ratio

    words_a, words_b = [t.text for t in a if t.is_word], [t.text for t in b if t.is_word]
    if words_a == words_b:
        return "punctuation"
    folded_a, folded_b = "".join(words_a).casefold(), "".join(words_b).casefold()
    if [w.casefold() for w in words_a] == [w.casefold() for w in words_b]:
        return "case"
    if not words_a or not words_b:
        return "missing"
    if folded_a == folded_b or (len(words_a) == len(words_b) and ratio(folded_a, folded_b) >= _SPELT):
        return "spelling"
    return "word"


# ---- alignment ----


def _aligned(a: list[str], b: list[str]) -> Iterator[tuple[str, int, int, int, int]]:
    """Operations (tag, a from, to, b from, to) that turn a into b, neighbours of one kind joined."""
    from rapidfuzz.distance import Indel

    last: tuple[str, int, int, int, int] | None = None
    for low_a, high_a, low_b, high_b in _stretches(a, b):
        for op in Indel.opcodes(a[low_a:high_a], b[low_b:high_b]):
            tag = "equal" if op.tag == "equal" else "other"
            new = (tag, low_a + op.src_start, low_a + op.src_end, low_b + op.dest_start, low_b + op.dest_end)
            if last is not None and last[0] == tag:
                last = (tag, last[1], new[2], last[3], new[4])
            else:
                if last is not None:
                    yield last
                last = new
    if last is not None:
        yield last


def _stretches(a: list[str], b: list[str]) -> Iterator[tuple[int, int, int, int]]:
    """Corresponding stretches of two long texts, cut where both have a run of words exactly once (patience anchors)."""
    if len(a) <= BLOCK and len(b) <= BLOCK:
        yield 0, len(a), 0, len(b)
        return
    before_a = before_b = 0
    for place_a, place_b in _anchors(a, b):
        if max(place_a - before_a, place_b - before_b) >= BLOCK // 4:
            yield before_a, place_a, before_b, place_b
            before_a, before_b = place_a, place_b
    yield before_a, len(a), before_b, len(b)


def _anchors(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """Places of shared unique runs, the longest series of them that rises in both texts."""
    once_a, once_b = _once(a), _once(b)
    shared = sorted((place, once_b[run]) for run, place in once_a.items() if run in once_b)
    tails: list[int] = []
    ends: list[int] = []
    came_from: list[int] = []
    for index, (_, place_b) in enumerate(shared):
        at = bisect_left(tails, place_b)
        came_from.append(ends[at - 1] if at else -1)
        tails[at : at + 1] = [place_b]
        ends[at : at + 1] = [index]
    series: list[tuple[int, int]] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        series.append(shared[at])
        at = came_from[at]
    return series[::-1]


def _once(tokens: list[str]) -> dict[tuple[str, ...], int]:
    places: dict[tuple[str, ...], int] = {}
    for place, run in enumerate(zip(*(tokens[k:] for k in range(ANCHOR)), strict=False)):
        places[run] = -1 if run in places else place
    return {run: place for run, place in places.items() if place >= 0}


# ---- which documents are one text ----


def compare_documents(
    documents: pl.DataFrame, variants: pl.DataFrame, passages: pl.DataFrame, links: pl.DataFrame
) -> list[Comparison]:
    """Every two documents that are one text, and every variant with its document, compared.

    `documents` and `passages` are the cleaned ones; `variants` (columns document_id, variant_of, raw) as transcribed.
    """
    texts: dict[str, str] = dict(documents.select("document_id", "text").iter_rows())
    found = [compare(texts[a], texts[b], a=a, b=b) for a, b in same_texts(passages, links)]
    for name, of, raw in variants.sort("document_id").select("document_id", "variant_of", "raw").iter_rows():
        found.append(compare(texts[of], raw, a=of, b=name))
    return found


def differences_frame(compared: Sequence[Comparison]) -> pl.DataFrame:
    """All differences of several comparisons, columns of DIFFERENCE_SCHEMA."""
    return pl.DataFrame([vars(d) for c in compared for d in c.differences], schema=DIFFERENCE_SCHEMA)


def same_texts(passages: pl.DataFrame, links: pl.DataFrame, *, share: float = 0.5) -> list[tuple[str, str]]:
    """Pairs of documents of which one has at least `share` of its words in passages that are linked to the other.

    `links` as `near_duplicates.link_duplicates` gives them. Ordered by name, each pair once.
    """
    sizes: dict[str, int] = dict(passages.group_by("document_id").agg(pl.col("words").sum()).iter_rows())
    length: dict[str, int] = dict(passages.select("passage_id", "words").iter_rows())
    said: dict[tuple[str, str], dict[str, float]] = {}
    for row in links.iter_rows(named=True):
        ways: Any = (
            (row["document_id"], row["other_document"], row["passage_id"], row["share"]),
            (row["other_document"], row["document_id"], row["other_id"], row["other_share"]),
        )
        for mine, other, passage, part in ways:
            parts = said.setdefault((mine, other), {})
            parts[passage] = min(1.0, parts.get(passage, 0.0) + part)
    alike = {
        (min(pair), max(pair))
        for pair, parts in said.items()
        if sum(length[p] * part for p, part in parts.items()) >= share * sizes[pair[0]]
    }
    return sorted(alike)

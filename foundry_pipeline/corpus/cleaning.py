"""Cleaning: ordered, declared rules turn the transcription into the text that is used, and every change is kept.

    >>> # a manifest with the rules "WRT" → "with respect to" and "sow" → "show" (expect: 1)
    >>> text, changes = apply_rules("his proposals WRT it will sow also", manifest.cleaning, document_id="d")
    >>> [(c.rule, c.raw_start, c.raw_end, c.before, c.after) for c in changes]
    [('with-respect-to', 14, 17, 'WRT', 'with respect to'), ('show', 26, 29, 'sow', 'show')]
    >>> replay("his proposals WRT it will sow also", changes) == text
    True

Offsets are characters of the *transcription*, also for a rule that works on what an earlier rule wrote: the text is held
as pieces, each either a stretch of the transcription kept as it is or a replacement that stands for one (see `_Pieces`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields

import polars as pl

from foundry_pipeline.corpus.connectors import RawDocument
from foundry_pipeline.declarations.sources import CleaningRule, SourceManifest
from foundry_pipeline.errors import DamagedArtifact, DeclarationError

CONTEXT = 30  # characters of the transcription shown on either side of a change


@dataclass(frozen=True)
class Change:
    """One application of one rule.

    In order of application: the text that then stood for `raw[raw_start:raw_end]` was `before` and became `after`. For a
    place that only one rule has touched `before` is exactly that stretch of the transcription. `context` is the stretch
    with some 30 characters of transcription on either side, line ends shown as spaces.
    """

    document_id: str
    rule: str
    reason: str
    raw_start: int
    raw_end: int
    before: str
    after: str
    context: str


@dataclass(frozen=True)
class CleanDocument:
    """A document with its transcription (`raw`) and the text in use (`text`)."""

    document_id: str
    source: str
    role: str
    author: str
    title: str
    date: str
    url: str
    license: str
    raw: str
    text: str
    raw_sha256: str
    variant_of: str = ""
    remarks: str = ""


@dataclass(frozen=True)
class _Piece:
    start: int  # in the transcription; every piece stands for at least one of its characters
    end: int
    text: str
    kept: bool  # still letter for letter the transcription: may be divided anywhere


class _Pieces:
    """A text under edit as pieces that together stand for the whole transcription, in order and without gaps.

    Replacements are never divided, since no character of one stands for a particular character of the transcription: an
    edit that reaches into a replacement takes it whole. Because no edit starts from an empty match, no piece stands for
    an empty stretch, and the stretch alone names a run of pieces. (A piece's own text may be empty: a deletion.)
    """

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.pieces = [_Piece(0, len(raw), raw, kept=True)] if raw else []

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def edit(self, start: int, end: int, new: str) -> tuple[int, int, str, str]:
        """Replace text[start:end], not empty, by `new`; returns (raw_start, raw_end, before, after) as recorded."""
        position, first, last, offset = 0, -1, -1, 0
        for index, piece in enumerate(self.pieces):
            after = position + len(piece.text)
            if position < end and after > start:
                if first < 0:
                    first, offset = index, start - position
                last = index
            position = after
        run = self.pieces[first : last + 1]
        joined = "".join(piece.text for piece in run)
        raw_start, raw_end, low, high = run[0].start, run[-1].end, 0, len(joined)
        if run[0].kept:
            low, raw_start = offset, raw_start + offset
        if run[-1].kept:
            high = offset + end - start
            raw_end -= len(joined) - high
        before = joined[low:high]
        written = joined[low:offset] + new + joined[offset + end - start : high]
        self._put(first, last, raw_start, raw_end, written)
        return raw_start, raw_end, before, written

    def put(self, raw_start: int, raw_end: int, before: str, after: str) -> None:
        """Replace what stands for raw[raw_start:raw_end]; raises ValueError if that is not `before`."""
        touched = [i for i, p in enumerate(self.pieces) if p.start < raw_end and p.end > raw_start]
        if not touched:
            raise ValueError(f"nothing stands for characters {raw_start}–{raw_end}")
        first, last = touched[0], touched[-1]
        run = self.pieces[first : last + 1]
        low = raw_start - run[0].start
        joined = "".join(piece.text for piece in run)
        high = len(joined) - (run[-1].end - raw_end)
        whole = (low == 0 or run[0].kept) and (raw_end == run[-1].end or run[-1].kept)
        if not whole or low < 0 or joined[low:high] != before:
            raise ValueError(f"characters {raw_start}–{raw_end} do not read {before!r}")
        self._put(first, last, raw_start, raw_end, after)

    def _put(self, first: int, last: int, raw_start: int, raw_end: int, text: str) -> None:
        head, tail = self.pieces[first], self.pieces[last]
        new = [_Piece(raw_start, raw_end, text, kept=False)]
        if head.start < raw_start:
            new.insert(0, _Piece(head.start, raw_start, self.raw[head.start : raw_start], kept=True))
        if raw_end < tail.end:
            new.append(_Piece(raw_end, tail.end, self.raw[raw_end : tail.end], kept=True))
        self.pieces[first : last + 1] = new


def _matches(rule: CleaningRule, text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, replacement) of the places that a rule changes, left to right, not overlapping.

    A place that already reads as it should is no change. Raises DeclarationError for a pattern that cannot be compiled,
    a group that does not exist, or a match of nothing (which could not be given a place in the transcription).
    """
    pattern = re.compile(re.escape(rule.find)) if rule.kind == "text" else _compiled(rule)
    for match in pattern.finditer(text):
        if match.start() == match.end():
            raise _bad_rule(rule, "matches an empty string", "let `find` match at least one character")
        try:
            new = rule.replace if rule.kind == "text" else match.expand(rule.replace)
        except (re.error, IndexError) as error:
            raise _bad_rule(
                rule, f"has a replacement that cannot be filled in: {error}", "name an existing group"
            ) from error
        if new != match.group():
            yield match.start(), match.end(), new


def _compiled(rule: CleaningRule) -> re.Pattern[str]:
    try:
        return re.compile(rule.find)
    except re.error as error:
        raise _bad_rule(rule, f"is no regular expression: {error}", "correct `find`, or set `kind: text`") from error


def _bad_rule(rule: CleaningRule, what: str, mend: str) -> DeclarationError:
    return DeclarationError(f"the cleaning rule `{rule.id}` {what}", where=f"`find: {rule.find}`", mend=mend)


def apply_rules(raw: str, rules: Iterable[CleaningRule], *, document_id: str) -> tuple[str, list[Change]]:
    """The cleaned text of one transcription and the changes that led to it, in order of application."""
    pieces = _Pieces(raw)
    changes: list[Change] = []
    for rule in rules:
        if rule.documents and document_id not in rule.documents:
            continue
        moved = 0  # how far the places found below have been shifted by this rule's own earlier edits
        for start, end, new in list(_matches(rule, pieces.text)):
            raw_start, raw_end, before, after = pieces.edit(start + moved, end + moved, new)
            moved += len(new) - (end - start)
            around = raw[max(0, raw_start - CONTEXT) : raw_end + CONTEXT]
            context = " ".join(around.split())
            changes.append(Change(document_id, rule.id, rule.reason, raw_start, raw_end, before, after, context))
    return pieces.text, changes


def replay(raw: str, changes: Iterable[Change]) -> str:
    """The cleaned text from the transcription and its recorded changes alone, in their recorded order.

    Raises DamagedArtifact if a change does not find what it says it replaced.
    """
    pieces = _Pieces(raw)
    for change in changes:
        try:
            pieces.put(change.raw_start, change.raw_end, change.before, change.after)
        except ValueError as error:
            raise DamagedArtifact(
                f"the recorded changes do not fit the transcription: {error}",
                where=f"document `{change.document_id}`, rule `{change.rule}`",
                mend="build the passages anew",
            ) from error
    return pieces.text


def raw_span(raw: str, changes: Iterable[Change], start: int, end: int) -> tuple[int, int]:
    """The stretch of the transcription that cleaned_text[start:end] comes from; replacements count whole.

    `changes` are one document's, in order. Raises ValueError if the span is empty or outside the cleaned text.
    """
    pieces = _Pieces(raw)
    for change in changes:
        pieces.put(change.raw_start, change.raw_end, change.before, change.after)
    if not 0 <= start < end <= len(pieces.text):
        raise ValueError(f"no characters {start}–{end} in a text of {len(pieces.text)}")
    raw_start, raw_end, _, _ = pieces.edit(start, end, "")
    return raw_start, raw_end


def clean(manifest: SourceManifest, documents: Sequence[RawDocument]) -> tuple[list[CleanDocument], list[Change]]:
    """All documents of one source, cleaned by its manifest's rules.

    Raises DeclarationError if a rule with `expect` changes another number of places over all documents, or names a
    document that the source does not have: a correction that has lost its place is never passed over.
    """
    _known_documents(manifest, {d.document_id for d in documents})
    cleaned, changes = [], []
    for document in documents:
        text, made = apply_rules(document.raw, manifest.cleaning, document_id=document.document_id)
        changes.extend(made)
        # A document of a collection may be another's than the manifest's author, and then plays another role.
        facts = {
            **asdict(document),
            "author": document.author or manifest.author,
            "role": document.role or manifest.role,
        }
        cleaned.append(CleanDocument(**facts, source=manifest.source, license=manifest.license, text=text))
    made_by = Counter(change.rule for change in changes)
    for rule in manifest.cleaning:
        if rule.expect is not None and made_by[rule.id] != rule.expect:
            raise DeclarationError(
                f"the cleaning rule `{rule.id}` was to change {rule.expect} places and changed {made_by[rule.id]}",
                where=f"manifest `{manifest.source}`, rule `{rule.id}`, `find: {rule.find}`",
                mend="look at the transcription and correct `find`, `documents` or `expect`",
            )
    return cleaned, changes


def _known_documents(manifest: SourceManifest, ids: set[str]) -> None:
    seen: set[str] = set()
    for rule in manifest.cleaning:
        if rule.id in seen:
            raise _bad_rule(rule, "is declared twice", "give each rule its own id")
        seen.add(rule.id)
        unknown = sorted(set(rule.documents) - ids)
        if unknown:
            raise _bad_rule(
                rule, f"names documents that are not read: {', '.join(unknown)}", f"name one of {sorted(ids)}"
            )


def check_examples(manifest: SourceManifest) -> None:
    """Apply each rule alone to its own worked example; raises DeclarationError naming a rule that does not do it."""
    for rule in manifest.cleaning:
        anywhere = rule.model_copy(update={"documents": ()})
        found, _ = apply_rules(rule.example.before, [anywhere], document_id="example")
        if found != rule.example.after:
            raise DeclarationError(
                f"the cleaning rule `{rule.id}` turns its example into {found!r}, not into {rule.example.after!r}",
                where=f"manifest `{manifest.source}`, rule `{rule.id}`",
                mend="correct the rule or its example",
            )


CHANGE_SCHEMA = {f.name: (pl.Int64 if f.type == "int" else pl.String) for f in fields(Change)}


def clean_frame(manifests: Sequence[SourceManifest], documents: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`clean` over a table of read documents of several sources (one row a document; columns as RawDocument's, and `source`).

    Returns (the table with the column `text`, the table of changes in order of document and application).
    """
    texts: dict[str, str] = {}
    changes: list[Change] = []
    columns = [f.name for f in fields(RawDocument) if f.name in documents.columns]
    for manifest in manifests:
        rows = documents.filter(pl.col("source") == manifest.source).select(columns).iter_rows(named=True)
        cleaned, made = clean(manifest, [RawDocument(**row) for row in rows])
        texts.update({document.document_id: document.text for document in cleaned})
        changes.extend(made)
    missing = sorted(set(documents["document_id"]) - set(texts))
    if missing:
        raise DeclarationError(
            f"no manifest is given for the documents {', '.join(missing)}",
            where="sources",
            mend="read the sources anew",
        )
    table = documents.with_columns(pl.Series("text", [texts[i] for i in documents["document_id"]], dtype=pl.String))
    return table, pl.DataFrame([asdict(change) for change in changes], schema=CHANGE_SCHEMA)

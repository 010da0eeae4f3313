"""Texts as numbers: a column is cut at its spaces, and each distinct piece is read once.

    >>> lexicon = Lexicon()
    >>> texts = read_texts(pl.Series(["The war, the peace.", ""]), lexicon)
    >>> [lexicon.words[i] for i in texts.words], texts.word_offsets.tolist()
    (['the', 'war', 'the', 'peace'], [0, 4, 4])

Why this gives the words that `textstats.words` gives for the whole text: no word reaches over a space, and neither
NFKC nor case folding joins anything to a space or looks across one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foundry_pipeline import textstats

Ints = NDArray[np.int64]
T = TypeVar("T")
# Where a sentence ends for want of text (`textstats.sentence_spans`); Python counts U+001C to U+001F as white space.
_EMPTY_LINE = "\n[\\s\x1c-\x1f]*\n"
_PARAGRAPH = "\x1e"  # stands for an empty line between two spaces; texts that hold one of their own are read in full
_OTHER_SPACES = "[\n\t\r\x0b\x0c]"
_UNUSUAL_SPACES = "[\x1c-\x1f]"

# What follows a sentence's mark decides whether it ends one: a small letter or `&` never, a figure sometimes.
_NO_START, _FIGURE = 1, 2
# What the mark at the end of a piece does: nothing (0); ends a sentence; ends it unless a figure follows; ends it unless
# the piece begins it (`1.` at the head of a list).
_ENDS, _ENDS_UNLESS_FIGURE, _ENDS_UNLESS_FIRST = 1, 2, 3
_REMEMBERED = 2_000_000  # pieces after which a shared lexicon gives way to an empty one


def row_sums(values: NDArray[Any], offsets: Ints) -> Ints:
    """Sum of `values` over each row's stretch; row i is values[offsets[i]:offsets[i + 1]], which may be empty."""
    total = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])


def once(measure: Callable[[Texts], T]) -> Callable[[Texts], T]:
    """A measure that is taken once of each column and then remembered with it."""

    @wraps(measure)
    def remembered(texts: Texts) -> T:
        known = texts.remembered
        if measure.__name__ not in known:
            known[measure.__name__] = measure(texts)
        found: T = known[measure.__name__]
        return found

    return remembered


class _Grown:
    """An array that is added to at its end."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.array: NDArray[Any] = np.empty(0, dtype=dtype)

    def add(self, values: list[Any]) -> None:
        self.array = np.concatenate((self.array, np.array(values, dtype=self.array.dtype)))


class Lexicon:
    """Every piece of text between spaces that was met, and every word in them; both only grow.

    `words` is word by number; `hashes` (uint64) and `contracted` (bool) are arrays by word number.
    """

    def __init__(self) -> None:
        self.words: list[str] = []
        self._numbers: dict[str, int] = {}
        self._kind = pl.Categorical(pl.Categories.random())
        self._hashes, self._contracted, self._bare = _Grown(np.uint64), _Grown(np.bool_), _Grown(np.int32)
        # By piece number: how many words, where they begin in _piece_words, what it does to sentences.
        self._counts, self._starts = _Grown(np.int32), _Grown(np.int64)
        self._head, self._tail, self._unsure = _Grown(np.uint8), _Grown(np.uint8), _Grown(np.bool_)
        self._empty = _Grown(np.bool_)
        self._piece_words = _Grown(np.int32)
        # Polars forgets the numbers of a set of categories when the last series that uses them is gone.
        self._held = pl.Series([_PARAGRAPH], dtype=self._kind)
        self.paragraph = int(self.encode(pl.Series([_PARAGRAPH]))[0])

    @property
    def pieces(self) -> int:
        """How many pieces are known."""
        return len(self._counts.array)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        return self._hashes.array

    @property
    def contracted(self) -> NDArray[np.bool_]:
        return self._contracted.array

    @property
    def bare(self) -> NDArray[np.int32]:
        """By word number, the number of that word without an inflectional apostrophe (`war's` → `war`)."""
        return self._bare.array

    def number(self, words: list[str]) -> list[int]:
        """The numbers of some words (as `textstats.words` gives them); new words are learnt."""
        met = dict.fromkeys(part for w in words for part in (w, w.removesuffix("'s")))
        new = [w for w in met if w not in self._numbers]
        for word in new:
            self._numbers[word] = len(self.words)
            self.words.append(word)
        if new:
            self._hashes.add([_hash(w) for w in new])
            self._contracted.add([textstats.contractions(w) > 0 for w in new])
            self._bare.add([self._numbers[w.removesuffix("'s")] for w in new])
        return [self._numbers[w] for w in words]

    def encode(self, pieces: pl.Series) -> NDArray[np.uint32]:
        """Pieces as numbers; new pieces are read and learnt. The empty piece and the paragraph sign are pieces too."""
        column = pieces.cast(self._kind)
        known = self.pieces
        numbers: NDArray[np.uint32] = column.to_physical().to_numpy()
        if len(numbers) and int(numbers.max()) >= known:
            distinct = column.unique()
            order = distinct.to_physical().to_numpy()
            texts = distinct.cast(pl.String).to_list()
            self._learn([texts[i] for i in np.argsort(order) if order[i] >= known])
        return numbers

    def _learn(self, pieces: list[str]) -> None:
        # Most pieces are one word of ASCII letters, about which there is nothing to ask.
        found = [[p.lower()] if p.isascii() and p.isalpha() else textstats.words(p) for p in pieces]
        flat = self.number([w for words in found for w in words])
        counts = [len(words) for words in found]
        begin = len(self._piece_words.array)
        self._piece_words.add(flat)
        self._counts.add(counts)
        self._starts.add(list(begin + np.cumsum([0, *counts])[:-1]))
        self._head.add([_head(p) for p in pieces])
        tails = [_tail(p) for p in pieces]
        self._tail.add([t or 0 for t in tails])
        self._unsure.add([t is None for t in tails])
        self._empty.add([not p for p in pieces])

    def expand(self, pieces: NDArray[np.uint32]) -> tuple[NDArray[np.int32], Ints]:
        """(the words of a run of pieces, how many each piece has)."""
        counts = self._counts.array[pieces].astype(np.int64)
        first = np.cumsum(counts) - counts
        at = np.repeat(self._starts.array[pieces] - first, counts)
        at += np.arange(len(at))
        return self._piece_words.array[at], counts


@dataclass(frozen=True)
class Texts:
    """A column of texts, read. Row i has words[word_offsets[i]:word_offsets[i + 1]], as numbers of the lexicon."""

    series: pl.Series
    lexicon: Lexicon
    words: NDArray[np.int32]
    word_offsets: Ints
    sentence_counts: Ints
    """How many sentences each row has; −1 where that takes a reading of the whole text."""
    remembered: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.series)

    @cached_property
    def word_rows(self) -> NDArray[np.int32]:
        """The row that each word stands in."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.word_offsets))

    @cached_property
    def word_hashes(self) -> NDArray[np.uint64]:
        return self.lexicon.hashes[self.words]

    def row_words(self, row: int) -> list[str]:
        """The words of one row."""
        names = self.lexicon.words
        return [names[i] for i in self.words[self.word_offsets[row] : self.word_offsets[row + 1]]]


_of_thread = threading.local()


def shared_lexicon() -> Lexicon:
    """This thread's own lexicon, so that what was learnt of one frame serves the next; emptied when it grows large."""
    lexicon: Lexicon | None = getattr(_of_thread, "lexicon", None)
    if lexicon is None or lexicon.pieces > _REMEMBERED:
        lexicon = _of_thread.lexicon = Lexicon()
    return lexicon


def read_texts(texts: pl.Series, lexicon: Lexicon) -> Texts:
    """Read a column (String; a null is a text without a word). Memory: some 40 bytes a word, so hand over slices."""
    series = texts.fill_null("")
    spaced = series.str.replace_all(_EMPTY_LINE, f" {_PARAGRAPH} ").str.replace_all(_OTHER_SPACES, " ")
    cut = spaced.str.split(" ")
    lengths = cut.list.len().to_numpy().astype(np.int64)
    numbers = lexicon.encode(cut.explode())
    ends = np.concatenate(([0], np.cumsum(lengths)))
    unusual = series.str.contains(_UNUSUAL_SPACES).to_numpy()

    between = numbers == lexicon.paragraph
    kept = ~(lexicon._empty.array[numbers] | between)
    offsets = np.concatenate(([0], np.cumsum(kept)))[ends]
    pieces = numbers[kept]
    words, counts = lexicon.expand(pieces)
    word_offsets = np.concatenate(([0], np.cumsum(counts)))[offsets]

    breaks, unsure = _sentence_breaks(lexicon, pieces, offsets, np.cumsum(between)[kept])
    sentences = row_sums(breaks, offsets)
    sentences[unusual | (row_sums(unsure, offsets) > 0)] = -1
    return Texts(series, lexicon, words, word_offsets, sentences)


def _sentence_breaks(
    lexicon: Lexicon, pieces: NDArray[np.uint32], offsets: Ints, paragraphs: Ints
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(after which pieces a sentence ends, which pieces leave that open).

    paragraphs: how many empty lines came before each piece.
    """
    unsure = lexicon._unsure.array[pieces]
    if not len(pieces):
        return np.zeros(0, dtype=np.bool_), unsure
    tail, head = lexicon._tail.array[pieces], lexicon._head.array[pieces]
    following = np.roll(head, -1)
    ends = (tail == _ENDS) | ((tail == _ENDS_UNLESS_FIGURE) & (following != _FIGURE))
    ends &= following != _NO_START
    always = np.zeros(len(pieces), dtype=np.bool_)
    always[:-1] = paragraphs[1:] > paragraphs[:-1]
    filled = offsets[1:] > offsets[:-1]
    always[offsets[1:][filled] - 1] = True
    ends |= always
    starts = np.roll(ends, 1)
    starts[offsets[:-1][filled]] = True
    heads = np.flatnonzero(tail == _ENDS_UNLESS_FIRST)
    ends[heads] |= ~starts[heads] & (following[heads] != _NO_START)
    # Of two such pieces in a row the second hangs on the first.
    unsure[heads[1:][np.diff(heads) == 1]] = True
    return ends, unsure


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _head(piece: str) -> int:
    first = piece[:1]
    return _NO_START if first.islower() or first == "&" else _FIGURE if first.isdigit() else 0


def _tail(piece: str) -> int | None:
    """What the end of a piece does to the sentence it stands in; None where that hangs on more than the next piece.

    Asks `textstats` itself, with a made-up neighbour on either side.
    """
    if piece.isalpha():
        return 0
    if piece.split() != [piece]:
        return None if piece else 0  # another kind of space
    mark = textstats.SENTENCE_END.search(piece)
    if mark is None:
        return 0
    if mark.start() == 0:
        return None  # what stands before the mark is another piece

    def ends(before: str, after: str) -> bool:
        text = f"{before}{piece} {after}"
        found = textstats.SENTENCE_END.search(text, len(before))
        assert found is not None
        return textstats.is_break(text, 0, found)

    if not ends("w ", "A"):
        return 0
    if not ends("", "A"):
        return _ENDS_UNLESS_FIRST
    return _ENDS if ends("w ", "1") else _ENDS_UNLESS_FIGURE

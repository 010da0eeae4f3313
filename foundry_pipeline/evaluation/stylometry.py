"""How like the character's own writing a text is, measured against the spread of his own passages.

    style = Stylometry(texts, documents, markers)
    style.typical(style.measure(answer))   → {"function_words": 0.94, "vocabulary": 1.0, "sentence_words": 0.31, …}

Every measure is a plain number that can be recomputed by hand. What it is worth depends on how far the character's own
writing wanders, and that on the length of the text: the scale of each measure is therefore drawn from stretches of his
own passages of four lengths, each measured as if it were unknown (against the rest of his writing only). A text that
lies no less like him than three in four of his own stretches scores 1, one far below all of them scores 0.

A few pages make a rough scale, which the planted controls then find wanting. Raises FoundryError for no passage at all.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.ngram import TrigramModel
from foundry_pipeline.evaluation.overlap import Overlaps
from foundry_pipeline.textstats import find_phrases, sentences, words

# The commonest grammatical words of English. Personal pronouns are left out: they mark the genre (a letter, a message),
# not the writer (Burrows, "Delta", Literary and Linguistic Computing 17, 2002).
FUNCTION_WORDS: tuple[str, ...] = tuple(
    words(
        """
        the of and to in a that which is be by for with as on not from or are this it has have been was were at will may
        an but their its our these those such can could would should might must shall do did does no nor than more most less
        so if when where while whilst who whom whose what how there then into upon under over between among against without
        within through during before after since until toward towards above below both either neither each every any some
        all other others another same own only also too very even still yet however therefore thus because although though
        whether had being having out up down off about like just
        """
    )
)
_FUNCTION = frozenset(FUNCTION_WORDS)

# Words that hang one clause on another in written prose; those that speech uses as freely (that, what, if, when) tell
# nothing of a writer.
SUBORDINATORS: tuple[str, ...] = tuple(
    words(
        """
        which whose whom whilst while although though unless until whether whereby wherein whereof whereas lest than
        having being nor
        """
    )
)
# Hinges of the balanced and of the periodic sentence in English prose before 1850.
CONNECTIVES: tuple[str, ...] = (
    ("neither", "either", "however", "nevertheless", "notwithstanding", "moreover", "therefore", "accordingly", "hence")
    + ("thus", "indeed", "consequently", "hitherto", "likewise", "otherwise", "rather than", "not only", "but also")
    + ("as well as", "as well", "on the one hand", "on the other hand", "on the other", "in fine", "at the same time")
    + ("in the mean time", "not less", "no less", "so far as", "in as much as", "inasmuch as", "in order to")
    + ("with a view to", "above all", "the more", "the less", "provided that", "on our part", "in proportion as")
)
LENGTHS: tuple[int, ...] = (25, 60, 120, 240)  # words; most passages and answers lie between
COPIED_RUN = 8  # shared words in a row from which a text counts as drawn from a passage, which is then left out
LEAST_STRETCHES = 5  # of a length, from which a scale is drawn at it
# True: only less than his is unlike him; False: more is too, though a writer may exceed himself further.
MEASURES: dict[str, bool] = {
    "function_words": True,
    "vocabulary": True,
    "predictability": True,
    "markers": True,
    "long_words": True,
    "sentence_words": False,
    "hinges": True,
    "pauses": False,
    "compressibility": True,
}
_TAIL = 1.5  # spreads (median to 5th percentile) below the middle half at which nothing is left of a measure
_TAIL_ABOVE = 3.0  # the same above it
_LONG_WORD = 9  # letters
_PAUSE = re.compile(r"[,;:]")


@dataclass(frozen=True)
class Measures:
    """What was measured of one text; `words` is its length."""

    words: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class _Scale:
    """5th, 25th, 50th, 75th and 95th percentile of the character's own stretches, at each of some lengths in words."""

    one_sided: bool
    lengths: tuple[float, ...]
    percentiles: np.ndarray

    def at(self, length: int) -> np.ndarray:
        place = np.interp(math.log(max(length, 1)), np.log(self.lengths), np.arange(len(self.lengths)))
        low = int(place)
        high = min(low + 1, len(self.lengths) - 1)
        return self.percentiles[low] + (place - low) * (self.percentiles[high] - self.percentiles[low])

    def typical(self, value: float, length: int) -> float:
        p5, p25, p50, p75, p95 = self.at(length)
        least = max(0.05 * abs(p50), 1e-9)  # a measure that he never varies still has some width
        outside = (p25 - value) / max(p50 - p5, least) / _TAIL
        if not self.one_sided:
            outside = max(outside, (value - p75) / max(p95 - p50, least) / _TAIL_ABOVE)
        return float(min(1.0, max(0.0, 1.0 - outside)))


class _Counts:
    """Counts over passages, from which any of them can be taken out again."""

    def __init__(self, parts: Iterable[Iterable[object]]) -> None:
        self.parts = [Counter(part) for part in parts]
        self.total: Counter[object] = Counter()
        for part in self.parts:
            self.total.update(part)

    def without(self, key: object, left_out: Collection[int]) -> int:
        return self.total[key] - sum(self.parts[i][key] for i in left_out)

    def share_known(self, keys: Sequence[object], left_out: Collection[int]) -> float:
        """Share of `keys` that occur in the passages not left out; 1.0 where there are no keys."""
        return sum(self.without(key, left_out) > 0 for key in keys) / len(keys) if keys else 1.0


class Stylometry:
    """The character's style, learnt from his passages.

    `texts` and `documents` (aligned, in reading order within a document) are his passages and where they come from;
    `markers` are words and phrases of his period.
    """

    def __init__(self, texts: Sequence[str], documents: Sequence[str], markers: Sequence[str]) -> None:
        self._overlaps = Overlaps([str(i) for i in range(len(texts))], texts)
        self._markers = tuple(markers)
        self._texts, self._documents = list(texts), list(documents)
        tokens = [words(text) for text in texts]
        if not any(tokens):
            raise FoundryError(
                "the character has no training passage to know his style by",
                where="passages handed to the rubric judge",
                mend="add a primary source under sources/<character>/manifests/ and build the passages again",
            )
        self._words = _Counts(tokens)
        self._model = TrigramModel(tokens)
        self._scales = self._draw_scales()

    def copied_from(self, text: str) -> frozenset[int]:
        """Passages (by position) that share a long run with the text: it must not be measured against itself."""
        return self._overlaps.sharing(text, COPIED_RUN)

    def measure(self, text: str, left_out: Collection[int] | None = None) -> Measures:
        """The measures of a text, against the passages it was not copied from (or those not `left_out`)."""
        left_out = self.copied_from(text) if left_out is None else left_out
        if len(left_out) == len(self._texts):  # words of every passage there is: nothing else to measure it against
            left_out = ()
        tokens, spoken = words(text), sentences(text)
        if not tokens:
            return Measures(0, dict.fromkeys(MEASURES, 0.0))
        hundred = 100.0 / len(tokens)
        content = [t for t in tokens if t not in _FUNCTION and not t[0].isdigit()]
        raw = " ".join(tokens).encode()
        return Measures(
            len(tokens),
            {
                "function_words": self._likeness(tokens, left_out),
                "vocabulary": self._words.share_known(content, left_out),
                "predictability": -self._model.surprise(tokens, left_out),
                "markers": len(find_phrases(text, self._markers)) * hundred,
                "long_words": sum(len(t) >= _LONG_WORD for t in tokens) / len(tokens),
                "sentence_words": math.log(len(tokens) / max(1, len(spoken))),
                "hinges": len(find_phrases(text, SUBORDINATORS + CONNECTIVES)) * hundred,
                "pauses": len(_PAUSE.findall(text)) * hundred,
                "compressibility": len(zlib.compress(raw, 9)) / len(raw),
            },
        )

    def _likeness(self, tokens: Sequence[str], left_out: Collection[int]) -> float:
        """Cosine of the rates of function words in the text and in the character's other writing.

        Cosine rather than Delta's mean of standardised distances: in a text of fifty words most function words do not
        occur at all, and Delta then measures little but chance.
        """
        found = Counter(tokens)
        own = np.array([self._words.without(word, left_out) for word in FUNCTION_WORDS], dtype=float)
        here = np.array([found[word] for word in FUNCTION_WORDS], dtype=float)
        norm = float(np.linalg.norm(own) * np.linalg.norm(here))
        return float(own @ here) / norm if norm else 0.0

    def _draw_scales(self) -> dict[str, _Scale]:
        drawn = [self.stretches(length) for length in LENGTHS]
        # A corpus of a few pages has no stretches to draw from; its passages as they are then make a scale, a rough one.
        drawn = [d for d in drawn if len(d) >= LEAST_STRETCHES] or [
            [(text, frozenset({i})) for i, text in enumerate(self._texts) if words(text)]
        ]
        rows = [[self.measure(text, out) for text, out in d] for d in drawn]
        lengths = tuple(float(np.median([m.words for m in row])) for row in rows)
        points = (5, 25, 50, 75, 95)
        return {
            name: _Scale(one, lengths, np.array([np.percentile([m.values[name] for m in r], points) for r in rows]))
            for name, one in MEASURES.items()
        }

    def stretches(self, length: int) -> list[tuple[str, frozenset[int]]]:
        """Whole sentences of one document in a row, of at least `length` words, and the passages they come from."""
        out: list[tuple[str, frozenset[int]]] = []
        held: list[str] = []
        sources: set[int] = set()
        for i, text in enumerate(self._texts):
            if i and self._documents[i] != self._documents[i - 1]:
                held, sources = [], set()
            for sentence in sentences(text):
                held.append(sentence)
                sources.add(i)
                if len(words(" ".join(held))) >= length:
                    out.append((" ".join(held), frozenset(sources)))
                    held, sources = [], set()
        return out

    def typical(self, measures: Measures) -> dict[str, float]:
        """Each measure as a number in [0, 1]: 1 where it is ordinary in the character, 0 where it is foreign to him."""
        if not measures.words:
            return dict.fromkeys(MEASURES, 0.0)
        return {name: self._scales[name].typical(value, measures.words) for name, value in measures.values.items()}

"""What an answer is about, and whose side it takes: sentence embeddings against the prompt and the character's record.

    ground = Grounding(texts, embed)
    found = ground.read(prompt, answer)      → Grounds(relevance=0.93, leaning=0.41, record=0.8, echo=0.0)

An embedding's cosine means nothing by itself. Each figure is therefore placed between what the character's passages
reach at the median (0: no nearer than any page of his) and what the few nearest to the prompt reach (1: as near as the
best he has to say). The passages that an answer was copied from take no part in that scale.

What his record bears out is read in pieces of a like length, not sentence by sentence: a short sentence lies farther
from everything than a long one, and how often a writer sets a full stop is his dress, not his matter. Texts of unlike
length are made comparable so in retrieval (Kaszkiel & Zobel, "Effective ranking with arbitrary passages", Journal of
the American Society for Information Science and Technology 52, 2001). A piece has the length of his usual sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.textstats import normalise, sentences, words

Embed = Callable[[list[str]], np.ndarray]

WINDOW_WORDS = 120  # read as one; sentence encoders of this size cut off at 256 word pieces
MAX_SENTENCES = 60  # of an answer
NEAREST = 3  # passages taken for what the character has to say to a prompt
_LEAST_PEAK = 0.45  # relevance that counts as full even where the record holds nothing nearer
_LEAST_GAP = 0.12
_LEANING_SPREADS = 2.5  # standard deviations of the margin at which an answer is wholly on one side
_ECHO_RUN = 4  # words in a row shared with the prompt
_ECHO_SHARE = 0.6  # of a sentence's words, from which it counts as the prompt said again


@dataclass(frozen=True)
class Grounds:
    """All in [0, 1] but `leaning`, which is in [-1, 1]: +1 on the stance's side, -1 on the opponent's.

    `relevance`: to the prompt and its subject; `record`: how well each piece, by its length, is borne out by some piece
    of his; `echo`: share of sentences that only repeat the prompt.
    """

    relevance: float
    leaning: float
    record: float
    echo: float


@dataclass(frozen=True)
class _Read:
    """Embeddings of one text: its sentences (n × d), its pieces (m × d) and the text as a whole (d), of unit length.

    `lengths` are the pieces' words, none below one.
    """

    sentences: np.ndarray
    pieces: np.ndarray
    whole: np.ndarray
    lengths: np.ndarray

    def near(self, query: np.ndarray) -> float:
        """Cosine to a query: half the whole text's, half that of its two nearest sentences."""
        best = np.sort(self.sentences @ query)[-2:]
        return float(0.5 * self.whole @ query + 0.5 * best.mean())


@dataclass(frozen=True)
class _Scales:
    """What the passages reach for one prompt; arrays have one entry a passage."""

    queries: np.ndarray  # prompt, stance, opposed
    subject: np.ndarray
    margin: np.ndarray


class Grounding:
    """The character's passages as embeddings.

    `embed` turns n texts into an (n, d) array, a row of which depends on its own text alone; rows are brought to unit
    length here. No sentence is embedded twice: an answer that loops, or says a passage over, costs next to nothing.
    """

    def __init__(self, texts: Sequence[str], embed: Embed) -> None:
        self._embed = embed
        self._known: dict[str, np.ndarray] = {}
        self._piece_words = float(np.median([len(words(s)) for text in texts for s in _said(text)] or [1]))
        self._passages = self._read_all(list(texts))
        self._pieces = np.concatenate([p.pieces for p in self._passages])
        self._first = np.cumsum([0, *(len(p.pieces) for p in self._passages[:-1])])
        self._scales: dict[tuple[str, str, str], _Scales] = {}
        found = np.array([self._borne_out(p, {i}) for i, p in enumerate(self._passages)])
        self._record_scale = (float(np.median(found[:, 1])), float(np.percentile(found[:, 0], 25)))

    def prepare(self, asked: Sequence[tuple[EvaluationPrompt, str]]) -> None:
        """Embed what `read` will want for these answers in one call, which takes half the time of a call for each."""
        said = [_own(answer, prompt) for prompt, answer in asked]
        queries = [normalise(text) for prompt, _ in asked for text in (prompt.text, prompt.stance, prompt.opposed)]
        cut = [self._cut(" ".join(own)) for own in said if words(" ".join(own))]
        self._know([*queries, *(part for parts in cut for kind in parts for part in kind)])

    def read(self, prompt: EvaluationPrompt, answer: str, left_out: Collection[int] = ()) -> Grounds:
        """Read an answer; `left_out` are the passages (by position) that it was copied from."""
        scales = self._scale(prompt)
        said = _said(answer)
        own = _own(answer, prompt)
        echo = 1 - len(own) / len(said) if said else 0.0
        if not words(" ".join(own)):
            return Grounds(0.0, 0.0, 0.0, echo)
        text = self._read_all([" ".join(own)])[0]
        kept = np.setdiff1d(np.arange(len(self._passages)), list(left_out))
        if not len(kept):  # an answer that holds words of every passage there is
            kept = np.arange(len(self._passages))
        asked, held, opposed = (text.near(query) for query in scales.queries)
        return Grounds(
            relevance=_between(
                (asked + max(held, opposed)) / 2,
                float(np.median(scales.subject[kept])),
                max(float(np.sort(scales.subject[kept])[-NEAREST:].mean()), _LEAST_PEAK),
            ),
            leaning=self._leaning(held - opposed, scales.margin[kept]),
            record=_between(self._borne_out(text, left_out)[0], *self._record_scale),
            echo=echo,
        )

    def _read_all(self, texts: list[str]) -> list[_Read]:
        """Embeds every sentence, every piece and every window of the texts in one call."""
        cut = [self._cut(text) for text in texts]
        found = self._vectors([part for parts in cut for kind in parts for part in kind])
        ends = np.cumsum([len(kind) for parts in cut for kind in parts])[:-1]
        blocks = iter(np.split(found, ends))
        return [
            _Read(
                sentences=next(blocks),
                pieces=next(blocks),
                whole=_unit(next(blocks).mean(axis=0)),
                lengths=np.array([max(len(words(piece)), 1) for piece in pieces]),
            )
            for _, pieces, _ in cut
        ]

    def _cut(self, text: str) -> tuple[list[str], list[str], list[str]]:
        """What is embedded of a text: its sentences, its pieces and its windows."""
        said = _said(text)
        return said, _pieces(said, self._piece_words), _windows(said)

    def _vectors(self, texts: list[str]) -> np.ndarray:
        """Unit vectors of the texts, one row each."""
        self._know(texts)
        return np.stack([self._known[text] for text in texts])

    def _know(self, texts: list[str]) -> None:
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known |= dict(zip(new, _unit(np.asarray(self._embed(new), dtype=np.float64)), strict=True))

    def _scale(self, prompt: EvaluationPrompt) -> _Scales:
        key = (prompt.text, prompt.stance, prompt.opposed)
        if key not in self._scales:
            queries = self._vectors([normalise(text) for text in key])
            near = np.array([[p.near(query) for query in queries] for p in self._passages])
            self._scales[key] = _Scales(queries, (near[:, 0] + near[:, 1:].max(axis=1)) / 2, near[:, 1] - near[:, 2])
        return self._scales[key]

    @staticmethod
    def _leaning(margin: float, own: np.ndarray) -> float:
        """Nearer to the stance than to its opposite, in spreads of the margin over his passages.

        Which of the two sentences lies nearer to English prose at large is an accident of their wording; the median
        over passages on every subject takes it out.
        """
        spread = max(1.4826 * float(np.median(np.abs(own - np.median(own)))), 0.02)
        return float(np.clip((margin - np.median(own)) / (_LEANING_SPREADS * spread), -1, 1))

    def _borne_out(self, text: _Read, left_out: Collection[int]) -> tuple[float, float]:
        """Mean over the text's pieces of the nearest piece in the passages not left out: in the nearest of these
        passages, and in the middle one (what any page of his has in common with the piece).

        A piece weighs by its words: what is said in passing ("That's basically it.") asks for no support.
        """
        near = np.maximum.reduceat(text.pieces @ self._pieces.T, self._first, axis=1)
        if len(left_out) < len(self._passages):  # else there is nothing but them to be borne out by
            near = np.delete(near, sorted(left_out), axis=1)
        weights = text.lengths
        return (
            float(np.average(near.max(axis=1), weights=weights)),
            float(np.average(np.median(near, axis=1), weights=weights)),
        )


def _between(value: float, floor: float, peak: float) -> float:
    return float(np.clip((value - floor) / max(peak - floor, _LEAST_GAP), 0, 1))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _said(text: str) -> list[str]:
    return sentences(normalise(text))[:MAX_SENTENCES]


def _own(answer: str, prompt: EvaluationPrompt) -> list[str]:
    """The answer's sentences that do not only repeat the prompt."""
    return [s for s in _said(answer) if _echo(s, prompt.text) < _ECHO_SHARE]


def _pieces(said: Sequence[str], least: float) -> list[str]:
    """Sentences in a row, joined until they have `least` words; what is left at the end goes with the last piece."""
    out: list[list[str]] = []
    held = least
    for sentence in said:
        if held >= least:
            out.append([])
            held = 0
        out[-1].append(sentence)
        held += len(words(sentence))
    if len(out) > 1 and held < least:
        out[-2:] = [out[-2] + out[-1]]
    return [" ".join(piece) for piece in out]


def _windows(said: Sequence[str]) -> list[str]:
    """Sentences in a row, joined into pieces of about WINDOW_WORDS words; one piece at least."""
    out: list[list[str]] = [[]]
    held = 0
    for sentence in said:
        size = len(words(sentence))
        if out[-1] and held + size > WINDOW_WORDS:
            out.append([])
            held = 0
        out[-1].append(sentence)
        held += size
    return [" ".join(piece) for piece in out]


def _echo(sentence: str, prompt: str) -> float:
    """Share of a sentence's words that stand in runs of _ECHO_RUN words of the prompt."""
    said, asked = words(sentence), words(prompt)
    runs = set(zip(*(asked[i:] for i in range(_ECHO_RUN)), strict=False))
    covered = {
        at + step
        for at in range(len(said) - _ECHO_RUN + 1)
        if tuple(said[at : at + _ECHO_RUN]) in runs
        for step in range(_ECHO_RUN)
    }
    return len(covered) / len(said) if said else 0.0

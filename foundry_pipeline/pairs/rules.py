"""The rules on a single pair, each over a whole batch of pairs at once.

A rule says which rows of a batch it fires on, with the figure behind it and the reason in words:

    >>> found = PAIR_RULES["too_short"](batch)
    >>> (found.rows, found.scores, found.reasons)
    ([4], [3.0], ['chosen is 3 words long, fewer than 20'])

What a rule counts is said in `textstats` and counted in `textcolumns`; the bounds are those of `Filters`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foundry_pipeline import textstats
from foundry_pipeline.pairs.batches import Batch, Found, first_side, where
from foundry_pipeline.pairs.conversations import SIDES
from foundry_pipeline.pairs.language import foreign, plainly_english
from foundry_pipeline.textcolumns import Phrases, Texts, contractions, modern_idiom, word_counts
from foundry_pipeline.textcolumns.patterns import machine_and_opening_marks, markdown_marks

# -- form ----------------------------------------------------------------------------------------------------------


def _empty(batch: Batch) -> Found:
    blank: NDArray[np.bool_] = np.array([word_counts(t) == 0 for _, t in batch.sides])

    def reason(i: int) -> str:
        return f"no words in {' and '.join(side for side, b in zip(SIDES, blank[:, i], strict=True) if b)}"

    return where(np.any(blank, axis=0), lambda i: blank[:, i].sum(), reason)


def _length(batch: Batch, bounds: Sequence[tuple[str, int]], compare: Any, what: str) -> Found:
    per_side = []
    for side, bound in bounds:
        counts = word_counts(getattr(batch, side))
        # A length of 0 is a figure too: shifted by one, since 0 stands for nothing.
        figures = np.where(compare(counts, bound), counts + 1, 0)
        per_side.append((side, figures, lambda s, n, bound=bound: f"{s} is {n - 1} words long, {what} {bound}"))
    found = first_side(per_side)
    return Found(found.rows, [s - 1 for s in found.scores], found.reasons)


def _too_short(batch: Batch) -> Found:
    bounds = [("chosen", batch.filters.min_chosen_words), ("rejected", batch.filters.min_rejected_words)]
    return _length(batch, bounds, np.less, "fewer than")


def _too_long(batch: Batch) -> Found:
    bounds = [("chosen", batch.filters.max_chosen_words), ("rejected", batch.filters.max_rejected_words)]
    return _length(batch, bounds, np.greater, "more than")


_ENDED = "[.!?…][\"'”’)\\]*_]*[\\s\x1c-\x1f]*$"


def _truncated(batch: Batch) -> Found:
    chosen, rejected = (~t.series.str.contains(_ENDED).to_numpy() for t in (batch.chosen, batch.rejected))
    rejected = rejected & batch.cut & ~chosen

    def reason(i: int) -> str:
        what = "chosen ends inside a sentence"
        return what if chosen[i] else "rejected was cut by the token limit and has no whole sentence"

    return where(chosen | rejected, lambda i: 1.0, reason)


def _loop(batch: Batch) -> Found:
    def reason(side: str, share: float) -> str:
        return f"{share:.0%} of {side}'s 4-grams are repeated: it teaches only not to loop"

    sides = zip(("chosen", "rejected"), batch.repetitions, strict=True)
    over = ((side, np.where(share > batch.filters.max_repetition, share, 0.0)) for side, share in sides)
    return first_side((side, figures, reason) for side, figures in over)


# -- signs -----------------------------------------------------------------------------------------------------------

# Only what lies outside ASCII and ordinary punctuation can be a sign of wrong decoding.
_UNUSUAL = "[^\\x00-\\x7f’‘“”–—…]"
_UNREADABLE = "\ufffd"  # what a decoder leaves for what it could not read
_CONTROL = r"[\p{Cc}\p{Cf}\p{Cn}\p{Co}--\n\t]"


def _on(series: pl.Series, pattern: str, measure: Callable[[str], int]) -> NDArray[np.int64]:
    """`measure` of the texts in which `pattern` occurs, 0 for the others."""
    figures = np.zeros(len(series), dtype=np.int64)
    at = series.str.contains(pattern).arg_true()
    if len(at):
        figures[at.to_numpy()] = [measure(t) for t in series.gather(at).to_list()]
    return figures


def wrong_decoding(text: str) -> int:
    """Places that look like UTF-8 read in another encoding (as `ftfy` counts them), and replacement characters."""
    from ftfy.badness import badness

    return int(badness(text)) + text.count(_UNREADABLE)


def _mojibake(batch: Batch) -> Found:
    def over(texts: Texts) -> NDArray[np.int64]:
        counts = _on(texts.series, _UNUSUAL, wrong_decoding)
        return np.where(counts > batch.filters.max_mojibake, counts, 0)

    return first_side([(s, over(t), lambda side, n: f"signs of wrong decoding in {side}: {n}") for s, t in batch.sides])


def _control_characters(batch: Batch) -> Found:
    """Control characters, zero-width signs, bidirectional marks, private and unassigned code points."""
    rows: dict[int, tuple[float, str]] = {}
    for side, texts in batch.sides:
        at = texts.series.str.contains(_CONTROL).arg_true()
        listed = texts.series.gather(at).str.extract_all(_CONTROL).to_list() if len(at) else []
        for i, signs in zip(at.to_list(), listed, strict=True):
            odd = sorted(set(signs))
            names = ", ".join(f"U+{ord(c):04X}" for c in odd[:3])
            rows.setdefault(i, (float(len(odd)), f"{side} has control or invisible characters: {names}"))
    return Found.at(rows)


def _wrong_language(batch: Batch) -> Found:
    filters = batch.filters
    rows: dict[int, tuple[float, str]] = {}
    unsure: set[int] = set()
    for side, texts in batch.sides:
        rest = np.ones(len(batch), dtype=np.bool_)
        if filters.language == "en":
            rest &= ~plainly_english(texts)
        short = (texts.series.str.len_bytes() < filters.min_language_bytes).to_numpy()
        unsure |= set(np.flatnonzero(rest & short).tolist())
        at = np.flatnonzero(rest & ~short)
        found = foreign(texts.series.gather(at).to_list(), filters.language) if len(at) else {}
        for index, (label, confidence) in found.items():
            if confidence >= filters.min_language_confidence:
                what = "no language" if label == "zxx" else f"`{label}`"
                reason = f"{side} reads as {what}, not `{filters.language}` (confidence {confidence:.2f})"
                rows.setdefault(int(at[index]), (confidence, reason))
            else:
                unsure.add(int(at[index]))
    return Found.at(rows, unsure=len(unsure - rows.keys()))


# -- register of the chosen side ---------------------------------------------------------------------------------------


def _listed(batch: Batch, suspects: NDArray[Any], find: Callable[[str], list[str]], what: str, most: int) -> Found:
    rows: list[int] = []
    finds: list[list[str]] = []
    for i in np.flatnonzero(suspects).tolist():
        if len(found := find(batch.chosen.series[i])) > most:
            rows.append(i)
            finds.append(found)
    reasons = [f"chosen has {what}: {', '.join(sorted(set(found))[:3])}" for found in finds]
    return Found(rows, [float(len(found)) for found in finds], reasons)


def _ai_self_reference_in_chosen(batch: Batch) -> Found:
    machine, _ = machine_and_opening_marks(batch.chosen)
    most = batch.filters.max_chosen_ai_self_reference
    return _listed(batch, machine > most, textstats.ai_self_reference, "a machine speaking of itself", most)


def _markdown_in_chosen(batch: Batch) -> Found:
    counts = markdown_marks(batch.chosen)
    over = counts > batch.filters.max_chosen_markdown
    return where(over, lambda i: counts[i], lambda i: f"Markdown marks in chosen: {counts[i]}")


def _contractions_in_chosen(batch: Batch) -> Found:
    counts = contractions(batch.chosen)
    over = counts > batch.filters.max_chosen_contractions
    return where(over, lambda i: counts[i], lambda i: f"contractions in chosen: {counts[i]}")


def _modern_idiom_in_chosen(batch: Batch) -> Found:
    counts = modern_idiom(batch.chosen)
    most = batch.filters.max_chosen_modern_idiom
    return _listed(batch, counts > most, textstats.modern_idiom, "modern idiom", most)


def _anachronism_in_chosen(batch: Batch) -> Found:
    assert batch.character is not None
    terms = batch.character.anachronisms
    most = batch.filters.max_chosen_anachronisms
    suspects = Phrases(terms, batch.chosen.lexicon, bare=True).counts(batch.chosen) > 0

    def find(text: str) -> list[str]:
        return list(textstats.mentioned(text, terms))

    return _listed(batch, suspects, find, "an anachronism", most)


# -- the two sides against each other ----------------------------------------------------------------------------------


def _sides_equal(batch: Batch) -> Found:
    chosen, rejected = batch.chosen, batch.rejected
    same = word_counts(chosen) == word_counts(rejected)
    for i in np.flatnonzero(same).tolist():
        same[i] = chosen.row_words(i) == rejected.row_words(i)
    return where(same, lambda i: 1.0, lambda i: "chosen and rejected say the same words")


def _swapped_sides(batch: Batch) -> Found:
    contrast = batch.contrast
    return where(
        contrast < 0,
        lambda i: contrast[i],
        lambda i: f"rejected reads more like the character by {-contrast[i]:.3f}",
    )


def _weak_voice_contrast(batch: Batch) -> Found:
    contrast, least = batch.contrast, batch.filters.min_voice_contrast
    return where(
        contrast < least, lambda i: contrast[i], lambda i: f"voice contrast {contrast[i]:.3f} is below {least:g}"
    )


PAIR_RULES: dict[str, Callable[[Batch], Found]] = {
    "empty": _empty,
    "mojibake": _mojibake,
    "control_characters": _control_characters,
    "wrong_language": _wrong_language,
    "too_short": _too_short,
    "too_long": _too_long,
    "truncated": _truncated,
    "loop": _loop,
    "ai_self_reference_in_chosen": _ai_self_reference_in_chosen,
    "markdown_in_chosen": _markdown_in_chosen,
    "contractions_in_chosen": _contractions_in_chosen,
    "modern_idiom_in_chosen": _modern_idiom_in_chosen,
    "anachronism_in_chosen": _anachronism_in_chosen,
    "sides_equal": _sides_equal,
    "swapped_sides": _swapped_sides,
    "weak_voice_contrast": _weak_voice_contrast,
}
OF_A_CHARACTER = ("anachronism_in_chosen", "swapped_sides", "weak_voice_contrast")
"""Rules that read a character's vocabulary; left out where there is no character."""

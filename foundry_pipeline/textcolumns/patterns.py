"""Regular expressions of `textstats` over columns, through Polars.

The two languages of expressions differ on rare characters only: white space from U+001C to U+001F, what a letter is
outside the common alphabets, and case folding. Texts that hold anything but plain text and ordinary typography are
therefore read by `textstats` itself, one by one; of the others Polars gives the same counts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from foundry_pipeline import textstats
from foundry_pipeline.textcolumns.lexicon import Ints, Texts, once

# ASCII without the separators U+001C to U+001F, quotation marks, dashes, the ellipsis, £ and é: whose fold is plain.
_RARE = "[^\\x00-\\x1b\\x20-\\x7f‘’“”–—…£é]"
# Any Markdown mark has one of these; most plain text has none.
_PERHAPS_MARKDOWN = r"(?m)[#`|*_\[>•]|^[ \t]*[-+][ \t]|^[ \t]*-{3,}|^[ \t]*\d{1,2}[.)][ \t]"


def _in_full(counts: Ints, series: pl.Series, rows: pl.Series, measure: Callable[[str], int]) -> None:
    """Put the definition's own count where `rows` (Boolean) says so."""
    at = rows.arg_true()
    if len(at):
        counts[at.to_numpy()] = [measure(t) for t in series.gather(at).to_list()]


@once
def markdown_marks(texts: Texts) -> Ints:
    """`textstats.markdown_marks` of each text."""
    series = texts.series
    counts = np.zeros(len(series), dtype=np.int64)
    _in_full(counts, series, series.str.contains(_PERHAPS_MARKDOWN), textstats.markdown_marks)
    return counts


@once
def machine_and_opening_marks(texts: Texts) -> tuple[Ints, Ints]:
    """(phrases in which a text speaks as a machine, opening words of a chat assistant) of each text, counted."""
    series = texts.series
    folded = series.str.replace_many(["’", "‘", "`"], ["'", "'", "'"]).str.to_lowercase()
    rare = series.str.contains(_RARE)
    machine = folded.str.count_matches(textstats.AI_SELF_REFERENCE.pattern).to_numpy().astype(np.int64)
    opening = folded.str.count_matches(textstats.MODERN_OPENING.pattern).to_numpy().astype(np.int64)
    _in_full(machine, series, rare, lambda t: len(textstats.ai_self_reference(t)))
    _in_full(opening, series, rare, lambda t: len(textstats.modern_openings(t)))
    return machine, opening

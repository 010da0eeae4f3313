"""Is a text in the language it should be in? Common words first, a trained identifier for the rest.

    >>> foreign(["Der Kongress soll eine Bank gründen, damit das Volk davon einen Nutzen habe."], "en")
    {0: ('de', 0.999)}

A text in English is known by its common words (the, of, and …), which costs next to nothing. Any other goes to
`py3langid` (Lui and Baldwin 2012, "langid.py"; its model lies in the package), whose confidence is calibrated by length.
A text too short to show a language is never handed over (`Filters.min_language_bytes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.textcolumns import Texts, row_sums, word_counts

# Words of English that are rare in its neighbours; a sixth of a text in these is English in any register.
_ENGLISH = (
    "the and of to that it with for be which this by not are from they their but were would will or what there been "
    "has our you your have his her its should could than these those when who we my i"
)
_ENOUGH = 1 / 6


_READ = 4000  # characters; more text does not make the language plainer


def plainly_english(texts: Texts) -> NDArray[np.bool_]:
    """Texts in which at least a sixth of the words are common English ones."""
    numbers = texts.lexicon.number(_ENGLISH.split())
    common = np.zeros(len(texts.lexicon.words), dtype=np.bool_)
    common[numbers] = True
    counts = word_counts(texts)
    return (counts > 0) & (row_sums(common[texts.words], texts.word_offsets) >= _ENOUGH * counts)


def foreign(texts: Sequence[str], language: str) -> dict[int, tuple[str, float]]:
    """Texts that read as another language than `language` (ISO 639-1): index → (that language, confidence 0 to 1).

    `zxx` stands for no language at all. Raises DeclarationError for a language that the identifier does not know.
    """
    identifier = _identifier()
    if language not in identifier.labels:
        raise DeclarationError(
            f"no language is known as `{language}`",
            where="assets/profiles/, field `filters.language`",
            mend=f"name one of: {', '.join(sorted(identifier.labels))}",
        )
    found = {}
    for index, text in enumerate(texts):
        label, confidence = identifier.classify(text[:_READ])
        if label != language:
            found[index] = (str(label), round(float(confidence), 3))
    return found


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

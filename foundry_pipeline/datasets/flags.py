"""What the checks read of each pair's texts: lengths, flags and voice contrast, a column at a time.

>>> pair_flags(frame, character=character, overlaps={"suite": index, "held_out": other}).columns
['chosen_words', 'rejected_words', 'sides_differ', 'no_suite_overlap', 'no_held_out_overlap', 'id_matches_content',
 'voice_contrast']
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.pairs.candidates import pair_id, voice_scores
from foundry_pipeline.pairs.overlap import OverlapIndex
from foundry_pipeline.textcolumns import Lexicon, Texts, in_slices, read_texts, word_counts

FLAGS = {
    "chosen_words": pl.Int64,
    "rejected_words": pl.Int64,
    "sides_differ": pl.Boolean,
    "no_suite_overlap": pl.Boolean,
    "no_held_out_overlap": pl.Boolean,
    "id_matches_content": pl.Boolean,
    "voice_contrast": pl.Float64,
}


def pair_flags(frame: pl.DataFrame, *, character: Character, overlaps: Mapping[str, OverlapIndex]) -> pl.DataFrame:
    """Columns FLAGS, one row a pair, in the frame's order.

    frame: pair_id, prompt, chosen, rejected, origin. overlaps: `suite` and `held_out`. A length is null where a side is
    missing or has no word, a contrast where a side is missing; the flags never are. Two sides differ if one is missing.
    """
    parts = in_slices(lambda part, lexicon: _flags(part, character, overlaps, lexicon), frame)
    return pl.concat([pl.DataFrame(schema=FLAGS), *parts])


def _flags(
    pairs: pl.DataFrame, character: Character, overlaps: Mapping[str, OverlapIndex], lexicon: Lexicon
) -> pl.DataFrame:
    prompt, chosen, rejected = (read_texts(pairs[side], lexicon) for side in ("prompt", "chosen", "rejected"))
    both = (chosen.series.str.len_bytes() > 0) & (rejected.series.str.len_bytes() > 0)
    contrast = [c - r for c, r in zip(voice_scores(chosen, character), voice_scores(rejected, character), strict=True)]

    def lengths(texts: Texts) -> pl.Series:
        counts = pl.Series(word_counts(texts), dtype=pl.Int64)
        return counts.replace({0: None})

    def clear(index: OverlapIndex) -> pl.Series:
        return pl.Series((index.column(prompt) == 0) & (index.column(chosen) == 0))

    said = pairs.select("prompt", "chosen", "rejected", "origin", "pair_id").iter_rows()
    return pl.DataFrame(
        {
            "chosen_words": lengths(chosen),
            "rejected_words": lengths(rejected),
            "sides_differ": pl.Series(_differ(chosen, rejected)) | ~both,
            "no_suite_overlap": clear(overlaps["suite"]),
            "no_held_out_overlap": clear(overlaps["held_out"]),
            "id_matches_content": [pair_id(*texts) == own for *texts, own in said],
            "voice_contrast": pl.DataFrame({"c": contrast, "both": both}).select(
                pl.when("both").then("c").otherwise(None)
            )["c"],
        },
        schema=FLAGS,
    )


def _differ(first: Texts, second: Texts) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether two texts say different words."""
    differ = word_counts(first) != word_counts(second)
    for row in np.flatnonzero(~differ).tolist():
        differ[row] = first.row_words(row) != second.row_words(row)
    return differ

"""How large a recipe is, and how often each of its pairs is shown: declared pairs, `upsample` and `weight`.

    399 pairs, upsample 2                      →  399 rows, each shown twice: 798
    399 pairs, upsample 1, weight 1.5          →  399 rows, 200 shown twice and 199 once: 599
    399 pairs, upsample 1, weight 0.5          →  200 rows, each shown once; 199 are left out

A part's shows come to ⌈Σ upsample × weight⌉; what is left over after whole numbers goes to the pairs with the largest
remainders (Hare and Niemeyer's rule of apportionment), and among equals by pair_id, which is a hash: which pairs are
shown once more is arbitrary, and always the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

import polars as pl

from foundry_pipeline.declarations.assets import Dataset, DatasetPart
from foundry_pipeline.errors import DeclarationError


def scaled(pairs: int, size_factor: float) -> int:
    """⌈pairs × size_factor⌉, reckoned in decimal: 0.07 of 100 is 7, not 8."""
    return math.ceil(pairs * Fraction(str(size_factor)))


def factor(part: DatasetPart) -> Fraction:
    """How often a pair of this part is shown on average, for each time that it was shown before."""
    return part.upsample * Fraction(str(part.weight))


def weigh(frame: pl.DataFrame, part: DatasetPart) -> pl.DataFrame:
    """`frame` with `upsample` (shows of each pair) multiplied by the part's factor; pairs shown 0 times are left out.

    Needs columns pair_id and upsample; the order of rows stays. Exact and without a change of order for whole factors.
    """
    by = factor(part)
    if by.denominator == 1:
        return frame.with_columns(pl.col("upsample") * int(by))
    shows = frame["upsample"].to_list()
    whole = [math.floor(n * by) for n in shows]
    extra = math.ceil(sum(shows) * by) - sum(whole)
    ids = frame["pair_id"].to_list()
    ranked = sorted(range(len(shows)), key=lambda i: (whole[i] - shows[i] * by, shows[i], ids[i]))
    for i in ranked[:extra]:
        whole[i] += 1
    return frame.with_columns(upsample=pl.Series(whole, dtype=pl.Int64)).filter(pl.col("upsample") > 0)


def _weighed(shows: Mapping[int, int], part: DatasetPart) -> Counter[int]:
    """`weigh` on counts alone: how often shown → how many rows."""
    by = factor(part)
    extra = math.ceil(sum(n * rows for n, rows in shows.items()) * by)
    extra -= sum(math.floor(n * by) * rows for n, rows in shows.items())
    out: Counter[int] = Counter()
    for n in sorted(shows, key=lambda n: (math.floor(n * by) - n * by, n)):
        more = min(extra, shows[n])
        extra -= more
        out[math.floor(n * by) + 1] += more
        out[math.floor(n * by)] += shows[n] - more
    return +Counter({n: rows for n, rows in out.items() if n})


def recipe_size(dataset: Dataset, size_factor: float, declared: Mapping[str, Dataset]) -> dict[str, int]:
    """{"rows", "effective"}: what the recipe asks for at this size; effective rows count each as often as it is shown.

    `declared` holds every dataset that this one takes over. Raises DeclarationError when one of them is missing.
    """
    shows = _recipe_shows(dataset, size_factor, declared)
    return {"rows": sum(shows.values()), "effective": sum(n * rows for n, rows in shows.items())}


def _recipe_shows(dataset: Dataset, size_factor: float, declared: Mapping[str, Dataset]) -> Counter[int]:
    shows: Counter[int] = Counter()
    for part in dataset.parts:
        if part.dataset is None:
            taken = Counter({1: scaled(part.pairs or 0, size_factor) * part.rows_per_item})
        elif part.dataset in declared:
            taken = _recipe_shows(declared[part.dataset], size_factor, declared)
        else:
            raise DeclarationError(
                f"no dataset is named {part.dataset}",
                where=f"assets/datasets/{dataset.dataset}.yaml, parts",
                mend="correct the name, or declare that dataset",
            )
        shows += _weighed(taken, part)
    return shows

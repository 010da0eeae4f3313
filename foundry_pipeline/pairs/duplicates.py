"""Near duplicates among pairs, exactly: Jaccard similarity of word 3-grams, no sketch and no chance.

Candidates come from prefix filtering (Bayardo et al. 2007, "Scaling up all pairs similarity search"): two sets of
Jaccard similarity t or more share a member among the rarest |s| − ⌈t·|s|⌉ + 1 of either, so almost no pair of sets is
ever compared.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet

from foundry_pipeline import textstats

_SAME_QUESTION = 0.5  # Jaccard of the prompts' words below which two prompts ask different things


def shingles(text: str, n: int = 3) -> frozenset[tuple[str, ...]]:
    """The word n-grams of a text; of a shorter text, itself."""
    tokens = textstats.words(text)
    if len(tokens) < n:
        return frozenset([tuple(tokens)]) if tokens else frozenset()
    return frozenset(zip(*(tokens[i:] for i in range(n)), strict=False))


def jaccard(a: AbstractSet[Hashable], b: AbstractSet[Hashable]) -> float:
    """|a ∩ b| / |a ∪ b|; 1.0 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def near_duplicates(prompts: Sequence[str], chosen: Sequence[str], threshold: float) -> dict[int, tuple[int, float]]:
    """Which pairs say again what an earlier kept one says: index → (index of the earlier one, similarity).

    Two pairs are near duplicates when the 3-grams of prompt and chosen together reach `threshold` (0 to 1) and the
    prompts ask much the same. The second condition spares a passage that rightly answers two different questions.
    Earlier pairs win; a pair is compared with kept ones only.
    """
    sets = [shingles(p) | shingles(c) for p, c in zip(prompts, chosen, strict=True)]
    asked = [frozenset(textstats.words(p)) for p in prompts]
    frequency = Counter(s for members in sets for s in members)
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    found: dict[int, tuple[int, float]] = {}
    for i, members in enumerate(sets):
        prefix = len(members) - math.ceil(threshold * len(members) - 1e-9) + 1  # rounding must not shorten it
        rarest = sorted(members, key=lambda s: (frequency[s], s))[:prefix]
        for j in sorted({j for s in rarest for j in holders[s]}):
            similarity = jaccard(members, sets[j])
            if similarity >= threshold and jaccard(asked[i], asked[j]) >= _SAME_QUESTION:
                found[i] = (j, similarity)
                break
        else:
            for s in rarest:
                holders[s].append(i)
    return found

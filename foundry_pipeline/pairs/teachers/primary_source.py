"""The chosen side, offline: the character's own words, found for each prompt.

    prompt   "What did the embargo cost our merchants?"           (origin: source_enriched)
    hits     six passages whose cosine with the prompt reaches `min_fit`
    chosen   the one with most specifics per 100 words, cut to whole sentences

Retrieval says which passages fit; the prompt's origin says which of the fitting ones is taken:

| origin          | takes among the fitting passages          | and never below                    |
| --------------- | ----------------------------------------- | ---------------------------------- |
| base            | the best fit                              | the teacher's `min_fit`            |
| voice           | the highest voice score, then most markers | the same                          |
| source_enriched | most numbers, dates and names             | 2 per 100 words                    |
| introspection   | most first person singular                | 0.8 per 100 words                  |

Among the fitting ones that reach the floor, only those are looked at whose fit is within 0.12 of the best of them: a
property is no reason to answer another question. A prompt that nothing fits is dropped and says why; nothing is padded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from foundry_pipeline import textstats
from foundry_pipeline.declarations.generation import PrimarySourceTeacher
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.pairs.teachers.frames import Retriever, answers_and_drops, check_inputs, found_for, nothing_fits

PRIMARY_SOURCE = "primary_source"
NEARNESS = 0.12  # cosine; without it the mean fit of voice answers falls from 0.56 to 0.48, of introspection to 0.43
SEARCH_DEPTH = 10  # hits looked at for every candidate wanted: many hits fail `min_fit`, a floor or the cap


@dataclass(frozen=True)
class Rule:
    """How an origin ranks the fitting passages: by `measure` (text, fit, character), the highest first."""

    wants: str
    measure: Callable[[str, float, Character], tuple[float, ...]]
    floor: float = float("-inf")


def specifics_per_100(text: str) -> float:
    """Numbers, dates and names per 100 words; 0.0 for a text without words."""
    return 100.0 * textstats.specifics(text) / max(1, len(textstats.words(text)))


def markers_per_100(text: str, character: Character) -> float:
    """The character's period markers per 100 words; 0.0 for a text without words."""
    found = textstats.find_phrases(text, character.period_markers)
    return 100.0 * len(found) / max(1, len(textstats.words(text)))


def _voice_rank(text: str, _: float, character: Character) -> tuple[float, ...]:
    return textstats.voice(text, character.period_markers), markers_per_100(text, character)


# The floors are about one instance in the longest chosen answer (120 words), and two numbers or names in it.
RULES: dict[str, Rule] = {
    "base": Rule("fit", lambda text, fit, character: (fit,)),
    "voice": Rule("voice", _voice_rank),
    "source_enriched": Rule(
        "specifics per 100 words", lambda text, fit, character: (specifics_per_100(text),), floor=2.0
    ),
    "introspection": Rule(
        "first-person words per 100", lambda text, fit, character: (textstats.first_person(text),), floor=0.8
    ),
}


def trim_to_sentences(text: str, *, min_words: int, max_words: int) -> str | None:
    """The longest run of whole sentences of `text` with min_words to max_words words: a substring of it, or None.

    The run starts at the first sentence if it can: a passage opens with what its later sentences refer to. Its last
    sentence ends in a full stop, a question mark or an exclamation mark.
    """
    spans = textstats.sentence_spans(text)
    counts = [len(textstats.words(text[a:b])) for a, b in spans]
    for first in range(len(spans)):
        total, best = 0, None
        for last in range(first, len(spans)):
            total += counts[last]
            if total > max_words:
                break
            if total >= min_words and _is_ended(text[: spans[last][1]]):
                best = text[spans[first][0] : spans[last][1]]
        if best is not None:
            return best
    return None


def _is_ended(text: str) -> bool:
    return text.rstrip("\"'”’)]")[-1:] in {".", "!", "?", "…"}


@dataclass(frozen=True)
class _Candidate:
    passage_id: str
    fit: float
    text: str
    rank: tuple[float, ...]


def primary_source_responses(
    prompts: pl.DataFrame,
    passages: pl.DataFrame,
    retriever: Retriever,
    teacher: PrimarySourceTeacher,
    character: Character,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Chosen answers for `prompts` (columns PROMPTS) out of `passages`, and the prompts that got none.

    Prompts are served in the order of their best fit (then id), each passage at most `max_uses_of_a_passage` times
    over all of them, and one origin does not use the same text twice while another fitting one is left. A prompt
    looks at its first `candidates` fitting passages that are still free, reach its origin's floor and lie within
    NEARNESS of the best of these. The result depends on neither the order of the prompts nor that of the passages.

    Returns (responses, drops) with columns RESPONSES and DROPS, both sorted by prompt_id. `uses_of_passage` is the
    passage's total over all responses. Raises FoundryError for passages that may not be trained on, for an origin
    without a rule, and for a retriever that was built over other passages.
    """
    check_inputs(prompts, passages, character)
    texts = dict(zip(passages["passage_id"], passages["text"], strict=True))
    settings = teacher.model_dump(include={"max_words", "min_words", "candidates", "min_fit", "max_uses_of_a_passage"})
    trimmed: dict[str, str | None] = {}
    drops: list[tuple[str, str, str, str, float | None]] = []
    served: list[tuple[float, str, dict[str, str], list[tuple[str, float]]]] = []

    for row in prompts.sort("prompt_id").iter_rows(named=True):
        prompt_id, category = row["prompt_id"], row["category"]
        if category not in teacher.serves:
            reason = teacher.cannot_serve.get(category, "not among the categories that the teacher serves")
            drops.append((prompt_id, row["origin"], category, f"category not served: {reason}", None))
            continue
        k = teacher.candidates * SEARCH_DEPTH
        fitting, best = found_for(row["prompt"], retriever, k, teacher.min_fit, texts)
        if not fitting or best is None:
            drops.append((prompt_id, row["origin"], category, nothing_fits(best), best))
            continue
        for passage_id, _ in fitting:
            if passage_id not in trimmed:
                trimmed[passage_id] = trim_to_sentences(
                    texts[passage_id], min_words=teacher.min_words, max_words=teacher.max_words
                )
        served.append((best, prompt_id, row, fitting))

    uses: Counter[str] = Counter()
    said: set[tuple[str, str]] = set()
    rows: list[dict[str, Any]] = []
    for best, prompt_id, row, fitting in sorted(served, key=lambda s: (-s[0], s[1])):
        rule = RULES[row["origin"]]
        window, reason = _window(fitting, trimmed, uses, rule, teacher, character)
        if not window:
            drops.append((prompt_id, row["origin"], row["category"], reason, best))
            continue
        ranked = sorted(window, key=lambda c: (*(-r for r in c.rank), -c.fit, c.passage_id))
        chosen = next((c for c in ranked if (row["origin"], c.text) not in said), ranked[0])
        uses[chosen.passage_id] += 1
        said.add((row["origin"], chosen.text))
        request = {
            "teacher": PRIMARY_SOURCE,
            "settings": settings,
            "origin": row["origin"],
            "prompt": row["prompt"],
            "candidates": [[c.passage_id, c.fit] for c in window],
            "chosen": chosen.passage_id,
        }
        rows.append({**row, "chosen": chosen.text, "passage_ids": [chosen.passage_id], "fit": chosen.fit,
                     "teacher": PRIMARY_SOURCE, "teacher_request_hash": digest(request)})  # fmt: skip
    return answers_and_drops(rows, drops)


def _window(
    fitting: list[tuple[str, float]],
    trimmed: dict[str, str | None],
    uses: Counter[str],
    rule: Rule,
    teacher: PrimarySourceTeacher,
    character: Character,
) -> tuple[list[_Candidate], str]:
    """The candidates of one prompt in the order of retrieval, or no candidate and the reason."""
    whole = [(p, fit, text) for p, fit in fitting if (text := trimmed[p]) is not None]
    if not whole:
        bounds = f"{teacher.min_words} to {teacher.max_words} words"
        return [], f"no fitting passage can be cut to whole sentences of {bounds}"
    ranked = [_Candidate(p, fit, text, rule.measure(text, fit, character)) for p, fit, text in whole]
    strong = [c for c in ranked if c.rank[0] >= rule.floor]
    if not strong:
        best = max(c.rank[0] for c in ranked)
        return [], f"no fitting passage reaches the floor of {rule.floor:g} {rule.wants} (best {best:.2f})"
    free = [c for c in strong if uses[c.passage_id] < teacher.max_uses_of_a_passage]
    if not free:
        return [], f"every fitting passage is already used {teacher.max_uses_of_a_passage} times"
    nearest = max(c.fit for c in free)
    return [c for c in free if c.fit >= nearest - NEARNESS][: teacher.candidates], ""


def origin_properties(responses: pl.DataFrame, character: Character) -> pl.DataFrame:
    """What each origin's rule is for, measured on its chosen answers; one row an origin, sorted by it.

    Columns: origin, rows, voice (mean, 0 to 1), specifics (per 100 words, mean), first_person (per 100 words, mean),
    fit (mean cosine).
    """
    measured = responses.select(
        "origin",
        "fit",
        voice=pl.Series([textstats.voice(t, character.period_markers) for t in responses["chosen"]], dtype=pl.Float64),
        specifics=pl.Series([specifics_per_100(t) for t in responses["chosen"]], dtype=pl.Float64),
        first_person=pl.Series([textstats.first_person(t) for t in responses["chosen"]], dtype=pl.Float64),
    )
    return (
        measured.group_by("origin")
        .agg(pl.len().alias("rows"), *(pl.col(c).mean() for c in ("voice", "specifics", "first_person", "fit")))
        .sort("origin")
    )

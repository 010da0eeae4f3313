"""Candidate pairs: one teacher's answer and one student's answer to the same prompt, with every score a rule reads.

A pair's id is the hash of what it says, so that equal pairs are one pair wherever they were made.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import texts_digest
from foundry_pipeline.pairs import Schema
from foundry_pipeline.textcolumns import Lexicon, Texts, in_slices, read_texts, repetition, voice

PAIRS: Schema = {
    "pair_id": pl.String,
    "prompt": pl.String,
    "chosen": pl.String,
    "rejected": pl.String,
    "category": pl.String,
    "difficulty": pl.String,
    "origin": pl.String,
    "prompt_id": pl.String,
    "passage_ids": pl.List(pl.String),
    "teacher": pl.String,
    "student": pl.String,
    "teacher_request_hash": pl.String,
    "student_request_hash": pl.String,
    "fit": pl.Float64,
    "voice_chosen": pl.Float64,
    "voice_rejected": pl.Float64,
    "voice_contrast": pl.Float64,
    "repetition_rejected": pl.Float64,
    "upsample": pl.Int64,
}
CANDIDATES: Schema = {**PAIRS, "finish_reason": pl.String}
_SCORES = {c: PAIRS[c] for c in ("pair_id", "voice_chosen", "voice_rejected", "voice_contrast", "repetition_rejected")}


def pair_id(prompt: str, chosen: str, rejected: str | None, origin: str) -> str:
    """SHA-256 (hex) of what the pair says and where it comes from."""
    return texts_digest({"prompt": prompt, "chosen": chosen, "rejected": rejected, "origin": origin})


def voice_scores(texts: Texts, character: Character) -> list[float]:
    """The voice score of each text, rounded to six places so that the order of additions cannot reach a hash."""
    return [round(v, 6) for v in voice(texts, character.period_markers).tolist()]


def score_pairs(pairs: pl.DataFrame, character: Character) -> pl.DataFrame:
    """`pairs` with pair_id and the four text scores computed anew; a missing rejected side has no scores.

    Needs prompt, chosen, rejected and origin; other columns stay. Scores are rounded to six places, so that the order
    in which a machine adds cannot reach a hash.
    """
    if pairs.is_empty():
        return pairs.with_columns(pl.lit(None, t).alias(c) for c, t in _SCORES.items())
    return pl.concat(in_slices(lambda part, lexicon: _scored(part, character, lexicon), pairs))


def _scored(pairs: pl.DataFrame, character: Character, lexicon: Lexicon) -> pl.DataFrame:
    chosen, rejected = (read_texts(pairs[side], lexicon) for side in ("chosen", "rejected"))
    answered = pairs["rejected"].is_not_null()
    said, other = voice_scores(chosen, character), voice_scores(rejected, character)
    scores = {
        "voice_chosen": said,
        "voice_rejected": other,
        "voice_contrast": [round(c - r, 6) for c, r in zip(said, other, strict=True)],
        "repetition_rejected": [round(r, 6) for r in repetition(rejected).tolist()],
    }
    ids = [pair_id(*row) for row in pairs.select("prompt", "chosen", "rejected", "origin").iter_rows()]
    return pairs.with_columns(
        pl.Series("pair_id", ids, dtype=pl.String),
        pl.Series("voice_chosen", scores.pop("voice_chosen"), dtype=pl.Float64),
        *(pl.when(answered).then(pl.Series(c, v, dtype=pl.Float64)).alias(c) for c, v in scores.items()),
    )


def missing_answers(prompt_ids: Iterable[str], answers: pl.DataFrame) -> list[str]:
    """Prompts without an answer in `answers`, sorted."""
    return sorted(set(prompt_ids) - set(answers["prompt_id"]))


def candidate_pairs(responses: pl.DataFrame, answers: pl.DataFrame, character: Character) -> pl.DataFrame:
    """Join the teacher's responses with one student's answers by prompt_id: columns CANDIDATES, sorted by prompt_id.

    Every response needs an answer; answers to other prompts are left aside. `upsample` is 1.
    Raises FoundryError when an answer is missing or given twice.
    """
    missing = missing_answers(responses["prompt_id"], answers)
    if missing or answers["prompt_id"].n_unique() != answers.height:
        what = f"{len(missing)} prompts have no student answer" if missing else "a prompt has two student answers"
        raise FoundryError(
            what, where=", ".join(missing[:5]), mend="generate the student's answers for these teacher responses again"
        )
    joined = responses.join(answers, on="prompt_id", how="inner").with_columns(upsample=pl.lit(1, pl.Int64))
    return score_pairs(joined, character).select(pl.col(c).cast(t) for c, t in CANDIDATES.items()).sort("prompt_id")

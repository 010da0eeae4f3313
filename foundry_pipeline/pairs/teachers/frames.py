"""What goes into a teacher and what comes out, whichever kind it is.

    prompts     PROMPTS     one declared training prompt a row
    responses   RESPONSES   a chosen answer for each prompt that got one
    drops       DROPS       every other prompt, with the reason

`passage_ids` names the passages that an answer rests on (none: it was written from the constitution alone), `fit` is
the best cosine of the prompt with one of them, `uses_of_passage` how many answers in all rest on the most used of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import polars as pl

from foundry_pipeline.declarations.sources import Character, TrainingPrompt
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.pairs import Schema

PROMPTS: Schema = {
    "prompt_id": pl.String,
    "category": pl.String,
    "difficulty": pl.String,
    "origin": pl.String,
    "prompt": pl.String,
}
RESPONSES: Schema = {
    "prompt_id": pl.String,
    "origin": pl.String,
    "category": pl.String,
    "difficulty": pl.String,
    "prompt": pl.String,
    "chosen": pl.String,
    "passage_ids": pl.List(pl.String),
    "fit": pl.Float64,
    "teacher": pl.String,
    "teacher_request_hash": pl.String,
    "uses_of_passage": pl.Int64,
}
DROPS: Schema = {
    "prompt_id": pl.String,
    "origin": pl.String,
    "category": pl.String,
    "reason": pl.String,
    "best_fit": pl.Float64,
}
ORIGINS = ("base", "voice", "source_enriched", "introspection")
"""Origins that a training prompt may have: a teacher knows what each of them asks for."""


class Hit(Protocol):
    """One passage found for a prompt; `fit` is the cosine of both embeddings."""

    @property
    def passage_id(self) -> str: ...
    @property
    def fit(self) -> float: ...


class Retriever(Protocol):
    """Searches the training passages; best first."""

    def search(self, prompt: str, k: int) -> Sequence[Hit]: ...


def prompts_frame(prompts: Iterable[TrainingPrompt]) -> pl.DataFrame:
    """The declared training prompts as a frame: prompt_id, category, difficulty, origin, prompt."""
    return pl.DataFrame([(p.id, p.category, p.difficulty, p.origin, p.text) for p in prompts], PROMPTS, orient="row")


def check_inputs(prompts: pl.DataFrame, passages: pl.DataFrame, character: Character) -> None:
    """Raise FoundryError for passages that may not be trained on, an unknown origin, and a prompt id that occurs twice."""
    barred = passages.filter(
        (pl.col("role") != "primary")
        | pl.col("held_out")
        | pl.col("document_id").is_in(list(character.held_out_documents))
    )
    if barred.height:
        raise FoundryError(
            f"{barred.height} passages are held out or not {character.name}'s own; none may become an answer",
            where=", ".join(barred["document_id"].unique().sort().head(3)),
            mend="hand over training passages only (role primary, not held out)",
        )
    unruled = sorted(set(prompts["origin"]) - set(ORIGINS))
    if unruled:
        raise FoundryError(
            f"no rule chooses answers for prompts of origin {', '.join(unruled)}",
            where=f"sources/{character.character}/prompts/training.yaml",
            mend=f"give these prompts one of the origins {', '.join(ORIGINS)}",
        )
    if prompts["prompt_id"].n_unique() != prompts.height:
        raise FoundryError(
            "a prompt id occurs twice",
            where=f"sources/{character.character}/prompts/training.yaml",
            mend="give every training prompt its own id",
        )


def found_for(
    prompt: str, retriever: Retriever, k: int, min_fit: float, known: Iterable[str]
) -> tuple[list[tuple[str, float]], float | None]:
    """The fitting ones among the k passages found for a prompt, as (passage_id, fit), and the best fit of all found.

    Fits are rounded to four places. Raises FoundryError for a retriever that was built over other passages.
    """
    hits = [(h.passage_id, round(h.fit, 4)) for h in retriever.search(prompt, k)]
    known = set(known)
    if foreign := [p for p, _ in hits if p not in known]:
        raise FoundryError(
            f"the retriever found a passage that is not among the training passages: {foreign[0][:12]}",
            mend="build the retriever over the same training passages",
        )
    best = max((fit for _, fit in hits), default=None)
    return [(p, fit) for p, fit in hits if fit >= min_fit], best


def nothing_fits(best: float | None) -> str:
    """The reason of a prompt that no passage fits."""
    nearest = "nothing was found" if best is None else f"best fit {best:.2f}"
    return f"no fitting passage ({nearest})"


def answers_and_drops(
    rows: Sequence[dict[str, Any]], drops: Sequence[tuple[str, str, str, str, float | None]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows (RESPONSES but `uses_of_passage`) and drops as frames, both sorted by prompt_id, the uses counted."""
    uses = Counter(p for row in rows for p in row["passage_ids"])
    counted = [{**r, "uses_of_passage": max((uses[p] for p in r["passage_ids"]), default=0)} for r in rows]
    return (
        pl.DataFrame(counted, RESPONSES).sort("prompt_id"),
        pl.DataFrame(list(drops), DROPS, orient="row").sort("prompt_id"),
    )

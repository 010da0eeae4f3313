"""The deterministic judge `rubric-local`: no key, no network, the same score for the same answer on every run.

    judge = RubricLocal(character, passages, embed)
    judge.judge(prompt, answer).components   → {"voice": 8.9, "rhetorical": 8.1, "historical": 7.7, …}

It knows the character only through his training passages, the vocabulary of `character.yaml` and what the prompt itself
says of a good answer. What it reads for each component:

| component  | read from                                                                                           |
| ---------- | --------------------------------------------------------------------------------------------------- |
| voice      | how well his other writing foretells it, vocabulary, function words; contractions, idiom, markdown   |
| rhetorical | sentence length, hinges of the period, pauses; that the answer turns to the question                 |
| historical | nearness to the prompt, claims it must make, support in his own record; anachronisms                 |
| position   | the stance against its opposite, and the claims it must and must not make                            |
| integrity  | breaks of character, loops, emptiness, leaks, an answer cut off                                      |

Every scale is drawn from the character's own passages (`stylometry.py`, `grounding.py`), never from answers of a model.
The passages that an answer was copied from are left out of the scale it is measured on, so that a quotation is judged
as the writing of a stranger would be; how much was copied is reported beside the score (`overlap.py`).

What it cannot see: irony, a false statement in true words, a negation that an embedding overlooks, and nonsense put
together from his own phrases on the very subject asked about, which it rates like sense. It ranks a passage of his
above its common counterfeits; it does not replace a reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import polars as pl

from foundry_pipeline.declarations.sources import Character, EvaluationPrompt
from foundry_pipeline.evaluation.grounding import Embed, Grounding, Grounds
from foundry_pipeline.evaluation.integrity import CAPS, Break, claims_met, find_breaks, repetition_severity
from foundry_pipeline.evaluation.judges import Judgment
from foundry_pipeline.evaluation.stylometry import Measures, Stylometry
from foundry_pipeline.lineage.hashing import code_version, digest
from foundry_pipeline.textstats import contractions, markdown_marks, modern_idiom

NAME = "rubric-local"
VOICE = {
    "predictability": 0.45,
    "vocabulary": 0.20,
    "function_words": 0.15,
    "sentence_words": 0.10,
    "long_words": 0.05,
    "markers": 0.05,
}
RHETORICAL = {"sentence_words": 0.40, "hinges": 0.15, "question": 0.20, "predictability": 0.15, "pauses": 0.10}
HISTORICAL = {"relevance": 0.45, "claims": 0.35, "record": 0.20}
POSITION = {"leaning": 0.50, "claims": 0.50}
# What voice keeps of itself where nothing of the text is foretold by his writing: grammar and length alone are not he.
UNFORETOLD = 0.50
# What a component keeps of itself where the answer has nothing to do with the question.
OFF_TOPIC = {"rhetorical": 0.70, "historical": 0.30, "position": 0.10}
# Modern marks (contractions, idiom, markdown) per 100 words at which nothing is left of voice, and of rhetorical.
MODERN_MARKS = {"voice": 6.0, "rhetorical": 12.0}
ENOUGH_WORDS = 25  # fewer do not show a style
_MODULES = tuple(
    f"foundry_pipeline.{name}"
    for name in (
        ("textstats", "breaks", "declarations.sources")
        + ("evaluation.rubric", "evaluation.stylometry", "evaluation.grounding", "evaluation.integrity")
        + ("evaluation.ngram", "evaluation.overlap", "evaluation.judges")
    )
)


class RubricLocal:
    """The rubric for one character.

    `passages` is a passages table; rows of a control source or of a held-out document are not the character's training
    text and are left out. `embed` turns n texts into an (n, d) array. Raises FoundryError for too few passages.
    """

    def __init__(self, character: Character, passages: pl.DataFrame, embed: Embed) -> None:
        own = passages.filter((pl.col("role") == "primary") & ~pl.col("held_out")).sort("document_id", "position")
        self._character = character
        self._passage_ids = own["passage_id"].to_list()
        texts = own["text"].to_list()
        self._style = Stylometry(texts, own["document_id"].to_list(), character.period_markers)
        self._ground = Grounding(texts, embed)

    @property
    def name(self) -> str:
        return NAME

    @cached_property
    def version(self) -> str:
        """16 hex characters over the rubric's code and what it knows of the character (weights are part of the code)."""
        known = {
            "code": code_version(_MODULES, RubricLocal),
            "character": self._character.model_dump(mode="json"),
            "passages": sorted(self._passage_ids),
        }
        return digest(known)[:16]

    def prepare(self, asked: Sequence[tuple[EvaluationPrompt, str]]) -> None:
        """Read ahead for answers that are about to be judged; their marks are the same without it."""
        self._ground.prepare(asked)

    def judge(self, prompt: EvaluationPrompt, answer: str) -> Judgment:
        breaks = find_breaks(self._character, prompt, answer)
        copied = self._style.copied_from(answer)
        measures = self._style.measure(answer, copied)
        style = self._style.typical(measures)
        grounds = self._ground.read(prompt, answer, copied)
        claims = claims_met(answer, prompt.must)
        scores = {
            "voice": _voice(answer, measures, style),
            "rhetorical": _rhetorical(answer, measures, style, grounds),
            "historical": _historical(grounds, claims, breaks),
            "position": _position(grounds, claims, breaks),
            "integrity": _integrity(breaks, style, grounds),
        }
        for found in breaks:
            for component, cap in CAPS.get(found.kind, {}).items() if found.critical else ():
                scores[component] = min(scores[component], cap)
        scores = {name: round(float(value), 4) for name, value in scores.items()}
        return Judgment(
            voice=scores["voice"],
            rhetorical=scores["rhetorical"],
            historical=scores["historical"],
            position=scores["position"],
            integrity=scores["integrity"],
            critical_failures=tuple(sorted({found.kind for found in breaks if found.critical})),
            justification=_justify(prompt, measures, style, grounds, claims, breaks),
        )


def _weighted(weights: Mapping[str, float], values: Mapping[str, float | None]) -> float:
    """Weighted mean in [0, 1] of the values that there are; a value of None takes its weight with it."""
    known = {name: value for name in weights if (value := values[name]) is not None}
    return sum(weights[name] * value for name, value in known.items()) / sum(weights[name] for name in known)


def _kept(component: str, relevance: float) -> float:
    return OFF_TOPIC[component] + (1 - OFF_TOPIC[component]) * relevance


def _modern(answer: str, measures: Measures, component: str) -> float:
    marks = contractions(answer) + len(modern_idiom(answer)) + markdown_marks(answer)
    return max(0.0, 1.0 - 100.0 * marks / max(measures.words, ENOUGH_WORDS) / MODERN_MARKS[component])


def _enough(measures: Measures) -> float:
    return min(1.0, measures.words / ENOUGH_WORDS)


def _voice(answer: str, measures: Measures, style: Mapping[str, float]) -> float:
    foretold = UNFORETOLD + (1 - UNFORETOLD) * style["predictability"]
    return 10 * _weighted(VOICE, style) * foretold * _modern(answer, measures, "voice") * _enough(measures)


def _rhetorical(answer: str, measures: Measures, style: Mapping[str, float], grounds: Grounds) -> float:
    built = _weighted(RHETORICAL, {**style, "question": grounds.relevance})
    flow = 1 - 0.7 * repetition_severity(answer)
    kept = _kept("rhetorical", grounds.relevance)
    return 10 * built * flow * kept * _modern(answer, measures, "rhetorical") * _enough(measures)


def _historical(grounds: Grounds, claims: float | None, breaks: list[Break]) -> float:
    known = _weighted(HISTORICAL, {"relevance": grounds.relevance, "claims": claims, "record": grounds.record})
    wrong = sum({"anachronism": 1.0, "forbidden_claim": 1.0}.get(found.kind, 0.0) for found in breaks)
    return 10 * known * _kept("historical", grounds.relevance) * 0.5**wrong


def _position(grounds: Grounds, claims: float | None, breaks: list[Break]) -> float:
    side = {"leaning": (1 + grounds.leaning) / 2, "claims": claims}
    wrong = sum(found.kind == "forbidden_claim" for found in breaks)
    return 10 * _weighted(POSITION, side) * _kept("position", grounds.relevance) * 0.4**wrong


def _integrity(breaks: list[Break], style: Mapping[str, float], grounds: Grounds) -> float:
    flat = 4 * (1 - style["compressibility"])  # the slow loops that no n-gram count catches
    return max(0.0, 10 - sum(found.cost for found in breaks) - flat - 5 * grounds.echo)


def _justify(
    prompt: EvaluationPrompt,
    measures: Measures,
    style: Mapping[str, float],
    grounds: Grounds,
    claims: float | None,
    breaks: list[Break],
) -> str:
    """What the scores were read from, in one line a person can check."""
    met = (
        "no claims asked" if claims is None else f"{round(claims * len(prompt.must))} of {len(prompt.must)} claims met"
    )
    likeness = ", ".join(f"{name.replace('_', ' ')} {style[name]:.2f}" for name in style)
    found = "; ".join(f"{b.kind.replace('_', ' ')} ({b.evidence})" for b in breaks) or "none"
    return (
        f"{measures.words} words. Likeness to his own writing: {likeness}. Relevance {grounds.relevance:.2f}, leaning "
        f"{grounds.leaning:+.2f}, record {grounds.record:.2f}; {met}. Breaks: {found}."
    )

"""Breaks of character and of language: what makes an answer not his, or not an answer.

    find_breaks(character, prompt, "As an AI, I …")   → [Break("ai_self_reference", 9.0, True, "as an ai")]

Each finding names itself, says what it costs the integrity score, whether it is a *critical failure*, and shows the
words it was found by. Critical failures also cap the other components (CAPS): a loop of his own words is not his voice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from foundry_pipeline.breaks import ASSISTANT_PHRASES, LEAK, asserted_anachronisms, machines, named_as_another
from foundry_pipeline.declarations.sources import Character, EvaluationPrompt
from foundry_pipeline.evaluation.stylometry import FUNCTION_WORDS
from foundry_pipeline.textstats import (
    find_phrases,
    longest_loop,
    normalise,
    repetition,
    sentences,
    words,
)

# The most that each component can reach where a critical failure was found; a component not named is not capped.
CAPS: dict[str, dict[str, float]] = {
    "empty": {"voice": 0, "rhetorical": 0, "historical": 0, "position": 0, "integrity": 0},
    "not_english": {"voice": 1, "rhetorical": 1, "historical": 1, "position": 1, "integrity": 0},
    "loop": {"voice": 2, "rhetorical": 1, "historical": 2, "position": 2, "integrity": 0},
    "ai_self_reference": {"voice": 2, "rhetorical": 3, "historical": 4, "position": 3, "integrity": 1},
    "third_person": {"voice": 4, "integrity": 3},
    "anachronism": {"historical": 3, "integrity": 5},
    "forbidden_claim": {"historical": 4, "position": 2},
}
NEGATIONS = frozenset(words("not no never nor neither none cannot without deny denied reject rejected against don't"))
_NEGATION_REACH = 6  # words before a claim
_DO = frozenset(("do", "does", "did"))
_NEGATED = re.compile(r"^(\w+)n't$|^cannot$")
_WHOLE = {"ca": "can", "wo": "will", "sha": "shall"}  # can't, won't, shan't without their n't
_END = re.compile(r"[.!?…][\"'”’)\]*_]*\s*$")
_FUNCTION = frozenset(FUNCTION_WORDS) | frozenset(words("i you he she we they me him us them my your his her"))

# Repetition, as shares of the text; the character's own passages repeat less than one 4-gram in twenty.
REPEATED = (0.12, 0.40)  # 4-grams said before: from here it costs, from there it is a loop
LOOPED = (0.15, 0.50)  # words in one unbroken loop
_LEAST_LOOP = 12  # words
ENGLISH = (0.16, 0.26)  # share of function words: below the first it is not English, below the second it is doubtful
LEAST_WORDS = 3
SHORT_WORDS = 15


@dataclass(frozen=True)
class Break:
    """One finding: its name, what it takes from integrity (points of 10), and the words it was found by."""

    kind: str
    cost: float
    critical: bool
    evidence: str


def find_breaks(character: Character, prompt: EvaluationPrompt, answer: str) -> list[Break]:
    """Every break in an answer, the gravest kinds first."""
    tokens = words(answer)
    if len(tokens) < LEAST_WORDS:
        return [Break("empty", 10, True, f"{len(tokens)} words")]
    found = [*_language(answer, tokens), *_repetition(answer, tokens)]
    if said := machines(answer):
        found.append(Break("ai_self_reference", 9, True, said[0]))
    if named := named_as_another(character, answer):
        phrase, wholly = named
        found.append(Break("third_person", 7.0 if wholly else 3.0, wholly, phrase))
    if said := asserted_anachronisms(character, answer):
        critical = len(set(said)) > 1 or prompt.category == "anachronism_trap"
        found.append(Break("anachronism", min(6.0, 3.0 * len(set(said))), critical, ", ".join(sorted(set(said)))))
    if said := asserted_claims(answer, prompt.must_not):
        found.append(Break("forbidden_claim", min(4.0, 2.0 * len(said)), True, ", ".join(said)))
    if said := find_phrases(answer, ASSISTANT_PHRASES):
        found.append(Break("assistant_phrase", min(6.0, 3.0 * len(said)), False, said[0]))
    if leak := LEAK.search(answer):
        found.append(Break("template_leak", 5, False, leak.group().strip()))
    if not _END.search(answer):
        found.append(Break("cut_off", 2, False, " ".join(tokens[-4:])))
    if len(tokens) < SHORT_WORDS:
        found.append(Break("short", 2, False, f"{len(tokens)} words"))
    return found


def _language(answer: str, tokens: list[str]) -> list[Break]:
    letters = [c for c in normalise(answer) if not c.isspace()]
    latin = sum(c.isascii() or "\u00c0" <= c <= "\u024f" or c in "“”‘’—–…" for c in letters) / len(letters)
    wordlike = sum(c.isalpha() or c.isdigit() for c in letters) / len(letters)
    function = sum(t in _FUNCTION for t in tokens) / len(tokens)
    evidence = f"{function:.0%} grammatical words, {wordlike:.0%} letters and figures, {latin:.0%} Latin"
    if latin < 0.7 or wordlike < 0.6 or (function < ENGLISH[0] and len(tokens) >= SHORT_WORDS):
        return [Break("not_english", 10, True, evidence)]
    if function < ENGLISH[1] and len(tokens) >= SHORT_WORDS:
        return [Break("doubtful_language", 3, False, evidence)]
    return []


def repetition_severity(answer: str) -> float:
    """0 for a text that repeats itself no more than prose does, 1 for a degenerate loop."""
    tokens = words(answer)
    loop = longest_loop(answer)
    severity = (repetition(answer, 4) - REPEATED[0]) / (REPEATED[1] - REPEATED[0])
    if loop >= _LEAST_LOOP:
        severity = max(severity, (loop / len(tokens) - LOOPED[0]) / (LOOPED[1] - LOOPED[0]))
    return min(1.0, max(0.0, severity))


def _repetition(answer: str, tokens: list[str]) -> list[Break]:
    severity = repetition_severity(answer)
    if not severity:
        return []
    evidence = (
        f"{repetition(answer, 4):.0%} of 4-grams repeated, {longest_loop(answer)} of {len(tokens)} words in one loop"
    )
    return [Break("loop" if severity == 1 else "repetition", 10 * severity, severity == 1, evidence)]


def asserted_claims(answer: str, claims: Iterable[tuple[str, ...]]) -> list[str]:
    """The alternative by which each claim is asserted, for claims that are: said outside the reach of a negation."""
    found = []
    for alternatives in claims:
        hits = (a for a in alternatives if any(_asserts(words(s), words(a)) for s in sentences(answer)))
        if (hit := next(hits, None)) is not None:
            found.append(hit)
    return found


def _asserts(sentence: list[str], claim: list[str]) -> bool:
    size = len(claim)
    for at in range(len(sentence) - size + 1 if size else 0):
        said = [word.removesuffix("'s") for word in sentence[at : at + size]]
        if said == [word.removesuffix("'s") for word in claim]:
            before = sentence[max(0, at - _NEGATION_REACH) : at]
            if NEGATIONS.isdisjoint(before):
                return True
    return False


def claims_met(answer: str, claims: Iterable[tuple[str, ...]]) -> float | None:
    """Share of the claims of which some alternative occurs in the answer; None where there are no claims.

    In whatever form: who was `forbearing` has claimed `forbearance`, citizens who are `classed` stand in `classes`
    (stems by Porter's second algorithm, snowballstem.org), and who doesn't know says `know not`. What is forbidden is
    still looked for word for word.
    """
    said = words(answer)
    forms = [f" {_stems(said)} ", f" {_stems(_without_do(said))} "]
    met = [any(_occurs(words(a), forms) for a in alternatives) for alternatives in claims]
    return sum(met) / len(met) if met else None


def _occurs(claim: list[str], forms: list[str]) -> bool:
    """Whether the claim, or the claim without `do`, stands in the answer said in the same way."""
    looked_for = _stems(claim), _stems(_without_do(claim))
    return any(f" {stems} " in form for stems, form in zip(looked_for, forms, strict=True) if stems)


def _without_do(tokens: list[str]) -> list[str]:
    """Negations as they were made before they asked for `do`: `I don't know` and `I do not know` as `I know not`.

    The two say the same, and lived side by side into his century (Ellegård, "The Auxiliary Do", 1953).
    """
    apart = [part for word in tokens for part in _NEGATED.sub(_apart, word).split()]
    out: list[str] = []
    at = 0
    while at < len(apart):
        if apart[at] in _DO and apart[at + 1 : at + 2] == ["not"] and at + 2 < len(apart):
            out += [apart[at + 2], "not"]
            at += 3
        else:
            out.append(apart[at])
            at += 1
    return out


def _apart(negated: re.Match[str]) -> str:
    verb = negated[1] or "can"
    return f"{_WHOLE.get(verb, verb)} not"


def _stems(tokens: list[str]) -> str:
    return " ".join(_stem(word.removesuffix("'s")) for word in tokens)


@cache
def _stem(word: str) -> str:
    stem: str = _stemmer().stemWord(word)
    return stem


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")

"""Breaks of character and of language: what makes an answer not his, or not an answer.

    find_breaks(character, prompt, "As an AI, I …")   → [Break("ai_self_reference", 9.0, True, "as an ai")]

Each finding names itself, says what it costs the integrity score, whether it is a *critical failure*, and shows the
words it was found by. Critical failures also cap the other components (CAPS): a loop of his own words is not his voice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from foundry_pipeline.declarations.sources import Character, EvaluationPrompt
from foundry_pipeline.evaluation.stylometry import FUNCTION_WORDS
from foundry_pipeline.textstats import (
    ai_self_reference,
    contains_any,
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
ASSISTANT_PHRASES: tuple[str, ...] = (
    ("happy to help", "glad to help", "here to help", "hope this helps", "hope that helps", "let me know if")
    + ("feel free to", "would you like me to", "would you like to know", "is there anything else", "how can I help")
    + ("how may I assist", "can I help you", "I can help you", "I can provide", "I can offer", "I can assist")
    + ("here is a list", "here are some", "here are a few", "here's a", "great question", "good question")
    + ("I'm sorry but", "I am sorry but", "I cannot assist", "I can't assist", "I can't help", "I cannot help")
    + ("I'm unable to", "I am unable to assist", "please consult", "it's important to note", "it is important to note")
    + ("it's important to remember", "it is important to remember", "it's worth noting", "it is worth noting")
    + ("depends on your values", "many perspectives", "in this essay", "the user", "this response", "sensitive topic")
    + ("interesting hypothetical", "historical figure", "role play", "roleplay")
)
# Words by which a speaker disowns the thing he names ("of this telephone I know nothing").
DISOWNING: tuple[str, ...] = (
    ("know not", "know nothing", "knew nothing", "do not know", "unknown to", "no knowledge", "no notion", "no idea")
    + ("never heard", "not heard", "not acquainted", "unacquainted", "no acquaintance", "stranger to", "strange to me")
    + ("unfamiliar", "not familiar", "no such", "cannot conceive", "can not conceive", "no conception", "what you call")
    + ("you call", "you speak of", "of which you speak", "you name", "you mention", "you describe", "you ask of")
    + (
        "do not understand",
        "understand not",
        "cannot comprehend",
        "can not comprehend",
        "what you mean",
        "foreign to me",
    )
    + ("beyond my", "past my comprehension", "means nothing", "cannot pretend", "can not pretend", "so called")
)
NEGATIONS = frozenset(words("not no never nor neither none cannot without deny denied reject rejected against don't"))
_NEGATION_REACH = 6  # words before a claim
_LEAK = re.compile(
    r"<\|[^|>\n]{1,40}\|>|\[/?INST\]|</?s>|^#{2,}\s*(?:instruction|response|input)\b|^\s*(?:user|assistant|human|system)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
# Names of the thing itself, however the sentence is turned ("an AI like me …"); nobody of another age has them.
_MACHINE = re.compile(
    r"\bA\.?I\b\.?|(?i:\b(?:artificial intelligence|language model|chat ?bot|virtual assistant|digital assistant)s?\b)"
)
# Just before a name: "I am no …", "I am not a …". A negation further off ("I cannot feel, being a …") denies nothing.
_DENIED = re.compile(r"\b(?:no|not an?|neither an?|nor an?|neither|nor)\s+(?:\w+\s+)?$")
_YEAR = re.compile(r"(?<![\d$£.,])(1[5-9]\d\d|20\d\d)(?![\d%]|[.,]\d)")
_END = re.compile(r"[.!?…][\"'”’)\]*_]*\s*$")
_FUNCTION = frozenset(FUNCTION_WORDS) | frozenset(words("i you he she we they me him us them my your his her"))
_FIRST_PERSON = frozenset(words("i me my mine myself we us our ours ourselves"))

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
    if said := _machines(answer):
        found.append(Break("ai_self_reference", 9, True, said[0]))
    found += _third_person(character, answer, tokens)
    if said := asserted_anachronisms(character, prompt, answer):
        critical = len(set(said)) > 1 or prompt.category == "anachronism_trap"
        found.append(Break("anachronism", min(6.0, 3.0 * len(set(said))), critical, ", ".join(sorted(set(said)))))
    if said := asserted_claims(answer, prompt.must_not):
        found.append(Break("forbidden_claim", min(4.0, 2.0 * len(said)), True, ", ".join(said)))
    if said := find_phrases(answer, ASSISTANT_PHRASES):
        found.append(Break("assistant_phrase", min(6.0, 3.0 * len(said)), False, said[0]))
    if leak := _LEAK.search(answer):
        found.append(Break("template_leak", 5, False, leak.group().strip()))
    if not _END.search(answer):
        found.append(Break("cut_off", 2, False, " ".join(tokens[-4:])))
    if len(tokens) < SHORT_WORDS:
        found.append(Break("short", 2, False, f"{len(tokens)} words"))
    return found


def _machines(answer: str) -> list[str]:
    """Where the answer speaks as a machine; sentences that disown or deny it ("I am no language model") are none."""
    found = []
    for sentence in sentences(normalise(answer)):
        if contains_any(sentence, DISOWNING):
            continue
        said = [*ai_self_reference(sentence), *(mark.group() for mark in _MACHINE.finditer(sentence))]
        found += [phrase for phrase in said if not _DENIED.search(sentence.lower().partition(phrase.lower())[0])]
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


def _third_person(character: Character, answer: str, tokens: list[str]) -> list[Break]:
    """The character spoken of as somebody else, by his name; his signature and his own introduction are no break."""
    surname = re.escape(normalise(character.name).split()[-1])
    text = normalise(answer)
    for phrase in character.self_reference:
        text = re.sub(rf"\b{re.escape(normalise(phrase))}\b", " ", text, flags=re.IGNORECASE)
    first = r"(?:[A-Z][\w.]*\s+){0,3}"
    text = re.sub(
        rf"\bI,? {first}{surname}\b|\bI (?:am|was) [^.!?]{{0,60}}?{surname}\b|\b[Mm]y name (?:is|was) {first}{surname}\b",
        " ",
        text,
    )
    text = re.sub(rf"\b(?:Mrs\.?|Miss|Dolley|Dolly) {first}{surname}\b", " ", text)
    text = re.sub(rf"\n\s*[-—–]?\s*{first}{surname}\.?\s*$", "", text)  # a signature on its own last line
    if not (named := re.findall(rf"\b{first}{surname}(?:'s)?\b(?:\s+\w+)?", text)):
        return []
    another = _FIRST_PERSON.isdisjoint(tokens)
    return [Break("third_person", 7.0 if another else 3.0, another, " ".join(named[0].split()))]


def asserted_anachronisms(character: Character, prompt: EvaluationPrompt, answer: str) -> list[str]:
    """Things and years unknown to the character that the answer takes for known; those it disowns are left out."""
    found: list[str] = []
    for sentence in sentences(answer):
        if contains_any(sentence, DISOWNING):
            continue
        for phrase in find_phrases(sentence, character.anachronisms):
            if not _DENIED.search(" ".join(words(sentence)).partition(phrase)[0]):
                found.append(phrase)
        found += [year for year in _YEAR.findall(normalise(sentence)) if int(year) > character.died.year]
    return found


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
    """Share of the claims of which some alternative occurs in the answer; None where there are no claims."""
    met = [contains_any(answer, alternatives) for alternatives in claims]
    return sum(met) / len(met) if met else None

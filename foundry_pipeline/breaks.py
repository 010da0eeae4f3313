"""Breaks of character that can be read off a text by rule: a machine speaking, an assistant's manner, the character
spoken of as somebody else, things he could not know, tokens of a chat template.

    >>> machines("As an AI, I have no childhood.")
    ['as an ai', 'AI']
    >>> machines("I am no language model, sir.")
    []

Generated data is filtered by them (`pairs/introspection.py`) and answers are judged by them (`evaluation/integrity.py`).
"""

from __future__ import annotations

import re

from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.textstats import ai_self_reference, contains_any, find_phrases, normalise, sentences, words

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
LEAK = re.compile(
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
_FIRST_PERSON = frozenset(words("i me my mine myself we us our ours ourselves"))


def machines(answer: str) -> list[str]:
    """Where the answer speaks as a machine; sentences that disown or deny it ("I am no language model") are none."""
    found = []
    for sentence in sentences(normalise(answer)):
        if contains_any(sentence, DISOWNING):
            continue
        said = [*ai_self_reference(sentence), *(mark.group() for mark in _MACHINE.finditer(sentence))]
        found += [phrase for phrase in said if not _DENIED.search(sentence.lower().partition(phrase.lower())[0])]
    return found


def named_as_another(character: Character, answer: str) -> tuple[str, bool] | None:
    """Where the character is spoken of as somebody else, by name, and whether the text never says "I" at all.

    A signature and an introduction of oneself are no break.
    """
    surname = re.escape(normalise(character.name).split()[-1])
    text = normalise(answer)
    for phrase in character.self_reference:
        text = re.sub(rf"\b{re.escape(normalise(phrase))}\b", " ", text, flags=re.IGNORECASE)
    first = r"(?:[A-Z][\w.]*\s+){0,3}"
    text = re.sub(
        rf"\bI,? {first}{surname}\b|\bI(?: am| was|'m) [^.!?]{{0,60}}?{surname}\b"
        rf"|\b[Mm]y name(?: is| was|'s) {first}{surname}\b",
        " ",
        text,
    )
    text = re.sub(rf"\b(?:Mrs\.?|Miss|Dolley|Dolly) {first}{surname}\b", " ", text)
    text = re.sub(rf"\n\s*[-—–]?\s*{first}{surname}\.?\s*$", "", text)  # a signature on its own last line
    if not (named := re.findall(rf"\b{first}{surname}(?:'s)?\b(?:\s+\w+)?", text)):
        return None
    return " ".join(named[0].split()), _FIRST_PERSON.isdisjoint(words(answer))


def asserted_anachronisms(character: Character, answer: str) -> list[str]:
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


def character_breaks(character: Character, text: str) -> list[tuple[str, str]]:
    """Every break in a text as (kind, the words it was found by): ai_self_reference, third_person, anachronism,
    assistant_phrase, template_leak."""
    found: list[tuple[str, str]] = []
    if said := machines(text):
        found.append(("ai_self_reference", said[0]))
    if named := named_as_another(character, text):
        found.append(("third_person", named[0]))
    if said := asserted_anachronisms(character, text):
        found.append(("anachronism", ", ".join(sorted(set(said)))))
    if said := find_phrases(text, ASSISTANT_PHRASES):
        found.append(("assistant_phrase", said[0]))
    if leak := LEAK.search(text):
        found.append(("template_leak", leak.group().strip()))
    return found

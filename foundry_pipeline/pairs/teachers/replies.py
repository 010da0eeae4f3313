"""Reading a generated teacher's reply: what it said, or why it cannot be used. Nothing is repaired.

    parse_reply('{"answer": "I never …", "passages_used": [2], "declined": null}', "stop", shown=3, bounds=(30, 400))
    → Answer(text="I never …", passages=(2,))

    parse_reply('{"answer": "I nev', "length", shown=3, bounds=(30, 400))
    → Fault("cut", "cut by the token limit")

The reason a reply was ended for is looked at before its text: a refused or cut reply is none, however good it looks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foundry_pipeline import textstats
from foundry_pipeline.models.requests import FinishReason

FIELDS = frozenset({"answer", "passages_used", "declined"})
_SHOWN = 160  # characters of a stranger's text in a reason


@dataclass(frozen=True)
class Answer:
    """A usable reply. `passages` are the numbers of the passages it rests on: sorted, each once, from 1."""

    text: str
    passages: tuple[int, ...]


@dataclass(frozen=True)
class Fault:
    """Why a reply cannot be used: the kind by which it is counted, and the reason in words."""

    kind: str
    reason: str


class _NotTheReply(ValueError):
    """The text is not the JSON object that was asked for."""


def parse_reply(
    text: str,
    finish_reason: FinishReason,
    *,
    shown: int,
    bounds: tuple[int, int],
    needs_passage: bool = False,
    structured: bool = True,
) -> Answer | Fault:
    """The answer in a reply, or its fault.

    `shown` passages were in view, numbered from 1; an answer may have `bounds` words (least, most). A free text
    (`structured` False) rests on every passage that was in view. Faults by kind: refused, cut, empty, malformed,
    declined, passages (a number that was not shown, or none where one is needed), length.
    """
    if finish_reason == "refusal":
        return Fault("refused", "the model refused to answer")
    if finish_reason == "length":
        return Fault("cut", "cut by the token limit")
    if not text.strip():
        return Fault("empty", "the reply is empty")
    if structured:
        try:
            answer, passages, declined = _fields(text)
        except _NotTheReply as error:
            return Fault("malformed", f"not the reply that was asked for: {error}")
        if declined.strip():
            return Fault("declined", f"declined: {_short(declined)}")
        if not answer.strip():
            return Fault("empty", "the answer is empty and nothing says why")
        if stray := sorted({n for n in passages if not 1 <= n <= shown}):
            return Fault("passages", f"rests on passage {stray[0]}, and {shown} were in view")
    else:
        answer, passages = text, list(range(1, shown + 1))
    if needs_passage and not passages:
        return Fault("passages", "rests on no passage, and this prompt needs one")
    words = len(textstats.words(answer))
    least, most = bounds
    if words < least:
        return Fault("length", f"{words} words, fewer than {least}")
    if words > most:
        return Fault("length", f"{words} words, more than {most}")
    return Answer(answer.strip(), tuple(sorted(set(passages))))


def parse_question(text: str, finish_reason: FinishReason, *, most: int) -> str | Fault:
    """What the interlocutor of a dialogue says next: free text of at most `most` words."""
    if finish_reason == "refusal":
        return Fault("refused", "the model refused to ask")
    if finish_reason == "length":
        return Fault("cut", "a question was cut by the token limit")
    words = len(textstats.words(text))
    if not words:
        return Fault("empty", "a question is empty")
    if words > most:
        return Fault("length", f"a question of {words} words, more than {most}")
    return text.strip()


def _fields(text: str) -> tuple[str, list[int], str]:
    """The three fields of a reply. Raises _NotTheReply for anything but one object with exactly them."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _NotTheReply("a field is there twice")
        return found

    def no_number(name: str) -> None:
        raise _NotTheReply(f"{name} is no number")

    try:
        found = json.loads(text, object_pairs_hook=unique, parse_constant=no_number)
    except _NotTheReply:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more digits than Python reads
        raise _NotTheReply(f"no JSON ({_short(str(error))})") from error
    if not isinstance(found, dict):
        raise _NotTheReply(f"a {type(found).__name__}, no object")
    if missing := sorted(FIELDS - found.keys()):
        raise _NotTheReply(f"no field {', '.join(missing)}")
    if strange := sorted(found.keys() - FIELDS):
        raise _NotTheReply(f"unknown field {_short(', '.join(strange))}")
    answer, passages = found["answer"], found["passages_used"]
    declined = "" if found["declined"] is None else found["declined"]
    if not isinstance(answer, str) or not isinstance(declined, str):
        raise _NotTheReply("`answer` must be a text, and `declined` null or a text")
    # bool is an int to Python, and true is no number to JSON.
    if not isinstance(passages, list) or not all(type(n) is int for n in passages):
        raise _NotTheReply("`passages_used` must be a list of whole numbers")
    try:
        answer.encode()
        declined.encode()
    except UnicodeEncodeError as error:
        raise _NotTheReply("half of a surrogate pair in a text") from error
    return answer, passages, declined


def _short(text: str) -> str:
    """One line of a stranger's text, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"

"""One row of preference pairs in whatever form TRL takes it, as three texts.

    >>> row_texts({"chosen": [user, good], "rejected": [user, bad]}, faults.append)
    {'prompt': 'What is a faction?', 'chosen': 'By a faction I understand …', 'rejected': 'A group.'}

A side is a text, or a conversation: a list of {role, content} messages. A conversation is read as its messages' texts
with an empty line between them; a system message is not part of what is asked. Without a prompt, the messages that both
sides begin with are the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SIDES = ("prompt", "chosen", "rejected")


def sound(text: str) -> str:
    """JSON may hold half of a surrogate pair, which no text can: it becomes the replacement character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def row_texts(row: Mapping[str, Any], fault: Callable[[str], None]) -> dict[str, str | None]:
    """The three sides of a row as texts; what cannot be one is a fault."""
    nothing: dict[str, str | None] = dict.fromkeys(SIDES)
    if missing := [side for side in ("chosen", "rejected") if side not in row]:
        fault(f"no {' and no '.join(missing)}")
        return nothing
    sides = {side: row[side] for side in SIDES if side in row}
    if "prompt" not in row:
        if None in sides.values() and all(s is None or isinstance(s, list) for s in sides.values()):
            return nothing  # half a conversation: a pair that lacks a side, as it may in any form
        if not (isinstance(sides["chosen"], list) and isinstance(sides["rejected"], list)):
            fault("no prompt")
            return nothing
        sides = _implicit(sides["chosen"], sides["rejected"])
    out = dict(nothing)
    for side, value in sides.items():
        try:
            out[side] = _text(value)
        except TypeError as error:
            fault(f"{side} {error}")
    return out


def _implicit(chosen: list[Any], rejected: list[Any]) -> dict[str, Any]:
    """Prompt and answers of two conversations that begin alike."""
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}


def _text(value: Any) -> str | None:
    """A text, a conversation's texts with an empty line between them, or None; TypeError says what it is instead."""
    if value is None or isinstance(value, str):
        return None if value is None else sound(value)
    if not isinstance(value, list):
        raise TypeError(f"is {kind_of(value)}, not a text or a list of messages")
    texts = []
    for message in value:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):  # parts: {"type": "text", "text": …}
            content = "\n\n".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
        if not isinstance(content, str):
            raise TypeError("has a message without `content`")
        if message.get("role") != "system":
            texts.append(sound(content))
    return "\n\n".join(texts)

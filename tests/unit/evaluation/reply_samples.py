"""Judges' replies for tests: whole ones, mutated ones, and an independent look for the numbers of a score."""

from __future__ import annotations

import json
import random
import re
from typing import Any

COMPONENTS = ("voice", "rhetorical", "historical", "position", "integrity")
REPLY: dict[str, Any] = {
    "voice": 8,
    "rhetorical": 7.5,
    "historical": 9,
    "position": 9,
    "integrity": 10,
    "overall_score": 8,
    "critical_failures": ["names a railway", 'says "okay"'],
    "justification": 'The period is long; "heretofore" is his. Costs: none, {really}.',
}
OVERALL = 8.6  # 0.25·8 + 0.2·7.5 + 0.2·9 + 0.2·9 + 0.15·10
_GAP = r"""[\s"'“”‘’\ufeff\u200b\u2060]*(?:(?:/\*.*?\*/|(?://|\#)[^\n]*)[\s\ufeff\u200b\u2060]*)*"""
_NUMBER = r"(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
_SOUGHT = {name: re.compile(rf"{name}{_GAP}:{_GAP}{_NUMBER}", re.DOTALL) for name in COMPONENTS}
_ODD = list("{}[],:\"'“”‘\\/*#`\n\t 0123456789.-+eEnNtfu\x00é") + [
    "```",
    "//",
    "/*",
    "*/",
    "NaN",
    "true",
    "null",
    "1e999",
]


def reply(**changes: Any) -> str:
    """A whole reply; a field of the value None is left out."""
    return json.dumps({k: v for k, v in {**REPLY, **changes}.items() if v is not None}, indent=1)


def drawn(draw: random.Random) -> str:
    """A whole reply with drawn numbers, laid out in one way or another."""
    numbers = {name: draw.choice([draw.randint(0, 10), round(draw.uniform(0, 10), 2)]) for name in COMPONENTS}
    text = reply(**numbers, overall_score=draw.choice([None, draw.randint(0, 10)]))
    text = text if draw.random() < 0.7 else json.dumps(json.loads(text))
    return text if draw.random() < 0.7 else f"```json\n{text}\n```"


def mutated(draw: random.Random, text: str) -> str:
    """The text after one to four small accidents."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text) + 1)
        kind = draw.randrange(8)
        if kind <= 1:
            text = text[:at] + draw.choice(_ODD) + text[at:]
        elif kind == 2:
            text = text[:at] + text[at + 1 :]
        elif kind == 3:
            text = text[:at] + draw.choice(_ODD) + text[at + 1 :]
        elif kind == 4:
            text = text[:at] + text[at + draw.randint(1, 40) :]
        elif kind == 5:
            text = text[:at] + text[max(0, at - draw.randint(1, 60)) :]
        elif kind == 6:
            text = text[:at] if draw.random() < 0.2 else re.sub(draw.choice([",", '"', ":", "\\\\"]), "", text, count=1)
        else:
            other = draw.choice(COMPONENTS)
            text = text.replace(f'"{other}"', draw.choice([f"'{other}'", other, f"“{other}”", '"voice"']), 1)
    return text


def stands_there(name: str, value: float, text: str) -> bool:
    """Whether the text holds the component's name with exactly this number after it, looked for by other means."""
    return any(float(found) == value for found in _SOUGHT[name].findall(text))

r"""Values and texts as the documentation may hold them: what JSON can say, and what a reader can see.

>>> as_json({"rate": float("nan"), "modes": ("base",)})
{'rate': 'nan', 'modes': ['base']}
>>> visible("a\u202eb")
'a\\u202eb'
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def as_json(value: Any) -> Any:
    """`value` of mappings, lists, texts and numbers; whatever JSON has no word for as its text."""
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def visible(text: str) -> str:
    """`text` with control characters and marks that turn the direction of reading written out; line ends and tabs stay."""
    return _STEERING.sub(lambda m: f"\\u{ord(m[0]):04x}", text.replace("\r\n", "\n"))


def all_visible(value: Any) -> Any:
    """A value as `as_json` gives it, every text and key of it made visible."""
    if isinstance(value, dict):
        return {visible(k): all_visible(v) for k, v in value.items()}
    if isinstance(value, list):
        return [all_visible(v) for v in value]
    return visible(value) if isinstance(value, str) else value

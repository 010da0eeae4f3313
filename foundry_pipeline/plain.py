r"""Text of unknown origin, made harmless for a terminal: shown as it is read, never obeyed.

    plain("\x1b[31mred\u202e[bold]")  → '\\x1b[31mred\\u202e[bold]'
    plain("a  b\nc")                   → 'a  b⏎c'
    plain("long text", 6)              → 'long …'

Escape sequences, control characters (C0 and C1, by which a terminal is steered) and marks that turn the direction of
reading or hide characters are written out as escapes. Markup of `rich` is not read, because what is returned is put into
`rich.text.Text`, never into a string that `rich` parses.
"""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\u200c\u200d")  # joiners that scripts and emoji need, invisible but harmless
_LINE = frozenset("\n\u2028\u2029\x0b\x0c\x85")


def plain(text: str, limit: int | None = None) -> str:
    """`text` on one line with everything that a terminal could obey written out; at most `limit` characters."""
    # Cut before the work, so that a text of ten megabytes costs no more than what is shown of it.
    cut = text if limit is None else text[: limit + 1]
    out = "".join(map(_shown, cut.replace("\r\n", "\n")))
    return out if limit is None or len(out) <= limit else out[: max(0, limit - 1)] + "…"


def _shown(char: str) -> str:
    if char in _LINE:
        return "⏎"
    if char == "\t":
        return " "
    kind = unicodedata.category(char)
    if kind in ("Cc", "Cs", "Co", "Cn") or (kind == "Cf" and char not in _KEPT):
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char

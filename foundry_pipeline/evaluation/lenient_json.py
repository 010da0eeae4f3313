"""One flat JSON object out of a text that is nearly JSON: its syntax is mended, its content never guessed.

    mend('Here it is:\\n```json\\n{"voice": 7.5, "critical_failures": [],}\\n```', frozenset({"voice"}))
    → Mended(text='{"voice": 7.5, "critical_failures": []}', repairs=("code fence", "trailing comma"))

What is mended: text or a code fence around the one object, comments, trailing commas, missing commas between entries,
single and typographic quotes, known keys without quotes, quotes inside a text that were not escaped, line breaks inside
a text, escapes that JSON does not know. What is not, since any mending of it would be a guess: an object that does not
end, a second object or any further brace, an object inside the object, a word where a number belongs, a number that JSON
does not know (`.5`, `7/10`, `NaN`). Every number of the result stands in the text digit for digit.

General repairers go further than a score may: they close what was cut off, and of two objects they take the last.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

_LONGEST = 100_000  # characters; a judge's reply has a few thousand
_SPACE = re.compile(r"[\s\ufeff\u200b\u2060]+")
_COMMENT = re.compile(r"//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?=[\s,}\]#\ufeff]|//|/\*|$)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOUBLE, _SINGLE = '"“”„', "'‘’‚"
_QUOTED_KEY = rf"[{_DOUBLE}][^{_DOUBLE}\\\n]{{1,64}}[{_DOUBLE}]|[{_SINGLE}][A-Za-z0-9_ -]{{1,64}}[{_SINGLE}]"
_KEY = re.compile(rf"(?:{_QUOTED_KEY})")
# Up to the next quote of a kind that is not escaped.
_SCANS = {q: re.compile(rf"[^{q}\\]*(?:\\.[^{q}\\]*)*", re.DOTALL) for q in ('"', _DOUBLE, _SINGLE)}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")


class Unreadable(ValueError):
    """Why a text cannot be read as one object without guessing."""


@dataclass(frozen=True)
class Mended:
    """Strict JSON, and what was mended to get it; the same key twice stays there twice."""

    text: str
    repairs: tuple[str, ...]


def mend(text: str, keys: frozenset[str]) -> Mended:
    """The one object in a text as strict JSON. `keys` are those that may stand without quotes.

    Raises Unreadable. Time is linear in the length of the text.
    """
    if len(text) > _LONGEST:
        raise Unreadable(f"{len(text)} characters are too many to be mended")
    start = text.find("{")
    if start < 0:
        raise Unreadable("there is no object in it")
    reader = _Reader(text, start, keys)
    body = reader.object()
    before, after = text[:start], text[reader.at :]
    if any(c in part for part in (before, after) for c in "{}"):
        raise Unreadable("there is more than one object, or a brace too many")
    if before.rstrip().endswith("[") or after.lstrip()[:1] in ("]", ","):
        raise Unreadable("the object is part of a list")
    if "```" in before or "~~~" in before:
        reader.note("code fence")
    elif before.strip(" \t\r\n") or after.strip(" \t\r\n"):
        reader.note("text around the object")
    if "unescaped quotes" in reader.repairs:
        reader.unambiguous(text[start : reader.at])
    return Mended(body, tuple(reader.repairs) or ("white space",))


def whole_text(text: str) -> str:
    """A text without halves of surrogate pairs, which can be written down nowhere; two halves that fit are joined."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def _ends(keys: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What has to stand after a quote for it to end a text, as a value and in a list: the end, or what comes next there,
    after a comma or a missing one."""
    bare = "|".join(sorted(map(re.escape, keys))) or r"(?!)"
    key = rf"(?:{_QUOTED_KEY}|(?:{bare}))\s*:"
    value = rf"\s*(?:\}}|,\s*(?:\}}|{key}|//|/\*|#)|//|/\*|#)|\s+{key}"
    item = rf"\s*(?:\]|,\s*(?:\]|[{_DOUBLE}{_SINGLE}]|//|/\*|#)|//|/\*|#)|\s*\n\s*[{_DOUBLE}]"
    return re.compile(value), re.compile(item)


class _Reader:
    """Reads one object from `at` on; `repairs` names what it passed over, each kind once, in the order met."""

    def __init__(self, text: str, at: int, keys: frozenset[str]) -> None:
        self.text, self.at, self.repairs = text, at, list[str]()
        self._bare = keys
        self._ends_value, self._ends_item = _ends(keys)
        self._names: list[str] = []

    def note(self, repair: str) -> None:
        if repair not in self.repairs:
            self.repairs.append(repair)

    def object(self) -> str:
        self.at += 1
        entries: list[str] = []
        while True:
            comma = self._comma(bool(entries))
            if self._next() == "}":
                if comma:
                    self.note("trailing comma")
                self.at += 1
                return "{" + ", ".join(entries) + "}"
            if entries and not comma:
                self._apart()
                self.note("missing comma")
            name = self._key()
            self._skip()
            if self._next() != ":":
                raise Unreadable(f"no colon after {name!r}")
            self.at += 1
            self._skip()
            entries.append(f"{json.dumps(name)}: {self._value()}")

    def unambiguous(self, source: str) -> None:
        """Raise where a key could be read in two places, since a quote inside a text was taken for part of it."""
        for name in self._names:
            quotes = f"[{_DOUBLE}{_SINGLE}]"
            if len(re.findall(rf"{quotes}{re.escape(name)}{quotes}\s*:", source)) > 1:
                raise Unreadable(f"quotes inside a text leave open which {name!r} is meant")

    def _next(self) -> str:
        if self.at >= len(self.text):
            raise Unreadable("it ends inside the object")
        return self.text[self.at]

    def _skip(self) -> None:
        while True:
            if found := _SPACE.match(self.text, self.at):
                self.at = found.end()
            elif found := _COMMENT.match(self.text, self.at):
                self.at = found.end()
                self.note("comment")
            else:
                return

    def _comma(self, after_entry: bool) -> bool:
        """Pass over a comma, where there is one, and what surrounds it."""
        self._skip()
        if not after_entry or self._next() != ",":
            return False
        self.at += 1
        self._skip()
        return True

    def _apart(self) -> None:
        """Raise unless white space (or a comment) stands between two entries that no comma parts."""
        if not _SPACE.match(self.text, self.at - 1) and self.text[self.at - 2 : self.at] != "*/":
            raise Unreadable("two entries run into each other")

    def _key(self) -> str:
        if found := _KEY.match(self.text, self.at):
            name = found.group()[1:-1]
            if found.group()[0] != '"' or found.group()[-1] != '"':
                self.note("quotes")
        elif (found := _WORD.match(self.text, self.at)) and found.group() in self._bare:
            name = found.group()
            self.note("key without quotes")
        else:
            raise Unreadable(f"no key where one belongs: {self.text[self.at : self.at + 20]!r}")
        self.at = found.end()
        self._names.append(name)
        return name

    def _value(self) -> str:
        if self._next() == "[":
            return self._list()
        return self._scalar(self._ends_value)

    def _list(self) -> str:
        self.at += 1
        items: list[str] = []
        while True:
            comma = self._comma(bool(items))
            if self._next() == "]":
                if comma:
                    self.note("trailing comma")
                self.at += 1
                return "[" + ", ".join(items) + "]"
            if items and not comma:
                self._apart()
                self.note("missing comma")
            items.append(self._scalar(self._ends_item))

    def _scalar(self, ends: re.Pattern[str]) -> str:
        mark = self._next()
        if mark in _DOUBLE or mark in _SINGLE:
            return self._text(mark, ends)
        if found := _NUMBER.match(self.text, self.at):
            self.at = found.end()
            return found.group()
        if mark == "{":
            raise Unreadable("there is an object inside the object")
        raise Unreadable(f"neither a number nor a text: {self.text[self.at : self.at + 20]!r}")

    def _text(self, mark: str, ends: re.Pattern[str]) -> str:
        if mark != '"':
            self.note("quotes")
        quotes = '"' if mark == '"' else _DOUBLE if mark in _DOUBLE else _SINGLE
        scan = _SCANS[quotes]
        start = at = self.at + 1
        inner = False
        while True:
            found = scan.match(self.text, at)
            assert found is not None  # it matches the empty text
            at = found.end()
            if at >= len(self.text) or self.text[at] == "\\":
                raise Unreadable("it ends inside a text")
            if ends.match(self.text, at + 1):
                break
            inner = True
            at += 1
        # An apostrophe inside a text in single quotes is no surprise; anything else was meant to be escaped.
        if inner and quotes == '"':
            self.note("unescaped quotes")
        self.at = at + 1
        return json.dumps(whole_text(self._unescaped(self.text[start:at])), ensure_ascii=False)

    def _unescaped(self, raw: str) -> str:
        if _CONTROL.search(raw):
            self.note("line break in a text")
        return _ESCAPE.sub(self._one_escape, raw) if "\\" in raw else raw

    def _one_escape(self, found: re.Match[str]) -> str:
        said = found.group(1)
        if len(said) == 5:
            return chr(int(said[1:], 16))
        if said in '"\\/':
            return said
        if said in _ESCAPES:
            return _ESCAPES[said]
        self.note("escapes")
        return said if said in _DOUBLE + _SINGLE else found.group()

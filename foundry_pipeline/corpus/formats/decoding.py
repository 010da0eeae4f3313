"""Bytes to letters, and never by a guess.

    >>> decode(b"caf\\xc3\\xa9", where="letter.txt")
    ('café', 'utf-8')
    >>> decode(b"caf\\xe9", where="letter.txt", declared="ISO-8859-1")
    ('café', 'windows-1252')

A byte-order mark decides; else a text that is UTF-8 is UTF-8; else the encoding that the file, the server or the manifest
declares. A text that is none of these is refused with what it seems to be: a curly quote read in the wrong encoding
would go into every pair made from it, and nobody would be told.
"""

from __future__ import annotations

import codecs

from foundry_pipeline.errors import FoundryError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it opens with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(data: bytes, *, where: str, declared: str = "", mend: str = "") -> tuple[str, str]:
    """The text and the encoding it was read in.

    `declared` is a name such as `ISO-8859-1`; as in the WHATWG encoding standard, Latin-1 and ASCII are read as
    Windows-1252, which differs only where Latin-1 has control characters that no text holds. Raises FoundryError for
    an unknown encoding, for bytes that do not fit it, and for text that is not UTF-8 with nothing declared.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding, where), encoding.removesuffix("-sig")
    name = _known(declared, where) if declared else ""
    if name.startswith(("utf-16", "utf-32")):
        return _strict(data, name, where), name
    if name not in ("", "utf-8"):
        # What is declared as another encoding may still be UTF-8: servers say Latin-1 by habit.
        try:
            return data.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            return _strict(data, name, where), "windows-1252" if name == "cp1252" else name
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
        guess = "windows-1252" if _fits(data, "cp1252") else ""
        if guess:
            what += f"; it would read as {guess}"
        raise FoundryError(
            what,
            where=where,
            mend=mend or "declare `encoding: windows-1252` (or what it is), or save the file as UTF-8",
        ) from error


def _known(declared: str, where: str) -> str:
    try:
        name = codecs.lookup(declared.strip().strip("\"'")).name
    except (LookupError, ValueError) as error:
        raise FoundryError(
            f"the declared encoding {declared[:60]!r} is not known", where=where, mend="declare `encoding: utf-8`"
        ) from error
    if not getattr(codecs.lookup(name), "_is_text_encoding", True):
        raise FoundryError(f"{declared!r} is no text encoding", where=where, mend="declare `encoding: utf-8`")
    return "cp1252" if name in ("iso8859-1", "ascii", "cp1252", "latin-1") else name


def _strict(data: bytes, encoding: str, where: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise FoundryError(
            f"the text says it is {encoding} and byte {error.start} does not fit that",
            where=where,
            mend="get the file again, or save it as UTF-8",
        ) from error


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True

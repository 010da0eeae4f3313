"""Plain text: the file's own letters, nothing changed.

>>> read_plain(b"Dear Sir,\\r\\n\\r\\nYours.", where="letter.txt").text
'Dear Sir,\\r\\n\\r\\nYours.'
"""

from __future__ import annotations

import codecs

from foundry_pipeline.corpus.formats.decoding import decode
from foundry_pipeline.corpus.formats.document import FormatDocument, counted
from foundry_pipeline.errors import FoundryError

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


def read_plain(data: bytes, *, where: str, encoding: str = "", mend: str = "") -> FormatDocument:
    """A text file; raises FoundryError for binary data and as `decode` does."""
    if b"\0" in data[: 1 << 16] and not data.startswith(_WIDE) and "16" not in encoding and "32" not in encoding:
        raise FoundryError(
            "the file holds zero bytes: it is no text, or UTF-16 without its byte-order mark",
            where=where,
            mend=mend or "save it as UTF-8 text, or declare `encoding: utf-16-le`",
        )
    text, read_as = decode(data, where=where, declared=encoding, mend=mend)
    return FormatDocument(text, "text", encoding=read_as, counts=counted(text))
